namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>Schemas, types, routines.</summary>
internal static class TypeQueries
{
    /// <summary>Schemas. A database is made with public.</summary>
    internal static DefinitionQuery Schemas { get; } = new([CatalogAddress.Schemas], """
        select 'pg_namespace'::regclass::oid, n.oid, 'Schema', n.oid, quote_ident(n.nspname), 'schema ' || quote_ident(n.nspname), 'schema ' || quote_ident(n.nspname), 'schema ' || quote_ident(n.nspname), n.nspowner, n.nspacl, 'n',
               null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', format('create schema %s%I', case when n.nspname = 'public' then 'if not exists ' else '' end, n.nspname), false))
        from pg_namespace n
        where n.oid = any ($1) or $1 is null
        """);

    /// <summary>Enums, composite types, ranges, domains, base types. A type whose functions need it is known by its name before it is made.</summary>
    internal static DefinitionQuery Types { get; } = new([CatalogAddress.Types], """
        select 'pg_type'::regclass::oid, t.oid, case t.typtype when 'd' then 'Domain' else 'Type' end, t.typnamespace, i.identity, i.word || ' ' || i.identity, i.word || ' ' || i.identity, 'type ' || i.identity, t.typowner, t.typacl, 'T',
               null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(
                   jsonb_build_array('Shell', case when t.typtype = 'b' or r.rngcanonical <> 0 then 'create type ' || i.identity end, false),
                   jsonb_build_array('Create',
                       case t.typtype
                           when 'e' then format('create type %s as enum (%s)', i.identity, (select string_agg(quote_literal(enumlabel), ', ' order by enumsortorder) from pg_enum where enumtypid = t.oid))
                           when 'c' then format('create type %s as (%s)', i.identity, (
                               select string_agg(format(E'\n    %I %s%s', a.attname, format_type(a.atttypid, a.atttypmod), case when a.attcollation <> e.typcollation then ' collate ' || a.attcollation::regcollation else '' end), ',' order by a.attnum)
                               from pg_attribute a join pg_type e on e.oid = a.atttypid where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))
                           when 'd' then concat('create domain ', i.identity, ' as ', format_type(t.typbasetype, t.typtypmod), case when t.typcollation <> b.typcollation then ' collate ' || t.typcollation::regcollation end,
                                                ' default ' || pg_get_expr(t.typdefaultbin, 0),
                                                coalesce((select case when k.conname = t.typname || '_not_null' then '' else ' constraint ' || quote_ident(k.conname) end || ' not null' from pg_constraint k where k.contypid = t.oid and k.contype = 'n'),
                                                         case when t.typnotnull then ' not null' end))
                           when 'r' then format('create type %s as range (%s)', i.identity, concat_ws(', ',
                               'subtype = ' || format_type(r.rngsubtype, null),
                               'subtype_opclass = ' || (select format('%I.%I', n.nspname, o.opcname) from pg_opclass o join pg_namespace n on n.oid = o.opcnamespace where o.oid = r.rngsubopc and not o.opcdefault),
                               'collation = ' || case when r.rngcollation <> (select s.typcollation from pg_type s where s.oid = r.rngsubtype) then r.rngcollation::regcollation end,
                               'canonical = ' || nullif(r.rngcanonical::oid, 0)::regproc, 'subtype_diff = ' || nullif(r.rngsubdiff::oid, 0)::regproc,
                               'multirange_type_name = ' || r.rngmultitypid::regtype))
                           else format('create type %s (%s)', i.identity, concat_ws(', ',
                               'input = ' || t.typinput, 'output = ' || t.typoutput, 'receive = ' || nullif(t.typreceive::oid, 0)::regproc, 'send = ' || nullif(t.typsend::oid, 0)::regproc,
                               'typmod_in = ' || nullif(t.typmodin::oid, 0)::regproc, 'typmod_out = ' || nullif(t.typmodout::oid, 0)::regproc, 'analyze = ' || nullif(t.typanalyze::oid, 0)::regproc,
                               'subscript = ' || nullif(t.typsubscript::oid, 0)::regproc, 'internallength = ' || case t.typlen when -1 then 'variable' else t.typlen::text end, case when t.typbyval then 'passedbyvalue' end,
                               'alignment = ' || case t.typalign when 'c' then 'char' when 's' then 'int2' when 'i' then 'int4' else 'double' end,
                               'storage = ' || case t.typstorage when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' else 'extended' end,
                               'category = ' || quote_literal(t.typcategory::text), case when t.typispreferred then 'preferred = true' end, 'default = ' || quote_literal(t.typdefault),
                               'element = ' || case when t.typelem <> 0 then t.typelem::regtype end, 'delimiter = ' || quote_literal(t.typdelim::text), case when t.typcollation <> 0 then 'collatable = true' end))
                       end, false),
                   jsonb_build_array('Default', case t.typtype when 'd' then format('alter domain %s %s', i.identity, coalesce('set default ' || pg_get_expr(t.typdefaultbin, 0), 'drop default')) end, true),
                   jsonb_build_array('NotNull', case t.typtype when 'd' then format('alter domain %s %s', i.identity, case when t.typnotnull then 'set not null' else 'drop not null' end) end, true))
               || coalesce((select jsonb_agg(jsonb_build_array('Comment', format('comment on column %s.%I is %L', i.identity, a.attname, d.description), false) order by a.attnum)
                            from pg_attribute a join pg_description d on d.classoid = 'pg_class'::regclass and d.objoid = a.attrelid and d.objsubid = a.attnum
                            where a.attrelid = t.typrelid and t.typtype = 'c'), '[]')
        from pg_type t
        left join pg_type b on b.oid = t.typbasetype
        left join pg_range r on r.rngtypid = t.oid
        cross join lateral (select format_type(t.oid, null), case t.typtype when 'd' then 'domain' else 'type' end) as i (identity, word)
        where (t.oid = any ($1) or $1 is null) and t.typtype in ('e', 'd', 'r', 'b', 'c') and t.oid >= 16384
          and not exists (select from pg_type element where element.typarray = t.oid)
          and (t.typtype <> 'c' or exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
        """);

