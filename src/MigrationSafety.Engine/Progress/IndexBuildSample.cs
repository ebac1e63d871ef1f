using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Progress;

/// <summary>One moment of a running index build (<c>pg_stat_progress_create_index</c>, <c>pg_stat_activity</c>). Null is what this role may not see.</summary>
internal sealed record IndexBuildSample
{
    internal required int Pid { get; init; }

    internal string? Database { get; init; }

    /// <summary>Table as schema.name; its oid where it is in another database.</summary>
    internal string? Table { get; init; }

    /// <summary>Index as schema.name; null as long as it cannot be seen.</summary>
    internal string? Index { get; init; }

    internal string? Command { get; init; }

    internal string? Phase { get; init; }

    internal long LockersTotal { get; init; }

    internal long LockersDone { get; init; }

    internal long BlocksTotal { get; init; }

    internal long BlocksDone { get; init; }

    internal long TuplesTotal { get; init; }

    internal long TuplesDone { get; init; }

    internal string? User { get; init; }

    internal string? Application { get; init; }

    internal string? Query { get; init; }

    internal TimeSpan? Elapsed { get; init; }

    internal string? WaitEventType { get; init; }

    internal string? WaitEvent { get; init; }

    /// <summary>Whom it waits for, by the lock tables: the view's current_locker_pid may still be the one of the phase before.</summary>
    internal int[] BlockedBy { get; init; } = [];

    /// <summary>Whether this role was shown nothing but the pid.</summary>
    internal bool Hidden { get; init; }

    /// <summary>Reads all builds of the server, or one, in one round trip.</summary>
    /// <param name="connection">Connection; names are resolved in its database.</param>
    /// <param name="pid">Backend; null for all.</param>
    /// <param name="table">Oid of a table of this database; null for all.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<IReadOnlyList<IndexBuildSample>> ReadAsync(NpgsqlConnection connection, int? pid, uint? table, CancellationToken cancellationToken)
    {
        const string Query = """
            select p.pid, p.datname::text,
                   case when p.datname = pg_catalog.current_database()
                        then (select pg_catalog.format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = p.relid)
                        else p.relid::text end,
                   case when p.datname = pg_catalog.current_database()
                        then (select pg_catalog.format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = p.index_relid)
                        end,
                   p.command, p.phase, coalesce(p.lockers_total, 0), coalesce(p.lockers_done, 0),
                   coalesce(p.blocks_total, 0), coalesce(p.blocks_done, 0), coalesce(p.tuples_total, 0), coalesce(p.tuples_done, 0),
                   a.usename::text, a.application_name, pg_catalog.left(a.query, 1000), pg_catalog.clock_timestamp() - a.query_start, a.wait_event_type, a.wait_event,
                   pg_catalog.array_remove(pg_catalog.pg_blocking_pids(p.pid), pg_catalog.pg_backend_pid()), p.relid is null
            from pg_catalog.pg_stat_progress_create_index p
            left join pg_catalog.pg_stat_activity a on a.pid = p.pid
            where ($1::int4 is null or p.pid = $1) and ($2::oid is null or (p.datname = pg_catalog.current_database() and (p.relid = $2
                  or (p.relid is null and exists (select from pg_catalog.pg_locks l where l.pid = p.pid and l.relation = $2 and l.database = p.datid)))))
            order by a.query_start, p.pid
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = (object?)pid ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Integer },
                new() { Value = (object?)table ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Oid },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<IndexBuildSample> samples = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            bool hidden = reader.GetBoolean(19);
            samples.Add(new IndexBuildSample
            {
                Pid = reader.GetInt32(0),
                Database = reader.Text(1),
                Table = reader.Text(2),
                Index = reader.Text(3),
                Command = reader.Text(4),
                Phase = reader.Text(5),
                LockersTotal = reader.GetInt64(6),
                LockersDone = reader.GetInt64(7),
                BlocksTotal = reader.GetInt64(8),
                BlocksDone = reader.GetInt64(9),
                TuplesTotal = reader.GetInt64(10),
                TuplesDone = reader.GetInt64(11),
                User = reader.Text(12),
                Application = hidden && reader.Text(13) is "" ? null : reader.Text(13),
                // What may not be seen comes as a text in this column.
                Query = hidden ? null : reader.Text(14),
                Elapsed = reader.Duration(15),
                WaitEventType = reader.Text(16),
                WaitEvent = reader.Text(17),
                BlockedBy = [.. reader.GetFieldValue<int[]>(18).Distinct()],
                Hidden = hidden,
            });
        }

        return samples;
    }

    /// <summary>What it waits for, in words; null while it works.</summary>
    internal string? Waiting()
    {
        return BlockedBy.Length > 0
            ? $"{(WaitEvent is "relation" ? "lock of" : "transaction of")} {string.Join(", ", BlockedBy.Select(pid => pid == 0 ? "a prepared transaction" : $"pid {pid}"))}"
            : WaitEventType is null or "Activity" or "Client" ? null : $"{WaitEventType}/{WaitEvent}";
    }
}
