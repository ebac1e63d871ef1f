using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Rollbacks from the text of a migration alone.</summary>
public sealed class RollbackTextTests
{
    [Fact]
    public void An_index_on_a_column_that_the_script_adds_goes_with_it()
    {
        RollbackScript rollback = RollbackBench.FromText("m.sql", "alter table t add column a int;\ncreate index i on t (b, a);\nalter table t rename column a to c;\ncreate index concurrently on t (c);\ncreate index j on t (b);\n");
        Assert.Equal([Reversibility.Reversible, Reversibility.NotNeeded, Reversibility.Reversible, Reversibility.NotNeeded, Reversibility.ReversibleWithDataLoss], rollback.Statements.Select(s => s.Reversibility));
        Assert.Equal("The index goes with the column c, which this script adds.", rollback.Statements[1].Note);
    }

    [Theory]
    [InlineData("drop table t", Reversibility.Unknown, "Connect")]
    [InlineData("alter table t alter column a type bigint", Reversibility.Unknown, "Which type a had")]
    [InlineData("alter table t alter column a set default 1", Reversibility.Unknown, "column t.a was before")]
    [InlineData("alter table t alter column a drop not null", Reversibility.Unknown, "NOT NULL before")]
    [InlineData("alter table t set schema s", Reversibility.Unknown, "In which schema")]
    [InlineData("alter table s.t set schema u", Reversibility.Reversible, "")]
    [InlineData("alter table t rename to u", Reversibility.Reversible, "")]
    [InlineData("alter type t add value 'x'", Reversibility.Irreversible, "cannot remove a value")]
    [InlineData("create materialized view v as select 1", Reversibility.Reversible, "")]
    [InlineData("create or replace function f() returns int begin atomic select 1; end", Reversibility.Unknown, "OR REPLACE")]
    [InlineData("grant select on t to r", Reversibility.Unknown, "granted before")]
    [InlineData("comment on table t is 'x'", Reversibility.Unknown, "was said of the table t")]
    [InlineData("alter role r password 'x'", Reversibility.Irreversible, "password")]
    [InlineData("drop role r", Reversibility.Unknown, "Connect")]
    [InlineData("alter table p attach partition c for values in (1)", Reversibility.Reversible, "stay")]
    [InlineData("alter table p detach partition c", Reversibility.Unknown, "Which bound")]
    [InlineData("do $$ begin drop table t; end $$", Reversibility.Unknown, "What the table t is")]
    [InlineData("do $$ begin create table t (a int); end $$", Reversibility.ReversibleWithDataLoss, "All rows of t")]
    [InlineData("do $$ begin execute 'drop table t'; update t set a = 1; end $$", Reversibility.Unknown, "it holds EXECUTE, UPDATE")]
    [InlineData("do $$ begin if not exists (select 1 from pg_type where typname = 'mood') then create type mood as enum ('a'); end if; end $$", Reversibility.Unknown, "whether type mood was there")]
    [InlineData("do $$ begin create type mood as enum ('a'); exception when duplicate_object then null; end $$", Reversibility.Unknown, "whether type mood was there")]
    [InlineData("do $$ begin if not exists (select 1 from t) then create type mood as enum ('a'); end if; end $$", Reversibility.Unknown, "cannot be told beforehand")]
    [InlineData("do $$ begin create table t (a int); create table u (a int); exception when duplicate_table then null; end $$", Reversibility.Unknown, "it holds CREATE")]
    [InlineData("call app.clean(1)", Reversibility.Unknown, "what app.clean does is in the procedure")]
    [InlineData("select 1; select count(*) from t where a in (1, 2); values (1)", Reversibility.NotNeeded, "")]
    [InlineData("select app.twice(1), lower('x')", Reversibility.Unknown, "what app.twice does")]
    [InlineData("alter table shop.public.t add column a int", Reversibility.ReversibleWithDataLoss, "All values of a")]
    [InlineData("select setval('s', 1)", Reversibility.Unknown, "How sequence s was before")]
    [InlineData("create table if not exists t (a int)", Reversibility.Unknown, "IF NOT EXISTS")]
    [InlineData("alter table t add column if not exists a int", Reversibility.Unknown, "IF NOT EXISTS")]
    [InlineData("create index if not exists i on t (a)", Reversibility.Unknown, "IF NOT EXISTS")]
    [InlineData("create table :name (a int)", Reversibility.Unknown, "variable of psql")]
    [InlineData("create table t (a int; create table u (a int);", Reversibility.Unknown, "not closed")]
    [InlineData("create table t (a text default 'x", Reversibility.Unknown, "not closed")]
    [InlineData("set search_path to a, b; alter table t add column c int", Reversibility.Unknown, "search_path")]
    [InlineData("select pg_catalog.set_config('search_path', '', false); create table t (a int)", Reversibility.Unknown, "schema")]
    [InlineData("update t set a = 1", Reversibility.Irreversible, "values before")]
    [InlineData("with x as (delete from t returning *) select * from x", Reversibility.Irreversible, "removes rows")]
    [InlineData("insert into t values (1)", Reversibility.Irreversible, "adds rows")]
    [InlineData("truncate t", Reversibility.Irreversible, "removes rows")]
    [InlineData("copy t from stdin;\n1\n\\.\n", Reversibility.Irreversible, "adds rows")]
    [InlineData("merge into t using u on true when matched then delete", Reversibility.Irreversible, "overwrites")]
    [InlineData("\\i other.sql", Reversibility.Unknown, "included file")]
    [InlineData("\\if :x\n\\endif", Reversibility.Unknown, "branch")]
    [InlineData("\\set x 1\nset lock_timeout = 1; analyze t; -- nothing", Reversibility.NotNeeded, "")]
    [InlineData("", Reversibility.NotNeeded, "")]
    public void What_the_text_does_not_tell_is_said(string sql, Reversibility expected, string note)
    {
        RollbackScript rollback = RollbackBench.FromText("x.sql", sql);
        Assert.Equal(expected, rollback.Reversibility);
        RollbackStatement[] worst = [.. rollback.Statements.Where(s => s.Reversibility == expected)];
        Assert.True(worst.Length == 0 ? note.Length == 0 : worst.Any(s => (s.Note ?? "").Contains(note, StringComparison.Ordinal)), rollback.Text);
        if (expected is Reversibility.Unknown or Reversibility.Irreversible)
        {
            Assert.Contains("NOT COMPLETE", rollback.Text, StringComparison.Ordinal);
            Assert.Contains("-- NOT REVERSED", rollback.Text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void One_ALTER_is_taken_back_as_far_as_it_is_known_and_the_rest_is_said()
    {
        RollbackScript rollback = RollbackBench.FromText("x.sql", "alter table s.t add column a int, alter column b set default 1, add check (b > 0)");
        Assert.Equal([Reversibility.ReversibleWithDataLoss, Reversibility.Unknown], rollback.Statements.Select(s => s.Reversibility));
        Assert.Equal("alter table if exists s.t drop constraint if exists t_b_check, drop column if exists a", rollback.Statements[0].Reversal);
        Assert.Contains("derived by PostgreSQL's rule", rollback.Statements[0].Note!, StringComparison.Ordinal);
        Assert.Equal(1, rollback.Statements[0].Line);
    }

    [Fact]
    public void A_bound_on_statements_is_lifted_where_one_works_for_long()
    {
        const string Bound = "set statement_timeout = 0;\ndo $$ begin if current_setting('server_version_num')::int >= 170000 then set transaction_timeout = 0; end if; end $$;\n";
        Assert.Contains($"set lock_timeout = '500ms';\n{Bound}", RollbackBench.FromText("x.sql", "create index concurrently i on t (a)").Text, StringComparison.Ordinal);
        Assert.DoesNotContain("statement_timeout", RollbackBench.FromText("x.sql", "alter table t add column a int").Text, StringComparison.Ordinal);

        // A script that lies beside its migration is not told to do more than it should.
        using TemporaryFolder folder = new();
        string path = folder.Write("1_i.up.sql", "create index concurrently i on t (a);\n");
        RollbackScript script = RollbackGenerator.FromFile(MigrationFile.Read(path, MigrationFormat.Plain));
        folder.Write("1_i.down.sql", script.Text);
        script = RollbackGenerator.FromFile(MigrationFile.Read(path, MigrationFormat.Plain));
        Assert.EndsWith("1_i.down.sql", script.ExistingPath, StringComparison.Ordinal);
        Assert.Empty(script.Differences);
    }

    [Fact]
    public void Nothing_of_a_migration_gets_out_of_its_comment()
    {
        // Only comments and the settings may be in the script: every line of the statement is behind "--".
        RollbackScript rollback = RollbackBench.FromText("a\r\ndrop table x;\nb.sql", "do $$\rdrop table a;\ndrop table b;\u2028drop table c; $$;\nupdate t set a = '\ndrop table d;\n'");
        SqlScript parsed = SqlScript.Parse(rollback.Text);
        Assert.Equal(["\\set ON_ERROR_STOP on", "\\set AUTOCOMMIT on", "set lock_timeout = '500ms'"], parsed.Statements.Select(s => s.Text));
    }

    [Fact]
    public void Any_text_gets_an_answer()
    {
        string[] words =
        [
            "create", "table", "index", "unique", "concurrently", "if", "not", "exists", "on", "only", "alter", "add", "column", "constraint", "primary", "key", "foreign",
            "references", "check", "exclude", "using", "include", "(", ")", "[", "]", ",", ";", ".", "::", "a", "\"B\"", "'s'", "$$x$$", "*", "case", "else", "end", "cast", "as",
            "at", "time", "zone", "u&\"\\0061\"", "uescape", "'!'", "set", "search_path", "to", "local", "begin", "commit", "rollback", "savepoint", "update", "where", "insert",
            "into", "comment", "column", "validate", "partition", "of", "\n", "\\g", "collate", "array", "trim", "leading", "from", "-- x\n", "with", "temp", "rename", "schema",
        ];
        Random random = new(42);
        for (int i = 0; i < 20_000; i++)
        {
            string text = string.Join(random.Next(4) == 0 ? "" : " ", Enumerable.Range(0, random.Next(1, 25)).Select(_ => words[random.Next(words.Length)]));
            if (random.Next(3) == 0)
            {
                string known = RollbackMigrations.All.ElementAt(random.Next(RollbackMigrations.All.Count)).Value.Sql;
                int from = random.Next(known.Length);
                text = known.Remove(from, random.Next(Math.Min(20, known.Length - from))).Insert(from, text);
            }

            RollbackScript rollback = RollbackBench.FromText("x", text);
            Assert.DoesNotContain(rollback.Statements, s => s.Statement.Length == 0);
        }

        string deep = "create index on t (" + new string('(', 100_000) + "a" + new string(')', 100_000) + ")";
        Assert.Single(RollbackBench.FromText("x", deep).Statements);
    }
}
