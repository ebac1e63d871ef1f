namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE VIEW.</summary>
/// <param name="View">View.</param>
/// <param name="Replace">OR REPLACE.</param>
/// <param name="Persistence">TEMPORARY or not.</param>
/// <param name="Recursive">RECURSIVE.</param>
/// <param name="Columns">Names that the text gives to the columns; empty where the query names them.</param>
/// <param name="Options">security_barrier and its like.</param>
/// <param name="Query">Query.</param>
/// <param name="CheckOption">local, cascaded; null without WITH CHECK OPTION.</param>
internal sealed record CreateView(
    QualifiedName View, bool Replace, Persistence Persistence, bool Recursive, IReadOnlyList<string> Columns, IReadOnlyList<SqlOption> Options, SqlFragment Query, string? CheckOption)
    : ParsedStatement("CREATE VIEW")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [View];

    internal static CreateView Read(SqlReader r, bool replace, Persistence persistence, bool recursive)
    {
        QualifiedName name = r.Qualified();
        IReadOnlyList<string> columns = r.SeesMark("(") ? r.Names() : [];
        IReadOnlyList<SqlOption> options = SqlOption.ReadOptional(r, "with");
        r.Expect("as");
        string? check = r.TakeLast("with", "local", "check", "option") ? "local"
            : r.TakeLast("with", "cascaded", "check", "option") || r.TakeLast("with", "check", "option") ? "cascaded"
            : null;
        if (r.Word() is not ("select" or "values" or "table" or "with") && !r.SeesMark("("))
        {
            r.Fail();
        }

        return new CreateView(name, replace, persistence, recursive, columns, options, r.Remaining(), check);
    }
}

/// <summary>REFRESH MATERIALIZED VIEW.</summary>
internal sealed record RefreshMaterializedView(QualifiedName View, bool Concurrently, bool WithData) : ParsedStatement("REFRESH MATERIALIZED VIEW")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [View];

    internal static RefreshMaterializedView Read(SqlReader r)
    {
        r.Expect("refresh");
        r.Expect("materialized", "view");
        bool concurrently = r.Take("concurrently");
        QualifiedName name = r.Qualified();
        bool withData = !r.Take("with", "no", "data");
        r.Take("with", "data");
        return new RefreshMaterializedView(name, concurrently, withData);
    }
}
