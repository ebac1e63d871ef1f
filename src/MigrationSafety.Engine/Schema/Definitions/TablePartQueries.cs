namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>What belongs to a table: constraints, indexes, triggers, rules, policies, statistics.</summary>
internal static class TablePartQueries
{
    // What is said of an index that CREATE INDEX and ADD CONSTRAINT do not say.
    private const string IndexProperties = """
        jsonb_build_array('Partition', 'alter index ' || (select format('%I.%I', pn.nspname, p.relname) from pg_inherits h join pg_class p on p.oid = h.inhparent join pg_namespace pn on pn.oid = p.relnamespace where h.inhrelid = x.indexrelid)
                                       || ' attach partition ' || index_.identity, false),
        jsonb_build_array('Tablespace', format('alter index %s set tablespace ', index_.identity) || (select quote_ident(spcname) from pg_tablespace where oid = i.reltablespace), false),
        jsonb_build_array('Tablespace', case when i.reltablespace = 0 then format('alter index %s set tablespace pg_default', index_.identity) end, true),
        jsonb_build_array('Options', format('alter index %s set (%s)', index_.identity, (select string_agg(format('%s = %L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') from unnest(i.reloptions) as o)), true),
        jsonb_build_array('Cluster', case when x.indisclustered then format('alter table only %s cluster on %I', table_.identity, i.relname) end, false),
        jsonb_build_array('ReplicaIdentity', case when x.indisreplident then format('alter table only %s replica identity using index %I', table_.identity, i.relname) end, false)
        """;

    private const string IndexStatistics = """
        coalesce((select jsonb_agg(jsonb_build_array('Statistics', format('alter index %s alter column %s set statistics %s', index_.identity, a.attnum, to_jsonb(a) ->> 'attstattarget'), false) order by a.attnum)
                  from pg_attribute a where a.attrelid = i.oid and coalesce((to_jsonb(a) ->> 'attstattarget')::int4, -1) <> -1), '[]')
        """;

    /// <summary>
    /// Constraints. Not those that a table has from a parent alone; a foreign key of a partition only where it has another name than the parent's,
    /// and then it comes first, so that the parent's takes it over.
    /// </summary>
    internal static DefinitionQuery Constraints { get; } = new([CatalogAddress.Constraints], $"""
        select 'pg_constraint'::regclass::oid, k.oid, 'Constraint', k.connamespace, format('%I on %s', k.conname, table_.identity), format('constraint %I on %s', k.conname, table_.identity), null::text, null::text, null::oid, null::aclitem[], null::text,
               k.conrelid, 'pg_class'::regclass::oid, k.conrelid, case when k.contype = 'n' and k.convalidated then 'table' when k.contype = 'c' and not k.conislocal then 'parent' end, null::int8, i.relpages * current_setting('block_size')::int8,
               jsonb_build_array(
                   jsonb_build_array('Create', format('alter %s %s%s add constraint %I %s', case c.relkind when 'f' then 'foreign table' else 'table' end, case when c.relkind = 'p' and x.indexrelid is not null then 'only ' else '' end, table_.identity, k.conname,
                                                      pg_get_constraintdef(k.oid)), false))
               || case when x.indexrelid is null then '[]' else
                      jsonb_build_array({IndexProperties}, jsonb_build_array('Comment', format('comment on index %s is ', index_.identity) || quote_literal(obj_description(i.oid, 'pg_class')), false)) || {IndexStatistics} end
        from pg_constraint k
        join pg_class c on c.oid = k.conrelid
        join pg_namespace n on n.oid = c.relnamespace
        cross join lateral (select format('%I.%I', n.nspname, c.relname)) as table_ (identity)
        left join pg_constraint parent on parent.oid = k.conparentid
        left join pg_index x on x.indexrelid = k.conindid and k.contype in ('p', 'u', 'x')
        left join pg_class i on i.oid = x.indexrelid
        left join pg_namespace ni on ni.oid = i.relnamespace
        left join lateral (select quote_ident(ni.nspname) || '.' || quote_ident(i.relname)) as index_ (identity) on true
        where k.contype <> 't' and (k.oid = any ($1) or $1 is null)
          and (k.contype not in ('c', 'n') or k.conislocal or {RelationQueries.Apart})
          and (k.contype <> 'f' or k.conparentid = 0 or k.conname <> parent.conname and k.conrelid <> parent.conrelid)
        """);

    /// <summary>Indexes that are not a constraint's.</summary>
    internal static DefinitionQuery Indexes { get; } = new([CatalogAddress.Relations], $"""
        select 'pg_class'::regclass::oid, i.oid, 'Index', i.relnamespace, index_.identity, 'index ' || index_.identity, null::text, null::text, null::oid, null::aclitem[], null::text,
               x.indrelid, 'pg_class'::regclass::oid, x.indrelid, null::text, null::int8, i.relpages * current_setting('block_size')::int8,
               jsonb_build_array(jsonb_build_array('Create', pg_get_indexdef(i.oid), false), {IndexProperties}) || {IndexStatistics}
        from pg_index x
        join pg_class i on i.oid = x.indexrelid
        join pg_namespace ni on ni.oid = i.relnamespace
        join pg_class c on c.oid = x.indrelid
        join pg_namespace n on n.oid = c.relnamespace
        cross join lateral (select format('%I.%I', n.nspname, c.relname)) as table_ (identity)
        cross join lateral (select format('%I.%I', ni.nspname, i.relname)) as index_ (identity)
        where (i.oid = any ($1) or $1 is null) and c.relkind in ('r', 'p', 'm')
          and not exists (select from pg_constraint k where k.conindid = i.oid and k.contype in ('p', 'u', 'x'))
        """);

