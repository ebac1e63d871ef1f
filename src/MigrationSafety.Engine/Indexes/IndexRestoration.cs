using System.Globalization;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>The statements that make an index again, with all that belongs to it.</summary>
internal static class IndexRestoration
{
    /// <summary>Composes them from the catalog, with names that mean the same whatever search_path is set when they run.</summary>
    /// <param name="connection">Connection; its search_path is another for a moment.</param>
    /// <param name="index">The index, not a partitioned one.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>CREATE INDEX CONCURRENTLY first, then COMMENT, statistics targets, CLUSTER mark and dependencies on extensions where there are any.</returns>
    internal static async Task<string> ComposeAsync(NpgsqlConnection connection, IndexDetails index, CancellationToken cancellationToken)
    {
        string path = await SearchPathAsync(connection, "pg_catalog", cancellationToken).ConfigureAwait(false);
        IndexDetails named;
        try
        {
            named = await IndexDetails.ReadAsync(connection, index.Oid, cancellationToken).ConfigureAwait(false) ?? index;
        }
        finally
        {
            await SearchPathAsync(connection, path, CancellationToken.None).ConfigureAwait(false);
        }

        List<string> statements = [Create(named)];
        if (index.Comment is { } comment)
        {
            statements.Add($"COMMENT ON INDEX {index.Display} IS {SqlName.Literal(comment)}");
        }

        statements.AddRange(index.Statistics.Select(item => string.Create(CultureInfo.InvariantCulture, $"ALTER INDEX {index.Display} ALTER COLUMN {item.Column} SET STATISTICS {item.Target}")));
        if (index.Clustered)
        {
            statements.Add($"ALTER TABLE {index.Table.Display} CLUSTER ON {SqlName.QuoteIfNeeded(index.Name)}");
        }

        statements.AddRange(index.Extensions.Select(extension => $"ALTER INDEX {index.Display} DEPENDS ON EXTENSION {SqlName.QuoteIfNeeded(extension)}"));
        return string.Join(";\n", statements);
    }

    private static string Create(IndexDetails index)
    {
        string create = index.Unique ? "CREATE UNIQUE INDEX " : "CREATE INDEX ";
        string rest = index.Definition[create.Length..];
        if (index.Tablespace is { } tablespace)
        {
            // The server leaves it out of the definition; its place is before the condition, which comes last.
            string condition = index.Predicate is { } predicate ? $" WHERE {predicate}" : "";
            rest = rest.EndsWith(condition, StringComparison.Ordinal)
                ? $"{rest[..^condition.Length]} TABLESPACE {SqlName.QuoteIfNeeded(tablespace)}{condition}"
                : throw new InvalidOperationException($"The definition of {index.Display} does not end with its condition: {index.Definition}");
        }

        return $"{create}CONCURRENTLY {rest}";
    }

    private static async Task<string> SearchPathAsync(NpgsqlConnection connection, string path, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.current_setting('search_path'), pg_catalog.set_config('search_path', $1, false)
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = path } } };
        return (string)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }
}
