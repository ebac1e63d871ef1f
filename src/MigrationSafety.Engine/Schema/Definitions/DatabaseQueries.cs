namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>Collations, extensions, languages, access methods, foreign data, event triggers, replication, default privileges. Passwords are left out of options.</summary>
internal static class DatabaseQueries
{
    private const string Rest = "null::oid, null::oid, null::oid, null::text, null::int8, null::int8";

    internal static DefinitionQuery Collations { get; } = new([CatalogAddress.Collations], $"""
        select 'pg_collation'::regclass::oid, c.oid, 'Collation', c.collnamespace, i.identity, 'collation ' || i.identity, 'collation ' || i.identity, null::text, c.collowner, null::aclitem[], null::text, {Rest},
               jsonb_build_array(jsonb_build_array('Create', format('create collation %s (%s)', i.identity, concat_ws(', ',
                   'provider = ' || case c.collprovider when 'i' then 'icu' when 'b' then 'builtin' when 'd' then 'default' else 'libc' end,
                   'locale = ' || quote_literal(coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale', case when c.collprovider <> 'c' or c.collcollate = c.collctype then c.collcollate end)),
                   case when c.collprovider = 'c' and c.collcollate <> c.collctype then format('lc_collate = %L, lc_ctype = %L', c.collcollate, c.collctype) end,
                   'rules = ' || quote_literal(to_jsonb(c) ->> 'collicurules'), case when not c.collisdeterministic then 'deterministic = false' end)), false))
        from pg_collation c
        join pg_namespace n on n.oid = c.collnamespace
        cross join lateral (select format('%I.%I', n.nspname, c.collname)) as i (identity)
        where (c.oid = any ($1) or $1 is null) and c.collencoding in (-1, (select encoding from pg_database where datname = current_database()))
        """);

    internal static DefinitionQuery Extensions { get; } = new([CatalogAddress.Extensions, CatalogAddress.Languages, CatalogAddress.AccessMethods], $"""
        select 'pg_extension'::regclass::oid, e.oid, 'Extension', null::oid, quote_ident(e.extname), 'extension ' || quote_ident(e.extname), null::text, null::text, null::oid, null::aclitem[], null::text, {Rest},
               jsonb_build_array(jsonb_build_array('Create', format('create extension %I with schema %I version %L', e.extname, n.nspname, e.extversion), false))
        from pg_extension e
        join pg_namespace n on n.oid = e.extnamespace
        where e.oid = any ($1) or $1 is null
        union all
        select 'pg_language'::regclass::oid, l.oid, 'Language', null::oid, quote_ident(l.lanname), 'language ' || quote_ident(l.lanname), 'language ' || quote_ident(l.lanname), 'language ' || quote_ident(l.lanname), l.lanowner, l.lanacl, 'l', {Rest},
               jsonb_build_array(jsonb_build_array('Create', concat('create ', case when l.lanpltrusted then 'trusted ' end, 'language ', quote_ident(l.lanname), ' handler ' || nullif(l.lanplcallfoid, 0)::regproc,
                                                                    ' inline ' || nullif(l.laninline, 0)::regproc, ' validator ' || nullif(l.lanvalidator, 0)::regproc), false))
        from pg_language l
        where l.oid = any ($1) or $1 is null
        union all
        select 'pg_am'::regclass::oid, a.oid, 'AccessMethod', null::oid, quote_ident(a.amname), 'access method ' || quote_ident(a.amname), null::text, null::text, null::oid, null::aclitem[], null::text, {Rest},
               jsonb_build_array(jsonb_build_array('Create', format('create access method %I type %s handler %s', a.amname, case a.amtype when 't' then 'table' else 'index' end, a.amhandler), false))
        from pg_am a
        where a.oid = any ($1) or $1 is null
        """);

