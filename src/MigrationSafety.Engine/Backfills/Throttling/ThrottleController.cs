using System.Globalization;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>How a backfill is to go on.</summary>
/// <param name="Speed">From 0 to 1: the share of the time in which batches run. 0: none does.</param>
/// <param name="Reason">Why it is slower than it could be; null at full speed.</param>
/// <param name="Since">Since when it is.</param>
/// <param name="Recovers">Whether the reason is over and it gets faster again.</param>
/// <param name="IsNear">Whether no limit is exceeded, but one so near that it gets no faster.</param>
internal sealed record ThrottleDecision(double Speed, string? Reason, DateTimeOffset Since, bool Recovers = false, bool IsNear = false)
{
    /// <summary>What the words of a pause begin with.</summary>
    internal const string PausedWord = "paused";

    internal bool Paused => Speed == 0;

    /// <summary>In words; null at full speed.</summary>
    internal string? Words => this switch
    {
        { Reason: null } => null,
        { Paused: true } => $"{PausedWord}: {Reason}{Near}",
        { Recovers: true } => $"at {Percent} % speed and rising, after: {Reason}",
        _ => $"at {Percent} % speed: {Reason}{Near}",
    };

    private string Near => IsNear ? ", too near to go faster" : "";

    // Of many workers each may have less than one: 0 would say that it is paused.
    private string Percent => (Speed * 100).ToString(Speed < 0.01 ? "0.##" : "0", CultureInfo.InvariantCulture);
}

/// <summary>
/// From pressures to a speed: halved while something is over its limit, a step faster with each look while all is well below, unchanged in between; paused far over a limit, or where
/// the least speed does not help, and on again after two looks well below, or five that are over no limit: what the limits allow may be delayed, not forbidden. No clock, no server.
/// </summary>
internal sealed class ThrottleController
{
    internal const double LeastSpeed = 0.05;
    internal const double Step = 0.1;

    // Above it nothing gets faster, or the next look would halve it again.
    private const double Calm = 0.8;
    private const double FarOver = 2;
    // What was just done is seen a look later.
    private const int LooksBetweenCuts = 2;
    private const int LooksAtLeastSpeed = 5;
    private const int CalmLooks = 2;
    private const int LooksWithin = 5;

    private int _sinceCut = LooksBetweenCuts;
    private int _atLeast;
    private int _calm;
    private int _within;

    internal ThrottleDecision Current { get; private set; } = new(1, null, default);

    /// <summary>Decides after a look.</summary>
    /// <param name="pressures">What it saw, the worst first.</param>
    /// <param name="now">When.</param>
    internal ThrottleDecision Decide(IReadOnlyList<ThrottlePressure> pressures, DateTimeOffset now)
    {
        ThrottlePressure? worst = pressures.Count > 0 ? pressures[0] : null;
        bool over = worst is { } found && (found.Stops || found.Ratio > 1);
        bool calm = worst is null || (!worst.Stops && worst.Ratio <= Calm);
        _calm = calm ? _calm + 1 : 0;
        _within = over ? 0 : _within + 1;
        _sinceCut++;
        double speed = Current.Speed;
        if (over)
        {
            _atLeast = speed is > 0 and <= LeastSpeed ? _atLeast + 1 : 0;
            if (worst!.Stops || worst.Ratio > FarOver || _atLeast >= LooksAtLeastSpeed)
            {
                speed = 0;
            }
            else if (speed > 0 && _sinceCut >= LooksBetweenCuts)
            {
                speed = Math.Max(LeastSpeed, speed / 2);
                _sinceCut = 0;
            }
        }
        else if (speed == 0)
        {
            speed = _calm >= CalmLooks || _within >= LooksWithin ? LeastSpeed : 0;
            _atLeast = 0;
        }
        else if (calm && speed < 1)
        {
            // Rounded, so that sums of tenths come to 1.
            speed = Math.Min(1, Math.Round(speed + Step, 4));
        }

        // What it was slow for may be over, and something else so near its limit that it gets no faster.
        string? reason = speed == 1 ? null : calm ? Current.Reason ?? worst?.Reason : worst!.Reason;
        // Since the change from or to a stop, and from full speed: not since each step.
        bool another = (speed == 0) != Current.Paused || (speed == 1) != (Current.Speed == 1) || Current.Since == default;
        return Current = new ThrottleDecision(speed, reason, another ? now : Current.Since, Recovers: calm && speed > 0, IsNear: !over && !calm);
    }
}
