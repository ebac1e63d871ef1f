using MigrationSafety.Engine.Sql;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Names in SQL.</summary>
public sealed class SqlNameTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Names_are_quoted_as_the_server_quotes_them(int major)
    {
        await using TestDatabase database = await servers.Clusters.CreateDatabaseAsync(major, Token);
        string[] others = ["orders", "Orders", "a b", "1a", "a$", "a\"b", "_x", "ä", "a1"];
        foreach (object?[] row in await database.QueryAsync("select word::text, quote_ident(word) from pg_get_keywords()", Token))
        {
            // A word that another major reserves is quoted on all.
            (string word, string quoted) = ((string)row[0]!, (string)row[1]!);
            Assert.True(SqlName.QuoteIfNeeded(word) == quoted || (quoted == word && SqlKeywords.NeedsQuotes(word)), word);
        }

        foreach (string name in others)
        {
            Assert.Equal(await database.ScalarAsync<string>($"select quote_ident({SqlName.Literal(name)})", Token), SqlName.QuoteIfNeeded(name));
        }
    }
}
