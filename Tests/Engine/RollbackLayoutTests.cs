using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Rollback.Writing;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Rollbacks in the files of migration tools, read back as the tools read them.</summary>
public sealed class RollbackLayoutTests
{
    // Reversals: of a transaction alone, out of it alone, both, several of both, none that is known.
    private static readonly Dictionary<string, string> s_migrations = new()
    {
        ["transaction"] = "create table t (a int);\nalter table u add column b int, add column \"C d\" text;\n",
        ["concurrently"] = "create index concurrently i on u (a);\n",
        ["both"] = "alter table u add column b int;\ncreate index i on u (a);\nalter table u add column c int;\ncreate index j on u (a);\n",
        ["several at the end"] = "alter table u add column b int;\nalter table u add column c int;\ncreate index i on u (a);\n",
        ["not all"] = "create table t (a int);\nupdate u set a = 1;\n-- ${x} +goose changesetId\ncreate index i on u (a);\n",
        ["nothing that is known"] = "update u set a = 1;\n",
        ["nothing to do"] = "set lock_timeout = 1;\n",
        ["a body"] = "create table t (a int);\ndo $$ begin perform 1; end $$;\n",
    };

    private static readonly Dictionary<RollbackFormat, (string Name, Func<string, string> Write)> s_own = new()
    {
        [RollbackFormat.Dbmate] = ("20240101000000_x.sql", sql => $"-- migrate:up{(sql.Contains("concurrently", StringComparison.Ordinal) ? " transaction:false" : "")}\n{sql}\n-- migrate:down\nselect 'old';\n"),
        [RollbackFormat.GolangMigrate] = ("000001_x.up.sql", sql => sql),
        [RollbackFormat.Goose] = ("00001_x.sql", sql => $"-- +goose Up\n{string.Join('\n', sql.Split('\n').Select(l => l.Contains("$$", StringComparison.Ordinal) ? $"-- +goose StatementBegin\n{l}\n-- +goose StatementEnd" : l.Replace("+goose", "", StringComparison.Ordinal)))}-- +goose Down\nselect 'old';\n"),
        [RollbackFormat.Flyway] = ("V1_2__x.sql", sql => sql.Replace("${x}", "", StringComparison.Ordinal)),
        [RollbackFormat.Liquibase] = ("x.sql", sql => $"--liquibase formatted sql\n\n--changeset ann:1\n{sql}--rollback select 'old';\n"),
        [RollbackFormat.Sqitch] = ("deploy/x.sql", sql => sql),
    };

