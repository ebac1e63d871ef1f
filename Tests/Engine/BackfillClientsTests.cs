using MigrationSafety.Engine.Backfills;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What one client of a backfill does to another: no more than share the work, and each wait for it has a bound and a name.</summary>
public sealed class BackfillClientsTests(Servers servers)
{
    // "MiSG", "MiSN" and "MiSS" in ASCII: the locks that a client holds while it begins, that a worker shares, and that a client holds while it sweeps.
    private const int Gate = 0x4D695347;
    private const int Name = 0x4D69534E;
    private const int Sweep = 0x4D695353;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_client_that_freezes_while_it_begins_is_named(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t values (1)");
        await using LockHolder frozen = await LockHolder.HoldAsync(bench.Database, $"select pg_advisory_xact_lock({Gate}, 't'::regclass::int)");

        MigrationException e = await bench.FailsAsync(BackfillBench.Request("t", "v", "1", retryFor: TimeSpan.FromSeconds(11)));

        Assert.Equal("TableBusy", e.ErrorId);
        Assert.Equal(frozen.Pid, Assert.Single(e.Blockers).Pid);
        Assert.Contains(bench.Sink.Warnings, m => m.Contains($"waiting for pid {frozen.Pid} (", StringComparison.Ordinal));
    }

    [Theory, EachMajor]
    public async Task A_server_that_is_slow_while_a_worker_begins_is_asked_again(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t values (1)");
        BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("t", "v", "1"));
        await using LockHolder slow = await LockHolder.HoldAsync(bench.Database, $"select pg_advisory_xact_lock({Name}, hashtext('{plan.Name}'))");

