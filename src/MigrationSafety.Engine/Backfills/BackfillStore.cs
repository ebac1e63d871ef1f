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

    /// <summary>When it began and when it was completed.</summary>
    internal required (DateTime Started, DateTime? Finished) Times { get; init; }

    /// <summary>What is another when somebody has begun it anew or completed it.</summary>
    internal (uint Table, bool IsCompleted, (DateTime Started, DateTime? Finished) Times) Stamp => (TableOid, IsCompleted, Times);
}

/// <summary>A stretch of a table, as it is recorded.</summary>
/// <param name="Leaf">Its table.</param>
/// <param name="Lower">Where it begins: the key before its first row, or its first block; null for the first row of a key.</param>
/// <param name="Upper">Where it ends: its last key, or the block after its last one.</param>
/// <param name="Rows">Rows in it, estimated.</param>
internal sealed record BackfillRange(BackfillLeaf Leaf, string[]? Lower, string[] Upper, long Rows);

/// <summary>Reads and writes what is recorded in the tables of <see cref="BackfillSchema"/>.</summary>
internal static class BackfillStore
{
    internal const string Table = "migration_safety.backfill";
    internal const string Ranges = "migration_safety.backfill_range";
    internal const string Workers = "migration_safety.backfill_worker";
    internal const string Errors = "migration_safety.backfill_error";
    internal const string Running = "running";
    internal const string Completed = "completed";

    /// <summary>
    /// Whether a worker (w) of a backfill (b) works on it: it holds the table's advisory lock, which every role may see; a pid alone may be somebody else's by now. A standby sees none.
    /// </summary>
    internal static readonly string IsAtWork = $"""
        exists (select from pg_catalog.pg_locks l
                where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.pid = w.pid and l.classid = {(uint)TableOperationLock.ClassId} and l.objid = b.table_oid
                  and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
        -- A pooled connection that works for another run by now.
        and not exists (select from {Workers} n where n.pid = w.pid and n.started_at > w.started_at)
        """;

    // Short statements: one that gets no answer for so long has lost its connection.
    private const int AnswerSeconds = 20;

