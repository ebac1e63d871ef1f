using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>The backfills of a database, whoever runs them.</summary>
[Cmdlet(VerbsCommon.Get, "Backfill")]
[OutputType(typeof(BackfillStatus))]
public sealed class GetBackfillCommand : FleetCmdlet
{
    /// <summary>Their names; wildcards are allowed.</summary>
    [Parameter(Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(BackfillNameCompleter))]
    public string[] Name { get; set; } = [];

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

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        // The next record has names of its own.
        (string Name, WildcardPattern Pattern)[] wanted = [.. Name.Select(name => (name, WildcardPattern.Get(name, WildcardOptions.IgnoreCase)))];
        foreach (EngineSession session in Sessions())
        {
            Runner.Start((sink, token) => ReadAsync(session, wanted, sink, token), ThrottleLimit);
        }
    }

    // A name may hold what a wildcard is made of.
    private static bool Fits((string Name, WildcardPattern Pattern) wanted, string name) => name == wanted.Name || wanted.Pattern.IsMatch(name);

    private async Task ReadAsync(EngineSession session, (string Name, WildcardPattern Pattern)[] wanted, IRecordSink sink, CancellationToken cancellationToken)
    {
        IReadOnlyList<BackfillStatus> found = await BackfillReader.ReadAsync(
            session,
            new BackfillFilter
            {
                Name = wanted.Length == 0 ? null : name => wanted.Any(one => Fits(one, name)),
                Table = Table,
                Schema = Schema,
                States = State,
                IncludeErrors = IncludeError,
            },
            sink,
            cancellationToken).ConfigureAwait(false);
        foreach (BackfillStatus status in found)
        {
            sink.Output(status);
        }

        // As Get-Service does: a name that is not there is an error, a pattern that fits nothing is none.
        foreach ((string name, _) in wanted.Where(one => !WildcardPattern.ContainsWildcardCharacters(one.Name) && !found.Any(status => Fits(one, status.Name))))
        {
            try
            {
                await BackfillControl.FindAsync(session, name, sink, cancellationToken).ConfigureAwait(false);
            }
            catch (MigrationException e)
            {
                sink.Error(ErrorRecords.Of(e));
            }
        }
    }
}
