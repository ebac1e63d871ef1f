namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE TYPE ... AS ENUM.</summary>
internal sealed record CreateEnum(QualifiedName Type, IReadOnlyList<string> Values) : ParsedStatement("CREATE TYPE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Type];
}

/// <summary>CREATE TYPE ... AS (...).</summary>
internal sealed record CreateComposite(QualifiedName Type, IReadOnlyList<ColumnDefinition> Attributes) : ParsedStatement("CREATE TYPE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Type];
}

/// <summary>CREATE TYPE ... AS RANGE.</summary>
internal sealed record CreateRange(QualifiedName Type, IReadOnlyList<SqlOption> Options) : ParsedStatement("CREATE TYPE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Type];
}

/// <summary>ALTER TYPE ... ADD VALUE.</summary>
/// <param name="Type">Type.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
/// <param name="Value">Value, as SQL.</param>
/// <param name="Neighbour">The value that it is put beside, as SQL; null where it comes last.</param>
/// <param name="Before">BEFORE the neighbour; else AFTER.</param>
internal sealed record AddEnumValue(QualifiedName Type, bool IfNotExists, string Value, string? Neighbour, bool Before) : ParsedStatement("ALTER TYPE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Type];
}

/// <summary>ALTER TYPE ... SET (...), of a base type.</summary>
internal sealed record AlterBaseType(QualifiedName Type, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER TYPE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Type];
}

/// <summary>Parses types.</summary>
internal static class TypeStatements
{
    internal static ParsedStatement? ReadCreate(SqlReader r)
    {
        QualifiedName name = r.Qualified();
        if (!r.Take("as"))
        {
            return new Define(ObjectKind.Type, false, false, name, null, r.SeesMark("(") ? SqlOption.ReadList(r) : []);
        }

        if (r.Take("enum"))
        {
            r.ExpectMark("(");
            IReadOnlyList<string> values = r.SeesMark(")") ? [] : r.List(r => r.Literal());
            r.ExpectMark(")");
            return new CreateEnum(name, values);
        }

        if (r.Take("range"))
        {
            return new CreateRange(name, SqlOption.ReadList(r));
        }

        r.ExpectMark("(");
        IReadOnlyList<ColumnDefinition> attributes = r.SeesMark(")") ? [] : r.List(Attribute);
        r.ExpectMark(")");
        return new CreateComposite(name, attributes);
    }

    internal static ParsedStatement? ReadAlter(SqlReader r, ObjectReference name)
    {
        if (r.Take("add", "value"))
        {
            bool ifNotExists = r.TakeIfNotExists();
            string value = r.Literal();
            string? place = r.TakeOneOf("before", "after");
            return new AddEnumValue(name.Name, ifNotExists, value, place is null ? null : r.Literal(), place == "before");
        }

        if (r.Take("rename", "value"))
        {
            string old = r.Literal();
            r.Expect("to");
            return new RenameObject(name, false, RenamedPart.Value, old, r.Literal());
        }

        if (r.Take("rename", "attribute"))
        {
            string old = r.Name();
            r.Expect("to");
            string renamed = r.Name();
            r.TakeCascade();
            return new RenameObject(name, false, RenamedPart.Attribute, old, renamed);
        }

        if (r.Sees("set"))
        {
            r.Skip();
            return new AlterBaseType(name.Name, SqlOption.ReadList(r));
        }

        return AlterTable.Read(r, ObjectKind.Type, false, false, name.Name);
    }

    private static ColumnDefinition Attribute(SqlReader r)
    {
        string name = r.Name();
        int start = r.At;
        TypeName type = TypeName.Read(r);
        QualifiedName? collation = r.Take("collate") ? r.Qualified() : null;
        return new ColumnDefinition(name, type, r.From(start)) { Collation = collation };
    }
}
