namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE DATABASE.</summary>
internal sealed record CreateDatabase(string Name, IReadOnlyList<SqlOption> Options) : ParsedStatement("CREATE DATABASE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER DATABASE with options, SET TABLESPACE included.</summary>
internal sealed record AlterDatabase(string Name, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER DATABASE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER DATABASE ... SET and RESET.</summary>
internal sealed record SetForDatabase(string Name, SetVariable Setting) : ParsedStatement("ALTER DATABASE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>CREATE TABLESPACE.</summary>
internal sealed record CreateTablespace(string Name, string? Owner, string Location, IReadOnlyList<SqlOption> Options) : ParsedStatement("CREATE TABLESPACE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];

    internal static CreateTablespace Read(SqlReader r)
    {
        string name = r.Name();
        string? owner = r.Take("owner") ? r.Role() : null;
        r.Expect("location");
        return new CreateTablespace(name, owner, r.Literal(), SqlOption.ReadOptional(r, "with"));
    }
}

/// <summary>ALTER TABLESPACE ... SET and RESET.</summary>
internal sealed record AlterTablespace(string Name, IReadOnlyList<SqlOption> Options, bool Reset) : ParsedStatement("ALTER TABLESPACE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];

    internal static AlterTablespace Read(SqlReader r, ObjectReference name)
    {
        bool reset = r.OneOf("set", "reset") == "reset";
        return new AlterTablespace(name.Name.Name, SqlOption.ReadList(r), reset);
    }
}

/// <summary>Parses databases.</summary>
internal static class DatabaseStatements
{
    internal static CreateDatabase ReadCreate(SqlReader r)
    {
        string name = r.Name();
        r.Take("with");
        return new CreateDatabase(name, Options(r));
    }

    internal static ParsedStatement? ReadAlter(SqlReader r)
    {
        string name = r.Name();
        ObjectReference reference = new(ObjectKind.Database, new QualifiedName(null, name));
        if (AlterStatements.Common(r, reference) is { } common)
        {
            return common;
        }

        if (r.Take("refresh", "collation", "version"))
        {
            return new RefreshCollationVersion(reference);
        }

        if (r.Take("set", "tablespace"))
        {
            int start = r.At;
            r.Name();
            return new AlterDatabase(name, [new SqlOption("tablespace", r.From(start))]);
        }

        if (r.Sees("set") || r.Sees("reset"))
        {
            return SetVariable.ReadClause(r) is { } setting ? new SetForDatabase(name, setting) : r.Fail<ParsedStatement>();
        }

        r.Take("with");
        return new AlterDatabase(name, Options(r));
    }

    /// <summary>name [=] value, one after the other.</summary>
    private static List<SqlOption> Options(SqlReader r)
    {
        List<SqlOption> options = [];
        while (!r.AtEnd)
        {
            string name = r.Take("connection", "limit") ? "connection limit" : r.Label();
            r.TakeMark("=");
            int start = r.At;
            if (r.Kind == SqlTokenKind.Number || r.SeesMark("-") || r.SeesMark("+"))
            {
                r.Number();
            }
            else if (r.IsString)
            {
                r.Literal();
            }
            else
            {
                r.Label();
            }

            options.Add(new SqlOption(name, r.From(start)));
        }

        return options;
    }
}
