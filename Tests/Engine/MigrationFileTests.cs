using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Migration files of all tools, in the syntax that their manuals show.</summary>
public sealed class MigrationFileTests
{
    /// <summary>Files of a tool; the first is the migration.</summary>
    /// <param name="Format">Whose it is.</param>
    /// <param name="Up">Its statements, with line and column.</param>
    /// <param name="Down">The statements of its rollback in the order in which they run; null where it has none.</param>
    /// <param name="Warnings">A word of each warning.</param>
    /// <param name="Files">Name and text of each file.</param>
    private sealed record Sample(MigrationFormat Format, string[] Up, string[]? Down, string[] Warnings, params (string Name, string Text)[] Files);

    private static readonly Dictionary<string, Sample> s_samples = new()
    {
        ["plain"] = new(MigrationFormat.Plain, ["1:1 create table t (a int)", "2:1 \\echo done"], null, [], ("add.sql", "create table t (a int);\n\\echo done\n")),
        ["plain with a rollback beside it"] = new(MigrationFormat.Plain, ["1:1 create table t (a int)"], ["1:1 drop table t"], [], ("add.sql", "create table t (a int);"), ("add.down.sql", "drop table t;")),
        ["plain that opens a transaction itself"] = new(MigrationFormat.Plain, ["1:1 begin", "1:8 create index concurrently i on t (a)", "1:46 commit"], null, ["line 1: \"create index concurrently i on t (a)\" will fail, because the file opens a transaction"],
            ("add.sql", "begin; create index concurrently i on t (a); commit;")),
        ["dbmate"] = new(MigrationFormat.Dbmate, ["3:1 create table t (a int)", "4:3 create index i on t (a)"], ["6:1 drop table t"], [],
            ("20240101000000_t.sql", "-- a word first\n-- migrate:up\ncreate table t (a int);\n  create index i on t (a)\n-- migrate:down\ndrop table t;\n")),
        ["dbmate, Windows line ends and a byte order mark"] = new(MigrationFormat.Dbmate, ["2:1 create table t (a int)"], ["4:1 drop table t"], [],
            ("1_t.sql", "\uFEFF-- migrate:up\r\ncreate table t (a int);\r\n-- migrate:down\r\ndrop table t;\r\n")),
        ["dbmate, out of the transaction"] = new(MigrationFormat.Dbmate, ["2:1 create index concurrently i on t (a)"], ["4:1 drop index concurrently i"], [],
            ("1_i.sql", "-- migrate:up transaction:false\ncreate index concurrently i on t (a);\n-- migrate:down transaction:false\ndrop index concurrently i;\n")),
        ["dbmate, one way alone out of the transaction"] = new(MigrationFormat.Dbmate, ["2:1 create index concurrently i on t (a)"], ["4:1 drop index concurrently i"], ["Its rollback, line 4: \"drop index concurrently i\" will fail, because Dbmate runs it in a transaction"],
            ("1_i.sql", "-- migrate:up transaction:false\ncreate index concurrently i on t (a);\n-- migrate:down\ndrop index concurrently i;\n")),
        ["dbmate, two statements out of the transaction"] = new(MigrationFormat.Dbmate, ["2:1 set lock_timeout = 0", "2:23 create index concurrently i on t (a)"], [], ["sends it together with other statements", "holds no statement"],
            ("1_i.sql", "-- migrate:up transaction:false\nset lock_timeout = 0; create index concurrently i on t (a);\n-- migrate:down\n-- nothing to do\n")),
        ["dbmate, several sections"] = new(MigrationFormat.Dbmate, ["2:1 create table t (a int)", "6:1 create index concurrently i on t (a)"], ["4:1 drop table t", "8:1 drop index concurrently i"], ["once for each up section"],
            ("1_i.sql", "-- migrate:up\ncreate table t (a int);\n-- migrate:down\ndrop table t;\n-- migrate:up transaction:false\ncreate index concurrently i on t (a);\n-- migrate:down transaction:false\ndrop index concurrently i;\n")),
        ["dbmate without down"] = new(MigrationFormat.Dbmate, ["2:1 create table t (a int)"], null, ["refuses a file without a line -- migrate:down"], ("1_t.sql", "-- migrate:up\ncreate table t (a int);\n")),
        ["golang-migrate"] = new(MigrationFormat.GolangMigrate, ["1:1 create table t (a int)"], ["1:1 drop table t"], [],
            ("000001_t.up.sql", "create table t (a int);"), ("000001_other_title.down.sql", "drop table t;"), ("000010_t.down.sql", "drop table u;")),
        ["golang-migrate, CONCURRENTLY with others"] = new(MigrationFormat.GolangMigrate, ["1:1 create index concurrently i on t (a)", "1:39 analyze t"], null, ["golang-migrate sends a file whole"],
            ("1_i.up.sql", "create index concurrently i on t (a); analyze t;")),
        ["goose"] = new(MigrationFormat.Goose, ["3:1 create table t (a int)", "6:1 create function f() returns int language sql as $$\nselect 1;\n$$"], ["11:1 drop function f()", "12:1 drop table t"], [],
            ("00001_t.sql", "-- +goose Up\n-- a comment\ncreate table t (a int);\n\n-- +goose StatementBegin\ncreate function f() returns int language sql as $$\nselect 1;\n$$;\n-- +goose StatementEnd\n-- +goose Down\ndrop function f();\ndrop table t;\n")),
        ["goose, a body that it cuts"] = new(MigrationFormat.Goose, ["2:1 create function f() returns int language sql as $$\nselect 1;\n$$"], null, ["Line 2: goose cuts this statement"],
            ("1_f.sql", "-- +goose Up\ncreate function f() returns int language sql as $$\nselect 1;\n$$;\n")),
        ["goose, CONCURRENTLY in its transaction"] = new(MigrationFormat.Goose, ["2:1 create index concurrently i on t (a)"], ["4:1 drop index concurrently i"], ["line 2: \"create index concurrently i on t (a)\" will fail", "Its rollback, line 4"],
            ("1_i.sql", "-- +goose Up\ncreate index concurrently i on t (a);\n-- +goose Down\ndrop index concurrently i;\n")),
        ["goose, NO TRANSACTION"] = new(MigrationFormat.Goose, ["3:1 create index concurrently i on t (a)", "4:1 create index concurrently j on t (b)"], ["6:1 drop index concurrently i"], [],
            ("1_i.sql", "-- +goose NO TRANSACTION\n-- +goose up\ncreate index concurrently i on t (a);\ncreate index concurrently j on t (b);\n-- +goose Down\ndrop index concurrently i;\n")),
        ["goose, no semicolon"] = new(MigrationFormat.Goose, ["2:1 create table t (a int)"], [], ["without a semicolon", "holds no statement"], ("1_t.sql", "-- +goose Up\ncreate table t (a int)\n-- +goose Down\n")),
        ["Flyway"] = new(MigrationFormat.Flyway, ["1:1 create table t (a int)"], ["1:1 drop table t"], [], ("V1_1__add_t.sql", "create table t (a int);"), ("U1.1__add_t.sql", "drop table t;"), ("U1__x.sql", "drop table u;")),
        ["Flyway, found out to need no transaction"] = new(MigrationFormat.Flyway, ["1:1 create index concurrently i on t (a)"], null, ["transactional.lock=false"], ("V2__i.sql", "create index concurrently i on t (a);")),
        ["Flyway, mixed"] = new(MigrationFormat.Flyway, ["1:1 create table t (a int)", "1:26 vacuum t"], null, ["refuses to mix"], ("V2__i.sql", "create table t (a int);  vacuum t;")),
        ["Flyway, its script configuration"] = new(MigrationFormat.Flyway, ["1:1 create table t (a int)", "1:26 vacuum t"], null, [], ("V2__i.sql", "create table t (a int);  vacuum t;"), ("V2__i.sql.conf", "# why\nexecuteInTransaction = false\n")),
        ["Flyway, what it does not find out"] = new(MigrationFormat.Flyway, ["1:1 alter table p detach partition q concurrently"], null, ["will fail, because Flyway runs it in a transaction"], ("V2__i.sql", "alter table p detach partition q concurrently;")),
        ["Flyway, repeatable, with a placeholder"] = new(MigrationFormat.Flyway, ["1:1 create or replace view v as select '${x}'"], null, ["placeholder", "former version"], ("R__v.sql", "create or replace view v as select '${x}';")),
        ["Liquibase"] = new(MigrationFormat.Liquibase, ["4:1 create table t (a int)", "9:1 create index i on t (a)"], ["10:12 drop index i", "5:12 drop table t"], [],
            ("changelog.sql", "--liquibase formatted sql\n\n--changeset ann:1\ncreate table t (a int)\n--rollback drop table t;\n-- comment\n\n--changeset ann:2 labels:\"\"\ncreate index i on t (a);\n--rollback drop index i;\n")),
        ["Liquibase, attributes"] = new(MigrationFormat.Liquibase, ["3:1 create index concurrently i on t (a)", "9:1 create function f() returns int language sql as $$ select 1; $$", "13:1 select 2"], ["5:1 drop index\nconcurrently i"], ["Changeset bob:2 does not run on PostgreSQL (dbms:mysql,h2)", "labels x"],
            ("changelog.sql", "--liquibase formatted sql\n--changeset \"ann b\":\"1 a\" runInTransaction:false\ncreate index concurrently i on t (a);\n/* liquibase rollback\ndrop index\nconcurrently i;\n*/\n--changeset bob:f endDelimiter:// labels:x\ncreate function f() returns int language sql as $$ select 1; $$//\n--changeset bob:2 dbms:mysql,h2\nselect 1;\n--changeset bob:3 dbms:postgresql\nselect 2;\n--rollback empty\n")),
        ["Liquibase, what it cuts and what it wraps"] = new(MigrationFormat.Liquibase, ["3:1 do $$ declare i int; begin perform 1; end $$", "5:1 drop index concurrently i", "7:1 do $$ begin perform 1; end $$"], null, ["Line 3: Liquibase knows no dollar quotes", "line 5: \"drop index concurrently i\" will fail, because Liquibase runs it in a transaction"],
            ("changelog.sql", "--liquibase formatted sql\n--changeset a:1\ndo $$ declare i int; begin perform 1; end $$;\n--changeset a:2\ndrop index concurrently i;\n--changeset a:3\ndo $$ begin perform 1; end $$;\n")),
        ["Liquibase, lines left out"] = new(MigrationFormat.Liquibase, ["6:1 select 2"], null, [], ("c.sql", "--liquibase formatted sql\n--changeset a:1\n--ignoreLines:start\nselect 1;\n--ignoreLines:end\nselect 2;\n")),
        ["Sqitch"] = new(MigrationFormat.Sqitch, ["2:1 BEGIN", "3:1 create table t (a int)", "4:1 COMMIT"], ["1:1 BEGIN", "1:8 drop table t", "1:22 COMMIT"], [],
            ("deploy/users/t.sql", "-- Deploy app:users/t to pg\nBEGIN;\ncreate table t (a int);\nCOMMIT;\n"), ("revert/users/t.sql", "BEGIN; drop table t; COMMIT;"), ("verify/users/t.sql", "select a from t where false;"),
            ("sqitch.plan", "%syntax-version=1.0.0\n%project=app\n\nusers/t [schema] 2024-01-02T03:04:05Z Ann B <ann@example.com> # adds t\n")),
        ["Sqitch, as it makes the scripts"] = new(MigrationFormat.Sqitch, ["1:1 create table t (a int)"], ["2:1 BEGIN", "4:1 COMMIT"], ["holds no statement"],
            ("deploy/t.sql", "create table t (a int);"), ("revert/t.sql", "-- Revert app:t from pg\nBEGIN;\n-- XXX Add DDLs here.\nCOMMIT;\n"), ("sqitch.plan", "%project=app\n")),
        ["Sqitch, CONCURRENTLY in its transaction"] = new(MigrationFormat.Sqitch, ["1:1 BEGIN", "1:8 drop index concurrently i", "1:35 COMMIT"], null, ["the file opens a transaction"],
            ("deploy/i.sql", "BEGIN; drop index concurrently i; COMMIT;"), ("sqitch.plan", "%project=app\n")),
        ["Prisma"] = new(MigrationFormat.Prisma, ["2:1 CREATE TABLE \"User\" (\n    \"id\" SERIAL NOT NULL\n)", "6:1 CREATE INDEX CONCURRENTLY i ON \"User\" (id)"], ["1:1 DROP TABLE \"User\""], ["line 6: \"CREATE INDEX CONCURRENTLY"],
            ("20240101000000_init/migration.sql", "-- CreateTable\nCREATE TABLE \"User\" (\n    \"id\" SERIAL NOT NULL\n);\n\nCREATE INDEX CONCURRENTLY i ON \"User\" (id);\n"), ("20240101000000_init/down.sql", "DROP TABLE \"User\";")),
        ["Drizzle"] = new(MigrationFormat.Drizzle, ["1:1 CREATE TABLE \"a\" (\"id\" serial)", "3:1 CREATE INDEX CONCURRENTLY i ON a (id)"], null, ["Drizzle runs it in a transaction"],
            ("0000_x.sql", "CREATE TABLE \"a\" (\"id\" serial)\n--> statement-breakpoint\nCREATE INDEX CONCURRENTLY i ON a (id)")),
        ["Drizzle, out of its transaction by force"] = new(MigrationFormat.Drizzle, ["1:1 COMMIT", "3:1 CREATE INDEX CONCURRENTLY i ON a (id)"], null, ["ends the transaction that Drizzle has opened"],
            ("0000_x.sql", "COMMIT;\n--> statement-breakpoint\nCREATE INDEX CONCURRENTLY i ON a (id);")),
        ["dbmate, a transaction inside its own"] = new(MigrationFormat.Dbmate, ["2:1 begin", "3:1 create table t (a int)", "4:1 commit"], null, ["opens none", "ends the transaction that Dbmate", "without a line"],
            ("1_x.sql", "-- migrate:up\nbegin;\ncreate table t (a int);\ncommit;\n")),
        ["Drizzle, by its journal"] = new(MigrationFormat.Drizzle, ["1:1 select 1"], null, [], ("0001_y.sql", "select 1;"), ("meta/_journal.json", "{ \"entries\": [ { \"idx\": 1, \"tag\": \"0001_y\" } ] }")),
        ["Entity Framework"] = new(MigrationFormat.EntityFramework,
            ["1:1 CREATE TABLE IF NOT EXISTS \"__EFMigrationsHistory\" (\"MigrationId\" text)", "2:1 START TRANSACTION", "3:1 CREATE TABLE \"T\" (\"Id\" int)", "4:1 INSERT INTO \"__EFMigrationsHistory\" (\"MigrationId\", \"ProductVersion\")\nVALUES ('20240101_A', '8.0.0')", "6:1 COMMIT"], null, [],
            ("script.sql", "CREATE TABLE IF NOT EXISTS \"__EFMigrationsHistory\" (\"MigrationId\" text);\nSTART TRANSACTION;\nCREATE TABLE \"T\" (\"Id\" int);\nINSERT INTO \"__EFMigrationsHistory\" (\"MigrationId\", \"ProductVersion\")\nVALUES ('20240101_A', '8.0.0');\nCOMMIT;\n")),
        ["Entity Framework, idempotent"] = new(MigrationFormat.EntityFramework, ["1:1 START TRANSACTION", "5:5 CREATE INDEX CONCURRENTLY \"I\" ON \"T\" (\"Id\")", "8:1 COMMIT"], null, ["line 5"],
            ("script.sql", "START TRANSACTION;\nDO $EF$\nBEGIN\n    IF NOT EXISTS(SELECT 1 FROM \"__EFMigrationsHistory\" WHERE \"MigrationId\" = '20240101_A') THEN\n    CREATE INDEX CONCURRENTLY \"I\" ON \"T\" (\"Id\");\n    END IF;\nEND $EF$;\nCOMMIT;\n")),
        ["Evolve"] = new(MigrationFormat.Evolve, ["2:1 create index concurrently i on t (a)"], null, [], ("V1_3__i.sql", "-- evolve-tx-off\ncreate index concurrently i on t (a);")),
        ["Evolve, several"] = new(MigrationFormat.Evolve, ["2:1 create index concurrently i on t (a)", "2:39 analyze t"], null, ["together with other statements"], ("V1_3__i.sql", "-- evolve-tx-off\ncreate index concurrently i on t (a); analyze t")),
        ["grate"] = new(MigrationFormat.Grate, ["1:1 create table t (a int)"], ["1:1 drop table t"], [], ("db/up/001_t.sql", "create table t (a int);"), ("db/down/001_t.sql", "drop table t;"), ("db/views/v.sql", "select 1;")),
        ["grate, run again when changed"] = new(MigrationFormat.Grate, ["1:1 create or replace view v as select 1"], null, ["again whenever its file changes", "environments"], ("db/views/TEST.v.env.sql", "create or replace view v as select 1;"), ("db/up/001_t.sql", "create table t (a int);")),
    };

