using System.Diagnostics;

namespace MigrationSafety.Engine.Execution;

/// <summary>Turns samples of who is in the way into <see cref="LockWait"/>s, one per set of blockers, and says each set once.</summary>
internal sealed class WaitRecorder
{
    private readonly IOperationSink _sink;
    private readonly string _purpose;
    private readonly bool _queued;
    private readonly List<LockWait> _waits = [];
    private long? _waitingSince;
    private long _setSince;
    private DateTimeOffset _setStart;
    private LockWaitCause _cause;
    private IReadOnlyList<LockBlocker> _current = [];

    internal WaitRecorder(IOperationSink sink, string purpose, bool queued)
    {
        _sink = sink;
        _purpose = purpose;
        _queued = queued;
    }

    /// <summary>How long it has waited without a break up to now.</summary>
    internal TimeSpan CurrentWait => _waitingSince is { } since ? Stopwatch.GetElapsedTime(since) : TimeSpan.Zero;

    internal void Saw(IReadOnlyList<LockBlocker> blockers, LockWaitCause cause = LockWaitCause.Lock)
    {
        if (!Same(blockers, _current) || cause != _cause)
        {
            Close();
            _setSince = Stopwatch.GetTimestamp();
            _setStart = DateTimeOffset.Now;
            _cause = cause;
            if (blockers.Count > 0)
            {
                _sink.Verbose($"{_purpose}: {(_queued ? "waits for" : "in the way:")} {string.Join("; ", blockers.Select(blocker => blocker.ToString()))}");
            }
        }

        // The latest sample counts: ages and queries are as they were at the end.
        _current = blockers;
        _waitingSince = blockers.Count == 0 ? null : _waitingSince ?? Stopwatch.GetTimestamp();
    }

    internal void AddTo(List<LockWait> waits)
    {
        Close();
        waits.AddRange(_waits);
        _waits.Clear();
    }

    private static bool Same(IReadOnlyList<LockBlocker> left, IReadOnlyList<LockBlocker> right) =>
        left.Count == right.Count
        && left.Select(Key).Order().SequenceEqual(right.Select(Key).Order());

    private static (int Pid, DateTimeOffset? Start, string? Gid) Key(LockBlocker blocker) =>
        (blocker.Pid, blocker.BackendStart, blocker.Pid == 0 ? blocker.Query : null);

    private void Close()
    {
        if (_current.Count > 0)
        {
            _waits.Add(new LockWait { Start = _setStart, WaitTime = Stopwatch.GetElapsedTime(_setSince), Queued = _queued, Cause = _cause, Blockers = [.. _current] });
        }

        _current = [];
    }
}
