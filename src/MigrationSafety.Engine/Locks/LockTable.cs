using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Locks;

/// <summary>A lock that a session holds or awaits.</summary>
/// <param name="Key">What is locked; the same text for the same object.</param>
/// <param name="Type">locktype of pg_locks.</param>
/// <param name="Mode">Mode; all kinds of locks have these, and they conflict alike.</param>
/// <param name="Granted">Held; else awaited.</param>
/// <param name="WaitStart">Since when it is awaited; null in the first moment.</param>
/// <param name="RelationKey">Database and oid of the relation; null where there is none.</param>
/// <param name="Relation">The relation for people.</param>
/// <param name="InScope">The relation is the table that was asked for, or belongs to it.</param>
/// <param name="NearWraparound">The relation is so old that only a vacuum to prevent wraparound works on it.</param>
internal sealed record LockEntry(
    string Key, string Type, TableLockMode Mode, bool Granted, DateTime? WaitStart, string? RelationKey, string? Relation, bool InScope, bool NearWraparound);

/// <summary>A session or prepared transaction with its locks.</summary>
/// <param name="LeaderPid">Leader of a parallel worker; else its own pid.</param>
/// <param name="Row">What is known of it, without its place in the tree.</param>
/// <param name="Hidden">This role is not shown what it does.</param>
/// <param name="RecoveryConflict">Replay on a standby that waits for sessions rather than for a lock.</param>
/// <param name="OldestSnapshot">Has the oldest snapshot of the server; asked only where replay waits for one.</param>
/// <param name="Locks">Its locks, as far as they matter to anybody who waits.</param>
internal sealed record LockProcess(int LeaderPid, BlockingLock Row, bool Hidden, bool RecoveryConflict, bool OldestSnapshot, IReadOnlyList<LockEntry> Locks);

/// <summary>The server's lock table with the sessions behind it, in one query: all that the tree and the records of waits are made of.</summary>
internal static class LockTable
{
    /// <summary>
    /// Whether a table is so old that an autovacuum of it prevents wraparound, and so never yields. For <c>c</c> of pg_class. The worker's query says so too, but not
    /// to everybody (manual, "Preventing Transaction ID Wraparound Failures").
    /// </summary>
    internal const string NearWraparound = """
        c.relkind in ('r', 'm', 't') and (
            pg_catalog.age(c.relfrozenxid) > least(pg_catalog.current_setting('autovacuum_freeze_max_age')::int4,
                (select option_value::int4 from pg_catalog.pg_options_to_table(c.reloptions) where option_name = 'autovacuum_freeze_max_age'))
            or pg_catalog.mxid_age(c.relminmxid) > least(pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::int4,
                (select option_value::int4 from pg_catalog.pg_options_to_table(c.reloptions) where option_name = 'autovacuum_multixact_freeze_max_age')))
        """;

