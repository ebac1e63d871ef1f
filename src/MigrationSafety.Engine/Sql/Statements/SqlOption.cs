namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>What an OPTIONS list does with an option; lists of other kinds set them all.</summary>
internal enum OptionAction
{
    /// <summary>Sets it; in ALTER, one that is there.</summary>
    Set,

    /// <summary>Adds it.</summary>
    Add,

    /// <summary>Drops it.</summary>
    Drop,
}

/// <summary>A named option: a storage parameter, a property of a role, an element of a definition.</summary>
/// <param name="Name">Name, as the catalog would hold it; of several words, with spaces between them.</param>
/// <param name="Value">Value, as SQL; empty where it has none.</param>
/// <param name="Action">What is done with it.</param>
internal sealed record SqlOption(string Name, SqlFragment Value, OptionAction Action = OptionAction.Set)
{
    /// <summary>Whether an option without a value, or with a value that means yes, is set.</summary>
    internal static bool IsOn(IEnumerable<SqlOption> options, string name) =>
        options.Any(o => o.Name == name && o.Value.Text.Trim('\'').ToUpperInvariant() is "" or "TRUE" or "ON" or "1" or "YES");

    /// <summary>WITH lists, storage parameters, definitions: <c>(name = value, other, toast.name = value)</c>.</summary>
    internal static IReadOnlyList<SqlOption> ReadList(SqlReader r) => r.ParenthesizedList(Read);

    /// <summary>The same where WITH or another word announces it; empty where it is not next.</summary>
    internal static IReadOnlyList<SqlOption> ReadOptional(SqlReader r, string word)
    {
        if (!r.Sees(word))
        {
            return [];
        }

        SqlReader ahead = r.Clone();
        ahead.Skip();
        if (!ahead.SeesMark("("))
        {
            return [];
        }

        r.Skip();
        return ReadList(r);
    }

    /// <summary>OPTIONS (ADD name 'value', ...) of foreign data; empty where it is not next.</summary>
    internal static IReadOnlyList<SqlOption> ReadForeign(SqlReader r)
    {
        return r.Take("options") ? r.ParenthesizedList(One) : [];

        static SqlOption One(SqlReader r)
        {
            // "add", "set" and "drop" may be names too: then a string follows at once.
            SqlReader ahead = r.Clone();
            ahead.Skip();
            OptionAction action = ahead.IsString ? OptionAction.Set
                : r.Take("add") ? OptionAction.Add
                : r.Take("drop") ? OptionAction.Drop
                : r.Take("set") ? OptionAction.Set
                : OptionAction.Set;
            string name = r.Label();
            int start = r.At;
            if (action != OptionAction.Drop)
            {
                r.Literal();
            }

            return new SqlOption(name, r.From(start), action);
        }
    }

    private static SqlOption Read(SqlReader r)
    {
        string name = r.IsString ? r.Literal() : r.Label();
        if (r.TakeMark("."))
        {
            name += "." + r.Label();
        }

        bool sign = r.TakeMark("=");
        int start = r.At;
        SqlFragment value = r.SeesMark(",") || r.SeesMark(")") ? r.From(start) : r.Until(",");
        if (sign && value.IsEmpty)
        {
            r.Fail();
        }

        return new SqlOption(name, value);
    }
}
