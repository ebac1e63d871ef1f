namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE STATISTICS.</summary>
internal sealed record CreateStatistics(QualifiedName? Name, bool IfNotExists, IReadOnlyList<string> Kinds, IReadOnlyList<SqlFragment> Expressions, QualifiedName Table) : ParsedStatement("CREATE STATISTICS")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];

    internal static CreateStatistics Read(SqlReader r)
    {
        bool ifNotExists = r.TakeIfNotExists();
        QualifiedName? name = r.Sees("on") || r.SeesMark("(") ? null : r.Qualified();
        IReadOnlyList<string> kinds = r.SeesMark("(") ? r.Names() : [];
        r.Expect("on");
        IReadOnlyList<SqlFragment> expressions = r.List(r => r.Until(",", "from"));
        r.Expect("from");
        return new CreateStatistics(name, ifNotExists, kinds, expressions, r.Relation());
    }
}

/// <summary>ALTER STATISTICS ... SET STATISTICS.</summary>
internal sealed record AlterStatistics(QualifiedName Name, bool IfExists, string Target) : ParsedStatement("ALTER STATISTICS")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Name];

    internal static AlterStatistics Read(SqlReader r, ObjectReference name, bool ifExists)
    {
        r.Expect("set", "statistics");
        return new AlterStatistics(name.Name, ifExists, r.Take("default") ? "default" : r.Number());
    }
}

/// <summary>CREATE CAST.</summary>
/// <param name="Cast">Source and target type.</param>
/// <param name="Function">Function; null with WITHOUT FUNCTION and WITH INOUT.</param>
/// <param name="Context">assignment, implicit; null where neither is said.</param>
internal sealed record CreateCast(ObjectReference Cast, SqlFragment? Function, string? Context) : ParsedStatement("CREATE CAST")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Cast.Name];

    internal static CreateCast Read(SqlReader r)
    {
        ObjectReference cast = ObjectReference.Read(r, ObjectKind.Cast);
        SqlFragment? function = null;
        if (r.Take("with", "function"))
        {
            int start = r.At;
            ObjectReference.Read(r, ObjectKind.Function);
            function = r.From(start);
        }
        else if (!r.Take("without", "function"))
        {
            r.Expect("with", "inout");
        }

        return new CreateCast(cast, function, r.Take("as") ? r.OneOf("assignment", "implicit") : null);
    }
}

/// <summary>CREATE CONVERSION.</summary>
internal sealed record CreateConversion(QualifiedName Name, bool Default, string Source, string Destination, QualifiedName Function) : ParsedStatement("CREATE CONVERSION")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Name];

    internal static CreateConversion Read(SqlReader r, bool standard)
    {
        QualifiedName name = r.Qualified();
        r.Expect("for");
        string source = r.Literal();
        r.Expect("to");
        string destination = r.Literal();
        r.Expect("from");
        return new CreateConversion(name, standard, source, destination, r.Qualified());
    }
}

/// <summary>CREATE TRANSFORM.</summary>
internal sealed record CreateTransform(bool Replace, ObjectReference Transform, SqlFragment Functions) : ParsedStatement("CREATE TRANSFORM")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Transform.Name];

    internal static CreateTransform Read(SqlReader r, bool replace) => new(replace, ObjectReference.Read(r, ObjectKind.Transform), r.Parenthesized());
}

/// <summary>CREATE LANGUAGE.</summary>
internal sealed record CreateLanguage(string Name, bool Replace, bool Trusted, SqlFragment Functions) : ParsedStatement("CREATE LANGUAGE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];

    internal static ParsedStatement Read(SqlReader r, bool replace, bool trusted)
    {
        string name = r.StringOrName();
        if (r.AtEnd)
        {
            // Without handler it makes an extension.
            return new CreateExtension(name.Trim('\''), replace, null, null, false);
        }

        int start = r.At;
        while (!r.AtEnd)
        {
            if (r.Take("no"))
            {
                r.Expect("validator");
            }
            else
            {
                r.OneOf("handler", "inline", "validator");
                r.Qualified();
            }
        }

        return new CreateLanguage(name.Trim('\''), replace, trusted, r.From(start));
    }
}

/// <summary>CREATE ACCESS METHOD.</summary>
internal sealed record CreateAccessMethod(string Name, string Type, QualifiedName Handler) : ParsedStatement("CREATE ACCESS METHOD")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];

    internal static CreateAccessMethod Read(SqlReader r)
    {
        string name = r.Name();
        r.Expect("type");
        string type = r.OneOf("index", "table");
        r.Expect("handler");
        return new CreateAccessMethod(name, type, r.Qualified());
    }
}

/// <summary>ALTER TEXT SEARCH DICTIONARY (...).</summary>
internal sealed record AlterTextSearchDictionary(QualifiedName Name, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER TEXT SEARCH DICTIONARY")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Name];
}

/// <summary>ALTER TEXT SEARCH CONFIGURATION ... ADD, ALTER, DROP MAPPING.</summary>
/// <param name="Name">Configuration.</param>
/// <param name="Action">add, alter, drop.</param>
/// <param name="Mapping">What follows MAPPING.</param>
internal sealed record AlterTextSearchConfiguration(QualifiedName Name, string Action, SqlFragment Mapping) : ParsedStatement("ALTER TEXT SEARCH CONFIGURATION")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Name];
}

/// <summary>Parses ALTER of text search.</summary>
internal static class TextSearchStatements
{
    internal static ParsedStatement ReadAlter(SqlReader r, ObjectReference name)
    {
        if (name.Kind == ObjectKind.TextSearchDictionary)
        {
            return new AlterTextSearchDictionary(name.Name, SqlOption.ReadList(r));
        }

        string action = r.OneOf("add", "alter", "drop");
        r.Expect("mapping");
        return new AlterTextSearchConfiguration(name.Name, action, r.Remaining());
    }
}