    // pg_locks is copied once, and nothing is asked of each waiter: pg_blocking_pids() would lock the whole lock table for each of them.
    // This query's own snapshot is waited for by a concurrent index build, until the query ends: it does not count.
    // Kept are the locks on what somebody waits for; tuple locks, which tell the table of a row that is waited for; the transaction ids of prepared transactions, by
    // which alone they are found; and for each table that is waited for, who holds what on it.
    internal const string Query = $"""
        with recursive scope (oid) as (
            select $1::oid where $1::oid is not null
            union
            select x.oid from scope join lateral (
                select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = scope.oid
                union all
                select n.indexrelid from pg_catalog.pg_index n where n.indrelid = scope.oid
                union all
                select t.reltoastrelid from pg_catalog.pg_class t where t.oid = scope.oid and t.reltoastrelid <> 0
            ) x (oid) on true
        ), locks as materialized (
            select l.locktype, l.database, l.relation, l.transactionid, l.virtualtransaction, l.pid, l.mode, l.granted, l.waitstart,
                   row(l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid, l.classid, l.objid, l.objsubid)::text as key
            from pg_catalog.pg_locks l
            where l.mode <> 'SIReadLock' and l.pid is distinct from pg_catalog.pg_backend_pid()
        ), kept as materialized (
            select * from locks
            where key in (select key from locks where not granted)
                or locktype = 'tuple'
                or (pid is null and locktype = 'transactionid')
                or (granted and locktype = 'relation'
                    and (database, relation) in (select database, relation from locks where relation is not null and (not granted or locktype = 'tuple')))
        ), here as materialized (
            select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()
        ), relations as materialized (
            select k.database, k.relation,
                   case when n.nspname is not null then n.nspname || '.' || c.relname
                        when k.database in (0, (select oid from here)) then k.relation::text
                        else k.relation::text || ' in ' || coalesce(d.datname, k.database::text) end as name,
                   n.nspname is not null and k.relation in (select oid from scope) as in_scope,
                   coalesce({NearWraparound}, false) as near_wraparound
            from (select distinct database, relation from kept where relation is not null) k
            left join pg_catalog.pg_class c on c.oid = k.relation and k.database in (0, (select oid from here))
            left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            left join pg_catalog.pg_database d on d.oid = k.database
        ), holding as materialized (
            select k.pid, case when k.pid is null then k.virtualtransaction end as virtualtransaction,
                   pg_catalog.max(case when k.pid is null and k.locktype = 'transactionid' then k.transactionid::text end) as transaction,
                   pg_catalog.array_agg(k.key) as keys, pg_catalog.array_agg(k.locktype) as types, pg_catalog.array_agg(k.mode) as modes, pg_catalog.array_agg(k.granted) as granted,
                   pg_catalog.array_agg(coalesce(pg_catalog.date_part('epoch', k.waitstart), 0)) as waitstarts,
                   pg_catalog.array_agg(coalesce(k.database::text || '.' || k.relation::text, '')) as relation_keys, pg_catalog.array_agg(coalesce(r.name, '')) as relations,
                   pg_catalog.array_agg(coalesce(r.in_scope, false)) as in_scope, pg_catalog.array_agg(coalesce(r.near_wraparound, false)) as near_wraparound
            from kept k
            left join relations r on r.database = k.database and r.relation = k.relation
            group by 1, 2
        ), activity as materialized (
            select a.*, a.backend_type = 'startup' and a.wait_event like 'RecoveryConflict%' as recovery_conflict
            from pg_catalog.pg_stat_activity a
        ), conflict as materialized (
            select pg_catalog.max(pg_catalog.age(backend_xmin)) as oldest from activity
            where backend_xmin is not null and pid <> pg_catalog.pg_backend_pid() and exists (select from activity where recovery_conflict)
        ), wanted as (
            select pid from holding where pid is not null
            union
            select a.leader_pid from activity a join holding using (pid) where a.leader_pid is not null
            union
            select pid from activity
            where recovery_conflict or (pg_catalog.age(backend_xmin) = (select oldest from conflict) and pid <> pg_catalog.pg_backend_pid())
        )
        select coalesce(h.pid, w.pid, 0), p.gid, coalesce(a.leader_pid, h.pid, w.pid, 0),
               h.keys, h.types, h.modes, h.granted, h.waitstarts, h.relation_keys, h.relations, h.in_scope, h.near_wraparound,
               coalesce(a.usename, p.owner)::text, a.application_name, pg_catalog.host(a.client_addr),
               case when p.gid is not null then 'prepared' else a.state end,
               pg_catalog.clock_timestamp() - coalesce(p.prepared, a.xact_start),
               case when a.state like 'idle in transaction%' then pg_catalog.clock_timestamp() - a.state_change end,
               coalesce(p.gid, pg_catalog.left(a.query, $2)), a.query = '<insufficient privilege>', a.query like '%(to prevent wraparound)',
               coalesce(a.backend_type, case when a.datid is not null and a.usesysid is null then 'autovacuum worker' end), a.backend_start,
               coalesce(a.datname, p.database)::text, coalesce(a.recovery_conflict, false), pg_catalog.age(a.backend_xmin) = (select oldest from conflict), pg_catalog.clock_timestamp()
        from holding h
        full join wanted w on w.pid = h.pid
        left join activity a on a.pid = w.pid
        left join pg_catalog.pg_prepared_xacts p on p.transaction::text = h.transaction
        """;

