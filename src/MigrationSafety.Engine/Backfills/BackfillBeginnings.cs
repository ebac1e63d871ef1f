using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Records that a backfill begins, with its ranges, or goes on.</summary>
internal static class BackfillBeginnings
{
    /// <summary>The error of a target that was empty when it was planned, and is no longer.</summary>
    internal const string FilledMeanwhile = "FilledMeanwhile";

    /// <summary>Whether the recorded ranges are those of this table and can be walked as they were cut: else it begins from the start, which is always right.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="definition">Definition.</param>
    /// <param name="strategy">What was asked for: another one than the recorded begins from the start.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>Whether it can go on; and whether anything was done before.</returns>
    internal static async Task<(bool CanResume, bool Begun)> CanResumeAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        BackfillStrategy strategy,
        CancellationToken cancellationToken)
    {
        const string Query = $"""
            select r.relation, r.key_columns, pg_catalog.bool_and(r.finished), pg_catalog.bool_or(r.finished or r.position is distinct from r.lower)
            from {BackfillStore.Ranges} r
            where r.backfill = $1
            group by r.relation, r.key_columns
            """;
        bool begun = false;
        await using NpgsqlCommand command = BackfillStore.Command(connection, Query, definition.Name);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            begun |= reader.GetBoolean(3);
            BackfillLeaf? leaf = definition.Leaves.FirstOrDefault(l => l.Table.Oid == reader.GetFieldValue<uint>(0));
            string[]? key = await reader.IsDBNullAsync(1, cancellationToken).ConfigureAwait(false) ? null : reader.GetFieldValue<string[]>(1);
            bool fits = key is null ? strategy != BackfillStrategy.Key : strategy != BackfillStrategy.Block && leaf?.Key.Select(k => k.Name).SequenceEqual(key) != false;
            // A part that is gone needs no walk any more, a finished one none again.
            if (!fits && leaf is not null && !reader.GetBoolean(2))
            {
                return (false, false);
            }
        }

        return (true, begun);
    }

    /// <summary>Records a new beginning with these ranges.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="definition">Definition.</param>
    /// <param name="found">What was recorded under its name; null where nothing was.</param>
    /// <param name="request">Request.</param>
    /// <param name="ranges">Ranges.</param>
    /// <param name="estimatedRows">Rows that match, estimated.</param>
    /// <param name="rowsInTable">Rows of the table, estimated.</param>
    /// <param name="attend">Records in the same transaction who works on it.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>False where another definition has been recorded since, on another table than this one's gate is for.</returns>
    internal static async Task<bool> BeginAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        BackfillRecord? found,
        BackfillRequest request,
        IReadOnlyList<BackfillRange> ranges,
        long estimatedRows,
        long rowsInTable,
        Func<Task> attend,
        CancellationToken cancellationToken)
    {
        const string Record = $"""
            insert into {BackfillStore.Table} as b (name, table_schema, table_name, table_oid, set_columns, set_expressions, predicate, predicate_given, strategy, reason, state,
                                      workers, target_batch_ms, max_errors, rows_estimated, rows_in_table, throttle, kind, source, archive, settings, into_schema, into_table, into_was_empty)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'running', $11, $12, $13, $14, $15, $16::jsonb, $17, $18, $19, $20::jsonb, $21, $22, $23)
            on conflict (name) do update
            set table_oid = excluded.table_oid, predicate_given = excluded.predicate_given, strategy = excluded.strategy, reason = excluded.reason, state = excluded.state, sweep = 0,
                workers = excluded.workers, target_batch_ms = excluded.target_batch_ms, max_errors = excluded.max_errors, rows_estimated = excluded.rows_estimated,
                rows_in_table = excluded.rows_in_table, throttle = excluded.throttle, waiting_for = null, waiting_since = null, last_error = null, role = excluded.role, application = excluded.application,
                started_at = excluded.started_at, updated_at = excluded.updated_at, finished_at = null,
                archive = excluded.archive, into_was_empty = excluded.into_was_empty,
                rows_before = coalesce((select pg_catalog.sum(w.rows_done) from {BackfillStore.Workers} w where w.backfill = b.name), 0),
                rows_counted = null, rows_balance = null, rows_leaves = null, stats_since = null
            where (b.table_schema, b.table_name, b.set_columns, b.set_expressions, b.predicate, b.kind, b.source, b.into_schema, b.into_table)
                  is not distinct from (excluded.table_schema, excluded.table_name, excluded.set_columns, excluded.set_expressions, excluded.predicate, excluded.kind, excluded.source, excluded.into_schema, excluded.into_table)
                  and (b.kind = 'insert' or (b.archive is null) = (excluded.archive is null))
            """;
        // Checked again in the statement itself: somebody may just have taken it up.
        string replaced = $"delete from {BackfillStore.Table} b where b.name = $1 and b.started_at = $2 and {BackfillRecords.IsUnused}";
        const string NewRanges = $"""
            insert into {BackfillStore.Ranges} (backfill, id, slices, stretch, slice_column, slice_type, slice_bounds, relation, relation_name, key_columns, lower, upper, position, rows_estimated)
            select $1, n, r.slices, r.stretch, nullif(r.slice_column, ''), nullif(r.slice_type, ''), nullif(r.slice_bounds, ''), r.relation, r.relation_name, case when r.key <> '' then r.key::text[] end, case when r.lower <> '' then r.lower::text[] end, r.upper::text[],
                   case when r.lower <> '' then r.lower::text[] end, r.rows
            from rows from (pg_catalog.unnest($2::oid[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::text[]),
                            pg_catalog.unnest($7::int8[]), pg_catalog.unnest($8::int4[]), pg_catalog.unnest($9::int8[]), pg_catalog.unnest($10::text[]), pg_catalog.unnest($11::text[]), pg_catalog.unnest($12::text[])) with ordinality
                            as r (relation, relation_name, key, lower, upper, rows, slices, stretch, slice_column, slice_type, slice_bounds, n)
            """;
        NpgsqlBatchCommand beginning = new(Record)
        {
            Parameters =
            {
                new() { Value = definition.Name },
                new() { Value = definition.Table.Schema },
                new() { Value = definition.Table.Name },
                new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = definition.Set.Select(column => column.Name).ToArray() },
                new() { Value = definition.Set.Select(column => column.Expression).ToArray() },
                new() { Value = definition.Where },
                new() { Value = !definition.IsDefaultWhere },
                new() { Value = definition.Strategy == BackfillStrategy.Key ? "key" : "block" },
                new() { Value = definition.Reason },
                new() { Value = request.Workers },
                new() { Value = (int)request.TargetBatchTime.TotalMilliseconds },
                new() { Value = request.MaxErrors },
                new() { Value = estimatedRows },
                new() { Value = rowsInTable },
                new() { Value = request.Throttle.ToJson() },
                new() { Value = definition.Kind switch { BackfillKind.Delete => "delete", BackfillKind.Insert => "insert", _ => "update" } },
                new() { Value = (object?)definition.From ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text },
                new() { Value = (object?)definition.Archive?.Name ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text },
                new() { Value = BackfillSettings.ToJson(request.Settings!) },
                new() { Value = (object?)definition.Into?.Table.Schema ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text },
                new() { Value = (object?)definition.Into?.Table.Name ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text },
                new() { Value = (object?)definition.Into?.IsEmpty ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Boolean },
            },
        };
        DateTime? other = found is not null && BackfillRecords.Difference(found, definition) is not null ? found.Times.Started : null;
        await using NpgsqlTransaction transaction = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
        await RefuseFilledAsync(connection, found, definition, cancellationToken).ConfigureAwait(false);
        await using NpgsqlBatch batch = new(connection)
        {
            Timeout = BackfillStore.AnswerSeconds,
            BatchCommands =
            {
                BackfillStore.Durable(),
                // Rows that were refused may be many; none of the application's is locked meanwhile.
                new(BackfillConnection.Unbounded),
                new(replaced) { Parameters = { new() { Value = definition.Name }, new() { Value = (object?)other ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.TimestampTz } } },
                // Before the record itself: who is in a batch of a range is waited for.
                new($"delete from {BackfillStore.Ranges} where backfill = $1") { Parameters = { new() { Value = definition.Name } } },
                new($"delete from {BackfillStore.Errors} where backfill = $1") { Parameters = { new() { Value = definition.Name } } },
                beginning,
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        if (beginning.RecordsAffected == 0)
        {
            return false;
        }

        await using NpgsqlCommand cut = new(NewRanges, connection)
        {
            CommandTimeout = BackfillStore.AnswerSeconds,
            Parameters =
            {
                new() { Value = definition.Name },
                new() { Value = ranges.Select(range => range.Leaf.Table.Oid).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid },
                new() { Value = ranges.Select(range => range.Leaf.Table.Display).ToArray() },
                new() { Value = ranges.Select(range => range.Leaf.ByKey ? ArrayText(range.Leaf.KeyNames) : "").ToArray() },
                new() { Value = ranges.Select(range => range.Lower is null ? "" : ArrayText(range.Lower)).ToArray() },
                new() { Value = ranges.Select(range => ArrayText(range.Upper)).ToArray() },
                new() { Value = ranges.Select(range => range.Rows).ToArray() },
                new() { Value = ranges.Select(range => range.Leaf.Slices).ToArray() },
                new() { Value = ranges.Select(range => range.Leaf.Stretch).ToArray() },
                new() { Value = ranges.Select(range => range.Leaf.TurnsBy?.Name ?? "").ToArray() },
                new() { Value = ranges.Select(range => range.Leaf.TurnsBy?.Type ?? "").ToArray() },
                new() { Value = ranges.Select(range => range.Leaf.TurnsBy?.Bounds ?? "").ToArray() },
            },
        };
        await cut.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        await attend().ConfigureAwait(false);
        await transaction.CommitAsync(cancellationToken).ConfigureAwait(false);
        return true;
    }

    /// <summary>Records that it goes on: as asked for now, with as many rows left as are estimated now where nobody else is at work, and with the rows that failed to be tried again.</summary>
    /// <exception cref="MigrationException"><c>CheckpointMissing</c>.</exception>
    internal static async Task ResumeAsync(NpgsqlConnection connection, BackfillDefinition definition, BackfillRequest request, long estimatedRows, CancellationToken cancellationToken)
    {
        await using NpgsqlBatch batch = new(connection)
        {
            Timeout = BackfillStore.AnswerSeconds,
            BatchCommands =
            {
                BackfillStore.Durable(),
                // Rows that were refused may be many; none of the application's is locked meanwhile.
                new(BackfillConnection.Unbounded),
                new($"update {BackfillStore.Table} set state = 'running', workers = $2, target_batch_ms = $3, max_errors = $4, throttle = $5::jsonb, waiting_for = null, waiting_since = null, last_error = null, finished_at = null, updated_at = pg_catalog.clock_timestamp(), rows_estimated = case when {BackfillLock.IsShared} then rows_estimated else $7 - rows_before + coalesce((select pg_catalog.sum(w.rows_done) from {BackfillStore.Workers} w where w.backfill = $1), 0) end where name = $1 and table_oid = $6")
                {
                    Parameters =
                    {
                        new() { Value = definition.Name },
                        new() { Value = request.Workers },
                        new() { Value = (int)request.TargetBatchTime.TotalMilliseconds },
                        new() { Value = request.MaxErrors },
                        new() { Value = request.Throttle.ToJson() },
                        new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid },
                        new() { Value = estimatedRows },
                    },
                },
                // Not those that somebody who works on it has just recorded.
                new($"update {BackfillStore.Errors} set again = true where backfill = $1 and not again and not {BackfillLock.IsShared}") { Parameters = { new() { Value = definition.Name } } },
                // Parts that are gone since; none of another table's backfill that has replaced this one just now.
                new($"update {BackfillStore.Ranges} set finished = true where backfill = $1 and not finished and relation <> all ($2) and exists (select from {BackfillStore.Table} b where b.name = $1 and b.table_oid = $3)")
                {
                    Parameters =
                    {
                        new() { Value = definition.Name },
                        new() { Value = definition.Leaves.Select(leaf => leaf.Table.Oid).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid },
                        new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid },
                    },
                },
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        if (batch.BatchCommands[2].RecordsAffected == 0)
        {
            // Removed since, or replaced.
            throw BackfillStore.Missing(definition.Name);
        }
    }

    /// <summary>An array as a text that casts back to it.</summary>
    private static string ArrayText(IEnumerable<string> values) =>
        "{" + string.Join(",", values.Select(v => "\"" + v.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal) + "\"")) + "}";

    /// <summary>
    /// Refuses to begin a copy into a table that was empty by the plan and is not, or that another one copies into by now: its way back would delete what others have put there.
    /// Two that begin at once come one after the other.
    /// </summary>
    /// <exception cref="MigrationException"><c>FilledMeanwhile</c>.</exception>
    private static async Task RefuseFilledAsync(NpgsqlConnection connection, BackfillRecord? record, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        // What lies there may be its own, from a beginning that cannot be gone on with.
        bool own = record is { IsCompleted: false, WasEmpty: true } && BackfillRecords.Difference(record, definition) is null;
        if (definition.Into is not { IsEmpty: true } into || own)
        {
            return;
        }

        await BackfillLock.TakeTargetAsync(connection, into.Table, cancellationToken).ConfigureAwait(false);
        if (!(await into.LookAsync(connection, definition.Name, cancellationToken).ConfigureAwait(false)).IsEmpty)
        {
            throw new MigrationException(
                FilledMeanwhile,
                MigrationErrorKind.InvalidState,
                $"{into.Table.Display} was empty when {definition.Name} was planned; by now it has rows, or another backfill copies into it: which rows are copied is kept, so that they can be told from the others.",
                "Run the command again.")
            {
                Target = into.Table.Display,
            };
        }
    }
}
