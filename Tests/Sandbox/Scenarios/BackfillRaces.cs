using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>What a backfill took.</summary>
/// <param name="Took">How long, planning included.</param>
/// <param name="PeakBytes">The most memory that this process used meanwhile, as the operating system counts it.</param>
/// <param name="InPlace">The share of the rows whose new version stayed in its block, so that no index was written.</param>
internal sealed record BackfillTiming(TimeSpan Took, long PeakBytes, double InPlace);

/// <summary>The ways to fill a column, each on a table of its own that is made anew: a big UPDATE, the loop with SKIP LOCKED, ours.</summary>
internal sealed class BackfillRaces(string connectionString, EngineSession session, Screen screen)
{
    /// <summary>Makes the table <c>race</c>: two indexes, a column to fill, everything vacuumed and flushed.</summary>
    /// <param name="rows">Rows.</param>
    /// <param name="key">Expression of the primary key over i.</param>
    /// <param name="filled">Which rows are filled already, a condition over i.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task MakeTableAsync(long rows, string key, string filled, CancellationToken cancellationToken)
    {
        string count = rows.ToString(CultureInfo.InvariantCulture);
        await ExecuteAsync("drop table if exists race", cancellationToken);
        await ExecuteAsync(
            $"""
            create table race as
            select {key} as id, 1 + (i * 7919::bigint) % 50000 as customer_id, (i * 31::bigint % 100000) / 100.0 as amount, 'Order ' || i as note, now() - i * interval '1 second' as created_at,
                   case when {filled} then 'basic' end as tier
            from generate_series(1, {count}::bigint) i
            """,
            cancellationToken);
        await ExecuteAsync("alter table race add primary key (id)", cancellationToken);
        await ExecuteAsync("create index on race (customer_id)", cancellationToken);
        await ExecuteAsync("vacuum (analyze) race", cancellationToken);
        await ExecuteAsync("checkpoint", cancellationToken);
    }

    /// <summary>One statement.</summary>
    internal Task<TimeSpan> UpdateAsync(CancellationToken cancellationToken) => TimedAsync(() => ExecuteAsync($"update race set tier = {Migration.TierExpression} where tier is null", cancellationToken));

    /// <summary>One count of the rows that match: a scan.</summary>
    internal Task<TimeSpan> ScanAsync(CancellationToken cancellationToken) => TimedAsync(() => ExecuteAsync("select count(*) from race where tier is null", cancellationToken));

    /// <summary>The loop that is copied from page to page.</summary>
    /// <param name="enough">When it is broken off.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>How long it took, and how many rows it did.</returns>
    internal Task<(TimeSpan Took, long Rows)> LoopAsync(TimeSpan enough, CancellationToken cancellationToken) => LoopAsync(connectionString, "race", "tier", enough, cancellationToken);

    /// <summary>The same on any table with a key <c>id</c>; the end is where less than half a batch is found, because an application goes on to insert.</summary>
    internal static async Task<(TimeSpan Took, long Rows)> LoopAsync(string connectionString, string table, string column, TimeSpan enough, CancellationToken cancellationToken)
    {
        const int Batch = 10_000;
        string sql = $"update {table} set {column} = {Migration.TierExpression} where id in (select id from {table} where {column} is null limit {Batch} for update skip locked)";
        long start = Stopwatch.GetTimestamp();
        await using NpgsqlConnection connection = await OpenAsync(connectionString, cancellationToken);
        await using NpgsqlCommand command = new(sql, connection);
        long rows = 0;
        for (int found = Batch; found >= Batch / 2 && Stopwatch.GetElapsedTime(start) < enough; rows += found)
        {
            found = await command.ExecuteNonQueryAsync(cancellationToken);
        }

        return (Stopwatch.GetElapsedTime(start), rows);
    }

    /// <summary>Ours, planning included.</summary>
    internal async Task<BackfillTiming> BackfillAsync(int workers, BackfillStrategy strategy, CancellationToken cancellationToken)
    {
        using CancellationTokenSource over = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        // What was there before is not the backfill's.
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        Task<long> memory = PeakMemoryAsync(over.Token);
        long start = Stopwatch.GetTimestamp();
        BackfillRequest request = new()
        {
            Table = "race",
            Set = [new("tier", Migration.TierExpression)],
            Name = "race " + Guid.NewGuid().ToString("N", CultureInfo.InvariantCulture),
            Workers = workers,
            Strategy = strategy,
            Options = new ExecutionOptions(),
        };
        BackfillPlan plan = await Backfill.PlanAsync(session, request, screen, cancellationToken);
        BackfillResult result = await Backfill.RunAsync(plan, screen, cancellationToken);
        TimeSpan took = Stopwatch.GetElapsedTime(start);
        await over.CancelAsync();
        return result.Remaining == 0
            ? new BackfillTiming(took, await memory, await InPlaceAsync(result.Rows, cancellationToken))
            : throw new InvalidOperationException($"{result.Remaining} rows of race are left after the backfill.");
    }

    private static async Task<long> PeakMemoryAsync(CancellationToken cancellationToken)
    {
        long peak = 0;
        while (!cancellationToken.IsCancellationRequested)
        {
            peak = Math.Max(peak, Environment.WorkingSet);
            await Task.WhenAny(Task.Delay(200, cancellationToken));
        }

        return peak;
    }

    /// <summary>The table is new, so that all its statistics are those of this backfill.</summary>
    private async Task<double> InPlaceAsync(long rows, CancellationToken cancellationToken)
    {
        await using NpgsqlConnection connection = await OpenAsync(connectionString, cancellationToken);
        await using NpgsqlCommand command = new("select pg_stat_get_tuples_updated('race'::regclass), pg_stat_get_tuples_hot_updated('race'::regclass)", connection);
        // Backends tell what they counted a little later.
        for (long start = Stopwatch.GetTimestamp(); ; await Task.Delay(100, cancellationToken))
        {
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken);
            await reader.ReadAsync(cancellationToken);
            if (reader.GetInt64(0) >= rows || Stopwatch.GetElapsedTime(start) > TimeSpan.FromSeconds(2))
            {
                return (double)reader.GetInt64(1) / Math.Max(1, reader.GetInt64(0));
            }
        }
    }

    private static async Task<TimeSpan> TimedAsync(Func<Task> work)
    {
        long start = Stopwatch.GetTimestamp();
        await work();
        return Stopwatch.GetElapsedTime(start);
    }

    private async Task ExecuteAsync(string sql, CancellationToken cancellationToken)
    {
        await using NpgsqlConnection connection = await OpenAsync(connectionString, cancellationToken);
        await using NpgsqlCommand command = new(sql, connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    private static async Task<NpgsqlConnection> OpenAsync(string connectionString, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = new(new NpgsqlConnectionStringBuilder(connectionString) { ApplicationName = "psql", Pooling = false, CommandTimeout = 0 }.ConnectionString);
        await connection.OpenAsync(cancellationToken);
        return connection;
    }
}
