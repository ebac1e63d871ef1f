using System.Data;
using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Execution;

/// <summary>What a backend of ours is doing about its locks, in one snapshot.</summary>
/// <param name="Waiting">It queues for a lock right now.</param>
/// <param name="HoldsTraffic">It holds a lock on an object of its step that stops reads or writes.</param>
/// <param name="Blockers">Who is in its way.</param>
/// <param name="Cause">For what it waits.</param>
internal sealed record LockSnapshot(bool Waiting, bool HoldsTraffic, IReadOnlyList<LockBlocker> Blockers, LockWaitCause Cause);

/// <summary>A second connection that watches a first: who is in its way before it queues, and while it does.</summary>
internal sealed class LockObserver : IAsyncDisposable
{
    // Prepared transactions have no backend: pg_locks shows them without pid, and under a virtual transaction that also locks their transaction id.
    // backend_type is hidden from roles without pg_read_all_stats; a backend with a database and no user is an autovacuum worker.
    private const string BlockerColumns = $"""
        l.pid, coalesce(a.usename, p.owner)::text, a.application_name, pg_catalog.host(a.client_addr),
        case when p.gid is not null then 'prepared' else a.state end,
        pg_catalog.clock_timestamp() - coalesce(p.prepared, a.xact_start), coalesce(p.gid, case when a.query <> '<insufficient privilege>' then pg_catalog.left(a.query, 1000) end),
        coalesce(a.backend_type, case when a.datid is not null and a.usesysid is null then 'autovacuum worker' end), a.backend_start,
        l.mode, l.granted, case when l.locktype = 'relation' and l.database = d.oid then l.relation::pg_catalog.regclass::text end,
        a.query like '%(to prevent wraparound)'
            or (a.query = '<insufficient privilege>' and l.granted and l.mode = 'ShareUpdateExclusiveLock'
                and exists (select from pg_catalog.pg_class c where c.oid = l.relation and {LockTable.NearWraparound}))
        """;

    private const string BlockerJoins = """
        left join pg_catalog.pg_stat_activity a on a.pid = l.pid
        left join (pg_catalog.pg_locks x join pg_catalog.pg_prepared_xacts p on x.locktype = 'transactionid' and x.transactionid = p.transaction)
            on l.pid is null and x.pid is null and x.virtualtransaction = l.virtualtransaction
        """;

    private const int QueryLength = 1000;

    private readonly EngineSession _session;
    private readonly IOperationSink _sink;
    private NpgsqlConnection _connection;

    private LockObserver(EngineSession session, IOperationSink sink, NpgsqlConnection connection)
    {
        _session = session;
        _sink = sink;
        _connection = connection;
    }

    internal static async Task<LockObserver> OpenAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        new(session, sink, await OpenConnectionAsync(session, sink, cancellationToken).ConfigureAwait(false));

