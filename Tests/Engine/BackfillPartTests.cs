using MigrationSafety.Engine.Backfills;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Partitions that come, go and are renamed while a backfill runs.</summary>
public sealed class BackfillPartTests(Servers servers)
{
    private const string Parts = """
        create table t (id int, v int, n int not null default 0, primary key (id)) partition by range (id);
        create table t_1 partition of t for values from (0) to (1000);
        create table t_2 partition of t for values from (1000) to (2000);
        create table t_3 partition of t for values from (2000) to (3000);
        create table t_4 partition of t for values from (3000) to (4000) partition by range (id);
        create table t_4a partition of t_4 for values from (3000) to (4000);
        insert into t select i from generate_series(0, 3999) i;
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static BackfillRequest Slowly(BackfillStrategy strategy, int workers) => BackfillBench.Request("t", "v", "1", "v is null") with
    {
        Set = [new("v", "1"), new("n", "n + 1")],
        Strategy = strategy,
        Workers = workers,
        Throttle = new() { RowsPerSecond = 1500 },
    };

    [Theory, EachWalk]
    public async Task What_goes_is_let_go_and_what_stays_is_done(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Parts);
        Task<BackfillResult> run = bench.RunAsync(Slowly(strategy, workers));
        await bench.UntilBatchesAsync(1, run);

        // The detached one is somebody else's from then on, with another detached along with the part above it.
        await bench.Database.ExecuteAsync("drop table t_2; alter table t detach partition t_3; alter table t detach partition t_4; alter table t_1 rename to t_one; create table t_2 (id int)", Token);
        long detached = await bench.ScalarAsync<long>("select count(*) from t_3 where n > 0");
        BackfillResult result = await run;

        Assert.Equal((BackfillOutcome.Completed, 0L), (result.Outcome, result.Remaining));
        Assert.Equal(1000, await bench.ScalarAsync<long>("select count(*) from t_one where n = 1"));
        // Of a part of the detached part each worker's batch may have been on its way, but no row is done twice.
        Assert.Equal(detached, await bench.ScalarAsync<long>("select count(*) from t_3 where n > 0"));
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from t_4 where n > 1"));
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill_range where not finished"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_table_that_goes_or_gives_its_name_to_another_ends_it_and_the_other_stays_as_it_is(int major)
    {
        foreach ((string swap, string error, bool another) in new[]
        {
            ("alter table t rename to t_old", "TableRenamed", true),
            ("drop table t", "TableDropped", true),
            ("alter table t rename to t_old", "TableRenamed", false),
            ("drop table t", "TableDropped", false),
        })
        {
            foreach (BackfillStrategy strategy in another ? [BackfillStrategy.Block, BackfillStrategy.Key] : (BackfillStrategy[])[BackfillStrategy.Block])
            {
                await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int, n int not null default 0); insert into t select i from generate_series(1, 4000) i");
                BackfillRequest request = Slowly(strategy, 2);
                Task<BackfillResult> run = bench.RunAsync(request);
                await bench.UntilBatchesAsync(1, run);
                await bench.Database.ExecuteAsync(
                    another ? $"create table other (id int primary key, v int, n int not null default 0); insert into other select i from generate_series(1, 4000) i; begin; {swap}; alter table other rename to t; commit" : swap, Token);

                Assert.Equal(error, (await Assert.ThrowsAsync<MigrationException>(() => run)).ErrorId);
                await bench.UntilNothingHeldAsync();
                Assert.Equal(0, another ? await bench.ScalarAsync<long>("select count(*) from t where n > 0") : 0);
                // What was not done was not passed over either.
                Assert.Equal(0, await bench.ScalarAsync<int>("select sweep from migration_safety.backfill"));
                if (error == "TableRenamed")
                {
                    await bench.Database.ExecuteAsync($"{(another ? "drop table t;" : "")} alter table t_old rename to t", Token);
                    BackfillResult result = await bench.RunAsync(request with { Throttle = new() });
                    Assert.Equal((BackfillOutcome.Completed, true, 4000L), (result.Outcome, result.Resumed, result.TotalRows));
                    Assert.Equal(4000, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
                }
            }
        }
    }

    [Theory, EachMajor]
    public async Task A_part_that_goes_under_a_sweep_ends_nothing(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Parts);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id in (5, 1500, 2500) for update");
        Task<BackfillResult> run = bench.RunAsync(Slowly(BackfillStrategy.Auto, 2) with { Throttle = new() });
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("of which 3 were locked", StringComparison.Ordinal)), "the sweep to leave three rows", cancellationToken: Token);
        Assert.False(run.IsCompleted);

        await using (Npgsql.NpgsqlCommand goes = new("drop table t_2; alter table t detach partition t_3; alter table t_1 rename to t_one", holder.Connection))
        {
            await goes.ExecuteNonQueryAsync(Token);
        }

        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        Assert.Equal((BackfillOutcome.Completed, 3998L, 0L), (result.Outcome, result.Rows, result.Remaining));
        Assert.Equal(1, await bench.ScalarAsync<long>("select count(*) from t_3 where v is null"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_goes_with_the_part_that_it_belongs_to_is_let_go_at_once(int major)
    {
        foreach (bool sweeps in new[] { false, true })
        {
            await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
                create table t (id int, raw text default '1', v int, n int not null default 0, primary key (id)) partition by range (id);
                create table t_1 partition of t for values from (0) to (4000) partition by range (id);
                create table t_1a partition of t_1 for values from (0) to (4000);
                insert into t select i from generate_series(0, 3999) i;
                """);
            BackfillRequest request = BackfillBench.Request("t", "v", "1", "v is null", batchSize: 50) with { Set = [new("v", "raw::int"), new("n", "n + 1")], MaxErrors = 1 };
            if (sweeps)
            {
                // What was refused is tried again by a sweep alone.
                await bench.Database.ExecuteAsync("update t set raw = 'x' where id = 7; update t set v = 1 where id <> 7", Token);
                Assert.Equal(BackfillOutcome.CompletedWithErrors, (await bench.RunAsync(request)).Outcome);
                await bench.Database.ExecuteAsync("update t set v = null", Token);
            }

            Task<BackfillResult> run = bench.RunAsync(request with { Throttle = new() { RowsPerSecond = 1000 } });
            await Wait.UntilAsync(async () => run.IsCompleted || await bench.ScalarAsync<bool>("select exists (select from t where n > 0)"), "a batch", cancellationToken: Token);
            await bench.Database.ExecuteAsync("alter table t detach partition t_1", Token);
            await run;

            Assert.InRange(await bench.ScalarAsync<long>("select count(*) from t_1a where n > 0"), 1, 2000);
        }
    }

    [Theory, EachMajor]
    public async Task A_table_that_an_expression_needs_and_that_goes_ends_it(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Parts + "create table w (v int); insert into w values (1)");
        Task<BackfillResult> run = bench.RunAsync(Slowly(BackfillStrategy.Auto, 1) with { Set = [new("v", "(select w.v from w)")] });
        await bench.UntilBatchesAsync(1, run);

        await bench.Database.ExecuteAsync("drop table w", Token);

        Assert.Equal("42P01", (await Assert.ThrowsAsync<MigrationException>(() => run)).SqlState);
    }
}
