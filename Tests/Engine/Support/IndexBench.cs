using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>A database with a table, a session in it, and what a test asks about its indexes.</summary>
internal sealed class IndexBench : IAsyncDisposable
{
    private readonly List<MigrationSession> _sessions = [];

    private IndexBench(TestDatabase database) => Database = database;

    internal TestDatabase Database { get; }

    internal EngineSession Session { get; private set; } = null!;

    internal RecordingSink Sink { get; } = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    internal static async Task<IndexBench> CreateAsync(Servers servers, int major, string sql) =>
        await CreateAsync(await servers.Clusters.GetAsync(major), sql);

    internal static async Task<IndexBench> CreateAsync(PostgresServer server, string sql, Func<TestDatabase, string>? connection = null)
    {
        IndexBench bench = new(await TestDatabase.CreateAsync(server, cancellationToken: Token));
        await bench.Database.ExecuteAsync(sql, Token);
        bench.Session = await bench.SessionAsync(connection ?? (db => db.ConnectionString));
        return bench;
    }

    /// <summary>Another session, closed with the bench.</summary>
    internal async Task<EngineSession> SessionAsync(Func<TestDatabase, string> connection)
    {
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = connection(Database) }, Sink, Token);
        _sessions.Add(session);
        return EngineSession.Of(session);
    }

    internal Task<IndexBuildPlan> PlanAsync(IndexBuildRequest request) => IndexBuilder.PlanAsync(Session, request, Sink, Token);

    internal async Task<IndexBuildResult> BuildAsync(IndexBuildRequest request, CancellationToken? cancellationToken = null) =>
        await IndexBuilder.RunAsync(await PlanAsync(request), Sink, cancellationToken ?? Token);

    /// <summary>Those of the indexes that exist, as name:valid or name:invalid.</summary>
    internal async Task<string[]> IndexesAsync(params string[] names) =>
        [.. (await Database.QueryAsync(
            $"""
            select c.relname::text || case when i.indisvalid and i.indisready and i.indislive then ':valid' else ':invalid' end
            from pg_index i join pg_class c on c.oid = i.indexrelid
            where c.relname in ({string.Join(", ", names.Select(name => $"'{name}'"))}) order by 1
            """,
            Token)).Select(row => (string)row[0]!)];

    /// <summary>Interrupts a concurrent statement while it waits for a transaction that ran what is to be held; for an old snapshot where nothing is named.</summary>
    internal async Task LeaveInvalidAsync(string statement, params string[] hold)
    {
        await using LockHolder old = await LockHolder.HoldAsync(Database, hold.Length > 0 ? hold : ["set transaction isolation level repeatable read", "select 1"]);
        await using NpgsqlConnection connection = await Database.OpenAsync(Token);
        await connection.ExecuteAsync("set lock_timeout = '50ms'", Token);
        PostgresException e = await Assert.ThrowsAsync<PostgresException>(() => connection.ExecuteAsync(statement, Token));
        Assert.Equal("55P03", e.SqlState);
        await connection.ExecuteAsync("reset lock_timeout", Token);
    }

    internal Task UntilPhaseAsync(string phase) => Wait.UntilAsync(
        async () => await Database.ScalarAsync<bool>($"select exists (select from pg_stat_progress_create_index where datname = current_database() and phase like '{phase}%')", Token),
        $"a build to be at {phase}",
        cancellationToken: Token);

    /// <summary>No session holds an advisory lock: what this module locks it gives back.</summary>
    internal async Task AssertNothingHeldAsync() =>
        Assert.Equal(0L, await Database.ScalarAsync<long>("select count(*) from pg_locks l join pg_database d on d.oid = l.database where d.datname = current_database() and l.locktype = 'advisory'", Token));

    public async ValueTask DisposeAsync()
    {
        foreach (MigrationSession session in _sessions)
        {
            await SessionFactory.DisconnectAsync(session);
        }

        await Database.DisposeAsync();
    }
}

/// <summary>A role that may log in and has no more rights than everybody.</summary>
internal sealed class TestRole : IAsyncDisposable
{
    private readonly TestDatabase _database;

    private TestRole(TestDatabase database, string name)
    {
        _database = database;
        Name = name;
    }

    internal string Name { get; }

    internal static async Task<TestRole> CreateAsync(TestDatabase database)
    {
        TestRole role = new(database, $"role_{Guid.NewGuid():N}");
        await database.ExecuteAsync($"create role {role.Name} login", TestContext.Current.CancellationToken);
        return role;
    }

    public async ValueTask DisposeAsync() =>
        await _database.ExecuteAsync($"drop owned by {Name} cascade; drop role {Name}", CancellationToken.None);
}

internal static class ConnectionExtensions
{
    internal static async Task ExecuteAsync(this NpgsqlConnection connection, string sql, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(sql, connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }
}
