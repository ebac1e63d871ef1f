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
    private const string InsertSet = "InsertInto";

    /// <summary>Table, as in SQL.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string Table { get; set; } = "";

    /// <summary>Column to SQL expression: <c>@{ tier = "'standard'" }</c>.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true, ParameterSetName = UpdateSet)]
    [ValidateNotNullOrEmpty]
    public PSObject Set { get; set; } = new(new Hashtable());

    /// <summary>Deletes the rows instead.</summary>
    [Parameter(Mandatory = true, ParameterSetName = DeleteSet)]
    public SwitchParameter Delete { get; set; }

    /// <summary>Copies the rows into this table instead, those that are not there yet by its unique key.</summary>
    [Parameter(Mandatory = true, ParameterSetName = InsertSet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string? InsertInto { get; set; }

    /// <summary>Schema of the table that is copied into, where <see cref="InsertInto"/> does not name it.</summary>
    [Parameter(ParameterSetName = InsertSet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SchemaNameCompleter))]
    public string? InsertIntoSchema { get; set; }

    /// <summary>Column of that table to SQL expression over the source: <c>@{ total = 'price * quantity' }</c>; what is not named comes from the column of the same name, $null leaves one to its default.</summary>
    [Parameter(ParameterSetName = InsertSet)]
    [ValidateNotNull]
    public PSObject Select { get; set; } = new(new Hashtable());

    /// <summary>Keeps what is overwritten or deleted in a table of the schema migration_safety, so that it can be put back. Needs a unique key.</summary>
    [Parameter(ParameterSetName = UpdateSet)]
    [Parameter(ParameterSetName = DeleteSet)]
    public SwitchParameter KeepOldValues { get; set; }

    /// <summary>Another table, as in the FROM of an UPDATE, that expressions and condition look into: <c>customers c</c>.</summary>
    [Parameter(ParameterSetName = UpdateSet)]
    [Parameter(ParameterSetName = DeleteSet)]
    [ValidateNotNullOrEmpty]
    public string? From { get; set; }

    /// <summary>Which rows; without it those where a target column is NULL. Must turn false for a row that is filled.</summary>
    [Parameter(Position = 2, ValueFromPipelineByPropertyName = true)]
    [ConditionText]
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

    private protected override bool DestroysData => Delete && !KeepOldValues;

    private protected override IEnumerable<Func<EngineSession, IOperationSink, CancellationToken, Task<BackfillPlan>>> Plans(EngineSession session)
    {
        try
        {
            // What is copied would have to find its way into other shards.
            IReadOnlyList<TableShard> shards = InsertInto is not null ? [] : Runner.Wait((sink, token) => DistributedTable.ShardsAsync(session, Table, Schema, From is not null, sink, token));
            return shards.Count == 0
                ? [(same, sink, token) => PlanAsync(same, null, sink, token)]
                : [.. shards.Select<TableShard, Func<EngineSession, IOperationSink, CancellationToken, Task<BackfillPlan>>>(shard => (_, sink, token) => PlanAsync(shard.Session, shard, sink, token))];
        }
        catch (MigrationException e)
        {
            WriteError(ErrorRecords.Of(e));
            return [];
        }
    }

    private Task<BackfillPlan> PlanAsync(EngineSession session, TableShard? shard, IOperationSink sink, CancellationToken cancellationToken)
    {
        List<KeyValuePair<string, string?>> set = Expressions(Set, nameof(Set));
        List<KeyValuePair<string, string?>> select = Expressions(Select, nameof(Select));
        return Backfill.PlanAsync(
            session,
            AsAsked(
                new BackfillRequest
                {
                    Table = shard?.Table ?? Table,
                    Schema = shard?.Schema ?? Schema,
                    Set = [.. set.Select(column => new KeyValuePair<string, string>(column.Key, column.Value!))],
                    InsertInto = InsertInto,
                    InsertIntoSchema = InsertIntoSchema,
                    Select = select,
                    Where = Where,
                    Delete = Delete,
                    From = From,
                    KeepOldValues = KeepOldValues,
                    SampleBatch = SampleBatch,
                    Name = Name is null || shard is null ? Name : $"{Name}.{shard.Id}",
                    Strategy = Strategy,
                    Options = Options,
                }),
            sink,
            cancellationToken);
    }

    /// <summary>What a dictionary, or an object such as ConvertFrom-Json makes, says of columns, as texts.</summary>
    private static List<KeyValuePair<string, string?>> Expressions(PSObject given, string parameter)
    {
        MigrationException Invalid(string what, string? target) => new(
            $"Invalid{parameter}",
            MigrationErrorKind.InvalidInput,
            $"-{parameter}: {what}.",
            $"Write column = expression, both as text: -{parameter} @{{ tier = \"'standard'\"; total = 'price * quantity' }}.")
        {
            Target = target,
        };
        IEnumerable<(object Column, object? Expression)> entries = given.BaseObject switch
        {
            IDictionary dictionary => dictionary.Keys.Cast<object>().Select(column => (column, dictionary[column])),
            PSCustomObject => given.Properties.Select(property => ((object)property.Name, (object?)property.Value)),
            object other => throw Invalid($"a {other.GetType().Name} does not say which column gets which expression", other.ToString()),
        };
        List<KeyValuePair<string, string?>> expressions = [];
        foreach ((object name, object? expression) in entries)
        {
            object? value = expression is PSObject wrapped ? wrapped.BaseObject : expression;
            // What is copied may be left to the column's default.
            bool fits = value is null ? parameter == nameof(Select) : value is string text && !string.IsNullOrWhiteSpace(text);
            if (name is not string column || !fits)
            {
                throw Invalid($"the value for '{name}' is not a text with a SQL expression", name.ToString());
            }

            expressions.Add(new(column, (string?)value));
        }

        // A hashtable has no order; a plan that changes from run to run would be another backfill each time.
        if (given.BaseObject is IDictionary and not System.Collections.Specialized.IOrderedDictionary)
        {
            expressions.Sort((left, right) => string.CompareOrdinal(left.Key, right.Key));
        }

        return expressions;
    }
}
