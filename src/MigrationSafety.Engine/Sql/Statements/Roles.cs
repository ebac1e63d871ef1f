namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE ROLE, USER, GROUP.</summary>
/// <param name="Name">Name.</param>
/// <param name="Login">Whether the command is CREATE USER, which gives LOGIN.</param>
/// <param name="Options">superuser, nologin, password, connection limit, in role and so on.</param>
internal sealed record CreateRole(string Name, bool Login, IReadOnlyList<SqlOption> Options) : ParsedStatement("CREATE ROLE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER ROLE, USER, GROUP with options.</summary>
internal sealed record AlterRole(string Name, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER ROLE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER GROUP ... ADD USER and DROP USER.</summary>
internal sealed record AlterGroup(string Name, bool Add, IReadOnlyList<string> Members) : ParsedStatement("ALTER ROLE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER ROLE ... SET and RESET.</summary>
/// <param name="Name">Role; null for ALL.</param>
/// <param name="Database">IN DATABASE.</param>
/// <param name="Setting">Setting.</param>
internal sealed record SetForRole(string? Name, string? Database, SetVariable Setting) : ParsedStatement("ALTER ROLE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => Name is null ? [] : [new QualifiedName(null, Name)];
}

/// <summary>Parses roles.</summary>
internal static class RoleStatements
{
    internal static CreateRole ReadCreate(SqlReader r, bool login)
    {
        string name = r.Role();
        r.Take("with");
        return new CreateRole(name, login, Options(r));
    }

    internal static ParsedStatement? ReadAlter(SqlReader r)
    {
        string? name = r.Take("all") ? null : r.Role();
        if (name is not null && AlterStatements.Common(r, new ObjectReference(ObjectKind.Role, new QualifiedName(null, name))) is { } common)
        {
            return common;
        }

        string? database = r.Take("in", "database") ? r.Name() : null;
        if (r.Sees("set") || r.Sees("reset"))
        {
            return SetVariable.ReadClause(r) is { } setting ? new SetForRole(name, database, setting) : r.Fail<ParsedStatement>();
        }

        if (name is null || database is not null)
        {
            return r.Fail<ParsedStatement>();
        }

        if (r.Sees("add") || r.Sees("drop"))
        {
            bool add = r.OneOf("add", "drop") == "add";
            r.Expect("user");
            return new AlterGroup(name, add, r.Roles());
        }

        r.Take("with");
        return new AlterRole(name, Options(r));
    }

    private static List<SqlOption> Options(SqlReader r)
    {
        List<SqlOption> options = [];
        while (!r.AtEnd)
        {
            string word = r.Word();
            r.Skip();
            int start = r.At;
            switch (word)
            {
                case "password" or "encrypted" or "unencrypted":
                    _ = word == "password" || r.Take("password");
                    start = r.At;
                    _ = r.Take("null") ? "" : r.Literal();
                    word = "password";
                    break;
                case "valid":
                    r.Expect("until");
                    start = r.At;
                    r.Literal();
                    word = "valid until";
                    break;
                case "connection":
                    r.Expect("limit");
                    start = r.At;
                    r.Number();
                    word = "connection limit";
                    break;
                case "sysid":
                    r.Number();
                    break;
                case "in":
                    word = "in " + r.OneOf("role", "group");
                    start = r.At;
                    r.Roles();
                    break;
                case "role" or "user" or "admin":
                    r.Roles();
                    break;
                case "superuser" or "nosuperuser" or "createdb" or "nocreatedb" or "createrole" or "nocreaterole" or "createuser" or "nocreateuser" or "inherit" or "noinherit"
                    or "login" or "nologin" or "replication" or "noreplication" or "bypassrls" or "nobypassrls":
                    break;
                default:
                    r.Fail();
                    break;
            }

            options.Add(new SqlOption(word, r.From(start)));
        }

        return options;
    }
}
