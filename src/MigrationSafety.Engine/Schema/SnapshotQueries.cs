namespace MigrationSafety.Engine.Schema;

/// <summary>
/// What is read from the catalogs, a query a family of objects. Each gives the columns classid, objid, subid, namespace (null for what is in none), relation
/// (what it is part of; null where it is nothing's part), owner, acl, acltype (for <c>acldefault()</c>), properties. A property that is null or false is as a
/// new object has it, and left out.
/// </summary>
internal static class SnapshotQueries
{
    /// <summary>Makes definitions the same whatever the role's settings are: all names qualified, one way to write values.</summary>
    internal const string Settings = SettingsFor + "false" + SettingsRest;

    /// <summary>The same for the transaction alone.</summary>
    internal const string TransactionSettings = SettingsFor + "true" + SettingsRest;

    private const string SettingsFor = "select pg_catalog.set_config(name, value, ";

    private const string SettingsRest = """
        )
        from (values ('search_path', 'pg_catalog'), ('datestyle', 'ISO, YMD'), ('intervalstyle', 'postgres'), ('timezone', 'UTC'), ('extra_float_digits', '1'),
                     ('bytea_output', 'hex'), ('xmlbinary', 'base64'), ('quote_all_identifiers', 'off'), ('standard_conforming_strings', 'on'),
                     ('lock_timeout', '500ms')) as s (name, value)
        """;

    private const string Relations = """
        select 'pg_class'::regclass as classid, c.oid as objid, 0 as subid, c.relnamespace as namespace, null::oid as relation, c.relowner as owner, c.relacl as acl,
               case c.relkind when 'S' then 's' else 'r' end as acltype,
               jsonb_build_object(
                   'Persistence', case c.relpersistence when 'u' then 'unlogged' when 't' then 'temporary' end,
                   'AccessMethod', (select amname from pg_am where oid = c.relam and amname <> 'heap'),
                   'Tablespace', (select spcname from pg_tablespace where oid = c.reltablespace),
                   'Options', (select array_agg(o order by o) from unnest(c.reloptions) as o),
                   'ToastOptions', (select array_agg(o order by o) from pg_class t, unnest(t.reloptions) as o where t.oid = c.reltoastrelid),
                   'ReplicaIdentity', case c.relreplident when 'f' then 'full' when 'n' then 'nothing' when 'i' then
                       (select 'index ' || indexrelid::regclass from pg_index where indrelid = c.oid and indisreplident) end,
                   'ClusteredOn', (select indexrelid::regclass::text from pg_index where indrelid = c.oid and indisclustered),
                   'RowSecurity', nullif(c.relrowsecurity, false),
                   'ForceRowSecurity', nullif(c.relforcerowsecurity, false),
                   'OfType', nullif(c.reloftype, 0)::regtype::text,
                   'PartitionKey', case c.relkind when 'p' then pg_get_partkeydef(c.oid) end,
                   'PartitionBound', pg_get_expr(c.relpartbound, c.oid),
                   'Inherits', (select array_agg(inhparent::regclass::text || case when (to_jsonb(h) ->> 'inhdetachpending')::boolean then ' (detach pending)' else '' end order by inhseqno)
                                from pg_inherits h where inhrelid = c.oid),
                   'Definition', case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end,
                   'Unpopulated', nullif(c.relkind = 'm' and not c.relispopulated, false),
                   'ForeignServer', (select srvname from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver where f.ftrelid = c.oid),
                   'ForeignOptions', (select array_agg(o order by o) from pg_foreign_table f, unnest(f.ftoptions) as o where f.ftrelid = c.oid),
                   'Sequence', (select format('%s start %s increment %s minvalue %s maxvalue %s cache %s%s', seqtypid::regtype, seqstart, seqincrement, seqmin, seqmax, seqcache,
                                              case when seqcycle then ' cycle' else '' end)
                                from pg_sequence where seqrelid = c.oid),
                   'OwnedBy', (select format('%s.%I', d.refobjid::regclass, a.attname) || case d.deptype when 'i' then ' (identity)' else '' end
                               from pg_depend d join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
                               where c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i'))
               ) as properties
        from pg_class c
        where c.relkind in ('r', 'p', 'f', 'v', 'm', 'S')
        """;

