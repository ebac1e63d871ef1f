using System.Text;

namespace MigrationSafety.Engine.Sql;

/// <summary>The one place that quotes identifiers and literals.</summary>
public static class SqlName
{
    /// <summary>Quotes an identifier, always: <c>order</c> becomes <c>"order"</c>. For SQL that the server alone reads.</summary>
    /// <param name="identifier">Name as it stands in the catalog.</param>
    /// <returns>The quoted name.</returns>
    public static string Quote(string identifier)
    {
        ArgumentException.ThrowIfNullOrEmpty(identifier);
        return identifier.Contains('\0', StringComparison.Ordinal)
            ? throw new ArgumentException("An identifier cannot hold a NUL character.", nameof(identifier))
            : "\"" + identifier.Replace("\"", "\"\"", StringComparison.Ordinal) + "\"";
    }

    /// <summary>Quotes schema and name, and joins them with a dot.</summary>
    /// <param name="schema">Schema.</param>
    /// <param name="name">Name.</param>
    /// <returns><c>"schema"."name"</c>.</returns>
    public static string Quote(string schema, string name) => Quote(schema) + "." + Quote(name);

    /// <summary>Quotes an identifier only where it needs it, as <c>quote_ident()</c> does: for SQL that people read.</summary>
    /// <param name="identifier">Name as it stands in the catalog.</param>
    /// <returns><c>orders</c>, <c>"order"</c>, <c>"Order"</c>.</returns>
    public static string QuoteIfNeeded(string identifier)
    {
        ArgumentException.ThrowIfNullOrEmpty(identifier);
        bool plain = (char.IsAsciiLetterLower(identifier[0]) || identifier[0] == '_')
            && identifier.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '_')
            && !SqlKeywords.NeedsQuotes(identifier);
        return plain ? identifier : Quote(identifier);
    }

    /// <summary>Quotes a text literal so that it is right whatever standard_conforming_strings says.</summary>
    /// <param name="value">Text.</param>
    /// <returns>The literal.</returns>
    public static string Literal(string value)
    {
        ArgumentNullException.ThrowIfNull(value);
        string doubled = value.Replace("'", "''", StringComparison.Ordinal);
        return doubled.Contains('\\', StringComparison.Ordinal)
            ? "E'" + doubled.Replace(@"\", @"\\", StringComparison.Ordinal) + "'"
            : "'" + doubled + "'";
    }

    /// <summary>
    /// Splits a name as a user types it, with PostgreSQL's rules: unquoted parts are folded to lower case, quoted ones are kept.
    /// </summary>
    /// <param name="text"><c>orders</c>, <c>public.orders</c>, <c>"Sales"."Order"</c>.</param>
    /// <returns>Schema (null where there is none) and name.</returns>
    /// <exception cref="MigrationException"><c>InvalidName</c>: not a name, or of more than two parts.</exception>
    public static (string? Schema, string Name) Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        List<string> parts = [];
        StringBuilder part = new();
        int i = 0;
        string trimmed = text.Trim();
        while (true)
        {
            part.Clear();
            if (i < trimmed.Length && trimmed[i] == '"')
            {
                i++;
                while (true)
                {
                    if (i >= trimmed.Length)
                    {
                        throw Invalid(text, "a quotation mark is not closed");
                    }

                    if (trimmed[i] == '"')
                    {
                        i++;
                        if (i >= trimmed.Length || trimmed[i] != '"')
                        {
                            break;
                        }
                    }

                    part.Append(trimmed[i++]);
                }
            }
            else
            {
                while (i < trimmed.Length && trimmed[i] != '.')
                {
                    char c = trimmed[i++];
                    if (!(char.IsLetterOrDigit(c) || c is '_' or '$') || (part.Length == 0 && (char.IsDigit(c) || c == '$')))
                    {
                        throw Invalid(text, $"'{c}' needs quotation marks");
                    }

                    // PostgreSQL folds ASCII letters only, whatever the culture.
                    part.Append(char.IsAscii(c) ? char.ToLowerInvariant(c) : c);
                }
            }

            if (part.Length == 0)
            {
                throw Invalid(text, "a part is empty");
            }

            parts.Add(part.ToString());
            if (i >= trimmed.Length)
            {
                break;
            }

            if (trimmed[i++] != '.')
            {
                throw Invalid(text, "text follows the name");
            }
        }

        return parts.Count switch
        {
            1 => (null, parts[0]),
            2 => (parts[0], parts[1]),
            _ => throw Invalid(text, "it has more than two parts"),
        };
    }

    private static MigrationException Invalid(string text, string why) => new(
        "InvalidName",
        MigrationErrorKind.InvalidInput,
        $"'{text}' is not a name: {why}.",
        "Write it as in SQL: orders, public.orders, or \"Order\" with quotation marks where the name has capitals or other characters.")
    {
        Target = text,
    };
}
