using System.Data.Common;
using System.Text;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>
/// A connection text, read into libpq's keywords: libpq's own key=value strings, URIs, and Npgsql's <c>Key=Value;...</c> strings. No message of it holds
/// a value, because any may be a misplaced piece of a password.
/// </summary>
internal sealed class ConnectionText
{
    private const string Advice =
        "Write host=db1 dbname=shop user=deploy (values with spaces in single quotes), Host=db1;Database=shop;Username=deploy, "
        + "postgresql://deploy@db1:5432/shop (special characters percent-encoded), or service=NAME.";

    private ConnectionText(Dictionary<string, string> values, Dictionary<string, string>? npgsqlOnly = null)
    {
        Values = values;
        NpgsqlOnly = npgsqlOnly ?? [];
    }

    /// <summary>By libpq's keyword.</summary>
    internal IReadOnlyDictionary<string, string> Values { get; }

    /// <summary>What only Npgsql has a word for.</summary>
    internal IReadOnlyDictionary<string, string> NpgsqlOnly { get; }

    /// <summary>Reads a text.</summary>
    /// <param name="text">Text.</param>
    /// <exception cref="MigrationException"><c>ConnectionTextInvalid</c>, <c>ConnectionKeyUnknown</c>.</exception>
    internal static ConnectionText Parse(string text)
    {
        if (ConnectionUri.Matches(text))
        {
            return new(ConnectionUri.Parse(text));
        }

        (List<Pair> pairs, string? flaw) = Tokenize(text);
        return LooksLikeNpgsql(text, pairs, flaw) ? ParseNpgsql(text)
            : flaw is not null ? throw Invalid(flaw)
            : new(ParseLibpq(pairs));
    }

    internal static MigrationException Invalid(string why, Exception? cause = null) =>
        new("ConnectionTextInvalid", MigrationErrorKind.InvalidInput, $"The connection text cannot be read: {why}.", Advice, cause);

    internal static MigrationException UnknownKey(string key, string where) => new(
        "ConnectionKeyUnknown",
        MigrationErrorKind.InvalidInput,
        $"'{key}' in {where} is no keyword of a PostgreSQL connection.",
        "Check the spelling; the manual lists the keywords under \"Parameter Key Words\". " + Advice)
    {
        Target = key,
    };

    private static Dictionary<string, string> ParseLibpq(List<Pair> pairs)
    {
        Dictionary<string, string> values = new(StringComparer.Ordinal);
        Pair? before = null;
        foreach (Pair pair in pairs)
        {
            if (!ConnectionKeywords.IsLibpq(pair.Key))
            {
                // A password with a space in it and no quotes: what follows the space is not to be shown.
                throw before is { Quoted: false } && IsSecret(before.Key)
                    ? Invalid($"what follows '{before.Key}=' is no keyword; a value with spaces needs single quotes")
                    : UnknownKey(pair.Key, "the connection text");
            }

            // As libpq does, the last one holds.
            values[pair.Key] = pair.Value;
            before = pair;
        }

        return values;
    }

    /// <summary>
    /// Semicolons between known words, or a first word that only Npgsql has, mean Npgsql's dialect. A semicolon inside a libpq value is possible
    /// (a password) and stays one, unless it stands before a word that is followed by an equals sign.
    /// </summary>
    private static bool LooksLikeNpgsql(string text, List<Pair> pairs, string? flaw)
    {
        string first = text[..Math.Max(text.IndexOf('=', StringComparison.Ordinal), 0)].Trim();
        if (first.Length == 0 || (pairs.Count > 1 && flaw is null && pairs.All(p => ConnectionKeywords.IsLibpq(p.Key) && !p.Value.EndsWith(';'))))
        {
            return false;
        }

        return (!ConnectionKeywords.IsLibpq(first) && NpgsqlWord(first) is not null)
            || text.Split(';').Skip(1).Any(s => s.IndexOf('=', StringComparison.Ordinal) is > 0 and int i && NpgsqlWord(s[..i].Trim()) is not null)
            || (pairs.Count == 1 && text.TrimEnd().EndsWith(';'));
    }

