using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>What a backfill took, and the most memory that this process used meanwhile.</summary>
internal sealed record BackfillTiming(TimeSpan Took, long PeakBytes, BackfillResult Result);

/// <summary>The ways to fill a column, each on a table of its own that is made anew: a big UPDATE, the loop with SKIP LOCKED, ours.</summary>
internal sealed class BackfillRaces(string connectionString, EngineSession session, Screen screen)
{
    private const string Expression = "case when amount >= 900 then 'gold' when amount >= 500 then 'silver' else 'basic' end";

    /// <summary>Makes the table <c>race</c>: two indexes, a column to fill, everything vacuumed and flushed.</summary>
    /// <param name="rows">Rows.</param>
    /// <param name="key">Expression of the primary key over i.</param>
    /// <param name="filled">How many of a hundred rows are filled already.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task MakeTableAsync(long rows, string key, int filled, CancellationToken cancellationToken)
    {
        string count = rows.ToString(CultureInfo.InvariantCulture);
        string percent = filled.ToString(CultureInfo.InvariantCulture);
        await ExecuteAsync("drop table if exists race", cancellationToken);
        await ExecuteAsync(
            $"""
            create table race as
            select {key} as id, 1 + (i * 7919::bigint) % 50000 as customer_id, (i * 31::bigint % 100000) / 100.0 as amount, 'Order ' || i as note, now() - i * interval '1 second' as created_at,
                   case when i % 100 < {percent} then 'basic' end as tier
            from generate_series(1, {count}::bigint) i
            """,
            cancellationToken);
        await ExecuteAsync("alter table race add primary key (id)", cancellationToken);
        await ExecuteAsync("create index on race (customer_id)", cancellationToken);
        await ExecuteAsync("vacuum (analyze) race", cancellationToken);
        await ExecuteAsync("checkpoint", cancellationToken);
    }

    /// <summary>One statement.</summary>
    internal Task<TimeSpan> UpdateAsync(CancellationToken cancellationToken) => TimedAsync(() => ExecuteAsync($"update race set tier = {Expression} where tier is null", cancellationToken));

    /// <summary>One count of the rows that match: a scan.</summary>
    internal Task<TimeSpan> ScanAsync(CancellationToken cancellationToken) => TimedAsync(() => ExecuteAsync("select count(*) from race where tier is null", cancellationToken));

    /// <summary>The loop that is copied from page to page.</summary>
    /// <param name="enough">When it is broken off.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>How long it took, and whether it came to its end.</returns>
    internal async Task<(TimeSpan Took, bool Whole)> LoopAsync(TimeSpan enough, CancellationToken cancellationToken)
    {
        const string Sql = $"update race set tier = {Expression} where id in (select id from race where tier is null limit 10000 for update skip locked)";
        long start = Stopwatch.GetTimestamp();
        await using NpgsqlConnection connection = await OpenAsync(cancellationToken);
        await using NpgsqlCommand command = new(Sql, connection);
        while (await command.ExecuteNonQueryAsync(cancellationToken) > 0)
        {
            if (Stopwatch.GetElapsedTime(start) > enough)
            {
                return (Stopwatch.GetElapsedTime(start), false);
            }
        }

        return (Stopwatch.GetElapsedTime(start), true);
    }

    /// <summary>Ours, planning included.</summary>
    internal async Task<BackfillTiming> BackfillAsync(int workers, BackfillStrategy strategy, CancellationToken cancellationToken)
    {
        using CancellationTokenSource over = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Task<long> memory = PeakMemoryAsync(over.Token);
        long start = Stopwatch.GetTimestamp();
        BackfillRequest request = new()
        {
            Table = "race",
            Set = [new("tier", Expression)],
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
            ? new BackfillTiming(took, await memory, result)
            : throw new InvalidOperationException($"{result.Remaining} rows of race are left after the backfill.");
    }

    /// <summary>The most managed memory in use: what a growing list or cache of the client would show in.</summary>
    private static async Task<long> PeakMemoryAsync(CancellationToken cancellationToken)
    {
        long peak = 0;
        while (!cancellationToken.IsCancellationRequested)
        {
            peak = Math.Max(peak, GC.GetTotalMemory(forceFullCollection: true));
            await Task.WhenAny(Task.Delay(500, cancellationToken));
        }

        return peak;
    }

    private static async Task<TimeSpan> TimedAsync(Func<Task> work)
    {
        long start = Stopwatch.GetTimestamp();
        await work();
        return Stopwatch.GetElapsedTime(start);
    }

    private async Task ExecuteAsync(string sql, CancellationToken cancellationToken)
    {
        await using NpgsqlConnection connection = await OpenAsync(cancellationToken);
        await using NpgsqlCommand command = new(sql, connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    private async Task<NpgsqlConnection> OpenAsync(CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = new(new NpgsqlConnectionStringBuilder(connectionString) { ApplicationName = "psql", Pooling = false, CommandTimeout = 0 }.ConnectionString);
        await connection.OpenAsync(cancellationToken);
        return connection;
    }
}
