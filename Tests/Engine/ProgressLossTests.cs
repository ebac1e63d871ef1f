using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;
using static MigrationSafety.Tests.Engine.Support.ProgressLooks;

namespace MigrationSafety.Tests.Engine;

/// <summary>Progress of a server that goes away, or does not answer.</summary>
public sealed class ProgressLossTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int, tier text);
        insert into orders select i, md5(i::text) from generate_series(1, 1000) i
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task A_wait_goes_on_after_a_connection_that_is_lost_and_says_when_the_server_stays_away(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using TcpProxy proxy = TcpProxy.Start(bench.Database.Server);
        EngineSession session = await bench.SessionAsync(proxy.ConnectionString);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        Task<int> build = bench.Database.ExecuteAsync("create index concurrently ix on orders (tier)", Token);
        await UntilAsync(bench, "waiting for old snapshots");
        List<ProgressResult> ended = [];
        RecordingSink sink = new();
        Task WaitAsync(TimeSpan awayFor) => ProgressWait.RunAsync(session, new() { Table = "orders" }, TimeSpan.FromMilliseconds(50), ended.Add, sink, null, awayFor, Token);
        async Task<Task> BegunAsync(TimeSpan awayFor)
        {
            int before = sink.ProgressRecords.Count;
            Task waiting = WaitAsync(awayFor);
            await Wait.UntilAsync(() => waiting.IsCompleted || sink.ProgressRecords.Count > before, "progress", cancellationToken: Token);
            proxy.RefuseNew = true;
            proxy.DropAll();
            return waiting;
        }

        Task givenUp = await BegunAsync(TimeSpan.Zero);
        MigrationException away = await Assert.ThrowsAsync<MigrationException>(() => givenUp);
        Assert.Contains("CREATE INDEX CONCURRENTLY public.ix", away.Message, StringComparison.Ordinal);
        Assert.Contains("stayed away", away.Message, StringComparison.Ordinal);
        proxy.RefuseNew = false;

        Task patient = await BegunAsync(TimeSpan.FromMinutes(10));
        await Wait.UntilAsync(() => patient.IsCompleted || sink.Warnings.Count == 2, "the loss to be told", cancellationToken: Token);
        await old.CommitAsync(Token);
        await build;
        proxy.RefuseNew = false;
        await patient;
        Assert.Equal((ProgressOutcome.Finished, "public.ix"), (Assert.Single(ended).Outcome, ended[0].Index));
        Assert.Equal(2, sink.Warnings.Count);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_network_that_swallows_what_is_asked_is_not_waited_for(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using TcpProxy proxy = TcpProxy.Start(bench.Database.Server);
        EngineSession session = await bench.SessionAsync(proxy.ConnectionString);
        await using LockHolder writer = await LockHolder.HoldAsync(bench.Database, "lock table orders in row exclusive mode");
        Task<int> build = bench.Database.ExecuteAsync("create index concurrently ix on orders (tier)", Token);
        await UntilAsync(bench, "waiting for writers before build");
        await using ProgressReader reader = new(session, new() { Table = "orders" }, TimeSpan.FromMilliseconds(500));
        Assert.Single(await reader.ReadAsync(bench.Sink, Token));
        OperationTrack track = Assert.Single(reader.Tracker.Running);

        proxy.Freeze();
        MigrationException lost = await Assert.ThrowsAsync<MigrationException>(() => reader.ReadAsync(bench.Sink, Token));
        Assert.Equal(("ConnectionLost", MigrationErrorKind.Connection), (lost.ErrorId, lost.Kind));
        proxy.Thaw();

        // On another connection it goes on with the same operation.
        Assert.Single(await reader.ReadAsync(bench.Sink, Token));
        Assert.Same(track, Assert.Single(reader.Tracker.Running));

        // Nor does whoever has enough wait until the driver has told it to cancel.
        await using ProgressReader patient = new(session, new() { Table = "orders" }, TimeSpan.FromMinutes(5));
        Assert.Single(await patient.ReadAsync(bench.Sink, Token));
        proxy.Freeze();
        using CancellationTokenSource ctrlC = new();
        Task<IReadOnlyList<MigrationProgress>> asked = patient.ReadAsync(bench.Sink, ctrlC.Token);
        await Task.WhenAny(asked, Task.Delay(300, Token));
        await ctrlC.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => asked.WaitAsync(TimeSpan.FromSeconds(10), Token));
        proxy.Thaw();
        await writer.CommitAsync(Token);
        await build;
    }
}
