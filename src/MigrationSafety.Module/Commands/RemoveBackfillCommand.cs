using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Module.Commands;

/// <summary>Removes what is recorded about a backfill; the table stays as it is.</summary>
[Cmdlet(VerbsCommon.Remove, "Backfill", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(void))]
public sealed class RemoveBackfillCommand : RecordedBackfillCmdlet
{
    /// <summary>Removes it also where it is not at its end; one that runs is stopped first.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>Drops the archive of what it kept too, without which nothing can be taken back.</summary>
    [Parameter]
    public SwitchParameter DropArchive { get; set; }

    private protected override void Change(EngineSession session, BackfillStatus status)
    {
        BackfillControl.RefuseRemoval(status, Force);
        string what = $"Remove what is recorded about backfill {status.Name} ({session.Info}, {status.State}): definition, checkpoints{(status.Errors > 0 ? $", {status.Errors:N0} rows that were refused" : "")}{Archive(status)}; the table stays as it is";
        bool destroys = DropArchive && status.Archive is not null;
        if (ShouldProcess(what, what + "?", "Remove-Backfill") && (!destroys || ShouldDestroy(what + "?", "Remove-Backfill")))
        {
            BackfillRemovalPlan plan = BackfillRemovalPlan.For(session, status, DropArchive);
            Runner.Start(
                (sink, token) => OperationLog.RunAsync(plan, sink, recorder => BackfillControl.RemoveAsync(plan, Force, DropArchive, WaitFor.Value, recorder, token), token),
                ThrottleLimit);
        }
    }

    private string Archive(BackfillStatus status) => status.Archive is null ? ""
        : DropArchive ? $", and drop {status.Archive} with what it kept, without which it cannot be taken back"
        : $"; what it kept remains in {status.Archive}";
}