    public static TheoryData<string> Samples => [.. s_samples.Keys];

    [Theory]
    [MemberData(nameof(Samples))]
    public void A_file_is_told_and_read_as_its_tool_reads_it(string name)
    {
        Sample sample = s_samples[name];
        using TemporaryFolder folder = new();
        string[] paths = [.. sample.Files.Select(f => folder.Write(f.Name, f.Text))];
        MigrationFile file = MigrationFile.Read(paths[0], MigrationFormat.Auto);
        Assert.Equal(sample.Format, file.Format);
        Assert.Null(file.RollbackOf);
        Assert.Equal(sample.Up.Select(Squeezed), Statements(file.Up));
        Assert.Equal(sample.Down?.Select(Squeezed), file.Down is { } down ? Statements(down) : null);
        Assert.True(sample.Warnings.Length == file.Warnings.Count && sample.Warnings.All(w => file.Warnings.Any(f => f.Contains(w, StringComparison.OrdinalIgnoreCase))), string.Join('\n', file.Warnings));

        // What the user names is not asked for.
        Assert.Equal(sample.Format, MigrationFile.Read(paths[0], sample.Format).Format);
    }

    [Theory]
    [InlineData("000001_t.down.sql", "000001_t.up.sql")]
    [InlineData("t.down.sql", "t.sql")]
    [InlineData("U1__t.sql", "V1__other.sql")]
    [InlineData("revert/t.sql", "deploy/t.sql")]
    [InlineData("verify/t.sql", "deploy/t.sql")]
    [InlineData("1_x/down.sql", "1_x/migration.sql")]
    public void A_rollback_is_told_from_a_migration(string rollback, string migration)
    {
        using TemporaryFolder folder = new();
        string path = folder.Write(rollback, "drop table t;");
        string other = folder.Write(migration, "create table t (a int);");
        folder.Write("sqitch.plan", "%project=app\n");
        Assert.Equal(other, MigrationFile.Read(path, MigrationFormat.Auto).RollbackOf);
        Assert.Null(MigrationFile.Read(other, MigrationFormat.Auto).RollbackOf);
    }

