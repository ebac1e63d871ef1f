using System.Diagnostics;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What befalls a build.</summary>
public enum BuildFault
{
    ClientKilled,
    ConnectionDropped,
    ConnectionFrozen,
    BackendTerminated,
    ServerStopped,
    Cancelled,
}

/// <summary>
/// Each fault in each phase of a plain, a unique and a partitioned build: after one more run there is a valid index, and no leftover. The newest major has all cells;
/// each cell runs on one of the others too. The cells of a fault are met at the same time, each in a database of its own.
/// </summary>
public sealed class IndexFaultMatrixTests
{
    private static readonly string[] s_phases =
    [
        "waiting for writers before build", "building index", "waiting for writers before validation", "index validation: scanning table", "waiting for old snapshots",
    ];

    private static readonly string[] s_kinds = ["plain", "unique", "partitioned"];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public Task A_killed_client(int major) => RunAsync(major, BuildFault.ClientKilled);

    [Theory, EachMajor]
    public Task A_dropped_connection(int major) => RunAsync(major, BuildFault.ConnectionDropped);

    [Theory, EachMajor]
    public Task A_frozen_connection(int major) => RunAsync(major, BuildFault.ConnectionFrozen);

    [Theory, EachMajor]
    public Task A_terminated_backend(int major) => RunAsync(major, BuildFault.BackendTerminated);

    [Theory, EachMajor]
    public Task A_server_that_stops_at_once(int major) => RunAsync(major, BuildFault.ServerStopped);

    [Theory, EachMajor]
    public Task A_cancelled_build(int major) => RunAsync(major, BuildFault.Cancelled);

    private static async Task RunAsync(int major, BuildFault fault)
    {
        int offset = (int)fault;
        (string Phase, string Kind)[] cells =
        [
            .. s_phases.SelectMany(phase => s_kinds.Select(kind => (phase, kind)))
                .Where((_, i) => major == PostgresBinaries.Newest || (i + offset) % (PostgresBinaries.Majors.Count - 1) == PostgresBinaries.Majors.ToList().IndexOf(major)),
        ];
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using TcpProxy proxy = TcpProxy.Start(server);
        Cell[] all = await Task.WhenAll(cells.Select(cell => Cell.CreateAsync(server, cell.Phase, cell.Kind)));
        using Process? client = fault == BuildFault.ClientKilled ? BuildClient.Start(all.Select(cell => (cell.Uri, cell.Statement))) : null;
        try
        {
            await MeetAsync(all, fault, client, server, proxy);
            await Task.WhenAll(all.Select(cell => cell.OneMoreRunAsync()));
        }
        finally
        {
            client?.Kill();
            foreach (Cell cell in all)
            {
                await cell.DisposeAsync();
            }
        }
    }

    /// <summary>Brings all builds into their phases, does it to them, and waits for how they take it.</summary>
    private static async Task MeetAsync(Cell[] cells, BuildFault fault, Process? client, PostgresServer server, TcpProxy proxy)
    {
        using CancellationTokenSource ctrlC = new();
        foreach (Cell cell in cells)
        {
            if (client is null)
            {
                await cell.BeginAsync(fault is BuildFault.ConnectionDropped or BuildFault.ConnectionFrozen ? proxy.ConnectionString : db => db.ConnectionString, ctrlC.Token);
            }
        }

        await Task.WhenAll(cells.Select(cell => cell.ReachAsync()));
        switch (fault)
        {
            case BuildFault.ClientKilled:
                client!.Kill();
                await client.WaitForExitAsync(Token);
                break;
            case BuildFault.ConnectionDropped:
                proxy.DropAll();
                break;
            case BuildFault.ConnectionFrozen:
                proxy.Freeze();
                await Task.WhenAll(cells.Select(cell => cell.NoticeAsync("has not answered")));
                // The old backends do not know that their clients are gone: cut their lines, as a firewall does in time.
                proxy.DropAll();
                proxy.Thaw();
                break;
            case BuildFault.BackendTerminated:
                await Task.WhenAll(cells.Select(cell => cell.TerminateAsync()));
                break;
            case BuildFault.ServerStopped:
                await server.StopAsync(StopMode.Immediate, Token);
                await server.StartAgainAsync(Token);
                break;
            default:
                await ctrlC.CancelAsync();
                break;
        }

        await Task.WhenAll(cells.Select(cell => cell.ReleaseAsync()));
        await Task.WhenAll(cells.Select(cell => cell.EndAsync(fault)));
    }

