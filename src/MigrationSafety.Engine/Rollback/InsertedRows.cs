using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>The rows of an INSERT whose text gives their primary key.</summary>
internal static class InsertedRows
{
    /// <summary>DELETE of the rows; null where the text does not tell their keys, or ON CONFLICT may have passed them over.</summary>
    /// <param name="insert">INSERT.</param>
    /// <param name="table">Table.</param>
    internal static string? Delete(Insert insert, ResolvedName table)
    {
        if (table.Relation is not { Key: { Count: > 0 } key } || insert.OnConflict is not null || !key.All(insert.Columns.Contains))
        {
            return null;
        }

        int[] places = [.. key.Select(k => insert.Columns.ToList().IndexOf(k))];
        List<string> rows = [];
        SqlReader r = insert.Source.Read();
        if (!r.Take("values"))
        {
            return null;
        }

        do
        {
            IReadOnlyList<SqlReader> values = r.Parenthesized().Read().SplitAtCommas();
            string[] keys = [.. places.Select(p => p < values.Count ? Literal(values[p]) : null).OfType<string>()];
            if (keys.Length != places.Length)
            {
                return null;
            }

            rows.Add(keys.Length == 1 ? keys[0] : $"({string.Join(", ", keys)})");
        }
        while (r.TakeMark(","));
        if (!r.AtEnd || r.Failed)
        {
            return null;
        }

        string columns = key.Count == 1 ? SqlName.QuoteIfNeeded(key[0]) : $"({string.Join(", ", key.Select(SqlName.QuoteIfNeeded))})";
        return $"delete from {table.Name} where {columns} in ({string.Join(", ", rows)})";
    }

    /// <summary>A number or a string; null where the value is an expression.</summary>
    private static string? Literal(SqlReader value)
    {
        string text = value.Rest();
        IReadOnlyList<SqlToken> tokens = SqlLexer.Tokens(text);
        return tokens is [{ Kind: SqlTokenKind.Number or SqlTokenKind.String or SqlTokenKind.EscapeString }]
            || (tokens is [var sign, { Kind: SqlTokenKind.Number }] && sign.Span(text) is "-") ? text : null;
    }
}