    internal static DefinitionQuery ForeignData { get; } = new([CatalogAddress.ForeignDataWrappers, CatalogAddress.ForeignServers, CatalogAddress.UserMappings], $"""
        select 'pg_foreign_data_wrapper'::regclass::oid, w.oid, 'ForeignDataWrapper', null::oid, i.identity, 'foreign data wrapper ' || i.identity, 'foreign data wrapper ' || i.identity, 'foreign data wrapper ' || i.identity, w.fdwowner, w.fdwacl, 'F', {Rest},
               jsonb_build_array(jsonb_build_array('Create', concat('create foreign data wrapper ', i.identity, ' handler ' || nullif(w.fdwhandler, 0)::regproc, ' validator ' || nullif(w.fdwvalidator, 0)::regproc, {Options("w.fdwoptions")}), false))
        from pg_foreign_data_wrapper w
        cross join lateral (select quote_ident(w.fdwname)) as i (identity)
        where w.oid = any ($1) or $1 is null
        union all
        select 'pg_foreign_server'::regclass::oid, s.oid, 'Server', null::oid, i.identity, 'server ' || i.identity, 'server ' || i.identity, 'foreign server ' || i.identity, s.srvowner, s.srvacl, 'S', {Rest},
               jsonb_build_array(jsonb_build_array('Create', concat('create server ', i.identity, ' type ' || quote_literal(s.srvtype), ' version ' || quote_literal(s.srvversion), ' foreign data wrapper ', quote_ident(w.fdwname), {Options("s.srvoptions")}), false))
        from pg_foreign_server s
        join pg_foreign_data_wrapper w on w.oid = s.srvfdw
        cross join lateral (select quote_ident(s.srvname)) as i (identity)
        where s.oid = any ($1) or $1 is null
        union all
        select 'pg_user_mapping'::regclass::oid, m.umid, 'UserMapping', null::oid, i.identity, null::text, null::text, null::text, null::oid, null::aclitem[], null::text, null::oid, 'pg_foreign_server'::regclass::oid, m.srvid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', concat('create user mapping ', i.identity, {Options("m.umoptions")}), false, case when m.umuser = 0 then '[]' else jsonb_build_array(m.usename) end))
        from pg_user_mappings m
        cross join lateral (select format('for %s server %I', case when m.umuser = 0 then 'public' else quote_ident(m.usename) end, m.srvname)) as i (identity)
        where m.umid = any ($1) or $1 is null
        """);

    internal static DefinitionQuery EventTriggers { get; } = new([CatalogAddress.EventTriggers], $"""
        select 'pg_event_trigger'::regclass::oid, e.oid, 'EventTrigger', null::oid, quote_ident(e.evtname), 'event trigger ' || quote_ident(e.evtname), 'event trigger ' || quote_ident(e.evtname), null::text, e.evtowner, null::aclitem[], null::text, {Rest},
               jsonb_build_array(
                   jsonb_build_array('Create', concat('create event trigger ', quote_ident(e.evtname), ' on ', e.evtevent, ' when tag in (' || (select string_agg(quote_literal(tag), ', ') from unnest(e.evttags) as tag) || ')', ' execute function ',
                                                      (select format('%I.%I()', n.nspname, p.proname) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = e.evtfoid)), false),
                   jsonb_build_array('Enabled', format('alter event trigger %I %s', e.evtname, case e.evtenabled when 'D' then 'disable' when 'R' then 'enable replica' when 'A' then 'enable always' else 'enable' end), e.evtenabled = 'O'))
        from pg_event_trigger e
        where e.oid = any ($1) or $1 is null
        """);

    internal static DefinitionQuery Publications { get; } = new([CatalogAddress.Publications], $"""
        select 'pg_publication'::regclass::oid, p.oid, 'Publication', null::oid, i.identity, 'publication ' || i.identity, 'publication ' || i.identity, null::text, p.pubowner, null::aclitem[], null::text, {Rest},
               jsonb_build_array(
                   jsonb_build_array('Create', concat('create publication ', i.identity, case when p.puballtables then ' for all tables' end, ' with (', i.options, ')'), false),
                   jsonb_build_array('Options', format('alter publication %s set (%s)', i.identity, i.options), true))
        from pg_publication p
        cross join lateral (select quote_ident(p.pubname), concat_ws(', ',
            format('publish = %L', concat_ws(', ', case when p.pubinsert then 'insert' end, case when p.pubupdate then 'update' end, case when p.pubdelete then 'delete' end, case when p.pubtruncate then 'truncate' end)),
            'publish_via_partition_root = ' || p.pubviaroot,
            case to_jsonb(p) ->> 'pubgencols' when 's' then 'publish_generated_columns = stored' when 'n' then 'publish_generated_columns = none' end)) as i (identity, options)
        where p.oid = any ($1) or $1 is null
        """);

    /// <summary>Subscriptions, without the connection text: it holds a password, and superusers alone may read it.</summary>
    internal static DefinitionQuery Subscriptions { get; } = new([CatalogAddress.Subscriptions], $"""
        select 'pg_subscription'::regclass::oid, s.oid, 'Subscription', null::oid, quote_ident(s.subname), 'subscription ' || quote_ident(s.subname), 'subscription ' || quote_ident(s.subname), null::text, s.subowner, null::aclitem[], null::text, {Rest},
               jsonb_build_array(jsonb_build_array('Create', format('create subscription %I connection %L publication %s with (connect = false, slot_name = %s, synchronous_commit = %L)', s.subname, '',
                   (select string_agg(quote_ident(p), ', ') from unnest(s.subpublications) as p), coalesce(quote_literal(s.subslotname), 'none'), s.subsynccommit), false))
        from pg_subscription s
        where (s.oid = any ($1) or $1 is null) and s.subdbid = (select oid from pg_database where datname = current_database())
        """);

