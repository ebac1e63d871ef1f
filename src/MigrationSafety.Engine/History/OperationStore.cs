using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.History;

/// <summary>
/// The table <c>migration_safety.operation</c>, one row an operation that changed something or tried to. For whoever reads it:
/// <list type="bullet">
/// <item><c>id</c>; <c>operation</c> (<c>IndexBuild</c>, <c>Backfill</c> ...), <c>action</c> (in words), <c>target</c>; <c>table_schema</c> and <c>table_name</c> where that is a table.</item>
/// <item><c>state</c>: <c>running</c>, <c>succeeded</c>, <c>failed</c> or <c>cancelled</c>. One that is <c>running</c> while nobody holds its advisory lock, of the key
/// <see cref="LockClass"/> &lt;&lt; 32 | id, was interrupted: the session that began it is gone.</item>
/// <item><c>role</c>, <c>client</c>, <c>os_user</c>, <c>os_host</c>, <c>application</c>: who; <c>pid</c>, <c>backend_start</c>: the backend that records it.</item>
/// <item><c>started_at</c>, <c>updated_at</c> (the last sign of life), <c>finished_at</c>; <c>wait_seconds</c>, <c>retries</c>, <c>rows_changed</c>; <c>phase</c>, what it is at, while it runs.</item>
/// <item><c>error_id</c>, <c>sqlstate</c>, <c>message</c>, <c>advice</c>: why it failed, or what it left undone.</item>
/// <item><c>steps</c>, <c>phases</c>, <c>samples</c>: arrays of <see cref="MigrationStep"/>, <see cref="OperationPhase"/> and <see cref="OperationSample"/> with names in snake case
/// and times in seconds; a phase, for one, is <c>{"command", "target", "name", "started_at", "duration", "wait_time", "total"}</c>.</item>
/// </list>
/// </summary>
internal static class OperationStore
{
    /// <summary>The table, for SQL.</summary>
    internal const string Table = "migration_safety.operation";

    /// <summary>High half of the keys of its advisory locks: "MiSl" in ASCII.</summary>
    internal const int LockClass = 0x4D69536C;

    private const int Races = 5;

    // An id and the class above as one key.
    private const string LockKey = "((1298748268::int8 << 32) | (id & 4294967295))";

    /// <summary>Columns and their types, in order. One that a table of an older version lacks is added; therefore a new one has a default or may be null.</summary>
    private static readonly (string Name, string Type)[] s_columns =
    [
        ("id", "int8 generated always as identity primary key"),
        ("operation", "text not null"),
        ("action", "text not null"),
        ("target", "text not null"),
        ("table_schema", "text"),
        ("table_name", "text"),
        ("state", "text not null default 'running' check (state in ('running', 'succeeded', 'failed', 'cancelled'))"),
        ("role", "text"),
        ("client", "text"),
        ("os_user", "text"),
        ("os_host", "text"),
        ("application", "text"),
        ("pid", "int4"),
        ("backend_start", "timestamptz"),
        ("started_at", "timestamptz not null default pg_catalog.clock_timestamp()"),
        ("updated_at", "timestamptz not null default pg_catalog.clock_timestamp()"),
        ("finished_at", "timestamptz"),
        ("wait_seconds", "float8 not null default 0"),
        ("retries", "int8 not null default 0"),
        ("rows_changed", "int8"),
        ("phase", "text"),
        ("error_id", "text"),
        ("sqlstate", "text"),
        ("message", "text"),
        ("advice", "text"),
        ("steps", "jsonb not null default '[]'"),
        ("phases", "jsonb not null default '[]'"),
        ("samples", "jsonb not null default '[]'"),
    ];

