namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE POLICY.</summary>
/// <param name="Name">Name.</param>
/// <param name="Table">Table.</param>
/// <param name="Restrictive">AS RESTRICTIVE.</param>
/// <param name="Command">all, select, insert, update, delete.</param>
/// <param name="Roles">Roles; empty for PUBLIC.</param>
/// <param name="Using">USING.</param>
/// <param name="Check">WITH CHECK.</param>
internal sealed record CreatePolicy(string Name, QualifiedName Table, bool Restrictive, string Command, IReadOnlyList<string> Roles, SqlFragment? Using, SqlFragment? Check)
    : ParsedStatement("CREATE POLICY")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];

    internal static CreatePolicy Read(SqlReader r)
    {
        string name = r.Name();
        r.Expect("on");
        QualifiedName table = r.Qualified();
        bool restrictive = r.Take("as") && r.Label() == "restrictive";
        string command = r.Take("for") ? r.OneOf("all", "select", "insert", "update", "delete") : "all";
        return new CreatePolicy(
            name,
            table,
            restrictive,
            command,
            r.Take("to") ? r.Roles() : [],
            r.Take("using") ? r.Parenthesized() : null,
            r.Take("with", "check") ? r.Parenthesized() : null);
    }
}

/// <summary>ALTER POLICY: what is null is left as it is.</summary>
internal sealed record AlterPolicy(string Name, QualifiedName Table, IReadOnlyList<string>? Roles, SqlFragment? Using, SqlFragment? Check) : ParsedStatement("ALTER POLICY")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];

    internal static AlterPolicy Read(SqlReader r, ObjectReference name) => new(
        name.Name.Name,
        name.Target,
        r.Take("to") ? r.Roles() : null,
        r.Take("using") ? r.Parenthesized() : null,
        r.Take("with", "check") ? r.Parenthesized() : null);
}
