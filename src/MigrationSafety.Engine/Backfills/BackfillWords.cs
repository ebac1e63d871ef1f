using System.Globalization;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What a plan says of a backfill before it runs.</summary>
internal static class BackfillWords
{
    /// <summary>What is to be known beside the steps.</summary>
    internal static string[] Notes(BackfillDefinition definition, BackfillRequest request, string batchPlan, long matching, long all, bool resumes, BackfillForecast forecast)
    {
        string of = definition.IsTree ? $" in {definition.Leaves.Count:N0} tables" : "";
        string keys = string.Join("; ", definition.Leaves.Where(leaf => leaf.ByKey).Take(3).Select(leaf => $"{leaf.Index} ({leaf.KeyText})"));
        BackfillLeaf? turning = definition.Leaves.MaxBy(leaf => leaf.Slices);
        string turns = turning is { Slices: > 1 } && !resumes
            ? $"; each block in {turning.Slices} turns{(turning.TurnsBy is { } by ? $" (by ranges of {SqlName.QuoteIfNeeded(by.Name)} where its values are spread, otherwise by place)" : "")}, of which one leaves room for the next: most rows stay in their block, and indexes are not written for them"
            : "";
        List<string> notes =
        [
            $"strategy: {definition.Strategy}{(keys.Length > 0 ? $" along {keys}" : "")}, {definition.Reason}{turns}",
            $"estimate: {matching:N0} of {all:N0} rows{of}; with {request.Workers:N0} worker{(request.Workers > 1 ? "s" : "")} about {Durations.Text(forecast.Time(matching, request))} and {forecast.WalBytes(matching) / 1048576.0:N0} MB of WAL",
            forecast.Basis(request.Workers),
            .. request.Throttle.Slowdown is { } times ? [$"while an application is at work it takes several times as long, so that commits take no more than {times:0.##} times as long (or {CommitTimes.NotFelt * 1000} ms longer; -MaxSlowdown)"] : Array.Empty<string>(),
            $"batches: {Durations.Text(request.TargetBatchTime)} each, a transaction with its checkpoint; then sweeps for rows that were locked or moved",
            request.Throttle.Text,
        ];
        if (resumes)
        {
            notes.Insert(0, "goes on at the checkpoints of an earlier run");
        }

        if (!definition.MayPause && request.Throttle.Slowdown is not null)
        {
            notes.Add("the role may not execute pg_sleep: to keep to -MaxSlowdown it rests between batches rather than within them, of which an application feels more. To change that: GRANT EXECUTE ON FUNCTION pg_catalog.pg_sleep(double precision)");
        }

        if (definition.ShardOf is { } distributed)
        {
            notes.Add($"a shard of {distributed}, changed and recorded on its node: keep Citus from moving it meanwhile; when it has been moved, that is an error at the end (ShardMoved), and the same command does at its new place what is left");
        }

        if (definition.Into is { } into)
        {
            notes.Add($"what is in {into.Table.Display} already, by ({into.KeyText}), is left as it is: to run it again is safe. Rows that the application inserts, changes or deletes after they were copied are its own or a trigger's to pass on; those that are missing at the end are counted");
            if (into.MayMerge(definition.Leaves))
            {
                notes.Add($"({into.KeyText}) is not made of a key of {definition.Table.Display}: where several of its rows give the same, the first one is copied");
            }

            notes.AddRange(into.Sequences.Select(s => $"the sequence {s.Sequence} of {s.Column} does not move along: set it before the application inserts there"));
        }

        if (definition.Archive is { } archive)
        {
            string size = (archive.EntryBytes * matching / 1048576).ToString("N0", CultureInfo.CurrentCulture);
            notes.Add($"{(archive.Copies ? $"{definition.Into!.Table.Display} is not empty: the keys of copied rows" : archive.Whole ? "deleted rows" : "old values")} are kept in {archive.Display}, about {size} MB, which its owner alone may read{(archive.Cascades.Length > 0 ? $"; not kept is what foreign keys delete or change with them in {string.Join(", ", archive.Cascades)}" : "")}");
        }

        if (definition.From is not null)
        {
            notes.Add($"where several rows of {definition.From} belong to one row, the server takes any of them");
        }

        if (batchPlan.Length > 0)
        {
            notes.Add($"plan of a batch: {batchPlan}");
        }

        return [.. notes];
    }

    /// <summary>The step of the batches, with what takes it back.</summary>
    internal static MigrationStep BatchStep(BackfillDefinition definition)
    {
        bool deletes = definition.Kind == BackfillKind.Delete;
        string columns = string.Join(", ", definition.Set.Select(column => SqlName.QuoteIfNeeded(column.Name)));
        string from = definition.From is null ? "" : $" from {definition.From}";
        string walk = definition.Strategy == BackfillStrategy.Key ? $"along ({definition.Leaves[0].KeyText})" : "of blocks";
        MigrationStep step = new()
        {
            Sql = definition.Leaves.Count > 0 ? new BackfillStatements(definition, definition.Leaves[0]).Plain : $"-- {definition.Table.Display} has no part that holds rows",
            Purpose = $"{(deletes ? "Delete rows" : definition.Into is { } copied ? $"Copy into {BackfillDefinition.Copy(copied.Table.Display, definition.Set)}" : $"Set {definition.SetText}{from}")}{(definition is { Into: not null, IsDefaultWhere: true } ? "" : $" where {definition.Where}")}, in batches {walk}",
            LockMode = TableLockMode.RowExclusive,
            Objects = definition.Into is null ? [definition.Table.Sql] : [definition.Into.Table.Sql],
            Cost = StepCost.UpdatesRows,
            Reversibility = Reversibility.Irreversible,
            ReversalNote = deletes
                ? "The rows that are deleted are not kept; -KeepOldValues keeps them."
                : $"The values that {columns} had before are not kept; -KeepOldValues keeps them. Where the column was added by the same migration, dropping it takes this back too.",
        };
        if (definition.Archive is { } archive)
        {
            ArchiveReversal reversal = new(definition, archive);
            return step with
            {
                Reversal = reversal.Sql,
                Reversibility = archive.Cascades.Length == 0 && !archive.Copies ? Reversibility.Reversible : Reversibility.ReversibleWithDataLoss,
                ReversalNote = reversal.Note + (archive.Cascades.Length == 0 ? "" : $" What foreign keys deleted or changed with the rows in {string.Join(", ", archive.Cascades)} is not kept and does not come back."),
            };
        }

        if (definition.Into is { } into)
        {
            return step with { Reversal = CopyReversal.Sql(into), Reversibility = Reversibility.ReversibleWithDataLoss, ReversalNote = CopyReversal.Note(into) };
        }

        if (!definition.IsDefaultWhere)
        {
            return step;
        }

        return step with
        {
            Reversal = new BackfillQueries(definition).Reset,
            Reversibility = Reversibility.ReversibleWithDataLoss,
            ReversalNote = $"Sets {columns} to NULL in every row, also where it had a value before or the application has written one since{(definition.IsTree ? ", and in partitions that were attached since" : "")}; in small batches that commit one by one and pass over locked rows, so that it may run again, and a warning says how many rows are left. Where the column was added by the same migration, dropping it takes this back at once.",
        };
    }
}
