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

/// <summary>
/// Each fault at random moments of backfills by blocks and along a key, with one worker and with four: after one more run each row is done once, which <c>n = n + 1</c> counts.
/// The newest major has all of it, over a hundred moments; each other one a slice. MIGRATIONSAFETY_TEST_SEED makes the same choices again.
/// </summary>
public sealed class BackfillFaultMatrixTests(Servers servers)
{
    private const string SeedVariable = "MIGRATIONSAFETY_TEST_SEED";
    // Enough that a quick machine is not at the end before the last fault meets it.
    private const int Rows = 160_000;
    private const int Rounds = 5;
    // Of the moments of a fault, so many have to meet a run that is under way: seven faults make a hundred.
    private const int FewestMoments = 15;

    private static readonly (BackfillStrategy Strategy, int Workers)[] s_walks = [(BackfillStrategy.Block, 1), (BackfillStrategy.Block, 4), (BackfillStrategy.Key, 1), (BackfillStrategy.Key, 4)];

    private static readonly int s_seed =
        int.TryParse(Environment.GetEnvironmentVariable(SeedVariable), NumberStyles.None, CultureInfo.InvariantCulture, out int seed) ? seed : Random.Shared.Next();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public Task A_killed_client(int major) => RunAsync(major, BackfillFault.ClientKilled);

    [Theory, EachMajor]
    public Task Dropped_connections(int major) => RunAsync(major, BackfillFault.ConnectionDropped);

    [Theory, EachMajor]
    public Task Frozen_connections(int major) => RunAsync(major, BackfillFault.ConnectionFrozen);

    [Theory, EachMajor]
    public Task A_terminated_worker(int major) => RunAsync(major, BackfillFault.WorkerTerminated);

    [Theory, EachMajor]
    public Task A_server_that_stops_at_once(int major) => RunAsync(major, BackfillFault.ServerStopped);

    [Theory, EachMajor]
    public Task A_cancelled_run(int major) => RunAsync(major, BackfillFault.Cancelled);

    [Theory, EachMajor]
    public Task Two_clients_of_which_one_goes(int major) => RunAsync(major, BackfillFault.TwoClients);

    private async Task RunAsync(int major, BackfillFault fault)
    {
        TestContext.Current.TestOutputHelper?.WriteLine($"{SeedVariable}={s_seed}");
        bool whole = major == PostgresBinaries.Newest;
        Random random = new(s_seed + (int)fault);
        await using PostgresServer? own = fault == BackfillFault.ServerStopped ? await PostgresServer.StartAsync(major, cancellationToken: Token) : null;
        PostgresServer server = own ?? await servers.Clusters.GetAsync(major);
        await using TcpProxy proxy = TcpProxy.Start(server);
        List<Cell> cells = [];
        int moments = 0;
        try
        {
            foreach ((BackfillStrategy strategy, int workers) in whole ? s_walks : [s_walks[(major + (int)fault) % s_walks.Length]])
            {
                cells.Add(await Cell.CreateAsync(server, strategy, workers, Rows, fault is BackfillFault.ConnectionDropped or BackfillFault.ConnectionFrozen ? proxy.ConnectionString : db => db.ConnectionString));
            }

            for (int round = 0; round < (whole ? Rounds : 2); round++)
            {
                moments += await MeetAsync([.. cells], fault, round, random, server, proxy);
            }

            await Task.WhenAll(cells.Select(cell => cell.OneMoreRunAsync()));
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{SeedVariable}={s_seed}, {moments} moments: {e.Message}", e);
        }
        finally
        {
            foreach (Cell cell in cells)
            {
                await cell.DisposeAsync();
            }
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{moments} moments");
        Assert.True(moments >= (whole ? FewestMoments : 1), $"Only {moments} faults met a run that was under way ({SeedVariable}={s_seed}).");
    }

    /// <summary>Lets all cells run, does it to them at a moment at random, and waits for how they take it.</summary>
    /// <returns>How many were under way.</returns>
    private static async Task<int> MeetAsync(Cell[] cells, BackfillFault fault, int round, Random random, PostgresServer server, TcpProxy proxy)
    {
        using Process? client = fault == BackfillFault.ClientKilled ? Client(cells) : null;
        foreach (Cell cell in cells)
        {
            if (client is null)
            {
                cell.Begin(fault == BackfillFault.TwoClients ? 2 : 1);
            }
        }

        await Task.WhenAll(cells.Select(cell => cell.MovesAsync(client)));
        await Task.Delay(random.Next(250), Token);
        int underWay = 0;
        foreach (Cell cell in cells)
        {
            underWay += await cell.IsUnderWayAsync() ? 1 : 0;
        }

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
                await Task.WhenAll(cells.Select(cell => cell.TerminateAsync(random.Next(4))));
                break;
            case BackfillFault.ServerStopped:
                await (round % 2 == 0 ? server.StopAsync(StopMode.Immediate, Token) : server.CrashAsync(Token));
                await server.StartAgainAsync(Token);
                break;
            default:
                await Task.WhenAll(cells.Select(cell => cell.CancelAsync(random.Next(2))));
                break;
        }

        await Task.WhenAll(cells.Select(cell => cell.AfterAsync(fault)));
        return underWay;
    }

