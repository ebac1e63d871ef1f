using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>A real PgBouncer in each mode.</summary>
public sealed class PoolerTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task A_pool_in_session_mode_is_as_good_as_the_server(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await using PgBouncer bouncer = await PgBouncer.StartAsync(db, "session");
        MigrationSession session = await ConnectAsync(bouncer, db);
        Assert.Equal(db.Server.Version, session.ServerVersion);
        await using (NpgsqlConnection connection = await EngineSession.Of(session).OpenAsync("Test", new RecordingSink(), Token))
        {
            Assert.Equal("MigrationSafety/Test", await new NpgsqlCommand("show application_name", connection).ExecuteScalarAsync(Token));
        }

        await SessionFactory.DisconnectAsync(session);
    }

    [Theory, EachMajor]
    public async Task A_pool_in_transaction_or_statement_mode_is_refused(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        foreach ((string mode, int size) in new[] { ("transaction", 10), ("transaction", 1), ("statement", 10) })
        {
            await using PgBouncer bouncer = await PgBouncer.StartAsync(db, mode, size);
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => ConnectAsync(bouncer, db));
            Assert.Equal("TransactionPooler", e.ErrorId);
            Assert.Contains("session mode", e.RecommendedAction, StringComparison.Ordinal);
        }
    }

    [Theory, EachMajor]
    public async Task A_busy_pool_in_transaction_mode_is_refused_each_time(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await using PgBouncer bouncer = await PgBouncer.StartAsync(db, "transaction", poolSize: 6);
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        string text = $"Host=127.0.0.1;Port={bouncer.Port};Database={db.Name};Username=postgres;No Reset On Close=true;Server Compatibility Mode=NoTypeLoading";
        Task[] traffic = [.. Enumerable.Range(0, 8).Select(_ => TrafficAsync(text, stop.Token))];
        for (int i = 0; i < 10; i++)
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => ConnectAsync(bouncer, db));
            Assert.Equal("TransactionPooler", e.ErrorId);
        }

        await stop.CancelAsync();
        await Task.WhenAll(traffic);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_pool_with_one_connection_says_that_it_is_too_small(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await using PgBouncer bouncer = await PgBouncer.StartAsync(db, "session", poolSize: 1);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => ConnectAsync(bouncer, db, TimeSpan.FromSeconds(2)));
        Assert.Equal("TooManyConnections", e.ErrorId);
        Assert.Contains("pool_size", e.RecommendedAction, StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task What_the_pooler_itself_refuses_is_named(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await using PgBouncer bouncer = await PgBouncer.StartAsync(db, "session");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(
            () => SessionFactory.ConnectAsync(new() { Text = Text(bouncer, "nosuchdb") }, new RecordingSink(), Token));
        Assert.Equal("DatabaseNotFound", e.ErrorId);
        e = await Assert.ThrowsAsync<MigrationException>(
            () => SessionFactory.ConnectAsync(new() { Text = Text(bouncer, db.Name) + " options='-c work_mem=1MB'" }, new RecordingSink(), Token));
        Assert.Equal("StartupParameterRefused", e.ErrorId);
    }

    private static async Task TrafficAsync(string text, CancellationToken cancellationToken)
    {
        await using NpgsqlConnection connection = new(text);
        try
        {
            await connection.OpenAsync(cancellationToken);
            while (true)
            {
                await using NpgsqlCommand command = new("select pg_sleep(0.003)", connection);
                await command.ExecuteNonQueryAsync(cancellationToken);
            }
        }
        catch (OperationCanceledException)
        {
            // The end of the test.
        }
    }

    private static Task<MigrationSession> ConnectAsync(PgBouncer bouncer, TestDatabase db, TimeSpan? timeout = null) =>
        SessionFactory.ConnectAsync(new() { Text = Text(bouncer, db.Name), ConnectTimeout = timeout }, new RecordingSink(), Token);

    private static string Text(PgBouncer bouncer, string database) => $"host=127.0.0.1 port={bouncer.Port} dbname={database} user=postgres";
}
