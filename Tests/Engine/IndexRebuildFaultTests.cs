using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Whatever happens to a rebuild, in whichever of its phases: after one more run the index is valid, and there is nothing else.</summary>
public sealed class IndexRebuildFaultTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int primary key, tier text);
        insert into orders select i, 'tier ' || i from generate_series(1, 1000) i;
        create unique index ix on orders (tier)
        """;

    private const string Reader = "lock table orders in access share mode";

    // Each phase with what it waits for; the last comes after the one before it.
    private static readonly (string Phase, string[] Hold)[] s_phases =
    [
        ("waiting for writers before build", ["insert into orders values (0, 'x')"]),
        ("waiting for old snapshots", ["set transaction isolation level repeatable read", "select 1"]),
        ("waiting for readers before marking dead", [Reader]),
        ("waiting for readers before dropping", [Reader]),
    ];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static IndexRebuildRequest Request => new() { Name = "ix" };

    [Theory, EachMajor]
    public async Task Cancelled_by_somebody(int major)
    {
        foreach (int phase in PhasesOf(major))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using Rebuild rebuild = await Rebuild.StartAsync(bench, bench.Session, phase);
            await bench.Database.ExecuteAsync($"select pg_cancel_backend({rebuild.Pid})", Token);
            await rebuild.ReleaseAsync();
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => rebuild.Running);
            Assert.Equal("CancelledByOther", e.ErrorId);
            Assert.Contains("Nothing is left of it", e.Message, StringComparison.Ordinal);
            await IndexRebuildTests.NothingIsLeftAsync(bench);
            await OneMoreRunAsync(bench, rebuild);
        }
    }

    [Theory, EachMajor]
    public async Task Terminated_by_somebody(int major)
    {
        foreach (int phase in PhasesOf(major))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using Rebuild rebuild = await Rebuild.StartAsync(bench, bench.Session, phase);
            await bench.Database.ExecuteAsync($"select pg_terminate_backend({rebuild.Pid})", Token);
            await rebuild.ReleaseAsync();
            Assert.Equal("TerminatedByOther", (await Assert.ThrowsAsync<MigrationException>(() => rebuild.Running)).ErrorId);
            await OneMoreRunAsync(bench, rebuild);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Ctrl_C_removes_what_is_left_or_names_it(int major)
    {
        foreach (int phase in PhasesOf(major))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using Rebuild rebuild = await Rebuild.StartAsync(bench, bench.Session, phase);
            await rebuild.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => rebuild.Running);
            string[] left = await bench.IndexesAsync("ix_ccnew", "ix_ccold");
            Assert.True(left.Length == 0 || bench.Sink.Warnings.Any(warning => warning.Contains("invalid index public.ix_cc", StringComparison.Ordinal)), $"{s_phases[phase].Phase}: {string.Join(' ', left)}");
            await bench.AssertNothingHeldAsync();
            await OneMoreRunAsync(bench, rebuild);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_dropped_connection_is_replaced_and_the_rebuild_ends(int major)
    {
        foreach (int phase in PhasesOf(major))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using TcpProxy proxy = TcpProxy.Start(bench.Database.Server);
            await using Rebuild rebuild = await Rebuild.StartAsync(bench, await bench.SessionAsync(proxy.ConnectionString), phase);
            uint before = await bench.Database.ScalarAsync<uint>("select 'ix'::regclass::oid", Token);
            proxy.DropAll();
            await Wait.UntilAsync(() => bench.Sink.Warnings.Any(warning => warning.Contains("Next attempt", StringComparison.Ordinal)), "the next attempt to be announced", cancellationToken: Token);
            await rebuild.ReleaseAsync();
            IndexRebuildResult result = Assert.Single(await rebuild.Running);
            Assert.Equal(IndexRebuildOutcome.Rebuilt, result.Outcome);
            // Once the new index has taken over it is not built a second time.
            Assert.Equal(phase >= 2, before == await bench.Database.ScalarAsync<uint>("select 'ix'::regclass::oid", Token));
            await IndexRebuildTests.NothingIsLeftAsync(bench);
            await OneMoreRunAsync(bench, rebuild);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Ctrl_C_works_although_the_network_says_nothing(int major)
    {
        foreach (int phase in PhasesOf(major))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
            await using TcpProxy proxy = TcpProxy.Start(bench.Database.Server);
            await using Rebuild rebuild = await Rebuild.StartAsync(bench, await bench.SessionAsync(proxy.ConnectionString), phase);
            proxy.Freeze();
            // Not awaited: the driver sends the cancellation in a callback of the token, and waits there until the network is back.
            Task cancelling = rebuild.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => rebuild.Running.WaitAsync(TimeSpan.FromSeconds(15), Token));
            Assert.Contains(bench.Sink.Warnings, warning => warning.Contains("may be left, or the server may still be building it", StringComparison.Ordinal));
            proxy.DropAll();
            proxy.Thaw();
            await cancelling;
            await OneMoreRunAsync(bench, rebuild);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_server_that_stops_at_once_and_starts_again(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        foreach (int phase in PhasesOf(major))
        {
            await using IndexBench bench = await IndexBench.CreateAsync(server, Orders);
            await using Rebuild rebuild = await Rebuild.StartAsync(bench, bench.Session, phase);
            await server.StopAsync(StopMode.Immediate, Token);
            await server.StartAgainAsync(Token);
            Assert.Equal(IndexRebuildOutcome.Rebuilt, Assert.Single(await rebuild.Running).Outcome);
            bench.Database.DataSource.Clear();
            await IndexRebuildTests.NothingIsLeftAsync(bench);
            await OneMoreRunAsync(bench, rebuild);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task The_wait_is_bounded_and_what_cannot_be_removed_is_named(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        // It has used the table as well: dropping the copy waits for that.
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select count(*) from orders");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => IndexRebuildTests.RebuildAsync(bench, Request with { Options = new() { WaitFor = TimeSpan.FromSeconds(0.5) } }));
        Assert.Equal("WaitedTooLong", e.ErrorId);
        Assert.Contains("invalid index public.ix_ccnew is left", e.Message, StringComparison.Ordinal);
        Assert.Equal(old.Pid, Assert.Single(e.Blockers).Pid);
        await old.CommitAsync(Token);
        IndexRebuildResult result = Assert.Single(await IndexRebuildTests.RebuildAsync(bench, Request));
        Assert.Equal((IndexRebuildOutcome.Rebuilt, 2), (result.Outcome, result.Steps.Length));
        await IndexRebuildTests.NothingIsLeftAsync(bench);
    }

    /// <summary>All of them on the newest major, two on each of the others.</summary>
    private static IEnumerable<int> PhasesOf(int major) => Enumerable.Range(0, s_phases.Length).Where(phase => major == PostgresBinaries.Newest || (phase + major) % 2 == 0);

    private static async Task OneMoreRunAsync(IndexBench bench, Rebuild rebuild)
    {
        await rebuild.ReleaseAsync();
        IndexRebuildResult result = Assert.Single(await IndexRebuildTests.RebuildAsync(bench, Request));
        // A server that lost its client from sight may have finished while this run began.
        Assert.True(result.Outcome == IndexRebuildOutcome.Rebuilt || result.Reason == "Somebody else rebuilt it meanwhile.", $"{result.Outcome}: {result.Reason}");
        await IndexRebuildTests.NothingIsLeftAsync(bench);
        Assert.Equal(["ix:valid", "orders_pkey:valid"], await bench.IndexesAsync("ix", "orders_pkey", "ix_ccnew", "ix_ccold"));
        // It served all the time.
        Assert.True(await bench.Database.ScalarAsync<bool>("select indisunique from pg_index where indexrelid = 'ix'::regclass", Token));
    }

    /// <summary>A rebuild that is held in one of its phases.</summary>
    private sealed class Rebuild : IAsyncDisposable
    {
        private readonly CancellationTokenSource _ctrlC = new();
        private readonly List<LockHolder> _holders = [];

        internal int Pid { get; private set; }

        internal Task<IReadOnlyList<IndexRebuildResult>> Running { get; private set; } = null!;

        internal static async Task<Rebuild> StartAsync(IndexBench bench, EngineSession session, int phase)
        {
            Rebuild rebuild = new();
            bool second = phase == s_phases.Length - 1;
            rebuild._holders.Add(await LockHolder.HoldAsync(bench.Database, s_phases[phase].Hold));
            rebuild.Running = IndexRebuildTests.RebuildAsync(bench, Request, session, rebuild._ctrlC.Token);
            await bench.UntilPhaseAsync(s_phases[second ? phase - 1 : phase].Phase);
            if (second)
            {
                // It comes while the one before is awaited, and is met by the next wait.
                rebuild._holders.Add(await LockHolder.HoldAsync(bench.Database, s_phases[phase].Hold));
                await rebuild._holders[0].CommitAsync(Token);
                await bench.UntilPhaseAsync(s_phases[phase].Phase);
            }

            rebuild.Pid = await bench.Database.ScalarAsync<int>("select pid from pg_stat_progress_create_index where datname = current_database()", Token);
            return rebuild;
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
    }
}
