using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What is recorded about a backfill.</summary>
/// <param name="Schema">Schema of its table.</param>
/// <param name="Table">Its table.</param>
/// <param name="TableOid">The table's oid when it began.</param>
/// <param name="Key">Columns of the primary key when it began.</param>
/// <param name="SetText">SET list.</param>
/// <param name="Where">Which rows.</param>
/// <param name="IsCompleted">Whether it reached its end.</param>
/// <param name="AtStart">Whether the sweep has no checkpoint yet.</param>
/// <param name="RetryNeeded">Whether this sweep passed over locked rows, so that another has to follow.</param>
/// <param name="Sweep">Number of the sweep, from 1.</param>
/// <param name="RowsInTable">Rows in the table when it began, estimated.</param>
/// <param name="RowsDone">Rows updated since it last began from the start.</param>
/// <param name="RowsSeen">Rows passed in the first sweep.</param>
/// <param name="TotalRows">Rows updated by all runs.</param>
/// <param name="Batches">Batches committed since it last began from the start.</param>
internal sealed record BackfillRecord(
    string Schema,
    string Table,
    uint TableOid,
    string[] Key,
    string SetText,
    string Where,
    bool IsCompleted,
    bool AtStart,
    bool RetryNeeded,
    int Sweep,
    long RowsInTable,
    long RowsDone,
    long RowsSeen,
    long TotalRows,
    long Batches);

/// <summary>
/// The table <c>migration_safety.backfill</c>, one row a backfill, with what must survive the client. For whoever reads it:
/// <list type="bullet">
/// <item><c>name</c>; <c>table_schema</c>, <c>table_name</c>, <c>table_oid</c>; <c>key_columns</c>, <c>set_list</c>, <c>predicate</c>: the definition.</item>
/// <item><c>state</c>: <c>running</c> (begun and not at its end, whether or not somebody works on it) or <c>completed</c>.</item>
/// <item><c>pid</c> and <c>backend_start</c>: the backend that works or last worked on it; somebody works on it while pg_stat_activity has both. Besides,
/// that backend holds the advisory lock (0x4D695361, table's oid) of <see cref="TableOperationLock"/>. <c>application</c>, <c>client</c>, <c>role</c>: who that is.</item>
/// <item><c>rows_done</c>: rows updated since it last began from the start; <c>rows_before</c>: by completed runs before that; <c>rows_estimated</c>: rows that matched
/// when it began, an estimate.</item>
/// <item><c>rows_seen</c>: rows passed in the first sweep, matching or not; of <c>rows_in_table</c>, an estimate: the two give the percentage.</item>
/// <item><c>sweep</c>, from 1; <c>last_key</c>: the checkpoint, the key's columns as texts; <c>bound</c>: the key at which the sweep ends;
/// <c>retry_after</c> to <c>retry_until</c>: where this sweep passed over locked rows, the range of the next one.</item>
/// <item><c>batches</c>; <c>started_at</c>, <c>updated_at</c> (of the last batch), <c>finished_at</c>.</item>
/// </list>
/// </summary>
internal static class BackfillStore
{
    /// <summary>The table, for SQL.</summary>
    internal const string Table = "migration_safety.backfill";

    // Short statements: one that gets no answer for so long has lost its connection.
    private const int AnswerSeconds = 20;

    // One row is updated with each batch: room on its page keeps these updates off the index.
    private const string CreateTable = """
        create table if not exists migration_safety.backfill (
            name text primary key,
            table_schema text not null,
            table_name text not null,
            table_oid oid not null,
            key_columns text[] not null,
            set_list text not null,
            predicate text not null,
            state text not null check (state in ('running', 'completed')),
            sweep int4 not null default 1,
            bound text[],
            last_key text[],
            retry_after text[],
            retry_until text[],
            rows_estimated int8 not null,
            rows_in_table int8 not null,
            rows_done int8 not null default 0,
            rows_before int8 not null default 0,
            rows_seen int8 not null default 0,
            batches int8 not null default 0,
            pid int4,
            backend_start timestamptz,
            application text,
            client text,
            role text,
            started_at timestamptz not null default pg_catalog.clock_timestamp(),
            updated_at timestamptz not null default pg_catalog.clock_timestamp(),
            finished_at timestamptz
        ) with (fillfactor = 20)
        """;