    private static ConnectionText ParseNpgsql(string text)
    {
        DbConnectionStringBuilder reader = [];
        try
        {
            reader.ConnectionString = text;
        }
        catch (ArgumentException e)
        {
            // The reader's message quotes nothing but a position; ours leaves that out too.
            throw Invalid("a value is not quoted as it should be, or a part has no '='", e);
        }

        Dictionary<string, string> values = new(StringComparer.Ordinal);
        Dictionary<string, string> npgsqlOnly = new(StringComparer.Ordinal);
        bool afterSecret = false;
        foreach (string key in reader.Keys!)
        {
            string value = (string)reader[key];
            switch (NpgsqlWord(key))
            {
                case null:
                    throw afterSecret
                        ? Invalid("what follows the password is no keyword; a value with a semicolon needs quotation marks")
                        : UnknownKey(key, "the connection text");
                case { } word when ConnectionKeywords.IsLibpq(word):
                    values[word] = value;
                    afterSecret = IsSecret(word);
                    continue;
                default:
                    npgsqlOnly[key] = value;
                    break;
            }

            afterSecret = false;
        }

        SplitPorts(values);
        return new(values, npgsqlOnly);
    }

    /// <summary>Npgsql takes <c>Host=db1:5433,db2</c> and <c>[::1]:5432</c>; libpq has the ports in a list of their own.</summary>
    private static void SplitPorts(Dictionary<string, string> values)
    {
        if (!values.TryGetValue("host", out string? hosts))
        {
            return;
        }

        List<string> names = [];
        List<string> ports = [];
        foreach (string entry in hosts.Split(',', StringSplitOptions.TrimEntries))
        {
            int colon = entry.LastIndexOf(':');
            bool hasPort = colon >= 0 && !Path.IsPathRooted(entry) && (entry.IndexOf(':', StringComparison.Ordinal) == colon || entry[..colon].EndsWith(']'));
            names.Add((hasPort ? entry[..colon] : entry).TrimStart('[').TrimEnd(']'));
            ports.Add(hasPort ? entry[(colon + 1)..] : string.Empty);
        }

        values["host"] = string.Join(',', names);
        if (ports.Exists(p => p.Length > 0))
        {
            string other = values.GetValueOrDefault("port", string.Empty);
            values["port"] = string.Join(',', ports.Select(p => p.Length > 0 ? p : other));
        }
    }

    /// <summary>libpq's keyword for a word in Npgsql's dialect, the word itself where only Npgsql has it, null where nobody has.</summary>
    private static string? NpgsqlWord(string key)
    {
        string plain = key.Trim().ToLowerInvariant();
        string squeezed = plain.Replace(" ", string.Empty, StringComparison.Ordinal);
        if (ConnectionKeywords.IsLibpq(plain) || ConnectionKeywords.IsLibpq(squeezed))
        {
            return ConnectionKeywords.IsLibpq(plain) ? plain : squeezed;
        }

        if (ConnectionKeywords.OfNpgsql.TryGetValue(squeezed, out string? keyword))
        {
            return keyword;
        }

        try
        {
            _ = new NpgsqlConnectionStringBuilder()[plain];
            return plain;
        }
        catch (ArgumentException)
        {
            // That is how Npgsql says that it does not know the word.
            return null;
        }
    }

    private static bool IsSecret(string key) => key is "password" or "sslpassword";

    /// <summary>libpq's own grammar (conninfo_parse): blanks around '=' are allowed, backslash escapes everywhere in a value, single quotes around one.</summary>
    private static (List<Pair> Pairs, string? Flaw) Tokenize(string text)
    {
        List<Pair> pairs = [];
        StringBuilder value = new();
        int i = 0;
        while (true)
        {
            SkipBlanks();
            if (i >= text.Length)
            {
                return (pairs, null);
            }

            int start = i;
            while (i < text.Length && text[i] != '=' && !char.IsWhiteSpace(text[i]))
            {
                i++;
            }

            string key = text[start..i];
            SkipBlanks();
            if (i >= text.Length || text[i] != '=')
            {
                return (pairs, pairs.Count == 0 ? "a keyword has no '='" : $"after the value of '{pairs[^1].Key}', a keyword has no '='");
            }

            i++;
            SkipBlanks();
            bool quoted = i < text.Length && text[i] == '\'';
            if (quoted)
            {
                i++;
            }

            value.Clear();
            while (i < text.Length && (quoted ? text[i] != '\'' : !char.IsWhiteSpace(text[i])))
            {
                if (text[i] == '\\' && ++i >= text.Length)
                {
                    break;
                }

                value.Append(text[i++]);
            }

            if (quoted && i++ >= text.Length)
            {
                return (pairs, $"the single quote after '{key}=' is not closed");
            }

            pairs.Add(new(key, value.ToString(), quoted));
        }

        void SkipBlanks()
        {
            while (i < text.Length && char.IsWhiteSpace(text[i]))
            {
                i++;
            }
        }
    }

    private sealed record Pair(string Key, string Value, bool Quoted);
}
