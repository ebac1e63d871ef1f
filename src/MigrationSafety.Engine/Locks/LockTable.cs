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
    // Kept are the locks that are waited for and what may be in their way; tuple locks, which tell the table of a row that is waited for; the transaction ids of
    // prepared transactions, by which alone they are found. It comes as plain rows, locks and sessions one after the other: to group them here is a third of the work.
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
            select l.* from pg_catalog.pg_locks l where l.mode <> 'SIReadLock' and l.pid is distinct from pg_catalog.pg_backend_pid()
        ), waited as materialized (
            select distinct locktype, database, relation, virtualxid, transactionid from locks where not granted or locktype = 'tuple'
        ), kept as materialized (
            select * from locks
            where not granted or locktype = 'tuple'
                or (locktype = 'relation' and (database, relation) in (select database, relation from waited where relation is not null))
                or (locktype = 'transactionid' and (pid is null or transactionid in (select transactionid from waited where transactionid is not null)))
                or (locktype = 'virtualxid' and virtualxid in (select virtualxid from waited where virtualxid is not null))
                or (locktype not in ('relation', 'tuple', 'transactionid', 'virtualxid') and locktype in (select locktype from waited))
        ), here as materialized (
            select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()
        ), relations as materialized (
            select k.database, k.relation,
                   case when n.nspname is not null then n.nspname || '.' || c.relname
                        when k.database in (0, (select oid from here)) then k.relation::text
                        else k.relation::text || ' in ' || coalesce(d.datname, k.database::text) end as name,
                   n.nspname is not null and k.relation in (select oid from scope) as in_scope,
                   coalesce({NearWraparound}, false) as near_wraparound
            from (select distinct database, relation from waited where relation is not null) k
            left join pg_catalog.pg_class c on c.oid = k.relation and k.database in (0, (select oid from here))
            left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            left join pg_catalog.pg_database d on d.oid = k.database
        ), activity as materialized (
            select a.*, a.backend_type = 'startup' and a.wait_event like 'RecoveryConflict%' as recovery_conflict
            from pg_catalog.pg_stat_activity a
        ), conflict as materialized (
            select pg_catalog.max(pg_catalog.age(backend_xmin)) as oldest from activity
            where backend_xmin is not null and pid <> pg_catalog.pg_backend_pid() and exists (select from activity where recovery_conflict)
        ), wanted as (
            select pid from kept where pid is not null
            union
            select leader_pid from activity where leader_pid is not null and pid in (select pid from kept)
        )
        select k.pid, case when k.pid is null then k.virtualtransaction end, k.locktype, k.database, k.relation, k.page, k.tuple, k.virtualxid, k.transactionid::text,
               k.classid, k.objid, k.objsubid, k.mode, k.granted, k.waitstart, r.name, r.in_scope, r.near_wraparound,
               null::int4, null::text, null::text, null::text, null::text, null::interval, null::interval, null::text, null::bool, null::bool, null::text, null::timestamptz, null::text,
               null::bool, null::bool, null::timestamptz
        from kept k
        left join relations r on r.database = k.database and r.relation = k.relation
        union all
        select a.pid, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
               coalesce(a.leader_pid, a.pid), a.usename::text, a.application_name, pg_catalog.host(a.client_addr), a.state, pg_catalog.clock_timestamp() - a.xact_start,
               case when a.state like 'idle in transaction%' then pg_catalog.clock_timestamp() - a.state_change end,
               pg_catalog.left(a.query, $2), a.query = '<insufficient privilege>', a.query like '%(to prevent wraparound)',
               coalesce(a.backend_type, case when a.datid is not null and a.usesysid is null then 'autovacuum worker' end), a.backend_start, a.datname::text,
               coalesce(a.recovery_conflict, false), pg_catalog.age(a.backend_xmin) = (select oldest from conflict), pg_catalog.statement_timestamp()
        from activity a
        where a.pid in (select pid from wanted) or a.recovery_conflict
            or (pg_catalog.age(a.backend_xmin) = (select oldest from conflict) and a.pid <> pg_catalog.pg_backend_pid())
        union all
        select null, p.gid, null, null, null, null, null, null, p.transaction::text, null, null, null, null, null, null, null, null, null,
               0, p.owner::text, null, null, 'prepared', pg_catalog.clock_timestamp() - p.prepared, null, p.gid, false, false, null, null, p.database::text, false, false,
               pg_catalog.statement_timestamp()
        from pg_catalog.pg_prepared_xacts p
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
        Dictionary<(int Pid, string? Prepared), List<LockEntry>> locks = [];
        Dictionary<string, string> transactions = [];
        List<(BlockingLock Row, int Leader, bool Hidden, bool OfVacuum, bool RecoveryConflict, bool OldestSnapshot, string? Transaction)> sessions = [];
        await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            if (reader.IsDBNull(18))
            {
                (int Pid, string? Prepared) holder = (reader.Int(0) ?? 0, reader.Text(1));
                if (!locks.TryGetValue(holder, out List<LockEntry>? held))
                {
                    locks[holder] = held = [];
                }

                held.Add(Lock(reader));
                if (holder.Prepared is { } prepared && reader.GetString(2) == "transactionid")
                {
                    transactions[reader.GetString(8)] = prepared;
                }
            }
            else
            {
                sessions.Add(Session(reader));
            }
        }

        // Without pid, and not among the prepared: it ended between two looks.
        List<LockProcess> processes = [];
        foreach (var session in sessions.OrderBy(session => session.Row.Pid))
        {
            List<LockEntry>? held;
            if (session.Transaction is { } transaction)
            {
                if (!transactions.TryGetValue(transaction, out string? prepared) || !locks.TryGetValue((0, prepared), out held))
                {
                    continue;
                }
            }
            else
            {
                locks.TryGetValue((session.Row.Pid, null), out held);
            }

            bool preventsWraparound = session.Row.BackendType == "autovacuum worker"
                && (session.OfVacuum || (session.Hidden
                    && held?.Any(entry => entry is { Granted: true, Type: "relation", Mode: TableLockMode.ShareUpdateExclusive, NearWraparound: true }) == true));
            processes.Add(new LockProcess(
                session.Leader, session.Row with { PreventsWraparound = preventsWraparound }, session.Hidden, session.RecoveryConflict, session.OldestSnapshot, held ?? []));
        }

        return processes;
    }

    private static LockEntry Lock(NpgsqlDataReader reader)
    {
        string type = reader.GetString(2);
        string? relation = reader.IsDBNull(4) ? null : $"{reader.GetFieldValue<uint>(3)}.{reader.GetFieldValue<uint>(4)}";
        // What is locked, whatever its kind: the columns of pg_locks that name it.
        string key = type switch
        {
            "relation" => relation!,
            "transactionid" => "x" + reader.GetString(8),
            "virtualxid" => "v" + reader.GetString(7),
            _ => string.Join('.', Enumerable.Range(2, 10).Select(column => reader.IsDBNull(column) ? "" : Convert.ToString(reader.GetValue(column), System.Globalization.CultureInfo.InvariantCulture))),
        };
        return new LockEntry(
            key,
            type,
            LockModes.OfCatalogName(reader.GetString(12)),
            reader.GetBoolean(13),
            reader.IsDBNull(14) ? null : reader.GetDateTime(14),
            relation,
            reader.Text(15),
            reader.IsTrue(16),
            reader.IsTrue(17));
    }

    private static (BlockingLock Row, int Leader, bool Hidden, bool OfVacuum, bool RecoveryConflict, bool OldestSnapshot, string? Transaction) Session(NpgsqlDataReader reader)
    {
        bool hidden = reader.IsTrue(26);
        BlockingLock row = new()
        {
            Pid = reader.Int(0) ?? 0,
            Gid = reader.Text(1),
            User = reader.Text(19),
            Application = reader.Text(20),
            ClientAddress = reader.Text(21),
            State = reader.Text(22),
            TransactionAge = reader.Duration(23),
            IdleTime = reader.Duration(24),
            Query = hidden || reader.Text(25) is not { Length: > 0 } query ? null : query,
            BackendType = reader.Text(28),
            BackendStart = reader.Time(29),
            Database = reader.Text(30),
            Server = "",
            Port = 0,
            Timestamp = reader.Time(33)!.Value,
        };
        return (row, reader.GetInt32(18), hidden, reader.IsTrue(27), reader.IsTrue(31), reader.IsTrue(32), reader.Text(8));
    }
}
