using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;

namespace MigrationSafety.Engine.Progress;

/// <summary>
/// The queries of a sample. They ask for no lock on any table: pg_relation_size() and its kin would queue behind the very ALTER that is asked about.
/// $1 is a pid, $2 the oid of a table, which stands for its partitions too; null for all.
/// </summary>
internal static class ProgressQueries
{
    /// <summary>The kinds of sample that no view of the server's gives.</summary>
    internal const string Backfill = "backfill";

    internal const string Operation = "operation";

    internal const string Ddl = "ddl";

    internal const string Subscription = "subscription";

    internal const string Publication = "publication";

    internal const string Statement = "statement";

    /// <summary>The server's clock, its next transaction, which tables of this module it has by now, and whether this role is shown what others do: it may be granted while somebody watches.</summary>
    internal const string Server = """
        select pg_catalog.clock_timestamp(), pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text,
               array(select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                     where n.nspname = 'migration_safety' and c.relname in ('backfill', 'operation') and c.relkind = 'r' order by c.relname),
               pg_catalog.pg_has_role('pg_read_all_stats', 'usage')
        """;

    // In the order in which ProgressSample reads them. Whom a session waits for is asked only where it waits, or where that cannot be seen:
    // pg_blocking_pids stops the server's lock tables for a moment.
    private const string Activity = """
        pg_catalog.pg_get_userbyid(a.usesysid)::text, a.application_name, pg_catalog.left(a.query, 1000), a.query_start, a.backend_start, pg_catalog.clock_timestamp() - a.query_start,
        a.wait_event_type, a.wait_event,
        case when a.wait_event_type = 'Lock' or a.query = '<insufficient privilege>' then pg_catalog.array_remove(pg_catalog.pg_blocking_pids(a.pid), pg_catalog.pg_backend_pid()) end,
        a.backend_xid::text
        """;

    // The table that is asked about, what inherits from it, and their TOAST tables: they are worked on one by one.
    private const string Tables = """
        tables (oid) as (
            select $2::oid
            union
            select x.oid from tables t cross join lateral (
                select inhrelid from pg_catalog.pg_inherits where inhparent = t.oid union all select reltoastrelid from pg_catalog.pg_class where oid = t.oid and reltoastrelid <> 0) x (oid))
        """;

    // The tables that the one asked about is a partition of: what works on all of their partitions works on it.
    private const string Parents = """
        parents (oid) as (
            select i.inhparent from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid and c.relispartition where i.inhrelid = $2::oid
            union
            select i.inhparent from parents p join pg_catalog.pg_inherits i on i.inhrelid = p.oid join pg_catalog.pg_class c on c.oid = i.inhrelid and c.relispartition)
        """;

    /// <summary>One session, none where it has no pid. Each pg_stat_activity in a query goes through all sessions; what makes it can be asked for one.</summary>
    private static string SessionOf(string pid) => $"pg_catalog.pg_stat_get_activity(coalesce({pid}, 0))";

