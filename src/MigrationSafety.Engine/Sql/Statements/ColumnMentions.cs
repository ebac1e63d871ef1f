namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>A name in an expression that may be a column.</summary>
/// <param name="Name">Name.</param>
/// <param name="MayBeKeyword">Whether the word has a meaning in expressions, so that it is a column only if the table has one of that name.</param>
internal readonly record struct ColumnMention(string Name, bool MayBeKeyword);

/// <summary>Finds the columns that an expression mentions: what a CHECK's chosen name depends on.</summary>
internal static class ColumnMentions
{
    // Words without quotation marks that stand in expressions and that PostgreSQL does not reserve.
    private static readonly string[] s_words =
    [
        "at", "zone", "escape", "year", "month", "day", "hour", "minute", "second", "document", "normalized", "nfc", "nfd", "nfkc", "nfkd", "without", "keys", "by",
        "scalar", "object", "value", "unknown", "uescape", "operator", "varying",
    ];

    /// <summary>What an expression mentions, each name once.</summary>
    internal static IReadOnlyList<ColumnMention> In(SqlReader expression)
    {
        List<ColumnMention> mentions = [];
        while (!expression.AtEnd)
        {
            if (expression.TakeMark("::") || expression.Take("as") || expression.Take("collate"))
            {
                // A type or a collation.
                expression.TakeName();
                while (expression.TakeMark("."))
                {
                    expression.TakeName();
                }

                continue;
            }

            bool word = expression.Kind == SqlTokenKind.Word;
            if (expression.TakeName() is not { } name)
            {
                expression.Skip();
                continue;
            }

            bool qualified = false;
            while (expression.TakeMark("."))
            {
                qualified = true;
                name = expression.TakeName() ?? name;
            }

            // A call, or a constant with its type.
            if (expression.SeesMark("(") || expression.Kind is SqlTokenKind.String)
            {
                continue;
            }

            ColumnMention mention = new(name, word && !qualified && (SqlKeywords.NeedsQuotes(name) || Array.IndexOf(s_words, name) >= 0));
            if (!mentions.Exists(m => m.Name == name))
            {
                mentions.Add(mention);
            }
        }

        return mentions;
    }
}
