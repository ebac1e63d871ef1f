using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Autovacuum in the way: it needs a server of its own, on which a vacuum starts at once and takes for ever.</summary>
public sealed class ExecutorAutovacuumTests
{
    private readonly RecordingSink _sink = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task It_is_cancelled_where_the_role_may(int major)
    {
        await using PostgresServer server = await SlowVacuumServerAsync(major);
        await using TestDatabase db = await VacuumingDatabaseAsync(server);
        MigrationStep step = await RunAsync(db, db.ConnectionString);
        Assert.Equal(StepState.Done, step.State);
        Assert.Contains(_sink.VerboseMessages, message => message.Contains("cancelled the autovacuum in the way", StringComparison.Ordinal));
        Assert.Contains(step.LockWaits, wait => wait.Blockers.Any(blocker => blocker.IsAutovacuum && !blocker.PreventsWraparound));
        Assert.Empty(_sink.Warnings);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Otherwise_one_announced_attempt_outlasts_deadlock_timeout(int major)
    {
        await using PostgresServer server = await SlowVacuumServerAsync(major);
        await using TestDatabase db = await VacuumingDatabaseAsync(server);
        MigrationStep step = await RunAsync(db, server.ConnectionString(db.Name, "app"));
        Assert.Equal(StepState.Done, step.State);
        Assert.Contains("autovacuum", Assert.Single(_sink.Warnings), StringComparison.Ordinal);
    }

    private static Task<PostgresServer> SlowVacuumServerAsync(int major) => PostgresServer.StartAsync(
        major,
        new PostgresServerOptions
        {
            Settings = new Dictionary<string, string>
            {
                ["autovacuum_naptime"] = "1s",
                ["autovacuum_vacuum_cost_delay"] = "100ms",
                ["autovacuum_vacuum_cost_limit"] = "1",
            },
        },
        Token);

    private static async Task<TestDatabase> VacuumingDatabaseAsync(PostgresServer server)
    {
        TestDatabase db = await TestDatabase.CreateAsync(server, cancellationToken: Token);
        // The owner from the beginning: changing it later would send the vacuum away.
        await db.ExecuteAsync("create role app login; grant create on schema public to app", Token);
        await db.ExecuteAsync("create table orders (id int, total int) with (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0); alter table orders owner to app", Token);
        await db.ExecuteAsync("insert into orders select g, g from generate_series(1, 200000) g", Token);
        await db.ExecuteAsync("delete from orders where id % 2 = 0", Token);
        await Wait.UntilAsync(
            async () => await db.ScalarAsync<long>(
                """
                select count(*) from pg_locks l join pg_stat_activity a using (pid)
                where a.backend_type = 'autovacuum worker' and l.relation = 'orders'::regclass and l.granted
                """) > 0,
            "autovacuum works on the table",
            TimeSpan.FromSeconds(90),
            Token);
        return db;
    }

    private async Task<MigrationStep> RunAsync(TestDatabase db, string connection)
    {
        EngineSession session = EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = connection }, _sink, Token));
        await using StepExecutor executor = await StepExecutor.OpenAsync(session, new ExecutionOptions { LookFor = TimeSpan.FromSeconds(2) }, _sink, Token);
        MigrationStep step = new()
        {
            Sql = "alter table public.orders alter column total set default 0",
            Purpose = "Set the default",
            LockMode = TableLockMode.AccessExclusive,
            Objects = ["public.orders"],
        };
        return (await executor.RunAsync([step], "test", Token)).Single();
    }
}
