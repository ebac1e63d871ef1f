using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Reads CREATE INDEX statements as people and migration tools write them: each becomes a request for a safe build.</summary>
public static class IndexStatements
{
    /// <summary>Reads a text of one or several statements. CONCURRENTLY and IF NOT EXISTS change nothing: a build is always the one and never trusts the other.</summary>
    /// <param name="text">The statements. BEGIN and COMMIT around them are passed over.</param>
    /// <param name="source">Where the text is from, for errors; null where it was typed.</param>
    /// <returns>A request for each, without bounds and settings.</returns>
    /// <exception cref="MigrationException"><c>NotAnIndex</c>: there is something else in the text; nothing of it is to be run.</exception>
    public static IReadOnlyList<IndexBuildRequest> Read(string text, string? source)
    {
        ArgumentNullException.ThrowIfNull(text);
        SqlStatement[] statements =
        [
            .. SqlScript.Parse(text).Statements.Where(s => !(s.Kind == SqlStatementKind.Sql && s.Control is TransactionControl.Begin or TransactionControl.Commit)),
        ];
        return statements.Length > 0
            ? [.. statements.Select(statement => Request(statement, source))]
            : throw Refused("there is no statement in it", source, null);
    }

    /// <summary>Storage parameters as they stand between the parentheses of WITH.</summary>
    /// <param name="parameters">Names and values.</param>
    /// <returns>The text, in the order of the names.</returns>
    public static string StorageParameters(IEnumerable<(string Name, string Value)> parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        return string.Join(", ", parameters.OrderBy(parameter => parameter.Name, StringComparer.Ordinal).Select(parameter => $"{SqlName.QuoteIfNeeded(SqlName.Parse(parameter.Name).Name)} = {SqlName.Literal(parameter.Value)}"));
    }

    private static IndexBuildRequest Request(SqlStatement statement, string? source)
    {
        string where = $"line {statement.Line}: {OneLine(statement.Text)}";
        if (statement.Kind != SqlStatementKind.Sql || StatementParser.Parse(statement) is not CreateIndex parsed)
        {
            throw Refused($"this is no CREATE INDEX, or not understood as one: {where}", source, statement.Text);
        }

        if (parsed.Only)
        {
            throw Refused($"ONLY makes an index that is never valid by itself; leave it out, and all partitions get theirs: {where}", source, statement.Text);
        }

        return new IndexBuildRequest
        {
            Table = parsed.Table.ToString(),
            Column = [.. parsed.Elements.Select(element => element.Source.Text)],
            Include = [.. parsed.Include.Select(element => element.Source.Text)],
            Where = parsed.Predicate?.Text,
            Unique = parsed.Unique,
            NullsNotDistinct = parsed.NullsNotDistinct,
            Method = parsed.Method is null ? null : SqlName.QuoteIfNeeded(parsed.Method),
            With = parsed.With,
            Tablespace = parsed.Tablespace is null ? null : SqlName.QuoteIfNeeded(parsed.Tablespace),
            Name = parsed.Name is null ? null : SqlName.QuoteIfNeeded(parsed.Name),
        };
    }

    private static string OneLine(string text) => text.ReplaceLineEndings(" ") is { Length: > 100 } line ? line[..100] + "..." : text.ReplaceLineEndings(" ");

    private static MigrationException Refused(string why, string? source, string? target) => new(
        "NotAnIndex",
        MigrationErrorKind.InvalidInput,
        $"{source ?? "-Definition"}: {why}.",
        "Give CREATE INDEX statements alone; nothing of this text was run.")
    {
        Target = source ?? target,
    };
}
