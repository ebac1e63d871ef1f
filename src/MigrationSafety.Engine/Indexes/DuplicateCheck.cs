using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Looks for rows that a unique index would refuse, before hours are spent on building it.</summary>
internal static class DuplicateCheck
{
    /// <summary>How long is looked: the query's snapshot holds back VACUUM meanwhile, and the build itself tells in the end.</summary>
    internal static readonly TimeSpan Bound = TimeSpan.FromMinutes(1);

    private const int MostKeys = 10;

    /// <summary>Looks for duplicates.</summary>
    /// <returns>Whether it could be told that there are none.</returns>
    /// <exception cref="MigrationException"><c>DuplicateKey</c>, with up to ten keys.</exception>
    internal static async Task<bool> RunAsync(EngineSession session, TableReference table, IndexDefinition definition, IOperationSink sink, CancellationToken cancellationToken)
    {
        // Texts of different collations make no array. NULLs are not duplicates of each other, unless the index says so.
        string[] keys = [.. definition.Keys.Zip(definition.Collations, (key, collation) => collation is null ? $"({key})" : $"(({key}) collate {collation})")];
        string nulls = definition.NullsNotDistinct ? "" : string.Concat(keys.Select(key => $" and {key} is not null"));
        string sql = $"""
            select array[{string.Join(", ", keys.Select(key => $"{key}::text collate pg_catalog.\"C\""))}], count(*)
            from {(table.Kind == 'p' ? "" : "only ")}{table.Sql}
            where ({definition.Where ?? "true"}){nulls}
            group by {string.Join(", ", keys)}
            having count(*) > 1
            limit {MostKeys + 1}
            """;
        await using NpgsqlConnection connection = await session.OpenAsync("duplicate-check", sink, cancellationToken).ConfigureAwait(false);
        await CatalogReads.BoundAsync(connection, cancellationToken).ConfigureAwait(false);
        await using (NpgsqlCommand limit = new("select pg_catalog.set_config('statement_timeout', $1::text, false)", connection) { Parameters = { new() { Value = (int)Bound.TotalMilliseconds } } })
        {
            await limit.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }

        sink.Verbose($"Looking for duplicates of ({string.Join(", ", definition.Keys)}) in {table.Display}, for up to {Durations.Text(Bound)}.");
        sink.Debug(sql);
        List<string> found = [];
        try
        {
            await using NpgsqlCommand command = new(sql, connection);
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                found.Add($"({string.Join(", ", reader.GetFieldValue<string?[]>(0).Select(value => value ?? "NULL"))}) in {reader.GetInt64(1)} rows");
            }
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.QueryCanceled or SqlStates.LockNotAvailable && !cancellationToken.IsCancellationRequested)
        {
            string why = e.SqlState == SqlStates.LockNotAvailable ? "could not be told while somebody holds ACCESS EXCLUSIVE on it" : $"could not be told within {Durations.Text(Bound)}";
            sink.Warning($"Whether {table.Display} holds duplicates of ({string.Join(", ", definition.Keys)}) {why}; the build will tell. -SkipDuplicateCheck leaves this out.");
            return false;
        }
        catch (PostgresException e) when (e.SqlState[..2] is "42" or "22")
        {
            // No equality for the type, or a value that an expression does not take: the server judges that when it builds.
            sink.Verbose($"Duplicates in {table.Display} cannot be looked for: {ServerErrors.Words(e)}");
            return false;
        }

        string duplicates = $"{table.Display} holds duplicates of ({string.Join(", ", definition.Keys)}): {string.Join("; ", found.Take(MostKeys))}{(found.Count > MostKeys ? "; and more" : "")}.";
        if (found.Count > 0 && definition.OwnEquality)
        {
            sink.Warning($"{duplicates} The index's operator class has an equality of its own, by which they may differ; the build will tell.");
            return false;
        }

        return found.Count == 0
            ? true
            : throw new MigrationException("DuplicateKey", MigrationErrorKind.InvalidData, $"{duplicates} Nothing was built.", "Clean these rows up, then run the command again.")
            {
                SqlState = SqlStates.UniqueViolation,
                Target = table.Display,
            };
    }
}
