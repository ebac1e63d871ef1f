using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What befalls a backfill.</summary>
public enum BackfillFault
{
    ClientKilled,
    ConnectionDropped,
    ConnectionFrozen,
    WorkerTerminated,
    ServerStopped,
    Cancelled,
    TwoClients,
}

/// <summary>When it befalls it.</summary>
internal enum FaultMoment
{
    /// <summary>As soon as the client has connected: it plans or begins.</summary>
    Planning,

    /// <summary>The first range has been taken.</summary>
    FirstRange,

    /// <summary>At random, while rows are done.</summary>
    Random,

    /// <summary>The last range has been taken.</summary>
    LastRange,

    /// <summary>It sweeps.</summary>
    Sweep,
}

/// <summary>
/// Each fault at moments of backfills by blocks and along a key, with one worker and with four, each of which has its own: after one more run each row is done once, which
/// <c>n = n + 1</c> counts. The newest major has all of it, over a hundred moments; each other one a slice. MIGRATIONSAFETY_TEST_SEED makes the same choices again.
/// </summary>
public sealed class BackfillFaultMatrixTests(Servers servers)
{
    private const string SeedVariable = "MIGRATIONSAFETY_TEST_SEED";
    // Enough that a quick machine is not at the last range before its fault meets it.
    private const int Rows = 160_000;
    // Of the moments of a fault, so many have to meet a run that is under way: seven faults make a hundred.
    private const int FewestMoments = 15;

    private static readonly (BackfillStrategy Strategy, int Workers)[] s_walks = [(BackfillStrategy.Block, 1), (BackfillStrategy.Block, 4), (BackfillStrategy.Key, 1), (BackfillStrategy.Key, 4)];

