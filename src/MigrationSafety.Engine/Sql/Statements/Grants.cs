namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>A privilege.</summary>
/// <param name="Name">select, insert, all and so on.</param>
/// <param name="Columns">Its columns; empty where it is not limited to some.</param>
internal sealed record Privilege(string Name, IReadOnlyList<string> Columns);

/// <summary>GRANT and REVOKE of privileges.</summary>
/// <param name="Gives">GRANT; else REVOKE.</param>
/// <param name="Privileges">Privileges.</param>
/// <param name="Kind">Kind of the objects.</param>
/// <param name="Objects">Objects.</param>
/// <param name="Schemas">Schemas of ALL ... IN SCHEMA.</param>
/// <param name="Grantees">Roles.</param>
/// <param name="GrantOption">WITH GRANT OPTION, GRANT OPTION FOR.</param>
/// <param name="Cascade">CASCADE.</param>
internal sealed record GrantPrivileges(
    bool Gives,
    IReadOnlyList<Privilege> Privileges,
    ObjectKind Kind,
    IReadOnlyList<ObjectReference> Objects,
    IReadOnlyList<string> Schemas,
    IReadOnlyList<string> Grantees,
    bool GrantOption,
    bool Cascade) : ParsedStatement(Gives ? "GRANT" : "REVOKE")
{
    /// <summary>GRANTED BY.</summary>
    internal string? GrantedBy { get; init; }

    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [.. Objects.Select(o => o.Target)];
}

/// <summary>GRANT and REVOKE of roles.</summary>
internal sealed record GrantRoles(bool Gives, IReadOnlyList<string> Roles, IReadOnlyList<string> Grantees, SqlFragment Options, bool Cascade) : ParsedStatement(Gives ? "GRANT ROLE" : "REVOKE ROLE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [.. Roles.Select(r => new QualifiedName(null, r))];
}

/// <summary>ALTER DEFAULT PRIVILEGES.</summary>
/// <param name="Roles">FOR ROLE.</param>
/// <param name="Schemas">IN SCHEMA.</param>
/// <param name="Gives">GRANT; else REVOKE.</param>
/// <param name="Privileges">Privileges.</param>
/// <param name="Objects">tables, functions, routines, sequences, types, schemas, large objects.</param>
/// <param name="Grantees">Roles.</param>
/// <param name="GrantOption">WITH GRANT OPTION, GRANT OPTION FOR.</param>
internal sealed record AlterDefaultPrivileges(
    IReadOnlyList<string> Roles, IReadOnlyList<string> Schemas, bool Gives, IReadOnlyList<Privilege> Privileges, string Objects, IReadOnlyList<string> Grantees, bool GrantOption)
    : ParsedStatement("ALTER DEFAULT PRIVILEGES")
{
    internal static AlterDefaultPrivileges Read(SqlReader r)
    {
        IReadOnlyList<string> roles = [];
        IReadOnlyList<string> schemas = [];
        while (r.Sees("for") || r.Sees("in"))
        {
            if (r.Take("in", "schema"))
            {
                schemas = r.List(r => r.Name());
            }
            else
            {
                r.Expect("for");
                r.OneOf("role", "user");
                roles = r.Roles();
            }
        }

        bool gives = r.OneOf("grant", "revoke") == "grant";
        bool option = !gives && r.Take("grant", "option", "for");
        IReadOnlyList<Privilege> privileges = GrantStatements.Privileges(r);
        r.Expect("on");
        string objects = r.Take("large", "objects") ? "large objects" : r.OneOf("tables", "functions", "routines", "sequences", "types", "schemas");
        IReadOnlyList<string> grantees = GrantStatements.Grantees(r, gives);
        option |= gives && r.Take("with", "grant", "option");
        r.TakeCascade();
        return new AlterDefaultPrivileges(roles, schemas, gives, privileges, objects, grantees, option);
    }
}

