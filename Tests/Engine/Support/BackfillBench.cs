using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>A database with a table, a session in it, and what a test asks about a backfill of it.</summary>
internal sealed class BackfillBench : IAsyncDisposable
{
    /// <summary>A table with 5,000 rows to fill.</summary>
    internal const string Orders = """
        create table orders (id bigint generated always as identity primary key, note text, tier text);
        insert into orders (note) select 'n' || i from generate_series(1, 5000) i;
        """;

    private readonly List<MigrationSession> _sessions = [];

    private BackfillBench(TestDatabase database) => Database = database;

    internal TestDatabase Database { get; }

    internal EngineSession Session { get; private set; } = null!;

    internal RecordingSink Sink { get; } = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    internal static async Task<BackfillBench> CreateAsync(Servers servers, int major, string sql) =>
        await CreateAsync(await servers.Clusters.GetAsync(major), sql);

    internal static async Task<BackfillBench> CreateAsync(PostgresServer server, string sql, Func<TestDatabase, string>? connection = null)
    {
        BackfillBench bench = new(await TestDatabase.CreateAsync(server, cancellationToken: Token));
        try
        {
            await bench.Database.ExecuteAsync(sql, Token);
            bench.Session = await bench.SessionAsync(connection ?? (db => db.ConnectionString));
            return bench;
        }
        catch
        {
            await bench.DisposeAsync();
            throw;
        }
    }

    /// <summary>Another session, closed with the bench.</summary>
    internal async Task<EngineSession> SessionAsync(Func<TestDatabase, string> connection)
    {
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = connection(Database) }, Sink, Token);
        _sessions.Add(session);
        return EngineSession.Of(session);
    }

    internal static BackfillRequest Request(string table, string column, string expression, string? where = null, int? batchSize = null, TimeSpan? retryFor = null) => new()
    {
        Table = table,
        Set = [new(column, expression)],
        Where = where,
        // What other tests do on the same server is no application that it might harm.
        Throttle = ThrottleLimits.Default with { Slowdown = null },
        BatchSize = batchSize,
        Options = new ExecutionOptions { RetryFor = retryFor ?? TimeSpan.FromSeconds(60) },
    };

    internal Task<BackfillPlan> PlanAsync(BackfillRequest request, EngineSession? session = null) => Backfill.PlanAsync(session ?? Session, request, Sink, Token);

    internal async Task<BackfillResult> RunAsync(BackfillRequest request, CancellationToken? cancellationToken = null, EngineSession? session = null, IOperationSink? sink = null) =>
        await Backfill.RunAsync(await PlanAsync(request, session), sink ?? Sink, cancellationToken ?? Token);

    internal async Task<MigrationException> FailsAsync(BackfillRequest request, EngineSession? session = null) =>
        await Assert.ThrowsAsync<MigrationException>(() => RunAsync(request, session: session));

    internal Task<T?> ScalarAsync<T>(string sql) => Database.ScalarAsync<T>(sql, Token);

    /// <summary>Waits until a backfill has committed so many batches.</summary>
    internal Task UntilBatchesAsync(long batches, Task run) => Wait.UntilAsync(
        async () => run.IsCompleted || (await StateExistsAsync() && await ScalarAsync<long>("select coalesce(sum(batches), 0)::int8 from migration_safety.backfill_worker") >= batches),
        $"{batches} batches",
        cancellationToken: Token);

    /// <summary>Why it waits, as everybody can read it on the server.</summary>
    internal async Task<string> ReasonAsync(Task run, string containing = "")
    {
        string? reason = null;
        await Wait.UntilAsync(
            async () => run.IsCompleted || (await StateExistsAsync()
                && (reason = await ScalarAsync<string>("select waiting_for from migration_safety.backfill where waiting_since is not null")) is not null && reason.Contains(containing, StringComparison.Ordinal)),
            "a reason to wait",
            cancellationToken: Token);
        if (run.IsCompleted)
        {
            await run;
        }

        return reason ?? "";
    }

    internal async Task<bool> StateExistsAsync() => await ScalarAsync<bool>("select to_regclass('migration_safety.backfill_worker') is not null");

    /// <summary>No session holds an advisory lock: what this module locks it gives back.</summary>
    internal Task UntilNothingHeldAsync(TimeSpan? within = null) => Wait.UntilAsync(
        async () => await ScalarAsync<long>("select count(*) from pg_locks l join pg_database d on d.oid = l.database where d.datname = current_database() and l.locktype = 'advisory'") == 0,
        "the table's lock to be given back",
        within,
        Token);

    /// <summary>What is recorded tells what the result does of how it is taken back.</summary>
    internal async Task AssertRecordedAsync(BackfillResult result)
    {
        MigrationStep recorded = await BackfillControl.StepAsync(Session, result.Name, Sink, Token);
        Assert.Equal((result.Steps[^1].State, result.Steps[^1].Reversibility, result.Steps[^1].Reversal), (recorded.State, recorded.Reversibility, recorded.Reversal));
    }

    /// <summary>Runs what New-RollbackScript makes of the result, statement by statement as psql does.</summary>
    /// <param name="result">Result.</param>
    /// <param name="options">Settings of the session, as PGOPTIONS has them.</param>
    /// <returns>What the server said meanwhile.</returns>
    internal async Task<List<string>> RollBackAsync(BackfillResult result, string? options = null)
    {
        List<string> notices = [];
        await using NpgsqlConnection connection = new(new NpgsqlConnectionStringBuilder(Database.ConnectionString) { Options = options }.ConnectionString);
        await connection.OpenAsync(Token);
        connection.Notice += (_, e) => notices.Add(e.Notice.MessageText);
        foreach (MigrationStep step in RollbackGenerator.ToSteps(RollbackGenerator.FromSteps("test", result.Steps)))
        {
            await using NpgsqlCommand command = new(step.Sql, connection) { CommandTimeout = 60 };
            await command.ExecuteNonQueryAsync(Token);
        }

        return notices;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (MigrationSession session in _sessions)
        {
            await SessionFactory.DisconnectAsync(session);
        }

        await Database.DisposeAsync();
    }
}
