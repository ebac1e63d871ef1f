using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What is recorded about a backfill.</summary>
/// <param name="TableOid">The table's oid when it began.</param>
/// <param name="Statement">What is done to which rows, as one statement.</param>
/// <param name="Archive">Where what it overwrites or deletes is kept; null where it is not.</param>
/// <param name="WasEmpty">Whether the table that is copied into was empty when it began; null where nothing is copied.</param>
/// <param name="State">running, paused or completed.</param>
/// <param name="Sweep">0 in the pass through its ranges, then the number of the sweep.</param>
/// <param name="RowsInTable">Rows in the table when it began, estimated.</param>
/// <param name="TotalRows">Rows updated by all runs.</param>
/// <param name="RowsSeen">Rows passed, matching or not.</param>
/// <param name="Errors">Rows that failed and were not changed since.</param>
internal sealed record BackfillRecord(
    uint TableOid,
    string Statement,
    string? Archive,
    bool? WasEmpty,
    string State,
    int Sweep,
    long RowsInTable,
    long TotalRows,
    long RowsSeen,
    long Errors)
{
    internal bool IsCompleted => State == BackfillStore.Completed;

    /// <summary>The limits it was last begun or joined with.</summary>
    internal required ThrottleLimits Throttle { get; init; }

    /// <summary>Whether a client works on it.</summary>
    internal required bool IsAtWork { get; init; }

    /// <summary>Whether it has changed no row and been refused none, and nobody works on it: nothing would be lost with it.</summary>
    internal required bool IsUnused { get; init; }

    /// <summary>When it began and when it was completed.</summary>
    internal required (DateTime Started, DateTime? Finished) Times { get; init; }

    /// <summary>What is another when somebody has begun it anew or completed it.</summary>
    internal (uint Table, bool IsCompleted, (DateTime Started, DateTime? Finished) Times) Stamp => (TableOid, IsCompleted, Times);
}

/// <summary>Records what a backfill is: its definition and its ranges.</summary>
internal static class BackfillRecords
{
    // Of a backfill (b) named $1. One that is not at its end may just be taken up by whoever holds its lock; at its end it may be begun anew only, and then it is another.
    private static readonly string s_isUnused = $"""
        not exists (select from {BackfillStore.Workers} w where w.backfill = b.name and (w.rows_done > 0 or (w.pid <> pg_catalog.pg_backend_pid() and {BackfillStore.IsAtWork})))
        and not exists (select from {BackfillStore.Errors} e where e.backfill = b.name)
        and (b.state = 'completed' or not {BackfillLock.IsShared})
        """;

