using System.Diagnostics;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>The throttle as one worker knows it: its last batch, the pauses within it, and what a row costs. Used by one batch at a time.</summary>
internal sealed class WorkerThrottle
{
    // Of the time of a batch, for one of the pauses within it.
    private const double MostPause = 0.1;
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(1);

    private readonly ThrottleGate _gate;
    private readonly TimeSpan _batchTime;
    private readonly bool _mayPause;
    private readonly Action _waiting;
    private readonly RowCost _cost = new();
    private TimeSpan _took;
    private bool _paused;
    private long _ended;

    /// <param name="gate">Where it waits.</param>
    /// <param name="batchTime">How long a batch should take.</param>
    /// <param name="mayPause">Whether it may pause within a batch.</param>
    /// <param name="waiting">Called again and again while it waits.</param>
    internal WorkerThrottle(ThrottleGate gate, TimeSpan batchTime, bool mayPause, Action waiting)
    {
        _gate = gate;
        _batchTime = batchTime;
        _mayPause = mayPause;
        _waiting = waiting;
    }

    /// <summary>How long it has waited, in ticks of <see cref="Stopwatch"/>.</summary>
    internal long Waited { get; private set; }

    /// <summary>Waits until the next batch may begin.</summary>
    internal async Task WaitAsync(CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        long start = Stopwatch.GetTimestamp();
        await _gate.WaitAsync(_took, _paused, _ended, _waiting, cancellationToken).ConfigureAwait(false);
        Waited += Stopwatch.GetTimestamp() - start;
    }

    /// <summary>The pauses of the next batch, which is to end in time with them.</summary>
    /// <param name="size">What adapts the batch's size.</param>
    internal BatchPace Pace(BatchSize size)
    {
        BatchPace pace = _mayPause ? BatchPace.Of(_gate.Pace, _cost.OfRow) : BatchPace.None;
        if (pace.Seconds > _batchTime.TotalSeconds * MostPause)
        {
            // A row that takes so long: the gate lets it rest between batches, where it holds no row.
            return BatchPace.None;
        }

        if (pace.IsPaced)
        {
            size.Limit((int)Math.Min(int.MaxValue, _batchTime / (_cost.OfRow + pace.Pauses(1))));
        }

        return pace;
    }

    /// <summary>A statement that changes rows begins, when it is its turn.</summary>
    /// <returns>When, as a timestamp of <see cref="Stopwatch"/>.</returns>
    internal async Task<long> BeginAsync(CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        await _gate.BeginBatchAsync(s_patience + (2 * _batchTime), cancellationToken).ConfigureAwait(false);
        long begun = Stopwatch.GetTimestamp();
        Waited += begun - start;
        return begun;
    }

    /// <summary>It has ended, however.</summary>
    /// <param name="begun">When it began.</param>
    internal void End(long begun)
    {
        _ended = Stopwatch.GetTimestamp();
        (_took, _paused) = (Stopwatch.GetElapsedTime(begun, _ended), false);
        _gate.EndBatch();
    }

    /// <summary>A batch was committed, with its pauses.</summary>
    /// <param name="pace">Pauses.</param>
    /// <param name="changed">Rows that it changed.</param>
    /// <param name="passed">Rows that it looked at.</param>
    /// <param name="took">How long it took.</param>
    internal void Paused(BatchPace pace, long changed, long passed, TimeSpan took)
    {
        // Where few rows match, it is not their change that takes its time.
        _paused = pace.IsPaced && pace.Pauses(changed) > took / 2;
        // On a busy server a pause takes longer than it should: taken for work, it would make for ever more pauses. Where few rows match, looking at the others would be taken for the change.
        if (!pace.IsPaced && changed > passed / 2)
        {
            _cost.Took(took, changed);
        }
    }
}