    /// <summary>All views of the server that tell progress, whatever their columns are.</summary>
    internal static string Views(ProgressCatalog catalog)
    {
        string union = string.Join(
            " union all ",
            catalog.Views.Select(view => $"select '{view}' as view, v.pid, pg_catalog.to_jsonb(v) as counters from pg_catalog.pg_stat_progress_{view} v"));
        return $"""
            with recursive {Tables}, {Parents}, p as materialized ({union}), w as materialized (
                select leader_pid, pg_catalog.count(*) as workers from pg_catalog.pg_stat_get_activity(null) where leader_pid is not null group by 1
            )
            select p.view, p.pid, (p.counters - array['pid', 'datid', 'datname'])::text, f.facts::text, coalesce(p.counters->>'datname', (select datname::text from pg_catalog.pg_database where oid = a.datid)), {Activity}
            from p
            left join lateral {SessionOf("p.pid")} a on true
            left join lateral (
                select pg_catalog.jsonb_build_object(
                    'table', pg_catalog.format('%I.%I', coalesce(m.nspname, n.nspname), coalesce(o.relname, c.relname)), 'toast_of', o.oid::int8, 'tuples', c.reltuples, 'pages', c.relpages, 'file', nullif(c.relfilenode, 0)::int8,
                    'toast_pages', (select relpages from pg_catalog.pg_class where oid = c.reltoastrelid),
                    'vacuums', pg_catalog.pg_stat_get_vacuum_count(c.oid) + pg_catalog.pg_stat_get_autovacuum_count(c.oid),
                    'analyzes', pg_catalog.pg_stat_get_analyze_count(c.oid) + pg_catalog.pg_stat_get_autoanalyze_count(c.oid),
                    'dead_tuples', pg_catalog.pg_stat_get_dead_tuples(c.oid), 'live_tuples', pg_catalog.pg_stat_get_live_tuples(c.oid),
                    'index', (select pg_catalog.format('%I.%I', s.nspname, i.relname) from pg_catalog.pg_class i join pg_catalog.pg_namespace s on s.oid = i.relnamespace where i.oid = x.oid),
                    'index_file', (select nullif(relfilenode, 0)::int8 from pg_catalog.pg_class where oid = x.oid),
                    -- a first key that is compared by the rules of a language takes several times as long to sort; those behind it are seldom looked at
                    'slow_key', (select pg_catalog.count(*) from pg_catalog.pg_attribute k join pg_catalog.pg_collation l on l.oid = k.attcollation
                                 where k.attrelid = x.oid and k.attnum = 1 and k.attlen = -1 and l.collname not in ('C', 'POSIX')
                                  and not exists (select from pg_catalog.pg_index d join pg_catalog.pg_opclass p on p.oid = d.indclass[0] where d.indexrelid = k.attrelid and p.opcname like '%\_pattern\_ops')),
                    -- of an index that is not to be seen yet: its statement names them
                    'columns', (select pg_catalog.string_agg(pg_catalog.format(E'%s\t%s\t%s', case when k.attlen > 0 then greatest(k.attlen, 8) else coalesce(s.avg_width, 40) end,
                                           case when k.attlen = -1 and l.collname not in ('C', 'POSIX') then 1 else 0 end, pg_catalog.translate(k.attname, E'\n\t', '  ')), E'\n')
                                from pg_catalog.pg_attribute k
                                left join pg_catalog.pg_collation l on l.oid = k.attcollation
                                left join pg_catalog.pg_stats s on s.schemaname = n.nspname and s.tablename = c.relname and s.attname = k.attname and not s.inherited
                                where x.oid is null and p.view = 'create_index' and k.attrelid = c.oid and k.attnum > 0 and not k.attisdropped),
                    'key_width', k.width, 'key_sorted', k.sorted, 'key_distinct', k.different,
                    'workers', case when p.view in ('create_index', 'vacuum') then coalesce((select w.workers from w where w.leader_pid = p.pid), 0) end,
                    'sort_memory', pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')),
                    'max_workers', pg_catalog.current_setting('max_parallel_maintenance_workers')::int4,
                    'indexes', y.indexes, 'index_pages', y.pages, 'index_sizes', y.sizes, 'unfinished', y.unfinished, 'unfinished_before', y.before,
                    -- they are rebuilt one after the other, by oid
                    'index_pages_rebuilt', y.rebuilt, 'index_pages_rebuilding', y.rebuilding) as facts
                from pg_catalog.pg_class c
                join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                -- a TOAST table has its owner's number in its name: no index leads from the one to the other
                left join pg_catalog.pg_class o on o.reltoastrelid = c.oid and o.oid = case when c.relkind = 't' then pg_catalog.substring(c.relname, '^pg_toast_(\d+)$')::oid end
                left join pg_catalog.pg_namespace m on m.oid = o.relnamespace
                cross join (select nullif(coalesce((p.counters->>'index_relid')::oid, (p.counters->>'cluster_index_relid')::oid), 0) as oid) x
                cross join lateral (
                    select pg_catalog.count(*) as indexes, pg_catalog.sum(o.relpages) as pages, pg_catalog.string_agg(o.relpages::text, ' ' order by o.place) as sizes, pg_catalog.count(*) filter (where not o.indisvalid and o.made = m.made) as unfinished,
                           pg_catalog.count(*) filter (where not o.indisvalid and o.made = m.made and o.indexrelid < x.oid) as before,
                           pg_catalog.sum(o.relpages) filter (where o.place <= (p.counters->>'index_rebuild_count')::int8) as rebuilt,
                           pg_catalog.sum(o.relpages) filter (where o.place <= (p.counters->>'index_rebuild_count')::int8 + 1) as rebuilding
                    from (select d.indexrelid, d.indisvalid, i.relpages, i.xmin as made, pg_catalog.row_number() over (order by d.indexrelid) as place
                          from pg_catalog.pg_index d join pg_catalog.pg_class i on i.oid = d.indexrelid where d.indrelid = c.oid) o
                    -- one REINDEX makes all of its indexes in one transaction: others that are not valid were left behind
                    left join (select oid, xmin as made from pg_catalog.pg_class) m on m.oid = x.oid) y
                -- what the statistics of the table know of the keys: how long they are, whether the rows are in the order of the first one, and how many differ
                left join lateral (
                    select pg_catalog.sum(case when a.attlen > 0 then greatest(a.attlen, 8) else coalesce(s.avg_width, 40) end) as width,
                           pg_catalog.count(*) filter (where a.attnum = 1 and d.indoption[0] & 1 = 0 and s.correlation > 0.9999) as sorted,
                           pg_catalog.max(case when s.n_distinct < 0 then -s.n_distinct * c.reltuples else s.n_distinct end) filter (where d.indnkeyatts = 1)::int8 as different
                    from pg_catalog.pg_attribute a
                    join pg_catalog.pg_index d on d.indexrelid = a.attrelid
                    left join pg_catalog.pg_attribute t on t.attrelid = c.oid and t.attnum = d.indkey[a.attnum - 1] and t.attnum > 0
                    left join pg_catalog.pg_stats s on s.schemaname = n.nspname and s.tablename = c.relname and s.attname = t.attname and not s.inherited
                    where a.attrelid = x.oid and p.view = 'create_index'
                ) k on true
                where p.counters->>'datname' = pg_catalog.current_database() and c.oid = (p.counters->>'relid')::oid
            ) f on true
            where ($1::int4 is null or p.pid = $1) and ($2::oid is null or (p.counters->>'datname' = pg_catalog.current_database() and ((p.counters->>'relid')::oid in (select oid from tables)
                  or ((p.counters->>'relid' is null or (p.counters->>'relid')::oid in (select oid from parents)) and exists (select from pg_catalog.pg_locks l where l.pid = p.pid and l.relation in (select oid from tables) and l.database = (p.counters->>'datid')::oid)))))
            order by a.query_start, p.pid
            """;
    }

