namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE EXTENSION.</summary>
internal sealed record CreateExtension(string Name, bool IfNotExists, string? Schema, string? Version, bool Cascade) : ParsedStatement("CREATE EXTENSION")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER EXTENSION ... UPDATE.</summary>
internal sealed record UpdateExtension(string Name, string? Version) : ParsedStatement("ALTER EXTENSION")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER EXTENSION ... ADD and DROP of a member.</summary>
internal sealed record AlterExtensionMember(string Name, bool Add, ObjectReference Member) : ParsedStatement("ALTER EXTENSION")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>Parses extensions.</summary>
internal static class ExtensionStatements
{
    internal static CreateExtension ReadCreate(SqlReader r)
    {
        bool ifNotExists = r.TakeIfNotExists();
        string name = r.Name();
        r.Take("with");
        string? schema = null;
        string? version = null;
        bool cascade = false;
        while (!r.AtEnd)
        {
            if (r.Take("schema"))
            {
                schema = r.Name();
            }
            else if (r.Take("version"))
            {
                version = r.StringOrName();
            }
            else if (r.Take("cascade"))
            {
                cascade = true;
            }
            else
            {
                r.Fail();
            }
        }

        return new CreateExtension(name, ifNotExists, schema, version, cascade);
    }

    internal static ParsedStatement? ReadAlter(SqlReader r, ObjectReference name)
    {
        string extension = name.Name.Name;
        if (r.Take("update"))
        {
            return new UpdateExtension(extension, r.Take("to") ? r.StringOrName() : null);
        }

        bool add = r.OneOf("add", "drop") == "add";
        return ObjectKinds.Take(r) is { } kind ? new AlterExtensionMember(extension, add, ObjectReference.Read(r, kind)) : r.Fail<ParsedStatement>();
    }
}
