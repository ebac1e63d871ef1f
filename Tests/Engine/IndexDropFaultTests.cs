using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Whatever happens to a drop, in whichever of its phases: its state is told, and after one more run the index is gone and the way back is known.</summary>
public sealed class IndexDropFaultTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int primary key, tier text);
        insert into orders select i, 'tier ' || i % 7 from generate_series(1, 1000) i;
        create index ix on orders (tier)
        """;

    private const string Reader = "lock table orders in access share mode";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Cancelled_by_somebody(int major)
    {
        foreach (Phase phase in PhasesOf(major).Where(phase => phase != Phase.Before))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using Drop drop = await Drop.StartAsync(bench, bench.Session, phase);
            await bench.Database.ExecuteAsync($"select pg_cancel_backend({drop.Pid})", Token);
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => drop.Running);
            Assert.Equal("CancelledByOther", e.ErrorId);
            Assert.Contains(InWords(phase), e.Message, StringComparison.Ordinal);
            await OneMoreRunAsync(bench, drop);
        }
    }

    [Theory, EachMajor]
    public async Task Terminated_by_somebody(int major)
    {
        foreach (Phase phase in PhasesOf(major).Where(phase => phase != Phase.Before))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using Drop drop = await Drop.StartAsync(bench, bench.Session, phase);
            await bench.Database.ExecuteAsync($"select pg_terminate_backend({drop.Pid})", Token);
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => drop.Running);
            Assert.Equal("TerminatedByOther", e.ErrorId);
            Assert.Contains(InWords(phase), e.Message, StringComparison.Ordinal);
            await OneMoreRunAsync(bench, drop);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Ctrl_C(int major)
    {
        foreach (Phase phase in PhasesOf(major))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using Drop drop = await Drop.StartAsync(bench, bench.Session, phase);
            await drop.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => drop.Running);
            if (phase == Phase.Before)
            {
                Assert.Equal(["ix:valid"], await bench.IndexesAsync("ix"));
            }
            else
            {
                Assert.Contains(InWords(phase), Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);
            }

            await bench.AssertNothingHeldAsync();
            await OneMoreRunAsync(bench, drop);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_dropped_connection_is_replaced_and_the_drop_ends(int major)
    {
        foreach (Phase phase in PhasesOf(major))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using TcpProxy proxy = TcpProxy.Start(bench.Database.Server);
            await using Drop drop = await Drop.StartAsync(bench, await bench.SessionAsync(proxy.ConnectionString), phase);
            proxy.DropAll();
            await Wait.UntilAsync(() => bench.Sink.Warnings.Any(warning => warning.Contains("Next attempt", StringComparison.Ordinal)), "the next attempt to be announced", cancellationToken: Token);
            await drop.ReleaseAsync();
            AssertKnown(await drop.Running);
            await OneMoreRunAsync(bench, drop);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_frozen_network_ends_it_and_says_that_the_state_is_unknown(int major)
    {
        foreach (Phase phase in PhasesOf(major).Where(phase => phase != Phase.Before))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using TcpProxy proxy = TcpProxy.Start(bench.Database.Server);
            await using Drop drop = await Drop.StartAsync(bench, await bench.SessionAsync(proxy.ConnectionString), phase);
            proxy.Freeze();
            // Not awaited: the driver sends the cancellation in a callback of the token, and waits there until the network is back.
            Task cancelling = drop.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => drop.Running.WaitAsync(TimeSpan.FromSeconds(15), Token));
            Assert.Contains(bench.Sink.Warnings, warning => warning.Contains("could not be asked. Run the same command again", StringComparison.Ordinal));
            proxy.DropAll();
            proxy.Thaw();
            await cancelling;
            await OneMoreRunAsync(bench, drop);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_server_that_stops_at_once_and_starts_again(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        foreach (Phase phase in PhasesOf(major))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(server, Orders);
            await using Drop drop = await Drop.StartAsync(bench, bench.Session, phase);
            await server.StopAsync(StopMode.Immediate, Token);
            await server.StartAgainAsync(Token);
            AssertKnown(await drop.Running);
            bench.Database.DataSource.Clear();
            await OneMoreRunAsync(bench, drop);
        }
    }

    /// <summary>All of them on the newest major, some on each of the others.</summary>
    private static IEnumerable<Phase> PhasesOf(int major) => Enum.GetValues<Phase>().Where(phase => major == PostgresBinaries.Newest || phase != (Phase)(major % 3));

    private static string InWords(Phase phase) => phase == Phase.FirstWait ? "public.ix is half dropped: no query uses it any more, and every write still pays for it" : "public.ix is all but dropped";

    private static void AssertKnown(IndexDropResult result)
    {
        Assert.Equal(IndexDropOutcome.Dropped, result.Outcome);
        MigrationStep step = Assert.Single(result.Steps);
        Assert.Equal((StepState.Done, "CREATE INDEX CONCURRENTLY ix ON public.orders USING btree (tier)"), (step.State, step.Reversal));
    }

    private static async Task OneMoreRunAsync(IndexBench bench, Drop drop)
    {
        await drop.ReleaseAsync();
        IndexDropPlan plan = await IndexDropper.PlanAsync(bench.Session, new() { Name = "ix" }, bench.Sink, Token);
        IndexDropResult result = await IndexDropper.RunAsync(plan, bench.Sink, Token);
        // Where the client was lost from sight, the server may have finished meanwhile.
        Assert.All(result.Steps, step => Assert.Equal("CREATE INDEX CONCURRENTLY ix ON public.orders USING btree (tier)", step.Reversal));
        Assert.Equal(plan.Steps.Count, result.Steps.Length);

        Assert.Equal(["orders_pkey:valid"], await bench.IndexesAsync("ix", "orders_pkey"));
        Assert.Equal(1000L, await bench.Database.ScalarAsync<long>("select count(*) from orders", Token));
    }

    private enum Phase
    {
        /// <summary>The index serves; old transactions are awaited.</summary>
        Before,

        /// <summary>It serves no more, and writes pay for it.</summary>
        FirstWait,

        /// <summary>It is marked dead.</summary>
        SecondWait,
    }

    /// <summary>A drop that is held in one of its phases by transactions that use the table.</summary>
    private sealed class Drop : IAsyncDisposable
    {
        private readonly CancellationTokenSource _ctrlC = new();
        private readonly List<LockHolder> _holders = [];
        private readonly IndexBench _bench;

        private Drop(IndexBench bench) => _bench = bench;

        internal int Pid { get; private set; }

        internal Task<IndexDropResult> Running { get; private set; } = null!;

        internal static async Task<Drop> StartAsync(IndexBench bench, EngineSession session, Phase phase)
        {
            Drop drop = new(bench);
            await drop.HoldAsync();
            await Wait.UntilAsync(
                async () => await bench.Database.ScalarAsync<bool>($"select clock_timestamp() - xact_start > '0.5 s' from pg_stat_activity where pid = {drop._holders[0].Pid}", Token), "the transaction to be an old one", cancellationToken: Token);
            IndexDropPlan plan = await IndexDropper.PlanAsync(session, new() { Name = "ix" }, bench.Sink, Token);
            drop.Running = IndexDropper.RunAsync(plan, bench.Sink, drop._ctrlC.Token);
            await Wait.UntilAsync(() => drop.Running.IsFaulted || bench.Sink.ProgressRecords.Any(p => p.Status == "not begun"), "the old transaction to be awaited", cancellationToken: Token);
            for (Phase at = Phase.Before; at < phase; at++)
            {
                // It comes while the one before is awaited, and is met by the next wait.
                LockHolder next = await drop.HoldAsync();
                await drop._holders[^2].CommitAsync(Token);
                await Wait.UntilAsync(async () => (drop.Pid = await bench.Database.ScalarAsync<int>(
                    $"select coalesce(min(pid), 0) from pg_stat_activity where datname = current_database() and application_name = 'MigrationSafety/index-drop' and {next.Pid} = any (pg_blocking_pids(pid))", Token)) != 0, $"the drop to wait for pid {next.Pid}", cancellationToken: Token);
            }

            return drop;
        }

        internal Task CancelAsync() => _ctrlC.CancelAsync();

        internal async Task ReleaseAsync()
        {
            foreach (LockHolder holder in _holders)
            {
                await holder.DisposeAsync();
            }

            _holders.Clear();
        }

        public async ValueTask DisposeAsync()
        {
            await ReleaseAsync();
            _ctrlC.Dispose();
        }

        private async Task<LockHolder> HoldAsync()
        {
            _holders.Add(await LockHolder.HoldAsync(_bench.Database, Reader));
            return _holders[^1];
        }
    }
}
