using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;
using Npgsql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes GRANT and REVOKE back: what was granted before is granted again, and nothing else.</summary>
internal static class PrivilegeReversal
{
    /// <summary>A privilege that a role has on an object or one of its columns.</summary>
    private sealed record Held(string Object, string? Column, string Grantee, string Privilege, bool Grantable);

    // Where each kind keeps its privileges: catalog, column, the letter of acldefault(), the words of GRANT.
    private static readonly Dictionary<ObjectKind, (string Catalog, string Column, char Default, string Words)> s_places = new()
    {
        [ObjectKind.Table] = ("pg_class", "relacl", 'r', "table"),
        [ObjectKind.Sequence] = ("pg_class", "relacl", 's', "sequence"),
        [ObjectKind.Function] = ("pg_proc", "proacl", 'f', "function"),
        [ObjectKind.Procedure] = ("pg_proc", "proacl", 'f', "procedure"),
        [ObjectKind.Routine] = ("pg_proc", "proacl", 'f', "routine"),
        [ObjectKind.Schema] = ("pg_namespace", "nspacl", 'n', "schema"),
        [ObjectKind.Type] = ("pg_type", "typacl", 'T', "type"),
        [ObjectKind.Domain] = ("pg_type", "typacl", 'T', "domain"),
        [ObjectKind.Language] = ("pg_language", "lanacl", 'l', "language"),
        [ObjectKind.Database] = ("pg_database", "datacl", 'd', "database"),
        [ObjectKind.Tablespace] = ("pg_tablespace", "spcacl", 't', "tablespace"),
        [ObjectKind.ForeignDataWrapper] = ("pg_foreign_data_wrapper", "fdwacl", 'F', "foreign data wrapper"),
        [ObjectKind.Server] = ("pg_foreign_server", "srvacl", 'S', "foreign server"),
    };

    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, GrantPrivileges grant)
    {
        if (!s_places.TryGetValue(grant.Kind, out (string Catalog, string Column, char Default, string Words) place))
        {
            return [r.Forward.Unknown($"Privileges on {grant.Kind.Words()}s are not understood here; write the reversal by hand.")];
        }

        if (r.Catalog is not { } catalog)
        {
            string verb = grant.Gives ? "granted" : "held";
            return [r.Forward.Unknown($"Which of these privileges were {verb} before is not in the text. {ForwardStatement.Connect}", grant is { Gives: true, Schemas: [] } && r.Forward.Statement.Tokens.Length > 0 ? Inverse(r.Forward.Statement.Text) : null)];
        }

        List<RollbackStatement> result = [];
        Dictionary<string, List<string>> same = [];
        foreach (ObjectReference o in await ObjectsAsync(r, catalog, grant).ConfigureAwait(false))
        {
            if (r.Resolve(o) is not { } now)
            {
                result.Add(r.SchemaUnknown(o.Target));
                continue;
            }

            if (r.Made(now))
            {
                result.Add(r.Forward.NotNeeded($"It goes with the {now.Kind.Words()} {now.Identity()}, which this script makes."));
                continue;
            }

            if (await r.FindAsync(now).ConfigureAwait(false) is not { } address)
            {
                result.Add(r.Forward.Unknown($"There is no {now.Kind.Words()} {now.Identity()} in {catalog.Facts.Database} now."));
                continue;
            }

            IReadOnlyList<Held> before = await HeldAsync(catalog, place, address.ObjectId, r.CancellationToken).ConfigureAwait(false);
            foreach ((string head, string tail) in Changes(grant, before, catalog.Major))
            {
                if (r.IfMoved(now) is { } moved)
                {
                    result.Add(r.Forward.By($"{head} on {place.Words} {now.Identity()} {tail}", "Privileges as they were before.", condition: moved));
                    continue;
                }

                string key = $"{head}\n{tail}";
                (same.TryGetValue(key, out List<string>? objects) ? objects : same[key] = []).Add(now.Identity());
            }
        }

        foreach ((string key, List<string> objects) in same)
        {
            string[] parts = key.Split('\n');
            result.Add(r.Forward.By($"{parts[0]} on {place.Words} {string.Join(", ", objects)} {parts[1]}", "Privileges as they were before."));
        }

        return result.Count > 0 ? result : [r.Forward.NotNeeded(grant.Gives ? "These privileges were granted before." : "These privileges were not granted before.")];
    }

    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, AlterDefaultPrivileges alter)
    {
        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"Which of these default privileges were set before is not in the text. {ForwardStatement.Connect}")];
        }

        List<RollbackStatement> result = [];
        (char type, char standard) = alter.Objects switch
        {
            "tables" => ('r', 'r'), "sequences" => ('S', 's'), "functions" or "routines" => ('f', 'f'), "types" => ('T', 'T'), "schemas" => ('n', 'n'), _ => ('L', 'L'),
        };
        foreach (string role in alter.Roles.Count > 0 ? alter.Roles : ["current_user"])
        {
            foreach (string? schema in alter.Schemas.Count > 0 ? alter.Schemas : [null!])
            {
                // In one schema they come on top of those for all; these begin with the defaults that PostgreSQL has.
                string query = $"""
                    with wanted as (select {(role is "current_user" or "session_user" or "current_role" ? role + "::regrole" : $"to_regrole({SqlName.Literal(SqlName.QuoteIfNeeded(role))})")} as role)
                    select '', null, case x.grantee when 0 then 'public' else pg_get_userbyid(x.grantee)::text end, lower(x.privilege_type), x.is_grantable
                    from wanted w
                    left join pg_catalog.pg_default_acl d on d.defaclrole = w.role and d.defaclobjtype = '{type}' and d.defaclnamespace = {(schema is null ? "0" : $"coalesce(to_regnamespace({SqlName.Literal(SqlName.QuoteIfNeeded(schema))}), 0)")}
                    cross join lateral aclexplode({(schema is null ? $"coalesce(d.defaclacl, acldefault('{standard}', w.role))" : "d.defaclacl")}) as x
                    """;
                IReadOnlyList<Held> before = await AskAsync(catalog, query, r.CancellationToken).ConfigureAwait(false);
                GrantPrivileges grant = new(alter.Gives, alter.Privileges, standard switch { 'r' => ObjectKind.Table, 's' => ObjectKind.Sequence, 'f' => ObjectKind.Function, 'T' => ObjectKind.Type, _ => ObjectKind.Schema }, [], [], alter.Grantees, alter.GrantOption, false);
                string head = $"alter default privileges{(alter.Roles.Count > 0 ? $" for role {ObjectNames.Role(role)}" : "")}{(schema is null ? "" : $" in schema {SqlName.QuoteIfNeeded(schema)}")} ";
                result.AddRange(Changes(grant, before, catalog.Major).Select(change => r.Forward.By($"{head}{change.Head} on {alter.Objects} {change.Tail}", "Default privileges as they were before.")));
            }
        }

        return result.Count > 0 ? result : [r.Forward.NotNeeded("These default privileges were as they are asked for.")];
    }

    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, GrantRoles grant)
    {
        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"Who was a member before is not in the text. {ForwardStatement.Connect}", grant.Gives ? Inverse(r.Forward.Statement.Text) : null)];
        }

        List<RollbackStatement> result = [];
        foreach (string role in grant.Roles)
        {
            foreach (string member in grant.Grantees)
            {
                string memberOid = member is "current_user" or "session_user" or "current_role" ? $"{member}::regrole" : $"to_regrole({SqlName.Literal(SqlName.QuoteIfNeeded(member))})";
                string? options = await catalog.ScalarAsync(
                    $"""
                    select string_agg(case when (to_jsonb(m) ->> 'admin_option')::boolean then 'admin' else '' end, '')
                    from pg_catalog.pg_auth_members m
                    where roleid = to_regrole({SqlName.Literal(SqlName.QuoteIfNeeded(role))}) and member = {memberOid}
                    """,
                    r.CancellationToken).ConfigureAwait(false);
                string names = $"{ObjectNames.Role(role)}";
                string to = ObjectNames.Role(member);
                result.Add(options is null
                    ? grant.Gives ? r.Forward.By($"revoke {names} from {to}") : r.Forward.NotNeeded($"{to} was no member of {names}.")
                    : grant.Gives ? r.Forward.NotNeeded($"{to} was a member of {names} before.") : r.Forward.By($"grant {names} to {to}{(options.Contains("admin", StringComparison.Ordinal) ? " with admin option" : "")}"));
            }
        }

        return result;
    }

    /// <summary>What has to be granted and revoked: the words before ON, and those from TO or FROM on.</summary>
    private static IEnumerable<(string Head, string Tail)> Changes(GrantPrivileges grant, IReadOnlyList<Held> before, int major)
    {
        foreach (string grantee in grant.Grantees)
        {
            List<string> revoke = [];
            List<string> revokeOption = [];
            List<string> give = [];
            List<string> giveOption = [];
            foreach ((string privilege, string? column) in grant.Privileges.SelectMany(p => Expand(grant.Kind, p, major)))
            {
                Held? held = before.FirstOrDefault(h => h.Grantee == grantee && h.Privilege == privilege && h.Column == column);
                string text = column is null ? privilege : $"{privilege} ({SqlName.QuoteIfNeeded(column)})";
                if (grant.Gives)
                {
                    (held is null ? revoke : grant.GrantOption && !held.Grantable ? revokeOption : []).Add(text);
                }
                else if (held is not null && (!grant.GrantOption || held.Grantable))
                {
                    (held.Grantable ? giveOption : give).Add(text);
                }
            }

            string name = ObjectNames.Role(grantee);
            if (revoke.Count > 0)
            {
                yield return ($"revoke {string.Join(", ", revoke)}", $"from {name}");
            }

            if (revokeOption.Count > 0)
            {
                yield return ($"revoke grant option for {string.Join(", ", revokeOption)}", $"from {name}");
            }

            if (give.Count > 0)
            {
                yield return ($"grant {string.Join(", ", give)}", $"to {name}");
            }

            if (giveOption.Count > 0)
            {
                yield return ($"grant {string.Join(", ", giveOption)}", $"to {name} with grant option");
            }
        }
    }

    private static IEnumerable<(string Privilege, string? Column)> Expand(ObjectKind kind, Privilege privilege, int major)
    {
        string[] names = privilege.Name != "all" ? [privilege.Name == "temp" ? "temporary" : privilege.Name] : kind switch
        {
            ObjectKind.Table when privilege.Columns.Count > 0 => ["select", "insert", "update", "references"],
            ObjectKind.Table when major >= 17 => ["select", "insert", "update", "delete", "truncate", "references", "trigger", "maintain"],
            ObjectKind.Table => ["select", "insert", "update", "delete", "truncate", "references", "trigger"],
            ObjectKind.Sequence => ["usage", "select", "update"],
            ObjectKind.Schema => ["usage", "create"],
            ObjectKind.Database => ["create", "connect", "temporary"],
            ObjectKind.Tablespace => ["create"],
            ObjectKind.Function or ObjectKind.Procedure or ObjectKind.Routine => ["execute"],
            _ => ["usage"],
        };
        return privilege.Columns.Count == 0 ? names.Select(n => (n, (string?)null)) : names.SelectMany(n => privilege.Columns.Select(c => (n, (string?)c)));
    }

    private static async Task<IReadOnlyList<ObjectReference>> ObjectsAsync(Reversing r, RollbackCatalog catalog, GrantPrivileges grant)
    {
        if (grant.Schemas.Count == 0)
        {
            return grant.Objects;
        }

        string schemas = string.Join(", ", grant.Schemas.Select(s => SqlName.Literal(r.Names.BeforeScript(ObjectKind.Schema, new QualifiedName(null, s))?.Name ?? s)));
        string query = grant.Kind switch
        {
            ObjectKind.Table => $"select format('%I.%I', nspname, relname) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = relnamespace where nspname in ({schemas}) and relkind in ('r', 'p', 'v', 'm', 'f') order by 1",
            ObjectKind.Sequence => $"select format('%I.%I', nspname, relname) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = relnamespace where nspname in ({schemas}) and relkind = 'S' order by 1",
            _ => $"""
                select format('%I.%I(%s)', nspname, proname, (select string_agg(format_type(t, null), ', ' order by i) from unnest(proargtypes) with ordinality as a (t, i)))
                from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = pronamespace
                where nspname in ({schemas}) and prokind = any ('{grant.Kind switch { ObjectKind.Function => "{f,a,w}", ObjectKind.Procedure => "{p}", _ => "{f,a,w,p}" }}'::"char"[]) order by 1
                """,
        };
        List<ObjectReference> objects = [];
        foreach (string name in await catalog.ListAsync(query, r.CancellationToken).ConfigureAwait(false))
        {
            objects.Add(ObjectNames.Parse(grant.Kind, name));
        }

        return objects;
    }

    private static Task<IReadOnlyList<Held>> HeldAsync(RollbackCatalog catalog, (string Catalog, string Column, char Default, string Words) place, uint oid, CancellationToken cancellationToken)
    {
        string owner = place.Column.Replace("acl", "owner", StringComparison.Ordinal);
        owner = owner == "datowner" ? "datdba" : owner;
        string columns = place.Catalog != "pg_class" ? "" : $"""
            union all
            select '', a.attname::text, x.grantee, x.privilege_type, x.is_grantable
            from pg_catalog.pg_attribute a cross join lateral aclexplode(a.attacl) as x
            where a.attrelid = {oid} and not a.attisdropped
            """;
        return AskAsync(
            catalog,
            $"""
            select h.o, h.col, case h.grantee when 0 then 'public' else pg_get_userbyid(h.grantee)::text end, lower(h.privilege_type), bool_or(h.is_grantable)
            from (
                select '' as o, null::text as col, x.grantee, x.privilege_type, x.is_grantable
                from pg_catalog.{place.Catalog} c cross join lateral aclexplode(coalesce(c.{place.Column}, acldefault('{place.Default}', c.{owner}))) as x
                where c.oid = {oid}
                {columns}
            ) as h
            group by 1, 2, 3, 4
            """,
            cancellationToken);
    }

    private static async Task<IReadOnlyList<Held>> AskAsync(RollbackCatalog catalog, string query, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(query, catalog.Connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<Held> held = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            held.Add(new Held(reader.GetString(0), reader.IsDBNull(1) ? null : reader.GetString(1), reader.GetString(2), reader.GetString(3), reader.GetBoolean(4)));
        }

        return held;
    }

    /// <summary>REVOKE of what a plain GRANT gives, as a proposal.</summary>
    private static string? Inverse(string grant)
    {
        int to = grant.LastIndexOf(" to ", StringComparison.OrdinalIgnoreCase);
        int with = grant.IndexOf(" with ", Math.Max(to, 0), StringComparison.OrdinalIgnoreCase);
        return to < 0 ? null : $"revoke{grant[5..to]} from {(with < 0 ? grant[(to + 4)..] : grant[(to + 4)..with])}";
    }
}
