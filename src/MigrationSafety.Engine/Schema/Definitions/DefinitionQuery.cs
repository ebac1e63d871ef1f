namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>
/// A query for the definitions of a family of objects. Its rows have classid, objid, kind (a name of <c>ObjectKind</c>), namespace (null for what is in none), identity,
/// target (the object in COMMENT ON), ownertarget (in ALTER ... OWNER TO; null where it has none of its own), granttarget (in GRANT), owner, acl, acltype (for <c>acldefault()</c>),
/// relation (oid of what it is or is part of), goesclass and goesobj (what it cannot be without), inside ('table' where the definition of that has it already, 'parent' where it comes with the tie to that one's parent), rows, bytes, statements: an array of [property, sql, alone, roles].
/// <c>$1</c> is the array of oids that are wanted; null for all.
/// </summary>
/// <param name="ClassIds">Catalogs that it reads.</param>
/// <param name="Sql">The query.</param>
/// <param name="Since">The oldest major that has what it reads.</param>
/// <param name="Until">The newest major that it is for.</param>
internal sealed record DefinitionQuery(IReadOnlyList<uint> ClassIds, string Sql, int Since = 14, int Until = int.MaxValue)
{
    /// <summary>All families.</summary>
    internal static IReadOnlyList<DefinitionQuery> All { get; } =
    [
        DatabaseQueries.Extensions, DatabaseQueries.Collations, OperatorQueries.Operators, OperatorQueries.Families, OperatorQueries.Classes, OperatorQueries.Casts, OperatorQueries.TextSearch,
        DatabaseQueries.ForeignData, DatabaseQueries.EventTriggers, DatabaseQueries.Publications, DatabaseQueries.Subscriptions, DatabaseQueries.PublishedTables14, DatabaseQueries.PublishedTables15,
        DatabaseQueries.PublishedSchemas, DatabaseQueries.DefaultPrivileges,
        TypeQueries.Schemas, TypeQueries.Types, TypeQueries.DomainConstraints, TypeQueries.Routines,
        RelationQueries.Relations, RelationQueries.Sequences,
        TablePartQueries.Constraints, TablePartQueries.Indexes, TablePartQueries.Triggers, TablePartQueries.Rules, TablePartQueries.Policies, TablePartQueries.Statistics,
    ];

    /// <summary>The query with what is common to all families: owner, privileges, comment and labels; and without what is PostgreSQL's own, an extension's or this module's, unless it is asked for by its oid.</summary>
    internal string Text => $"""
        with object (classid, objid, kind, namespace, identity, target, ownertarget, granttarget, owner, acl, acltype, relation, goesclass, goesobj, inside, rows, bytes, statements) as not materialized (
        {Sql}
        )
        select o.classid::oid, o.objid, o.kind, o.identity, (select format('%I.%I', rn.nspname, rc.relname) from pg_class rc join pg_namespace rn on rn.oid = rc.relnamespace where rc.oid = o.relation),
               o.goesclass::oid, o.goesobj, o.inside, o.rows, o.bytes,
               (o.statements
                || jsonb_build_array(jsonb_build_array('Owner', 'alter ' || o.ownertarget || ' owner to ' || quote_ident(r.rolname), false, jsonb_build_array(r.rolname)))
                || coalesce(granted.statements, '[]')
                || jsonb_build_array(jsonb_build_array('Comment', format('comment on %s is %L', o.target, described.description), described.description is null))
                || coalesce((select jsonb_agg(jsonb_build_array('SecurityLabel', format('security label for %I on %s is %L', l.provider, o.target, l.label), false) order by l.provider)
                             from pg_seclabel l where l.classoid = o.classid and l.objoid = o.objid and l.objsubid = 0), '[]'))::text
        from object o
        left join pg_roles r on r.oid = o.owner
        left join pg_namespace n on n.oid = o.namespace
        left join pg_description described on described.classoid = o.classid and described.objoid = o.objid and described.objsubid = 0
        cross join lateral ({Grants("o.granttarget", "o.acl", "acldefault(o.acltype::\"char\", o.owner)", "o.owner", "o.acltype", "o.namespace")}) as granted (statements)
        where o.objid = any ($1)
           or ($1 is null
               and (n.oid is null or (n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'migration_safety')))
               and (o.objid >= 16384 or (o.classid = 'pg_namespace'::regclass and n.nspname = 'public'))
               and not exists (select from pg_depend e
                               where e.deptype = 'e' and ((e.classid = o.classid and e.objid = o.objid) or (e.classid = 'pg_class'::regclass and e.objid = o.relation))))
        order by o.identity
        """;

    /// <summary>
    /// A query for the statements of a list of privileges: what a new object has and this one has not is revoked first. Other roles than the owner
    /// grant as themselves. Where the list is empty, it is as a new object has it.
    /// </summary>
    internal static string Grants(string target, string acl, string initial, string owner, string acltype, string @namespace, string columns = "''") => $"""
        with granted as (
            select grantee, grantor, is_grantable, array_agg(privilege_type order by privilege_type) as privileges
            from aclexplode(coalesce({acl}, {initial}))
            group by grantee, grantor, is_grantable
        ),
        new as (
            select grantee, grantor, is_grantable, array_agg(privilege_type order by privilege_type) as privileges
            from aclexplode({initial})
            group by grantee, grantor, is_grantable
        ),
        given as (
            select e.grantee from pg_default_acl d, aclexplode(d.defaclacl) as e
            where d.defaclobjtype = case {acltype} when 's' then 'S' else {acltype} end and d.defaclnamespace in (0, {@namespace}) and pg_get_userbyid(d.defaclrole) in (current_user, pg_get_userbyid({owner}))
        ),
        altered as (
            select grantee from (select * from granted except select * from new) as more
            union select grantee from (select * from new except select * from granted) as less
            union select grantee from given
            union select 0 where {acltype} = 'n' and {@namespace} = 2200
        ),
        named as (
            select 0::oid as oid, 'public' as name, null::name as role
            union all select oid, quote_ident(rolname), rolname from pg_roles
        )
        select jsonb_agg(jsonb_build_array('Privileges', sql, alone, to_jsonb(array_remove(roles, null))) order by step, number, sql)
        from (
            select 1 as step, 0 as number, format('revoke all%s on %s from %s', {columns}, {target}, string_agg(g.name, ', ' order by g.name)) as sql, array_agg(g.role) as roles, false as alone
            from altered changed join named g on g.oid = changed.grantee
            where changed.grantee in (select grantee from new) or changed.grantee in (select grantee from given)
               or (changed.grantee = 0 and {acltype} = 'n' and {@namespace} = 2200)
            having count(*) > 0
            union all
            select case when grant_.grantor = {owner} then 2 else 3 end, part.number,
                   case part.number
                       when 1 then 'set role ' || by_.name
                       when 2 then format('grant %s on %s to %s%s', (select string_agg(lower(p) || {columns}, ', ') from unnest(grant_.privileges) as p), {target}, to_.name, case when grant_.is_grantable then ' with grant option' else '' end)
                       else 'reset role'
                   end,
                   array[to_.role, case when grant_.grantor <> {owner} then by_.role end],
                   not exists (select from altered changed where changed.grantee = grant_.grantee)
            from granted grant_
            join named to_ on to_.oid = grant_.grantee
            join named by_ on by_.oid = grant_.grantor
            cross join (values (1), (2), (3)) as part (number)
            where part.number = 2 or grant_.grantor <> {owner}
        ) as each
        where {target} is not null
        """;
}
