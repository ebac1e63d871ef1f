using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Module.Commands;

/// <summary>Stops a backfill after the batch at hand, whoever runs it; what is done stays.</summary>
[Cmdlet(VerbsLifecycle.Stop, "Backfill", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(BackfillStatus))]
public sealed class StopBackfillCommand : RecordedBackfillCmdlet
{
    private protected override void Change(EngineSession session, BackfillStatus status)
    {
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
}
