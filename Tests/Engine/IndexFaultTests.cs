using System.Diagnostics;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Whatever happens to a build: after one more run there is a valid index, and nothing else.</summary>
public sealed class IndexFaultTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int, tier text);
        insert into orders select i, md5(i::text) from generate_series(1, 1000) i
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static IndexBuildRequest Request => new() { Table = "orders", Column = ["tier", "id"] };

    [Theory, EachMajor]
    public async Task Terminated_by_somebody_it_is_not_tried_again_and_leaves_nothing(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await HoldSnapshotAsync(bench);
        Task<IndexBuildResult> build = bench.BuildAsync(Request);
        await bench.UntilPhaseAsync("waiting for old snapshots");
        await bench.Database.ExecuteAsync($"select pg_terminate_backend({await BuilderAsync(bench)})", Token);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => build);
        Assert.Equal(("TerminatedByOther", MigrationErrorKind.Stopped), (e.ErrorId, e.Kind));
        Assert.Empty(await bench.IndexesAsync("orders_tier_id_idx"));
        await OneMoreRunAsync(bench, old, IndexBuildOutcome.Built);
    }

    [Theory, EachMajor]
    public async Task Cancelled_by_somebody_it_leaves_nothing(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await HoldSnapshotAsync(bench);
        Task<IndexBuildResult> build = bench.BuildAsync(Request);
        await bench.UntilPhaseAsync("waiting for old snapshots");
        await bench.Database.ExecuteAsync($"select pg_cancel_backend({await BuilderAsync(bench)})", Token);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => build);
        Assert.Equal("CancelledByOther", e.ErrorId);
        Assert.Empty(await bench.IndexesAsync("orders_tier_id_idx"));
        await bench.AssertNothingHeldAsync();
        await OneMoreRunAsync(bench, old, IndexBuildOutcome.Built);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Ctrl_C_ends_it_on_the_server_within_a_second_and_leaves_nothing(int major)
    {
        // Large enough to be met while it builds.
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; insert into orders select i, md5(i::text) from generate_series(1001, 400000) i");
        foreach (string phase in new[] { "waiting for writers before build", "building index", "waiting for old snapshots" })
        {
            LockHolder old = await LockHolder.HoldAsync(
                bench.Database, phase.EndsWith("build", StringComparison.Ordinal) ? "insert into orders values (0, 'x')" : "set transaction isolation level repeatable read; select 1");
            await using (old)
            {
                using CancellationTokenSource ctrlC = new();
                Task<IndexBuildResult> build = bench.BuildAsync(Request, ctrlC.Token);
                await bench.UntilPhaseAsync(phase);
                int pid = await BuilderAsync(bench);
                long start = Stopwatch.GetTimestamp();
                await ctrlC.CancelAsync();
                await Wait.UntilAsync(
                    async () => !await bench.Database.ScalarAsync<bool>($"select exists (select from pg_stat_progress_create_index where pid = {pid})", Token), "the build to end on the server", TimeSpan.FromSeconds(5), Token);
                await Assert.ThrowsAnyAsync<OperationCanceledException>(() => build);
                Assert.True(Stopwatch.GetElapsedTime(start) < TimeSpan.FromSeconds(10), $"{phase}: {Stopwatch.GetElapsedTime(start)}");
                string[] left = await bench.IndexesAsync("orders_tier_id_idx");
                // A writer on the table keeps the drop waiting; then the warning has to say what is left.
                Assert.True(left.Length == 0 || bench.Sink.Warnings.Any(warning => warning.Contains("invalid index public.orders_tier_id_idx", StringComparison.Ordinal)), $"{phase}: {string.Join(' ', left)}");
                await bench.AssertNothingHeldAsync();
            }
        }

        await OneMoreRunAsync(bench, old: null, outcome: null);
    }

    [Theory, EachMajor]
    public async Task Ctrl_C_with_the_table_in_use_names_what_is_left(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select count(*) from orders");
        using CancellationTokenSource ctrlC = new();
        Task<IndexBuildResult> build = bench.BuildAsync(Request, ctrlC.Token);
        await bench.UntilPhaseAsync("waiting for old snapshots");
        await ctrlC.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => build);
        string warning = Assert.Single(bench.Sink.Warnings);
        Assert.Contains("The invalid index public.orders_tier_id_idx is left", warning, StringComparison.Ordinal);
        Assert.Equal(["orders_tier_id_idx:invalid"], await bench.IndexesAsync("orders_tier_id_idx"));
        await OneMoreRunAsync(bench, old, IndexBuildOutcome.Rebuilt);
    }

    [Theory, EachMajor]
    public async Task Ctrl_C_while_an_older_leftover_is_dropped_names_it(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("create index concurrently orders_tier_id_idx on orders (tier, id)");
        await using LockHolder reader = await LockHolder.HoldAsync(bench.Database, "select count(*) from orders");
        using CancellationTokenSource ctrlC = new();
        Task<IndexBuildResult> build = bench.BuildAsync(Request, ctrlC.Token);
        await Wait.UntilAsync(
            async () => await bench.Database.ScalarAsync<bool>("select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like 'DROP INDEX CONCURRENTLY%')", Token),
            "the drop to wait",
            cancellationToken: Token);
        await ctrlC.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => build);
        Assert.Contains("The invalid index public.orders_tier_id_idx is left", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);
        await OneMoreRunAsync(bench, reader, IndexBuildOutcome.Rebuilt);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Long_attempts_that_fail_each_time_come_to_an_end(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        TimeSpan retryFor = TimeSpan.FromSeconds(2);
        IndexAttempts attempts = new(bench.Session, "test", new() { RetryFor = retryFor }, TimeSpan.FromSeconds(15), bench.Sink);
        int made = 0;
        await Assert.ThrowsAsync<MigrationException>(() => attempts.RunAsync<int>(
            async (_, token) =>
            {
                made++;
                await Task.Delay(retryFor + TimeSpan.FromMilliseconds(50), token);
                throw new MigrationException("ConnectionLost", MigrationErrorKind.Connection, "Lost.", "None.");
            },
            () => "Test",
            "orders",
            Token));
        Assert.Equal(3, made);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_dropped_connection_is_replaced_and_the_build_ends_valid(int major)
    {
        await using IndexBench direct = await IndexBench.CreateAsync(servers, major, Orders);
        await using TcpProxy proxy = TcpProxy.Start(direct.Database.Server);
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(await direct.SessionAsync(proxy.ConnectionString), Request, direct.Sink, Token);
        await using LockHolder old = await HoldSnapshotAsync(direct);
        Task<IndexBuildResult> build = IndexBuilder.RunAsync(plan, direct.Sink, Token);
        await direct.UntilPhaseAsync("waiting for old snapshots");
        proxy.DropAll();
        await Wait.UntilAsync(() => direct.Sink.Warnings.Any(warning => warning.Contains("Next attempt", StringComparison.Ordinal)), "the next attempt to be announced", cancellationToken: Token);
        await old.CommitAsync(Token);
        IndexBuildResult result = await build;
        Assert.Contains(result.Outcome, new[] { IndexBuildOutcome.Built, IndexBuildOutcome.Rebuilt });
        Assert.Equal(["orders_tier_id_idx:valid"], await direct.IndexesAsync("orders_tier_id_idx"));
        await OneMoreRunAsync(direct, old: null, IndexBuildOutcome.AlreadyValid);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_frozen_connection_is_noticed_and_replaced(int major)
    {
        await using IndexBench direct = await IndexBench.CreateAsync(servers, major, Orders);
        await using TcpProxy proxy = TcpProxy.Start(direct.Database.Server);
        IndexBuildRequest request = Request with { Silence = TimeSpan.FromSeconds(2) };
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(await direct.SessionAsync(proxy.ConnectionString), request, direct.Sink, Token);
        await using LockHolder old = await HoldSnapshotAsync(direct);
        Task<IndexBuildResult> build = IndexBuilder.RunAsync(plan, direct.Sink, Token);
        await direct.UntilPhaseAsync("waiting for old snapshots");
        proxy.Freeze();
        await Wait.UntilAsync(() => direct.Sink.Warnings.Any(warning => warning.Contains("has not answered", StringComparison.Ordinal)), "the silence to be noticed", cancellationToken: Token);
        // The old backend does not know that its client is gone: cut its line, as a firewall does in time.
        proxy.DropAll();
        proxy.Thaw();
        await old.CommitAsync(Token);
        IndexBuildResult result = await build;
        Assert.Contains(result.Outcome, new[] { IndexBuildOutcome.Built, IndexBuildOutcome.Rebuilt });
        await OneMoreRunAsync(direct, old: null, IndexBuildOutcome.AlreadyValid);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_network_that_stays_away_ends_it_and_names_what_may_be_left(int major)
    {
        await using IndexBench direct = await IndexBench.CreateAsync(servers, major, Orders);
        await using TcpProxy proxy = TcpProxy.Start(direct.Database.Server);
        IndexBuildRequest request = Request with { Silence = TimeSpan.FromSeconds(1), Options = new() { RetryFor = TimeSpan.Zero } };
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(await direct.SessionAsync(proxy.ConnectionString), request, direct.Sink, Token);
        await using LockHolder old = await HoldSnapshotAsync(direct);
        Task<IndexBuildResult> build = IndexBuilder.RunAsync(plan, direct.Sink, Token);
        await direct.UntilPhaseAsync("waiting for old snapshots");
        proxy.Freeze();
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => build.WaitAsync(TimeSpan.FromSeconds(25), Token));
        Assert.Equal(("ConnectionLost", MigrationErrorKind.Connection), (e.ErrorId, e.Kind));
        Assert.Contains("An invalid index public.orders_tier_id_idx may be left", e.Message, StringComparison.Ordinal);
        proxy.DropAll();
        proxy.Thaw();
        await OneMoreRunAsync(direct, old, outcome: null);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Ctrl_C_works_although_the_network_says_nothing(int major)
    {
        await using IndexBench direct = await IndexBench.CreateAsync(servers, major, Orders);
        await using TcpProxy proxy = TcpProxy.Start(direct.Database.Server);
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(await direct.SessionAsync(proxy.ConnectionString), Request, direct.Sink, Token);
        await using LockHolder old = await HoldSnapshotAsync(direct);
        CancellationTokenSource ctrlC = new();
        Task<IndexBuildResult> build = IndexBuilder.RunAsync(plan, direct.Sink, ctrlC.Token);
        await direct.UntilPhaseAsync("waiting for old snapshots");
        proxy.Freeze();
        // Not awaited: the driver sends the cancellation in a callback of the token, and waits there until the network is back.
        Task cancelling = ctrlC.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => build.WaitAsync(TimeSpan.FromSeconds(10), Token));
        Assert.Contains(direct.Sink.Warnings, warning => warning.Contains("may be left, or the server may still be building it", StringComparison.Ordinal));
        proxy.DropAll();
        proxy.Thaw();
        await cancelling;
        await OneMoreRunAsync(direct, old, outcome: null);
    }

    [Theory, EachMajor]
    public async Task A_server_that_stops_at_once_and_starts_again_gets_its_index(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using IndexBench bench = await IndexBench.CreateAsync(server, Orders);
        await using LockHolder old = await HoldSnapshotAsync(bench);
        Task<IndexBuildResult> build = bench.BuildAsync(Request);
        await bench.UntilPhaseAsync("waiting for old snapshots");
        await server.StopAsync(StopMode.Immediate, Token);
        await server.StartAgainAsync(Token);
        IndexBuildResult result = await build;
        Assert.Equal(IndexBuildOutcome.Rebuilt, result.Outcome);
        Assert.True(result.Attempts >= 2);
        bench.Database.DataSource.Clear();
        Assert.Equal(["orders_tier_id_idx:valid"], await bench.IndexesAsync("orders_tier_id_idx"));
        await OneMoreRunAsync(bench, old: null, IndexBuildOutcome.AlreadyValid);
    }

    [Theory, EachMajor]
    public async Task A_deadlock_is_tried_again(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        // The other one is patient: the build's check for deadlocks comes first, and the build is its victim.
        await using LockHolder other = await LockHolder.HoldAsync(bench.Database, "set local deadlock_timeout = '1min'", "insert into orders values (0, 'x')");
        Task<IndexBuildResult> build = bench.BuildAsync(Request);
        await bench.UntilPhaseAsync("waiting for writers before build");
        await other.Connection.ExecuteAsync("lock table orders in share update exclusive mode", Token);
        await other.CommitAsync(Token);
        IndexBuildResult result = await build;
        Assert.Equal(IndexBuildOutcome.Rebuilt, result.Outcome);
        Assert.Equal(2, result.Attempts);
        Assert.Contains(bench.Sink.Warnings, warning => warning.Contains("deadlock", StringComparison.Ordinal));
        Assert.Equal(["orders_tier_id_idx:valid"], await bench.IndexesAsync("orders_tier_id_idx"));
    }

    private static Task<LockHolder> HoldSnapshotAsync(IndexBench bench) =>
        LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");

    private static async Task<int> BuilderAsync(IndexBench bench) =>
        await bench.Database.ScalarAsync<int>("select pid from pg_stat_progress_create_index where datname = current_database()", Token);

    private static async Task OneMoreRunAsync(IndexBench bench, LockHolder? old, IndexBuildOutcome? outcome)
    {
        if (old is not null)
        {
            await old.CommitAsync(Token);
        }

        IndexBuildResult result = await bench.BuildAsync(Request);
        Assert.Equal(outcome ?? result.Outcome, result.Outcome);
        Assert.Equal(["orders_tier_id_idx:valid"], await bench.IndexesAsync("orders_tier_id_idx"));
        Assert.Equal(1L, await bench.Database.ScalarAsync<long>("select count(*) from pg_index i join pg_class c on c.oid = i.indrelid where c.relname = 'orders'", Token));
    }
}
