using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.History;

/// <summary>Reads the log of operations of a database. Creates nothing.</summary>
public static class HistoryReader
{
    /// <summary>Reads operations.</summary>
    /// <param name="session">Session.</param>
    /// <param name="filter">Which operations; an empty filter for all.</param>
    /// <param name="sink">Notices.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The operations, oldest first; none where none was recorded.</returns>
    /// <exception cref="MigrationException"><c>HistoryDenied</c>: this role may not read the log; <c>InvalidName</c>, or the connection's.</exception>
    public static async Task<IReadOnlyList<MigrationOperation>> ReadAsync(EngineSession session, HistoryFilter filter, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("history", sink, cancellationToken).ConfigureAwait(false);
            // Whoever waits for a lock holds a snapshot, which index builds wait for in turn.
            await using (NpgsqlCommand limit = new("select pg_catalog.set_config('lock_timeout', '500ms', false)", connection))
            {
                await limit.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }

            return await IsThereAsync(connection, session, sink, cancellationToken).ConfigureAwait(false)
                ? await ReadAsync(connection, session, filter, cancellationToken).ConfigureAwait(false)
                : [];
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, "Reading the history", OperationStore.Table);
        }
    }

    private static async Task<bool> IsThereAsync(NpgsqlConnection connection, EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_table_privilege(t.oid, 'SELECT'), current_user::text, pg_catalog.pg_is_in_recovery()
            from pg_catalog.pg_namespace n
            join pg_catalog.pg_class t on t.relnamespace = n.oid and t.relname = 'operation'
            where n.nspname = 'migration_safety'
            """;
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            sink.Verbose($"{session.Info}: no operation was recorded in this database.");
            return false;
        }

        if (reader.GetBoolean(2))
        {
            sink.Warning($"{session.Info} is a standby: an operation that was interrupted is shown as Running there, because who is at work can be told on the primary alone.");
        }

        string role = SqlName.QuoteIfNeeded(reader.GetString(1));
        return reader.GetBoolean(0) ? true : throw new MigrationException(
            "HistoryDenied",
            MigrationErrorKind.Permission,
            $"{role} may not read {OperationStore.Table}.",
            $"Have its owner run: GRANT USAGE ON SCHEMA migration_safety TO {role}; GRANT SELECT ON {OperationStore.Table} TO {role};")
        {
            Target = OperationStore.Table,
        };
    }

    private static async Task<IReadOnlyList<MigrationOperation>> ReadAsync(NpgsqlConnection connection, EngineSession session, HistoryFilter filter, CancellationToken cancellationToken)
    {
        const string Query = $"""
            with entry as (
                select o.*,
                       case when o.state <> 'running' or pg_catalog.pg_is_in_recovery() then o.state
                            when exists (select from pg_catalog.pg_locks l
                                         where l.locktype = 'advisory' and l.objsubid = 1 and l.granted and l.classid = 1298748268::oid and l.objid = (o.id & 4294967295)::oid
                                           and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))
                            then 'running' else 'interrupted' end as outcome
                from {OperationStore.Table} o
                where ($1::int8[] is null or o.id = any ($1))
                  and ($2::text[] is null or o.table_name = any ($2)) and ($3::text[] is null or o.table_schema = any ($3))
                  and ($4::text[] is null or o.operation ilike any ($4))
                  and ($5::timestamptz is null or o.started_at >= $5) and ($6::timestamptz is null or o.started_at <= $6)
            ), latest as (
                select * from entry where $7::text[] is null or outcome = any ($7) order by id desc limit $8
            )
            select id, operation, action, target, table_schema, table_name, outcome, role, client, os_user, os_host, application, pid, backend_start,
                   started_at, finished_at, case when outcome = 'running' then pg_catalog.clock_timestamp() else coalesce(finished_at, updated_at) end - started_at,
                   wait_seconds, retries, rows_changed, error_id, sqlstate, message, advice, steps::text, phases::text, samples::text
            from latest
            order by id
            """;
        (string? schema, string? table) = filter.Table is null ? (null, null) : SqlName.Parse(filter.Table);
        // The text as it stands as well, as where a table is looked for: people type Order for a table that SQL calls "Order".
        string[]? names = table is null ? null : filter.Table!.Contains('"', StringComparison.Ordinal) ? [table] : [table, filter.Table.Trim().Split('.')[^1]];
        string[]? schemas = schema is null ? null : filter.Table!.Contains('"', StringComparison.Ordinal) ? [schema] : [schema, filter.Table.Trim().Split('.')[0]];
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                Value(filter.Id.Count == 0 ? null : filter.Id.ToArray(), NpgsqlDbType.Array | NpgsqlDbType.Bigint),
                Value(names, NpgsqlDbType.Array | NpgsqlDbType.Text),
                Value(schemas, NpgsqlDbType.Array | NpgsqlDbType.Text),
                Value(filter.Operation.Count == 0 ? null : filter.Operation.Select(Like).ToArray(), NpgsqlDbType.Array | NpgsqlDbType.Text),
                Value(filter.Since?.ToUniversalTime(), NpgsqlDbType.TimestampTz),
                Value(filter.Until?.ToUniversalTime(), NpgsqlDbType.TimestampTz),
                Value(filter.Outcome.Count == 0 ? null : filter.Outcome.Select(outcome => outcome.ToString().ToLowerInvariant()).ToArray(), NpgsqlDbType.Array | NpgsqlDbType.Text),
                Value((long?)filter.Last, NpgsqlDbType.Bigint),
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<MigrationOperation> found = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            found.Add(Read(reader, session.Info));
        }

        return found;
    }

    /// <summary>What belongs to operations in the order in which these began, each once: the way back depends on it.</summary>
    /// <typeparam name="T">What belongs to an operation.</typeparam>
    /// <param name="items">What belongs to operations, in any order.</param>
    /// <param name="operation">The operation of an item.</param>
    /// <returns>The items in order.</returns>
    public static IReadOnlyList<T> InOrder<T>(IEnumerable<T> items, Func<T, MigrationOperation> operation) =>
    [
        .. items
            .DistinctBy(item => (operation(item).Server, operation(item).Port, operation(item).Database, operation(item).Id))
            .OrderBy(item => operation(item).StartedAt)
            .ThenBy(item => operation(item).Id),
    ];

    private static MigrationOperation Read(NpgsqlDataReader reader, MigrationSession session)
    {
        OperationOutcome outcome = Enum.Parse<OperationOutcome>(reader.GetString(6), ignoreCase: true);
        MigrationStep[] steps = HistoryJson.Read<MigrationStep>(reader.GetString(24));
        if (outcome == OperationOutcome.Interrupted)
        {
            // What it had begun it has not ended, and may have left something of.
            DateTimeOffset lastSeen = reader.Time(14)!.Value + reader.Duration(16)!.Value;
            steps = [.. steps.Select(step => step is { State: StepState.Planned, StartedAt: not null } ? step with { State = StepState.Failed, Duration = lastSeen > step.StartedAt ? lastSeen - step.StartedAt.Value : TimeSpan.Zero } : step)];
        }

        return new MigrationOperation
        {
            Id = reader.GetInt64(0),
            Operation = reader.GetString(1),
            Action = reader.GetString(2),
            Target = reader.GetString(3),
            Schema = reader.Text(4) is { } schema ? SqlName.QuoteIfNeeded(schema) : null,
            Table = reader.Text(5) is { } table ? SqlName.QuoteIfNeeded(table) : null,
            Outcome = outcome,
            User = reader.Text(7),
            ClientAddress = reader.Text(8),
            SystemUser = reader.Text(9),
            ComputerName = reader.Text(10),
            Application = reader.Text(11),
            Pid = reader.Int(12),
            BackendStart = reader.Time(13),
            StartedAt = reader.Time(14)!.Value,
            FinishedAt = reader.Time(15),
            Duration = reader.Duration(16)!.Value,
            WaitTime = TimeSpan.FromSeconds(reader.GetDouble(17)),
            Retries = reader.GetInt64(18),
            Rows = reader.Long(19),
            Reversibility = RollbackGenerator.ReversibilityOf(steps),
            ErrorId = reader.Text(20),
            SqlState = reader.Text(21),
            Message = reader.Text(22),
            RecommendedAction = reader.Text(23),
            Steps = steps,
            Phases = HistoryJson.Read<OperationPhase>(reader.GetString(25)),
            Samples = HistoryJson.Read<OperationSample>(reader.GetString(26)),
            Server = session.Server,
            Port = session.Port,
            Database = session.Database,
            Origin = session,
        };
    }

    private static string Like(string pattern) => pattern
        .Replace(@"\", @"\\", StringComparison.Ordinal)
        .Replace("%", @"\%", StringComparison.Ordinal)
        .Replace("_", @"\_", StringComparison.Ordinal)
        .Replace('*', '%')
        .Replace('?', '_');

    private static NpgsqlParameter Value(object? value, NpgsqlDbType type) => new() { Value = value ?? DBNull.Value, NpgsqlDbType = type };
}
