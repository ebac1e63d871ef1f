namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>Operators, their classes and families, casts, conversions, transforms, text search.</summary>
internal static class OperatorQueries
{
    // Members of an operator class or a family: amop and amproc rows that depend on it as their own.
    private const string Members = """
        (select string_agg(member, ', ' order by kind desc, number, member)
         from (
            select 'operator' as kind, m.amopstrategy as number,
                   format('operator %s %I.%s (%s, %s)%s', m.amopstrategy, mn.nspname, mo.oprname, format_type(m.amoplefttype, null), format_type(m.amoprighttype, null),
                          case m.amoppurpose when 'o' then (select format(' for order by %I.%I', fn.nspname, sf.opfname) from pg_opfamily sf join pg_namespace fn on fn.oid = sf.opfnamespace where sf.oid = m.amopsortfamily) else '' end) as member
            from pg_depend d join pg_amop m on m.oid = d.objid join pg_operator mo on mo.oid = m.amopopr join pg_namespace mn on mn.oid = mo.oprnamespace
            where d.classid = 'pg_amop'::regclass and d.refclassid = owner.classid and d.refobjid = owner.oid and owner.own (d.classid, d.objid)
            union all
            select 'function', m.amprocnum, format('function %s (%s, %s) %s', m.amprocnum, format_type(m.amproclefttype, null), format_type(m.amprocrighttype, null), m.amproc::regprocedure)
            from pg_depend d join pg_amproc m on m.oid = d.objid
            where d.classid = 'pg_amproc'::regclass and d.refclassid = owner.classid and d.refobjid = owner.oid and owner.own (d.classid, d.objid)
         ) as members)
        """;

    internal static DefinitionQuery Operators { get; } = new([CatalogAddress.Operators], """
        select 'pg_operator'::regclass::oid, o.oid, 'Operator', o.oprnamespace, i.identity, 'operator ' || i.identity, 'operator ' || i.identity, null::text, o.oprowner, null::aclitem[], null::text, null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', format('create operator %I.%s (%s)', n.nspname, o.oprname, concat_ws(', ',
                   'function = ' || o.oprcode, case when o.oprleft <> 0 then 'leftarg = ' || format_type(o.oprleft, null) end, case when o.oprright <> 0 then 'rightarg = ' || format_type(o.oprright, null) end,
                   'commutator = ' || (select format('operator(%I.%s)', cn.nspname, c.oprname) from pg_operator c join pg_namespace cn on cn.oid = c.oprnamespace where c.oid = o.oprcom),
                   'negator = ' || (select format('operator(%I.%s)', cn.nspname, c.oprname) from pg_operator c join pg_namespace cn on cn.oid = c.oprnamespace where c.oid = o.oprnegate),
                   'restrict = ' || nullif(o.oprrest::oid, 0)::regproc, 'join = ' || nullif(o.oprjoin::oid, 0)::regproc, case when o.oprcanmerge then 'merges' end, case when o.oprcanhash then 'hashes' end)), false))
        from pg_operator o
        join pg_namespace n on n.oid = o.oprnamespace
        cross join lateral (select format('%I.%s (%s, %s)', n.nspname, o.oprname, case when o.oprleft = 0 then 'none' else format_type(o.oprleft, null) end, case when o.oprright = 0 then 'none' else format_type(o.oprright, null) end)) as i (identity)
        where (o.oid = any ($1) or $1 is null) and o.oprcode <> 0
        """);

    internal static DefinitionQuery Classes { get; } = new([CatalogAddress.OperatorClasses], $"""
        select 'pg_opclass'::regclass::oid, o.oid, 'OperatorClass', o.opcnamespace, i.identity, 'operator class ' || i.identity, 'operator class ' || i.identity, null::text, o.opcowner, null::aclitem[], null::text, null::oid, 'pg_opfamily'::regclass::oid, o.opcfamily, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', format('create operator class %I.%I %sfor type %s using %I family %I.%I as %s', n.nspname, o.opcname, case when o.opcdefault then 'default ' else '' end, format_type(o.opcintype, null), m.amname, fn.nspname, f.opfname,
                   coalesce(nullif(concat_ws(', ', {Members.Replace("owner.classid", "'pg_opclass'::regclass").Replace("owner.oid", "o.oid").Replace("owner.own (d.classid, d.objid)", "d.deptype = 'i'")},
                             'storage ' || format_type(nullif(o.opckeytype, 0), null)), ''), 'storage ' || format_type(o.opcintype, null))), false))
        from pg_opclass o
        join pg_namespace n on n.oid = o.opcnamespace
        join pg_opfamily f on f.oid = o.opcfamily
        join pg_namespace fn on fn.oid = f.opfnamespace
        join pg_am m on m.oid = o.opcmethod
        cross join lateral (select format('%I.%I using %I', n.nspname, o.opcname, m.amname)) as i (identity)
        where o.oid = any ($1) or $1 is null
        """);

