using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What a role lacks on the tables of a backfill is said before anything is changed, and the GRANT that the advice names is enough.</summary>
public sealed class BackfillPrivilegeTests(Servers servers)
{
    private const string Tables = """
        create schema app;
        create table app.orders (id int primary key, customer_id int, tier text, note text);
        insert into app.orders select i, i from generate_series(1, 50) i;
        create schema ref;
        create table ref.customers (id int primary key, level text);
        insert into ref.customers select i, 'level' from generate_series(1, 50) i;
        create table ref.secrets (id int primary key, level text);
        create view ref.levels as select id, level from ref.customers where id not in (select id from ref.secrets);
        create table app.parted (id int primary key, v int) partition by range (id);
        create schema "Parts";
        create table "Parts".low partition of app.parted for values from (minvalue) to (20);
        create table "Parts"."High" partition of app.parted for values from (20) to (maxvalue);
        insert into app.parted select generate_series(1, 50);
        create table app.copy (id int primary key, tier text, seen bigserial, other int generated always as identity);
        """;

    private static readonly (string What, BackfillRequest Request, string[] Lacking)[] s_kinds =
    [
        ("updates", BackfillBench.Request("app.orders", "tier", "'x'"), ["USAGE ON SCHEMA app", "SELECT, UPDATE (tier) ON app.orders"]),
        ("the condition decides", BackfillBench.Request("app.orders", "note", "'x'", "note is null"), ["UPDATE (note) ON app.orders"]),
        (
            "what is joined",
            BackfillBench.Request("app.orders", "note", "c.level || l.level", "orders.note = 'x' and c.id = customer_id and l.id = c.id") with { From = "ref.customers c, ref.levels l", Name = "joined" },
            ["USAGE ON SCHEMA ref", "SELECT ON ref.customers, ref.levels"]),
        ("deletes", new BackfillRequest { Table = "app.orders", Delete = true, Where = "id > 40" }, ["DELETE ON app.orders"]),
        (
            "partitions",
            BackfillBench.Request("app.parted", "v", "1") with { Strategy = BackfillStrategy.Key },
            ["USAGE ON SCHEMA \"Parts\"", "SELECT ON app.parted", "SELECT, UPDATE (v) ON \"Parts\".\"High\", \"Parts\".low"]),
        (
            "copies",
            new BackfillRequest { Table = "ref.customers", InsertInto = "app.copy", Select = [new("tier", "level")] },
            ["USAGE ON SEQUENCE app.copy_seen_seq", "UPDATE ON ref.customers", "SELECT (id), INSERT (id, tier) ON app.copy"]),
    ];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_is_missing_is_said_at_once_with_the_grant_that_is_enough(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Tables);
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        await bench.Database.ExecuteAsync($"grant create on database {bench.Database.Name} to {role.Name}", Token);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, role.Name));

        foreach ((string what, BackfillRequest request, string[] lacking) in s_kinds)
        {
            List<string> granted = [];
            while (await RefusedAsync(bench, request, session) is { } refused)
            {
                Assert.True(granted.Count < lacking.Length, $"{what}: {refused.Message} {refused.RecommendedAction}");
                Assert.Equal(("InsufficientPrivilege", MigrationErrorKind.Permission), (refused.ErrorId, refused.Kind));
                Assert.StartsWith(role.Name + " ", refused.Message, StringComparison.Ordinal);
                string[] grants = refused.RecommendedAction[refused.RecommendedAction.IndexOf("GRANT", StringComparison.Ordinal)..].Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
                await bench.Database.ExecuteAsync(string.Join(';', grants), Token);
                granted.AddRange(grants.Select(grant => grant["GRANT ".Length..^$" TO {role.Name}".Length]));
            }

            Assert.Equal(lacking, granted);
            Assert.Equal(BackfillOutcome.Completed, (await bench.RunAsync(request, session: session)).Outcome);
        }
    }

    [Theory, EachMajor]
    public async Task What_is_missing_on_table_and_state_is_one_error(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Tables);
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, role.Name));
        MigrationException refused = (await RefusedAsync(bench, s_kinds[0].Request, session))!;
        Assert.Contains("GRANT USAGE ON SCHEMA app ", refused.RecommendedAction, StringComparison.Ordinal);
        Assert.Contains($"GRANT CREATE ON DATABASE {bench.Database.Name} TO {role.Name};", refused.RecommendedAction, StringComparison.Ordinal);
        Assert.Contains("may not create a schema", refused.Message, StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task Without_pg_sleep_it_rests_between_batches(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Tables);
        await bench.Database.ExecuteAsync("revoke execute on function pg_sleep(float8) from public", Token);
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        await bench.Database.ExecuteAsync($"grant create on database {bench.Database.Name} to {role.Name}; grant usage on schema app to {role.Name}; grant select, update on app.orders to {role.Name}", Token);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, role.Name));
        BackfillRequest request = s_kinds[0].Request with { Throttle = ThrottleLimits.Default };

        BackfillPlan plan = await bench.PlanAsync(request, session);
        Assert.Contains(plan.Notes, note => note.Contains("GRANT EXECUTE ON FUNCTION pg_catalog.pg_sleep", StringComparison.Ordinal));
        Assert.Equal((BackfillOutcome.Completed, 50), ((await Backfill.RunAsync(plan, bench.Sink, Token)).Outcome, await bench.ScalarAsync<long>("select count(*) from app.orders where tier = 'x'")));
    }

    [Theory, EachMajor]
    public async Task Who_resumes_or_tests_it_is_told_the_same(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Tables);
        string name = (await bench.RunAsync(BackfillBench.Request("app.orders", "tier", "'x'"))).Name;
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        await bench.Database.ExecuteAsync($"grant usage on schema app to {role.Name}", Token);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, role.Name));
        await RunGrantsAsync(bench, await Assert.ThrowsAsync<MigrationException>(() => BackfillReader.ReadAsync(session, new(), bench.Sink, Token)));
        Assert.Single(await BackfillReader.ReadAsync(session, new(), bench.Sink, Token));

        MigrationException stopping = await Assert.ThrowsAsync<MigrationException>(async () =>
        {
            await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'running'", Token);
            await BackfillControl.StopAsync(session, name, TimeSpan.Zero, bench.Sink, Token);
        });
        await RunGrantsAsync(bench, stopping);
        await BackfillControl.StopAsync(session, name, TimeSpan.Zero, bench.Sink, Token);
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'completed'", Token);

        BackfillRequest recorded = await BackfillControl.RequestAsync(session, name, bench.Sink, Token);
        MigrationException resuming = Assert.IsType<MigrationException>(await RefusedAsync(bench, recorded, session));
        Assert.Contains($"run: GRANT SELECT, UPDATE (tier) ON app.orders TO {role.Name};", resuming.RecommendedAction, StringComparison.Ordinal);
        MigrationException testing = await Assert.ThrowsAsync<MigrationException>(() => BackfillProof.TestAsync(session, new() { Name = name }, bench.Sink, Token));
        Assert.EndsWith($"run: GRANT SELECT ON app.orders TO {role.Name};", testing.RecommendedAction, StringComparison.Ordinal);
        await bench.Database.ExecuteAsync($"grant select on app.orders to {role.Name}", Token);
        Assert.True((await BackfillProof.TestAsync(session, new() { Name = name }, bench.Sink, Token)).Passed);

        await bench.Database.ExecuteAsync($"grant update on app.orders to {role.Name}; alter table app.orders enable row level security", Token);
        MigrationException filtered = Assert.IsType<MigrationException>(await RefusedAsync(bench, recorded, session));
        Assert.Contains("row-level security of app.orders", filtered.Message, StringComparison.Ordinal);
        Assert.Contains($"ALTER ROLE {role.Name} BYPASSRLS;", filtered.RecommendedAction, StringComparison.Ordinal);
    }

    private static Task<int> RunGrantsAsync(BackfillBench bench, MigrationException refused) =>
        bench.Database.ExecuteAsync(refused.RecommendedAction[refused.RecommendedAction.IndexOf("GRANT", StringComparison.Ordinal)..], Token);

    private static async Task<MigrationException?> RefusedAsync(BackfillBench bench, BackfillRequest request, EngineSession session)
    {
        try
        {
            await bench.PlanAsync(request, session);
            return null;
        }
        catch (MigrationException e)
        {
            return e;
        }
    }
}
