using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What an expression means is settled when a backfill begins, whoever goes on with it.</summary>
public sealed class BackfillSettingsTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Whoever_goes_on_reads_the_expressions_as_who_began(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create schema app;
            create schema other;
            create function app.price(int) returns int immutable language sql as 'select $1 * 2';
            create function other.price(int) returns int immutable language sql as 'select $1 * 3';
            create table app.t (id int primary key, said text not null default '03/04/2024 12:00', at timestamptz, v int);
            insert into app.t select i from generate_series(1, 3000) i;
            """);
        BackfillRequest request = BackfillBench.Request("app.t", "v", "price(id)", "v is null") with { Set = [new("v", "price(id)"), new("at", "said::timestamptz")] };
        EngineSession first = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c search_path=app -c TimeZone=UTC -c DateStyle=ISO,DMY");
        EngineSession second = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c search_path=other,app -c TimeZone=Asia/Tokyo");

        Task<BackfillResult> run = bench.RunAsync(request with { Throttle = new() { RowsPerSecond = 1000 } }, session: first);
        await bench.UntilBatchesAsync(1, run);
        await BackfillControl.StopAsync(bench.Session, "app.t.v,at", TimeSpan.FromSeconds(30), bench.Sink, Token);
        Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);

        BackfillStatus status = await BackfillControl.FindAsync(second, "app.t.v,at", bench.Sink, Token);
        Assert.Equal(("app", "UTC"), (status.SearchPath, status.TimeZone));
        BackfillPlan plan = await bench.PlanAsync(request, second);
        Assert.Contains(plan.Notes, note => note.Contains("search_path = app, TimeZone = UTC", StringComparison.Ordinal) && note.Contains("this session has search_path = other, app, TimeZone = Asia/Tokyo", StringComparison.Ordinal));
        await bench.RunAsync((await BackfillControl.RequestAsync(second, "app.t.v,at", bench.Sink, Token)) with { Throttle = new() }, session: second);

        Assert.Equal(3000, await bench.ScalarAsync<long>("select count(*) from app.t where v = id * 2 and at = '2024-04-03 12:00+00'"));
        BackfillTestResult proof = await BackfillProof.TestAsync(second, new() { Name = "app.t.v,at", Comparison = BackfillComparison.All }, bench.Sink, Token);
        Assert.True(proof.Passed);
        Assert.Equal(3000, proof.Compared);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_it_asks_is_no_serializable_transaction_where_the_applications_are(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int); insert into t select i from generate_series(1, 3000) i;
            create function matches(v int) returns bool language plpgsql as $$
            begin
                if current_setting('transaction_isolation') <> 'read committed' then raise 'a look as %', current_setting('transaction_isolation'); end if;
                return v is null;
            end $$
            """);
        EngineSession session = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c default_transaction_isolation=serializable");
        BackfillRequest request = BackfillBench.Request("t", "v", "id", "matches(v)") with { Throttle = new() { RowsPerSecond = 2000, HealthQuery = "select matches(null)" } };
        Task<BackfillResult> run = bench.RunAsync(request, session: session);
        await bench.UntilBatchesAsync(1, run);
        await bench.Database.ExecuteAsync(
            "create function looks() returns trigger language plpgsql as $$ begin perform public.matches(null); return new; end $$; create trigger looks before update on migration_safety.backfill for each row execute function looks()", Token);
        await BackfillControl.StopAsync(session, "public.t.v", TimeSpan.FromSeconds(30), bench.Sink, Token);
        Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);

        BackfillResult result = await bench.RunAsync(request with { Throttle = new() }, session: session);

        Assert.Equal((BackfillOutcome.Completed, 3000L), (result.Outcome, result.TotalRows));
        Assert.True((await BackfillProof.TestAsync(session, new() { Name = "public.t.v", Comparison = BackfillComparison.All }, bench.Sink, Token)).Passed);
    }

    [Theory, EachMajor]
    public async Task The_same_command_goes_on_whatever_types_are_called_there(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create schema app;
            create type app.mood as enum ('sad', 'fine');
            create table many (id int primary key, mood app.mood);
            insert into many select i from generate_series(1, 3000) i;
            create table app.health (ok boolean);
            insert into app.health values (true);
            """);
        EngineSession first = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c search_path=app,public");
        EngineSession second = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c search_path=public");
        BackfillRequest request = BackfillBench.Request("many", "mood", "'fine'") with { KeepOldValues = true };
        const string Healthy = "select ok from health";
        foreach ((EngineSession one, EngineSession other) in new[] { (first, second), (second, first) })
        {
            Task<BackfillResult> run = bench.RunAsync(request with { Throttle = new() { RowsPerSecond = 1000, HealthQuery = one == first ? Healthy : null } }, session: one);
            await bench.UntilBatchesAsync(1, run);
            await BackfillControl.StopAsync(bench.Session, "public.many.mood", TimeSpan.FromSeconds(30), bench.Sink, Token);
            Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);

            Assert.Equal((BackfillOutcome.Completed, 3000L), await OutcomeAsync(bench.RunAsync(request with { Throttle = new() { HealthQuery = one == first ? Healthy : null } }, session: other)));
            Assert.Equal(3000, await bench.ScalarAsync<long>("select count(*) from many where mood = 'fine'"));
            await BackfillControl.RemoveAsync(bench.Session, "public.many.mood", force: false, dropArchive: true, TimeSpan.Zero, bench.Sink, Token);
            await bench.Database.ExecuteAsync("update many set mood = null", Token);
        }
    }

    [Theory, EachMajor]
    public async Task The_users_own_schema_is_recorded_by_its_name(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t values (1); create schema postgres; create schema \"A b\"");
        EngineSession session = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c search_path=\"$user\",nowhere,\"A\\ b\",public");

        await bench.RunAsync(BackfillBench.Request("t", "v", "1"), session: session);

        Assert.Equal("postgres, \"A b\", public", (await BackfillControl.FindAsync(session, "public.t.v", bench.Sink, Token)).SearchPath);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_is_turned_off_for_reports_leaves_batches_their_way(int major)
    {
        string[] ways = ["enable_tidscan", "enable_nestloop", "enable_indexscan", "enable_indexonlyscan"];
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v text); insert into t select i from generate_series(1, 300) i");
        EngineSession session = await bench.SessionAsync(db => $"{db.ConnectionString};Options={string.Join(" ", ways.Select(way => $"-c {way}=off"))}");

        BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("t", "v", string.Join(" || ", ways.Select(way => $"current_setting('{way}')"))), session);
        await Backfill.RunAsync(plan, bench.Sink, Token);

        Assert.Equal(300, await bench.ScalarAsync<long>("select count(*) from t where v = 'onononon'"));
        Assert.Contains("Tid Range Scan", plan.BatchPlan, StringComparison.Ordinal);
    }

    private static async Task<(BackfillOutcome Outcome, long Rows)> OutcomeAsync(Task<BackfillResult> run)
    {
        BackfillResult result = await run;
        return (result.Outcome, result.TotalRows);
    }
}