/// <summary>Parses GRANT and REVOKE.</summary>
internal static class GrantStatements
{
    internal static ParsedStatement? Read(SqlReader r)
    {
        bool gives = r.OneOf("grant", "revoke") == "grant";
        bool option = false;
        int options = r.At;
        if (!gives)
        {
            option = r.Take("grant", "option", "for");
            _ = option || r.Take("admin", "option", "for") || r.Take("inherit", "option", "for") || r.Take("set", "option", "for");
        }

        return r.HasAhead("on") ? OfPrivileges(r, gives, option) : OfRoles(r, gives, r.From(options));
    }

    internal static IReadOnlyList<Privilege> Privileges(SqlReader r)
    {
        if (r.Take("all"))
        {
            r.Take("privileges");
            return [new Privilege("all", r.SeesMark("(") ? r.Names() : [])];
        }

        return r.List(r =>
        {
            string name = r.Take("alter", "system") ? "alter system" : r.TakeOneOf("select", "references", "create") ?? r.Name();
            return new Privilege(name, r.SeesMark("(") ? r.Names() : []);
        });
    }

    internal static IReadOnlyList<string> Grantees(SqlReader r, bool gives)
    {
        r.Expect(gives ? "to" : "from");
        return r.List(r =>
        {
            r.Take("group");
            return r.Role();
        });
    }

    private static GrantRoles OfRoles(SqlReader r, bool gives, SqlFragment revoked)
    {
        IReadOnlyList<string> roles = r.List(r => r.TakeOneOf("select", "references", "create") ?? r.Name());
        IReadOnlyList<string> grantees = Grantees(r, gives);
        int start = r.At;
        if (gives && r.Take("with"))
        {
            r.List(r =>
            {
                string option = r.Label();
                r.OneOf("option", "true", "false");
                return option;
            });
        }

        SqlFragment options = gives ? r.From(start) : revoked;
        GrantedBy(r);
        return new GrantRoles(gives, roles, grantees, options, !gives && r.TakeCascade());
    }

    private static GrantPrivileges OfPrivileges(SqlReader r, bool gives, bool option)
    {
        IReadOnlyList<Privilege> privileges = Privileges(r);
        r.Expect("on");
        IReadOnlyList<string> schemas = [];
        IReadOnlyList<ObjectReference> objects = [];
        ObjectKind kind = ObjectKind.Table;
        if (r.Take("all"))
        {
            kind = r.OneOf("tables", "sequences", "functions", "procedures", "routines") switch
            {
                "sequences" => ObjectKind.Sequence,
                "functions" => ObjectKind.Function,
                "procedures" => ObjectKind.Procedure,
                "routines" => ObjectKind.Routine,
                _ => ObjectKind.Table,
            };
            r.Expect("in", "schema");
            schemas = r.List(r => r.Name());
        }
        else
        {
            kind = Kind(r);
            objects = kind == ObjectKind.Parameter ? r.List(Parameter) : r.List(r => ObjectReference.Read(r, kind));
        }

        IReadOnlyList<string> grantees = Grantees(r, gives);
        option |= gives && r.Take("with", "grant", "option");
        string? by = GrantedBy(r);
        return new GrantPrivileges(gives, privileges, kind, objects, schemas, grantees, option, !gives && r.TakeCascade()) { GrantedBy = by };
    }

    private static ObjectKind Kind(SqlReader r)
    {
        // A kind's word may be the table's name: then a comma, a dot or TO follows.
        SqlReader ahead = r.Clone();
        ahead.Skip();
        if (ahead.Sees("to") || ahead.Sees("from") || ahead.SeesMark(",") || ahead.SeesMark("."))
        {
            return ObjectKind.Table;
        }

        return r.Take("foreign", "server") ? ObjectKind.Server : ObjectKinds.Take(r) ?? ObjectKind.Table;
    }

    private static ObjectReference Parameter(SqlReader r)
    {
        string name = r.Name();
        while (r.TakeMark("."))
        {
            name += "." + r.Label();
        }

        return new ObjectReference(ObjectKind.Parameter, new QualifiedName(null, name));
    }

    private static string? GrantedBy(SqlReader r) => r.Take("granted", "by") ? r.Role() : null;
}
