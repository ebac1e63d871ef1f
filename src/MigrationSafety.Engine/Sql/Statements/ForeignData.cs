namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE FOREIGN DATA WRAPPER.</summary>
/// <param name="Name">Name.</param>
/// <param name="Functions">HANDLER and VALIDATOR as they stand.</param>
/// <param name="Options">OPTIONS.</param>
internal sealed record CreateForeignDataWrapper(string Name, SqlFragment Functions, IReadOnlyList<SqlOption> Options) : ParsedStatement("CREATE FOREIGN DATA WRAPPER")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER FOREIGN DATA WRAPPER.</summary>
internal sealed record AlterForeignDataWrapper(string Name, SqlFragment Functions, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER FOREIGN DATA WRAPPER")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>CREATE SERVER.</summary>
internal sealed record CreateServer(string Name, bool IfNotExists, string? Type, string? Version, string Wrapper, IReadOnlyList<SqlOption> Options) : ParsedStatement("CREATE SERVER")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER SERVER.</summary>
internal sealed record AlterServer(string Name, string? Version, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER SERVER")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>CREATE USER MAPPING and ALTER USER MAPPING.</summary>
internal sealed record UserMapping(bool Create, bool IfNotExists, ObjectReference Mapping, IReadOnlyList<SqlOption> Options) : ParsedStatement(Create ? "CREATE USER MAPPING" : "ALTER USER MAPPING")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Mapping.Name];
}

/// <summary>IMPORT FOREIGN SCHEMA.</summary>
/// <param name="RemoteSchema">Schema there.</param>
/// <param name="Only">LIMIT TO (true), EXCEPT (false), neither (null).</param>
/// <param name="Tables">Tables of LIMIT TO and EXCEPT.</param>
/// <param name="Server">Server.</param>
/// <param name="LocalSchema">Schema here.</param>
/// <param name="Options">OPTIONS.</param>
internal sealed record ImportForeignSchema(string RemoteSchema, bool? Only, IReadOnlyList<QualifiedName> Tables, string Server, string LocalSchema, IReadOnlyList<SqlOption> Options)
    : ParsedStatement("IMPORT FOREIGN SCHEMA")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, LocalSchema)];

    internal static ImportForeignSchema Read(SqlReader r)
    {
        r.Expect("import", "foreign");
        r.Expect("schema");
        string remote = r.Name();
        bool? only = r.Take("limit", "to") ? true : r.Take("except") ? false : null;
        IReadOnlyList<QualifiedName> tables = only is null ? [] : r.ParenthesizedList(r => r.Relation());
        r.Expect("from", "server");
        string server = r.Name();
        r.Expect("into");
        return new ImportForeignSchema(remote, only, tables, server, r.Name(), SqlOption.ReadForeign(r));
    }
}

/// <summary>Parses foreign data.</summary>
internal static class ForeignStatements
{
    internal static CreateForeignDataWrapper ReadCreateWrapper(SqlReader r) => new(r.Name(), Functions(r), SqlOption.ReadForeign(r));

    internal static CreateServer ReadCreateServer(SqlReader r)
    {
        bool ifNotExists = r.TakeIfNotExists();
        string name = r.Name();
        string? type = r.Take("type") ? r.Literal() : null;
        string? version = Version(r);
        r.Expect("foreign", "data");
        r.Expect("wrapper");
        return new CreateServer(name, ifNotExists, type, version, r.Name(), SqlOption.ReadForeign(r));
    }

    internal static UserMapping ReadCreateMapping(SqlReader r)
    {
        bool ifNotExists = r.TakeIfNotExists();
        return new UserMapping(true, ifNotExists, ObjectReference.Read(r, ObjectKind.UserMapping), SqlOption.ReadForeign(r));
    }

    internal static ParsedStatement? ReadAlter(SqlReader r, ObjectKind kind, ObjectReference? name = null) => kind switch
    {
        ObjectKind.UserMapping => new UserMapping(false, false, ObjectReference.Read(r, kind), SqlOption.ReadForeign(r)),
        ObjectKind.Server => new AlterServer(name!.Name.Name, Version(r), SqlOption.ReadForeign(r)),
        _ => new AlterForeignDataWrapper(name!.Name.Name, Functions(r), SqlOption.ReadForeign(r)),
    };

    private static string? Version(SqlReader r) => !r.Take("version") ? null : r.Take("null") ? "null" : r.Literal();

    private static SqlFragment Functions(SqlReader r)
    {
        int start = r.At;
        while (true)
        {
            if (r.Take("no"))
            {
                r.OneOf("handler", "validator");
            }
            else if (r.TakeOneOf("handler", "validator") is not null)
            {
                r.Qualified();
            }
            else
            {
                return r.From(start);
            }
        }
    }
}
