using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module.Commands;

/// <summary>The backfills of a database, whoever runs them.</summary>
[Cmdlet(VerbsCommon.Get, "Backfill")]
[OutputType(typeof(BackfillStatus))]
public sealed class GetBackfillCommand : ReadCmdlet<BackfillStatus>
{
    /// <summary>Its name; wildcards for several.</summary>
    [Parameter(Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(BackfillNameCompleter))]
    public string? Name { get; set; }

    /// <summary>Those of this table alone.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string? Table { get; set; }

    /// <summary>Schema of the table, where <see cref="Table"/> does not name it.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SchemaNameCompleter))]
    public string? Schema { get; set; }

    /// <summary>What they are doing.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public BackfillState[] State { get; set; } = [];

    /// <summary>With the rows that the server refused.</summary>
    [Parameter]
    public SwitchParameter IncludeError { get; set; }

    private protected override async Task<IReadOnlyList<BackfillStatus>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        string? name = Name;
        WildcardPattern? pattern = name is null ? null : WildcardPattern.Get(name, WildcardOptions.IgnoreCase);
        IReadOnlyList<BackfillStatus> found = await BackfillReader.ReadAsync(
            session,
            new BackfillFilter
            {
                // A name may hold what a wildcard is made of.
                Name = pattern is null ? null : candidate => candidate == name || pattern.IsMatch(candidate),
                Table = Table,
                Schema = Schema,
                States = State,
                IncludeErrors = IncludeError,
            },
            sink,
            cancellationToken).ConfigureAwait(false);
        if (found.Count == 0 && name is not null && !WildcardPattern.ContainsWildcardCharacters(name))
        {
            // As Get-Service does: a name that is not there is an error, a pattern that fits nothing is none.
            await BackfillControl.FindAsync(session, name, sink, cancellationToken).ConfigureAwait(false);
        }

        return found;
    }
}