    /// <summary>A build in a database of its own, and who keeps it in its phase.</summary>
    private sealed class Cell : IAsyncDisposable
    {
        // The function waits for whoever holds the advisory lock that the value names: where the build has to call it, it is held up.
        private const string Common = """
            create function gate(v text) returns text immutable language plpgsql as $$
            begin
                if v like 'gate%' then
                    perform pg_advisory_lock_shared(right(v, 1)::int);
                    perform pg_advisory_unlock_shared(right(v, 1)::int);
                end if;
                return v;
            end $$;
            """;

        private readonly IndexBench _bench;
        private readonly string _phase;
        private readonly string _kind;
        private readonly List<LockHolder> _holders = [];
        private Task<IndexBuildResult>? _build;

        private Cell(IndexBench bench, string phase, string kind)
        {
            _bench = bench;
            _phase = phase;
            _kind = kind;
        }

        internal string Uri => _bench.Database.Server.Uri(_bench.Database.Name);

        internal bool Unique => _kind == "unique";

        internal string Statement => $"create {(Unique ? "unique " : "")}index ix on t (gate(v))";

        private IndexBuildRequest Request => new()
        {
            Table = "t",
            Column = ["gate(v)"],
            Name = "ix",
            Unique = Unique,
            // It would be held up at the gate as well.
            SkipDuplicateCheck = true,
            Silence = TimeSpan.FromSeconds(2),
        };

        internal static async Task<Cell> CreateAsync(PostgresServer server, string phase, string kind)
        {
            string table = kind == "partitioned"
                ? "create table t (id int, v text) partition by list (id); create table t0 partition of t for values in (1, 2, 3); create table t1 partition of t default;"
                : "create table t (id int, v text);";
            IndexBench bench = await IndexBench.CreateAsync(server, $"{Common} {table} insert into t select i, 'v' || i from generate_series(1, 200) i; insert into t values (100, 'gate1')");
            Cell cell = new(bench, phase, kind);
            // The first of those who will be in the way.
            await cell.HoldAsync(phase switch
            {
                // Into the partition itself: a writer on the whole keeps off the index on the whole already.
                "waiting for writers before build" => [$"insert into {(kind == "partitioned" ? "t1" : "t")} values (101, 'writer')"],
                "waiting for old snapshots" => ["set transaction isolation level repeatable read", "select 1"],
                _ => [Lock(1)],
            });
            return cell;
        }

        internal async Task BeginAsync(Func<TestDatabase, string> connection, CancellationToken ctrlC)
        {
            EngineSession session = await _bench.SessionAsync(connection);
            IndexBuildPlan plan = await IndexBuilder.PlanAsync(session, Request, _bench.Sink, Token);
            _build = IndexBuilder.RunAsync(plan, _bench.Sink, ctrlC);
        }

        /// <summary>Waits until the build is in its phase, and helps it there.</summary>
        internal async Task ReachAsync()
        {
            if (_phase is "waiting for writers before validation" or "index validation: scanning table")
            {
                await UntilAsync("building index");
                if (_phase[0] == 'w')
                {
                    await HoldAsync("insert into t values (102, 'writer')");
                }
                else
                {
                    await HoldAsync(Lock(2));
                    // The index does not take rows yet: the validation finds that this one is missing.
                    await _bench.Database.ExecuteAsync("insert into t values (103, 'gate2')", Token);
                }

                await _holders[0].RollbackAsync(Token);
            }

            await UntilAsync(_phase);
        }

        internal Task NoticeAsync(string words) => Wait.UntilAsync(
            () => _bench.Sink.Warnings.Any(warning => warning.Contains(words, StringComparison.Ordinal)), $"{_kind}, {_phase}: {words}", TimeSpan.FromSeconds(60), Token);

        internal Task<int> TerminateAsync() =>
            _bench.Database.ExecuteAsync("select pg_terminate_backend(pid) from pg_stat_progress_create_index where datname = current_database()", Token);

