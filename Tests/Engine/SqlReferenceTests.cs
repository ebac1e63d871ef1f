using System.Globalization;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>The splitter and the parser, held against PostgreSQL's own parser.</summary>
public sealed class SqlReferenceTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_statements_of_PostgreSQLs_own_tests_are_cut_and_read_as_PostgreSQL_does()
    {
        using SqlReference reference = await StartAsync();
        (string? folder, string? why) = await SqlCorpus.GatherAsync(Token);
        Assert.SkipWhen(folder is null, $"The corpus is not to be had: {why}.");
        SqlAgreement agreement = new(reference);
        foreach (string file in Directory.EnumerateFiles(folder!, "*.sql").Order(StringComparer.Ordinal))
        {
            await agreement.CompareAsync(Path.GetFileName(file), await File.ReadAllTextAsync(file, Token));
        }

        Report(agreement);
        Assert.Empty(agreement.WrongBoundaries);
        Assert.True(agreement.Agreed >= agreement.Accepted * 0.999, string.Join('\n', agreement.NotParsed.Concat(agreement.Disagreed)));

        // A corpus of the developer's own may be small.
        Assert.True(agreement.Accepted > 50_000 || Environment.GetEnvironmentVariable(SqlCorpus.FolderVariable) is not null, $"Only {agreement.Accepted} statements were compared.");
    }

    [Fact]
    public async Task Statements_of_every_family_and_of_every_major_are_read_as_PostgreSQL_does()
    {
        using SqlReference reference = await StartAsync();
        SqlAgreement agreement = new(reference);
        await agreement.CompareAsync("statements.sql", await File.ReadAllTextAsync(Path.Combine(SqlReference.ProjectFolder, "Reference", "statements.sql"), Token));
        Report(agreement);
        Assert.Empty(agreement.Rejected);
        Assert.Empty(agreement.WrongBoundaries);
        Assert.Empty(agreement.NotParsed);
        Assert.Empty(agreement.Disagreed);
        Assert.True(agreement.Agreed > 400);
    }

    private static async Task<SqlReference> StartAsync()
    {
        (SqlReference? reference, string? why) = await SqlReference.StartAsync(Token);
        Assert.SkipWhen(reference is null, $"PostgreSQL's own parser is not to be had: {why}.");
        return reference!;
    }

    private static void Report(SqlAgreement agreement) => TestContext.Current.TestOutputHelper?.WriteLine(string.Create(
        CultureInfo.InvariantCulture,
        $"{agreement.Statements} statements, {agreement.Accepted} accepted by PostgreSQL, {agreement.Parsed} parsed, {agreement.Agreed} agreed ({100.0 * agreement.Agreed / agreement.Accepted:F2} %)"));
}
