using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes a query back: one that only reads needs nothing, <c>setval</c> is known, and what other functions do is not in the text.</summary>
internal static class QueryReversal
{
    // Functions that leave nothing in the database.
    private static readonly HashSet<string> s_harmless = new(StringComparer.Ordinal)
    {
        "count", "max", "min", "sum", "avg", "bool_and", "bool_or", "now", "version", "lower", "upper", "length", "format",
        "string_agg", "array_agg", "unnest", "generate_series", "to_regclass", "to_regtype", "to_regnamespace", "to_regproc", "to_regprocedure", "current_setting", "set_config",
        "current_schema", "current_schemas", "current_database", "pg_sleep", "pg_backend_pid", "pg_advisory_lock", "pg_advisory_unlock", "pg_advisory_xact_lock", "pg_try_advisory_lock",
        "pg_try_advisory_xact_lock", "pg_advisory_unlock_all", "pg_get_serial_sequence", "quote_ident", "quote_literal", "pg_size_pretty", "pg_relation_size", "pg_total_relation_size",
    };

    /// <summary>The reversal.</summary>
    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, Query query)
    {
        string[] calls = [.. CallsBesides(r, query.Text, s_harmless).Distinct()];
        return calls switch
        {
            [] => [r.Forward.NotNeeded("A query that reads leaves nothing to take back.")],
            ["setval"] when !IsUsers(r, "setval") && Sequence(query.Text) is { } sequence => r.Resolve(sequence) is not { } now ? [r.SchemaUnknown(sequence.Name)]
                : await PropertyReversal.ReverseAsync(r, now, [DefinitionProperty.SequencePosition], "It goes back to where the sequence stood when this script was made; move it on where rows have come since.").ConfigureAwait(false),
            _ => [r.Forward.Unknown($"SELECT: what {string.Join(", ", calls)} does is in the function, not in the migration; write its reversal by hand, if it changes anything.")],
        };
    }

    /// <summary>The names that the strings of a query hold.</summary>
    internal static IEnumerable<string> NamesInStrings(SqlStatement statement) => !statement.Is(0, "select") ? []
        : statement.Tokens.Where(t => t.Kind == SqlTokenKind.String)
            .Select(t => DoBody.Unquoted(t.Span(statement.Script).ToString()))
            .SelectMany(NamesIn);

    /// <summary>The names in a string, as in <c>'app.orders'</c>.</summary>
    internal static IEnumerable<string> NamesIn(string text) => SqlLexer.Tokens(text, psql: false).Select(t => SqlReader.NameOf(text, t)).OfType<string>();

    /// <summary>The functions that a text calls besides known ones of the system; what is the user's own is none of these, whatever it is called.</summary>
    internal static IEnumerable<string> CallsBesides(Reversing r, SqlFragment text, IReadOnlySet<string> known) => Calls(text)
        .Where(call => !(call.Schema is null or "pg_catalog" && known.Contains(call.Name) && (call.Schema is not null || !IsUsers(r, call.Name))))
        .Select(call => call.Schema is null or "pg_catalog" ? call.Name : $"{call.Schema}.{call.Name}");

    /// <summary>Whether a function of the name, called without a schema, may be the user's own: of several whose arguments differ PostgreSQL takes the one that fits best, wherever in the path it is.</summary>
    private static bool IsUsers(Reversing r, string name) => r.Names.MakesOrRenames(name)
        || (r.Catalog is { Facts: { } facts } && facts.HasFunctionOfUser(r.Forward.Path is { } path ? path.Schemas : facts.SearchPath, name));

    private static IEnumerable<(string? Schema, string Name)> Calls(SqlFragment text)
    {
        SqlReader r = text.Read();
        string? schema = null;
        while (!r.AtEnd)
        {
            bool keyword = schema is null && r.Kind == SqlTokenKind.Word && SqlKeywords.NeedsQuotes(r.Word());
            if (r.TakeName() is not { } name)
            {
                schema = null;
                r.Skip();
            }
            else if (r.TakeMark("."))
            {
                schema = name;
            }
            else
            {
                if (r.SeesMark("(") && !keyword && (schema is not null || name is not ("values" or "as" or "over" or "filter" or "within" or "materialized")))
                {
                    yield return (schema, name);
                }

                schema = null;
            }
        }
    }

    /// <summary>The sequence of <c>select setval('name', ...)</c> alone.</summary>
    private static ObjectReference? Sequence(SqlFragment text)
    {
        SqlReader r = text.Read();
        r.Expect("select");
        if (r.Take("pg_catalog"))
        {
            r.ExpectMark(".");
        }

        r.Expect("setval");
        SqlFragment arguments = r.Parenthesized();
        if (r.Failed || !r.AtEnd)
        {
            return null;
        }

        SqlReader first = arguments.Read();
        if (first.Kind != SqlTokenKind.String)
        {
            return null;
        }

        string name = DoBody.Unquoted(first.Literal());
        bool alone = first.TakeMark("::") ? first.Take("regclass") && first.SeesMark(",") : first.SeesMark(",");
        return alone && SqlScript.Parse(name, psql: false).Statements is [{ IsBroken: false } statement] && new SqlReader(statement).TakeQualifiedName() is { } sequence ? new ObjectReference(ObjectKind.Sequence, sequence) : null;
    }
}
