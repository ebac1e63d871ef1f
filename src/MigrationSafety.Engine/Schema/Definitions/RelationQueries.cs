namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>Tables, foreign tables, views, materialized views, with their columns; columns and defaults alone; sequences.</summary>
internal static class RelationQueries
{
    // What of a sequence's parameters CREATE SEQUENCE has to say.
    private const string SequenceOptions = """
        concat_ws(' ',
            case when q.seqincrement <> 1 then 'increment by ' || q.seqincrement end,
            case when q.seqmin <> case when q.seqincrement > 0 then 1 else case q.seqtypid when 21 then -32768 when 23 then -2147483648 else -9223372036854775808 end end then 'minvalue ' || q.seqmin end,
            case when q.seqmax <> case when q.seqincrement < 0 then -1 else case q.seqtypid when 21 then 32767 when 23 then 2147483647 else 9223372036854775807 end end then 'maxvalue ' || q.seqmax end,
            case when q.seqstart <> case when q.seqincrement > 0 then q.seqmin else q.seqmax end then 'start with ' || q.seqstart end,
            case when q.seqcache <> 1 then 'cache ' || q.seqcache end,
            case when q.seqcycle then 'cycle' end)
        """;

    /// <summary>Whether the child c is made alone and tied to its parents later: a partition, so that the parent is not locked; a child whose columns INHERITS would put in another order.</summary>
    internal const string Apart = """
        (c.relispartition
        or not exists (select from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attinhcount > 0 and not a.attislocal)
        or exists (select from pg_attribute a join pg_attribute own on own.attrelid = a.attrelid and own.attnum < a.attnum
                   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attinhcount > 0 and not a.attislocal
                     and own.attnum > 0 and not own.attisdropped and own.attinhcount = 0))
        """;

    private const string Rel = $"""
        rel as (
            select c.*, format('%I.%I', n.nspname, c.relname) as identity,
                   case c.relkind when 'f' then 'foreign table' when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'c' then 'type' else 'table' end as word,
                   case c.relkind when 'f' then 'foreign table only' when 'v' then 'view' when 'm' then 'materialized view' else 'table only' end as altered,
                   {Apart} as apart
            from pg_class c
            join pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'f', 'v', 'm', 'c') and (c.oid = any ($1) or $1 is null and c.oid >= 16384)
        )
        """;