    /// <summary>This module's own backfills of this database, those included that nobody works on.</summary>
    internal static string Backfills => $"""
        with recursive {Tables}
        select '{Backfill}', coalesce(w.pid, 0),
               pg_catalog.jsonb_build_object('name', b.name, 'relid', b.table_oid::int8,
                   'state', case when b.state = 'paused' then 'paused' when w.pid is null and not pg_catalog.pg_is_in_recovery() then 'interrupted' else 'running' end, 'sweep', b.sweep,
                   'rows_seen', coalesce((select pg_catalog.sum(r.rows_seen)::int8 from migration_safety.backfill_range r where r.backfill = b.name), 0), 'rows_in_table', b.rows_in_table, 'waiting_for', b.waiting_for,
                   'rows_done', coalesce(d.rows_done, 0), 'rows_estimated', b.rows_estimated, 'batches', coalesce(d.batches, 0), 'workers', coalesce(w.workers, 0))::text,
               pg_catalog.jsonb_build_object('table', pg_catalog.format('%I.%I', b.table_schema, b.table_name), 'runs', d.runs)::text,
               pg_catalog.current_database()::text, coalesce(a.usename::text, b.role), coalesce(nullif(a.application_name, ''), b.application), pg_catalog.left(a.query, 1000),
               coalesce(w.started_at, d.started_at, b.started_at), w.backend_start,
               case when w.pid is null then coalesce(d.heartbeat, b.updated_at) else pg_catalog.clock_timestamp() end - coalesce(w.started_at, d.started_at, b.started_at),
               a.wait_event_type, a.wait_event,
               case when a.wait_event_type = 'Lock' or a.query = '<insufficient privilege>' then pg_catalog.array_remove(pg_catalog.pg_blocking_pids(w.pid), pg_catalog.pg_backend_pid()) end,
               null::text
        from migration_safety.backfill b
        left join lateral (
            select pg_catalog.sum(x.rows_done)::int8 as rows_done, pg_catalog.sum(x.batches)::int8 as batches,
                   -- those of an earlier backfill of that name stay; of several runs, the one that was heard of last
                   pg_catalog.max(x.heartbeat) filter (where x.started_at >= b.started_at) as heartbeat, pg_catalog.count(distinct x.run) filter (where x.started_at >= b.started_at) as runs,
                   (pg_catalog.array_agg(x.started_at order by x.heartbeat desc) filter (where x.started_at >= b.started_at))[1] as started_at
            from migration_safety.backfill_worker x where x.backfill = b.name
        ) d on true
        -- The first stands for all.
        left join lateral (
            select w.pid, w.backend_start, w.started_at, pg_catalog.count(*) over () as workers
            from migration_safety.backfill_worker w
            where w.backfill = b.name and ($1::int4 is null or w.pid = $1) and {BackfillStore.IsAtWork}
            order by w.started_at, w.number
            limit 1
        ) w on true
        left join pg_catalog.pg_stat_activity a on a.pid = w.pid and a.usename is not null
        where b.state <> 'completed' and ($1::int4 is null or w.pid = $1) and ($2::oid is null or b.table_oid in (select oid from tables))
        order by b.started_at
        """;