    private static readonly int s_seed =
        int.TryParse(Environment.GetEnvironmentVariable(SeedVariable), NumberStyles.None, CultureInfo.InvariantCulture, out int seed) ? seed : Random.Shared.Next();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor(OnlyEdges = true)]
    public Task A_killed_client(int major) => RunAsync(major, BackfillFault.ClientKilled);

    [Theory, EachMajor(OnlyEdges = true)]
    public Task Dropped_connections(int major) => RunAsync(major, BackfillFault.ConnectionDropped);

    [Theory, EachMajor(OnlyEdges = true)]
    public Task Frozen_connections(int major) => RunAsync(major, BackfillFault.ConnectionFrozen);

    [Theory, EachMajor(OnlyEdges = true)]
    public Task A_terminated_worker(int major) => RunAsync(major, BackfillFault.WorkerTerminated);

    [Theory, EachMajor(OnlyEdges = true)]
    public Task A_server_that_stops_at_once(int major) => RunAsync(major, BackfillFault.ServerStopped);

    [Theory, EachMajor(OnlyEdges = true)]
    public Task A_cancelled_run(int major) => RunAsync(major, BackfillFault.Cancelled);

    [Theory, EachMajor(OnlyEdges = true)]
    public Task Two_clients_of_which_one_goes(int major) => RunAsync(major, BackfillFault.TwoClients);

    private async Task RunAsync(int major, BackfillFault fault)
    {
        TestContext.Current.TestOutputHelper?.WriteLine($"{SeedVariable}={s_seed}");
        bool whole = major == PostgresBinaries.Newest;
        List<(BackfillStrategy Strategy, int Workers)> walks = whole ? [.. s_walks] : [s_walks[(major + (int)fault) % s_walks.Length]];
        FaultMoment[] all = Enum.GetValues<FaultMoment>();
        FaultMoment[] moments = whole ? all : [.. all.Where(moment => ((int)moment + major + (int)fault) % all.Length < 2)];
        int met = 0;
        try
        {
            await Task.WhenAll(walks.Select(async (walk, cell) => Interlocked.Add(ref met, await MeetAsync(major, fault, walk, moments, new Random(s_seed + ((int)fault * s_walks.Length) + cell)))));
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{SeedVariable}={s_seed}: {e.Message}", e);
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{met} moments");
        Assert.True(met >= (whole ? FewestMoments : 1), $"Only {met} faults met a run that was under way ({SeedVariable}={s_seed}).");
    }

    /// <summary>Does it to one backfill at each of the moments, and lets one more run finish.</summary>
    /// <returns>At how many it was under way.</returns>
    private async Task<int> MeetAsync(int major, BackfillFault fault, (BackfillStrategy Strategy, int Workers) walk, FaultMoment[] moments, Random random)
    {
        await using PostgresServer? own = fault == BackfillFault.ServerStopped ? await PostgresServer.StartAsync(major, cancellationToken: Token) : null;
        PostgresServer server = own ?? await servers.Clusters.GetAsync(major);
        await using TcpProxy proxy = TcpProxy.Start(server);
        await using Cell cell = await Cell.CreateAsync(server, walk.Strategy, walk.Workers, Rows, fault is BackfillFault.ConnectionDropped or BackfillFault.ConnectionFrozen ? proxy.ConnectionString : db => db.ConnectionString);
        await cell.HoldAsync();
        int met = 0;
        foreach (FaultMoment moment in moments)
        {
            try
            {
                met += await MeetAsync(cell, fault, moment, random, server, proxy) ? 1 : 0;
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"{fault} at {moment}, {walk.Strategy}, {walk.Workers} workers: {e.Message}", e);
            }
        }

        await cell.OneMoreRunAsync();
        return met;
    }

    /// <summary>Lets it run, does it at the moment, and waits for how it takes it.</summary>
    /// <returns>Whether it was under way.</returns>
    private static async Task<bool> MeetAsync(Cell cell, BackfillFault fault, FaultMoment moment, Random random, PostgresServer server, TcpProxy proxy)
    {
        using Process? client = fault == BackfillFault.ClientKilled ? Client(cell) : null;
        if (client is null)
        {
            cell.Begin(fault == BackfillFault.TwoClients ? 2 : 1);
        }

        await cell.UntilAsync(moment, client);
        if (moment == FaultMoment.Random)
        {
            await Task.Delay(random.Next(500), Token);
        }

        bool underWay = await cell.IsUnderWayAsync(client);
        switch (fault)
        {
            case BackfillFault.ClientKilled:
                client!.Kill();
                await client.WaitForExitAsync(Token);
                break;
            case BackfillFault.ConnectionDropped:
                proxy.DropAll();
                break;
            case BackfillFault.ConnectionFrozen:
                proxy.Freeze();
                await Task.Delay(random.Next(300), Token);
                // As a firewall does in time.
                proxy.DropAll();
                proxy.Thaw();
                break;
            case BackfillFault.WorkerTerminated:
                await cell.TerminateAsync(random.Next(4));
                break;
            case BackfillFault.ServerStopped:
                await (random.Next(2) == 0 ? server.StopAsync(StopMode.Immediate, Token) : server.CrashAsync(Token));
                await server.StartAgainAsync(Token);
                await cell.HoldAsync();
                break;
            default:
                await cell.CancelAsync(random.Next(2));
                break;
        }

        await cell.AfterAsync(fault, moment);
        return underWay;
    }

    private static Process Client(Cell cell)
    {
        string folder = AppContext.BaseDirectory.Replace($"{Path.DirectorySeparatorChar}Engine{Path.DirectorySeparatorChar}", $"{Path.DirectorySeparatorChar}Sandbox{Path.DirectorySeparatorChar}", StringComparison.Ordinal);
        ProcessStartInfo info = new("dotnet", [Path.Combine(folder, "MigrationSafety.Sandbox.dll"), "backfill-client"]) { RedirectStandardInput = true, UseShellExecute = false };
        Process process = Process.Start(info)!;
        process.StandardInput.WriteLine(cell.Line);
        process.StandardInput.Close();
        return process;
    }

    /// <summary>A backfill in a database of its own.</summary>
    private sealed class Cell : IAsyncDisposable
    {
        private const int BatchSize = 100;
        private const string Done = "select coalesce(sum(rows_done), 0)::int8 from migration_safety.backfill_worker";

        private readonly BackfillBench _bench;
        private readonly BackfillRequest _request;
        private readonly int _rows;
        private readonly List<(Task<BackfillResult> Run, CancellationTokenSource Cancel)> _runs = [];
        private long _before;
        private LockHolder? _holder;

        private Cell(BackfillBench bench, BackfillStrategy strategy, int workers, int rows)
        {
            _bench = bench;
            _rows = rows;
            _request = BackfillBench.Request("t", "v", "1", "v is null", BatchSize) with { Set = [new("v", "1"), new("n", "n + 1")], Strategy = strategy, Workers = workers };
        }

        internal string Line => string.Create(CultureInfo.InvariantCulture, $"{_bench.Database.Server.Uri(_bench.Database.Name)}\t{_request.Strategy}\t{_request.Workers}\t{BatchSize}");

        internal static async Task<Cell> CreateAsync(PostgresServer server, BackfillStrategy strategy, int workers, int rows, Func<TestDatabase, string> connection) => new(
            await BackfillBench.CreateAsync(
                server,
                $"create table t (id bigint primary key, note text, v int, n int not null default 0); insert into t select i * 3, 'n' || i from generate_series(1, {rows}) i",
                connection),
            strategy,
            workers,
            rows);

        internal void Begin(int clients)
        {
            for (int i = _runs.Count(run => !run.Run.IsCompleted); i < clients; i++)
            {
                CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(Token);
                _runs.Add((_bench.RunAsync(_request, cancel.Token), cancel));
            }
        }

        /// <summary>Locks a row, which is passed over: the sweep cannot end while it is held. A server that stops lets it go.</summary>
        internal async Task HoldAsync()
        {
            await ReleaseAsync();
            _holder = await LockHolder.HoldAsync(_bench.Database, "select from t where id = 3 and v is null for update");
        }

        /// <summary>Waits for a moment, or until it is at its end.</summary>
        internal async Task UntilAsync(FaultMoment moment, Process? client) => await Wait.UntilAsync(
            async () => !IsAtWork(client) || moment switch
            {
                FaultMoment.Planning => await _bench.ScalarAsync<bool>("select exists (select from pg_stat_activity where application_name = 'MigrationSafety/backfill' and datname = current_database())"),
                FaultMoment.FirstRange => await RangesAsync("bool_or(run is not null)"),
                FaultMoment.LastRange => await RangesAsync("bool_and(run is not null)"),
                FaultMoment.Sweep => await _bench.StateExistsAsync() && await _bench.ScalarAsync<bool>("select sweep > 0 from migration_safety.backfill"),
                _ => await DoneAsync() > _before,
            },
            "the moment",
            TimeSpan.FromSeconds(60),
            Token);

        internal async Task<bool> IsUnderWayAsync(Process? client) => IsAtWork(client) && (await DoneAsync() < _rows);

        internal Task<int> TerminateAsync(int which) => _bench.Database.ExecuteAsync(
            $"select pg_terminate_backend(pid) from (select pid from pg_stat_activity where application_name = 'MigrationSafety/backfill' and datname = current_database() order by pid offset {which} limit 1) a", Token);

        internal Task CancelAsync(int which) => _runs.Where(run => !run.Run.IsCompleted).ElementAtOrDefault(which) is { Cancel: { } cancel } ? cancel.CancelAsync() : _runs[^1].Cancel.CancelAsync();

        /// <summary>What becomes of the run itself: it goes on, but for one that was cancelled.</summary>
        internal async Task AfterAsync(BackfillFault fault, FaultMoment moment)
        {
            _bench.Database.DataSource.Clear();
            foreach ((Task<BackfillResult> run, CancellationTokenSource cancel) in _runs.Where(run => run.Cancel.IsCancellationRequested).ToArray())
            {
                await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
                {
                    await run.WaitAsync(TimeSpan.FromSeconds(60), Token);
                    // It was faster.
                    cancel.Token.ThrowIfCancellationRequested();
                });
            }

            if (moment == FaultMoment.Planning && fault != BackfillFault.Cancelled)
            {
                // Nothing is begun: it may say that the server is gone, and the next round begins anew.
                await Wait.UntilAsync(async () => _runs.TrueForAll(run => run.Run.IsCompleted) || await RangesAsync("bool_or(run is not null)"), "it to begin or to end", TimeSpan.FromSeconds(60), Token);
                _runs.RemoveAll(run => run.Run.Exception?.InnerException is MigrationException { Kind: MigrationErrorKind.Connection });
            }

            foreach ((Task<BackfillResult> run, _) in _runs.Where(run => run.Run.IsFaulted))
            {
                Assert.Fail($"{run.Exception!.InnerException}");
            }

            _before = await DoneAsync();
        }

        /// <summary>After it each row is done, and none twice.</summary>
        internal async Task OneMoreRunAsync()
        {
            await ReleaseAsync();
            foreach ((Task<BackfillResult> run, CancellationTokenSource cancel) in _runs)
            {
                if (!cancel.IsCancellationRequested)
                {
                    await run.WaitAsync(TimeSpan.FromSeconds(90), Token);
                }
            }

            await _bench.RunAsync(_request);
            string where = $"{_request.Strategy}, {_request.Workers} workers: ";
            Assert.Equal(where + _rows, where + await _bench.ScalarAsync<long>("select count(*) from t where v = 1 and n = 1"));
            Assert.Equal(where + _rows, where + await _bench.ScalarAsync<long>(Done));
            Assert.Equal(where + "completed", where + await _bench.ScalarAsync<string>("select state from migration_safety.backfill"));
            await _bench.UntilNothingHeldAsync();
        }

        public async ValueTask DisposeAsync()
        {
            foreach ((Task<BackfillResult> run, CancellationTokenSource cancel) in _runs)
            {
                await cancel.CancelAsync();
                await Task.WhenAny(run);
                cancel.Dispose();
            }

            await ReleaseAsync();
            await _bench.DisposeAsync();
        }

        private bool IsAtWork(Process? client) => client is null ? !_runs.TrueForAll(run => run.Run.IsCompleted) : !client.HasExited;

        private async Task ReleaseAsync()
        {
            if (_holder is not null)
            {
                await _holder.DisposeAsync();
            }
        }

        /// <summary>What is true of the ranges; false where there are none yet.</summary>
        private async Task<bool> RangesAsync(string what) => await _bench.StateExistsAsync() && await _bench.ScalarAsync<bool>($"select coalesce({what}, false) from migration_safety.backfill_range");

        private async Task<long> DoneAsync() => await _bench.StateExistsAsync() ? await _bench.ScalarAsync<long>(Done) : 0;
    }
}
