using System.Globalization;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>
/// How much longer a small commit takes because of the backfill, from commits tried all the time, and the speed at which that stays within a limit. The harm is taken to grow
/// with the share of the time in which batches run, which was so in the measurements. No clock, no server.
/// </summary>
internal sealed class CommitTimes
{
    /// <summary>The speed until enough is known.</summary>
    internal const double FirstSpeed = 0.1;

    private const int Kept = 1600;
    private const int RestingKept = 400;
    private const int Enough = 60;
    private const int RestingEnough = 20;
    // A stall of the disk is not to count as much as the thousand commits around it.
    private const double MostTimes = 10;
    // Faster only step by step: the first figures may be chance.
    private const double MostFaster = 1.15;

    private readonly Queue<(double Seconds, double Speed)> _all = new();
    private readonly Queue<double> _resting = new();

    /// <summary>The share of the time in which batches may work; 1 where they do no harm.</summary>
    internal double Speed { get; private set; } = FirstSpeed;

    /// <summary>Whether enough commits were seen with and without it.</summary>
    internal bool IsKnown => _all.Count >= Enough && _resting.Count >= RestingEnough;

    /// <summary>In words; null where nothing is to be said.</summary>
    internal string? Reason { get; private set; }

    /// <summary>A commit was tried.</summary>
    /// <param name="took">How long it took.</param>
    /// <param name="resting">Whether no batch ran meanwhile, nor shortly before.</param>
    /// <param name="speed">The share of the time in which batches ran by then.</param>
    internal void Add(TimeSpan took, bool resting, double speed)
    {
        Keep(_all, (took.TotalSeconds, speed), Kept);
        if (resting)
        {
            Keep(_resting, took.TotalSeconds, RestingKept);
        }
    }

    /// <summary>Decides anew.</summary>
    /// <param name="limit">How many times as long commits may take, on average over batches and pauses.</param>
    /// <param name="clients">Clients that work on the backfill: each may do its share of the harm.</param>
    internal void Decide(double limit, int clients)
    {
        if (!IsKnown)
        {
            (Speed, Reason) = (Math.Min(Speed, FirstSpeed), "others are at work on the server, and how much it slows their commits down is measured first");
            return;
        }

        double most = _resting.Order().ElementAt(_resting.Count / 2) * MostTimes;
        (double alone, double aloneError) = Mean(_resting, most);
        (double all, double allError) = Mean(_all.Select(commit => commit.Seconds), most);
        double times = all / alone;
        // As much as it may well be: the fewer were tried, the more caution.
        double harm = times - 1 + (times * Math.Sqrt((aloneError * aloneError) + (allError * allError)));
        double allowed = (limit - 1) / clients;
        double possible = harm <= 0 ? 1 : Math.Clamp(Math.Round(allowed / harm * _all.Average(commit => commit.Speed), 2), ThrottleController.LeastSpeed, 1);
        // What is measured scatters.
        if (possible < 0.8 * Speed || possible > 1.2 * Speed || possible == 1)
        {
            Speed = Math.Min(possible, Math.Round(Speed * MostFaster, 2));
        }

        Reason = Speed == 1 ? null : string.Create(
            CultureInfo.InvariantCulture,
            $"commits of others take {times:0.00} times as long because of it, {alone * times * 1000:0.0} ms instead of {alone * 1000:0.0} ms (limit {limit:0.##} times)");
    }

    /// <summary>The mean, and its standard error as a share of it.</summary>
    private static (double Mean, double Error) Mean(IEnumerable<double> values, double most)
    {
        double[] bounded = [.. values.Select(value => Math.Min(value, most))];
        double mean = bounded.Average();
        return (mean, Math.Sqrt(bounded.Sum(value => (value - mean) * (value - mean)) / bounded.Length / bounded.Length) / mean);
    }

    private static void Keep<T>(Queue<T> queue, T value, int most)
    {
        queue.Enqueue(value);
        if (queue.Count > most)
        {
            queue.Dequeue();
        }
    }
}
