using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>The search_path that a script sets for itself.</summary>
/// <param name="Schemas">Its schemas, in order; empty where they cannot be told.</param>
internal sealed record ScriptPath(IReadOnlyList<string> Schemas)
{
    /// <summary>For each statement, the path that the script has set before it; null where it has set none.</summary>
    internal static IReadOnlyList<ScriptPath?> Follow(SqlScript script)
    {
        List<ScriptPath?> paths = [];
        ScriptPath? session = null;
        ScriptPath? local = null;
        foreach (SqlStatement statement in script.Statements)
        {
            paths.Add(local ?? session);
            if (statement.Control is TransactionControl.Commit or TransactionControl.Rollback)
            {
                local = null;
            }
            else if (statement.Kind == SqlStatementKind.Sql && TrySet(statement, out ScriptPath? set, out bool isLocal))
            {
                (session, local) = isLocal ? (session, set) : (set, null);
            }
        }

        return paths;
    }

    private static bool TrySet(SqlStatement statement, out ScriptPath? path, out bool local)
    {
        path = null;
        local = statement.Is(1, "local");
        SqlReader reader = new(statement);
        if (reader.Take("reset"))
        {
            return reader.Sees("search_path") || reader.Sees("all");
        }

        if (reader.Take("select"))
        {
            // pg_dump and others: select pg_catalog.set_config('search_path', ...). The value may be any expression.
            path = new ScriptPath([]);
            return statement.Text.Contains("set_config", StringComparison.OrdinalIgnoreCase) && statement.Text.Contains("search_path", StringComparison.OrdinalIgnoreCase);
        }

        if (!reader.Take("set"))
        {
            return false;
        }

        _ = reader.Take("local") || reader.Take("session");
        bool schema = reader.Take("schema");
        if (!schema && !(reader.Take("search_path") && (reader.Take("to") || reader.TakeMark("="))))
        {
            return false;
        }

        if (reader.Sees("default"))
        {
            return true;
        }

        List<string> schemas = [];
        foreach (SqlReader part in reader.SplitAtCommas())
        {
            string? name = part.Kind == SqlTokenKind.String ? part.Rest()[1..^1].Replace("''", "'", StringComparison.Ordinal) : part.TakeName();

            // "$user" depends on who runs the script.
            if (name is null or "$user")
            {
                path = new ScriptPath([]);
                return true;
            }

            if (name.Length > 0)
            {
                schemas.Add(name);
            }
        }

        path = new ScriptPath(schemas);
        return true;
    }
}