    internal static DefinitionQuery Families { get; } = new([CatalogAddress.OperatorFamilies], $"""
        select 'pg_opfamily'::regclass::oid, f.oid, 'OperatorFamily', f.opfnamespace, i.identity, 'operator family ' || i.identity, 'operator family ' || i.identity, null::text, f.opfowner, null::aclitem[], null::text, null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(
                   jsonb_build_array('Create', 'create operator family ' || i.identity, false),
                   jsonb_build_array('Membership', 'alter operator family ' || i.identity || ' add '
                       || {Members.Replace("owner.classid", "'pg_opfamily'::regclass").Replace("owner.oid", "f.oid").Replace("owner.own (d.classid, d.objid)", "not exists (select from pg_depend c where c.classid = d.classid and c.objid = d.objid and c.refclassid = 'pg_opclass'::regclass)")}, false))
        from pg_opfamily f
        join pg_namespace n on n.oid = f.opfnamespace
        join pg_am m on m.oid = f.opfmethod
        cross join lateral (select format('%I.%I using %I', n.nspname, f.opfname, m.amname)) as i (identity)
        where f.oid = any ($1) or $1 is null
        """);

    internal static DefinitionQuery Casts { get; } = new([CatalogAddress.Casts, CatalogAddress.Conversions, CatalogAddress.Transforms], """
        select 'pg_cast'::regclass::oid, c.oid, 'Cast', null::oid, i.identity, 'cast ' || i.identity, null::text, null::text, null::oid, null::aclitem[], null::text, null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', concat('create cast ', i.identity, case c.castmethod when 'f' then ' with function ' || c.castfunc::regprocedure when 'i' then ' with inout' else ' without function' end,
                                                                    case c.castcontext when 'a' then ' as assignment' when 'i' then ' as implicit' end), false))
        from pg_cast c
        cross join lateral (select format('(%s as %s)', format_type(c.castsource, null), format_type(c.casttarget, null))) as i (identity)
        where (c.oid = any ($1) or $1 is null and c.oid >= 16384)
          and not exists (select from pg_depend d where d.classid = 'pg_cast'::regclass and d.objid = c.oid and d.refclassid = 'pg_type'::regclass and d.deptype = 'i')
        union all
        select 'pg_conversion'::regclass::oid, c.oid, 'Conversion', c.connamespace, i.identity, 'conversion ' || i.identity, 'conversion ' || i.identity, null::text, c.conowner, null::aclitem[], null::text, null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', format('create %sconversion %s for %L to %L from %s', case when c.condefault then 'default ' else '' end, i.identity, pg_encoding_to_char(c.conforencoding), pg_encoding_to_char(c.contoencoding), c.conproc), false))
        from pg_conversion c
        join pg_namespace n on n.oid = c.connamespace
        cross join lateral (select format('%I.%I', n.nspname, c.conname)) as i (identity)
        where c.oid = any ($1) or $1 is null
        union all
        select 'pg_transform'::regclass::oid, t.oid, 'Transform', null::oid, i.identity, 'transform ' || i.identity, null::text, null::text, null::oid, null::aclitem[], null::text, null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', format('create transform %s (%s)', i.identity, concat_ws(', ',
                   case when t.trffromsql <> 0 then 'from sql with function ' || t.trffromsql::regprocedure end, case when t.trftosql <> 0 then 'to sql with function ' || t.trftosql::regprocedure end)), false))
        from pg_transform t
        join pg_language l on l.oid = t.trflang
        cross join lateral (select format('for %s language %I', format_type(t.trftype, null), l.lanname)) as i (identity)
        where t.oid = any ($1) or $1 is null
        """);