    private const string Columns = """
        select 'pg_class'::regclass, a.attrelid, a.attnum::int4, c.relnamespace, a.attrelid, null::oid, a.attacl, 'c',
               jsonb_build_object(
                   'Position', row_number() over (partition by a.attrelid order by a.attnum),
                   'Type', format_type(a.atttypid, a.atttypmod),
                   'Collation', case when a.attcollation <> t.typcollation then a.attcollation::regcollation::text end,
                   'NotNull', nullif(a.attnotnull, false),
                   'Default', case a.attgenerated when '' then pg_get_expr(d.adbin, d.adrelid) end,
                   'Generated', case a.attgenerated when 's' then pg_get_expr(d.adbin, d.adrelid) || ' stored' when 'v' then pg_get_expr(d.adbin, d.adrelid) || ' virtual' end,
                   'Identity', case a.attidentity when 'a' then 'always' when 'd' then 'by default' end,
                   'Storage', case when a.attstorage <> t.typstorage then
                       case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' when 'x' then 'extended' end end,
                   'Compression', case a.attcompression when 'p' then 'pglz' when 'l' then 'lz4' end,
                   'Statistics', nullif(coalesce((to_jsonb(a) ->> 'attstattarget')::int4, -1), -1),
                   'Options', (select array_agg(o order by o) from unnest(a.attoptions) as o),
                   'ForeignOptions', (select array_agg(o order by o) from unnest(a.attfdwoptions) as o),
                   'Inherited', case when a.attinhcount > 0 then case when a.attislocal then 'and local' else 'only' end end)
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        left join pg_type t on t.oid = a.atttypid
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'f', 'v', 'm', 'c')
        """;

    private const string Constraints = """
        select 'pg_constraint'::regclass, k.oid, 0, k.connamespace, nullif(k.conrelid, 0), null::oid, null::aclitem[], null,
               jsonb_build_object(
                   'Definition', pg_get_constraintdef(k.oid),
                   'Index', case when k.contype in ('p', 'u', 'x') then (select tablespace.spcname from pg_class i join pg_tablespace tablespace on tablespace.oid = i.reltablespace where i.oid = k.conindid) end,
                   'Inherited', case when k.coninhcount > 0 then case when k.conislocal then 'and local' else 'only' end end)
        from pg_constraint k
        where k.contype <> 't'
          -- The server's own parts of a foreign key to a partitioned table, whose names tell in which order its partitions came.
          and not exists (select from pg_constraint whole where whole.oid = k.conparentid and whole.conrelid = k.conrelid)
        """;

    private const string Indexes = """
        select 'pg_class'::regclass, x.indexrelid, 0, i.relnamespace, x.indrelid, null::oid, null::aclitem[], null,
               jsonb_build_object(
                   'Definition', pg_get_indexdef(x.indexrelid),
                   'Invalid', nullif(not x.indisvalid, false),
                   'NotReady', nullif(not x.indisready, false),
                   'Tablespace', (select spcname from pg_tablespace where oid = i.reltablespace),
                   'Statistics', (select array_agg(format('%s: %s', a.attnum, to_jsonb(a) ->> 'attstattarget') order by a.attnum)
                                  from pg_attribute a where a.attrelid = x.indexrelid and coalesce((to_jsonb(a) ->> 'attstattarget')::int4, -1) <> -1),
                   'AttachedTo', (select inhparent::regclass::text from pg_inherits where inhrelid = x.indexrelid))
        from pg_index x
        join pg_class i on i.oid = x.indexrelid
        """;

