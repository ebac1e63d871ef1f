namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE of things that a list of properties defines: aggregates, operators, base types, collations, text search.</summary>
/// <param name="Kind">Kind.</param>
/// <param name="Replace">OR REPLACE.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
/// <param name="Name">Name.</param>
/// <param name="Arguments">Arguments of an aggregate; null where it is written in the old way.</param>
/// <param name="Options">Properties.</param>
internal sealed record Define(ObjectKind Kind, bool Replace, bool IfNotExists, QualifiedName Name, SqlFragment? Arguments, IReadOnlyList<SqlOption> Options)
    : ParsedStatement("CREATE " + Kind.TagWords())
{
    /// <summary>The collation that a new one is a copy of.</summary>
    internal QualifiedName? From { get; init; }

    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Name];

    internal static Define Read(SqlReader r, ObjectKind kind, bool replace)
    {
        bool ifNotExists = kind == ObjectKind.Collation && r.TakeIfNotExists();
        QualifiedName name = kind switch
        {
            ObjectKind.Operator => r.OperatorName(),
            ObjectKind.Aggregate => r.QualifiedFunction(),
            _ => r.Qualified(),
        };
        if (kind == ObjectKind.Collation && r.Take("from"))
        {
            return new Define(kind, replace, ifNotExists, name, null, []) { From = r.Qualified() };
        }

        SqlFragment? arguments = kind == ObjectKind.Aggregate ? OptionalArguments(r) : null;
        return new Define(kind, replace, ifNotExists, name, arguments, SqlOption.ReadList(r));
    }

    /// <summary>The arguments, where a second pair of parentheses follows them.</summary>
    private static SqlFragment? OptionalArguments(SqlReader r)
    {
        SqlReader ahead = r.Clone();
        ahead.Parenthesized();
        return ahead.SeesMark("(") ? r.Parenthesized() : null;
    }
}
