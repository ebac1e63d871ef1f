using System.Collections;
using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Fills columns of a live table batch by batch; run again, it goes on where it was.</summary>
[Cmdlet(VerbsLifecycle.Start, "Backfill", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium, DefaultParameterSetName = UpdateSet)]
[OutputType(typeof(BackfillResult), typeof(MigrationJob))]
public sealed class StartBackfillCommand : BackfillCmdlet
{
    private const string UpdateSet = "Update";
    private const string DeleteSet = "Delete";

    /// <summary>Table, as in SQL.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string Table { get; set; } = "";

    /// <summary>Column to SQL expression: <c>@{ tier = "'standard'" }</c>.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true, ParameterSetName = UpdateSet)]
    [ValidateNotNullOrEmpty]
    public IDictionary Set { get; set; } = new Hashtable();

    /// <summary>Deletes the rows instead.</summary>
    [Parameter(Mandatory = true, ParameterSetName = DeleteSet)]
    public SwitchParameter Delete { get; set; }

    /// <summary>Keeps what is overwritten or deleted in a table of the schema migration_safety, so that it can be put back. Needs a unique key.</summary>
    [Parameter]
    public SwitchParameter KeepOldValues { get; set; }

    /// <summary>Another table, as in the FROM of an UPDATE, that expressions and condition look into: <c>customers c</c>.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? From { get; set; }

    /// <summary>Which rows; without it those where a target column is NULL. Must turn false for a row that is filled.</summary>
    [Parameter(Position = 2, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string? Where { get; set; }

    /// <summary>Schema of the table, where <see cref="Table"/> does not name it.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SchemaNameCompleter))]
    public string? Schema { get; set; }

    // Not from the pipeline: the Name of another cmdlet's result names something else.
    /// <summary>Name under which it is resumed; made from table and columns where none is given.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(BackfillNameCompleter))]
    public string? Name { get; set; }

    /// <summary>How many batches are run and rolled back first, so that the estimate is measured.</summary>
    [Parameter]
    [ValidateRange(0, 1000)]
    public int SampleBatch { get; set; }

    /// <summary>How it walks through the table; chosen from the catalog where it is not given.</summary>
    [Parameter]
    public BackfillStrategy Strategy { get; set; }

    private protected override Task<BackfillPlan> PlanAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        List<KeyValuePair<string, string>> set = [];
        foreach (DictionaryEntry entry in Set)
        {
            string? expression = (entry.Value is PSObject wrapped ? wrapped.BaseObject : entry.Value) as string;
            if (entry.Key is not string column || string.IsNullOrWhiteSpace(expression))
            {
                throw new MigrationException(
                    "InvalidSet",
                    MigrationErrorKind.InvalidInput,
                    $"-Set: the value for '{entry.Key}' is not a text with a SQL expression.",
                    "Write column = expression, both as text: -Set @{ tier = \"'standard'\"; total = 'price * quantity' }.")
                {
                    Target = entry.Key?.ToString(),
                };
            }

            set.Add(new(column, expression));
        }

        // A hashtable has no order; a plan that changes from run to run would be another backfill each time.
        if (Set is not System.Collections.Specialized.IOrderedDictionary)
        {
            set.Sort((left, right) => string.CompareOrdinal(left.Key, right.Key));
        }

        return Backfill.PlanAsync(
            session,
            AsAsked(
                new BackfillRequest
                {
                    Table = Table,
                    Schema = Schema,
                    Set = set,
                    Where = Where,
                    Delete = Delete,
                    From = From,
                    KeepOldValues = KeepOldValues,
                    SampleBatch = SampleBatch,
                    Name = Name,
                    Strategy = Strategy,
                    Options = Options,
                }),
            sink,
            cancellationToken);
    }
}