    private const string TriggersRulesPolicies = """
        select 'pg_trigger'::regclass, t.oid, 0, c.relnamespace, t.tgrelid, null::oid, null::aclitem[], null,
               jsonb_build_object(
                   'Definition', pg_get_triggerdef(t.oid),
                   'Enabled', case t.tgenabled when 'D' then 'disabled' when 'R' then 'replica' when 'A' then 'always' end,
                   'Inherited', nullif(t.tgparentid <> 0, false))
        from pg_trigger t
        join pg_class c on c.oid = t.tgrelid
        where not t.tgisinternal
        union all
        select 'pg_rewrite'::regclass, r.oid, 0, c.relnamespace, r.ev_class, null::oid, null::aclitem[], null,
               jsonb_build_object(
                   'Definition', pg_get_ruledef(r.oid),
                   'Enabled', case r.ev_enabled when 'D' then 'disabled' when 'R' then 'replica' when 'A' then 'always' end)
        from pg_rewrite r
        join pg_class c on c.oid = r.ev_class
        where r.rulename <> '_RETURN'
        union all
        select 'pg_policy'::regclass, p.oid, 0, c.relnamespace, p.polrelid, null::oid, null::aclitem[], null,
               jsonb_build_object(
                   'Kind', case when p.polpermissive then 'permissive' else 'restrictive' end,
                   'Command', case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
                   'Roles', (select array_agg(case role when 0 then 'public' else quote_ident(pg_get_userbyid(role)) end order by case role when 0 then 'public' else pg_get_userbyid(role)::text end)
                             from unnest(p.polroles) as role),
                   'Using', pg_get_expr(p.polqual, p.polrelid),
                   'Check', pg_get_expr(p.polwithcheck, p.polrelid))
        from pg_policy p
        join pg_class c on c.oid = p.polrelid
        """;

    private const string Routines = """
        select 'pg_proc'::regclass, p.oid, 0, p.pronamespace, null::oid, p.proowner, p.proacl, 'f',
               case p.prokind
                   when 'a' then jsonb_build_object('Aggregate', (
                       select (to_jsonb(a) - 'aggfnoid' - 'aggtranstype' - 'aggmtranstype' - 'aggsortop')::text || format(' state %s moving %s sort %s', aggtranstype::regtype, aggmtranstype::regtype, aggsortop::regoperator)
                       from pg_aggregate a where a.aggfnoid = p.oid),
                       'Parallel', p.proparallel)
                   else jsonb_build_object('Definition', pg_get_functiondef(p.oid))
               end
        from pg_proc p
        """;

    private const string Types = """
        select 'pg_type'::regclass, t.oid, 0, t.typnamespace, null::oid, t.typowner, t.typacl, 'T',
               jsonb_build_object(
                   'Kind', case t.typtype when 'e' then 'enum' when 'd' then 'domain' when 'r' then 'range' when 'c' then 'composite' else 'base' end,
                   'Labels', (select array_agg(quote_literal(enumlabel) order by enumsortorder) from pg_enum where enumtypid = t.oid),
                   'Base', case t.typtype when 'd' then format_type(t.typbasetype, t.typtypmod) end,
                   'NotNull', nullif(t.typnotnull, false),
                   'Default', t.typdefault,
                   'Collation', case when t.typtype = 'd' and t.typcollation <> b.typcollation then t.typcollation::regcollation::text end,
                   'Range', (select format('subtype %s, operator class %s, collation %s, canonical %s, difference %s, multirange %s', rngsubtype::regtype,
                                           (select format('%I.%I', nspname, opcname) from pg_opclass o join pg_namespace n on n.oid = o.opcnamespace where o.oid = rngsubopc),
                                           nullif(rngcollation, 0)::regcollation, nullif(rngcanonical, 0::regproc), nullif(rngsubdiff, 0::regproc), rngmultitypid::regtype)
                             from pg_range where rngtypid = t.oid),
                   'Functions', case t.typtype when 'b' then
                       format('length %s, by value %s, input %s, output %s, receive %s, send %s, category %s, alignment %s, storage %s', t.typlen, t.typbyval, t.typinput, t.typoutput, t.typreceive, t.typsend,
                              t.typcategory, t.typalign, t.typstorage) end)
        from pg_type t
        left join pg_type b on b.oid = t.typbasetype
        where t.typtype in ('e', 'd', 'r', 'b', 'c')
          and not exists (select from pg_type element where element.typarray = t.oid)
          and (t.typtype <> 'c' or exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
        """;