    [Fact]
    public void Who_wrote_it_is_read_where_it_is_said()
    {
        using TemporaryFolder folder = new();
        folder.Write("sqitch.plan", "%project=app\nt [a b] 2024-01-02T03:04:05Z Ann B <ann@example.com> # x\nu 2024-01-02T03:04:05Z Bob <b@example.com>\n");
        Assert.Equal("Ann B <ann@example.com>", MigrationFile.Read(folder.Write("deploy/t.sql", "select 1;"), MigrationFormat.Auto).Author);
        Assert.Equal("ann b, bob", MigrationFile.Read(folder.Write("c.sql", "--liquibase formatted sql\n--changeset \"ann b\":1\nselect 1;\n--changeset bob:2\nselect 1;\n"), MigrationFormat.Auto).Author);
    }

    [Fact]
    public void Marks_of_two_tools_are_an_error_until_one_is_named()
    {
        using TemporaryFolder folder = new();
        string path = folder.Write("1_t.sql", "-- migrate:up\n-- +goose Up\ncreate table t (a int);\n-- migrate:down\n");
        MigrationException error = Assert.Throws<MigrationException>(() => MigrationFile.Read(path, MigrationFormat.Auto));
        Assert.Equal("FormatAmbiguous", error.ErrorId);
        Assert.Equal(MigrationFormat.Dbmate, MigrationFile.Read(path, MigrationFormat.Dbmate).Format);
    }

    [Theory]
    [InlineData(MigrationFormat.Dbmate)]
    [InlineData(MigrationFormat.Goose)]
    [InlineData(MigrationFormat.Liquibase)]
    public void A_file_without_the_marks_of_the_tool_that_is_named_is_an_error(MigrationFormat format)
    {
        using TemporaryFolder folder = new();
        string path = folder.Write("1_t.sql", "create table t (a int);");
        Assert.Equal("FormatNotFound", Assert.Throws<MigrationException>(() => MigrationFile.Read(path, format)).ErrorId);
    }

    [Fact]
    public void Variables_of_DbUp_are_said_and_dollar_quotes_are_none()
    {
        using TemporaryFolder folder = new();
        string path = folder.Write("001.sql", "do $body$ begin perform 1; end $body$; create table $schema$.t (a int);");
        Assert.Equal("$schema$ is a variable for DbUp, whose value is not known here.", Assert.Single(MigrationFile.Read(path, MigrationFormat.DbUp).Warnings));
    }

    private static string[] Statements(MigrationSection section) => [.. section.InOrder.Select(s => Squeezed($"{s.Line}:{s.Column} {s.Text}"))];

    private static string Squeezed(string text) => string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
}