    /// <summary>Opens a connection in place of one that was lost; does nothing where it was not.</summary>
    internal async Task EnsureOpenAsync(CancellationToken cancellationToken)
    {
        if (_connection.FullState.HasFlag(ConnectionState.Open) && !_connection.FullState.HasFlag(ConnectionState.Broken))
        {
            return;
        }

        NpgsqlConnection lost = _connection;
        _connection = await OpenConnectionAsync(_session, _sink, cancellationToken).ConfigureAwait(false);
        await lost.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>The step's objects with what a lock on them reaches: partitions and children, toast, and for drops the parents of foreign keys.</summary>
    internal async Task<uint[]> ScopeAsync(MigrationStep step, bool withForeignKeyParents, bool namedAlone, CancellationToken cancellationToken)
    {
        const string Query = """
            with recursive named as (
                select pg_catalog.to_regclass(o)::oid as oid from pg_catalog.unnest($1::text[]) as o
            ), tree as (
                select oid from named where oid is not null
                union
                select i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid where not $3
            )
            select oid from tree
            union
            select c.reltoastrelid from tree join pg_catalog.pg_class c on c.oid = tree.oid where c.reltoastrelid <> 0 and not $3
            union
            select k.confrelid from tree join pg_catalog.pg_constraint k on k.conrelid = tree.oid where $2 and k.contype = 'f'
            union
            select x.indrelid from tree join pg_catalog.pg_index x on x.indexrelid = tree.oid where not $3
            """;
        await using NpgsqlCommand command = new(Query, _connection) { Parameters = { new() { Value = step.Objects }, new() { Value = withForeignKeyParents }, new() { Value = namedAlone } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<uint> oids = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            oids.Add(reader.GetFieldValue<uint>(0));
        }

        return [.. oids];
    }

    /// <summary>Who holds or awaits a lock that conflicts with the mode on one of the relations; own backend excepted.</summary>
    internal async Task<IReadOnlyList<LockBlocker>> InTheWayAsync(uint[] relations, TableLockMode mode, int ownPid, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select {BlockerColumns}
            from pg_catalog.pg_locks l
            join pg_catalog.pg_database d on d.datname = pg_catalog.current_database() and l.database = d.oid
            {BlockerJoins}
            where l.locktype = 'relation' and l.relation = any ($1) and l.mode = any ($2) and l.pid is distinct from $3
            order by a.xact_start nulls first, l.pid, not l.granted, l.relation
            """;
        await using NpgsqlCommand command = new(Query, _connection)
        {
            Parameters =
            {
                new() { Value = relations, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Array | NpgsqlTypes.NpgsqlDbType.Oid },
                new() { Value = mode.ConflictNames() },
                new() { Value = ownPid },
            },
        };
        return await ReadBlockersAsync(command, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Who queues for ACCESS EXCLUSIVE on what a backend reads.</summary>
    internal async Task<IReadOnlyList<LockBlocker>> BehindAsync(int pid, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select {BlockerColumns}
            from pg_catalog.pg_locks l
            join pg_catalog.pg_database d on d.datname = pg_catalog.current_database() and l.database = d.oid
            {BlockerJoins}
            where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock' and not l.granted
              and exists (select from pg_catalog.pg_locks o where o.pid = $1 and o.locktype = 'relation' and o.granted and o.database = l.database and o.relation = l.relation)
            order by a.xact_start nulls first, l.pid
            """;
        await using NpgsqlCommand command = new(Query, _connection) { Parameters = { new() { Value = pid } } };
        return await ReadBlockersAsync(command, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>What the backend is doing about its locks: waiting for whom, holding what.</summary>
    internal async Task<LockSnapshot> WatchAsync(int pid, uint[] relations, CancellationToken cancellationToken)
    {
        const string OwnQuery = """
            select coalesce(pg_catalog.bool_or(not l.granted), false),
                   coalesce(pg_catalog.bool_or(l.granted and l.locktype = 'relation' and l.relation = any ($2)
                       and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')), false),
                   (select p.phase from pg_catalog.pg_stat_progress_create_index p where p.pid = $1),
                   coalesce(pg_catalog.bool_or(not l.granted and l.locktype = 'virtualxid'), false)
            from pg_catalog.pg_locks l
            where l.pid = $1
            """;
        bool waiting;
        bool holds;
        LockWaitCause cause;
        await using (NpgsqlCommand own = new(OwnQuery, _connection)
        {
            Parameters = { new() { Value = pid }, new() { Value = relations, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Array | NpgsqlTypes.NpgsqlDbType.Oid } },
        })
        await using (NpgsqlDataReader reader = await own.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false))
        {
            await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
            (waiting, holds) = (reader.GetBoolean(0), reader.GetBoolean(1));
            cause = reader.Text(2) switch
            {
                { } phase when phase.StartsWith("waiting for writers", StringComparison.Ordinal) => LockWaitCause.Writers,
                { } phase when phase.StartsWith("waiting for old snapshots", StringComparison.Ordinal) => LockWaitCause.Snapshots,
                // DROP INDEX CONCURRENTLY is in no view.
                _ when reader.GetBoolean(3) => LockWaitCause.Readers,
                _ => LockWaitCause.Lock,
            };
        }

        return new LockSnapshot(waiting, holds, waiting ? await BlockersOfAsync(pid, cancellationToken).ConfigureAwait(false) : [], cause);
    }

    /// <summary>Who is in the way of the backend, those before it in the queue included.</summary>
    internal Task<IReadOnlyList<LockBlocker>> BlockersOfAsync(int pid, CancellationToken cancellationToken) => BlockersOfAsync(_connection, pid, cancellationToken);

    /// <summary>The same, asked on a connection of the caller.</summary>
    internal static async Task<IReadOnlyList<LockBlocker>> BlockersOfAsync(NpgsqlConnection connection, int pid, CancellationToken cancellationToken)
    {
        LockGraph graph = new(await LockTable.ReadAsync(connection, table: null, QueryLength, cancellationToken).ConfigureAwait(false));
        return graph.BlockersOfPid(pid);
    }

    /// <summary>Cancels what a backend is doing.</summary>
    /// <returns>False where this role may not.</returns>
    internal async Task<bool> CancelAsync(int pid, CancellationToken cancellationToken)
    {
        try
        {
            await using NpgsqlCommand command = new("select pg_catalog.pg_cancel_backend($1)", _connection) { Parameters = { new() { Value = pid } } };
            return (bool)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.InsufficientPrivilege)
        {
            return false;
        }
    }

    /// <summary>Cancels or ends a session that is in the way, by the rules of <see cref="Locks.SessionEnder"/>.</summary>
    internal Task<Locks.SessionEnd> EndAsync(LockBlocker blocker, bool terminate, CancellationToken cancellationToken) =>
        Locks.SessionEnder.EndAsync(_connection, blocker.Pid, blocker.BackendStart, terminate, force: false, cancellationToken);

    /// <summary>The server's deadlock_timeout: autovacuum steps aside only after it.</summary>
    internal async Task<TimeSpan> DeadlockTimeoutAsync(CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select setting::int4 from pg_catalog.pg_settings where name = 'deadlock_timeout'", _connection);
        return TimeSpan.FromMilliseconds((int)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!);
    }

    public ValueTask DisposeAsync() => _connection.DisposeAsync();

    private static Task<NpgsqlConnection> OpenConnectionAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        session.OpenAsync("observer", sink, cancellationToken);

    private static async Task<IReadOnlyList<LockBlocker>> ReadBlockersAsync(NpgsqlCommand command, CancellationToken cancellationToken)
    {
        List<LockBlocker> blockers = [];
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            blockers.Add(reader.Blocker() with
            {
                Mode = reader.Text(9),
                Granted = reader.GetBoolean(10),
                Relation = reader.Text(11),
                PreventsWraparound = reader.IsTrue(12),
            });
        }

        // One that holds locks on a table and all its indexes or partitions is one in the way: by its first lock.
        return [.. blockers.GroupBy(blocker => (blocker.Pid, blocker.Pid == 0 ? blocker.Query : null)).Select(locks => locks.First() with { PreventsWraparound = locks.Any(held => held.PreventsWraparound) })];
    }
}