    // Columns. "text" is how CREATE TABLE writes one: a default that needs a sequence or a function of the user's comes later, as these come after tables; ADD COLUMN writes "whole".
    // What is not listed a child has from its parents alone. Since 18 NOT NULL is a constraint; one that is not valid is made apart.
    private static readonly string s_columns = $"""
        col as (
            select a.attrelid, a.attnum, c.relkind, c.identity as relation, c.word, c.altered, quote_ident(a.attname) as name, format_type(a.atttypid, a.atttypmod) as type, listed.listed, separate.separate, a.attinhcount > 0 and not a.attislocal as inherited,
                   case when a.attcollation <> t.typcollation then ' collate ' || a.attcollation::regcollation::text else '' end as collated,
                   case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end as expression,
                   case when a.attgenerated <> '' then pg_get_expr(d.adbin, d.adrelid) end as generation,
                   case a.attgenerated when 's' then ' stored' else ' virtual' end as generated,
                   case when i.oid is not null then case a.attidentity when 'a' then 'always' else 'by default' end end as identity,
                   coalesce(' (' || nullif(concat_ws(' ', case when i.relname <> c.relname || '_' || a.attname || '_seq' or i.relnamespace <> c.relnamespace then 'sequence name ' || format('%I.%I', ins.nspname, i.relname) end,
                                                          nullif({SequenceOptions}, '')), '') || ')', '') as sequence,
                   case when case when k.oid is null then a.attnotnull else k.convalidated and (k.conislocal or c.apart) end then
                       coalesce(' constraint ' || quote_ident(nullif(k.conname, c.relname || '_' || a.attname || '_not_null')), '') || ' not null' || case when k.connoinherit then ' no inherit' else '' end
                   else '' end as nullness,
                   k.conname as nullname,
                   a.attnotnull,
                   coalesce(' options (' || (select string_agg(format('%I %L', o.option_name, o.option_value), ', ') from pg_options_to_table(a.attfdwoptions) as o) || ')', '') as fdwoptions,
                   case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' else 'extended' end as storage,
                   a.attstorage <> t.typstorage as stored,
                   case a.attcompression when 'p' then 'pglz' when 'l' then 'lz4' else 'default' end as compression,
                   coalesce((to_jsonb(a) ->> 'attstattarget')::int4, -1) as statistics,
                   (select string_agg(format('%s = %s', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') from unnest(a.attoptions) as o) as options,
                   described.description, granted.statements as privileges, d.oid as defaultid
            from rel c
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            join pg_type t on t.oid = a.atttypid
            left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
            left join pg_constraint k on k.contype = 'n' and k.conrelid = a.attrelid and k.conkey = array[a.attnum]
            left join pg_depend s on s.classid = 'pg_class'::regclass and s.refclassid = 'pg_class'::regclass and s.refobjid = a.attrelid and s.refobjsubid = a.attnum and s.deptype = 'i' and a.attidentity <> ''
            left join pg_class i on i.oid = s.objid and i.relkind = 'S'
            left join pg_namespace ins on ins.oid = i.relnamespace
            left join pg_sequence q on q.seqrelid = i.oid
            left join pg_description described on described.classoid = 'pg_class'::regclass and described.objoid = a.attrelid and described.objsubid = a.attnum
            cross join lateral (select c.apart or a.attislocal or a.attinhcount = 0) as listed (listed)
            cross join lateral (select exists (
                select from pg_depend p
                where p.classid = 'pg_attrdef'::regclass and p.objid = d.oid and p.refobjid >= 16384 and p.refclassid not in ('pg_type'::regclass, 'pg_collation'::regclass)
                  and not (p.refclassid = 'pg_class'::regclass and p.refobjid = d.adrelid)
                  and not exists (select from pg_depend e where e.classid = p.refclassid and e.objid = p.refobjid and e.deptype = 'e'))) as separate (separate)
            cross join lateral ({DefinitionQuery.Grants("'table ' || c.identity", "a.attacl", "acldefault('c', c.relowner)", "c.relowner", "'c'", "c.relnamespace", "' (' || quote_ident(a.attname) || ')'")}) as granted (statements)
        ),
        part as (
            select *,
                   name || ' ' || type || fdwoptions || collated
                   || coalesce(' generated always as (' || generation || ')' || generated, '')
                   || coalesce(' generated ' || identity || ' as identity' || sequence, '') as base,
                   coalesce(' default ' || expression, '') as defaulted,
                   'alter ' || altered || ' ' || relation || ' alter column ' || name as alter_only,
                   'alter ' || word || ' ' || relation || ' alter column ' || name as alter_all
            from col
        ),
        colstatement as (
            select attrelid, attnum,
                   case when listed then base || case when separate then '' else defaulted end || nullness
                        when nullness <> '' and nullname is not null then format('constraint %I not null %s', nullname, name) end as text,
                   base || defaulted || nullness as whole,
                   jsonb_build_array(
                       jsonb_build_array('Default', case when relkind in ('v', 'm') or separate or not listed then alter_only || ' set default ' || expression end, false),
                       jsonb_build_array('NotNull', case when not listed and nullness <> '' and nullname is null then alter_only || ' set not null' end, false),
                       jsonb_build_array('Storage', case when stored and relkind <> 'v' then alter_only || ' set storage ' || storage end, false),
                       jsonb_build_array('Compression', case when compression <> 'default' and relkind <> 'v' then alter_only || ' set compression ' || compression end, false),
                       jsonb_build_array('Statistics', case when statistics <> -1 then alter_only || ' set statistics ' || statistics end, false),
                       jsonb_build_array('Options', alter_only || ' set (' || options || ')', false),
                       jsonb_build_array('Comment', format('comment on column %s.%s is ', relation, name) || quote_literal(description), false))
                   || coalesce(privileges, '[]') as made,
                   jsonb_build_array(
                       jsonb_build_array('DataType', format('%s type %s%s using %s::%s', alter_all, type, collated, name, type), true),
                       jsonb_build_array('Default', alter_all || coalesce(' set default ' || expression, case when generation is null and identity is null then ' drop default' end), true),
                       jsonb_build_array('NotNull', alter_all || case when attnotnull then ' set not null' else ' drop not null' end, true),
                       jsonb_build_array('Identity', alter_all || coalesce(' add generated ' || identity || ' as identity' || sequence, ' drop identity if exists'), true),
                       jsonb_build_array('Generated', alter_all || ' set expression as (' || generation || ')', true),
                       jsonb_build_array('Storage', alter_all || ' set storage ' || storage, true),
                       jsonb_build_array('Compression', alter_all || ' set compression ' || compression, true),
                       jsonb_build_array('Statistics', alter_all || ' set statistics ' || statistics, true),
                       jsonb_build_array('Comment', format('comment on column %s.%s is %L', relation, name, description), true)) as alone,
                   defaultid, relation, name, expression, relkind, alter_only, word, inherited
            from part
        )
        """;