    /// <summary>
    /// Operations of this module that are at work by its log, with the sessions that work for them: those that hold the operation lock of the table, or of a partition of it. Found by
    /// the locks, not in the log, which keeps all that ever ran.
    /// </summary>
    internal static string Operations => $"""
        with recursive {Tables}, held as materialized (
            select pid, classid, objid, objsubid, mode from pg_catalog.pg_locks
            where locktype = 'advisory' and granted and classid in ({OperationStore.LockClass}, {TableOperationLock.ClassId})
              and database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
        ), entry as materialized (
            select o.id, o.operation, o.target, o.role, o.application, o.started_at, o.phase, (o.phases->-1->>'started_at')::timestamptz as phase_started_at, h.pid as keeper,
                   pg_catalog.to_regclass(pg_catalog.format('%I.%I', o.table_schema, o.table_name))::oid as relid
            -- two hold it while the server has not noticed yet that a connection of the log was lost
            from (select objid, pg_catalog.max(pid) as pid from held where classid = {OperationStore.LockClass} and objsubid = 1 group by objid) h
            -- by its key, whatever the planner thinks of how many locks there are
            cross join lateral (select * from {OperationStore.Table} where id = h.objid::int8 and state = 'running' limit 1) o
        ), part (id, oid) as (
            select id, relid from entry where relid is not null
            union
            select p.id, i.inhrelid from pg_catalog.pg_inherits i join part p on i.inhparent = p.oid
        ), worker as materialized (
            -- who waits for the table works on it no more than others that have it
            select distinct on (h.pid) h.pid, e.id
            from held h join part p on p.oid = h.objid join entry e on e.id = p.id
            where h.classid = {TableOperationLock.ClassId} and h.objsubid = 2 and h.mode = case e.operation when 'Backfill' then 'ShareLock' else 'ExclusiveLock' end
              and e.phase is distinct from '{TurnWaits.ForTable}'
            order by h.pid, p.oid <> e.relid, e.id
        )
        select '{Operation}', coalesce(w.pids[1], e.keeper),
               pg_catalog.jsonb_build_object('id', e.id, 'operation', e.operation, 'relid', e.relid::int8, 'phase', e.phase)::text,
               pg_catalog.jsonb_build_object('table', e.target, 'workers', pg_catalog.array_to_string(w.pids, ' '))::text,
               pg_catalog.current_database()::text, e.role, coalesce(nullif(a.application_name, ''), e.application), case when a.state = 'active' then pg_catalog.left(a.query, 1000) end, e.started_at,
               a.backend_start, pg_catalog.clock_timestamp() - e.started_at, a.wait_event_type, a.wait_event,
               case when e.phase = '{TurnWaits.ForTable}' then array(select h.pid from held h where h.classid = {TableOperationLock.ClassId} and h.objsubid = 2 and h.objid = e.relid)
                    when e.phase = '{TurnWaits.ForOldTransactions}' then array(
                        -- a prepared transaction has no session: 0 stands for it, as in pg_blocking_pids
                        select coalesce(l.pid, 0)
                        from pg_catalog.pg_locks l
                        left join lateral {SessionOf("l.pid")} s on true
                        left join pg_catalog.pg_prepared_xact() x on l.pid is null and exists (
                            select from pg_catalog.pg_locks i where i.locktype = 'transactionid' and i.pid is null and i.transactionid = x.transaction and i.virtualtransaction = l.virtualtransaction)
                        where l.locktype = 'relation' and l.relation = e.relid and l.granted and coalesce(l.pid, 0) <> all (w.pids) and coalesce(s.xact_start, x.prepared) < e.phase_started_at
                          and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
                    when a.wait_event_type = 'Lock' or a.query = '<insufficient privilege>' then pg_catalog.array_remove(pg_catalog.pg_blocking_pids(a.pid), pg_catalog.pg_backend_pid()) end,
               null::text
        from entry e
        cross join lateral (select array(select pid from worker where worker.id = e.id order by pid) as pids) w
        left join lateral {SessionOf("coalesce(w.pids[1], e.keeper)")} a on true
        where ($1::int4 is null or $1 = e.keeper or $1 = any (w.pids)) and ($2::oid is null or e.relid in (select oid from tables))
        order by e.id
        """;