    /// <summary>Bounds of the log's own statements. A standby that does not confirm is no reason for an operation to wait.</summary>
    internal static async Task PrepareAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        const string Sql = """
            select pg_catalog.set_config(name, value, false)
            from (values ('lock_timeout', '500ms'), ('statement_timeout', '2s'), ('synchronous_commit', 'local'), ('search_path', 'pg_catalog')) as s (name, value)
            """;
        await using NpgsqlCommand command = new(Sql, connection);
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Makes schema and table where they are missing, and adds the columns that an older version did not have.</summary>
    /// <exception cref="MigrationException"><c>HistoryDenied</c>: the role may not; the advice has the GRANT.</exception>
    internal static async Task EnsureAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        for (int race = 1; ; race++)
        {
            string[] statements = await MissingAsync(connection, cancellationToken).ConfigureAwait(false);
            try
            {
                foreach (string sql in statements)
                {
                    await using NpgsqlCommand command = new(sql, connection);
                    await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
                }

                return;
            }
            catch (PostgresException e) when (race < Races && e.SqlState is SqlStates.UniqueViolation or SqlStates.DuplicateSchema or SqlStates.DuplicateTable or SqlStates.DuplicateObject)
            {
                // IF NOT EXISTS does not see what another client is just creating: look again.
            }
        }
    }

    /// <summary>Records the beginning, and holds the entry's lock from then on.</summary>
    /// <returns>The entry's id, and how much later the server's clock is.</returns>
    internal static async Task<(long Id, TimeSpan Skew)> BeginAsync(
        NpgsqlConnection connection,
        OperationPlan plan,
        OperationRecord record,
        string application,
        CancellationToken cancellationToken)
    {
        const string Sql = $"""
            with entry as (
                insert into {Table} (operation, action, target, table_schema, table_name, role, client, os_user, os_host, application, pid, backend_start, steps)
                select $1, $2, $3, $4, $5, a.usename, pg_catalog.host(a.client_addr), $6, $7, $8, a.pid, a.backend_start, $9
                from pg_catalog.pg_stat_activity a
                where a.pid = pg_catalog.pg_backend_pid()
                returning id, started_at
            )
            select id, started_at, pg_catalog.pg_advisory_lock_shared({LockKey}) from entry
            """;
        (string? schema, string? table) = TableOf(plan.Target);
        await using NpgsqlCommand command = new(Sql, connection)
        {
            Parameters =
            {
                new() { Value = plan.Operation },
                new() { Value = plan.Action },
                new() { Value = plan.Target },
                Text(schema),
                Text(table),
                Text(Environment.UserName),
                Text(Environment.MachineName),
                Text(application),
                Json(HistoryJson.Write(record.Steps)),
            },
        };
        DateTimeOffset asked = DateTimeOffset.UtcNow;
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        TimeSpan skew = new DateTimeOffset(reader.GetDateTime(1), TimeSpan.Zero) - asked;
        // Within the time that the answer took, the clocks agree as far as can be told.
        return (reader.GetInt64(0), skew > TimeSpan.Zero && skew < DateTimeOffset.UtcNow - asked ? TimeSpan.Zero : skew);
    }

    /// <summary>Takes the entry's lock on another connection than the one that began it.</summary>
    internal static async Task AttendAsync(NpgsqlConnection connection, long id, CancellationToken cancellationToken)
    {
        const string Sql = $"""
            with entry as (
                update {Table} o
                set pid = a.pid, backend_start = a.backend_start, updated_at = pg_catalog.clock_timestamp()
                from pg_catalog.pg_stat_activity a
                where a.pid = pg_catalog.pg_backend_pid() and o.id = $1
                returning id
            )
            select pg_catalog.pg_advisory_lock_shared({LockKey}) from entry
            """;
        await using NpgsqlCommand command = new(Sql, connection) { Parameters = { new() { Value = id } } };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Records how far it is.</summary>
    internal static async Task UpdateAsync(NpgsqlConnection connection, long id, OperationRecord record, CancellationToken cancellationToken)
    {
        const string Sql = $"""
            update {Table}
            set updated_at = pg_catalog.clock_timestamp(), wait_seconds = $2, retries = $3, rows_changed = $4, steps = $5, phases = $6, samples = $7, phase = $8
            where id = $1 and state = 'running'
            """;
        await using NpgsqlCommand command = new(Sql, connection);
        AddRecord(command, id, record);
        command.Parameters.Add(Text(record.Phase));
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>A sign of life, and the rows so far: what is large of the record stays as it is. Nothing is lost where it is lost.</summary>
    internal static async Task SignAsync(NpgsqlConnection connection, long id, long? rows, CancellationToken cancellationToken)
    {
        await using NpgsqlBatch batch = new(connection)
        {
            BatchCommands =
            {
                new("select pg_catalog.set_config('synchronous_commit', 'off', true)"),
                new($"update {Table} set updated_at = pg_catalog.clock_timestamp(), rows_changed = $2 where id = $1 and state = 'running'")
                {
                    Parameters = { new() { Value = id }, new() { Value = (object?)rows ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Bigint } },
                },
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Records the end.</summary>
    internal static async Task FinishAsync(NpgsqlConnection connection, long id, string state, OperationRecord record, MigrationException? error, CancellationToken cancellationToken)
    {
        const string Sql = $"""
            update {Table}
            set updated_at = pg_catalog.clock_timestamp(), finished_at = pg_catalog.clock_timestamp(), wait_seconds = $2, retries = $3, rows_changed = $4,
                steps = $5, phases = $6, samples = $7, state = $8, error_id = $9, sqlstate = $10, message = $11, advice = $12, phase = null
            where id = $1
            """;
        await using NpgsqlCommand command = new(Sql, connection);
        AddRecord(command, id, record);
        command.Parameters.Add(Text(state));
        command.Parameters.Add(Text(error?.ErrorId));
        command.Parameters.Add(Text(error?.SqlState));
        command.Parameters.Add(Text(error?.Message));
        command.Parameters.Add(Text(error?.RecommendedAction));
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Takes an entry back.</summary>
    internal static async Task RemoveAsync(NpgsqlConnection connection, long id, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new($"delete from {Table} where id = $1", connection) { Parameters = { new() { Value = id } } };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Gives the entry's lock back: a pooled connection keeps it until it is used again.</summary>
    internal static async Task ReleaseAsync(NpgsqlConnection connection)
    {
        await using NpgsqlCommand command = new("select pg_catalog.pg_advisory_unlock_all()", connection) { CommandTimeout = 2 };
        await command.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>How far the slowest standby is behind; null where there is none or this role may not see it.</summary>
    internal static async Task<(TimeSpan? Lag, long? Bytes)> LagAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        // Without a lag, one that has replayed all is not behind. Who subscribes is no standby.
        const string Query = """
            select pg_catalog.max(coalesce(replay_lag, interval '0')), pg_catalog.max(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), replay_lsn))::int8
            from pg_catalog.pg_stat_replication
            where replay_lsn is not null and pid not in (select active_pid from pg_catalog.pg_replication_slots where slot_type = 'logical' and active_pid is not null)
            """;
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        return (reader.Duration(0), reader.Long(1) is { } bytes ? Math.Max(0, bytes) : null);
    }

    private static async Task<string[]> MissingAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        const string Query = """
            select current_user::text, pg_catalog.current_database()::text, n.oid is not null, t.oid is not null,
                   pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
                   coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false), coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false),
                   coalesce(pg_catalog.has_table_privilege(t.oid, 'SELECT') and pg_catalog.has_table_privilege(t.oid, 'INSERT')
                            and pg_catalog.has_table_privilege(t.oid, 'UPDATE'), false),
                   coalesce(pg_catalog.pg_has_role(t.relowner, 'USAGE'), false),
                   array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped)
            from (select) as one
            left join pg_catalog.pg_namespace n on n.nspname = 'migration_safety'
            left join pg_catalog.pg_class t on t.relnamespace = n.oid and t.relname = 'operation'
            """;
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        string role = SqlName.QuoteIfNeeded(reader.GetString(0));
        string database = SqlName.QuoteIfNeeded(reader.GetString(1));
        (bool hasSchema, bool hasTable) = (reader.GetBoolean(2), reader.GetBoolean(3));
        (bool mayCreateSchema, bool mayUse, bool mayCreateTable) = (reader.GetBoolean(4), reader.GetBoolean(5), reader.GetBoolean(6));
        (bool mayWrite, bool owns) = (reader.GetBoolean(7), reader.GetBoolean(8));
        string[] lacking = [.. s_columns.Select(column => column.Name).Except(reader.GetFieldValue<string[]>(9))];
        if (!hasSchema)
        {
            return mayCreateSchema
                ? [StateSchema.Create, CreateTable()]
                : throw Denied($"{role} may not create the schema migration_safety in {database}", $"GRANT CREATE ON DATABASE {database} TO {role};");
        }

        if (!hasTable)
        {
            return mayUse && mayCreateTable
                ? [CreateTable()]
                : throw Denied($"{role} may not create a table in the schema migration_safety", $"GRANT USAGE, CREATE ON SCHEMA migration_safety TO {role};");
        }

        if (!mayUse || !mayWrite)
        {
            throw Denied($"{role} may not write {Table}", $"GRANT USAGE ON SCHEMA migration_safety TO {role}; GRANT SELECT, INSERT, UPDATE ON {Table} TO {role};");
        }

        return lacking.Length == 0 ? []
            : owns ? [$"alter table {Table} {string.Join(", ", s_columns.Where(column => lacking.Contains(column.Name)).Select(column => $"add column if not exists {column.Name} {column.Type}"))}"]
            : throw Denied($"{Table} was made by an older version of this module, and {role} does not own it", $"ALTER TABLE {Table} OWNER TO {role};");
    }

    private static string CreateTable() =>
        $"create table if not exists {Table} (\n    {string.Join(",\n    ", s_columns.Select(column => $"{column.Name} {column.Type}"))}\n) using heap";

    private static MigrationException Denied(string what, string grant) =>
        new("HistoryDenied", MigrationErrorKind.Permission, $"{what}, which keeps the log of operations.", $"Have its owner run: {grant}") { Target = Table };

    /// <summary>Schema and table of a target; nulls where it is no table.</summary>
    private static (string? Schema, string? Table) TableOf(string target)
    {
        try
        {
            return SqlName.Parse(target) is (string schema, string name) ? (schema, name) : (null, null);
        }
        catch (MigrationException e) when (e.ErrorId == "InvalidName")
        {
            // Not every operation is about a table.
            return (null, null);
        }
    }

    private static void AddRecord(NpgsqlCommand command, long id, OperationRecord record)
    {
        command.Parameters.Add(new() { Value = id });
        command.Parameters.Add(new() { Value = record.WaitTime.TotalSeconds });
        command.Parameters.Add(new() { Value = record.Retries });
        command.Parameters.Add(new() { Value = (object?)record.Rows ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Bigint });
        command.Parameters.Add(Json(HistoryJson.Write(record.Steps)));
        command.Parameters.Add(Json(HistoryJson.Write(record.Phases)));
        command.Parameters.Add(Json(HistoryJson.Write(record.Samples)));
    }

    private static NpgsqlParameter Text(string? value) => new() { Value = (object?)value ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text };

    private static NpgsqlParameter Json(string json) => new() { Value = json, NpgsqlDbType = NpgsqlDbType.Jsonb };
}
