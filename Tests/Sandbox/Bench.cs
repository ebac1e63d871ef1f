using System.Globalization;
using Spectre.Console.Rendering;

namespace MigrationSafety.Sandbox;

/// <summary>A part of the run with what the application felt meanwhile.</summary>
/// <param name="Name">What was done.</param>
/// <param name="Spans">When: several where it was done in turns with something else.</param>
/// <param name="Rows">Rows that were worked on; null where there are none to speak of.</param>
internal sealed record Measure(string Name, IReadOnlyList<(DateTimeOffset Start, DateTimeOffset End)> Spans, long? Rows)
{
    internal TimeSpan Duration => Spans.Aggregate(TimeSpan.Zero, (sum, span) => sum + (span.End - span.Start));
}

/// <summary>A measured part with its figures.</summary>
/// <param name="Measure">The part.</param>
/// <param name="Latency">How long the application's statements took.</param>
/// <param name="Waits">Which of them the server saw waiting for a lock of ours, and for how long at most.</param>
internal sealed record Figures(Measure Measure, Latency Latency, IReadOnlyList<(WaitForUs Wait, TimeSpan Longest)> Waits)
{
    internal TimeSpan WorstWait => Waits.Select(wait => wait.Longest).DefaultIfEmpty().Max();
}

/// <summary>Server, traffic, probe and sampler of a run: measures steps and judges the promise that nobody waits.</summary>
internal sealed class Bench : IAsyncDisposable
{
    /// <summary>An application statement that waits as long as this for a lock of ours breaks the promise: the lock timeout of 500 ms, and a little for its end.</summary>
    internal static readonly TimeSpan TooLong = TimeSpan.FromMilliseconds(600);

    private static readonly TimeSpan s_afterwards = TimeSpan.FromSeconds(2);

    private readonly List<Measure> _measures = [];

    private Bench(Shop shop, Traffic traffic, LockSampler sampler, Screen screen)
    {
        Shop = shop;
        Traffic = traffic;
        Sampler = sampler;
        Screen = screen;
    }

    internal Shop Shop { get; }

    internal Traffic Traffic { get; }

    internal Screen Screen { get; }

    /// <summary>Promises that turned out broken, a sentence each.</summary>
    internal List<string> Broken { get; } = [];

    /// <summary>What the scenario wants to be shown at the end.</summary>
    internal List<IRenderable> Drawings { get; } = [];

    /// <summary>The part in which nothing of ours ran; null before it was measured.</summary>
    internal Measure? Baseline { get; private set; }

    private LockSampler Sampler { get; }

    internal static async Task<Bench> StartAsync(SandboxOptions options, Screen screen, CancellationToken cancellationToken)
    {
        Shop shop = await Shop.OpenAsync(options.Postgres, options.Scenario.ShopRows(options), screen, cancellationToken);
        LockSampler? sampler = null;
        try
        {
            sampler = await LockSampler.StartAsync(shop, cancellationToken);
            Bench bench = new(shop, await Traffic.StartAsync(shop, cancellationToken), sampler, screen);
            screen.Pulse = bench.Pulse;
            return bench;
        }
        catch
        {
            if (sampler is not null)
            {
                await sampler.DisposeAsync();
            }

            await shop.DisposeAsync();
            throw;
        }
    }

    /// <summary>Measures the application alone.</summary>
    internal async Task MeasureBaselineAsync(int seconds, CancellationToken cancellationToken)
    {
        Screen.Begin($"The application alone, for {seconds} s");
        // Connections and caches are cold at first.
        await Task.Delay(TimeSpan.FromSeconds(2), cancellationToken);
        DateTimeOffset start = Traffic.Log.Now;
        await Task.Delay(TimeSpan.FromSeconds(seconds), cancellationToken);
        Baseline = new Measure("(none)", [(start, Traffic.Log.Now)], null);
        Screen.End();
    }

    /// <summary>Measures a step, which begins while a transaction of the application is open that stays so for seconds.</summary>
    /// <param name="name">Name.</param>
    /// <param name="step">Returns the rows it worked on; null where there are none to speak of.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task MeasureAsync(string name, Func<Task<long?>> step, CancellationToken cancellationToken)
    {
        await Traffic.LongTransactionAsync(cancellationToken);
        Screen.Begin(name);
        DateTimeOffset start = Traffic.Log.Now;
        long? rows = null;
        try
        {
            rows = await step();
        }
        finally
        {
            _measures.Add(new Measure(name, [(start, Traffic.Log.Now)], rows));
            Screen.End();
        }
    }

