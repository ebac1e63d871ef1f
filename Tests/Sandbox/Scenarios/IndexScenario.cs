using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>
/// An index under traffic whose transactions stay open for 20 s, with a plain CREATE INDEX beside it; then, at rest, what the safe build costs over the bare statement.
/// </summary>
internal sealed class IndexScenario : Scenario
{
    private const int Rounds = 3;
    private const double MostOverhead = 1.02;
    private const string Concurrently = "create index concurrently sandbox_amount_idx on orders (amount, created_at)";

    private static readonly TimeSpan s_longTransaction = TimeSpan.FromSeconds(20);
    private static readonly IndexBuildRequest s_request = new() { Table = "orders", Column = ["amount", "created_at"], Name = "sandbox_amount_idx" };

    internal override string Name => "index";

    internal override string Summary => "index build beside transactions of 20 s and beside a plain CREATE INDEX, and its cost over the bare statement";

    internal override async Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken)
    {
        await bench.MeasureBaselineAsync(options.Seconds, cancellationToken);
        bench.Traffic.LongLasts = s_longTransaction;
        // The one that is open now is still a short one.
        await bench.Traffic.LongTransactionAsync(cancellationToken);
        MigrationSession session = await SessionFactory.ConnectAsync(new ConnectRequest { Text = bench.Shop.Uri }, bench.Screen, cancellationToken);
        EngineSession engine = EngineSession.Of(session);
        await bench.MeasureAsync("Invoke-SafeIndexBuild", () => BuildAsync(bench, engine, cancellationToken), cancellationToken);
        await bench.Shop.ExecuteAsync("drop index concurrently sandbox_amount_idx", cancellationToken);
        await bench.MeasureAsync("CREATE INDEX (not ours)", () => BareAsync(bench, "create index sandbox_amount_idx on orders (amount, created_at)", cancellationToken), cancellationToken);
        await bench.Shop.ExecuteAsync("drop index concurrently sandbox_amount_idx", cancellationToken);

        await bench.Traffic.StopAsync();
        await OverheadAsync(bench, engine, cancellationToken);
        await SessionFactory.DisconnectAsync(session);
    }

    /// <summary>In turns, the best of each: what the machine does besides counts least in the best.</summary>
    private static async Task OverheadAsync(Bench bench, EngineSession engine, CancellationToken cancellationToken)
    {
        List<TimeSpan> bare = [];
        List<TimeSpan> safe = [];
        long memory = 0;
        for (int round = 0; round <= Rounds; round++)
        {
            bench.Screen.Begin(string.Create(CultureInfo.InvariantCulture, $"The bare statement and the safe build in turns, {round} of {Rounds}"));
            TimeSpan bareTook = await TimedAsync(() => BareAsync(bench, Concurrently, cancellationToken));
            await bench.Shop.ExecuteAsync("drop index concurrently sandbox_amount_idx", cancellationToken);
            long before = GC.GetTotalMemory(forceFullCollection: true);
            TimeSpan safeTook = await TimedAsync(() => BuildAsync(bench, engine, cancellationToken));
            memory = GC.GetTotalMemory(forceFullCollection: true) - before;
            await bench.Shop.ExecuteAsync("drop index concurrently sandbox_amount_idx", cancellationToken);
            bench.Screen.End();
            if (round > 0)
            {
                // The first warms the caches.
                bare.Add(bareTook);
                safe.Add(safeTook);
            }
        }

        double ratio = safe.Min() / bare.Min();
        bench.Screen.Say(string.Create(
            CultureInfo.InvariantCulture,
            $"{bench.Shop.Rows:N0} rows: bare {Screen.Text(bare.Min())}, safe {Screen.Text(safe.Min())}, ratio {ratio:0.000}; {memory / 1024:N0} kB of the client's memory remain of a build, {Environment.WorkingSet >> 20} MB is all it has."));
        if (ratio > MostOverhead)
        {
            bench.Broken.Add(string.Create(CultureInfo.InvariantCulture, $"A safe build costs {ratio - 1:P1} more than the bare statement."));
        }
    }

    private static async Task<TimeSpan> TimedAsync(Func<Task> work)
    {
        long start = Stopwatch.GetTimestamp();
        await work();
        return Stopwatch.GetElapsedTime(start);
    }

    private static async Task<long?> BuildAsync(Bench bench, EngineSession engine, CancellationToken cancellationToken)
    {
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(engine, s_request, bench.Screen, cancellationToken);
        await IndexBuilder.RunAsync(plan, bench.Screen, cancellationToken);
        return bench.Shop.Rows;
    }

    private static async Task<long?> BareAsync(Bench bench, string sql, CancellationToken cancellationToken)
    {
        await using NpgsqlConnection connection = new(new NpgsqlConnectionStringBuilder(bench.Shop.ConnectionString) { ApplicationName = "psql", Pooling = false, CommandTimeout = 0 }.ConnectionString);
        await connection.OpenAsync(cancellationToken);
        await using NpgsqlCommand command = new(sql, connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
        return bench.Shop.Rows;
    }
}
