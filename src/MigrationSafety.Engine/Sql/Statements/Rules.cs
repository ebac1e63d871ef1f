namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE RULE.</summary>
/// <param name="Name">Name.</param>
/// <param name="Replace">OR REPLACE.</param>
/// <param name="Event">select, insert, update, delete.</param>
/// <param name="Table">Table or view.</param>
/// <param name="Condition">WHERE.</param>
/// <param name="Instead">INSTEAD; else ALSO.</param>
/// <param name="Commands">Its commands; NOTHING is none.</param>
internal sealed record CreateRule(string Name, bool Replace, string Event, QualifiedName Table, SqlFragment? Condition, bool Instead, SqlFragment Commands) : ParsedStatement("CREATE RULE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];

    internal static CreateRule Read(SqlReader r, bool replace)
    {
        string name = r.Name();
        r.Expect("as");
        r.Expect("on");
        string on = r.OneOf("select", "insert", "update", "delete");
        r.Expect("to");
        QualifiedName table = r.Qualified();
        SqlFragment? condition = r.Take("where") ? r.Until("do") : null;
        r.Expect("do");
        bool instead = r.TakeOneOf("instead", "also") == "instead";
        SqlFragment commands = r.Take("nothing") ? r.From(r.At) : r.Remaining();
        return new CreateRule(name, replace, on, table, condition, instead, commands);
    }
}