    /// <summary>Triggers. Those that a partition has from its parent come with that; their state may be their own.</summary>
    internal static DefinitionQuery Triggers { get; } = new([CatalogAddress.Triggers], """
        select 'pg_trigger'::regclass::oid, t.oid, 'Trigger', c.relnamespace, format('%I on %s', t.tgname, table_.identity), format('trigger %I on %s', t.tgname, table_.identity), null::text, null::text, null::oid, null::aclitem[], null::text,
               c.oid, 'pg_class'::regclass::oid, c.oid, null::text, null::int8, null::int8,
               jsonb_build_array(
                   jsonb_build_array('Create', case when t.tgparentid = 0 then pg_get_triggerdef(t.oid) end, false),
                   jsonb_build_array('Enabled', format('alter %s only %s %s trigger %I', case c.relkind when 'f' then 'foreign table' else 'table' end, table_.identity, state.words, t.tgname), t.tgenabled = 'O' and coalesce(parent.tgenabled, 'O') = 'O'))
        from pg_trigger t
        join pg_class c on c.oid = t.tgrelid
        join pg_namespace n on n.oid = c.relnamespace
        left join pg_trigger parent on parent.oid = t.tgparentid
        cross join lateral (select format('%I.%I', n.nspname, c.relname)) as table_ (identity)
        cross join lateral (select case t.tgenabled when 'D' then 'disable' when 'R' then 'enable replica' when 'A' then 'enable always' else 'enable' end) as state (words)
        where (t.oid = any ($1) or $1 is null) and not t.tgisinternal
        """);

    /// <summary>Rules, but for those that make a view.</summary>
    internal static DefinitionQuery Rules { get; } = new([CatalogAddress.Rules], """
        select 'pg_rewrite'::regclass::oid, r.oid, 'Rule', c.relnamespace, format('%I on %s', r.rulename, table_.identity), format('rule %I on %s', r.rulename, table_.identity), null::text, null::text, null::oid, null::aclitem[], null::text,
               c.oid, 'pg_class'::regclass::oid, c.oid, null::text, null::int8, null::int8,
               jsonb_build_array(
                   jsonb_build_array('Create', rtrim(pg_get_ruledef(r.oid), ';'), false),
                   jsonb_build_array('Enabled', format('alter table %s %s rule %I', table_.identity, case r.ev_enabled when 'D' then 'disable' when 'R' then 'enable replica' when 'A' then 'enable always' else 'enable' end, r.rulename), r.ev_enabled = 'O'))
        from pg_rewrite r
        join pg_class c on c.oid = r.ev_class
        join pg_namespace n on n.oid = c.relnamespace
        cross join lateral (select format('%I.%I', n.nspname, c.relname)) as table_ (identity)
        where (r.oid = any ($1) or $1 is null and r.oid >= 16384) and r.rulename <> '_RETURN'
        """);

    /// <summary>Policies of row security.</summary>
    internal static DefinitionQuery Policies { get; } = new([CatalogAddress.Policies], """
        select 'pg_policy'::regclass::oid, p.oid, 'Policy', c.relnamespace, format('%I on %s', p.polname, table_.identity), format('policy %I on %s', p.polname, table_.identity), null::text, null::text, null::oid, null::aclitem[], null::text,
               c.oid, 'pg_class'::regclass::oid, c.oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create',
                   concat(format('create policy %I on %s as %s for %s to %s', p.polname, table_.identity, case when p.polpermissive then 'permissive' else 'restrictive' end,
                                 case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
                                 (select string_agg(case role when 0 then 'public' else quote_ident(pg_get_userbyid(role)) end, ', ' order by ordinality) from unnest(p.polroles) with ordinality as r (role))),
                          ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')', ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'), false,
                   coalesce((select jsonb_agg(pg_get_userbyid(role)) from unnest(p.polroles) as role where role <> 0), '[]')))
        from pg_policy p
        join pg_class c on c.oid = p.polrelid
        join pg_namespace n on n.oid = c.relnamespace
        cross join lateral (select format('%I.%I', n.nspname, c.relname)) as table_ (identity)
        where p.oid = any ($1) or $1 is null
        """);

    /// <summary>Extended statistics.</summary>
    internal static DefinitionQuery Statistics { get; } = new([CatalogAddress.Statistics], """
        select 'pg_statistic_ext'::regclass::oid, s.oid, 'Statistics', s.stxnamespace, i.identity, 'statistics ' || i.identity, 'statistics ' || i.identity, null::text, s.stxowner, null::aclitem[], null::text,
               s.stxrelid, 'pg_class'::regclass::oid, s.stxrelid, null::text, null::int8, null::int8,
               jsonb_build_array(
                   jsonb_build_array('Create', pg_get_statisticsobjdef(s.oid), false),
                   jsonb_build_array('Statistics', format('alter statistics %s set statistics %s', i.identity, coalesce((to_jsonb(s) ->> 'stxstattarget')::int4, -1)), coalesce((to_jsonb(s) ->> 'stxstattarget')::int4, -1) = -1))
        from pg_statistic_ext s
        join pg_namespace n on n.oid = s.stxnamespace
        cross join lateral (select format('%I.%I', n.nspname, s.stxname)) as i (identity)
        where s.oid = any ($1) or $1 is null
        """);
}