    internal static DefinitionQuery Relations { get; } = new([CatalogAddress.Relations], $"""
        with {Rel},
        {s_columns},
        cols as (
            select attrelid, string_agg(E'\n    ' || text, ',' order by attnum) as list, jsonb_agg(made order by attnum) as statements
            from colstatement
            group by attrelid
        ),
        family as (
            select c.oid, array_agg(format('%I.%I', n.nspname, p.relname) order by h.inhseqno) as parents
            from rel c
            join pg_inherits h on h.inhrelid = c.oid
            join pg_class p on p.oid = h.inhparent
            join pg_namespace n on n.oid = p.relnamespace
            group by c.oid
        )
        select 'pg_class'::regclass::oid, c.oid, case c.relkind when 'f' then 'ForeignTable' when 'v' then 'View' when 'm' then 'MaterializedView' else 'Table' end, c.relnamespace, c.identity, c.word || ' ' || c.identity,
               c.word || ' ' || c.identity, 'table ' || c.identity, c.relowner, c.relacl, 'r', c.oid, null::oid, null::oid, null::text,
               case when c.relkind in ('r', 'p', 'm', 'f') and c.reltuples >= 0 then c.reltuples::int8 end,
               case when c.relkind in ('r', 'm') then (c.relpages + coalesce((select sum(t.relpages) from pg_class t where t.oid = c.reltoastrelid), 0)
                    + coalesce((select sum(i.relpages) from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid), 0)) * current_setting('block_size')::int8 end,
               jsonb_build_array(
                   jsonb_build_array('Create',
                       case c.relkind
                           when 'v' then format(E'create view %s as\n%s', c.identity, rtrim(pg_get_viewdef(c.oid), ';'))
                           when 'm' then format(E'create materialized view %s%s as\n%s\nwith no data', c.identity, using_.method, rtrim(pg_get_viewdef(c.oid), ';'))
                           else concat('create ', case c.relpersistence when 'u' then 'unlogged ' end, c.word, ' ', c.identity,
                                       case when c.reloftype <> 0 then ' of ' || c.reloftype::regtype end,
                                       case when c.reloftype <> 0 then
                                           (select format(E' (%s\n)', string_agg(E'\n    ' || p.name || ' with options' || case when p.separate then '' else p.defaulted end || coalesce(' generated always as (' || p.generation || ')' || p.generated, '') || p.nullness, ',' order by p.attnum))
                                            from part p
                                            where p.attrelid = c.oid and (p.nullness <> '' or p.generation is not null or (p.expression is not null and not p.separate))
                                            having count(*) > 0) else format(E' (%s\n)', cols.list) end,
                                       case when not c.apart then ' inherits (' || array_to_string(family.parents, ', ') || ')' end,
                                       case c.relkind when 'p' then ' partition by ' || pg_get_partkeydef(c.oid) end,
                                       using_.method,
                                       (select ' server ' || quote_ident(s.srvname)
                                               || coalesce(' options (' || (select string_agg(format('%I %L', o.option_name, o.option_value), ', ') from pg_options_to_table(f.ftoptions) as o) || ')', '')
                                        from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver where f.ftrelid = c.oid))
                       end, false),
                   jsonb_build_array('Partition', case when c.relispartition then format('alter table only %s attach partition %s %s', family.parents[1], c.identity, pg_get_expr(c.relpartbound, c.oid)) end, false),
                   jsonb_build_array('Options', case when c.reloptions is not null or toast.reloptions is not null then format('alter %s %s set (%s)', c.word, c.identity,
                       (select string_agg(format('%s = %s', split_part(o, '=', 1), case when c.relkind = 'v' then substr(o, strpos(o, '=') + 1) else quote_literal(substr(o, strpos(o, '=') + 1)) end), ', ')
                        from (select unnest(c.reloptions) union all select 'toast.' || t from unnest(toast.reloptions) as t) as each (o))) end, false),
                   jsonb_build_array('Tablespace', format('alter %s %s set tablespace ', c.word, c.identity) || (select quote_ident(spcname) from pg_tablespace where oid = c.reltablespace), false),
                   jsonb_build_array('Tablespace', case when c.relkind in ('r', 'm', 'p') and c.reltablespace = 0 then format('alter %s %s set tablespace pg_default', c.word, c.identity) end, true),
                   jsonb_build_array('AccessMethod', case when c.relkind in ('r', 'm') and current_setting('server_version_num')::int4 >= 150000 then format('alter %s %s set access method ', c.word, c.identity) || (select quote_ident(amname) from pg_am where oid = c.relam) end, true),
                   jsonb_build_array('Persistence', case c.relkind when 'r' then format('alter table %s set %s', c.identity, case c.relpersistence when 'u' then 'unlogged' else 'logged' end) end, true),
                   jsonb_build_array('RowSecurity', case when c.relrowsecurity or c.relforcerowsecurity then
                       concat_ws(', ', format('alter table only %s %s', c.identity, case when c.relrowsecurity then 'enable row level security' else 'no force row level security' end), case when c.relforcerowsecurity then 'force row level security' end) end, false),
                   jsonb_build_array('RowSecurity', case when c.relkind in ('r', 'p') then
                       format('alter table only %s %s row level security, %s row level security', c.identity, case when c.relrowsecurity then 'enable' else 'disable' end, case when c.relforcerowsecurity then 'force' else 'no force' end) end, true),
                   jsonb_build_array('ReplicaIdentity', case when c.relkind in ('r', 'p', 'm') then format('alter %s %s replica identity ', c.altered, c.identity) ||
                       case c.relreplident when 'f' then 'full' when 'n' then 'nothing' when 'd' then 'default'
                                           else (select 'using index ' || quote_ident(i.relname) from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid and x.indisreplident) end end, c.relreplident in ('d', 'i')),
                   jsonb_build_array('Cluster', case when c.relkind in ('r', 'm') then format('alter %s %s ', c.word, c.identity) ||
                       coalesce((select 'cluster on ' || quote_ident(i.relname) from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid and x.indisclustered), 'set without cluster') end, true),
                   jsonb_build_array('Rows', case when c.relkind = 'm' and c.relispopulated then 'refresh materialized view ' || c.identity end, false))
               || case when c.apart and not c.relispartition then coalesce((select jsonb_agg(jsonb_build_array('Inherit', format('alter %s %s inherit %s', c.word, c.identity, p), false) order by ordinality) from unnest(family.parents) with ordinality as p (p)), '[]') else '[]' end
               || coalesce(cols.statements, '[]')
        from rel c
        left join cols on cols.attrelid = c.oid
        left join family on family.oid = c.oid
        left join pg_class toast on toast.oid = c.reltoastrelid
        cross join lateral (select (select ' using ' || quote_ident(amname) from pg_am where oid = c.relam and amname <> 'heap')) as using_ (method)
        where c.relkind <> 'c'
        """);