        internal async Task ReleaseAsync()
        {
            foreach (LockHolder holder in _holders)
            {
                await holder.DisposeAsync();
            }
        }

        /// <summary>What becomes of the build itself: those that can go on do.</summary>
        internal async Task EndAsync(BuildFault fault)
        {
            _bench.Database.DataSource.Clear();
            if (_build is null)
            {
                return;
            }

            Exception? e = await Record.ExceptionAsync(() => _build.WaitAsync(TimeSpan.FromSeconds(90), Token));
            string where = $"{_kind}, {_phase}: {e}";
            switch (fault)
            {
                case BuildFault.BackendTerminated:
                    Assert.True(e is MigrationException { ErrorId: "TerminatedByOther" }, where);
                    break;
                case BuildFault.Cancelled:
                    Assert.True(e is OperationCanceledException, where);
                    break;
                default:
                    Assert.True(e is null, where);
                    break;
            }
        }

        /// <summary>After it there is a valid index, and nothing else.</summary>
        internal async Task OneMoreRunAsync()
        {
            await _bench.BuildAsync(Request);
            string where = $"{_kind}, {_phase}: ";
            long expected = _kind == "partitioned" ? 3 : 1;
            IReadOnlyList<object?[]> indexes = await _bench.Database.QueryAsync(
                "select indexrelid::regclass::text || case when indisvalid and indisready and indislive then '' else ' invalid' end from pg_index where indrelid in (select relid from pg_partition_tree('t') union select 't'::regclass) order by 1",
                Token);
            Assert.Equal(
                where + (expected == 1 ? "ix" : "ix t0_gate_idx t1_gate_idx"),
                where + string.Join(' ', indexes.Select(row => row[0])));
            await Wait.UntilAsync(
                async () => await _bench.Database.ScalarAsync<long>("select count(*) from pg_locks l join pg_database d on d.oid = l.database where d.datname = current_database() and l.locktype = 'advisory'", Token) == 0,
                where + "no lock to be held",
                cancellationToken: Token);
        }

        public ValueTask DisposeAsync() => _bench.DisposeAsync();

        // A SELECT would keep a snapshot too, for which the partition before this one would wait.
        private static string Lock(int number) => $"do $$ begin perform pg_advisory_xact_lock({number}); end $$";

        private async Task HoldAsync(params string[] sql) => _holders.Add(await LockHolder.HoldAsync(_bench.Database, sql));

        // Blocked by one of ours: phase and wait are read one after the other, and a build in the phase after next may be waiting for the snapshot of this very query.
        private Task UntilAsync(string phase) => Wait.UntilAsync(
            async () => _build is { IsCompleted: true }
                ? throw new InvalidOperationException($"{_kind}: the build ended before {phase}: {_build.Exception}")
                : await _bench.Database.ScalarAsync<bool>(
                    $"""
                    select exists (select from pg_stat_progress_create_index
                        where datname = current_database() and phase like '{phase}%' and pg_blocking_pids(pid) && array[{string.Join(',', _holders.Select(holder => holder.Pid))}])
                    """,
                    Token),
            $"{_kind}: {phase}",
            TimeSpan.FromSeconds(60),
            Token);
    }
}

/// <summary>A process that builds indexes through the engine, to be killed.</summary>
internal static class BuildClient
{
    /// <summary>Starts it; it builds all of them at once, and ends when they are built.</summary>
    internal static Process Start(IEnumerable<(string Uri, string Statement)> builds)
    {
        string folder = AppContext.BaseDirectory.Replace($"{Path.DirectorySeparatorChar}Engine{Path.DirectorySeparatorChar}", $"{Path.DirectorySeparatorChar}Sandbox{Path.DirectorySeparatorChar}", StringComparison.Ordinal);
        ProcessStartInfo info = new("dotnet", [Path.Combine(folder, "MigrationSafety.Sandbox.dll"), "build-client"]) { RedirectStandardInput = true, UseShellExecute = false };
        Process process = Process.Start(info)!;
        foreach ((string uri, string statement) in builds)
        {
            process.StandardInput.WriteLine($"{uri}\t{statement}");
        }

        process.StandardInput.Close();
        return process;
    }
}