    /// <summary>What is recorded under a name; null where nothing is.</summary>
    internal static async Task<BackfillRecord?> ReadAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        string query = $"""
            select b.table_schema, b.table_name, b.table_oid, b.set_columns, b.set_expressions, b.predicate, b.kind, b.source, b.archive, b.state, b.sweep, b.rows_in_table,
                   coalesce((select pg_catalog.sum(w.rows_done) from {BackfillStore.Workers} w where w.backfill = b.name), 0)::int8,
                   coalesce((select pg_catalog.sum(r.rows_seen) from {BackfillStore.Ranges} r where r.backfill = b.name), 0)::int8,
                   (select pg_catalog.count(*) from {BackfillStore.Errors} e where e.backfill = b.name and not e.again), b.started_at, b.finished_at, b.into_schema, b.into_table, b.into_was_empty,
                   b.throttle::text, exists (select from {BackfillStore.Workers} w where w.backfill = b.name and {BackfillStore.IsAtWork}),
                   {s_isUnused}
            from {BackfillStore.Table} b
            where b.name = $1
            """;
        await using NpgsqlCommand command = BackfillStore.Command(connection, query, name);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new BackfillRecord(
                reader.GetFieldValue<uint>(2),
                BackfillDefinition.Text(
                    BackfillStore.KindOf(reader.GetString(6)),
                    reader.GetString(0),
                    reader.GetString(1),
                    [.. reader.GetFieldValue<string[]>(3).Zip(reader.GetFieldValue<string[]>(4), (column, expression) => new SetColumn(column, expression))],
                    reader.Text(7),
                    reader.GetString(5),
                    reader.Text(17) is { } schema ? $"{SqlName.QuoteIfNeeded(schema)}.{SqlName.QuoteIfNeeded(reader.GetString(18))}" : null),
                reader.Text(8),
                reader.IsDBNull(19) ? null : reader.GetBoolean(19),
                reader.GetString(9),
                reader.GetInt32(10),
                reader.GetInt64(11),
                reader.GetInt64(12),
                reader.GetInt64(13),
                reader.GetInt64(14))
            {
                Throttle = ThrottleLimits.FromJson(reader.Text(20)),
                IsAtWork = reader.GetBoolean(21),
                IsUnused = reader.GetBoolean(22),
                Times = (reader.GetDateTime(15), await reader.IsDBNullAsync(16, cancellationToken).ConfigureAwait(false) ? null : reader.GetDateTime(16)),
            }
            : null;
    }

    /// <summary>Both definitions, where another one is recorded; null where it is the same.</summary>
    internal static string? Difference(BackfillRecord record, BackfillDefinition definition)
    {
        // Whether the keys of copied rows are kept is not asked for.
        bool sameKeeping = definition.Kind == BackfillKind.Insert || record.Archive is null == definition.Archive is null;
        if (record.Statement == definition.Statement && sameKeeping)
        {
            return null;
        }

        static string Keeping(bool keeps) => keeps ? ", keeping the old values" : ", keeping no old values";
        (string recorded, string asked) = sameKeeping
            ? (record.Statement, definition.Statement)
            : (record.Statement + Keeping(record.Archive is not null), definition.Statement + Keeping(definition.Archive is not null));

        return $"Recorded: {recorded}. Asked for: {asked}.";
    }

    /// <summary>The error of a target that was empty when it was planned, and is no longer.</summary>
    internal const string FilledMeanwhile = "FilledMeanwhile";

    /// <summary>Whether a definition takes the place of another that is recorded under its name, with which nothing is lost.</summary>
    /// <returns>False where the same one is recorded.</returns>
    /// <exception cref="MigrationException"><c>DefinitionDiffers</c>, with both: the name is taken.</exception>
    internal static bool Replaces(BackfillRecord record, BackfillDefinition definition)
    {
        string? difference = Difference(record, definition);
        return difference is null || record.IsUnused ? difference is not null : throw new MigrationException(
            "DefinitionDiffers",
            MigrationErrorKind.InvalidState,
            $"A backfill named {definition.Name} is recorded with another definition{(record.IsCompleted ? "" : ", and is not finished")}. {difference}",
            record.IsCompleted
                ? "Give this one another name with -Name, or remove what is recorded about the other, which is done (Remove-Backfill)."
                : "Repeat the recorded definition to resume it, give this one another name with -Name, or give the other one up (Remove-Backfill -Force): the rows that it has changed stay changed.")
        {
            Target = definition.Name,
        };
    }

    /// <summary>Whoever was away looks whether the record is still that of its own definition: somebody may have removed it and begun another backfill under its name.</summary>
    /// <exception cref="MigrationException"><c>CheckpointMissing</c>, <c>DefinitionDiffers</c>.</exception>
    internal static async Task RefuseReplacedAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        BackfillRecord record = await ReadAsync(connection, definition.Name, cancellationToken).ConfigureAwait(false) ?? throw BackfillStore.Missing(definition.Name);
        if (Difference(record, definition) is { } difference)
        {
            throw new MigrationException(
                "DefinitionDiffers",
                MigrationErrorKind.InvalidState,
                $"While the connection was lost somebody removed {definition.Name} and began another backfill under its name, which this one leaves alone. {difference}",
                "Give this one another name with -Name if it is still wanted.")
            {
                Target = definition.Name,
            };
        }
    }

    /// <summary>Refuses to share a copy that another client has begun since this one was planned, when the target was empty for one of them only: what one copies would not be in the archive of the other.</summary>
    /// <exception cref="MigrationException"><c>BegunMeanwhile</c>.</exception>
    internal static void RefuseOtherArchive(BackfillRecord record, BackfillDefinition definition)
    {
        if (definition.Into is { } into && !record.IsCompleted && record.WasEmpty != into.IsEmpty)
        {
            throw new MigrationException(
                "BegunMeanwhile",
                MigrationErrorKind.InvalidState,
                $"Another client has just begun {definition.Name}, when {into.Table.Display} was {(record.WasEmpty == true ? "still" : "no longer")} empty; by the plan of this one it was {(into.IsEmpty ? "still" : "no longer")} so, and what is copied would be kept in two ways.",
                "Run the command again: it then works with the other client, in its way.")
            {
                Target = into.Table.Display,
            };
        }
    }

    /// <summary>
    /// Refuses to begin a copy into a table that was empty by the plan and is not, or that another one copies into by now: its way back would delete what others have put there.
    /// Two that begin at once come one after the other.
    /// </summary>
    /// <exception cref="MigrationException"><c>FilledMeanwhile</c>.</exception>
    private static async Task RefuseFilledAsync(NpgsqlConnection connection, BackfillRecord? record, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        // What lies there may be its own, from a beginning that cannot be gone on with.
        bool own = record is { IsCompleted: false, WasEmpty: true } && Difference(record, definition) is null;
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

    /// <summary>Refuses one whose table has another name now: its expressions and its record know it by the old one, which may be another table's by now. While it runs, also one whose table is gone.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="name">The backfill's name.</param>
    /// <param name="runs">Whether it runs.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>TableRenamed</c>, <c>TableDropped</c>.</exception>
    internal static async Task RefuseRenamedAsync(NpgsqlConnection connection, string name, bool runs, CancellationToken cancellationToken)
    {
        (string asked, string? now) = await TableAsync(connection, name, cancellationToken).ConfigureAwait(false);
        if (now is null && runs)
        {
            throw new MigrationException(
                "TableDropped",
                MigrationErrorKind.InvalidState,
                $"{asked}, the table of backfill {name}, was dropped while the backfill ran.",
                "Where another table has its name now, the same command begins a backfill of that one.")
            {
                Target = asked,
            };
        }

        if (now is not null && now != asked)
        {
            throw new MigrationException(
                "TableRenamed",
                MigrationErrorKind.InvalidState,
                $"{asked}, the table of backfill {name}, is named {now} now.",
                $"Give it its old name back to finish the backfill; or begin one of {now} with Start-Backfill, which passes over the rows that are done, and remove this one (Remove-Backfill -Force).")
            {
                Target = asked,
            };
        }
    }

    /// <summary>What the table of a backfill was called when it began, and what it is called now; null where it is gone.</summary>
    private static async Task<(string Asked, string? Now)> TableAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select b.table_schema, b.table_name, n.nspname::text, c.relname::text
            from {BackfillStore.Table} b
            left join pg_catalog.pg_class c on c.oid = b.table_oid and c.relkind in ('r', 'p')
            left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where b.name = $1
            """;
        await using NpgsqlCommand command = BackfillStore.Command(connection, Query, name);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            throw BackfillStore.Missing(name);
        }

        string Name(int first) => $"{SqlName.QuoteIfNeeded(reader.GetString(first))}.{SqlName.QuoteIfNeeded(reader.GetString(first + 1))}";
        return (Name(0), await reader.IsDBNullAsync(3, cancellationToken).ConfigureAwait(false) ? null : Name(2));
    }

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
        string replaced = $"delete from {BackfillStore.Table} b where b.name = $1 and b.started_at = $2 and {s_isUnused}";
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
        DateTime? other = found is not null && Difference(found, definition) is not null ? found.Times.Started : null;
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

    /// <summary>Records that it goes on: as asked for now, and with the rows that failed to be tried again.</summary>
    /// <exception cref="MigrationException"><c>CheckpointMissing</c>.</exception>
    internal static async Task ResumeAsync(NpgsqlConnection connection, BackfillDefinition definition, BackfillRequest request, CancellationToken cancellationToken)
    {
        await using NpgsqlBatch batch = new(connection)
        {
            Timeout = BackfillStore.AnswerSeconds,
            BatchCommands =
            {
                BackfillStore.Durable(),
                // Rows that were refused may be many; none of the application's is locked meanwhile.
                new(BackfillConnection.Unbounded),
                new($"update {BackfillStore.Table} set state = 'running', workers = $2, target_batch_ms = $3, max_errors = $4, throttle = $5::jsonb, waiting_for = null, waiting_since = null, last_error = null, finished_at = null, updated_at = pg_catalog.clock_timestamp() where name = $1 and table_oid = $6")
                {
                    Parameters =
                    {
                        new() { Value = definition.Name },
                        new() { Value = request.Workers },
                        new() { Value = (int)request.TargetBatchTime.TotalMilliseconds },
                        new() { Value = request.MaxErrors },
                        new() { Value = request.Throttle.ToJson() },
                        new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid },
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
}
