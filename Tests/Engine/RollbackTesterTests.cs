using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Rollback.Proof;
using MigrationSafety.Engine.Schema;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Rollbacks proved in a scratch database.</summary>
public sealed class RollbackTesterTests(Servers servers)
{
    private const string Shop = """
        create table customers (id int primary key, name text not null);
        create table orders (id int primary key, customer_id int not null references customers (id), amount numeric, note text);
        insert into customers select i, 'customer ' || i from generate_series(1, 50) as i;
        insert into orders select i, 50 - i % 50, i, 'note ' || i from generate_series(1, 200) as i;
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task An_exact_rollback_is_proved_and_its_own_database_is_gone(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Shop);
        await bench.Database.ExecuteAsync("create table nokey (id int references orders (id)); insert into nokey values (7), (100); create publication everything for all tables", Token);
        SchemaSnapshot before = await SnapshotReader.ReadAsync(bench.Session, bench.Sink, Token);
        RollbackTestResult result = await TestAsync(
            bench,
            "begin; alter table orders add column tier int default 1; commit; create index concurrently orders_tier on orders (tier);",
            "drop index concurrently orders_tier; alter table orders drop column tier;",
            sampleRows: 20);
        Assert.True(result.Proved, Describe(result));
        Assert.Equal([(RollbackTestStage.Copy, 0), (RollbackTestStage.Up, 4), (RollbackTestStage.Down, 2), (RollbackTestStage.UpAgain, 4)], result.Phases.Select(p => (p.Stage, p.Statements)));
        Assert.True(result.SampledRows >= 42, Describe(result));
        Assert.Empty(result.Notes);
        Assert.Empty(await ScratchAsync(bench));
        Assert.Empty(SnapshotComparer.Compare(before, await SnapshotReader.ReadAsync(bench.Session, bench.Sink, Token), []));
    }

    [Theory, EachMajor]
    public async Task What_does_not_come_back_is_told(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Shop);
        RollbackTestResult result = await TestAsync(bench, "alter table orders drop column note; update orders set amount = 0;", "alter table orders add column note varchar(10);", sampleRows: 10);
        Assert.False(result.Proved);
        Assert.Contains(result.Differences, d => d is { Identity: "public.orders.note", Property: "Type", Reference: "text", Difference: "character varying(10)" });
        Assert.Contains("Changed table column public.orders.note Type: text -> character varying(10)", result.Differences.Select(d => d.ToString()));
        Assert.Equal([("public.orders", "amount"), ("public.orders", "note")], result.LostValues.Select(l => (l.Table, l.Column ?? "")));
        Assert.All(result.LostValues, l => Assert.Equal((10L, 10L), (l.Rows, l.Sampled)));
        Assert.All(result.Phases.Where(p => p.Stage != RollbackTestStage.UpAgain), p => Assert.Equal(RollbackTestOutcome.Succeeded, p.Outcome));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task The_statement_that_fails_is_named(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Shop);
        RollbackTestResult up = await TestAsync(bench, "select 1;\n\nalter table orders\n  add column id int;", "select 1;");
        Assert.Equal((RollbackTestOutcome.Failed, 3, "42701"), (up.Phases[1].Outcome, up.Phases[1].Line, up.Phases[1].SqlState));
        Assert.All(up.Phases.Skip(2), p => Assert.Equal(RollbackTestOutcome.NotRun, p.Outcome));
        RollbackTestResult down = await TestAsync(bench, "create table fresh (id int);", "drop table fresh;\ndrop table nowhere;");
        Assert.Equal((RollbackTestStage.Down, RollbackTestOutcome.Failed, 2, "42P01", 1), (down.Phases[2].Stage, down.Phases[2].Outcome, down.Phases[2].Line, down.Phases[2].SqlState, down.Phases[2].Statements));
        RollbackTestResult open = await TestAsync(bench, "begin; create table fresh (id int);", "drop table fresh;");
        Assert.Contains("inside a transaction", open.Phases[1].Message, StringComparison.Ordinal);
        Assert.Empty(await ScratchAsync(bench));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Of_an_idempotent_script_what_the_history_has_is_not_run(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            """create table "__EFMigrationsHistory" ("MigrationId" text primary key, "ProductVersion" text not null); insert into "__EFMigrationsHistory" values ('1_A', '9.0.0'), ('2_B', '9.0.0'); create table a (id int); create table b (id int);""");
        static string Block(string id, string sql) => $"DO $EF$\nBEGIN\n    IF NOT EXISTS(SELECT 1 FROM \"__EFMigrationsHistory\" WHERE \"MigrationId\" = '{id}') THEN\n    {sql};\n    END IF;\nEND $EF$;\n";
        static string Migration(string id, string sql) => Block(id, sql) + Block(id, $"INSERT INTO \"__EFMigrationsHistory\" (\"MigrationId\", \"ProductVersion\") VALUES ('{id}', '9.0.0')");
        MigrationFile file = MigrationFile.OfText("script.sql", Migration("1_A", "CREATE TABLE a (id int)") + Migration("2_B", "CREATE TABLE b (id int)") + Migration("3_C", "CREATE TABLE c (id int)"), MigrationFormat.Auto);

        // The copy has no row of the history, one of two, all.
        foreach (int rows in (int[])[0, 1, 5])
        {
            RollbackTestResult result = await RollbackTester.RunAsync(bench.Session, new RollbackTestRequest { Migration = file, SampleRows = rows }, bench.Sink, Token);
            Assert.True(result.Proved, $"{rows}: {Describe(result)}");
            Assert.Contains(result.Notes, note => note.Contains("Of the 3 migrations in it 2 are in ", StringComparison.Ordinal));
            Assert.Equal(2, result.Phases[1].Statements);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Without_a_rollback_ours_is_made_and_proved(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create schema shop; set search_path = shop; " + Shop);
        await bench.Database.ExecuteAsync($"alter database {bench.Database.Name} set search_path = shop, public", Token);
        RollbackTestResult result = await TestAsync(bench, "create table fresh (id int primary key); alter table orders add column tier int;", null);
        Assert.True(result.Proved, Describe(result));
        Assert.Empty(result.Notes);
        Assert.Equal("New-RollbackScript", result.Rollback);
    }

    [Theory, EachMajor]
    public async Task What_would_change_the_server_is_refused(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "select");
        foreach (string sql in new[] { "create role x", "alter database postgres set work_mem = '1MB'", "drop tablespace t", "alter system set work_mem = 1", "grant pg_monitor to postgres", "comment on role postgres is 'x'", "create subscription s connection '' publication p" })
        {
            MigrationException error = await Assert.ThrowsAsync<MigrationException>(() => TestAsync(bench, sql + ";", "select 1;"));
            Assert.Equal("GlobalStatement", error.ErrorId);
        }

        MigrationException command = await Assert.ThrowsAsync<MigrationException>(() => TestAsync(bench, "select 1;", "\\i other.sql\n"));
        Assert.Equal("MetaCommandNotRun", command.ErrorId);
        Assert.Empty(await ScratchAsync(bench));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_lost_test_is_cleared_away_and_one_that_runs_is_not(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "select");
        string lost = $"migration_safety_scratch_20200101000000_{Guid.NewGuid():n}"[..50];
        await bench.Database.ExecuteAsync($"create database {lost}", Token);
        ScratchDatabase running = await ScratchDatabase.CreateAsync(bench.Session, "", [], bench.Sink, Token);
        await using (running)
        {
            Assert.DoesNotContain(lost, await ScratchAsync(bench));
            RollbackTestResult result = await TestAsync(bench, "create table fresh (id int);", "drop table fresh;");
            Assert.True(result.Proved, Describe(result));
            Assert.Contains(running.Name, await ScratchAsync(bench));
        }

        Assert.DoesNotContain(running.Name, await ScratchAsync(bench));
    }

    [Theory, EachMajor]
    public async Task A_cancelled_test_leaves_nothing(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "select");
        using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task<RollbackTestResult> test = TestAsync(bench, "select pg_sleep(600);", "select 1;", cancellationToken: cancel.Token);
        await Wait.UntilAsync(
            async () => await bench.Database.ScalarAsync<bool>("select exists (select from pg_stat_activity where query like 'select pg_sleep(600)%' and datname like 'migration_safety_scratch%')", Token),
            "the migration to run",
            cancellationToken: Token);
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => test);
        Assert.Empty(await ScratchAsync(bench));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_template_is_copied_as_it_is(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "select");
        await using TestDatabase template = await TestDatabase.CreateAsync(bench.Database.Server, cancellationToken: Token);
        await template.ExecuteAsync(Shop, Token);
        NpgsqlConnection.ClearAllPools();
        await using (NpgsqlConnection busy = new(template.ConnectionString + ";Pooling=false"))
        {
            await busy.OpenAsync(Token);
            MigrationException error = await Assert.ThrowsAsync<MigrationException>(() => TestAsync(bench, "select 1;", "select 1;", template: template.Name));
            Assert.Equal("TemplateInUse", error.ErrorId);
        }

        await template.DataSource.DisposeAsync();
        RollbackTestResult result = await TestAsync(bench, "delete from orders where id = 1;", "select 1;", sampleRows: 5, template: template.Name);
        Assert.Equal([("public.orders", 1L, 5L)], result.LostValues.Select(l => (l.Table, l.Rows, l.Sampled)));
        MigrationException missing = await Assert.ThrowsAsync<MigrationException>(() => TestAsync(bench, "select 1;", "select 1;", template: "nowhere"));
        Assert.Equal("TemplateNotFound", missing.ErrorId);
    }

    [Theory, EachMajor]
    public async Task A_role_that_may_not_make_databases_is_told_so(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "select");
        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));
        MigrationException error = await Assert.ThrowsAsync<MigrationException>(
            () => RollbackTester.RunAsync(session, new() { Migration = Migration("select 1;"), Rollback = "select 1;", RollbackName = "down.sql" }, bench.Sink, Token));
        Assert.Equal("CreateDatabaseDenied", error.ErrorId);
        Assert.Contains("CREATEDB", error.RecommendedAction, StringComparison.Ordinal);
    }

    private static MigrationFile Migration(string sql) => MigrationFile.Read(new MigrationSource("1_test.sql", sql), MigrationFormat.Plain);

    private static Task<RollbackTestResult> TestAsync(IndexBench bench, string up, string? down, int sampleRows = 0, string? template = null, CancellationToken? cancellationToken = null) =>
        RollbackTester.RunAsync(
            bench.Session,
            new() { Migration = Migration(up), Rollback = down, RollbackName = down is null ? null : "down.sql", SampleRows = sampleRows, Template = template },
            bench.Sink,
            cancellationToken ?? Token);

    private static async Task<string[]> ScratchAsync(IndexBench bench) =>
        [.. (await bench.Database.QueryAsync(@"select datname::text from pg_database where datname like 'migration\_safety\_scratch\_%'", Token)).Select(row => (string)row[0]!)];

    private static string Describe(RollbackTestResult result) =>
        string.Join("\n", [.. result.Phases.Select(p => p.ToString()), .. result.Differences.Select(d => $"{d.Change} {d.Kind} {d.Identity} {d.Property}"), .. result.LostValues.Select(l => l.ToString()), .. result.Notes]);
}