    /// <summary>
    /// Long DDL that has no view: what it holds and awaits, and how its new files grow. A table that is written anew gets another oid until the end, which
    /// nobody sees in pg_class, but everybody in pg_locks; its file has that number. The indexes follow, each locked when its turn comes.
    /// </summary>
    internal static string LongDdl(ProgressCatalog catalog)
    {
        // Without the privilege the sizes stay null.
        string Size(string path) => catalog.MaySeeFiles ? $"(pg_catalog.pg_stat_file({path}, true)).size" : "null::int8";
        return $"""
            with recursive {Tables}, strong as materialized (
                select pid, relation, database, mode, granted, mode in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock') as weak from pg_catalog.pg_locks
                where locktype = 'relation' and database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
                  -- VACUUM and ANALYZE look their table up with the weakest lock, and wait for that one first
                  and (mode not in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock') or not granted)
            ), a as materialized (
                select * from pg_catalog.pg_stat_activity
                where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid() and ($1::int4 is null or pid = $1)
                  -- the expressions last: of some hundred sessions, idle or queued behind an ALTER, they are most of what a look costs
                  and case when state = 'active' and leader_pid is null and pid in (select pid from strong where not weak)
                      then query ~* '\m(alter\s+(table|materialized|domain|foreign)|refresh\s+materialized|create\s+((unlogged|temp|temporary)\s+)?(table|materialized)\M.*\mas|drop\s+index\s+concurrently)\M|^\s*(with\M.*)?\mselect\M.*\minto\M'
                          -- what shows in a view, or is over at once, as soon as it has its lock
                          or (wait_event_type = 'Lock' and query ~* '(^|;|\n|\*/)\s*(create|drop|truncate|reindex|vacuum|cluster|analyze)\M')
                      when state = 'active' and leader_pid is null and wait_event_type = 'Lock' and pid in (select pid from strong where weak)
                      then query ~* '^(\s|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/)*(vacuum|analyze|copy)\M' end
            ), l as materialized (
                select s.pid, s.relation, s.database, s.mode, s.granted, c.oid, c.relname, c.relkind, c.relpages, c.reltoastrelid, c.relnamespace
                from strong s left join pg_catalog.pg_class c on c.oid = s.relation
                where s.pid in (select pid from a)
            ), target as materialized (
                select distinct on (l.pid) l.* from l join a on a.pid = l.pid
                where l.relkind in ('r', 'p', 'm', 'f')
                -- the one whose name, as a whole word, stands first: what is before it is all of the text where it is not there
                order by l.pid, pg_catalog.length(pg_catalog.regexp_replace(a.query,
                    '(?i)(?<![\w$])' || pg_catalog.regexp_replace(pg_catalog.replace(l.relname, '"', '""'), '[][().*+?|\u007b\u007d^$\\]', '\\\&', 'g') || '(?!"?\s*\.|[\w$]).*', '')),
                    pg_catalog.length(l.relname) desc, l.granted, l.oid
            ), part (pid, oid) as (
                select pid, oid from target union select p.pid, i.inhrelid from part p join pg_catalog.pg_inherits i on i.inhparent = p.oid
            ), file (pid, new, path, segment, size) as (
                select w.pid, w.new, w.path, 0, {Size("w.path")}
                from (
                    select distinct n.pid, true as new, coalesce(pg_catalog.regexp_replace(pg_catalog.pg_relation_filepath(t.oid), '/[^/]*$', ''), 'base/' || n.database) || '/' || n.relation as path
                    from l n left join target t on t.pid = n.pid
                    where n.granted and n.mode = 'AccessExclusiveLock' and n.oid is null
                    union
                    select o.pid, false, pg_catalog.pg_relation_filepath(r.oid)
                    from part p join l o on o.pid = p.pid and o.oid = p.oid cross join lateral (values (o.oid), (nullif(o.reltoastrelid, 0))) as r (oid)
                    where o.granted and o.mode = 'AccessExclusiveLock' and o.relkind in ('r', 'm') and r.oid is not null
                ) w
                where w.path is not null
                union all
                select pid, new, path, segment + 1, {Size("path || '.' || (segment + 1)")} from file where size = {catalog.SegmentSize}
            )
            select '{Ddl}', a.pid,
                   pg_catalog.jsonb_build_object('relid', t.oid::int8, 'new_files', f.new_files, 'new_bytes', f.new_bytes, 'old_bytes', f.old_bytes,
                       'indexes', x.indexes, 'indexes_begun', x.begun, 'index_pages', x.pages, 'index_pages_begun', x.pages_begun, 'index_pages_current', x.pages_current,
                       'lock_mode', t.mode, 'lock_granted', t.granted, 'index_relid', d.oid::int8)::text,
                   pg_catalog.jsonb_build_object('table', case when t.oid is not null then pg_catalog.format('%I.%I', n.nspname, t.relname) end, 'pages', t.relpages, 'index', d.index,
                       'files', f.files, 'seconds_before', pg_catalog.date_part('epoch', a.query_start - a.xact_start))::text,
                   a.datname::text, {Activity}
            from a
            left join target t on t.pid = a.pid
            left join pg_catalog.pg_namespace n on n.oid = t.relnamespace
            left join lateral (
                select l.oid, pg_catalog.format('%I.%I', s.nspname, l.relname) as index from l join pg_catalog.pg_namespace s on s.oid = l.relnamespace
                where l.pid = a.pid and l.relkind = 'i' and a.query ~* '\mdrop\s+index\s+concurrently\M' order by l.oid limit 1
            ) d on true
            cross join lateral (
                select pg_catalog.count(*) filter (where new and segment = 0) as new_files, pg_catalog.sum(size) filter (where new) as new_bytes, pg_catalog.sum(size) filter (where not new) as old_bytes,
                       -- with their sizes, -1 where this role may not see them
                       (select pg_catalog.string_agg(g.path || ' ' || g.size, E'\n') from (select path, coalesce(pg_catalog.sum(size), -1) as size from file where file.pid = a.pid and new group by 1) g) as files
                from file where file.pid = a.pid
            ) f
            cross join lateral (
                select pg_catalog.count(*) as indexes, pg_catalog.sum(i.relpages) as pages, pg_catalog.count(k.oid) as begun,
                       pg_catalog.sum(i.relpages) filter (where k.oid is not null) as pages_begun,
                       -- one after the other, by oid: the last is the one in work
                       (pg_catalog.array_agg(i.relpages order by d.indexrelid desc) filter (where k.oid is not null))[1] as pages_current
                from pg_catalog.pg_index d join pg_catalog.pg_class i on i.oid = d.indexrelid
                left join (select distinct l.oid from l where l.pid = a.pid and l.granted and l.mode = 'AccessExclusiveLock') k on k.oid = d.indexrelid
                where d.indrelid = t.oid
            ) x
            -- of what begins with SELECT, a new file alone tells that its INTO makes a table
            where (f.new_files > 0 or (t.oid is not null and a.query !~* '^\s*(with|select)\M')) and ($2::oid is null or exists (select from l where l.pid = a.pid and l.oid in (select oid from tables)))
            order by a.query_start, a.pid
            """;
    }

