using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Progress;

/// <summary>Which model reads which view.</summary>
internal static class ProgressModels
{
    /// <param name="sample">Sample.</param>
    /// <param name="learnt">What the log knows of index builds.</param>
    /// <param name="seen">What earlier samples of an index build or a vacuum have told.</param>
    internal static OperationState Of(ProgressSample sample, LearntPhases learnt, SeenBuild seen = default) => sample.View switch
    {
        "create_index" => IndexBuildModel.Of(sample, learnt, seen),
        "vacuum" => VacuumModel.Of(sample, seen),
        "analyze" => MaintenanceModels.Analyze(sample),
        "cluster" => MaintenanceModels.Cluster(sample),
        "copy" => TransferModels.Copy(sample),
        "basebackup" => TransferModels.BaseBackup(sample),
        ProgressQueries.Backfill => OwnModels.Backfill(sample),
        ProgressQueries.Operation => OwnModels.Operation(sample),
        ProgressQueries.Ddl => OwnModels.LongDdl(sample),
        ProgressQueries.Subscription or ProgressQueries.Publication => OwnModels.Replication(sample),
        _ => TransferModels.Unknown(sample),
    };

    /// <summary>What it waits for, in words; null while it works.</summary>
    internal static string? Waiting(ProgressSample sample, OperationState state)
    {
        if (sample.BlockedBy.Length > 0)
        {
            if (sample.BlockedBy is [0])
            {
                return "a prepared transaction";
            }

            return $"{(sample.WaitEvent is "virtualxid" or "transactionid" || state.Phase == TurnWaits.ForOldTransactions ? "transaction of" : "lock of")} {string.Join(", ", sample.BlockedBy.Select(pid => pid == 0 ? "a prepared transaction" : $"pid {pid}"))}";
        }

        return state.Waiting ?? sample.WaitEventType switch
        {
            null or "Activity" or "Client" or "Extension" => null,
            "Lock" => $"lock ({sample.WaitEvent})",
            "IO" => $"I/O ({sample.WaitEvent})",
            { } type => $"{type} ({sample.WaitEvent})",
        };
    }
}
