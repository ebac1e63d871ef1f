using System.Globalization;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>
/// How much longer a small commit takes because of the backfill, from commits tried all the time, and the speed at which that stays within a limit. Those with and without a batch are
/// held against each other within a few seconds: a disk that is slow for a minute, in which batches hardly run, would tell for ever that they do no harm. The harm is taken to grow
/// with the share of the time in which batches run, which was so in the measurements. No clock, no server.
/// </summary>
internal sealed class CommitTimes
{
    /// <summary>The speed until enough is known, of all workers together.</summary>
    internal const double FirstSpeed = 0.1;

    // 80 s as they are tried: of half as many, those without a batch scatter too much.
    private const int Kept = 3200;
    // Within which they are held against each other: from one time without it to the next, about.
    private const int Together = 200;
    private const int Enough = 60;
    private const int RestingEnough = 20;
    // Once enough was known, fewer will do: with long batches little of the time is without one.
    private const int RestingStillEnough = 5;
    // A stall of the disk is not to count as much as the thousand commits around it.
    private const double MostTimes = 10;
    // Faster only step by step: the first figures may be chance.
    private const double MostFaster = 1.15;
    // By so much Linux lets every wake-up be late, unless it is told otherwise (timer slack).
    internal const double NotFelt = 0.00005;
    private const int MostDigits = 3;
    // Of a speed: so many that a step up from the least one of many workers is not rounded away.
    private const int Digits = 6;

    private readonly Queue<(long Turn, double Seconds, double Speed, bool Resting)> _all = new();
    private long _number;
    private int _resting;
    private bool _wasKnown;

    /// <summary>The share of the time in which batches may work; 1 where they do no harm.</summary>
    internal double Speed { get; private set; } = FirstSpeed;

    /// <summary>Whether enough commits were seen with and without it.</summary>
    internal bool IsKnown => _all.Count >= Enough && _resting >= (_wasKnown ? RestingStillEnough : RestingEnough);

    /// <summary>In words; null where nothing is to be said.</summary>
    internal string? Reason { get; private set; }

    /// <summary>A commit was tried.</summary>
    /// <param name="took">How long it took.</param>
    /// <param name="resting">Whether no batch ran meanwhile, nor shortly before.</param>
    /// <param name="speed">The share of the time in which batches ran by then.</param>
    internal void Add(TimeSpan took, bool resting, double speed)
    {
        _all.Enqueue((_number++ / Together, took.TotalSeconds, speed, resting));
        _resting += resting ? 1 : 0;
        if (_all.Count > Kept && _all.Dequeue().Resting)
        {
            _resting--;
        }
    }

    /// <summary>Decides anew.</summary>
    /// <param name="limit">How many times as long commits may take, on average over batches and pauses. Where they are so short that 0.05 ms more is over it, that much is allowed.</param>
    /// <param name="clients">Clients that work on the backfill: each may do its share of the harm.</param>
    /// <param name="workers">Workers of this one: its least speed is that of all of them together.</param>
    internal void Decide(double limit, int clients, int workers)
    {
        _wasKnown = IsKnown;
        if (!_wasKnown)
        {
            (Speed, Reason) = (Math.Min(Speed, FirstSpeed / workers), "others seem to be at work on the server, and how much it slows their commits down is measured first");
            return;
        }

        (double alone, double more, double error) = Compare();
        double times = 1 + more;
        // As much as it may well be: the fewer were tried, the more caution.
        double harm = more + error;
        bool tooShort = NotFelt / alone > limit - 1;
        double allowed = (tooShort ? NotFelt / alone : limit - 1) / clients;
        double possible = harm <= 0 ? 1 : Math.Clamp(Math.Round(allowed / harm * _all.Average(commit => commit.Speed), Digits), ThrottleController.LeastSpeed / workers, 1);
        // What is measured scatters.
        if (possible < 0.8 * Speed || possible > 1.2 * Speed || possible == 1)
        {
            Speed = Math.Min(possible, Math.Round(Speed * MostFaster, Digits));
        }

        (string now, string without) = Milliseconds(alone * times, alone);
        string slower = Math.Round(times, 2) > 1
            ? string.Create(CultureInfo.InvariantCulture, $"commits of others take {times:0.00} times as long because of it, {now} ms instead of {without} ms")
            : $"it gets faster step by step; commits of others take no longer because of it so far, {now} ms";
        string bound = string.Create(CultureInfo.InvariantCulture, $"{(times > limit ? "limit" : "kept to at most")} {limit:0.##} times{(tooShort ? $", or {NotFelt * 1000} ms" : "")}");
        Reason = Speed == 1 ? null : $"{slower} ({bound})";
    }

    /// <summary>Two times with as many digits as tell them apart.</summary>
    private static (string Longer, string Shorter) Milliseconds(double longer, double shorter)
    {
        for (int digits = 1; ; digits++)
        {
            string format = "F" + digits;
            (string first, string second) = ((longer * 1000).ToString(format, CultureInfo.InvariantCulture), (shorter * 1000).ToString(format, CultureInfo.InvariantCulture));
            if (first != second || digits == MostDigits)
            {
                return (first, second);
            }
        }
    }

    /// <summary>How long commits take without a batch, by which share longer they take on average over batches and pauses, and the standard error of that share.</summary>
    private (double Alone, double More, double Error) Compare()
    {
        double[] resting = [.. _all.Where(commit => commit.Resting).Select(commit => commit.Seconds).Order()];
        double most = resting[resting.Length / 2] * MostTimes;
        (double Weights, double Alone, double Longer, double Variance) sum = default;
        foreach (IGrouping<long, (long, double Seconds, double, bool Resting)> turn in _all.GroupBy(commit => commit.Turn))
        {
            ILookup<bool, double> times = turn.ToLookup(commit => commit.Resting, commit => Math.Min(commit.Seconds, most));
            (int with, int without) = (times[false].Count(), times[true].Count());
            if (with == 0 || without == 0)
            {
                continue;
            }

            // By how sure the difference is, as in the test of Cochran and Mantel and Haenszel.
            double weight = (double)with * without / (with + without);
            (double mean, double alone) = (times[false].Average(), times[true].Average());
            double scatter = (times[false].Sum(took => (took - mean) * (took - mean)) + times[true].Sum(took => (took - alone) * (took - alone))) / Math.Max(1, with + without - 2);
            sum = (sum.Weights + weight, sum.Alone + (weight * alone), sum.Longer + (weight * (mean - alone)), sum.Variance + (weight * scatter));
        }

        if (sum.Weights == 0)
        {
            // Never both within the same seconds.
            return (resting.Average(), 0, 1);
        }

        double share = 1 - ((double)_resting / _all.Count);
        return (sum.Alone / sum.Weights, share * sum.Longer / sum.Alone, share * Math.Sqrt(sum.Variance) / sum.Alone);
    }
}
