using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Goes on with a backfill at its checkpoints, from any machine: what it does comes from the server.</summary>
[Cmdlet(VerbsLifecycle.Resume, "Backfill", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(BackfillResult), typeof(MigrationJob))]
public sealed class ResumeBackfillCommand : BackfillCmdlet
{
    /// <summary>Its name.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(BackfillNameCompleter))]
    public string Name { get; set; } = "";

    private protected override async Task<BackfillPlan> PlanAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        string name = Name;
        session = await DistributedTable.HolderAsync(session, name, sink, cancellationToken).ConfigureAwait(false);
        BackfillRequest recorded = await BackfillControl.RequestAsync(session, name, sink, cancellationToken).ConfigureAwait(false);
        return await Backfill.PlanAsync(session, AsAsked(recorded), sink, cancellationToken).ConfigureAwait(false);
    }
}
