namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE OPERATOR CLASS.</summary>
internal sealed record CreateOperatorClass(QualifiedName Name, bool Default, TypeName Type, string Method, QualifiedName? Family, IReadOnlyList<SqlFragment> Items)
    : ParsedStatement("CREATE OPERATOR CLASS")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Name];
}

/// <summary>CREATE OPERATOR FAMILY.</summary>
internal sealed record CreateOperatorFamily(QualifiedName Name, string Method) : ParsedStatement("CREATE OPERATOR FAMILY")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Name];
}

/// <summary>ALTER OPERATOR FAMILY ... ADD and DROP.</summary>
internal sealed record AlterOperatorFamily(ObjectReference Family, bool Add, IReadOnlyList<SqlFragment> Items) : ParsedStatement("ALTER OPERATOR FAMILY")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Family.Name];
}

/// <summary>Parses operator classes and families.</summary>
internal static class OperatorClassStatements
{
    internal static CreateOperatorClass ReadCreateClass(SqlReader r)
    {
        QualifiedName name = r.Qualified();
        bool standard = r.Take("default");
        r.Expect("for", "type");
        TypeName type = TypeName.Read(r);
        r.Expect("using");
        string method = r.Name();
        QualifiedName? family = r.Take("family") ? r.Qualified() : null;
        r.Expect("as");
        return new CreateOperatorClass(name, standard, type, method, family, r.List(Item));
    }

    internal static CreateOperatorFamily ReadCreateFamily(SqlReader r)
    {
        QualifiedName name = r.Qualified();
        r.Expect("using");
        return new CreateOperatorFamily(name, r.Name());
    }

    internal static AlterOperatorFamily ReadAlterFamily(SqlReader r, ObjectReference name)
    {
        bool add = r.OneOf("add", "drop") == "add";
        return new AlterOperatorFamily(name, add, r.List(Item));
    }

    /// <summary>OPERATOR 1 &lt; (a, b) ..., FUNCTION 1 (a) f(b), STORAGE type.</summary>
    private static SqlFragment Item(SqlReader r)
    {
        if (!r.Sees("operator") && !r.Sees("function") && !r.Sees("storage"))
        {
            r.Fail();
        }

        return r.Until(",");
    }
}
