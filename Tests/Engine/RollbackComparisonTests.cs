using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>The rollback that a migration has, held against the one that is made.</summary>
public sealed class RollbackComparisonTests
{
    [Theory]
    [InlineData("drop table t", "DROP  TABLE /* x */ If Exists \"t\" ;", "")]
    [InlineData("drop table public.t", "drop table t", "")]
    [InlineData("drop table public.t", "drop table other.t", "Different: It is in another schema.")]
    [InlineData("drop table a; drop table b", "drop table a, b", "")]
    [InlineData("alter table t drop column a, drop column b", "alter table t drop column a; begin; alter table t drop column b; commit;", "")]
    [InlineData("drop index concurrently i", "drop index i", "Different: Without CONCURRENTLY it stops reads and writes of the index's table.")]
    [InlineData("create index concurrently i on t (a)", "create index i on t using btree (a)", "Different: Without CONCURRENTLY it stops writes")]
    [InlineData("alter table t drop column a", "alter table t drop column a cascade", "Different: With CASCADE")]
    [InlineData("alter table t add column a int", "alter table t add column a text", "Different: It says something else")]
    [InlineData("drop table t", "-- nothing", "Missing")]
    [InlineData("drop table t", "drop table t; drop table u", "Additional")]
    [InlineData("drop table t", "drop index gone; drop table t", "")]
    [InlineData("drop table t", "drop table t; drop index if exists gone", "")]
    [InlineData("drop table t", "drop table t; drop index gone", "Additional")]
    [InlineData("drop table t", "drop index other; drop table t", "Additional")]
    [InlineData("alter table t drop constraint c; alter table t drop column a", "alter table t drop column a; alter table t drop constraint c", "Order: It comes after line 1")]
    [InlineData("drop table a; drop table b", "drop table b; drop table a", "")]
    [InlineData("alter table t alter column a set default 'X'", "alter table t alter column a set default 'x'", "Different")]
    [InlineData("alter table t alter column a set default 1 + 2", "ALTER TABLE t ALTER a SET DEFAULT 1+2", "")]
    public void Statements_are_compared_by_what_they_say(string made, string existing, string expected)
    {
        MigrationSection section = MigrationSection.Whole(new MigrationSource("x.sql", existing), RunnerMode.EachStatement);
        RollbackDifference[] differences = RollbackComparison.Compare(section.InOrder, [made], ["create index gone on t (a)"]);
        if (expected.Length == 0)
        {
            Assert.Empty(differences);
        }
        else
        {
            RollbackDifference difference = Assert.Single(differences);
            Assert.StartsWith(expected, $"{difference.Kind}: {difference.Note}", StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_differences_are_in_the_result_and_in_the_head_of_the_script()
    {
        using TemporaryFolder folder = new();
        string path = folder.Write("1_t.sql", "-- migrate:up\ncreate table t (a int);\ncreate index concurrently i on u (a);\n-- migrate:down\ndrop index i;\ndrop table t;\ndrop table v;\n");
        RollbackScript rollback = RollbackGenerator.FromFile(MigrationFile.Read(path, MigrationFormat.Auto));
        Assert.Equal(MigrationFormat.Dbmate, rollback.InputFormat);
        Assert.Equal(path, rollback.ExistingPath);
        Assert.Equal([RollbackDifferenceKind.Different, RollbackDifferenceKind.Additional], rollback.Differences.Select(d => d.Kind));
        Assert.Equal([5, 7], rollback.Differences.Select(d => d.Line));
        Assert.Contains("-- Its own rollback:   in the same file, differs in 2 points", rollback.Text, StringComparison.Ordinal);
        Assert.Contains("-- WARNING: Line 3: \"create index concurrently i on u (a)\" will fail", rollback.Text, StringComparison.Ordinal);
        Assert.Equal([3, 2], rollback.Statements.Select(s => s.Line));
    }

    [Fact]
    public void The_bookkeeping_of_Entity_Framework_goes_with_the_migration()
    {
        using TemporaryFolder folder = new();
        string path = folder.Write("script.sql", """
            CREATE TABLE IF NOT EXISTS "__EFMigrationsHistory" ("MigrationId" text PRIMARY KEY, "ProductVersion" text);
            DO $EF$
            BEGIN
                IF NOT EXISTS(SELECT 1 FROM "__EFMigrationsHistory" WHERE "MigrationId" = '1_A') THEN
                CREATE TABLE "T" ("Id" int);
                END IF;
            END $EF$;
            INSERT INTO "__EFMigrationsHistory" ("MigrationId", "ProductVersion")
            VALUES ('1_A', '8.0.0');
            """);
        RollbackScript rollback = RollbackGenerator.FromFile(MigrationFile.Read(path, MigrationFormat.Auto));
        Assert.Equal(["""DELETE FROM "__EFMigrationsHistory" WHERE "MigrationId" = '1_A'""", """drop table if exists "T" """.TrimEnd(), null], rollback.Statements.Select(s => s.Reversal));
        Assert.Equal([8, 5, 1], rollback.Statements.Select(s => s.Line));
        Assert.Equal(Reversibility.ReversibleWithDataLoss, rollback.Reversibility);
    }

    [Fact]
    public void An_idempotent_script_of_Entity_Framework_may_ask_again_inside()
    {
        MigrationFile file = MigrationFile.OfText("script.sql", """
            DO $EF$
            BEGIN
                IF NOT EXISTS(SELECT 1 FROM "__EFMigrationsHistory" WHERE "MigrationId" = '1_A') THEN
                    IF NOT EXISTS(SELECT 1 FROM pg_namespace WHERE nspname = 'shop') THEN
                        CREATE SCHEMA shop;
                    END IF;
                END IF;
            END $EF$;
            """, MigrationFormat.Auto);
        Assert.Empty(file.Warnings);
        RollbackStatement statement = Assert.Single(RollbackGenerator.FromFile(file).Statements);
        Assert.Equal((1, "drop schema if exists shop", Reversibility.Unknown), (statement.Line, statement.Reversal, statement.Reversibility));
        Assert.StartsWith("The block does nothing where it exists", statement.Note, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("create index i on t (a);", "none", "any time, as long as no later migration builds on this one", "none in the migration")]
    [InlineData("alter table t add column a int;", "yes, by statement 1 of this rollback", "until the application writes to what statement 1 drops", "none in the migration; of this rollback, statement 1")]
    [InlineData("create index i on t (a);\ndelete from t;", "yes, by the migration (line 2), which", "only until line 2 of the migration has run", "of the migration, line 2 (delete from t)")]
    [InlineData("alter tabel t;", "not known of", "not known", "not known")]
    public void The_head_says_who_loses_data_and_from_when_on(string sql, string loss, string window, string point)
    {
        string[] head = RollbackGenerator.FromFile(MigrationFile.OfText("m.sql", sql, MigrationFormat.Plain)).Header;
        string Line(string name) => Assert.Single(head, l => l.StartsWith(name + ":", StringComparison.Ordinal))[(name.Length + 1)..].Trim();
        Assert.StartsWith(loss, Line("Data loss"), StringComparison.Ordinal);
        Assert.StartsWith(window, Line("Window"), StringComparison.Ordinal);
        Assert.StartsWith(point, Line("Point of no return"), StringComparison.Ordinal);
    }

    [Fact]
    public void The_head_has_the_form_of_a_runbook()
    {
        using TemporaryFolder folder = new();
        string path = folder.Write("c.sql", "--liquibase formatted sql\n--changeset ann:1\nalter table t add column a int;\n--changeset ann:2\ncreate index i on t (b);\n--changeset ann:3\nupdate t set b = 1;\n");
        string[] head = [.. RollbackGenerator.FromFile(MigrationFile.Read(path, MigrationFormat.Auto)).Text.Split('\n').TakeWhile(l => l.Length > 0)];
        string Line(string name) => Assert.Single(head, l => l.StartsWith($"-- {name}:", StringComparison.Ordinal))[(name.Length + 4)..].Trim();
        Assert.Equal("c.sql (Liquibase)", Line("Migration"));
        Assert.Equal("ann", Line("Author"));
        Assert.Matches(@"^\d{4}-\d\d-\d\d \d\d:\d\d UTC$", Line("Date"));
        Assert.StartsWith("high: not all is taken back; data is lost", Line("Risk"), StringComparison.Ordinal);
        Assert.StartsWith("an instant for each statement", Line("Estimated time"), StringComparison.Ordinal);
        Assert.Equal("irreversible", Line("Rollback"));
        Assert.Equal("yes, by the migration (line 7), which this rollback does not bring back, and by statement 2 of this rollback", Line("Data loss"));
        Assert.StartsWith("only until line 7 of the migration has run; until the application writes to what statement 2 drops", Line("Window"), StringComparison.Ordinal);
        Assert.StartsWith("of the migration, line 7 ", Line("Point of no return"), StringComparison.Ordinal);
    }
}