    public static TheoryData<RollbackFormat, string, bool> Cases
    {
        get
        {
            TheoryData<RollbackFormat, string, bool> cases = [];
            foreach (RollbackFormat format in s_own.Keys)
            {
                foreach (string name in s_migrations.Keys)
                {
                    cases.Add(format, name, true);
                    cases.Add(format, name, false);
                }
            }

            return cases;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void What_is_written_is_read_back_as_the_same_statements(RollbackFormat format, string name, bool own)
    {
        using TemporaryFolder folder = new();
        string sql = s_migrations[name];
        string path = own ? folder.Write(s_own[format].Name, s_own[format].Write(sql)) : folder.Write("plain/002_x.sql", sql);
        if (format == RollbackFormat.Sqitch)
        {
            folder.Write("sqitch.plan", "%project=app\n");
        }

        MigrationFile migration = MigrationFile.Read(path, own ? Enum.Parse<MigrationFormat>(format.ToString()) : MigrationFormat.Plain);
        RollbackScript script = RollbackGenerator.FromFile(migration);
        RollbackLayout layout = RollbackLayouts.Of(script, migration, format);
        string[] written = [.. layout.Files.Select(f => folder.Write(f.Name, f.Text))];
        string[] expected = [.. script.Statements.Where(RollbackText.Runs).Select(s => s.Reversal!)];

        // Later versions are taken back first; the way up of all of them is what it was.
        MigrationFile[] read = [.. written.Append(path).Distinct().Where(file => !file.EndsWith(".conf", StringComparison.Ordinal) && (own || file != path))
            .Select(file => MigrationFile.Read(file, Enum.Parse<MigrationFormat>(format.ToString()))).Where(f => f.RollbackOf is null || f.Up.Path == f.Path && f.Format is MigrationFormat.Dbmate or MigrationFormat.Goose or MigrationFormat.GolangMigrate && !f.Name.Contains(".down.", StringComparison.Ordinal)).OrderBy(f => f.Name, StringComparer.Ordinal)];
        Assert.All(read, f => Assert.Equal(format.ToString(), f.Format.ToString()));
        Assert.Equal(expected, read.Reverse().SelectMany(f => f.Down?.InOrder ?? []).SelectMany(Significant));
        Assert.Equal(migration.Up.InOrder.SelectMany(Significant), read.SelectMany(f => f.Up.InOrder).SelectMany(Significant));

        // Read as one, the file has a rollback that says the same, and its parts are none to be taken back themselves.
        MigrationFile again = read.First(f => f.RollbackOf is null);
        Assert.Empty(expected.Length == 0 ? [] : RollbackComparison.Compare(again.Rollback.Where(s => StatementParser.Parse(s) is not DoBlock), expected, []));

        // What the tool will not run in this way would be said.
        Assert.DoesNotContain(read.SelectMany(f => f.Warnings), w => w.Contains("will fail", StringComparison.Ordinal) || w.Contains("cuts", StringComparison.Ordinal) || w.Contains("refuses", StringComparison.Ordinal) || w.Contains("placeholder", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(RollbackFormat.Dbmate, "")]
    [InlineData(RollbackFormat.GolangMigrate, "")]
    [InlineData(RollbackFormat.Goose, "")]
    [InlineData(RollbackFormat.Flyway, "SET statement_timeout = 0;\n.*RESET statement_timeout;\n$")]
    [InlineData(RollbackFormat.Liquibase, "--rollback SET statement_timeout = 0;\n.*--rollback RESET statement_timeout;\n")]
    [InlineData(RollbackFormat.Sqitch, "SET statement_timeout = 0;\n")]
    public void A_bound_on_statements_is_lifted_or_said(RollbackFormat format, string lifted)
    {
        RollbackScript script = RollbackGenerator.FromSteps("x", [new MigrationStep { Sql = "create index concurrently i on t (a)", Purpose = "x", Reversal = "drop index concurrently if exists i", Reversibility = Reversibility.Reversible, State = StepState.Done }]);
        string text = RollbackLayouts.Of(script, null, format).Files.Select(f => f.Text).First(t => t.Contains("drop index concurrently", StringComparison.Ordinal));

        // Where it has to be alone, nothing before it can lift the bound.
        Assert.Equal(lifted.Length == 0, text.Contains("-- It may take long, and nothing here can lift a bound: connect with statement_timeout = 0", StringComparison.Ordinal));
        Assert.Matches($"(?s){lifted}", text);
    }

    [Fact]
    public void A_version_that_is_needed_and_taken_is_an_error()
    {
        using TemporaryFolder folder = new();
        folder.Write("000002_other.up.sql", "select 1;");
        MigrationFile file = MigrationFile.Read(folder.Write("000001_x.up.sql", s_migrations["both"]), MigrationFormat.Auto);
        MigrationException error = Assert.Throws<MigrationException>(() => RollbackLayouts.Of(RollbackGenerator.FromFile(file), file, RollbackFormat.GolangMigrate));
        Assert.Equal("VersionTaken", error.ErrorId);
        Assert.Contains("000002_other.up.sql", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(RollbackFormat.Dbmate)]
    [InlineData(RollbackFormat.Goose)]
    [InlineData(RollbackFormat.GolangMigrate)]
    [InlineData(RollbackFormat.Flyway)]
    [InlineData(RollbackFormat.Liquibase)]
    public void What_is_for_psql_alone_goes_to_no_other_tool(RollbackFormat format)
    {
        using TemporaryFolder folder = new();
        MigrationFile file = MigrationFile.Read(folder.Write("1_x.sql", "\\set x 1\ncreate table t (a int);\n"), MigrationFormat.Auto);
        Assert.Equal("FormatCannotHold", Assert.Throws<MigrationException>(() => RollbackLayouts.Of(RollbackGenerator.FromFile(file), file, format)).ErrorId);
    }

    [Fact]
    public void A_reversal_that_Liquibase_would_cut_is_refused_where_no_delimiter_helps()
    {
        RollbackScript script = RollbackGenerator.FromSteps("x", [new MigrationStep { Sql = "select 1", Purpose = "x", Reversal = "do $$ begin perform 1 as go; commit; end $$", Reversibility = Reversibility.Reversible, State = StepState.Done }]);
        Assert.Equal("FormatCannotHold", Assert.Throws<MigrationException>(() => RollbackLayouts.Of(script, null, RollbackFormat.Liquibase)).ErrorId);
    }

    [Theory]
    [InlineData("alter table u rename to w;\ncreate table u (a int);\n", "", " rollbackSplitStatements:false splitStatements:true", false)]
    [InlineData("alter table u rename to w;\ncreate table u (a int);\n", " splitStatements:false rollbackSplitStatements:true", " rollbackSplitStatements:false splitStatements:true", false)]
    [InlineData("alter table u rename to w;\ncreate table u (a int);\ncreate index concurrently i on w (a);\n", " runInTransaction:false", " runInTransaction:false rollbackEndDelimiter:GO", true)]
    [InlineData("create table t (a int);\n", " rollbackSplitStatements:false", " splitStatements:false", false)]
    public void What_Liquibase_would_cut_is_sent_whole_or_with_a_delimiter(string sql, string attributes, string expected, bool delimited)
    {
        using TemporaryFolder folder = new();
        string head = "--liquibase formatted sql\n\n--changeset ann:1";
        MigrationFile file = MigrationFile.Read(folder.Write("x.sql", $"{head}{attributes}\n{sql}"), MigrationFormat.Liquibase);
        RollbackScript script = RollbackGenerator.FromFile(file);
        string text = Assert.Single(RollbackLayouts.Of(script, file, RollbackFormat.Liquibase).Files).Text;
        Assert.StartsWith($"{head}{expected}\n", text, StringComparison.Ordinal);
        Assert.Equal(delimited, text.Contains("--rollback GO\n", StringComparison.Ordinal));
        MigrationFile read = MigrationFile.Read(folder.Write("y.sql", text), MigrationFormat.Liquibase);
        Assert.Equal(script.Statements.Where(RollbackText.Runs).Select(s => RollbackText.OneLine(s.Reversal!, 10_000)), read.Down!.Script.Statements.Where(s => StatementParser.Parse(s) is not SetVariable).Select(s => RollbackText.OneLine(s.Text, 10_000)));
        Assert.DoesNotContain(read.Warnings, w => w.Contains("cuts", StringComparison.Ordinal));
    }

    [Fact]
    public void What_was_done_without_a_file_is_told_and_not_run_again()
    {
        RollbackScript script = RollbackGenerator.FromSteps("index public.i", [new MigrationStep { Sql = "create index concurrently i on t (a)", Purpose = "x", Reversal = "drop index concurrently if exists i", Reversibility = Reversibility.Reversible, State = StepState.Done }]);
        OutputFile file = Assert.Single(RollbackLayouts.Of(script, null, RollbackFormat.Dbmate).Files);
        Assert.Matches(@"^\d{14}_index_public_i\.sql$", file.Name);
        using TemporaryFolder folder = new();
        MigrationFile read = MigrationFile.Read(folder.Write(file.Name, file.Text), MigrationFormat.Auto);
        Assert.Empty(read.Up.Script.Statements);
        Assert.Contains("create index concurrently i on t (a)", file.Text, StringComparison.Ordinal);
        Assert.Equal("drop index concurrently if exists i", Assert.Single(read.Down!.Script.Statements).Text);
        Assert.Empty(read.Warnings);
    }

    [Fact]
    public void Each_changeset_gets_the_rollback_of_its_own_statements()
    {
        using TemporaryFolder folder = new();
        const string sql = "--liquibase formatted sql\r\n\r\n--changeset ann:1\r\ncreate table t (a int);\r\n--rollback select 1;\r\n\r\n--changeset bob:2 dbms:mysql\r\nselect 1;\r\n--rollback select 2;\r\n--changeset ann:3\r\ncreate index i on u (a)\r\n";
        MigrationFile file = MigrationFile.Read(folder.Write("x.sql", sql), MigrationFormat.Auto);
        RollbackScript script = RollbackGenerator.FromFile(file);
        string text = Assert.Single(RollbackLayouts.Of(script, file, RollbackFormat.Liquibase).Files).Text;
        Assert.DoesNotContain("select 1;\r\n\r\n--changeset bob", text, StringComparison.Ordinal);
        Assert.Contains("--changeset bob:2 dbms:mysql\r\nselect 1;\r\n--rollback select 2;\r\n", text, StringComparison.Ordinal);
        Assert.Contains("--changeset ann:3 runInTransaction:false\r\ncreate index i on u (a)\r\n--rollback -- Rollback of x.sql", text, StringComparison.Ordinal);
        Assert.Matches("--changeset ann:1\r\ncreate table t \\(a int\\);\r\n--rollback SET LOCAL lock_timeout = '500ms';\r\n(--rollback --.*\r\n)+--rollback drop table if exists t;\r\n", text);
        Assert.DoesNotMatch("[^\r]\n", text);
    }

    private static IEnumerable<string> Significant(SqlStatement statement) =>
        statement.Control != TransactionControl.None || StatementParser.Parse(statement) is SetVariable or DoBlock || statement.Text is "select 1" ? [] : [statement.Text];
}