    /// <summary>The steps that make what is missing. Reads only.</summary>
    /// <returns>No step where all is there.</returns>
    /// <exception cref="MigrationException"><c>StateSchemaMissing</c>, <c>StateSchemaDenied</c>: the role may not; the advice has the GRANT.</exception>
    internal static async Task<IReadOnlyList<MigrationStep>> StepsAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        const string Query = """
            select current_user::text, pg_catalog.current_database()::text, n.oid is not null, t.oid is not null,
                   pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
                   coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false), coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false),
                   coalesce(pg_catalog.has_table_privilege(t.oid, 'SELECT') and pg_catalog.has_table_privilege(t.oid, 'INSERT')
                            and pg_catalog.has_table_privilege(t.oid, 'UPDATE'), false)
            from (select) as one
            left join pg_catalog.pg_namespace n on n.nspname = 'migration_safety'
            left join pg_catalog.pg_class t on t.relnamespace = n.oid and t.relname = 'backfill'
            """;
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        string role = SqlName.QuoteIfNeeded(reader.GetString(0));
        string database = SqlName.QuoteIfNeeded(reader.GetString(1));
        (bool hasSchema, bool hasTable) = (reader.GetBoolean(2), reader.GetBoolean(3));
        (bool mayCreateSchema, bool mayUse, bool mayCreateTable, bool mayWrite) = (reader.GetBoolean(4), reader.GetBoolean(5), reader.GetBoolean(6), reader.GetBoolean(7));
        if (!hasSchema && !mayCreateSchema)
        {
            throw new MigrationException(
                "StateSchemaMissing",
                MigrationErrorKind.Permission,
                $"The schema migration_safety, which keeps the checkpoints of backfills, is missing, and {role} may not create a schema in {database}.",
                $"Have the database's owner run: GRANT CREATE ON DATABASE {database} TO {role};")
            {
                Target = "migration_safety",
            };
        }

        if (hasSchema && (!mayUse || (hasTable ? !mayWrite : !mayCreateTable)))
        {
            throw new MigrationException(
                "StateSchemaDenied",
                MigrationErrorKind.Permission,
                $"{role} may not {(hasTable ? "read and write migration_safety.backfill" : "create a table in the schema migration_safety")}, which keeps the checkpoints of backfills.",
                hasTable
                    ? $"Have their owner run: GRANT USAGE ON SCHEMA migration_safety TO {role}; GRANT SELECT, INSERT, UPDATE ON migration_safety.backfill TO {role};"
                    : $"Have its owner run: GRANT USAGE, CREATE ON SCHEMA migration_safety TO {role};")
            {
                Target = "migration_safety",
            };
        }

        // No reversal: a rollback that drops them would take the checkpoints of every other backfill along.
        const string Note = $"What this module keeps its checkpoints in, for all backfills; no application uses it. When no backfill is unfinished, it may go: drop table {Table}; drop schema migration_safety;";
        List<MigrationStep> steps = [];
        if (!hasSchema)
        {
            steps.Add(new MigrationStep
            {
                Sql = StateSchema.Create,
                Purpose = "Create the schema for checkpoints",
                Reversibility = Reversibility.NotNeeded,
                ReversalNote = Note,
            });
        }

        if (!hasTable)
        {
            steps.Add(new MigrationStep
            {
                Sql = CreateTable,
                Purpose = "Create the table of checkpoints",
                Reversibility = Reversibility.NotNeeded,
                ReversalNote = Note,
            });
        }

