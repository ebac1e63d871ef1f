using System.Globalization;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Where backfills are recorded, the tables of <see cref="BackfillSchema"/>, and how far they are: their workers, sweeps and ends.</summary>
internal static class BackfillStore
{
    internal const string Table = "migration_safety.backfill";
    internal const string Ranges = "migration_safety.backfill_range";
    internal const string Workers = "migration_safety.backfill_worker";
    internal const string Errors = "migration_safety.backfill_error";
    internal const string Running = "running";
    internal const string Paused = "paused";
    internal const string Completed = "completed";

    /// <summary>
    /// Whether a worker (w) of a backfill (b) works on it: it holds the table's advisory lock, which every role may see; a pid alone may be somebody else's by now. A standby sees none.
    /// </summary>
    internal static readonly string IsAtWork = $"""
        exists (select from pg_catalog.pg_locks l
                where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.pid = w.pid and l.classid = {(uint)TableOperationLock.ClassId} and l.objid = b.table_oid
                  and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
        -- A pooled connection that works for another run by now, or a pid that another backend has by now.
        and not exists (select from {Workers} n where n.pid = w.pid and (n.backend_start, n.started_at) > (w.backend_start, w.started_at))
        """;

    // Short statements: one that gets no answer for so long has lost its connection.
    internal const int AnswerSeconds = 20;

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

    /// <summary>Who stopped it last and when, as the end of a sentence; null where the log of operations does not tell.</summary>
    internal static async Task<string?> StoppedAsync(NpgsqlConnection connection, string name, DateTime begun, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select o.role, o.os_user, o.os_host, o.started_at
            from {OperationStore.Table} o
            where o.action = $1 and o.state = 'succeeded' and o.started_at >= $2
            order by o.id desc
            limit 1
            """;
        try
        {
            await using NpgsqlCommand command = Command(connection, Query, BackfillStopPlan.ActionOf(name));
            command.Parameters.Add(new() { Value = begun });
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
                ? string.Create(CultureInfo.InvariantCulture, $" by {reader.Text(0)} ({reader.Text(1)} on {reader.Text(2)}) at {reader.Time(3):yyyy-MM-dd HH:mm:ss}")
                : null;
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.UndefinedTable or SqlStates.UndefinedColumn or SqlStates.InsufficientPrivilege)
        {
            return null;
        }
    }

    /// <summary>Records what ended a run, unless another backfill has the name by now.</summary>
    internal static async Task NoteFailureAsync(NpgsqlConnection connection, string name, BackfillRecord record, string message, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = Command(
            connection, $"update {Table} set last_error = $2, updated_at = pg_catalog.clock_timestamp() where name = $1 and started_at = $3 and state <> 'completed'", name);
        command.Parameters.Add(new() { Value = message });
        command.Parameters.Add(new() { Value = record.Times.Started });
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
                new(BackfillConnection.Unbounded),
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
    internal static NpgsqlBatchCommand Durable() => new("select pg_catalog.set_config('synchronous_commit', 'on', true)");

    internal static NpgsqlCommand Command(NpgsqlConnection connection, string sql, string name) =>
        new(sql, connection) { CommandTimeout = AnswerSeconds, Parameters = { new() { Value = name } } };

}