    /// <summary>Logical replication as this database takes part in it: what it subscribes to (initial copy, then the stream), and who streams from it.</summary>
    internal static string Replication => $"""
        select '{Subscription}', coalesce(s.pid, 0),
               pg_catalog.jsonb_build_object('name', b.subname, 'tables', r.tables, 'tables_ready', r.ready, 'tables_copied', r.copied,
                   'last_message_seconds', pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - s.last_msg_receipt_time))::text,
               pg_catalog.jsonb_build_object('table', b.subname)::text, pg_catalog.current_database()::text, {Activity}
        from pg_catalog.pg_subscription b
        -- a worker that applies in parallel stays when it is done, and receives nothing itself
        left join lateral (
            select * from pg_catalog.pg_stat_subscription where subid = b.oid and relid is null and pid is not null order by received_lsn is null, pid limit 1) s on true
        left join lateral {SessionOf("s.pid")} a on true
        cross join lateral (
            select pg_catalog.count(*) as tables, pg_catalog.count(*) filter (where srsubstate = 'r') as ready, pg_catalog.count(*) filter (where srsubstate in ('f', 's', 'r')) as copied
            from pg_catalog.pg_subscription_rel where srsubid = b.oid) r
        where b.subenabled and b.subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
          and ($1::int4 is null or s.pid = $1) and $2::oid is null
        union all
        select '{Publication}', r.pid,
               pg_catalog.jsonb_build_object('name', s.slot_name, 'state', r.state,
                   'lag_bytes', greatest(pg_catalog.pg_wal_lsn_diff(w.lsn, s.confirmed_flush_lsn), 0), 'position', pg_catalog.pg_wal_lsn_diff(s.confirmed_flush_lsn, '0/0'),
                   'replay_lag_seconds', pg_catalog.date_part('epoch', r.replay_lag))::text,
               pg_catalog.jsonb_build_object('table', s.slot_name)::text, s.database::text, {Activity}
        from pg_catalog.pg_replication_slots s
        join pg_catalog.pg_stat_get_wal_senders() r on r.pid = s.active_pid
        left join lateral {SessionOf("r.pid")} a on true
        cross join (select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_lsn() end as lsn) w
        -- the slots of an initial copy are shown by their COPY
        where s.slot_type = 'logical' and s.database = pg_catalog.current_database() and s.slot_name not like 'pg\_%\_sync\_%'
          and ($1::int4 is null or r.pid = $1) and $2::oid is null
        """;

    /// <summary>
    /// Statements that sessions ($1) are at, whatever the views show: not those that are hidden from this role, nor those that have gone on to tables that are not asked about; between
    /// two tables a statement has no lock for a moment.
    /// </summary>
    internal static string Statements => $"""
        with recursive {Tables}, l as materialized (
            select pid, pg_catalog.bool_or(relation in (select oid from tables)) as asked
            from pg_catalog.pg_locks
            where $2::oid is not null and pid = any ($1) and locktype = 'relation' and mode not in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
            group by pid
        )
        select '{Statement}', a.pid, '{"{}"}', '{"{}"}', (select datname::text from pg_catalog.pg_database where oid = a.datid), {Activity}
        from pg_catalog.unnest($1::int4[]) p (pid) cross join lateral {SessionOf("p.pid")} a
        where a.state = 'active' and coalesce((select asked from l where l.pid = a.pid), true)
        """;
}
