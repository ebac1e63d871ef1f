using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

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

    /// <summary>The table or the index that a statement makes, where nobody else sees it before that commits, by its text; null where that does not tell.</summary>
    internal static (string? Table, string? Index) Made(ProgressSample sample)
    {
        bool table = sample.View == ProgressQueries.Ddl && sample.Target is null;
        bool index = sample is { View: "create_index", Index: null } && sample.Text("command") == "CREATE INDEX";
        if (!(table || index))
        {
            return (null, null);
        }

        return SqlScript.Parse(sample.Query ?? "", psql: false).Statements.Select(StatementParser.Parse).ToArray() switch
        {
            [CreateTableAs made] when table => (made.Table.ToString(), null),
            // An index is in the schema of its table, of which in another database the text alone may tell.
            [CreateIndex { Name: { } name } made] when index => (null, new QualifiedName(sample.Facts.GetValueOrDefault("table") is string of ? SqlName.Parse(of).Schema : made.Table.Schema, name).ToString()),
            _ => (null, null),
        };
    }

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
