using FsCheck;
using FsCheck.Fluent;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What must hold for any text: random SQL and SQL that was mutated. A failure is shrunk to a short text.</summary>
public sealed class SqlPropertyTests
{
    private static readonly string[] s_statements =
        [.. SqlScript.Parse(File.ReadAllText(Path.Combine(SqlReference.ProjectFolder, "Reference", "statements.sql"))).Statements.Select(s => s.Text)];

    private static readonly string[] s_pieces =
    [
        .. s_statements.SelectMany(s => SqlLexer.Tokens(s).Select(t => t.Span(s).ToString())).Distinct(),
        "'", "\"", "$$", "$a$", "E'", "U&\"", "\\", "\\.", "/*", "*/", "--", "\n", "\r\n", "\r", ";", "(", ")", "[", "]", "::", "\\gset", "\\copy t from stdin\n", "0x", "é", "\ufeff",
        "\0", "\ud800", "begin atomic", "case", "end", "copy t from stdin;\n",
    ];

    private static Gen<(int How, int Where, string Piece)> Change =>
        from how in Gen.Choose(0, 3)
        from at in Gen.Choose(0, 10_000)
        from piece in Gen.Elements(s_pieces)
        select (how, at, piece);

    /// <summary>Any pieces of SQL in any order.</summary>
    private static Arbitrary<string[]> RandomSql => Gen.Elements(s_pieces).ArrayOf().ToArbitrary();

    /// <summary>The tokens of one statement, of which one was left out, doubled, put elsewhere or replaced, a few times.</summary>
    private static Arbitrary<string[]> MutatedSql => (
        from statement in Gen.Elements(s_statements)
        from changes in Change.ArrayOf(2)
        select changes.Aggregate(SqlLexer.Tokens(statement).Select(t => t.Span(statement).ToString()).ToArray(), Mutate)).ToArbitrary();

    [Fact]
    public void Random_text_is_cut_and_read_without_loss_or_error() => Check.One(Config.QuickThrowOnFailure.WithMaxTest(5000).WithEndSize(40), Prop.ForAll(RandomSql, Holds));

    [Fact]
    public void Mutated_SQL_is_cut_and_read_without_loss_or_error() => Check.One(Config.QuickThrowOnFailure.WithMaxTest(10_000), Prop.ForAll(MutatedSql, Holds));

    [Fact]
    public async Task Mutated_SQL_that_PostgreSQL_accepts_is_read_as_PostgreSQL_does()
    {
        (SqlReference? reference, string? why) = await SqlReference.StartAsync(TestContext.Current.CancellationToken);
        Assert.SkipWhen(reference is null, $"PostgreSQL's own parser is not to be had: {why}.");
        using SqlReference started = reference!;
        SqlAgreement agreement = new(started);

        // One mutation, so that much is still SQL. The seed is fixed: what PostgreSQL accepts by chance and refuses later must not fail a build some day.
        Gen<string> once = from statement in Gen.Elements(s_statements)
            from change in Change
            select string.Join(' ', Mutate([.. SqlLexer.Tokens(statement).Select(t => t.Span(statement).ToString())], change));
        string[] texts = [.. once.Sample(4000, new Rnd(20240607, 1), 1).Where(t => t.IndexOfAny([';', '\\', '\0', '\r']) < 0)];
        foreach (string text in texts)
        {
            await agreement.CompareAsync(text.Length <= 60 ? text : text[..60], text);
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{texts.Length} mutated statements, {agreement.Accepted} accepted by PostgreSQL, {agreement.Agreed} agreed");
        Assert.True(agreement.Accepted > 300);
        Assert.Empty(agreement.WrongBoundaries);
        Assert.Empty(agreement.Disagreed);
        Assert.True(agreement.Agreed >= agreement.Accepted * 0.98, string.Join('\n', agreement.NotParsed));
    }

    private static string[] Mutate(string[] tokens, (int How, int Where, string Piece) change)
    {
        int at = change.Where % tokens.Length;
        return change.How switch
        {
            0 => [.. tokens[..at], .. tokens[(at + 1)..], .. tokens.Length == 1 ? new[] { change.Piece } : []],
            1 => [.. tokens[..at], tokens[at], .. tokens[at..]],
            2 => [.. tokens[..at], change.Piece, .. tokens[at..]],
            _ => [.. tokens[..at], change.Piece, .. tokens[(at + 1)..]],
        };
    }

    private static bool Holds(string[] pieces)
    {
        string text = string.Join(' ', pieces);
        foreach (bool psql in new[] { true, false })
        {
            SqlScript script = SqlScript.Parse(text, psql);
            int at = 0;
            foreach (SqlStatement statement in script.Statements)
            {
                // In order, within the text, with a place that is there.
                if (statement.Tokens[0].Start < at || statement.Line < 1 || statement.Column < 1)
                {
                    return false;
                }

                at = statement.Kind == SqlStatementKind.Sql ? statement.Tokens[0].Start : at;
                if (statement.Kind == SqlStatementKind.Sql && !Reads(statement))
                {
                    return false;
                }
            }
        }

        return true;
    }

    /// <summary>A tree says what the text says: its command begins as the text does, what it names stands in the text, and reading it again gives the same.</summary>
    private static bool Reads(SqlStatement statement)
    {
        ParsedStatement parsed = StatementParser.Parse(statement);
        return parsed.ToString() == StatementParser.Parse(statement).ToString()
            && (parsed is OtherStatement || !statement.IsBroken)
            && parsed.Targets.All(t => t.Name.Length > 0);
    }
}
