using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Stops a backfill after the batch at hand, whoever runs it; what is done stays.</summary>
[Cmdlet(VerbsLifecycle.Stop, "Backfill", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(BackfillStatus))]
public sealed class StopBackfillCommand : FleetCmdlet
{
    /// <summary>Its name.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(BackfillNameCompleter))]
    public string Name { get; set; } = "";

    /// <summary>How long to wait until all who work on it have ended; 0s for not at all.</summary>
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
                BackfillStatus status = Runner.Wait((sink, token) => BackfillControl.FindOnPrimaryAsync(session, Name, sink, token));
                if (ShouldProcess(
                    $"Stop backfill {status.Name} ({session.Info}, {status.State}, {status.Workers.Length} working on it) after the batch at hand; what is done stays",
                    $"Stop backfill {status.Name} ({session.Info}) after the batch at hand?",
                    "Stop-Backfill"))
                {
                    BackfillStopPlan plan = BackfillStopPlan.For(session, status);
                    Runner.Start(
                        async (sink, token) => sink.Output(
                            await OperationLog.RunAsync(plan, sink, recorder => BackfillControl.StopAsync(plan, WaitFor.Value, recorder, token), token).ConfigureAwait(false)),
                        ThrottleLimit);
                }
            }
            catch (MigrationException e)
            {
                WriteError(ErrorRecords.Of(e));
            }
        }
    }
}
