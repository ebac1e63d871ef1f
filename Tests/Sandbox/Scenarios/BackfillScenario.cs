using System.Globalization;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Spectre.Console;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>
/// What a backfill has to reach, each beside what people do instead: under traffic; at rest beside one big UPDATE and the loop with SKIP LOCKED, at sizes that show how each grows; on a table
/// that is nearly done; and by blocks beside along a random key. <c>--rows N</c>: N, 5 N and 10 N rows.
/// </summary>
internal sealed class BackfillScenario : Scenario
{
    private const int Workers = 2;
    private const int Rounds = 2;
    private const string Counting = "i";
    private const string Nothing = "false";
    private const int Done = 95;
    private const int Few = 1000;

    // What has to be reached; all of them ratios of one run.
    private const double LeastToUpdate = 1.0;
    private const double LeastToLoop = 2.5;
    private const double LeastToLoopLarge = 6;
    private const double MostForTenTimes = 10.5;
    private const double MostMoreLatency = 1.5;
    private const double LeastToKey = 2;
    // A read that the operating system's cache answers costs next to nothing, at random too.
    private const double LeastToKeyCached = 1;
    // Of the application alone, before a part of the backfill that is so much longer: it begins gently each time.
    private const int TurnsAlone = 2;
    private const long MostMoreMemory = 20 << 20;

    private readonly Table _figures = new Table().Border(TableBorder.Ascii).Title("What a backfill has to reach").AddColumns("", "Measured", "Wanted", "Instead", "");

    internal override string Name => "backfill";

    internal override string Summary => "what a backfill has to reach, beside what people do instead; --part chooses";

    internal override IReadOnlyList<string> Parts => ["traffic", "race", "large", "done", "growth", "uuid"];

    internal override int ShopRows(SandboxOptions options) => options.Has("traffic") ? options.Rows : 1000;