    internal static DefinitionQuery TextSearch { get; } = new([CatalogAddress.TextSearchConfigurations, CatalogAddress.TextSearchDictionaries, CatalogAddress.TextSearchParsers, CatalogAddress.TextSearchTemplates], """
        select 'pg_ts_config'::regclass::oid, c.oid, 'TextSearchConfiguration', c.cfgnamespace, i.identity, 'text search configuration ' || i.identity, 'text search configuration ' || i.identity, null::text, c.cfgowner, null::aclitem[], null::text,
               null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', format('create text search configuration %s (parser = %I.%I)', i.identity, pn.nspname, p.prsname), false))
               || coalesce((select jsonb_agg(jsonb_build_array('Membership', format('alter text search configuration %s add mapping for %I with %s', i.identity, alias, dictionaries), false) order by token)
                            from (select m.maptokentype as token, (select t.alias from ts_token_type(c.cfgparser) as t where t.tokid = m.maptokentype) as alias, string_agg(format('%I.%I', dn.nspname, d.dictname), ', ' order by m.mapseqno) as dictionaries
                                  from pg_ts_config_map m join pg_ts_dict d on d.oid = m.mapdict join pg_namespace dn on dn.oid = d.dictnamespace
                                  where m.mapcfg = c.oid group by m.maptokentype) as mapped), '[]')
        from pg_ts_config c
        join pg_namespace n on n.oid = c.cfgnamespace
        join pg_ts_parser p on p.oid = c.cfgparser
        join pg_namespace pn on pn.oid = p.prsnamespace
        cross join lateral (select format('%I.%I', n.nspname, c.cfgname)) as i (identity)
        where c.oid = any ($1) or $1 is null
        union all
        select 'pg_ts_dict'::regclass::oid, d.oid, 'TextSearchDictionary', d.dictnamespace, i.identity, 'text search dictionary ' || i.identity, 'text search dictionary ' || i.identity, null::text, d.dictowner, null::aclitem[], null::text,
               null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(
                   jsonb_build_array('Create', concat('create text search dictionary ', i.identity, format(' (template = %I.%I', tn.nspname, t.tmplname), ', ' || d.dictinitoption, ')'), false),
                   jsonb_build_array('Options', format('alter text search dictionary %s (%s)', i.identity, d.dictinitoption), true))
        from pg_ts_dict d
        join pg_namespace n on n.oid = d.dictnamespace
        join pg_ts_template t on t.oid = d.dicttemplate
        join pg_namespace tn on tn.oid = t.tmplnamespace
        cross join lateral (select format('%I.%I', n.nspname, d.dictname)) as i (identity)
        where d.oid = any ($1) or $1 is null
        union all
        select 'pg_ts_parser'::regclass::oid, p.oid, 'TextSearchParser', p.prsnamespace, i.identity, 'text search parser ' || i.identity, null::text, null::text, null::oid, null::aclitem[], null::text, null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', format('create text search parser %s (%s)', i.identity, concat_ws(', ', 'start = ' || p.prsstart, 'gettoken = ' || p.prstoken, 'end = ' || p.prsend, 'lextypes = ' || p.prslextype,
                                                                                                                              'headline = ' || nullif(p.prsheadline::oid, 0)::regproc)), false))
        from pg_ts_parser p
        join pg_namespace n on n.oid = p.prsnamespace
        cross join lateral (select format('%I.%I', n.nspname, p.prsname)) as i (identity)
        where p.oid = any ($1) or $1 is null
        union all
        select 'pg_ts_template'::regclass::oid, t.oid, 'TextSearchTemplate', t.tmplnamespace, i.identity, 'text search template ' || i.identity, null::text, null::text, null::oid, null::aclitem[], null::text, null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', format('create text search template %s (%s)', i.identity, concat_ws(', ', 'init = ' || nullif(t.tmplinit::oid, 0)::regproc, 'lexize = ' || t.tmpllexize)), false))
        from pg_ts_template t
        join pg_namespace n on n.oid = t.tmplnamespace
        cross join lateral (select format('%I.%I', n.nspname, t.tmplname)) as i (identity)
        where t.oid = any ($1) or $1 is null
        """);
}
