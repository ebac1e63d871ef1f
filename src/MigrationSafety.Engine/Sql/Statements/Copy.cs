namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>COPY.</summary>
/// <param name="Table">Table; null where a query is copied.</param>
/// <param name="Columns">Columns; empty for all.</param>
/// <param name="Query">Query.</param>
/// <param name="From">FROM; else TO.</param>
/// <param name="Place">STDIN, STDOUT, a file, PROGRAM and its command.</param>
/// <param name="Rest">Options and WHERE.</param>
internal sealed record Copy(QualifiedName? Table, IReadOnlyList<string> Columns, SqlFragment? Query, bool From, SqlFragment Place, SqlFragment Rest) : ParsedStatement("COPY")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => Table is null ? [] : [Table];

    internal static Copy Read(SqlReader r)
    {
        r.Expect("copy");
        QualifiedName? table = null;
        SqlFragment? query = null;
        IReadOnlyList<string> columns = [];
        if (r.SeesMark("("))
        {
            query = r.Parenthesized();
        }
        else
        {
            r.Take("binary");
            table = r.Qualified();
            columns = r.SeesMark("(") ? r.Names() : [];
        }

        bool from = r.OneOf("from", "to") == "from";
        int start = r.At;
        r.Take("program");
        if (r.TakeOneOf("stdin", "stdout") is null)
        {
            r.Literal();
        }

        SqlFragment place = r.From(start);
        return new Copy(table, columns, query, from, place, r.AtEnd ? r.From(r.At) : r.Remaining());
    }
}