    /// <summary>What is recorded under a name; null where nothing is.</summary>
    internal static async Task<BackfillRecord?> ReadAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select b.table_schema, b.table_name, b.table_oid, b.set_columns, b.set_expressions, b.predicate, b.kind, b.source, b.archive, b.state, b.sweep, b.rows_in_table,
                   coalesce((select pg_catalog.sum(w.rows_done) from {Workers} w where w.backfill = b.name), 0)::int8,
                   coalesce((select pg_catalog.sum(r.rows_seen) from {Ranges} r where r.backfill = b.name), 0)::int8,
                   (select pg_catalog.count(*) from {Errors} e where e.backfill = b.name and not e.again), b.started_at, b.finished_at, b.into_schema, b.into_table, b.into_was_empty
            from {Table} b
            where b.name = $1
            """;
        await using NpgsqlCommand command = Command(connection, Query, name);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new BackfillRecord(
                reader.GetFieldValue<uint>(2),
                BackfillDefinition.Text(
                    KindOf(reader.GetString(6)),
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
                Times = (reader.GetDateTime(15), await reader.IsDBNullAsync(16, cancellationToken).ConfigureAwait(false) ? null : reader.GetDateTime(16)),
            }
            : null;
    }

    /// <summary>Refuses a name that is taken by another definition.</summary>
    /// <exception cref="MigrationException"><c>DefinitionDiffers</c>, with both.</exception>
    internal static void Check(BackfillRecord record, BackfillDefinition definition)
    {
        // Whether the keys of copied rows are kept is not asked for.
        bool sameKeeping = definition.Kind == BackfillKind.Insert || record.Archive is null == definition.Archive is null;
        if (record.Statement == definition.Statement && sameKeeping)
        {
            return;
        }

        static string Keeping(bool keeps) => keeps ? ", keeping the old values" : ", keeping no old values";
        (string recorded, string asked) = sameKeeping
            ? (record.Statement, definition.Statement)
            : (record.Statement + Keeping(record.Archive is not null), definition.Statement + Keeping(definition.Archive is not null));

        throw new MigrationException(
            "DefinitionDiffers",
            MigrationErrorKind.InvalidState,
            $"A backfill named {definition.Name} is recorded with another definition{(record.IsCompleted ? "" : ", and is not finished")}. "
            + $"Recorded: {recorded}. Asked for: {asked}.",
            record.IsCompleted
                ? "Give this one another name with -Name, or remove what is recorded about the other, which is done (Remove-Backfill)."
                : "Repeat the recorded definition to resume it, or give this one another name with -Name.")
        {
            Target = definition.Name,
        };
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
            from {Ranges} r
            where r.backfill = $1
            group by r.relation, r.key_columns
            """;
        bool begun = false;
        await using NpgsqlCommand command = Command(connection, Query, definition.Name);
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
    internal static async Task BeginAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        BackfillRequest request,
        IReadOnlyList<BackfillRange> ranges,
        long estimatedRows,
        long rowsInTable,
        CancellationToken cancellationToken)
    {
        const string Record = $"""
            insert into {Table} as b (name, table_schema, table_name, table_oid, set_columns, set_expressions, predicate, predicate_given, strategy, reason, state,
                                      workers, target_batch_ms, max_errors, rows_estimated, rows_in_table, throttle, kind, source, archive, settings, into_schema, into_table, into_was_empty)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'running', $11, $12, $13, $14, $15, $16::jsonb, $17, $18, $19, $20::jsonb, $21, $22, $23)
            on conflict (name) do update
            set table_oid = excluded.table_oid, predicate_given = excluded.predicate_given, strategy = excluded.strategy, reason = excluded.reason, state = excluded.state, sweep = 0,
                workers = excluded.workers, target_batch_ms = excluded.target_batch_ms, max_errors = excluded.max_errors, rows_estimated = excluded.rows_estimated,
                rows_in_table = excluded.rows_in_table, throttle = excluded.throttle, waiting_for = null, waiting_since = null, last_error = null, role = excluded.role, application = excluded.application,
                started_at = excluded.started_at, updated_at = excluded.updated_at, finished_at = null,
                archive = excluded.archive, into_was_empty = excluded.into_was_empty,
                rows_before = coalesce((select pg_catalog.sum(w.rows_done) from {Workers} w where w.backfill = b.name), 0),
                rows_counted = null, rows_balance = null, rows_leaves = null, stats_since = null
            """;
        const string NewRanges = $"""
            insert into {Ranges} (backfill, id, slices, stretch, relation, relation_name, key_columns, lower, upper, position, rows_estimated)
            select $1, n, r.slices, r.stretch, r.relation, r.relation_name, case when r.key <> '' then r.key::text[] end, case when r.lower <> '' then r.lower::text[] end, r.upper::text[],
                   case when r.lower <> '' then r.lower::text[] end, r.rows
            from rows from (pg_catalog.unnest($2::oid[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::text[]),
                            pg_catalog.unnest($7::int8[]), pg_catalog.unnest($8::int4[]), pg_catalog.unnest($9::int8[])) with ordinality as r (relation, relation_name, key, lower, upper, rows, slices, stretch, n)
            """;
        await using NpgsqlBatch batch = new(connection)
        {
            Timeout = AnswerSeconds,
            BatchCommands =
            {
                // One transaction. The ranges first: who is in a batch of one is waited for.
                Durable(),
                new($"delete from {Ranges} where backfill = $1") { Parameters = { new() { Value = definition.Name } } },
                new($"delete from {Errors} where backfill = $1") { Parameters = { new() { Value = definition.Name } } },
                new(Record)
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
                },
                new(NewRanges)
                {
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
                    },
                },
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Records that it goes on: as asked for now, and with the rows that failed to be tried again.</summary>
    internal static async Task ResumeAsync(NpgsqlConnection connection, BackfillDefinition definition, BackfillRequest request, CancellationToken cancellationToken)
    {
        await using NpgsqlBatch batch = new(connection)
        {
            Timeout = AnswerSeconds,
            BatchCommands =
            {
                Durable(),
                new($"update {Table} set state = 'running', workers = $2, target_batch_ms = $3, max_errors = $4, throttle = $5::jsonb, waiting_for = null, waiting_since = null, last_error = null, finished_at = null, updated_at = pg_catalog.clock_timestamp() where name = $1")
                {
                    Parameters =
                    {
                        new() { Value = definition.Name },
                        new() { Value = request.Workers },
                        new() { Value = (int)request.TargetBatchTime.TotalMilliseconds },
                        new() { Value = request.MaxErrors },
                        new() { Value = request.Throttle.ToJson() },
                    },
                },
                // Not those that somebody who works on it has just recorded.
                new($"update {Errors} set again = true where backfill = $1 and not again and not {BackfillLock.IsShared}") { Parameters = { new() { Value = definition.Name } } },
                // Parts that are gone since.
                new($"update {Ranges} set finished = true where backfill = $1 and not finished and relation <> all ($2)")
                {
                    Parameters =
                    {
                        new() { Value = definition.Name },
                        new() { Value = definition.Leaves.Select(leaf => leaf.Table.Oid).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid },
                    },
                },
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Records that a connection works on it as a worker of a run.</summary>
    internal static async Task AttendAsync(NpgsqlConnection connection, string name, Guid run, int number, CancellationToken cancellationToken)
    {
        const string Sql = $"""
            insert into {Workers} as w (backfill, run, number, pid, backend_start, application, client, role)
            select $1, $2, $3, a.pid, a.backend_start, a.application_name, pg_catalog.host(a.client_addr), a.usename
            from pg_catalog.pg_stat_activity a
            where a.pid = pg_catalog.pg_backend_pid()
            on conflict (backfill, run, number) do update
            set pid = excluded.pid, backend_start = excluded.backend_start, application = excluded.application, client = excluded.client, role = excluded.role,
                heartbeat = pg_catalog.clock_timestamp()
            """;
        await using NpgsqlCommand command = Command(connection, Sql, name);
        command.Parameters.Add(new() { Value = run });
        command.Parameters.Add(new() { Value = number });
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Takes a range: the worker's own, else an untouched one, else one whose worker is gone (it holds no lock) or has not been heard of for a while. No more than a wish: a batch takes
    /// the range's row for itself, so that two workers on one range get in each other's way but never do a row twice.
    /// </summary>
    /// <returns>The range; null with the number of those that others work on.</returns>
    internal static async Task<(RangeClaim? Claim, long Unfinished, string State)> ClaimAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        Guid run,
        int number,
        TimeSpan silence,
        CancellationToken cancellationToken)
    {
        const string Sql = $"""
            with msb_free as materialized (
                -- By itself: as the inner side of a join it would be asked again for each range, and claim them all.
                select g.id from {Ranges} g
                where g.backfill = $1 and not g.finished
                  and (g.run is null or (g.run = $2 and g.worker = $3) or g.heartbeat < pg_catalog.clock_timestamp() - $4::interval
                       or not exists (select from pg_catalog.pg_locks l
                                      where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.pid = g.pid and l.classid = $5 and l.objid = $6
                                        and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
                       -- A pooled connection that works for another run by now.
                       or exists (select from {Workers} w where w.backfill = g.backfill and w.pid = g.pid and w.run <> g.run and w.started_at > g.heartbeat))
                order by g.run = $2 and g.worker = $3 desc nulls last, g.run is not null, g.id
                limit 1 for update skip locked
            ), msb_claim as (
                update {Ranges} r
                set run = $2, worker = $3, pid = pg_catalog.pg_backend_pid(), heartbeat = pg_catalog.clock_timestamp()
                from msb_free c
                where r.backfill = $1 and r.id = c.id
                returning r.id, r.relation, r.key_columns is not null as by_key, r.position is null as first, r.slices, r.stretch
            )
            select c.id, c.relation, c.by_key, c.first, c.slices, c.stretch, (select pg_catalog.count(*) from {Ranges} where backfill = $1 and not finished), b.state
            from {Table} b left join msb_claim c on b.state = 'running'
            where b.name = $1
            """;
        await using NpgsqlCommand command = Command(connection, Sql, definition.Name);
        command.Parameters.Add(new() { Value = run });
        command.Parameters.Add(new() { Value = number });
        command.Parameters.Add(new() { Value = silence });
        command.Parameters.Add(new() { Value = (uint)TableOperationLock.ClassId, NpgsqlDbType = NpgsqlDbType.Oid });
        command.Parameters.Add(new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid });
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            throw Missing(definition.Name);
        }

        RangeClaim? claim = await reader.IsDBNullAsync(0, cancellationToken).ConfigureAwait(false)
            ? null
            : new RangeClaim(reader.GetInt32(0), reader.GetFieldValue<uint>(1), reader.GetBoolean(2), reader.GetBoolean(3), reader.GetInt32(4), reader.GetInt64(5));
        return (claim, reader.GetInt64(6), reader.GetString(7));
    }

    /// <summary>Ends the ranges of a part that is none any more.</summary>
    internal static async Task EndPartAsync(NpgsqlConnection connection, string name, uint relation, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = Command(connection, $"update {Ranges} set finished = true, rows_seen = rows_estimated where backfill = $1 and relation = $2 and not finished", name);
        command.Parameters.Add(new() { Value = relation, NpgsqlDbType = NpgsqlDbType.Oid });
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Moves a checkpoint over a piece whose rows were done one by one; not where somebody else has moved it.</summary>
    internal static async Task AdvanceAsync(NpgsqlConnection connection, string name, int range, string[]? from, string[] to, bool atEnd, CancellationToken cancellationToken)
    {
        const string Sql = $"""
            update {Ranges}
            set position = $4, finished = $5, heartbeat = pg_catalog.clock_timestamp(),
                rows_seen = case when key_columns is not null then rows_seen when $5 then rows_estimated
                                 else rows_estimated * (($4::text[])[1]::int8 - lower[1]::int8) / (slices * greatest(1, upper[1]::int8 - lower[1]::int8)) end
            where backfill = $1 and id = $2 and not finished and position is not distinct from $3
            """;
        await using NpgsqlCommand command = Command(connection, Sql, name);
        command.Parameters.Add(new() { Value = range });
        command.Parameters.Add(new() { Value = (object?)from ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text });
        command.Parameters.Add(new() { Value = to });
        command.Parameters.Add(new() { Value = atEnd });
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Records a row that the server refuses.</summary>
    /// <returns>How many there are.</returns>
    internal static async Task<long> RecordErrorAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        BackfillLeaf leaf,
        RowPlace place,
        string[]? key,
        RowRefusal refusal,
        CancellationToken cancellationToken)
    {
        // The same row at another place, where it was changed since it first failed.
        const string Older = $"delete from {Errors} where backfill = $1 and relation = $2 and (place = $3 or (key = $4 and key_columns = $5))";
        const string Sql = $"""
            insert into {Errors} (backfill, relation, relation_name, place, version, key, key_columns, sqlstate, message) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            on conflict (backfill, relation, place) do update
            set version = excluded.version, key = excluded.key, sqlstate = excluded.sqlstate, message = excluded.message, again = false, failed_at = excluded.failed_at
            """;
        NpgsqlParameter Texts(string[]? value) => new() { Value = (object?)value ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text };
        NpgsqlParameter Oid() => new() { Value = leaf.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid };
        string[]? names = key is null ? null : leaf.KeyNames;
        await using NpgsqlBatch batch = new(connection)
        {
            Timeout = AnswerSeconds,
            BatchCommands =
            {
                Durable(),
                new(Older) { Parameters = { new() { Value = definition.Name }, Oid(), new() { Value = place.Place }, Texts(key), Texts(names) } },
                new(Sql)
                {
                    Parameters =
                    {
                        new() { Value = definition.Name },
                        Oid(),
                        new() { Value = leaf.Table.Display },
                        new() { Value = place.Place },
                        new() { Value = place.Version },
                        Texts(key),
                        Texts(names),
                        new() { Value = refusal.SqlState },
                        new() { Value = refusal.Words },
                    },
                },
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        return await ErrorsAsync(connection, definition.Name, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>How many rows failed and were not changed since.</summary>
    internal static async Task<long> ErrorsAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = Command(connection, $"select pg_catalog.count(*) from {Errors} where backfill = $1 and not again", name);
        return (long)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    /// <summary>What a run did.</summary>
    internal static async Task<(long Rows, long Batches)> RunAsync(NpgsqlConnection connection, string name, Guid run, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = Command(
            connection, $"select coalesce(pg_catalog.sum(rows_done), 0)::int8, coalesce(pg_catalog.sum(batches), 0)::int8 from {Workers} where backfill = $1 and run = $2", name);
        command.Parameters.Add(new() { Value = run });
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        return (reader.GetInt64(0), reader.GetInt64(1));
    }

    /// <summary>When a backend that works on it was last heard of, and why it waits by itself; null where it does not.</summary>
    internal static async Task<(DateTime Heartbeat, string? WaitingFor)> HeartbeatAsync(NpgsqlConnection connection, string name, int pid, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = Command(
            connection, $"select pg_catalog.max(w.heartbeat), pg_catalog.max(b.waiting_for) from {Table} b join {Workers} w on w.backfill = b.name where b.name = $1 and w.pid = $2", name);
        command.Parameters.Add(new() { Value = pid });
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        return (await reader.IsDBNullAsync(0, cancellationToken).ConfigureAwait(false) ? default : reader.GetDateTime(0), reader.Text(1));
    }

    /// <summary>Records what ended a run.</summary>
    internal static async Task NoteFailureAsync(NpgsqlConnection connection, string name, string message, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = Command(connection, $"update {Table} set last_error = $2, updated_at = pg_catalog.clock_timestamp() where name = $1 and state <> 'completed'", name);
        command.Parameters.Add(new() { Value = message });
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Begins another sweep.</summary>
    /// <returns>Its number; null where the backfill does not run any more.</returns>
    internal static async Task<int?> SweepAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = Command(
            connection, $"update {Table} set sweep = sweep + 1, updated_at = pg_catalog.clock_timestamp() where name = $1 and state = 'running' returning sweep", name);
        return (int?)await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Records the end, durably: with it all batches before it are flushed. Errors that did not come again are forgotten.</summary>
    internal static async Task CompleteAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        await using NpgsqlBatch batch = new(connection)
        {
            Timeout = AnswerSeconds,
            BatchCommands =
            {
                Durable(),
                new($"delete from {Errors} where backfill = $1 and again") { Parameters = { new() { Value = name } } },
                new($"""
                    update {Table}
                    set state = 'completed', last_error = null, waiting_for = null, waiting_since = null, updated_at = pg_catalog.clock_timestamp(), finished_at = pg_catalog.clock_timestamp()
                    where name = $1 and state = 'running'
                    """) { Parameters = { new() { Value = name } } },
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    internal static MigrationException Missing(string name) => new(
        "CheckpointMissing",
        MigrationErrorKind.InvalidState,
        $"The checkpoint of {name} was removed by somebody while the backfill ran.",
        "Run the command again: it begins from the start and passes over the rows that are done.")
    {
        Target = name,
    };

    internal static BackfillKind KindOf(string recorded) => recorded switch { "delete" => BackfillKind.Delete, "insert" => BackfillKind.Insert, _ => BackfillKind.Update };

    /// <summary>Makes its transaction durable: a beginning or an end that a crash took back would leave others without their record.</summary>
    private static NpgsqlBatchCommand Durable() => new("select pg_catalog.set_config('synchronous_commit', 'on', true)");

    private static NpgsqlCommand Command(NpgsqlConnection connection, string sql, string name) =>
        new(sql, connection) { CommandTimeout = AnswerSeconds, Parameters = { new() { Value = name } } };

    /// <summary>An array as a text that casts back to it.</summary>
    private static string ArrayText(IEnumerable<string> values) =>
        "{" + string.Join(",", values.Select(v => "\"" + v.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal) + "\"")) + "}";
}

/// <summary>A range that a worker has taken.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Relation">Oid of its table.</param>
/// <param name="ByKey">Whether it is one of keys rather than of blocks.</param>
/// <param name="First">Whether it has no checkpoint yet and begins before the first key.</param>
/// <param name="Slices">In how many turns its blocks are done.</param>
/// <param name="Stretch">How many blocks are done so, one turn after the other, before the next ones.</param>
internal sealed record RangeClaim(int Id, uint Relation, bool ByKey, bool First, int Slices, long Stretch);

/// <summary>A version of a row: where it lies and which transaction made it. What moved or was changed has another one.</summary>
/// <param name="Relation">Oid of its table.</param>
/// <param name="Place">ctid, as text.</param>
/// <param name="Version">xmin, as text.</param>
/// <param name="Key">Its key, as the text of an array, by which it is found wherever it went; null where there is none or it was not asked for.</param>
internal readonly record struct RowPlace(uint Relation, string Place, string Version, string? Key = null);
