using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;
using static MigrationSafety.Tests.Engine.Support.ProgressLooks;

namespace MigrationSafety.Tests.Engine;

public sealed class ProgressTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int, tier text);
        insert into orders select i, md5(i::text) from generate_series(1, 1000) i
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Nothing_runs(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        Assert.Empty(await ReadAsync(bench, new() { Table = "orders" }));
        Assert.Empty(bench.Sink.Warnings);
        Assert.Equal("TableNotFound", (await Assert.ThrowsAsync<MigrationException>(() => ReadAsync(bench, new() { Table = "nothing" }))).ErrorId);
    }

    [Theory, EachMajor]
    public async Task A_build_of_another_client_is_seen_with_phase_and_blocker(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder writer = await LockHolder.HoldAsync(bench.Database, "insert into orders values (0, 'x')");
        await using LockHolder reader = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        Task<int> build = bench.Database.ExecuteAsync("create index concurrently ix on orders (tier)", Token);

        MigrationProgress writers = await UntilAsync(bench, "waiting for writers before build");
        Assert.Equal("CREATE INDEX CONCURRENTLY", writers.Operation);
        Assert.Equal("public.orders", writers.Target);
        Assert.Equal((2, 8), (writers.PhaseNumber, writers.PhaseCount));
        Assert.Equal((0L, 1L, "transactions"), (writers.Done, writers.Total, writers.Unit));
        Assert.Equal(0, writers.PhasePercent);
        Assert.Equal([writer.Pid], writers.BlockedBy);
        Assert.Equal($"transaction of pid {writer.Pid}", writers.WaitingFor);
        Assert.Equal("create index concurrently ix on orders (tier)", writers.Query);
        Assert.Equal("postgres", writers.User);
        Assert.Equal(bench.Database.Name, writers.Database);
        Assert.Equal(bench.Session.Info.Server, writers.Server);
        Assert.InRange(writers.Elapsed!.Value, TimeSpan.Zero, TimeSpan.FromSeconds(30));

        await writer.CommitAsync(Token);
        MigrationProgress snapshots = await UntilAsync(bench, "waiting for old snapshots");
        Assert.Equal((8, 8), (snapshots.PhaseNumber, snapshots.PhaseCount));
        Assert.Equal([reader.Pid], snapshots.BlockedBy);
        Assert.Equal("public.ix", snapshots.Index);
        Assert.Equal(writers.Pid, snapshots.Pid);
        await reader.CommitAsync(Token);
        await build;
        Assert.Empty(await ReadAsync(bench, new() { Pid = writers.Pid }));
    }

    [Theory, EachMajor]
    public async Task Each_phase_of_a_real_build_is_numbered_and_counted(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers, major, "create table big (id int, v text); insert into big select i, md5(i::text) || md5((i + 1)::text) from generate_series(1, 700000) i");
        Predicate<MigrationProgress>[] wanted =
        [
            p => p is { Phase: "building index: scanning table", PhaseNumber: 3, Unit: "blocks", Total: > 1000, PhasePercent: > 0 },
            p => p is { Phase: "building index: loading tuples in tree", PhaseNumber: 3, Unit: "tuples", Total: 700000 },
            p => p is { Phase: "index validation: scanning table", PhaseNumber: 7, Unit: "blocks" },
        ];
        List<MigrationProgress> all = [];
        // A phase can pass between two looks on a busy machine: build again until each has been met.
        while (!wanted.All(phase => all.Exists(phase)))
        {
            Token.ThrowIfCancellationRequested();
            await bench.Database.ExecuteAsync("drop index if exists big_v", Token);
            List<MigrationProgress> seen = [];
            Task<int> build = bench.Database.ExecuteAsync("create index concurrently big_v on big (v)", Token);
            while (!build.IsCompleted)
            {
                seen.AddRange(await ReadAsync(bench, new() { Table = "big" }));
            }

            await build;
            Assert.All(seen, p => Assert.True(p is { PhaseNumber: >= 1 and <= 8, PhaseCount: 8 }, p.ToString()));
            Assert.All(seen, p => Assert.True(p.PhasePercent is null or (>= 0 and <= 100), p.ToString()));
            int[] numbers = [.. seen.Select(p => p.PhaseNumber!.Value)];
            Assert.Equal(numbers.Order(), numbers);
            all.AddRange(seen);
            Assert.True(all.Count < 100_000, "A phase is never met: " + string.Join(", ", all.Select(p => p.Phase).Distinct()));
        }
    }

    [Theory, EachMajor]
    public async Task A_reindex_and_a_plain_build_are_seen(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; create index ix on orders (tier)");
        // No SELECT: its portal would stay open, with its snapshot, and the wait would be for that.
        LockHolder reader = await LockHolder.HoldAsync(bench.Database, "lock table orders in access share mode");
        await using (reader)
        {
            Task<int> reindex = bench.Database.ExecuteAsync("reindex index concurrently ix", Token);
            MigrationProgress progress = await UntilAsync(bench, "waiting for readers before marking dead");
            Assert.Equal(("REINDEX CONCURRENTLY", 9, 10), (progress.Operation, progress.PhaseNumber!.Value, progress.PhaseCount!.Value));
            await reader.CommitAsync(Token);
            await reindex;
        }

        // Slow enough to be met.
        await bench.Database.ExecuteAsync("create function slow(t text) returns text immutable language plpgsql as 'begin perform pg_sleep(0.002); return t; end'", Token);
        Task<int> plain = bench.Database.ExecuteAsync("create index plain on orders (slow(tier))", Token);
        MigrationProgress build = await UntilAsync(bench, "building index");
        Assert.Equal(("CREATE INDEX", 2, 2), (build.Operation, build.PhaseNumber!.Value, build.PhaseCount!.Value));
        await plain;
    }

    [Theory, EachMajor]
    public async Task Builds_of_other_databases_are_seen_by_oid_and_filters_hold(int major)
    {
        await using IndexBench here = await IndexBench.CreateAsync(servers, major, Orders);
        await using IndexBench there = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await LockHolder.HoldAsync(there.Database, "set transaction isolation level repeatable read", "select 1");
        Task<int> build = there.Database.ExecuteAsync("create index concurrently ix on orders (tier)", Token);
        await there.UntilPhaseAsync("waiting for old snapshots");
        uint oid = await there.Database.ScalarAsync<uint>("select 'orders'::regclass::oid", Token);
        MigrationProgress seen = Assert.Single(await ReadAsync(here, new()), p => p.Database == there.Database.Name);
        Assert.Equal(oid.ToString(System.Globalization.CultureInfo.InvariantCulture), seen.Target);
        Assert.Equal(seen.Pid, Assert.Single(await ReadAsync(here, new() { Pid = seen.Pid })).Pid);
        Assert.Empty(await ReadAsync(here, new() { Table = "public.orders" }));
        Assert.Equal("public.orders", Assert.Single(await ReadAsync(there, new() { Table = "orders" })).Target);
        await old.CommitAsync(Token);
        await build;
    }

    [Theory, EachMajor]
    public async Task Work_on_a_partition_is_work_on_its_table(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            """
            create table orders (id int, tier text) partition by range (id);
            create table orders_1 partition of orders for values from (0) to (100) partition by range (id);
            create table orders_1_1 partition of orders_1 for values from (0) to (50);
            create table orders_2 partition of orders for values from (100) to (200)
            """);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        Task<int> build = bench.Database.ExecuteAsync("create index concurrently ix on orders_1_1 (tier)", Token);
        await bench.UntilPhaseAsync("waiting for old snapshots");
        foreach (string table in (string[])["orders", "orders_1", "orders_1_1"])
        {
            Assert.Equal("public.orders_1_1", Assert.Single(await ReadAsync(bench, new() { Table = table })).Target);
        }

        Assert.Empty(await ReadAsync(bench, new() { Table = "orders_2" }));
        Task<ProgressResult> waiting = await WaitAsync(bench, build);
        await old.CommitAsync(Token);
        await build;
        Assert.Equal(("public.orders_1_1", ProgressOutcome.Finished), ((await waiting).Target, (await waiting).Outcome));

        // What no view of the server's tells.
        await using LockHolder reading = await LockHolder.HoldAsync(bench.Database, "lock table orders_2 in access share mode");
        Task<int> alter = bench.Database.ExecuteAsync("alter table orders_2 add constraint positive check (id > 0)", Token);
        Assert.Equal("public.orders_2", (await UntilAsync(bench, "waiting for a lock")).Target);
        await reading.CommitAsync(Token);
        await alter;
    }

    [Theory, EachMajor]
    public async Task Without_the_privilege_gaps_stay_empty_and_the_grant_is_named(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        Task<int> build = bench.Database.ExecuteAsync("create index concurrently ix on orders (tier)", Token);
        await bench.UntilPhaseAsync("waiting for old snapshots");

        MigrationProgress hidden = Assert.Single(await ReadAsync(session, new() { Table = "orders" }, bench.Sink));
        Assert.NotEqual(0, hidden.Pid);
        Assert.Null(hidden.Query);
        Assert.Null(hidden.Phase);
        Assert.Null(hidden.PhaseNumber);
        Assert.Equal([old.Pid], hidden.BlockedBy);
        Assert.Contains($"GRANT pg_read_all_stats TO {stranger.Name}", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);

        // Whoever waits is told once, however often it is looked.
        RecordingSink sink = new();
        Task waiting = ProgressWait.RunAsync(session, new() { Table = "orders" }, TimeSpan.FromMilliseconds(50), _ => { }, sink, null, Token);
        await Wait.UntilAsync(() => sink.ProgressRecords.Count > 2, "some looks", cancellationToken: Token);

        // What the warning says is enough.
        await bench.Database.ExecuteAsync($"grant pg_read_all_stats to {stranger.Name}", Token);
        MigrationProgress seen = Assert.Single(await ReadAsync(session, new() { Table = "orders" }, bench.Sink));
        Assert.Equal("waiting for old snapshots", seen.Phase);
        Assert.Single(bench.Sink.Warnings);
        await old.CommitAsync(Token);
        await build;
        await waiting;
        Assert.Single(sink.Warnings);
    }

    [Theory, EachMajor]
    public async Task Without_the_privilege_the_grant_is_named_also_where_nothing_is_shown(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));
        await using LockHolder reading = await LockHolder.HoldAsync(bench.Database, "lock table orders in access share mode");
        Task<int> alter = bench.Database.ExecuteAsync("alter table orders add column n int", Token);
        await UntilAsync(bench, "waiting for a lock");

        await using ProgressReader reader = new(session, new() { Table = "orders" });
        Assert.Empty(await reader.ReadAsync(bench.Sink, Token));
        Assert.Contains($"GRANT pg_read_all_stats TO {stranger.Name}", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);

        // Granted while it is watched, it is shown from the next look on.
        await bench.Database.ExecuteAsync($"grant pg_read_all_stats to {stranger.Name}", Token);
        Assert.Single(await reader.ReadAsync(bench.Sink, Token));
        Assert.Single(bench.Sink.Warnings);
        await reading.CommitAsync(Token);
        await alter;
    }

    [Theory, EachMajor]
    public async Task A_backfill_is_seen_while_it_runs_and_while_it_is_interrupted(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers, major, "create table orders (id bigint primary key, tier text); insert into orders select i from generate_series(1, 5000) i; analyze orders");
        await using LockHolder row = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 4000 for update");
        using CancellationTokenSource ctrlC = new();
        BackfillPlan plan = await Backfill.PlanAsync(bench.Session, BackfillBench.Request("orders", "tier", "'standard'", batchSize: 700), bench.Sink, Token);
        Task<BackfillResult> backfill = Backfill.RunAsync(plan, bench.Sink, ctrlC.Token);

        // It passes over the locked row and comes back for it, until it is free.
        MigrationProgress? running = null;
        await Wait.UntilAsync(
            async () => (running = await ReadAsync(bench, new() { Table = "orders" }) is [{ } only] ? only : null) is { Pid: > 0, Done: 5000 }, "the backfill to have seen all rows", cancellationToken: Token);
        Assert.Equal(("BACKFILL", "public.orders"), (running!.Operation, running.Target));
        Assert.StartsWith("running", running.Phase, StringComparison.Ordinal);
        Assert.Equal((5000L, "rows read", 100.0), (running.Total, running.Unit, running.PhasePercent));
        Assert.StartsWith("MigrationSafety/", running.Application, StringComparison.Ordinal);
        Assert.Equal("postgres", running.User);
        Assert.Single(await ReadAsync(bench, new() { Pid = running.Pid }));
        // All rows were seen, but nobody says that it is over while it comes back for one.
        await Wait.UntilAsync(async () => (running = Assert.Single(await ReadAsync(bench, new() { Table = "orders" }))).Phase?.StartsWith("running, sweep", StringComparison.Ordinal) == true, "a sweep", cancellationToken: Token);
        Assert.InRange(running.Percent!.Value, 97, 99.9);

        await ctrlC.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => backfill);
        MigrationProgress? interrupted = null;
        await Wait.UntilAsync(async () => (interrupted = Assert.Single(await ReadAsync(bench, new()), p => p.Database == bench.Database.Name)).Pid == 0, "nobody to work on it", cancellationToken: Token);
        Assert.Equal("interrupted", interrupted!.Phase);
        Assert.Equal(5000, interrupted.Done);
        Assert.Empty(interrupted.BlockedBy);

        // A role that may not read it is shown none, and no error.
        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));
        Assert.DoesNotContain(await ReadAsync(session, new(), new RecordingSink()), p => p.Operation == "BACKFILL");

        await row.CommitAsync(Token);
        plan = await Backfill.PlanAsync(bench.Session, BackfillBench.Request("orders", "tier", "'standard'", batchSize: 700), bench.Sink, Token);
        Assert.Equal(BackfillOutcome.Completed, (await Backfill.RunAsync(plan, bench.Sink, Token)).Outcome);
        Assert.Empty(await ReadAsync(bench, new() { Table = "orders" }));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_backfill_that_is_waited_for_ends_as_this_run_of_it_does(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers, major, "create table orders (id bigint primary key, tier text); insert into orders select i from generate_series(1, 5000) i; analyze orders");
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        await bench.Database.ExecuteAsync($"alter role {role.Name} superuser", Token);
        EngineSession doomed = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, role.Name));

        // Until it is free, it passes over the locked row and comes back for it.
        using CancellationTokenSource ctrlC = new();
        await using (LockHolder row = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 4000 for update"))
        {
            Task<BackfillResult> stopped = FillAsync(bench.Session, bench, TimeSpan.FromMinutes(1), ctrlC.Token);
            Task<ProgressResult> cancelled = await WaitAsync(bench, stopped);
            await ctrlC.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => stopped);
            Assert.Equal(ProgressOutcome.Cancelled, (await cancelled).Outcome);
        }

        IndexBuildPlan index = await bench.PlanAsync(new() { Table = "orders", Column = ["tier"] });
        await OperationLog.RunAsync(index, bench.Sink, recorder => IndexBuilder.RunAsync(index, recorder, Token), Token);

        await using LockHolder again = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 4000 for update");
        // For so long it tries to connect again, too.
        Task<BackfillResult> killed = FillAsync(doomed, bench, TimeSpan.FromSeconds(8), Token);
        Task<ProgressResult> vanished = await WaitAsync(bench, killed);
        MigrationProgress resumed = Assert.Single(await ReadAsync(bench, new() { Table = "orders" }));
        TimeSpan sinceIndex = await bench.Database.ScalarAsync<TimeSpan>("select clock_timestamp() - finished_at from migration_safety.operation where operation = 'IndexBuild'", Token);
        await bench.Database.ExecuteAsync($"alter role {role.Name} nologin; select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role.Name}'", Token);
        await Assert.ThrowsAsync<MigrationException>(() => killed);
        Assert.Equal((ProgressOutcome.Vanished, resumed.Pid), ((await vanished).Outcome, (await vanished).Pid));
        // What it did before it was stopped, and the pause, are not of this run.
        Assert.True(resumed.Elapsed < sinceIndex, resumed.ToString());

        Task<BackfillResult> done = FillAsync(bench.Session, bench, TimeSpan.FromMinutes(1), Token);
        Task<ProgressResult> finished = await WaitAsync(bench, done);
        await again.CommitAsync(Token);
        await done;
        Assert.Equal(ProgressOutcome.Finished, (await finished).Outcome);
    }

    [Theory, EachMajor]
    public async Task Operations_that_no_view_shows_are_shown_and_waited_for_as_a_whole(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; create index ix on orders (tier)");
        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        await bench.Database.ExecuteAsync($"grant pg_read_all_stats to {stranger.Name}", Token);
        EngineSession blind = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));
        await using ProgressReader watching = new(blind, new() { Table = "orders" });
        Assert.Empty(await watching.ReadAsync(bench.Sink, Token));
        LockHolder old = await LockHolder.HoldAsync(bench.Database, "lock table orders in access share mode");
        await using (old)
        {
            // A younger transaction is for the server's own DROP to wait for.
            await Wait.UntilAsync(
                async () => await bench.Database.ScalarAsync<bool>($"select clock_timestamp() - xact_start > interval '1 s' from pg_stat_activity where pid = {old.Pid}", Token), "an old transaction", cancellationToken: Token);
            IndexDropPlan drop = await IndexDropper.PlanAsync(bench.Session, new() { Name = "ix" }, bench.Sink, Token);
            Task<IndexDropResult> dropping = OperationLog.RunAsync(drop, bench.Sink, recorder => IndexDropper.RunAsync(drop, recorder, Token), Token);
            MigrationProgress dropped = await UntilAsync(bench, "waiting for old transactions");
            Assert.Equal(("INDEX DROP", "public.orders"), (dropped.Operation, dropped.Target));
            Assert.Equal((old.Pid, $"transaction of pid {old.Pid}"), (Assert.Single(dropped.BlockedBy), dropped.WaitingFor));
            Assert.Equal("MigrationSafety/index-drop", dropped.Application);
            Assert.True(dropped.Elapsed > TimeSpan.Zero);

            IndexBuildPlan build = await bench.PlanAsync(new() { Table = "orders", Column = ["id"] });
            Task<IndexBuildResult> building = OperationLog.RunAsync(build, bench.Sink, recorder => IndexBuilder.RunAsync(build, recorder, Token), Token);
            MigrationProgress queued = await UntilAsync(bench, "waiting for another operation on the table");
            Assert.Equal(("INDEX BUILD", "public.orders"), (queued.Operation, queued.Target));
            Assert.Equal([dropped.Pid], queued.BlockedBy);
            Assert.Single(await ReadAsync(bench, new() { Pid = dropped.Pid }));
            // A connection of the log that was lost, and one that took its place, while the server has not noticed yet.
            await using (await LockHolder.HoldAsync(bench.Database, "select pg_advisory_xact_lock_shared((1298748268::int8 << 32) | 1)"))
            {
                Assert.Equal(2, (await ReadAsync(bench, new() { Table = "orders" })).Count);
            }

            // The log was made while it watched; a role that may not read it is told the grant.
            Assert.Empty(await watching.ReadAsync(new RecordingSink(), Token));
            RecordingSink told = new();
            Assert.Empty(await watching.ReadAsync(told, Token));
            string grant = Assert.Single(told.Warnings);
            await bench.Database.ExecuteAsync(grant[(grant.IndexOf(": GRANT", StringComparison.Ordinal) + 1)..], Token);
            await using (ProgressReader granted = new(blind, new() { Table = "orders" }))
            {
                Assert.Equal(2, (await granted.ReadAsync(bench.Sink, Token)).Count);
            }

            List<ProgressResult> ended = [];
            RecordingSink sink = new();
            Task waiting = ProgressWait.RunAsync(bench.Session, new() { Table = "orders" }, TimeSpan.FromMilliseconds(20), ended.Add, sink, null, Token);
            await Wait.UntilAsync(() => sink.ProgressRecords.Count > 0, "progress", cancellationToken: Token);
            await old.CommitAsync(Token);
            await dropping;
            await building;
            await waiting;
            // One each, whatever they were at meanwhile.
            Assert.Equal(2, ended.Count);
            Assert.All(ended, result => Assert.Equal((ProgressOutcome.Finished, "It is recorded as done.", "public.orders"), (result.Outcome, result.Detail, result.Target)));
        }

        MigrationOperation entry = (await HistoryReader.ReadAsync(bench.Session, new() { Operation = ["IndexBuild"] }, bench.Sink, Token))[0];
        OperationPhase turn = entry.Phases.Single(phase => phase.Name == "waiting for another operation on the table");
        Assert.Equal((null, "public.orders"), (turn.Command, turn.Target));
        Assert.InRange(turn.WaitTime, TimeSpan.FromTicks(1), entry.WaitTime + TimeSpan.FromMicroseconds(1));
        Assert.Empty(await ReadAsync(bench, new() { Table = "orders" }));
    }

    private static async Task<BackfillResult> FillAsync(EngineSession session, IndexBench bench, TimeSpan retryFor, CancellationToken cancellationToken)
    {
        BackfillPlan plan = await Backfill.PlanAsync(session, BackfillBench.Request("orders", "tier", "'standard'", batchSize: 700, retryFor: retryFor), bench.Sink, Token);
        return await OperationLog.RunAsync(plan, bench.Sink, recorder => Backfill.RunAsync(plan, recorder, cancellationToken), cancellationToken);
    }

    /// <summary>Waits for the one operation on the table, from when it is at work.</summary>
    private static async Task<Task<ProgressResult>> WaitAsync(IndexBench bench, Task operation)
    {
        await Wait.UntilAsync(
            async () =>
            {
                if (operation.IsCompleted)
                    await operation;
                return await ReadAsync(bench, new() { Table = "orders" }) is [{ Pid: > 0 }];
            },
            "an operation to be at work",
            cancellationToken: Token);
        RecordingSink sink = new();
        async Task<ProgressResult> EndAsync()
        {
            List<ProgressResult> ended = [];
            await ProgressWait.RunAsync(bench.Session, new() { Table = "orders" }, TimeSpan.FromMilliseconds(100), ended.Add, sink, null, Token);
            return Assert.Single(ended);
        }

        Task<ProgressResult> waiting = EndAsync();
        await Wait.UntilAsync(() => waiting.IsCompleted || sink.ProgressRecords.Count > 0, "progress", cancellationToken: Token);
        return waiting;
    }
}
