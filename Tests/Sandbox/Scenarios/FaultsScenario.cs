using System.Globalization;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using Npgsql;
using Spectre.Console;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>
/// Kills the client at random moments of index build and backfill and runs it again each time; the last run may finish. Then the index must be
/// valid, every row filled once, and nothing of ours left.
/// </summary>
internal sealed class FaultsScenario : Scenario
{
    internal override string Name => "faults";

    internal override string Summary => "kill -9 of the client during index build and backfill, and run again";

    internal override async Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken)
    {
        int seed = options.Seed ?? Random.Shared.Next();
        bench.Screen.Say($"Seed {seed}: --seed {seed} makes the same choices again.");
        await bench.MeasureBaselineAsync(options.Seconds, cancellationToken);
        await Migration.ApplyAsync(bench.Shop, bench.Screen, cancellationToken);
        bench.Traffic.WritesTier = true;

        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = bench.Shop.Uri }, bench.Screen, cancellationToken);
        try
        {
            await using ProgressReader progress = new(EngineSession.Of(session), new() { Operations = ["CREATE INDEX*"] });
            await using FaultRun run = new(bench, new Random(seed), progress, await bench.Shop.Admin.OpenConnectionAsync(cancellationToken));
            int inBackfill = options.Kills / 2;
            int inIndex = options.Kills - inBackfill;
            await bench.MeasureAsync($"Index build, {inIndex} kills", () => run.IndexAsync(inIndex, cancellationToken), cancellationToken);
            await bench.MeasureAsync($"Backfill, {inBackfill} kills", () => run.BackfillAsync(inBackfill, cancellationToken), cancellationToken);
            await bench.MeasureAsync("Last run", () => run.FinishAsync(cancellationToken), cancellationToken);
            bench.Drawings.Add(run.Table());
        }
        finally
        {
            // The scenario's own session is no leftover of a client's.
            await SessionFactory.DisconnectAsync(session);
        }

        await JudgeAsync(bench, cancellationToken);
    }

    private static async Task JudgeAsync(Bench bench, CancellationToken cancellationToken)
    {
        Shop shop = bench.Shop;
        if (!await shop.ScalarAsync<bool>("select count(*) = 1 from pg_index where indrelid = 'orders'::regclass and indexrelid = to_regclass('orders_tier_idx') and indisvalid and indisready", cancellationToken))
        {
            bench.Broken.Add("Nothing is lost: there is no valid index orders_tier_idx after the last run.");
        }

        FillProof proof = await FillProof.ReadAsync(shop, cancellationToken);
        bench.Screen.Say($"Proof: {proof}");
        bench.Broken.AddRange(proof.Broken(await shop.ScalarAsync<long>("select sum(rows_done)::bigint from migration_safety.backfill_worker", cancellationToken)));
        bench.Broken.AddRange((await IndexContradictsAsync(shop, cancellationToken)).Select(line => $"Nothing is lost: {line}."));
        bench.Broken.AddRange((await SchemaState.LeftoversAtRestAsync(shop, cancellationToken)).Select(leftover => $"Nothing is lost: {leftover}."));
    }

    /// <summary>Counts by the index and by the table, on one snapshot.</summary>
    private static async Task<IReadOnlyList<string>> IndexContradictsAsync(Shop shop, CancellationToken cancellationToken)
    {
        const string Count = "select tier, count(*) from orders where tier in ('gold', 'silver', 'basic') group by tier";
        List<string> contradictions = [];
        await using NpgsqlConnection connection = await shop.Admin.OpenConnectionAsync(cancellationToken);
        await using NpgsqlTransaction transaction = await connection.BeginTransactionAsync(System.Data.IsolationLevel.RepeatableRead, cancellationToken);
        Dictionary<string, long>[] counts = [[], []];
        for (int i = 0; i < counts.Length; i++)
        {
            string off = i == 0 ? "set local enable_seqscan = off" : "set local enable_seqscan = on; set local enable_indexscan = off; set local enable_indexonlyscan = off; set local enable_bitmapscan = off";
            await using NpgsqlCommand command = new($"{off}; {Count}", connection);
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
            {
                counts[i].Add(reader.GetString(0), reader.GetInt64(1));
            }
        }

        foreach (string tier in counts[0].Keys.Union(counts[1].Keys))
        {
            (long index, long table) = (counts[0].GetValueOrDefault(tier), counts[1].GetValueOrDefault(tier));
            if (index != table)
            {
                contradictions.Add(string.Create(CultureInfo.InvariantCulture, $"the index finds {index:N0} rows with {tier}, the table has {table:N0}"));
            }
        }

        return contradictions;
    }

    private sealed record Kill(string Operation, string Moment, string Found);

    /// <summary>Starts, watches and kills the clients.</summary>
    private sealed class FaultRun(Bench bench, Random random, ProgressReader progress, NpgsqlConnection connection) : IAsyncDisposable
    {
        private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(5);

        private readonly List<Kill> _kills = [];
        private int _clients;

        public ValueTask DisposeAsync() => connection.DisposeAsync();

        internal async Task<long?> IndexAsync(int kills, CancellationToken cancellationToken)
        {
            for (int killed = 0; killed < kills;)
            {
                // One in five before anything is seen to be built: then a leftover is being removed, or the client only looks.
                double? target = random.Next(5) == 0 ? null : random.NextDouble() * 95;
                int pause = random.Next(40);
                using ClientProcess client = StartClient();
                string? moment = await IndexMomentAsync(client, target, cancellationToken);
                await Task.Delay(pause, cancellationToken);
                if (await client.KillAsync() && moment is not null)
                {
                    killed++;
                    _kills.Add(new Kill("Index build", moment, await StateAsync(cancellationToken)));
                    bench.Screen.Say($"    kill -9 number {_kills.Count}: {moment}");
                }
                else
                {
                    bench.Screen.Say("    The index was complete before the moment had come.");
                }

                if (killed < kills && await IsBuiltAsync(cancellationToken))
                {
                    // The server had finished it when it noticed that the client was gone, or the client was faster. The rest needs something to hit.
                    bench.Screen.Say("    The index is valid; it is dropped, so that the next client has something to build.");
                    await bench.Shop.ExecuteAsync("drop index concurrently if exists orders_tier_idx", cancellationToken);
                }
            }

            return null;
        }

        internal async Task<long?> BackfillAsync(int kills, CancellationToken cancellationToken)
        {
            long rows = await bench.Shop.ScalarAsync<long>("select count(*) from orders where tier is null", cancellationToken);
            // Spread over the whole, each somewhere in its part of it.
            for (int i = 0; i < kills; i++)
            {
                long target = (long)(rows * (i + random.NextDouble()) / kills * 0.97);
                int pause = random.Next(200);
                using ClientProcess client = StartClient();
                await BackfillMomentAsync(client, target, cancellationToken);
                await Task.Delay(pause, cancellationToken);
                if (!await client.KillAsync())
                {
                    bench.Broken.Add($"The client ended by itself before kill -9 number {_kills.Count + 1}: {string.Join(" ", client.Lines.TakeLast(1))}");
                    break;
                }

                (long done, string activity) = await BackfillStateAsync(cancellationToken);
                string moment = string.Create(CultureInfo.InvariantCulture, $"{100.0 * done / rows:0.0} % of the rows done, {activity}");
                _kills.Add(new Kill("Backfill", moment, await StateAsync(cancellationToken)));
                bench.Screen.Say($"    kill -9 number {_kills.Count}: {moment}");
            }

            return (await BackfillStateAsync(cancellationToken)).Done;
        }

        internal async Task<long?> FinishAsync(CancellationToken cancellationToken)
        {
            long before = (await BackfillStateAsync(cancellationToken)).Done;
            using ClientProcess client = StartClient();
            if (await client.ExitCodeAsync(cancellationToken) is not 0 and int code)
            {
                bench.Broken.Add($"Nothing is lost: the last run ended with exit code {code}: {string.Join(" ", client.Lines.TakeLast(2))}");
            }

            return (await BackfillStateAsync(cancellationToken)).Done - before;
        }

        internal Table Table()
        {
            Table table = new Table().Border(bench.Screen.Interactive ? TableBorder.Rounded : TableBorder.Ascii).AddColumns("Kill", "During", "At", "Seen on the server right after");
            foreach ((Kill kill, int number) in _kills.Select((kill, i) => (kill, i + 1)))
            {
                table.AddRow(new Text(number.ToString(CultureInfo.InvariantCulture)), new Text(kill.Operation), new Text(kill.Moment), new Text(kill.Found));
            }

            return table;
        }

        private ClientProcess StartClient()
        {
            int number = ++_clients;
            return ClientProcess.Start(bench.Shop, line => bench.Screen.Verbose($"client {number}: {line}"));
        }

        /// <summary>Waits for the moment.</summary>
        /// <returns>The moment in words; null where the index was complete before.</returns>
        private async Task<string?> IndexMomentAsync(ClientProcess client, double? target, CancellationToken cancellationToken)
        {
            HashSet<int> earlier = [.. await OurBackendsAsync("MigrationSafety/index-build", cancellationToken)];
            while (!client.HasExited)
            {
                // What an earlier client left running is not the one to hit.
                int[] pids = [.. (await OurBackendsAsync("MigrationSafety/index-build", cancellationToken)).Where(pid => !earlier.Contains(pid))];
                if (target is null && pids.Length > 0)
                {
                    return $"session open, {await QueryAsync(pids[0], cancellationToken)}";
                }

                foreach (MigrationProgress build in await progress.ReadAsync(bench.Screen, cancellationToken))
                {
                    if (pids.Contains(build.Pid) && build.Percent >= target)
                    {
                        return string.Create(CultureInfo.InvariantCulture, $"{build.Phase}, some {build.Percent:0} % of the whole");
                    }
                }

                if (client.Lines.Any(line => line.StartsWith("index ", StringComparison.Ordinal)))
                {
                    return null;
                }

                await Task.Delay(s_look, cancellationToken);
            }

            return null;
        }

        private async Task BackfillMomentAsync(ClientProcess client, long target, CancellationToken cancellationToken)
        {
            bool begun = false;
            while (!client.HasExited && !(begun && (await BackfillStateAsync(cancellationToken)).Done >= target))
            {
                // Of an earlier client the index would have been complete too: it is this one that has to say so.
                begun |= client.Lines.Any(line => line.StartsWith("index ", StringComparison.Ordinal));
                await Task.Delay(s_look, cancellationToken);
            }
        }

        private async Task<(long Done, string Activity)> BackfillStateAsync(CancellationToken cancellationToken)
        {
            await using (NpgsqlCommand there = new("select to_regclass('migration_safety.backfill_worker') is not null", connection))
            {
                if (!(bool)(await there.ExecuteScalarAsync(cancellationToken))!)
                {
                    return (0, "before the first batch");
                }
            }

            await using NpgsqlCommand command = new(
                """
                select coalesce((select sum(rows_done)::bigint from migration_safety.backfill_worker), 0),
                       coalesce((select string_agg(state, ', ') from pg_stat_activity where application_name = 'MigrationSafety/backfill' and state <> 'idle'), 'between two batches')
                """,
                connection);
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken);
            await reader.ReadAsync(cancellationToken);
            return (reader.GetInt64(0), reader.GetString(1) == "active" ? "a batch running" : reader.GetString(1));
        }

        private async Task<int[]> OurBackendsAsync(string application, CancellationToken cancellationToken)
        {
            await using NpgsqlCommand command = new("select coalesce(array_agg(pid), '{}') from pg_stat_activity where application_name = $1", connection) { Parameters = { new() { Value = application } } };
            return (int[])(await command.ExecuteScalarAsync(cancellationToken))!;
        }

        private async Task<string> QueryAsync(int pid, CancellationToken cancellationToken)
        {
            await using NpgsqlCommand command = new("select left(regexp_replace(query, '\\s+', ' ', 'g'), 60) from pg_stat_activity where pid = $1", connection) { Parameters = { new() { Value = pid } } };
            return await command.ExecuteScalarAsync(cancellationToken) as string ?? "ended";
        }

        /// <summary>What the kill left for the moment: backends that have not noticed yet, an invalid index.</summary>
        private async Task<string> StateAsync(CancellationToken cancellationToken)
        {
            await using NpgsqlCommand command = new(
                """
                select coalesce((select case when indisvalid then 'index valid' else 'index not valid' end from pg_index where indexrelid = to_regclass('orders_tier_idx')), 'no index'),
                       (select count(*) from pg_stat_activity where application_name like 'MigrationSafety/%' and state <> 'idle')
                """,
                connection);
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken);
            await reader.ReadAsync(cancellationToken);
            return $"{reader.GetString(0)}, {reader.GetInt64(1)} of its sessions still at work";
        }

        /// <summary>Whether the index is there and valid, once nobody of ours works on it any more.</summary>
        private async Task<bool> IsBuiltAsync(CancellationToken cancellationToken)
        {
            // In half the cases the next client is to meet what the last one left running.
            if (random.Next(2) == 0)
            {
                return await bench.Shop.ScalarAsync<bool>("select exists (select from pg_index where indexrelid = to_regclass('orders_tier_idx') and indisvalid)", cancellationToken);
            }

            while ((await OurBackendsAsync("MigrationSafety/index-build", cancellationToken)).Length > 0)
            {
                await Task.Delay(s_look, cancellationToken);
            }

            return await bench.Shop.ScalarAsync<bool>("select exists (select from pg_index where indexrelid = to_regclass('orders_tier_idx') and indisvalid)", cancellationToken);
        }
    }
}