    /// <summary>Columns by the oid of their relation, one row each. What a child has from its parents alone comes with those; what is its own about it is set then.</summary>
    internal static string ColumnsText { get; } = $"""
        with {Rel},
        {s_columns}
        select attrelid, attnum::int4, relation || '.' || name, relation,
               (jsonb_build_array(
                    jsonb_build_array('Create', case when not inherited then format('alter %s %s add %s %s', word, relation, case when relkind = 'c' then 'attribute' else 'column' end, whole) end, false),
                    jsonb_build_array('Default', case when inherited then alter_only || coalesce(' set default ' || expression, ' drop default') end, false))
                || (select coalesce(jsonb_agg(s), '[]') from jsonb_array_elements(made) as s where s ->> 0 <> 'Default')
                || alone)::text,
               defaultid, (jsonb_build_array(jsonb_build_array('Default', alter_only || ' set default ' || expression, false)))::text
        from colstatement
        order by attrelid, attnum
        """;

    internal static DefinitionQuery Sequences { get; } = new([CatalogAddress.Relations], $"""
        select 'pg_class'::regclass::oid, c.oid, 'Sequence', c.relnamespace, s.identity, 'sequence ' || s.identity, case when o.deptype = 'i' then null else 'sequence ' || s.identity end, 'sequence ' || s.identity, c.relowner, c.relacl, 's',
               coalesce(o.refobjid, c.oid), o.refclassid, o.refobjid, null::text, null::int8, null::int8,
               jsonb_build_array(
                   jsonb_build_array('Create', case when o.deptype is distinct from 'i' then
                       concat_ws(' ', case c.relpersistence when 'u' then 'create unlogged sequence' else 'create sequence' end, s.identity, case when q.seqtypid <> 20 then 'as ' || q.seqtypid::regtype end, nullif({SequenceOptions}, '')) end, false),
                   jsonb_build_array('Options', format('alter sequence %s as %s increment by %s minvalue %s maxvalue %s start with %s cache %s %s', s.identity, q.seqtypid::regtype, q.seqincrement, q.seqmin, q.seqmax, q.seqstart, q.seqcache,
                                                       case when q.seqcycle then 'cycle' else 'no cycle' end), true),
                   jsonb_build_array('Persistence', case when current_setting('server_version_num')::int4 >= 150000 then format('alter sequence %s set %s', s.identity, case c.relpersistence when 'u' then 'unlogged' else 'logged' end) end, true),
                   jsonb_build_array('SequencePosition', 'select pg_catalog.setval(' || quote_literal(s.identity) || ', ' || (
                       case when has_sequence_privilege(c.oid, 'USAGE, SELECT') and not (c.relpersistence = 'u' and pg_is_in_recovery()) then pg_sequence_last_value(c.oid) end) || ', true)', false),
                   jsonb_build_array('SequencePosition', 'select pg_catalog.setval(' || quote_literal(s.identity) || ', ' || (
                       case when has_sequence_privilege(c.oid, 'USAGE, SELECT') and not (c.relpersistence = 'u' and pg_is_in_recovery()) and pg_sequence_last_value(c.oid) is null and uncalled.at = q.seqstart then q.seqstart end) || ', false)', true),
                   jsonb_build_array('SequencePosition', 'select pg_catalog.setval(' || quote_literal(s.identity) || ', ' || (case when uncalled.at <> q.seqstart then uncalled.at end) || ', false)', false),
                   jsonb_build_array('OwnedBy', 'alter sequence ' || s.identity || ' owned by ' || owner.identity, false),
                   jsonb_build_array('OwnedBy', 'alter sequence ' || s.identity || ' owned by ' || coalesce(owner.identity, 'none'), true))
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        join pg_sequence q on q.seqrelid = c.oid
        cross join lateral (select format('%I.%I', n.nspname, c.relname)) as s (identity)
        cross join lateral (
            -- Where it stands though nothing has been taken from it: setval(..., false), RESTART WITH. No function tells, only the sequence itself.
            select case when has_sequence_privilege(c.oid, 'SELECT') and not pg_is_other_temp_schema(n.oid) and not (c.relpersistence = 'u' and pg_is_in_recovery()) then
                       case when pg_sequence_last_value(c.oid) is null then
                           substring(query_to_xml('select last_value from ' || s.identity, false, false, '')::text from '<last_value>(-?[0-9]+)</last_value>')::int8
                       end
                   end) as uncalled (at)
        left join pg_depend o on o.classid = 'pg_class'::regclass and o.objid = c.oid and o.refclassid = 'pg_class'::regclass and o.deptype in ('a', 'i')
        left join lateral (select format('%I.%I.%I', tn.nspname, t.relname, a.attname)
                           from pg_class t join pg_namespace tn on tn.oid = t.relnamespace join pg_attribute a on a.attrelid = t.oid and a.attnum = o.refobjsubid
                           where t.oid = o.refobjid and o.deptype = 'a') as owner (identity) on true
        where c.relkind = 'S' and (c.oid = any ($1) or $1 is null and c.oid >= 16384)
        """);
}
