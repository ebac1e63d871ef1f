namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>The command of a statement in PostgreSQL's words (manual, "Event Trigger Firing Matrix" and the command tags of libpq).</summary>
internal static class CommandTag
{
    private static readonly string[] s_modifiers =
    [
        "or", "replace", "global", "local", "temp", "temporary", "unlogged", "unique", "recursive", "trusted", "procedural",
    ];

    private static readonly string[] s_twoWords =
    [
        "materialized", "foreign", "event", "operator", "access", "user", "default", "text", "constraint",
    ];

    /// <summary>The command tag; the first word in capitals where none is known; empty for what does not begin with a word.</summary>
    internal static string Of(SqlStatement s)
    {
        string first = Word(s, 0);
        switch (first)
        {
            case "CREATE" or "ALTER" or "DROP":
                return WithObject(s, first, 1);
            case "REFRESH":
                return "REFRESH MATERIALIZED VIEW";
            case "TRUNCATE":
                return "TRUNCATE TABLE";
            case "LOCK":
                return "LOCK TABLE";
            case "ANALYSE":
                return "ANALYZE";
            case "SET" when s.Is(1, "constraints"):
                return "SET CONSTRAINTS";
            case "SECURITY":
                return "SECURITY LABEL";
            case "IMPORT":
                return "IMPORT FOREIGN SCHEMA";
            case "REASSIGN":
                return "REASSIGN OWNED";
            case "WITH":
                return OfWith(s);
            default:
                return first;
        }
    }

    private static string WithObject(SqlStatement s, string verb, int at)
    {
        while (s_modifiers.Any(m => s.Is(at, m)))
        {
            at++;
        }

        string tag = verb + " " + Word(s, at);
        if (s.Is(at, "text", "search"))
        {
            return tag + " SEARCH " + Word(s, at + 2);
        }

        // CREATE CONSTRAINT TRIGGER has the tag CREATE TRIGGER; CREATE DEFAULT CONVERSION that of CREATE CONVERSION.
        if (s.Is(at, "constraint", "trigger") || s.Is(at, "default", "conversion"))
        {
            return verb + " " + Word(s, at + 1);
        }

        if (s.Is(at, "foreign", "data"))
        {
            return tag + " DATA WRAPPER";
        }

        bool two = s_twoWords.Any(m => s.Is(at, m)) && (!s.Is(at, "operator") || s.Is(at + 1, "class") || s.Is(at + 1, "family")) && (!s.Is(at, "user") || s.Is(at + 1, "mapping"));
        return (two ? tag + " " + Word(s, at + 1) : tag).TrimEnd();
    }

    /// <summary>The verb of the main statement; of a writing one inside WITH, that one, because it decides what is lost.</summary>
    private static string OfWith(SqlStatement s)
    {
        string tag = "WITH";
        int depth = 0;
        for (int i = 1; i < s.Tokens.Length; i++)
        {
            depth += s.IsMark(i, "(") ? 1 : s.IsMark(i, ")") ? -1 : 0;
            string word = Word(s, i);
            if (word is "INSERT" or "UPDATE" or "DELETE" or "MERGE" && (depth == 0 || s.IsMark(i - 1, "(")))
            {
                return word;
            }

            if (word == "SELECT" && depth == 0)
            {
                tag = "SELECT";
            }
        }

        return tag;
    }

    private static string Word(SqlStatement s, int at) =>
        at < s.Tokens.Length && s.Tokens[at].Kind == SqlTokenKind.Word ? s.Tokens[at].Span(s.Script).ToString().ToUpperInvariant() : "";
}