    /// <summary>Measures a step in turns with the application alone, so that whatever else slows the machine down meets both.</summary>
    /// <param name="name">Name.</param>
    /// <param name="turn">How long the application is alone, each time.</param>
    /// <param name="step">Does a part of it; returns the rows it worked on, and whether that was the last part.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>What the application felt alone and during the step.</returns>
    internal async Task<(Latency Alone, Latency During)> MeasureInTurnsAsync(string name, TimeSpan turn, Func<Task<(long Rows, bool IsLast)>> step, CancellationToken cancellationToken)
    {
        Screen.Begin(name);
        List<(DateTimeOffset, DateTimeOffset)> alone = [];
        List<(DateTimeOffset, DateTimeOffset)> during = [];
        long rows = 0;
        try
        {
            for (bool over = false; !over;)
            {
                DateTimeOffset start = Traffic.Log.Now;
                await Task.Delay(turn, cancellationToken);
                alone.Add((start, Traffic.Log.Now));
                await Traffic.LongTransactionAsync(cancellationToken);
                start = Traffic.Log.Now;
                try
                {
                    (long done, over) = await step();
                    rows += done;
                }
                finally
                {
                    during.Add((start, Traffic.Log.Now));
                }

                // What the step has written is on its way to the disk.
                await Task.Delay(s_afterwards, cancellationToken);
                await SettleAsync(cancellationToken);
            }
        }
        finally
        {
            _measures.Add(new Measure($"    the application alone, {alone.Count} times", alone, null));
            _measures.Add(new Measure(name, during, rows));
            Screen.End();
        }

        return (Of(_measures[^2]).Latency, Of(_measures[^1]).Latency);
    }

    /// <summary>Figures of all steps.</summary>
    internal IReadOnlyList<Figures> Figures() => [.. _measures.Select(Of)];

    internal Figures Of(Measure measure)
    {
        StatementTiming[] statements = [.. measure.Spans.SelectMany(span => Traffic.Log.Between(span.Start, span.End))];
        ILookup<int, StatementTiming> byPid = statements.ToLookup(statement => statement.Pid);
        return new Figures(measure, Latency.Of(statements), [.. measure.Spans.SelectMany(span => Sampler.Between(span.Start, span.End)).Distinct().Select(wait => (wait, Longest(wait, byPid[wait.Pid])))]);
    }

    /// <summary>Waits until every statement that began during a step has come back.</summary>
    internal async Task SettleAsync(CancellationToken cancellationToken)
    {
        DateTimeOffset now = Traffic.Log.Now;
        while (Traffic.Log.OldestRunning is { } oldest && oldest <= now)
        {
            await Task.Delay(20, cancellationToken);
        }
    }

    /// <summary>Notes what probe and sampler show of broken promises. Statements that still run are not judged.</summary>
    internal void Judge()
    {
        if (Sampler.Failure is { } failure)
        {
            throw new InvalidOperationException($"The sampler broke off, so that nothing is proved: {failure.Message}", failure);
        }

        foreach (Figures figures in Figures())
        {
            (WaitForUs Wait, TimeSpan Longest)[] tooLong = [.. figures.Waits.Where(wait => wait.Longest >= TooLong).OrderByDescending(wait => wait.Longest)];
            if (tooLong.Length > 0)
            {
                Broken.Add(string.Create(
                    CultureInfo.InvariantCulture,
                    $"Nobody waits: during '{figures.Measure.Name}' {tooLong.Length} statements of the application waited {TooLong.TotalMilliseconds:0} ms or more for a lock of ours; the worst {Screen.Text(tooLong[0].Longest)}, '{tooLong[0].Wait.Query}', for {tooLong[0].Wait.For}."));
            }
        }

        if (Traffic.Log.Failures is { Count: > 0 } failures)
        {
            Broken.Add($"Nobody waits: {failures.Count} statements of the application failed; the first: {failures[0]}");
        }
    }

    /// <summary>The longest time between two samples while steps ran.</summary>
    internal TimeSpan LongestGap() => _measures.SelectMany(measure => measure.Spans).Select(span => Sampler.LongestGap(span.Start, span.End)).DefaultIfEmpty().Max();

    public async ValueTask DisposeAsync()
    {
        Screen.Pulse = null;
        await Traffic.DisposeAsync();
        await Sampler.DisposeAsync();
        await Shop.DisposeAsync();
    }

    /// <summary>
    /// At most how long it waited: what the samples saw, and what lies between the last that saw it and the next, unless the application had
    /// its answer earlier.
    /// </summary>
    private static TimeSpan Longest(WaitForUs wait, IEnumerable<StatementTiming> statements)
    {
        TimeSpan longest = wait.Waited + wait.Unseen;
        TimeSpan slack = TimeSpan.FromMilliseconds(2);
        TimeSpan? took = statements
            .Where(statement => statement.Start - slack <= wait.QueryStart && wait.Seen <= statement.End + slack)
            .Select(statement => (TimeSpan?)statement.Duration)
            .Max();
        return took < longest ? took.Value : longest;
    }

    private string Pulse()
    {
        DateTimeOffset now = Traffic.Log.Now;
        IReadOnlyList<StatementTiming> recent = Traffic.Log.Between(now - TimeSpan.FromSeconds(3), now);
        Latency latency = Latency.Of(recent);
        return string.Create(
            CultureInfo.InvariantCulture,
            $"Application, last 3 s: {latency.Count / 3:N0} statements/s, p50 {Screen.Text(latency.P50)}, p99 {Screen.Text(latency.P99)}, worst {Screen.Text(latency.Worst)}");
    }
}