    private const string Operators = """
        select 'pg_operator'::regclass, o.oid, 0, o.oprnamespace, null::oid, o.oprowner, null::aclitem[], null,
               jsonb_build_object('Definition', format('result %s, function %s, commutator %s, negator %s, restrict %s, join %s, merges %s, hashes %s', oprresult::regtype, oprcode,
                   oprcom::regoperator, oprnegate::regoperator, oprrest, oprjoin, oprcanmerge, oprcanhash))
        from pg_operator o
        union all
        select 'pg_opclass'::regclass, o.oid, 0, o.opcnamespace, null::oid, o.opcowner, null::aclitem[], null,
               jsonb_build_object('Definition', format('for %s, keeps %s, default %s, family %I.%I', opcintype::regtype, nullif(opckeytype, 0)::regtype, opcdefault, n.nspname, f.opfname))
        from pg_opclass o
        join pg_opfamily f on f.oid = o.opcfamily
        join pg_namespace n on n.oid = f.opfnamespace
        union all
        select 'pg_opfamily'::regclass, f.oid, 0, f.opfnamespace, null::oid, f.opfowner, null::aclitem[], null,
               jsonb_build_object(
                   'Operators', (select array_agg(format('%s %s%s', amopstrategy, amopopr::regoperator, case amoppurpose when 'o' then ' for order by' else '' end) order by amopstrategy, amopopr::regoperator::text)
                                 from pg_amop where amopfamily = f.oid),
                   'Functions', (select array_agg(format('%s (%s, %s) %s', amprocnum, amproclefttype::regtype, amprocrighttype::regtype, amproc::regprocedure)
                                                  order by amprocnum, amproclefttype::regtype::text, amprocrighttype::regtype::text)
                                 from pg_amproc where amprocfamily = f.oid))
        from pg_opfamily f
        union all
        select 'pg_cast'::regclass, c.oid, 0, null::oid, null::oid, null::oid, null::aclitem[], null,
               jsonb_build_object('Definition', format('function %s, context %s, method %s', nullif(castfunc, 0)::regprocedure, castcontext, castmethod))
        from pg_cast c
        """;

    private const string TextSearch = """
        select 'pg_ts_config'::regclass, c.oid, 0, c.cfgnamespace, null::oid, c.cfgowner, null::aclitem[], null,
               jsonb_build_object(
                   'Parser', (select format('%I.%I', nspname, prsname) from pg_ts_parser p join pg_namespace n on n.oid = p.prsnamespace where p.oid = c.cfgparser),
                   'Mapping', (select array_agg(format('%s: %s', (select alias from ts_token_type(c.cfgparser) where tokid = maptokentype), mapdict::regdictionary) order by maptokentype, mapseqno)
                               from pg_ts_config_map where mapcfg = c.oid))
        from pg_ts_config c
        union all
        select 'pg_ts_dict'::regclass, d.oid, 0, d.dictnamespace, null::oid, d.dictowner, null::aclitem[], null,
               jsonb_build_object(
                   'Template', (select format('%I.%I', nspname, tmplname) from pg_ts_template t join pg_namespace n on n.oid = t.tmplnamespace where t.oid = d.dicttemplate),
                   'Options', d.dictinitoption)
        from pg_ts_dict d
        union all
        select 'pg_ts_parser'::regclass, p.oid, 0, p.prsnamespace, null::oid, null::oid, null::aclitem[], null,
               jsonb_build_object('Definition', format('start %s, gettoken %s, end %s, lextypes %s, headline %s', prsstart, prstoken, prsend, prslextype, prsheadline))
        from pg_ts_parser p
        union all
        select 'pg_ts_template'::regclass, t.oid, 0, t.tmplnamespace, null::oid, null::oid, null::aclitem[], null,
               jsonb_build_object('Definition', format('init %s, lexize %s', tmplinit, tmpllexize))
        from pg_ts_template t
        """;

