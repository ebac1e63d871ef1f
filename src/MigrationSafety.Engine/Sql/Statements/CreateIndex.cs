namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE INDEX.</summary>
/// <param name="Unique">UNIQUE.</param>
/// <param name="Concurrently">CONCURRENTLY.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
/// <param name="Name">Name; null where PostgreSQL chooses it.</param>
/// <param name="Only">ONLY: a partitioned table's own index, without its partitions'.</param>
/// <param name="Table">Table.</param>
/// <param name="ElementNames">What each column or expression, INCLUDE's too, brings into the name that PostgreSQL would choose.</param>
internal sealed record CreateIndex(
    bool Unique,
    bool Concurrently,
    bool IfNotExists,
    string? Name,
    bool Only,
    QualifiedName Table,
    IReadOnlyList<string> ElementNames) : ParsedStatement("CREATE INDEX")
{
    /// <summary>Parses it; null where the statement is another one or is not understood.</summary>
    internal static CreateIndex? TryParse(SqlReader reader)
    {
        if (!reader.Take("create"))
        {
            return null;
        }

        bool unique = reader.Take("unique");
        if (!reader.Take("index"))
        {
            return null;
        }

        bool concurrently = reader.Take("concurrently");
        bool ifNotExists = reader.Take("if", "not", "exists");
        string? name = reader.Sees("on") ? null : reader.TakeName();
        if (!reader.Take("on") || (ifNotExists && name is null) || reader.TakeRelation() is not { } relation)
        {
            return null;
        }

        if (reader.Take("using"))
        {
            reader.Skip();
        }

        if (reader.TakeParentheses() is not { } elements)
        {
            return null;
        }

        List<string> names = [.. elements.SplitAtCommas().Select(ElementName.Of)];
        if (reader.Take("include"))
        {
            if (reader.TakeParentheses() is not { } included)
            {
                return null;
            }

            names.AddRange(included.SplitAtCommas().Select(ElementName.Of));
        }

        return new CreateIndex(unique, concurrently, ifNotExists, name, relation.Only, relation.Name, names);
    }
}