        Task<BackfillResult> run = Backfill.RunAsync(plan, bench.Sink, Token);
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Count(m => m.Contains("Connects again", StringComparison.Ordinal)) >= 2, "the second attempt", cancellationToken: Token);
        await slow.RollbackAsync(Token);

        BackfillResult result = await run;
        Assert.Equal((BackfillOutcome.Completed, 1L), (result.Outcome, result.Rows));
    }

    [Theory, EachMajor]
    public async Task Who_was_away_while_another_backfill_took_its_name_leaves_that_alone(int major)
    {
        PostgresServer server = await servers.Clusters.GetAsync(major);
        await using TcpProxy proxy = TcpProxy.Start(server);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, "create table t (id int primary key, v int); insert into t select i from generate_series(1, 5000) i", proxy.ConnectionString);
        BackfillRequest slow = BackfillBench.Request("t", "v", "1", "v is null", batchSize: 100) with { Throttle = new() { RowsPerSecond = 1000 } };
        Task<BackfillResult> away = bench.RunAsync(slow);
        await bench.UntilBatchesAsync(2, away);

        proxy.Freeze();
        await bench.Database.ExecuteAsync("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'MigrationSafety%'", Token);
        await bench.UntilNothingHeldAsync();
        await bench.Database.ExecuteAsync("delete from migration_safety.backfill", Token);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 5000 for update");
        Task<BackfillResult> another = bench.RunAsync(slow with { Set = [new("v", "2")], Throttle = new() }, session: await bench.SessionAsync(db => db.ConnectionString));
        await Wait.UntilAsync(async () => another.IsCompleted || await bench.ScalarAsync<long>("select count(*) from t where v is null") == 1, "all rows but one", cancellationToken: Token);
        Assert.False(another.IsCompleted);
        proxy.Thaw();

        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => away);
        Assert.Equal("DefinitionDiffers", e.ErrorId);
        Assert.Contains("While the connection was lost", e.Message, StringComparison.Ordinal);
        Assert.True(await bench.ScalarAsync<bool>("select last_error is null from migration_safety.backfill"));
        await holder.CommitAsync(Token);
        Assert.Equal((BackfillOutcome.Completed, 0L), ((await another).Outcome, (await another).Remaining));
        Assert.Equal(2, await bench.ScalarAsync<int>("select v from t where id = 5000"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Who_joins_keeps_to_the_limits_that_are_there_and_what_it_asks_for_holds_for_all(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int, n int not null default 0);
            insert into t select i from generate_series(1, 20000) i;
            create table health (ok bool); insert into health values (true)
            """);
        BackfillRequest counted = BackfillBench.Request("t", "v", "id", "v is null", batchSize: 50) with { Set = [new("v", "id"), new("n", "n + 1")] };
        Task<BackfillResult> first = bench.RunAsync(counted with { Throttle = new() { RowsPerSecond = 2000, HealthQuery = "select ok from health" } });
        await bench.UntilBatchesAsync(3, first);
        await bench.Database.ExecuteAsync("update health set ok = false", Token);
        await Wait.UntilAsync(() => bench.ScalarAsync<bool>("select waiting_for like 'paused%' from migration_safety.backfill"), "the pause", cancellationToken: Token);

        Task<BackfillResult> joins = bench.RunAsync(counted with { Throttle = new() { RowsPerSecond = 1000 }, ThrottleOver = limits => limits with { RowsPerSecond = 1000 } });
        await Wait.UntilAsync(() => joins.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("another client has given other limits", StringComparison.Ordinal)), "the first to hear of it", cancellationToken: Token);
        Assert.Equal("select ok from health|1000", await bench.ScalarAsync<string>("select concat_ws('|', throttle ->> 'health_query', throttle ->> 'rows_per_second') from migration_safety.backfill"));
        long done = await bench.ScalarAsync<long>("select count(*) from t where v is not null");
        await Wait.UntilAsync(async () => joins.IsCompleted || await bench.ScalarAsync<long>("select count(distinct run) from migration_safety.backfill_worker") == 2, "the second to be there", cancellationToken: Token);
        Assert.False(first.IsCompleted || joins.IsCompleted);
        Assert.Equal(done, await bench.ScalarAsync<long>("select count(*) from t where v is not null"));

        BackfillResult frees = await bench.RunAsync(counted with { Throttle = new() { RowsPerSecond = 1_000_000 } });

        Assert.All([await first, await joins, frees], result => Assert.Equal((BackfillOutcome.Completed, 20_000L, 0L), (result.Outcome, result.TotalRows, result.Remaining)));
        Assert.Equal(20_000, await bench.ScalarAsync<long>("select count(*) from t where v = id and n = 1"));
    }

    [Theory, EachMajor]
    public async Task A_client_that_freezes_while_it_sweeps_is_named(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t values (1)");
        await using LockHolder frozen = await LockHolder.HoldAsync(bench.Database, $"select pg_advisory_xact_lock({Sweep}, 't'::regclass::int)");

        MigrationException e = await bench.FailsAsync(BackfillBench.Request("t", "v", "1", retryFor: TimeSpan.FromSeconds(1)));

        Assert.Equal("TableBusy", e.ErrorId);
        Assert.Equal(frozen.Pid, Assert.Single(e.Blockers).Pid);
        await frozen.RollbackAsync(Token);
        Assert.Equal(BackfillOutcome.Completed, (await bench.RunAsync(BackfillBench.Request("t", "v", "1"))).Outcome);
    }

    [Theory, EachMajor]
    public async Task Who_joins_makes_no_refusal_forgotten(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table t (id int primary key, v int check (v <> 5)); insert into t select i from generate_series(1, 2000) i");
        BackfillRequest request = BackfillBench.Request("t", "v", "id") with { MaxErrors = 5 };
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 1500 for update");
        Task<BackfillResult> first = bench.RunAsync(request);
        await Wait.UntilAsync(() => first.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("of which 1 were locked", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);
        Assert.False(first.IsCompleted);
        BackfillStatus sweeps = Assert.Single(await BackfillReader.ReadAsync(bench.Session, new(), bench.Sink, Token));
        Assert.Equal((1, true, null), (sweeps.Sweep, sweeps.RowsPerSecond > 0, sweeps.RemainingTime));

        // By then the row has been refused, and the sweep has passed over it.
        Task<BackfillResult> joins = bench.RunAsync(request);
        await Wait.UntilAsync(async () => joins.IsCompleted || await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill_worker") == 2, "another client to join", cancellationToken: Token);
        await holder.CommitAsync(Token);
        BackfillResult second = await joins;

        Assert.All([await first, second], result => Assert.Equal((BackfillOutcome.CompletedWithErrors, 1L), (result.Outcome, result.Errors)));
        Assert.Equal(1999, (await first).Rows + second.Rows);
    }

    [Theory, EachMajor]
    public async Task A_name_is_one_backfills_also_when_two_begin_at_once(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table a (id int primary key, v int); insert into a select i from generate_series(1, 500) i; create table b (id int primary key, v int); insert into b select i from generate_series(1, 500) i");
        foreach (string name in new[] { "new", "unused", "paused" })
        {
            await bench.Database.ExecuteAsync("update a set v = null; update b set v = null", Token);
            if (name != "new")
            {
                await bench.RunAsync(BackfillBench.Request("a", "v", "0", "id = 0") with { Name = name });
            }

            if (name == "paused")
            {
                await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'paused', finished_at = null where name = 'paused'", Token);
            }

            // Their gates are those of two tables.
            BackfillPlan[] plans = [await bench.PlanAsync(BackfillBench.Request("a", "v", "1") with { Name = name }), await bench.PlanAsync(BackfillBench.Request("b", "v", "1") with { Name = name })];
            Task<BackfillResult>[] runs = [.. plans.Select(plan => Backfill.RunAsync(plan, bench.Sink, Token))];
            int done = 0;
            foreach (Task<BackfillResult> run in runs)
            {
                try
                {
                    Assert.Equal(500, (await run).TotalRows);
                    done++;
                }
                catch (MigrationException e)
                {
                    Assert.Equal("DefinitionDiffers", e.ErrorId);
                }
            }

            // Where it is not at its end, each may see the other about to work on it.
            Assert.InRange(done, name == "paused" ? 0 : 1, 1);
            Assert.Equal(500 * done, await bench.ScalarAsync<long>("select (select count(v) from a) + (select count(v) from b)"));
        }
    }

    [Theory, EachWalk]
    public async Task Clients_at_once_share_the_work_and_double_nothing(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table t (id int primary key, v int, n int not null default 0); insert into t select i from generate_series(1, 60000) i");
        BackfillRequest request = BackfillBench.Request("t", "v", "1", batchSize: 500) with { Set = [new("v", "1"), new("n", "n + 1")], Where = "v is null", Strategy = strategy, Workers = workers };

        BackfillPlan[] plans = [await bench.PlanAsync(request), await bench.PlanAsync(request), await bench.PlanAsync(request)];
        BackfillResult[] results = await Task.WhenAll(plans.Select(plan => Backfill.RunAsync(plan, bench.Sink, Token)));

        Assert.Equal(60000, results.Sum(r => r.Rows));
        Assert.Contains(results, r => r.Outcome == BackfillOutcome.Completed);
        Assert.Equal(60000, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task Another_operation_on_the_table_is_waited_for_and_named(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders + "create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.001); return new; end $$; create trigger slow before update on orders for each row execute function slow()");
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task<BackfillResult> run = bench.RunAsync(BackfillBench.Request("orders", "tier", "'standard'"), stop.Token);
        await bench.UntilBatchesAsync(1, run);

        MigrationException e = await bench.FailsAsync(BackfillBench.Request("orders", "note", "'x'", "id < 0", retryFor: TimeSpan.FromMilliseconds(300)));

        Assert.Equal("TableBusy", e.ErrorId);
        Assert.Contains("MigrationSafety/backfill", Assert.Single(e.Blockers).Application, StringComparison.Ordinal);
        Assert.EndsWith(", working on backfill public.orders.tier (running).", e.Message, StringComparison.Ordinal);
        Assert.Contains("Stop-Backfill", e.RecommendedAction, StringComparison.Ordinal);
        Assert.Contains(bench.Sink.Warnings, w => w.Contains("waiting for pid", StringComparison.Ordinal) && w.Contains("backfill public.orders.tier (running)", StringComparison.Ordinal));
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Who_locks_the_table_is_waited_for_a_moment_and_then_named(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders);
        BackfillRequest request = BackfillBench.Request("orders", "tier", "'standard'");

        Task<BackfillPlan> waits;
        await using (await LockHolder.HoldAsync(bench.Database, "lock orders in access exclusive mode"))
        {
            waits = bench.PlanAsync(request);
            // Longer than the lock timeout of the batches.
            await Wait.UntilAsync(
                async () => waits.IsCompleted || await bench.ScalarAsync<bool>("select exists (select from pg_locks where not granted and relation = 'orders'::regclass and waitstart < clock_timestamp() - interval '700 ms')"),
                "the plan to wait",
                cancellationToken: Token);
        }

        await waits;

        await using LockHolder reader = await LockHolder.HoldAsync(bench.Database, "select from orders");
        await using Waiter queued = await Waiter.StartAsync(bench.Database, "alter table orders add extra int");
        MigrationException e = await bench.FailsAsync(request);

        Assert.Equal("LockNotAvailable", e.ErrorId);
        Assert.Equal((queued.Pid, false, "orders"), (Assert.Single(e.Blockers).Pid, e.Blockers[0].Granted, e.Blockers[0].Relation));
        Assert.Contains($"pid {queued.Pid} (", e.Message, StringComparison.Ordinal);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Who_locks_the_table_before_the_first_batch_is_waited_for_and_named(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders);
        BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("orders", "tier", "'standard'"));

        Task<BackfillResult> waits;
        await using (LockHolder holder = await LockHolder.HoldAsync(bench.Database, "lock orders in access exclusive mode"))
        {
            BackfillPlan hasty = plan with { Request = plan.Request with { Options = plan.Request.Options with { RetryFor = TimeSpan.FromMilliseconds(100) } } };
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => Backfill.RunAsync(hasty, bench.Sink, Token));
            Assert.Equal(("LockNotAvailable", holder.Pid), (e.ErrorId, Assert.Single(e.Blockers).Pid));
            Assert.Contains($"pid {holder.Pid} (", e.Message, StringComparison.Ordinal);

            waits = Backfill.RunAsync(plan, bench.Sink, Token);
            await Wait.UntilAsync(() => waits.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("cannot be looked at", StringComparison.Ordinal)), "it to wait", cancellationToken: Token);
            Assert.False(waits.IsCompleted);
        }

        Assert.Equal((BackfillOutcome.Completed, 5000L), ((await waits).Outcome, (await waits).Rows));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_plan_names_whoever_keeps_writers_away_and_nobody_else(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table t (id int primary key, v int) partition by range (id); create table p partition of t for values from (0) to (10); create table beside ()");
        await using LockHolder index = await LockHolder.HoldAsync(bench.Database, "lock table p in share mode");
        await using LockHolder unrelated = await LockHolder.HoldAsync(bench.Database, "lock table beside");
        MigrationException e = await bench.FailsAsync(BackfillBench.Request("t", "v", "1"));

        Assert.Equal("LockNotAvailable", e.ErrorId);
        LockBlocker blocker = Assert.Single(e.Blockers);
        Assert.Equal((index.Pid, true, "p", "ShareLock"), (blocker.Pid, blocker.Granted, blocker.Relation, blocker.Mode));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_table_that_is_locked_when_the_first_rows_are_tried_is_waited_for_by_name(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t select i from generate_series(1, 50) i");
        BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("t", "v", "1", retryFor: TimeSpan.FromSeconds(4)));
        LockHolder index = await LockHolder.HoldAsync(bench.Database, "lock table t in share mode");
        await using (index)
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => Backfill.RunAsync(plan, bench.Sink, Token));

            Assert.Equal(("LockNotAvailable", index.Pid), (e.ErrorId, Assert.Single(e.Blockers).Pid));
            Assert.StartsWith($"public.t is locked: waiting for pid {index.Pid} ", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);
        }

        Assert.Equal(50, (await Backfill.RunAsync(plan, bench.Sink, Token)).Rows);
    }

    [Theory, EachMajor]
    public async Task Two_clients_may_create_the_state_at_once(int major)
    {
        string tables = string.Concat(Enumerable.Range(0, 6).Select(i => $"create table t{i} (id int primary key, v int); insert into t{i} select generate_series(1, 10);"));
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, tables);
        BackfillPlan[] plans = await Task.WhenAll(Enumerable.Range(0, 6).Select(i => bench.PlanAsync(BackfillBench.Request($"t{i}", "v", "1"))));

        BackfillResult[] results = await Task.WhenAll(plans.Select(plan => Backfill.RunAsync(plan, bench.Sink, Token)));

        Assert.All(results, r => Assert.Equal(10, r.Rows));
        Assert.Equal(6, await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill where state = 'completed'"));
    }
}