    internal override async Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken)
    {
        bench.Drawings.Add(_figures);
        if (options.Has("traffic"))
        {
            MigrationSession session = await SessionFactory.ConnectAsync(new ConnectRequest { Text = bench.Shop.Uri }, bench.Screen, cancellationToken);
            try
            {
                await UnderTrafficAsync(bench, EngineSession.Of(session), options, cancellationToken);
            }
            finally
            {
                await SessionFactory.DisconnectAsync(session);
            }
        }

        await bench.Traffic.StopAsync();
        if (options.Has("race") || options.Has("large") || options.Has("done") || options.Has("growth"))
        {
            await AtRestAsync(bench, options, cancellationToken);
        }

        if (options.Has("uuid"))
        {
            await RandomKeyAsync(bench, options, cancellationToken);
        }
    }

    /// <summary>All on one server of their own, whose shared_buffers are what PostgreSQL's manual advises, a quarter of the memory, where nothing else is asked for.</summary>
    private async Task AtRestAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken)
    {
        PostgresServerOptions advised = new()
        {
            Durable = true,
            SharedBuffers = options.SharedBuffers,
            // Checkpoints by the clock and WAL segments to write to, as a server that is tuned and in use has them.
            Settings = new Dictionary<string, string> { ["max_wal_size"] = "16GB", ["min_wal_size"] = "4GB" },
        };
        await using PostgresServer server = await PostgresServer.StartAsync(options.Postgres, advised, cancellationToken);
        bench.Screen.Say($"At rest, on a server with shared_buffers of {advised.SharedBuffers}.");
        MigrationSession session = await SessionFactory.ConnectAsync(new ConnectRequest { Text = server.Uri("postgres") }, bench.Screen, cancellationToken);
        try
        {
            BackfillRaces races = new(server.ConnectionString("postgres"), EngineSession.Of(session), bench.Screen);
            // The first run pays for the compiler.
            await races.MakeTableAsync(50_000, Counting, Nothing, cancellationToken);
            await races.BackfillAsync(Workers, BackfillStrategy.Auto, cancellationToken);
            BackfillTiming? few = null;
            if (options.Has("race"))
            {
                few = await RaceAsync(bench, races, options.Rows, Rounds, LeastToLoop, cancellationToken);
            }

            if (options.Has("large"))
            {
                await RaceAsync(bench, races, options.Rows * 5L, 1, LeastToLoopLarge, cancellationToken);
            }

            if (options.Has("done") || options.Has("growth"))
            {
                few ??= await AloneAsync(bench, races, options.Rows, cancellationToken);
            }

            if (options.Has("done"))
            {
                await NearlyDoneAsync(bench, races, options.Rows, few!, cancellationToken);
            }

            if (options.Has("growth"))
            {
                await GrowthAsync(bench, races, options.Rows, few!, cancellationToken);
            }
        }
        finally
        {
            await SessionFactory.DisconnectAsync(session);
        }
    }

    private async Task UnderTrafficAsync(Bench bench, EngineSession engine, SandboxOptions options, CancellationToken cancellationToken)
    {
        await Migration.ApplyAsync(bench.Shop, bench.Screen, cancellationToken);
        bench.Traffic.WritesTier = true;
        await bench.MeasureBaselineAsync(options.Seconds, cancellationToken);
        async Task<(Latency Alone, Latency During)> FillAsync(string name, BackfillRequest request) => await bench.MeasureInTurnsAsync(
            name,
            TimeSpan.FromSeconds(options.Seconds),
            async () =>
            {
                BackfillPlan plan = await Backfill.PlanAsync(engine, request, bench.Screen, cancellationToken);
                Task<BackfillResult> run = Backfill.RunAsync(plan, bench.Screen, cancellationToken);
                await Task.WhenAny(run, Task.Delay(TimeSpan.FromSeconds(TurnsAlone * options.Seconds), cancellationToken));
                Task stopping = run.IsCompleted ? Task.CompletedTask : BackfillControl.StopAsync(engine, plan.Name, TimeSpan.FromSeconds(30), bench.Screen, cancellationToken);
                BackfillResult result = await run;
                await stopping;
                return (result.Rows, result.Outcome != BackfillOutcome.Paused);
            },
            cancellationToken);

        (Latency Alone, Latency During) one = await FillAsync("Backfill, as by default", Migration.Backfill);
        // Other columns of the same table, which the application leaves empty.
        await Migration.AddColumnAsync(engine, "tier_2", bench.Screen, cancellationToken);
        (Latency Alone, Latency During) two = await FillAsync("Backfill, 2 workers", Migration.Backfill with { Set = [new("tier_2", Migration.TierExpression)], Where = null, Workers = Workers });
        await Migration.AddColumnAsync(engine, "tier_3", bench.Screen, cancellationToken);
        (Latency Alone, Latency During) loop = await bench.MeasureInTurnsAsync(
            "Instead: the loop with SKIP LOCKED",
            TimeSpan.FromSeconds(options.Seconds),
            async () => ((await BackfillRaces.LoopAsync(bench.Shop.ConnectionString, "orders", "tier_3", TimeSpan.FromSeconds(30), cancellationToken)).Rows, true),
            cancellationToken);
        static FormattableString Words((Latency Alone, Latency During) felt) => $"{felt.During.P99 / felt.Alone.P99:0.00} times, {Screen.Text(felt.During.P99)} for {Screen.Text(felt.Alone.P99)}";
        void Times(string name, (Latency Alone, Latency During) felt) => Judge(
            bench,
            $"the application's p99, {name}",
            felt.During.P99 <= felt.Alone.P99 * MostMoreLatency,
            Words(felt),
            $"at most {MostMoreLatency:0.0}",
            $"the loop: {Words(loop).ToString(CultureInfo.InvariantCulture)}");
        Times("as by default", one);
        Times("2 workers", two);
    }

    private async Task<BackfillTiming> RaceAsync(Bench bench, BackfillRaces races, long rows, int rounds, double leastToLoop, CancellationToken cancellationToken)
    {
        bench.Screen.Begin(string.Create(CultureInfo.InvariantCulture, $"{rows:N0} rows: UPDATE, ours, loop"));
        // In turns, the best of each: what the machine does besides counts least in the best.
        TimeSpan update = TimeSpan.MaxValue;
        BackfillTiming? best = null;
        for (int round = 0; round < rounds; round++)
        {
            await races.MakeTableAsync(rows, Counting, Nothing, cancellationToken);
            TimeSpan once = await races.UpdateAsync(cancellationToken);
            update = once < update ? once : update;
            await races.MakeTableAsync(rows, Counting, Nothing, cancellationToken);
            BackfillTiming timing = await races.BackfillAsync(Workers, BackfillStrategy.Auto, cancellationToken);
            best = best is null || timing.Took < best.Took ? timing : best;
        }

        BackfillTiming ours = best!;
        await races.MakeTableAsync(rows, Counting, Nothing, cancellationToken);
        (TimeSpan loop, long looped) = await races.LoopAsync(ours.Took * leastToLoop * 1.05, cancellationToken);
        bool whole = looped >= rows;
        bench.Screen.End();
        string Rate(TimeSpan took, long done) => string.Create(CultureInfo.InvariantCulture, $"{Screen.Text(took)}, {done / took.TotalSeconds:N0} rows/s");
        string mine = string.Create(CultureInfo.InvariantCulture, $"{Rate(ours.Took, rows)}, {ours.InPlace * 100:0} % in place");
        Judge(bench, $"{rows:N0} rows beside one UPDATE", update / ours.Took >= LeastToUpdate, $"{update / ours.Took:0.00} times: {mine}", $"at least {LeastToUpdate:0.0}", Rate(update, rows));
        Judge(
            bench,
            $"{rows:N0} rows beside the loop",
            loop / ours.Took >= leastToLoop,
            $"{(whole ? "" : "more than ")}{loop / ours.Took:0.0} times",
            $"at least {leastToLoop:0.0}",
            (whole ? "" : "broken off: ") + Rate(loop, looped));
        return ours;
    }

    private static async Task<BackfillTiming> AloneAsync(Bench bench, BackfillRaces races, long rows, CancellationToken cancellationToken)
    {
        bench.Screen.Begin(string.Create(CultureInfo.InvariantCulture, $"{rows:N0} rows"));
        await races.MakeTableAsync(rows, Counting, Nothing, cancellationToken);
        BackfillTiming ours = await races.BackfillAsync(Workers, BackfillStrategy.Auto, cancellationToken);
        bench.Screen.End();
        return ours;
    }

    private async Task NearlyDoneAsync(Bench bench, BackfillRaces races, long rows, BackfillTiming all, CancellationToken cancellationToken)
    {
        bench.Screen.Begin(string.Create(CultureInfo.InvariantCulture, $"{rows:N0} rows, nearly done"));
        async Task<(TimeSpan Update, TimeSpan Scan, TimeSpan Ours)> TimeAsync(FormattableString filled)
        {
            string condition = filled.ToString(CultureInfo.InvariantCulture);
            (TimeSpan update, TimeSpan scan, TimeSpan ours) = (TimeSpan.MaxValue, TimeSpan.MaxValue, TimeSpan.MaxValue);
            static TimeSpan Least(TimeSpan one, TimeSpan other) => one < other ? one : other;
            // The best of each, as in the race.
            for (int round = 0; round < Rounds; round++)
            {
                await races.MakeTableAsync(rows, Counting, condition, cancellationToken);
                update = Least(update, await races.UpdateAsync(cancellationToken));
                await races.MakeTableAsync(rows, Counting, condition, cancellationToken);
                scan = Least(scan, await races.ScanAsync(cancellationToken));
                ours = Least(ours, (await races.BackfillAsync(Workers, BackfillStrategy.Auto, cancellationToken)).Took);
            }

            return (update, scan, ours);
        }

        // Connections, plan, trial, record: the same for any table.
        await races.MakeTableAsync(Few, Counting, Nothing, cancellationToken);
        TimeSpan start = (await races.BackfillAsync(Workers, BackfillStrategy.Auto, cancellationToken)).Took;
        async Task JudgeAsync(FormattableString filled, string what)
        {
            (TimeSpan update, TimeSpan scan, TimeSpan ours) = await TimeAsync(filled);
            // No share of what all rows take: a page of an index costs as much for the first row that is written there as for all.
            TimeSpan most = start + scan + update;
            Judge(
                bench,
                $"{rows:N0} rows, {what}",
                ours <= most,
                $"{Screen.Text(ours)}; {100 - Done} % of what all rows took: {Screen.Text(all.Took * (100 - Done) / 100)}",
                $"at most {Screen.Text(most)}: one UPDATE of the rest, a scan of {Screen.Text(scan)}, and what a backfill of {Few:N0} rows takes, {Screen.Text(start)}",
                $"one UPDATE: {Screen.Text(update)}");
        }

        // What an interrupted backfill leaves, and what comes from all over the table: then nearly every page is written.
        await JudgeAsync($"i <= {rows / 100 * Done}", $"the first {Done} % done");
        await JudgeAsync($"i % 100 < {Done}", $"{Done} of each 100 done");
        bench.Screen.End();
    }

    private async Task GrowthAsync(Bench bench, BackfillRaces races, long rows, BackfillTiming few, CancellationToken cancellationToken)
    {
        BackfillTiming many = await AloneAsync(bench, races, rows * 10, cancellationToken);
        async Task<TimeSpan> UpdateAsync(long all)
        {
            await races.MakeTableAsync(all, Counting, Nothing, cancellationToken);
            return await races.UpdateAsync(cancellationToken);
        }

        (TimeSpan update, TimeSpan updateMany) = (await UpdateAsync(rows), await UpdateAsync(rows * 10));
        Judge(
            bench,
            $"ten times the rows",
            many.Took / few.Took <= MostForTenTimes,
            $"{many.Took / few.Took:0.0} times as long: {Screen.Text(many.Took)} for {Screen.Text(few.Took)}",
            $"at most {MostForTenTimes:0.0}",
            string.Create(CultureInfo.InvariantCulture, $"one UPDATE: {updateMany / update:0.0} times, {Screen.Text(updateMany)} for {Screen.Text(update)}"));
        Judge(
            bench,
            $"the client's memory for ten times the rows",
            many.PeakBytes - few.PeakBytes <= MostMoreMemory,
            $"{(many.PeakBytes - few.PeakBytes) / 1048576.0:0.0} MB more: {many.PeakBytes >> 20} MB for {few.PeakBytes >> 20}",
            $"at most {MostMoreMemory >> 20} MB",
            "");
    }

    /// <summary>Where the operating system holds in memory what the server does not, and where it does not: there a table is as good as larger than the memory.</summary>
    private async Task RandomKeyAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken)
    {
        // A server of its own, whose buffers hold a tenth of the table.
        string buffers = string.Create(CultureInfo.InvariantCulture, $"{Math.Max(1, options.Rows / 100_000)}MB");
        async Task RaceAsync(bool cached, int rounds)
        {
            string reads = cached ? "the rest cached by the operating system" : "the rest read from disk";
            bench.Screen.Begin(string.Create(CultureInfo.InvariantCulture, $"{options.Rows:N0} rows with a UUID as key, {reads}: by blocks, along the key"));
            Dictionary<string, string> settings = new() { ["max_wal_size"] = "4GB" };
            if (!cached)
            {
                settings["debug_io_direct"] = "data";
            }

            await using PostgresServer server = await PostgresServer.StartAsync(options.Postgres, new() { Durable = true, SharedBuffers = buffers, Settings = settings }, cancellationToken);
            MigrationSession session = await SessionFactory.ConnectAsync(new ConnectRequest { Text = server.Uri("postgres") }, bench.Screen, cancellationToken);
            try
            {
                BackfillRaces races = new(server.ConnectionString("postgres"), EngineSession.Of(session), bench.Screen);
                (BackfillTiming? bestKey, BackfillTiming? bestBlock) = (null, null);
                async Task<BackfillTiming> BetterAsync(BackfillTiming? best, BackfillStrategy strategy)
                {
                    await races.MakeTableAsync(options.Rows, "gen_random_uuid()", Nothing, cancellationToken);
                    BackfillTiming timing = await races.BackfillAsync(Workers, strategy, cancellationToken);
                    return best is null || timing.Took < best.Took ? timing : best;
                }

                for (int round = 0; round < rounds; round++)
                {
                    bestKey = await BetterAsync(bestKey, BackfillStrategy.Key);
                    bestBlock = await BetterAsync(bestBlock, BackfillStrategy.Block);
                }

                (BackfillTiming key, BackfillTiming block) = (bestKey!, bestBlock!);
                bench.Screen.End();
                double least = cached ? LeastToKeyCached : LeastToKey;
                Judge(
                    bench,
                    $"{options.Rows:N0} rows, UUID as key, shared_buffers of {buffers}, {reads}",
                    key.Took / block.Took >= least,
                    $"by blocks {key.Took / block.Took:0.0} times as fast as along the key: {Screen.Text(block.Took)}, {block.InPlace * 100:0} % in place",
                    $"at least {least:0.0}",
                    string.Create(CultureInfo.InvariantCulture, $"along the key: {Screen.Text(key.Took)}, {key.InPlace * 100:0} % in place"));
            }
            finally
            {
                await SessionFactory.DisconnectAsync(session);
            }
        }

        await RaceAsync(cached: true, Rounds);
        // debug_io_direct came with 16.
        if (options.Postgres >= 16)
        {
            await RaceAsync(cached: false, 1);
        }
    }

    private void Judge(Bench bench, FormattableString what, bool held, FormattableString measured, FormattableString wanted, string instead)
    {
        string[] texts = [what.ToString(CultureInfo.InvariantCulture), measured.ToString(CultureInfo.InvariantCulture), wanted.ToString(CultureInfo.InvariantCulture)];
        bench.Screen.Say($"    {(held ? "held" : "MISSED")}: {texts[0]}: {texts[1]} ({texts[2]}){(instead.Length > 0 ? $"; instead, {instead}" : "")}");
        _figures.AddRow([.. texts.Append(instead).Append(held ? "held" : "MISSED").Select(text => new Text(text))]);
        if (!held)
        {
            bench.Broken.Add($"As fast as the server allows: {texts[0]}: {texts[1]}, {texts[2]}.");
        }
    }
}