    internal static DefinitionQuery PublishedTables14 { get; } = new([CatalogAddress.PublishedTables], PublishedTables("null::text", "null::text"), Until: 14);

    internal static DefinitionQuery PublishedTables15 { get; } = new(
        [CatalogAddress.PublishedTables],
        PublishedTables(
            "' (' || (select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute a where a.attrelid = r.prrelid and a.attnum = any (r.prattrs::int2[])) || ')'",
            "' where (' || pg_get_expr(r.prqual, r.prrelid) || ')'"),
        Since: 15);

    internal static DefinitionQuery PublishedSchemas { get; } = new([CatalogAddress.PublishedSchemas], """
        select 'pg_publication_namespace'::regclass::oid, s.oid, 'Publication', s.pnnspid, format('%I add tables in schema %I', p.pubname, n.nspname), null::text, null::text, null::text, null::oid, null::aclitem[], null::text,
               null::oid, 'pg_publication'::regclass::oid, p.oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Membership', format('alter publication %I add tables in schema %I', p.pubname, n.nspname), false))
        from pg_publication_namespace s
        join pg_publication p on p.oid = s.pnpubid
        join pg_namespace n on n.oid = s.pnnspid
        where s.oid = any ($1) or $1 is null
        """, Since: 15);

    /// <summary>Default privileges, which belong to the role that makes objects.</summary>
    internal static DefinitionQuery DefaultPrivileges { get; } = new([CatalogAddress.DefaultPrivileges], """
        select 'pg_default_acl'::regclass::oid, d.oid, 'Role', nullif(d.defaclnamespace, 0), i.head || ' on ' || i.kind, null::text, null::text, null::text, null::oid, null::aclitem[], null::text,
               null::oid, case when d.defaclnamespace <> 0 then 'pg_namespace'::regclass::oid end, nullif(d.defaclnamespace, 0), null::text, null::int8, null::int8,
               coalesce((
                   with granted as (select grantee, is_grantable, array_agg(privilege_type order by privilege_type) as privileges from aclexplode(d.defaclacl) group by grantee, is_grantable),
                   new as (select grantee, is_grantable, array_agg(privilege_type order by privilege_type) as privileges from aclexplode(acldefault(case d.defaclobjtype when 'S' then 's' else d.defaclobjtype end, d.defaclrole))
                           where d.defaclnamespace = 0 group by grantee, is_grantable)
                   select jsonb_agg(jsonb_build_array('DefaultPrivileges', sql, false, to_jsonb(array_remove(array[r.rolname::text, role], null))) order by step, sql)
                   from (
                       select 1 as step, format('alter default privileges %s revoke all on %s from %s', i.head, i.kind, coalesce(quote_ident(g.rolname), 'public')) as sql, g.rolname::text as role
                       from (select * from new except select * from granted) as less left join pg_roles g on g.oid = less.grantee
                       union all
                       select 2, format('alter default privileges %s grant %s on %s to %s%s', i.head, (select string_agg(lower(p), ', ') from unnest(more.privileges) as p), i.kind, coalesce(quote_ident(g.rolname), 'public'),
                                        case when more.is_grantable then ' with grant option' else '' end), g.rolname::text
                       from (select * from granted except select * from new) as more left join pg_roles g on g.oid = more.grantee) as each), '[]')
        from pg_default_acl d
        join pg_roles r on r.oid = d.defaclrole
        left join pg_namespace n on n.oid = d.defaclnamespace
        cross join lateral (select concat('for role ', quote_ident(r.rolname), ' in schema ' || quote_ident(n.nspname)),
                                   case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types' when 'n' then 'schemas' else 'large objects' end) as i (head, kind)
        where d.oid = any ($1) or $1 is null
        """);

    // A password in a script is one too many.
    private static string Options(string column) =>
        $"' options (' || (select string_agg(format('%I %L', o.option_name, o.option_value), ', ') from pg_options_to_table({column}) as o where o.option_name !~* '(password|passfile|secret|token)') || ')'";

    private static string PublishedTables(string columns, string where) => $"""
        select 'pg_publication_rel'::regclass::oid, r.oid, 'Publication', c.relnamespace, format('%I add table %s', p.pubname, t.identity), null::text, null::text, null::text, null::oid, null::aclitem[], null::text,
               r.prrelid, 'pg_publication'::regclass::oid, p.oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Membership', concat(format('alter publication %I add table only ', p.pubname), t.identity, {columns}, {where}), false))
        from pg_publication_rel r
        join pg_publication p on p.oid = r.prpubid
        join pg_class c on c.oid = r.prrelid
        join pg_namespace n on n.oid = c.relnamespace
        cross join lateral (select format('%I.%I', n.nspname, c.relname)) as t (identity)
        where r.oid = any ($1) or $1 is null
        """;
}