        return steps;
    }

    /// <summary>What is recorded under a name; null where nothing is.</summary>
    internal static async Task<BackfillRecord?> ReadAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select table_schema, table_name, table_oid, key_columns, set_list, predicate, state = 'completed', last_key is null, retry_until is not null, sweep,
                   rows_in_table, rows_done, rows_seen, rows_before + rows_done, batches
            from {Table}
            where name = $1
            """;
        await using NpgsqlCommand command = new(Query, connection) { CommandTimeout = AnswerSeconds, Parameters = { new() { Value = name } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new BackfillRecord(
                reader.GetString(0),
                reader.GetString(1),
                reader.GetFieldValue<uint>(2),
                reader.GetFieldValue<string[]>(3),
                reader.GetString(4),
                reader.GetString(5),
                reader.GetBoolean(6),
                reader.GetBoolean(7),
                reader.GetBoolean(8),
                reader.GetInt32(9),
                reader.GetInt64(10),
                reader.GetInt64(11),
                reader.GetInt64(12),
                reader.GetInt64(13),
                reader.GetInt64(14))
            : null;
    }

    /// <summary>Refuses a name that is taken by another definition.</summary>
    /// <exception cref="MigrationException"><c>DefinitionDiffers</c>, with both.</exception>
    internal static void Check(BackfillRecord record, BackfillDefinition definition)
    {
        if (record.Schema == definition.Table.Schema && record.Table == definition.Table.Name && record.SetText == definition.SetText && record.Where == definition.Where)
        {
            return;
        }

        static string Text(string schema, string table, string set, string where) =>
            $"UPDATE {SqlName.QuoteIfNeeded(schema)}.{SqlName.QuoteIfNeeded(table)} SET {set} WHERE {where}";
        throw new MigrationException(
            "DefinitionDiffers",
            MigrationErrorKind.InvalidState,
            $"A backfill named {definition.Name} is recorded with another definition{(record.IsCompleted ? "" : ", and is not finished")}. "
            + $"Recorded: {Text(record.Schema, record.Table, record.SetText, record.Where)}. "
            + $"Asked for: {Text(definition.Table.Schema, definition.Table.Name, definition.SetText, definition.Where)}.",
            "Repeat the recorded definition to resume it, or give this one another name with -Name.")
        {
            Target = definition.Name,
        };
    }

    /// <summary>Records a new beginning from the first row, up to <paramref name="bound"/>: the greatest key as texts, null where the table is empty.</summary>
    internal static async Task BeginAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        string[]? bound,
        long estimatedRows,
        long rowsInTable,
        CancellationToken cancellationToken)
    {
        const string Sql = $"""
            insert into {Table} as b (name, table_schema, table_name, table_oid, key_columns, set_list, predicate, state, bound, rows_estimated, rows_in_table)
            values ($1, $2, $3, $4, $5, $6, $7, 'running', $8, $9, $10)
            on conflict (name) do update
            set table_oid = excluded.table_oid, key_columns = excluded.key_columns, state = excluded.state, sweep = 1, bound = excluded.bound,
                last_key = null, retry_after = null, retry_until = null, rows_estimated = excluded.rows_estimated, rows_in_table = excluded.rows_in_table,
                rows_before = b.rows_before + b.rows_done, rows_done = 0, rows_seen = 0, batches = 0,
                started_at = excluded.started_at, updated_at = excluded.updated_at, finished_at = null
            """;
        await using NpgsqlCommand command = new(Sql, connection)
        {
            CommandTimeout = AnswerSeconds,
            Parameters =
            {
                new() { Value = definition.Name },
                new() { Value = definition.Table.Schema },
                new() { Value = definition.Table.Name },
                new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid },
                new() { Value = definition.KeyNames },
                new() { Value = definition.SetText },
                new() { Value = definition.Where },
                new() { Value = (object?)bound ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Array | NpgsqlTypes.NpgsqlDbType.Text },
                new() { Value = estimatedRows },
                new() { Value = rowsInTable },
            },
        };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Records that this connection works on it.</summary>
    internal static async Task AttendAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        const string Sql = $"""
            update {Table} b
            set pid = a.pid, backend_start = a.backend_start, application = a.application_name, client = pg_catalog.host(a.client_addr), role = a.usename
            from pg_catalog.pg_stat_activity a
            where a.pid = pg_catalog.pg_backend_pid() and b.name = $1
            """;
        await using NpgsqlCommand command = new(Sql, connection) { CommandTimeout = AnswerSeconds, Parameters = { new() { Value = name } } };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Begins another sweep over the range in which rows were passed over.</summary>
    internal static async Task SweepAgainAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        const string Sql = $"""
            update {Table}
            set sweep = sweep + 1, last_key = retry_after, bound = retry_until, retry_after = null, retry_until = null, updated_at = pg_catalog.clock_timestamp()
            where name = $1 and retry_until is not null
            """;
        await using NpgsqlCommand command = new(Sql, connection) { CommandTimeout = AnswerSeconds, Parameters = { new() { Value = name } } };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Records the end, durably: with it all batches before it are flushed.</summary>
    internal static async Task CompleteAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        const string Sql = $"""
            update {Table}
            set state = 'completed', updated_at = pg_catalog.clock_timestamp(), finished_at = pg_catalog.clock_timestamp()
            where name = $1 and state = 'running' and pg_catalog.set_config('synchronous_commit', 'on', true) is not null
            """;
        await using NpgsqlCommand command = new(Sql, connection) { CommandTimeout = AnswerSeconds, Parameters = { new() { Value = name } } };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }
}
