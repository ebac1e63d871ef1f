using System.Diagnostics;

namespace MigrationSafety.Sandbox;

/// <summary>A statement of the application, as the application saw it.</summary>
/// <param name="Kind">What it did, such as "point read".</param>
/// <param name="Pid">Its backend.</param>
/// <param name="Start">When it was sent.</param>
/// <param name="Duration">Until the answer was there.</param>
internal readonly record struct StatementTiming(string Kind, int Pid, DateTimeOffset Start, TimeSpan Duration)
{
    internal DateTimeOffset End => Start + Duration;
}

/// <summary>Figures over the statements of a span of time.</summary>
internal sealed record Latency(int Count, TimeSpan P50, TimeSpan P99, TimeSpan Worst)
{
    internal static Latency Of(IEnumerable<StatementTiming> statements)
    {
        TimeSpan[] sorted = [.. statements.Select(statement => statement.Duration).Order()];
        // Nearest rank: always a duration that was measured.
        TimeSpan At(double share) => sorted.Length == 0 ? TimeSpan.Zero : sorted[Math.Max(0, (int)Math.Ceiling(share * sorted.Length) - 1)];
        return new Latency(sorted.Length, At(0.5), At(0.99), At(1));
    }
}

/// <summary>The probe: how long every statement of the application took, and which of them failed.</summary>
internal sealed class StatementLog
{
    private readonly Lock _lock = new();
    private readonly List<StatementTiming> _statements = [];
    private readonly Dictionary<int, DateTimeOffset> _running = [];
    private readonly List<string> _failures = [];
    private readonly DateTimeOffset _epoch = DateTimeOffset.UtcNow;
    private readonly long _epochTicks = Stopwatch.GetTimestamp();

    /// <summary>Now, on a clock that only runs forward and still compares with the server's.</summary>
    internal DateTimeOffset Now => _epoch + Stopwatch.GetElapsedTime(_epochTicks);

    internal int Count
    {
        get
        {
            lock (_lock)
            {
                return _statements.Count;
            }
        }
    }

    internal IReadOnlyList<string> Failures
    {
        get
        {
            lock (_lock)
            {
                return [.. _failures];
            }
        }
    }

    /// <summary>When the oldest statement began that has not come back yet; null where there is none.</summary>
    internal DateTimeOffset? OldestRunning
    {
        get
        {
            lock (_lock)
            {
                return _running.Count == 0 ? null : _running.Values.Min();
            }
        }
    }

    /// <summary>A statement is sent.</summary>
    /// <returns>When.</returns>
    internal DateTimeOffset Begin(int pid)
    {
        DateTimeOffset now = Now;
        lock (_lock)
        {
            _running[pid] = now;
        }

        return now;
    }

    /// <summary>It has come back.</summary>
    internal void End(string kind, int pid, DateTimeOffset start)
    {
        TimeSpan duration = Now - start;
        lock (_lock)
        {
            _running.Remove(pid);
            _statements.Add(new StatementTiming(kind, pid, start, duration));
        }
    }

    internal void Fail(string failure)
    {
        lock (_lock)
        {
            _failures.Add(failure);
        }
    }

    /// <summary>Statements that ran at some time between the two.</summary>
    internal IReadOnlyList<StatementTiming> Between(DateTimeOffset start, DateTimeOffset end)
    {
        lock (_lock)
        {
            return [.. _statements.Where(statement => statement.End >= start && statement.Start <= end)];
        }
    }
}
