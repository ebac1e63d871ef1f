using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes a DO block back that only runs statements of SQL, as migration tools write them around what has no IF NOT EXISTS.</summary>
internal static class DoReversal
{
    // What a condition may call: it is asked as it stands, in a transaction that reads only.
    private static readonly HashSet<string> s_callable = new(StringComparer.Ordinal)
    {
        "exists", "in", "any", "all", "and", "or", "not", "where", "select", "on", "count", "coalesce", "lower", "upper", "to_regclass", "to_regtype", "to_regnamespace", "to_regproc",
        "to_regprocedure", "to_regrole", "current_schema", "current_database", "current_schemas", "format_type", "quote_ident", "array", "array_agg", "pg_get_constraintdef", "pg_get_expr",
        "pg_get_indexdef", "obj_description", "col_description", "name", "text",
    };

    private static readonly HashSet<string> s_verbs = new(StringComparer.Ordinal)
    {
        "create", "alter", "drop", "insert", "update", "delete", "merge", "truncate", "grant", "revoke", "comment", "execute", "perform", "call", "select", "copy",
    };

    /// <summary>The reversal.</summary>
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, DoBlock block)
    {
        // Several statements whose errors are passed over all stay undone when one fails: which is not in the text.
        if (DoBody.Read(block) is not { } body || (body.Passed.Count > 0 && (body.Condition is not null || body.Statements.Count > 1 || !PassesOver(body))))
        {
            return [r.Forward.Unknown($"DO: what its code does cannot be told from the text{Holds(block)}. Write its reversal by hand.")];
        }

        bool optional = body.Passed.Count > 0;
        if (body.Condition is { } condition)
        {
            if (!AsksCatalog(r, condition) || Touched(r, condition) || (r.Forward.Path is { Schemas.Count: 0 } && DependsOnPath(condition)))
            {
                return [r.Forward.Unknown($"DO: whether \"{RollbackText.OneLine(condition.Text, 80)}\" holds when the migration runs cannot be told beforehand{Holds(block)}. Write its reversal by hand.")];
            }

            if (r.Catalog is null)
            {
                optional = true;
            }
            else
            {
                switch (await r.Catalog.HoldsAsync(condition.Text, r.Forward.Path, r.CancellationToken).ConfigureAwait(false))
                {
                    case null:
                        return [r.Forward.Unknown($"DO: \"{RollbackText.OneLine(condition.Text, 80)}\" could not be asked of {r.Catalog.Facts.Database}{Holds(block)}. Write its reversal by hand.")];
                    case false:
                        return [r.Forward.NotNeeded($"In {r.Catalog.Facts.Database} its condition does not hold: the block does nothing there, and what it asks for must stay. (If the migration has run already, it may be its own.)")];
                }
            }
        }

        List<RollbackStatement> result = [];
        foreach (SqlStatement inner in body.Statements)
        {
            List<RollbackStatement> reversal = await RollbackPlanner.ReverseAsync(r with { Forward = r.Forward with { Statement = inner }, Optional = optional }).ConfigureAwait(false);
            result.InsertRange(0, reversal.Select(s => s with { Statement = r.Forward.Statement.Text, Line = r.Forward.Statement.Line }));
        }

        return result;
    }

    /// <summary>Whether all that is passed over is that the thing is there, or is gone, already.</summary>
    private static bool PassesOver(DoBody body) => StatementParser.Parse(body.Statements[0]) switch
    {
        DropObjects => body.Passed.All(e => e.StartsWith("undefined_", StringComparison.Ordinal) || e is "invalid_schema_name" or "others"),
        AlterTable { Actions: [AddColumn or AddConstraint] } or CreateIndex or MakesTable or AddEnumValue => Duplicates(body),
        { Tag: { } tag } => tag.StartsWith("CREATE ", StringComparison.Ordinal) && Duplicates(body),
    };

    private static bool Duplicates(DoBody body) => body.Passed.All(e => e.StartsWith("duplicate_", StringComparison.Ordinal) || e is "unique_violation" or "others" or "invalid_table_definition");

    /// <summary>Whether a condition asks the system's catalogs alone.</summary>
    private static bool AsksCatalog(Reversing r, SqlFragment condition)
    {
        if (QueryReversal.CallsBesides(r, condition, s_callable).Any())
        {
            return false;
        }

        SqlReader reader = condition.Read();
        string last = "";
        while (!reader.AtEnd)
        {
            if (last is "from" or "join" && !reader.Word().StartsWith("pg_", StringComparison.Ordinal) && reader.Word() is not ("information_schema" or "only"))
            {
                return false;
            }

            last = reader.Word();
            reader.Skip();
        }

        return true;
    }

    /// <summary>Whether the answer hangs on the search_path.</summary>
    private static bool DependsOnPath(SqlFragment condition)
    {
        SqlReader r = condition.Read();
        while (!r.AtEnd)
        {
            string word = r.Word();
            if (word.StartsWith("to_reg", StringComparison.Ordinal) || word.StartsWith("pg_get_", StringComparison.Ordinal) || word.StartsWith("current_schema", StringComparison.Ordinal)
                || word is "format_type" or "regclass" or "regtype" or "regproc" or "regprocedure")
            {
                return true;
            }

            r.Skip();
        }

        return false;
    }

    /// <summary>Whether it is about something that the script has made, renamed or dropped before. A string is a name as it stands, or names with schema and quotes.</summary>
    private static bool Touched(Reversing r, SqlFragment condition) =>
        condition.Statement.Tokens[condition.First..condition.End].Where(t => t.Kind == SqlTokenKind.String)
            .Select(t => DoBody.Unquoted(t.Span(condition.Statement.Script).ToString()))
            .Any(text => QueryReversal.NamesIn(text).Append(text).Any(r.Names.Changes));

    /// <summary>The commands that stand in the code.</summary>
    private static string Holds(DoBlock block)
    {
        string text = DoBody.Unquoted(block.Body);
        List<string> commands = [];
        bool begins = true;
        foreach (SqlToken token in SqlLexer.Tokens(text, psql: false).Where(t => t.Kind != SqlTokenKind.Comment))
        {
            string word = token.Kind == SqlTokenKind.Word ? token.Span(text).ToString().ToLowerInvariant() : "";
            if (begins && s_verbs.Contains(word))
            {
                commands.Add(word.ToUpperInvariant());
            }

            begins = token.Kind == SqlTokenKind.Semicolon || word is "begin" or "then" or "else" or "loop";
        }

        return commands.Count == 0 ? "" : $" (it holds {string.Join(", ", commands.Distinct())})";
    }
}
