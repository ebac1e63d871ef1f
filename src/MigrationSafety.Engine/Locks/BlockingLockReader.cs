using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Locks;

/// <summary>Who waits for whom, in one snapshot and one round trip.</summary>
public static class BlockingLockReader
{
    /// <summary>Reads the snapshot: roots first, each with those who wait for it under it.</summary>
    /// <param name="session">Session; its whole server is looked at, names are resolved in its database.</param>
    /// <param name="sink">Where a missing privilege is said.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The tree, row by row; empty where nobody waits.</returns>
    /// <exception cref="MigrationException">The server refused.</exception>
    public static async Task<IReadOnlyList<BlockingLock>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("locks", sink, cancellationToken).ConfigureAwait(false);
            (List<BlockingNode> nodes, bool hidden) = await ReadNodesAsync(connection, session.Info, sink, cancellationToken).ConfigureAwait(false);
            if (hidden)
            {
                sink.Warning(
                    $"Role {session.Info.User} may not see the queries, users and ages of other roles' sessions; these are empty. To see them: GRANT pg_read_all_stats TO {Sql.SqlName.QuoteIfNeeded(session.Info.User)};");
            }

            return BlockingTree.Order(nodes);
        }
        catch (Exception e) when (e is NpgsqlException)
        {
            throw ServerErrors.Translate(e, "Reading the locks", session.Info.ToString());
        }
    }

    private static async Task<(List<BlockingNode> Nodes, bool Hidden)> ReadNodesAsync(NpgsqlConnection connection, MigrationSession server, IOperationSink sink, CancellationToken cancellationToken)
    {
        // This query's own snapshot is waited for by a concurrent index build, until the query ends: it does not count.
        // pg_locks is copied once. A blocker with pid 0 is a prepared transaction: it is found by the lock that it holds on what is waited for.
        // A row lock is waited for as the transaction that holds it; the row's table is that of the tuple lock which the waiter holds meanwhile.
        const string Query = """
            with locks as materialized (
                select locktype, database, relation, page, tuple, virtualxid, transactionid, classid, objid, objsubid, virtualtransaction, pid, mode, granted, waitstart
                from pg_catalog.pg_locks
            ), prepared as materialized (
                select p.gid, p.prepared, p.owner, p.database, l.virtualtransaction
                from pg_catalog.pg_prepared_xacts p
                join locks l on l.pid is null and l.locktype = 'transactionid' and l.transactionid = p.transaction
            ), waiter as materialized (
                select distinct on (pid) *, pg_catalog.array_remove(pg_catalog.pg_blocking_pids(pid), pg_catalog.pg_backend_pid()) as blockers
                from locks
                where not granted and pid is not null
                order by pid, waitstart
            ), edge as (
                select w.pid as waiter, b.pid as blocker, null::text as gid
                from waiter w cross join lateral (select distinct pid from pg_catalog.unnest(w.blockers) as u (pid)) b
                where b.pid <> 0
                union all
                select distinct w.pid, 0, p.gid
                from waiter w
                join locks l on l.pid is null and l.granted
                    and (l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid, l.classid, l.objid, l.objsubid)
                        is not distinct from (w.locktype, w.database, w.relation, w.page, w.tuple, w.virtualxid, w.transactionid, w.classid, w.objid, w.objsubid)
                join prepared p on p.virtualtransaction = l.virtualtransaction
                where 0 = any (w.blockers)
            ), node as (
                select waiter as pid, null::text as gid from edge
                union
                select blocker, gid from edge
            ), here as (
                select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()
            ), wanted as (
                select distinct database, relation from waiter where relation is not null
                union
                select l.database, l.relation from locks l join waiter w on w.pid = l.pid where l.locktype = 'tuple' and w.locktype = 'transactionid'
            )
            select n.pid, n.gid,
                   (select pg_catalog.array_agg(e.blocker order by e.blocker) from edge e where e.waiter = n.pid and n.gid is null),
                   (select pg_catalog.array_agg(coalesce(e.gid, '') order by e.blocker) from edge e where e.waiter = n.pid and n.gid is null),
                   pg_catalog.clock_timestamp() - w.waitstart,
                   w.locktype, w.mode,
                   case
                       when r.relation is null then null
                       when r.database in (0, (select oid from here)) then
                           coalesce((select s.nspname || '.' || c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace s on s.oid = c.relnamespace where c.oid = r.relation), r.relation::text)
                       else r.relation::text || ' in ' || coalesce((select datname from pg_catalog.pg_database where oid = r.database), r.database::text)
                   end,
                   (select l.mode from locks l join wanted on (wanted.database, wanted.relation) = (l.database, l.relation)
                    where l.granted and l.locktype = 'relation'
                      and (l.pid = n.pid or (l.pid is null and l.virtualtransaction = p.virtualtransaction))
                    order by pg_catalog.array_position(array['AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock', 'ShareUpdateExclusiveLock',
                                                             'RowExclusiveLock', 'RowShareLock', 'AccessShareLock'], l.mode)
                    limit 1),
                   coalesce(p.gid, a.query),
                   case when p.gid is not null then 'prepared' else a.state end,
                   pg_catalog.clock_timestamp() - coalesce(p.prepared, a.xact_start),
                   case when a.state like 'idle in transaction%' then pg_catalog.clock_timestamp() - a.state_change end,
                   coalesce(a.usename, p.owner)::text, a.application_name, pg_catalog.host(a.client_addr), a.backend_type, a.backend_start,
                   coalesce(a.datname, p.database)::text, pg_catalog.statement_timestamp()
            from node n
            left join waiter w on w.pid = n.pid and n.gid is null
            left join pg_catalog.pg_stat_activity a on a.pid = n.pid
            left join prepared p on p.gid = n.gid
            left join lateral (
                select w.database, w.relation where w.relation is not null
                union all
                select l.database, l.relation from locks l where w.locktype = 'transactionid' and l.pid = w.pid and l.locktype = 'tuple'
                limit 1
            ) r on true
            """;
        await using NpgsqlBatch batch = new(connection)
        {
            BatchCommands =
            {
                new NpgsqlBatchCommand("set statement_timeout = '15s'"),
                new NpgsqlBatchCommand(Query),
            },
        };
        sink.Debug(Query);
        List<BlockingNode> nodes = [];
        bool hidden = false;
        await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            string? query = reader.Text(9);
            bool hiddenHere = query == "<insufficient privilege>";
            hidden |= hiddenHere;
            int[] blockers = reader.IsDBNull(2) ? [] : reader.GetFieldValue<int[]>(2);
            string[] gids = reader.IsDBNull(3) ? [] : reader.GetFieldValue<string[]>(3);
            nodes.Add(new BlockingNode(
                new BlockingNodeKey(reader.GetInt32(0), reader.Text(1)),
                [.. blockers.Zip(gids, (pid, gid) => new BlockingNodeKey(pid, gid.Length == 0 ? null : gid))],
                new BlockingLock
                {
                    Pid = reader.GetInt32(0),
                    BlockingPid = blockers,
                    WaitTime = reader.Duration(4),
                    LockType = reader.Text(5),
                    RequestedMode = reader.Text(6),
                    Relation = reader.Text(7),
                    HeldMode = reader.Text(8),
                    Query = hiddenHere ? null : query,
                    State = reader.Text(10),
                    TransactionAge = reader.Duration(11),
                    IdleTime = reader.Duration(12),
                    User = reader.Text(13),
                    Application = reader.Text(14),
                    ClientAddress = reader.Text(15),
                    BackendType = reader.Text(16),
                    BackendStart = reader.Time(17),
                    Database = reader.Text(18),
                    Server = server.Server,
                    Port = server.Port,
                    Timestamp = reader.Time(19)!.Value,
                }));
        }

        return (nodes, hidden);
    }
}