    private static Process Client(IEnumerable<Cell> cells)
    {
        string folder = AppContext.BaseDirectory.Replace($"{Path.DirectorySeparatorChar}Engine{Path.DirectorySeparatorChar}", $"{Path.DirectorySeparatorChar}Sandbox{Path.DirectorySeparatorChar}", StringComparison.Ordinal);
        ProcessStartInfo info = new("dotnet", [Path.Combine(folder, "MigrationSafety.Sandbox.dll"), "backfill-client"]) { RedirectStandardInput = true, UseShellExecute = false };
        Process process = Process.Start(info)!;
        foreach (Cell cell in cells)
        {
            process.StandardInput.WriteLine(cell.Line);
        }

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

        /// <summary>Waits until it does rows, or is at its end.</summary>
        internal async Task MovesAsync(Process? client) => await Wait.UntilAsync(
            async () => await DoneAsync() > _before || (client?.HasExited ?? _runs.TrueForAll(run => run.Run.IsCompleted)),
            $"{_request.Strategy}, {_request.Workers} workers: rows to be done",
            TimeSpan.FromSeconds(60),
            Token);

        internal async Task<bool> IsUnderWayAsync() => await DoneAsync() < _rows;

        internal Task<int> TerminateAsync(int which) => _bench.Database.ExecuteAsync(
            $"select pg_terminate_backend(pid) from (select pid from pg_stat_activity where application_name = 'MigrationSafety/backfill' and datname = current_database() order by pid offset {which} limit 1) a", Token);

        internal Task CancelAsync(int which) => _runs.Where(run => !run.Run.IsCompleted).ElementAtOrDefault(which) is { Cancel: { } cancel } ? cancel.CancelAsync() : _runs[^1].Cancel.CancelAsync();

        /// <summary>What becomes of the run itself: it goes on, but for one that was cancelled.</summary>
        internal async Task AfterAsync(BackfillFault fault)
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

            foreach ((Task<BackfillResult> run, _) in _runs.Where(run => run.Run.IsFaulted))
            {
                Assert.Fail($"{fault}, {_request.Strategy}, {_request.Workers} workers: {run.Exception!.InnerException}");
            }

            _before = await DoneAsync();
        }

        /// <summary>After it each row is done, and none twice.</summary>
        internal async Task OneMoreRunAsync()
        {
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

            await _bench.DisposeAsync();
        }

        private async Task<long> DoneAsync() => await _bench.StateExistsAsync() ? await _bench.ScalarAsync<long>(Done) : 0;
    }
}