    // Options of servers and wrappers may hold passwords: of most the names are told, not what they hold; of user mappings, which others may not see, nothing. Columns that differ by version come through jsonb.
    private const string Others = """
        select 'pg_namespace'::regclass, n.oid, 0, n.oid, null::oid, n.nspowner, n.nspacl, 'n', '{}'::jsonb
        from pg_namespace n
        union all
        select 'pg_collation'::regclass, c.oid, 0, c.collnamespace, null::oid, c.collowner, null::aclitem[], null,
               jsonb_build_object('Definition', jsonb_strip_nulls(to_jsonb(c) - array['oid', 'collname', 'collnamespace', 'collowner', 'collversion'])::text)
        from pg_collation c
        union all
        select 'pg_conversion'::regclass, c.oid, 0, c.connamespace, null::oid, c.conowner, null::aclitem[], null,
               jsonb_build_object('Definition', format('%s to %s, function %s, default %s', pg_encoding_to_char(conforencoding), pg_encoding_to_char(contoencoding), conproc, condefault))
        from pg_conversion c
        union all
        select 'pg_statistic_ext'::regclass, s.oid, 0, s.stxnamespace, s.stxrelid, s.stxowner, null::aclitem[], null,
               jsonb_build_object('Definition', pg_get_statisticsobjdef(s.oid), 'Statistics', nullif(coalesce((to_jsonb(s) ->> 'stxstattarget')::int4, -1), -1))
        from pg_statistic_ext s
        union all
        select 'pg_extension'::regclass, e.oid, 0, null::oid, null::oid, null::oid, null::aclitem[], null,
               jsonb_build_object('Version', e.extversion, 'Schema', (select nspname from pg_namespace where oid = e.extnamespace))
        from pg_extension e
        union all
        select 'pg_language'::regclass, l.oid, 0, null::oid, null::oid, l.lanowner, l.lanacl, 'l',
               jsonb_build_object('Definition', format('trusted %s, handler %s, inline %s, validator %s', lanpltrusted, nullif(lanplcallfoid, 0)::regproc, nullif(laninline, 0)::regproc, nullif(lanvalidator, 0)::regproc))
        from pg_language l
        union all
        select 'pg_transform'::regclass, t.oid, 0, null::oid, null::oid, null::oid, null::aclitem[], null,
               jsonb_build_object('Definition', format('from sql %s, to sql %s', trffromsql, trftosql))
        from pg_transform t
        union all
        select 'pg_am'::regclass, a.oid, 0, null::oid, null::oid, null::oid, null::aclitem[], null, jsonb_build_object('Definition', format('%s handler %s', amtype, amhandler))
        from pg_am a
        union all
        select 'pg_foreign_data_wrapper'::regclass, f.oid, 0, null::oid, null::oid, f.fdwowner, f.fdwacl, 'F',
               jsonb_build_object('Definition', format('handler %s, validator %s', nullif(fdwhandler, 0)::regproc, nullif(fdwvalidator, 0)::regproc),
                   'Options', (select array_agg(split_part(o, '=', 1) order by o) from unnest(f.fdwoptions) as o))
        from pg_foreign_data_wrapper f
        union all
        select 'pg_foreign_server'::regclass, s.oid, 0, null::oid, null::oid, s.srvowner, s.srvacl, 'S',
               jsonb_build_object('Wrapper', (select fdwname from pg_foreign_data_wrapper where oid = s.srvfdw), 'Type', s.srvtype, 'Version', s.srvversion,
                   'Options', (select array_agg(case when o ~* '^(host|hostaddr|port|dbname|fetch_size|use_remote_estimate|extensions|updatable|truncatable|async_capable)=' then o else split_part(o, '=', 1) end order by o)
                               from unnest(s.srvoptions) as o))
        from pg_foreign_server s
        union all
        select 'pg_user_mapping'::regclass, m.umid, 0, null::oid, null::oid, null::oid, null::aclitem[], null, '{}'::jsonb
        from pg_user_mappings m
        union all
        select 'pg_event_trigger'::regclass, e.oid, 0, null::oid, null::oid, e.evtowner, null::aclitem[], null,
               jsonb_build_object('Definition', format('on %s when tag in (%s) function %s', evtevent, array_to_string(evttags, ', '), evtfoid::regprocedure),
                   'Enabled', case evtenabled when 'D' then 'disabled' when 'R' then 'replica' when 'A' then 'always' end)
        from pg_event_trigger e
        union all
        select 'pg_publication'::regclass, p.oid, 0, null::oid, null::oid, p.pubowner, null::aclitem[], null,
               jsonb_build_object('Definition', (to_jsonb(p) - array['oid', 'pubname', 'pubowner'])::text)
        from pg_publication p
        union all
        select 'pg_publication_rel'::regclass, r.oid, 0, c.relnamespace, r.prrelid, null::oid, null::aclitem[], null,
               (select jsonb_build_object('Where', to_jsonb(t) -> 'rowfilter', 'Columns', case when to_jsonb(r) ->> 'prattrs' is not null then to_jsonb(t) -> 'attnames' end)
                from pg_publication_tables t where t.pubname = p.pubname and t.schemaname = n.nspname and t.tablename = c.relname)
        from pg_publication_rel r
        join pg_publication p on p.oid = r.prpubid
        join pg_class c on c.oid = r.prrelid
        join pg_namespace n on n.oid = c.relnamespace
        union all
        select 'pg_subscription'::regclass, s.oid, 0, null::oid, null::oid, s.subowner, null::aclitem[], null,
               jsonb_build_object('Definition', format('enabled %s, slot %s, synchronous_commit %s, publications %s', subenabled, subslotname, subsynccommit, array_to_string(subpublications, ', ')))
        from pg_subscription s
        where s.subdbid = (select oid from pg_database where datname = current_database())
        union all
        select 'pg_default_acl'::regclass, d.oid, 0, nullif(d.defaclnamespace, 0), null::oid, null::oid, d.defaclacl, d.defaclobjtype::text, '{}'::jsonb
        from pg_default_acl d
        """;