    /// <summary>CHECK constraints of domains.</summary>
    internal static DefinitionQuery DomainConstraints { get; } = new([CatalogAddress.Constraints], """
        select 'pg_constraint'::regclass::oid, k.oid, 'Constraint', k.connamespace, format('%I on domain %s', k.conname, format_type(k.contypid, null)), format('constraint %I on domain %s', k.conname, format_type(k.contypid, null)),
               null::text, null::text, null::oid, null::aclitem[], null::text, null::oid, 'pg_type'::regclass::oid, k.contypid, case when k.contype = 'n' then 'table' end, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create', format('alter domain %s add constraint %I %s', format_type(k.contypid, null), k.conname, pg_get_constraintdef(k.oid)), false))
        from pg_constraint k
        where (k.oid = any ($1) or $1 is null) and k.contypid <> 0
        """);

    /// <summary>Functions, procedures, aggregates; not what comes with a range type.</summary>
    internal static DefinitionQuery Routines { get; } = new([CatalogAddress.Routines], """
        select 'pg_proc'::regclass::oid, p.oid, initcap(i.word), p.pronamespace, i.identity, i.word || ' ' || i.identity, i.word || ' ' || i.identity,
               case p.prokind when 'p' then 'procedure ' else 'function ' end || p.oid::regprocedure, p.proowner, p.proacl, 'f', null::oid, null::oid, null::oid, null::text, null::int8, null::int8,
               jsonb_build_array(jsonb_build_array('Create',
                   case when a.aggfnoid is null then rtrim(pg_get_functiondef(p.oid), E'\n')
                        else format('create aggregate %I.%I(%s) (%s)', n.nspname, p.proname, coalesce(nullif(pg_get_function_arguments(p.oid), ''), '*'), concat_ws(', ',
                            'sfunc = ' || a.aggtransfn, 'stype = ' || format_type(a.aggtranstype, null), 'sspace = ' || nullif(a.aggtransspace, 0),
                            'finalfunc = ' || nullif(a.aggfinalfn::oid, 0)::regproc, case when a.aggfinalextra then 'finalfunc_extra' end,
                            case when a.aggfinalfn <> 0 then 'finalfunc_modify = ' || case a.aggfinalmodify when 'r' then 'read_only' when 's' then 'shareable' else 'read_write' end end,
                            'combinefunc = ' || nullif(a.aggcombinefn::oid, 0)::regproc, 'serialfunc = ' || nullif(a.aggserialfn::oid, 0)::regproc, 'deserialfunc = ' || nullif(a.aggdeserialfn::oid, 0)::regproc,
                            'initcond = ' || quote_literal(a.agginitval), 'msfunc = ' || nullif(a.aggmtransfn::oid, 0)::regproc, 'minvfunc = ' || nullif(a.aggminvtransfn::oid, 0)::regproc,
                            case when a.aggmtranstype <> 0 then 'mstype = ' || format_type(a.aggmtranstype, null) end, 'msspace = ' || nullif(a.aggmtransspace, 0), 'mfinalfunc = ' || nullif(a.aggmfinalfn::oid, 0)::regproc,
                            case when a.aggmfinalextra then 'mfinalfunc_extra' end,
                            case when a.aggmfinalfn <> 0 then 'mfinalfunc_modify = ' || case a.aggmfinalmodify when 'r' then 'read_only' when 's' then 'shareable' else 'read_write' end end,
                            'minitcond = ' || quote_literal(a.aggminitval),
                            'sortop = ' || (select format('operator(%I.%s)', os.nspname, o.oprname) from pg_operator o join pg_namespace os on os.oid = o.oprnamespace where o.oid = a.aggsortop),
                            'parallel = ' || case p.proparallel when 's' then 'safe' when 'r' then 'restricted' end,
                            case when a.aggkind = 'h' then 'hypothetical' end))
                   end, false))
        from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        left join pg_aggregate a on a.aggfnoid = p.oid
        cross join lateral (select case p.prokind when 'a' then format('%I.%I(%s)', n.nspname, p.proname, coalesce(nullif(pg_get_function_identity_arguments(p.oid), ''), '*')) else p.oid::regprocedure::text end,
                                   case p.prokind when 'a' then 'aggregate' when 'p' then 'procedure' else 'function' end) as i (identity, word)
        where (p.oid = any ($1) or $1 is null and p.oid >= 16384)
          and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.refclassid = 'pg_type'::regclass and d.deptype = 'i')
        """);
}
