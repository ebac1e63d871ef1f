using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Base of the cmdlets that change what is recorded about a backfill, where it is recorded: on the primary, of a shard on its node.</summary>
public abstract class RecordedBackfillCmdlet : FleetCmdlet
{
    /// <summary>Its name.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(BackfillNameCompleter))]
    public string Name { get; set; } = "";

    /// <summary>How long to wait until all who work on it have ended.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration WaitFor { get; set; } = new(TimeSpan.FromSeconds(30));

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        foreach (EngineSession given in Sessions())
        {
            try
            {
                EngineSession session = Runner.Wait((sink, token) => DistributedTable.HolderAsync(given, Name, sink, token));
                Change(session, Runner.Wait((sink, token) => BackfillControl.FindOnPrimaryAsync(session, Name, sink, token)));
            }
            catch (MigrationException e)
            {
                WriteError(ErrorRecords.Of(e));
            }
        }
    }

    /// <summary>Asks, and starts the work.</summary>
    private protected abstract void Change(EngineSession session, BackfillStatus status);
}
