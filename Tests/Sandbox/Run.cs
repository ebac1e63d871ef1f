using System.Globalization;
using Spectre.Console.Rendering;

namespace MigrationSafety.Sandbox;

/// <summary>One run: server, traffic, scenario, verdict, and the hand-over where one is asked for.</summary>
internal sealed class Run(SandboxOptions options, Screen screen)
{
    private Bench? _bench;

    /// <summary>Does it.</summary>
    /// <returns>The exit code.</returns>
    internal async Task<int> GoAsync(CancellationToken cancellationToken)
    {
        try
        {
            await screen.RunAsync(() => WorkAsync(cancellationToken));
            Bench bench = _bench!;
            foreach (IRenderable drawing in bench.Drawings)
            {
                screen.Show(drawing);
            }

            if (bench.Baseline is not null)
            {
                screen.Show(StepTable.Draw(bench));
            }

            string gap = bench.LongestGap() is { TotalMilliseconds: > 0 } longest ? $", the longest pause between two looks {Screen.Text(longest)}" : "";
            screen.Show($"Who waits for whom was read from pg_locks and pg_blocking_pids every 25 ms{gap}; waits of application sessions for each other do not count.", "grey");
            foreach (string broken in bench.Broken)
            {
                screen.Show("BROKEN  " + broken, "red");
            }

            if (bench.Broken.Count == 0)
            {
                screen.Show(
                    string.Create(CultureInfo.InvariantCulture, $"All promises held: no statement of the application ({bench.Traffic.Log.Count:N0} in all) waited {Bench.TooLong.TotalMilliseconds:0} ms for a lock of ours."),
                    "green");
            }

            if (options.Keep || options.Shell)
            {
                await HandOverAsync(bench, cancellationToken);
            }

            return bench.Broken.Count == 0 ? 0 : 1;
        }
        finally
        {
            if (_bench is not null)
            {
                await _bench.DisposeAsync();
            }
        }
    }

    private async Task WorkAsync(CancellationToken cancellationToken)
    {
        _bench = await Bench.StartAsync(options, screen, cancellationToken);
        await options.Scenario.RunAsync(_bench, options, cancellationToken);
        await _bench.SettleAsync(cancellationToken);
        _bench.Judge();
    }

    private async Task HandOverAsync(Bench bench, CancellationToken cancellationToken)
    {
        bool hasColumn = await bench.Shop.ScalarAsync<bool>("select exists (select from pg_attribute where attrelid = 'orders'::regclass and attname = 'tier' and not attisdropped)", cancellationToken);
        if (!hasColumn)
        {
            screen.Show($"Adding the column of {Migration.FileName}.");
            await Migration.ApplyAsync(bench.Shop, screen, cancellationToken);
        }

        bench.Traffic.WritesTier = true;
        await (options.Shell ? HandOver.ShellAsync(bench.Shop, screen, cancellationToken) : HandOver.KeepAsync(bench.Shop, screen, cancellationToken));
    }
}