    /// <summary>Reads it in one round trip.</summary>
    /// <param name="connection">Connection; names are resolved in its database.</param>
    /// <param name="table">Table whose locks are to be marked as in scope; null for none.</param>
    /// <param name="queryLength">Most characters of a query.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<IReadOnlyList<LockProcess>> ReadAsync(
        NpgsqlConnection connection, uint? table, int queryLength, CancellationToken cancellationToken)
    {
        await using NpgsqlBatch batch = new(connection)
        {
            BatchCommands =
            {
                new NpgsqlBatchCommand("set statement_timeout = '15s'"),
                new NpgsqlBatchCommand(Query)
                {
                    Parameters = { new() { Value = table is { } oid ? oid : DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid }, new() { Value = queryLength } },
                },
                new NpgsqlBatchCommand("set statement_timeout = 0"),
            },
        };
        List<LockProcess> processes = [];
        await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            // Without pid, and not among the prepared: it ended between two looks.
            if (reader.GetInt32(0) != 0 || !reader.IsDBNull(1))
            {
                processes.Add(Process(reader));
            }
        }

        return processes;
    }

    private static LockProcess Process(NpgsqlDataReader reader)
    {
        bool hidden = reader.IsTrue(19);
        IReadOnlyList<LockEntry> locks = Locks(reader);
        string? type = reader.Text(21);
        BlockingLock row = new()
        {
            Pid = reader.GetInt32(0),
            Gid = reader.Text(1),
            User = reader.Text(12),
            Application = reader.Text(13),
            ClientAddress = reader.Text(14),
            State = reader.Text(15),
            TransactionAge = reader.Duration(16),
            IdleTime = reader.Duration(17),
            Query = hidden || reader.Text(18) is not { Length: > 0 } query ? null : query,
            PreventsWraparound = type == "autovacuum worker"
                && (reader.IsTrue(20) || (hidden && locks.Any(held => held is { Granted: true, Type: "relation", Mode: TableLockMode.ShareUpdateExclusive, NearWraparound: true }))),
            BackendType = type,
            BackendStart = reader.Time(22),
            Database = reader.Text(23),
            Server = "",
            Port = 0,
            Timestamp = reader.Time(26)!.Value,
        };
        return new LockProcess(reader.GetInt32(2), row, hidden, reader.IsTrue(24), reader.IsTrue(25), locks);
    }

    private static LockEntry[] Locks(NpgsqlDataReader reader)
    {
        if (reader.IsDBNull(3))
        {
            return [];
        }

        string[] keys = reader.GetFieldValue<string[]>(3);
        string[] types = reader.GetFieldValue<string[]>(4);
        string[] modes = reader.GetFieldValue<string[]>(5);
        bool[] granted = reader.GetFieldValue<bool[]>(6);
        double[] starts = reader.GetFieldValue<double[]>(7);
        string[] relationKeys = reader.GetFieldValue<string[]>(8);
        string[] relations = reader.GetFieldValue<string[]>(9);
        bool[] inScope = reader.GetFieldValue<bool[]>(10);
        bool[] near = reader.GetFieldValue<bool[]>(11);
        LockEntry[] locks = new LockEntry[keys.Length];
        for (int i = 0; i < locks.Length; i++)
        {
            locks[i] = new LockEntry(
                keys[i],
                types[i],
                LockModes.OfCatalogName(modes[i]),
                granted[i],
                starts[i] == 0 ? null : DateTime.UnixEpoch.AddSeconds(starts[i]),
                relationKeys[i].Length == 0 ? null : relationKeys[i],
                relations[i].Length == 0 ? null : relations[i],
                inScope[i],
                near[i]);
        }

        return locks;
    }
}
