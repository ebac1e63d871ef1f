using System.Globalization;
using System.Text.RegularExpressions;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What a backfill can do besides setting columns from the row itself: look into another table, delete, measure itself beforehand.</summary>
public sealed class BackfillKindTests(Servers servers)
{
    private const string Join = "orders.customer_id = c.id and orders.tier is null";

    private const string Orders = """
        create table customers (id int primary key, level text);
        insert into customers select i, 'level ' || i from generate_series(0, 99) i;
        create table orders (id bigint primary key, customer_id int not null, tier text, n int not null default 0);
        insert into orders select i, i % 110 from generate_series(1, 20000) i;
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static BackfillRequest Joined(BackfillStrategy strategy = BackfillStrategy.Auto, int workers = 1) => new()
    {
        Table = "orders",
        Set = [new("tier", "c.level"), new("n", "orders.n + 1")],
        From = "customers c",
        Where = Join,
        BatchSize = 700,
        Strategy = strategy,
        Workers = workers,
    };

    private static BackfillRequest Deleting(string where, BackfillStrategy strategy = BackfillStrategy.Auto, int workers = 1) =>
        new() { Table = "orders", Delete = true, Where = where, BatchSize = 700, Strategy = strategy, Workers = workers };

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task Values_come_from_another_table(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders);
        long expected = await bench.ScalarAsync<long>("select count(*) from orders where customer_id < 100");

        // A row that is locked is caught by a sweep, which looks into the other table too.
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 5 for update");
        Task<BackfillResult> run = bench.RunAsync(Joined(strategy, workers));
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("were locked or changed", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);
        Assert.False(run.IsCompleted);
        await holder.RollbackAsync(Token);
        BackfillResult result = await run;

        Assert.Equal((BackfillOutcome.Completed, expected, 0L), (result.Outcome, result.Rows, result.Remaining));
        Assert.Equal(expected, await bench.ScalarAsync<long>("select count(*) from orders join customers c on c.id = customer_id where tier = level and n = 1"));
        // Rows that belong to no row of the other table do not match, and are left alone.
        Assert.Equal(20000 - expected, await bench.ScalarAsync<long>("select count(*) from orders where tier is null and n = 0"));
        BackfillRequest recorded = await BackfillControl.RequestAsync(bench.Session, result.Name, bench.Sink, Token);
        Assert.Equal((false, Join, "customers c"), (recorded.Delete, recorded.Where, recorded.From));
        Assert.Equal(BackfillOutcome.AlreadyCompleted, (await bench.RunAsync(recorded)).Outcome);
        BackfillTestResult test = await BackfillProof.TestAsync(bench.Session, new() { Name = result.Name }, bench.Sink, Token);
        Assert.Equal((0L, BackfillState.Completed), (test.Matching, test.State));
        Assert.Equal(BackfillOutcome.AlreadyCompleted, (await bench.RunAsync(Joined(strategy, workers))).Outcome);

        MigrationException differs = await bench.FailsAsync(Joined(strategy, workers) with { From = "customers as c" });
        Assert.Equal("DefinitionDiffers", differs.ErrorId);
        Assert.Contains("FROM customers as c WHERE", differs.Message, StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task A_join_says_which_rows_belong_together(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders);

        Assert.Equal("WhereMissing", (await bench.FailsAsync(Joined() with { Where = null })).ErrorId);
        Assert.Equal("SyntaxError", (await bench.FailsAsync(Joined() with { From = "customers c; drop table customers" })).ErrorId);
        Assert.Equal("TableNotFound", (await bench.FailsAsync(Joined() with { From = "nowhere c" })).ErrorId);
        MigrationException stays = await bench.FailsAsync(Joined() with { Where = "orders.customer_id = c.id" });
        Assert.Equal("PredicateStaysTrue", stays.ErrorId);
        Assert.False(await bench.StateExistsAsync());

        BackfillPlan plan = await bench.PlanAsync(Joined());
        Assert.Contains("from \ncustomers c\n", plan.Steps[^1].Sql, StringComparison.Ordinal);
        Assert.Contains(plan.Notes, note => note.StartsWith("where several rows of customers c", StringComparison.Ordinal));
        // The batch takes its own blocks first and looks the customers up: never the whole of orders for each customer.
        Assert.Contains("Tid Range Scan on orders", plan.BatchPlan, StringComparison.Ordinal);
    }

    [Theory, EachWalk]
    public async Task Rows_are_deleted_batch_by_batch(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders);
        long expected = await bench.ScalarAsync<long>("select count(*) from orders where customer_id >= 20");

        BackfillResult result = await bench.RunAsync(Deleting("customer_id >= 20", strategy, workers));

        Assert.Equal((BackfillOutcome.Completed, expected, 0L, "public.orders.delete"), (result.Outcome, result.Rows, result.Remaining, result.Name));
        Assert.True(result.Batches > 10);
        Assert.Equal(20000 - expected, await bench.ScalarAsync<long>("select count(*) from orders"));
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from orders where customer_id >= 20"));
        Assert.Equal(Reversibility.Irreversible, result.Steps[^1].Reversibility);

        // Taken up from its record alone.
        BackfillRequest recorded = await BackfillControl.RequestAsync(bench.Session, result.Name, bench.Sink, Token);
        Assert.Equal((true, "customer_id >= 20", null), (recorded.Delete, recorded.Where, recorded.From));
        Assert.Equal(BackfillOutcome.AlreadyCompleted, (await bench.RunAsync(recorded)).Outcome);
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task Rows_that_must_not_go_are_recorded(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders + "create table parts (id int primary key, order_id bigint references orders); insert into parts values (1, 500), (2, 7000);");

        MigrationException refused = await bench.FailsAsync(Deleting("id in (500, 7000, 7001)"));
        Assert.Equal("23503", refused.SqlState);
        BackfillResult result = await bench.RunAsync(Deleting("id between 400 and 8000") with { Name = "most", MaxErrors = 2 });

        Assert.Equal((BackfillOutcome.CompletedWithErrors, 2L, 7599L), (result.Outcome, result.Errors, result.Rows));
        Assert.Equal("500,7000", await bench.ScalarAsync<string>("select string_agg(key[1], ',' order by key[1]::int) from migration_safety.backfill_error"));
    }

    [Theory, EachMajor]
    public async Task What_is_wrong_with_a_deletion_is_said(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders);

        Assert.Equal("WhereMissing", (await bench.FailsAsync(Deleting("") with { Where = null })).ErrorId);
        Assert.Equal("SetAndDelete", (await bench.FailsAsync(Deleting("true") with { Set = [new("tier", "'a'")] })).ErrorId);
        BackfillPlan plan = await bench.PlanAsync(Deleting("customer_id >= 20") with { From = "customers c", Where = "c.id = customer_id and c.level like '%9'" });
        Assert.StartsWith("delete from only \"public\".\"orders\"\nusing \ncustomers c\n", plan.Steps[^1].Sql, StringComparison.Ordinal);
        Assert.StartsWith("Delete rows where", plan.Action, StringComparison.Ordinal);
        Assert.Equal(20000, await bench.ScalarAsync<long>("select count(*) from orders"));
    }

    [Theory, EachMajor]
    public async Task Batches_that_are_rolled_back_measure_time_and_wal(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders);
        BackfillRequest request = new() { Table = "orders", Set = [new("tier", "'standard'")] };

        BackfillPlan assumed = await bench.PlanAsync(request);
        Assert.Contains(assumed.Notes, note => note.StartsWith("assumed:", StringComparison.Ordinal));
        Assert.True(assumed is { EstimatedWalBytes: > 20000 * 50L, EstimatedTime.TotalSeconds: > 0 });

        BackfillPlan measured = await bench.PlanAsync(request with { SampleBatch = 4 });
        Assert.Contains(measured.Notes, note => note.StartsWith("measured by 4 batches", StringComparison.Ordinal));
        Assert.InRange(measured.EstimatedWalBytes, 20000 * 50L, 20000 * 5000L);
        Assert.Equal(20000, await bench.ScalarAsync<long>("select count(*) from orders where tier is null"));
        Assert.False(await bench.StateExistsAsync());

        // What an expression reads besides is none of the rows that change.
        BackfillPlan looking = await bench.PlanAsync(request with { Set = [new("tier", "array_length(array(select i from generate_series(1, 30000) i), 1)::text")], SampleBatch = 4 });
        Assert.InRange(long.Parse(Regex.Match(looking.Notes.Single(note => note.StartsWith("measured by 4 batches", StringComparison.Ordinal)), @"with ([\d,]+) rows").Groups[1].Value, NumberStyles.AllowThousands, CultureInfo.InvariantCulture), 1, 20000);

        // Only when a batch of the run might run, too, and only where rows match.
        foreach (BackfillRequest idle in (BackfillRequest[])
        [
            request with { Throttle = new() { HealthQuery = "select false" } },
            request with { Throttle = new() { Window = new(await bench.ScalarAsync<string>("select to_char(now() + interval '2 h', 'HH24:MI') || '-' || to_char(now() + interval '3 h', 'HH24:MI')") ?? "") } },
            request with { Where = "tier = 'none'" },
        ])
        {
            Assert.Contains((await bench.PlanAsync(idle with { SampleBatch = 4 })).Notes, note => note.StartsWith("assumed:", StringComparison.Ordinal));
        }

        Assert.Equal(["the health query says no", "it is outside the window", "no batch that was tried found a row"], bench.Sink.Warnings.Select(warning => Regex.Match(warning, "(?<=measured nothing: )(the health query says no|it is outside the window|no batch that was tried found a row)").Value));

        // However many batches: what they leave behind is little beside the table.
        long before = await bench.ScalarAsync<long>("select pg_relation_size('orders')");
        await bench.PlanAsync(request with { SampleBatch = 500 });
        Assert.InRange(await bench.ScalarAsync<long>("select pg_relation_size('orders')"), before, 2 * before);

        // What the server would refuse later is said now.
        MigrationException refused = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(request with { Set = [new("tier", "(1 / (id - id))::text")], SampleBatch = 1 }));
        Assert.Equal("22012", refused.SqlState);
        Assert.Equal("SampleBatchInvalid", (await bench.FailsAsync(request with { SampleBatch = -1 })).ErrorId);
    }
}