    // Since 15.
    private const string PublishedSchemas = """
        select 'pg_publication_namespace'::regclass, s.oid, 0, s.pnnspid, null::oid, null::oid, null::aclitem[], null, '{}'::jsonb
        from pg_publication_namespace s
        """;

    /// <summary>The families, in the order in which they are read.</summary>
    internal static IEnumerable<string> For(Version server)
    {
        string[] all = [Relations, Columns, Constraints, Indexes, TriggersRulesPolicies, Routines, Types, Operators, TextSearch, Others];
        return (server.Major < 15 ? all : [.. all, PublishedSchemas]).Select(Named);
    }

    /// <summary>What is common to all families: names, owner, privileges, comment and labels; and what is left out: PostgreSQL's own, extensions' and this module's.</summary>
    private static string Named(string family) => $"""
        with object (classid, objid, subid, namespace, relation, owner, acl, acltype, properties) as not materialized (
        {family}
        )
        select i.type, i.identity, n.nspname::text, (select identity from pg_identify_object('pg_class'::regclass, o.relation, 0) where o.relation is not null),
               o.properties || jsonb_build_object(
                   'Owner', pg_get_userbyid(o.owner),
                   'Privileges', (
                       select array_agg(privilege order by privilege)
                       from (select format('%s=%s/%s', case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
                                           string_agg(lower(privilege_type) || case when is_grantable then '*' else '' end, ', ' order by privilege_type),
                                           quote_ident(pg_get_userbyid(grantor))) as privilege
                             from aclexplode(coalesce(o.acl, case when o.owner is not null and o.acltype is not null then acldefault(o.acltype::"char", o.owner) end))
                             group by grantee, grantor) as granted),
                   'Comment', (select description from pg_description d where d.classoid = o.classid and d.objoid = o.objid and d.objsubid = o.subid),
                   'SecurityLabel', (select array_agg(format('%s: %s', provider, label) order by provider) from pg_seclabel l where l.classoid = o.classid and l.objoid = o.objid and l.objsubid = o.subid))
        from object o
        cross join lateral pg_identify_object(o.classid, o.objid, o.subid) as i
        left join pg_namespace n on n.oid = o.namespace
        where i.identity is not null
          and (n.oid is null or (n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'migration_safety')))
          and (o.objid >= 16384 or o.classid = 'pg_extension'::regclass or (o.classid = 'pg_namespace'::regclass and n.nspname = 'public'))
          and not exists (select from pg_depend e
                          where e.deptype = 'e' and ((e.classid = o.classid and e.objid = o.objid) or (e.classid = 'pg_class'::regclass and e.objid = o.relation)))
        """;
}
