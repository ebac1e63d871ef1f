using System.Diagnostics;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>
/// Where workers wait before each batch: while the backfill is paused until it is not, at less than full speed for as long as makes their share of the time, and
/// where rows a second are limited until these are due. Closed until the first decision.
/// </summary>
internal sealed class ThrottleGate
{
    // Whoever waits looks again so often: a stopped backfill ends at once, but its progress and heartbeats want to be heard of.
    private static readonly TimeSpan s_longest = TimeSpan.FromSeconds(10);
    // Of the time, for a worker that takes turns with others: with more it would leave too few pauses.
    private const double MostOfTurn = 0.5;

    private readonly object _lock = new();
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private double _speed;
    private double? _rowsPerSecond;
    private bool _idle;
    private bool _held;
    private double _pace = 1;
    private int _mostBatches = int.MaxValue;
    private int _batches;
    private bool _ended;
    private Exception? _failure;
    private long _rowsDue = Stopwatch.GetTimestamp();
    private Work _now = new(0, 0);

    /// <summary>What workers do.</summary>
    /// <param name="Running">Statements of theirs that run.</param>
    /// <param name="Changed">Since when so many, as a timestamp of <see cref="Stopwatch"/>.</param>
    internal readonly record struct Work(int Running, long Changed);

    /// <summary>What workers do now.</summary>
    internal Work Now
    {
        get
        {
            lock (_lock)
            {
                return _now;
            }
        }
    }

    /// <summary>The share of the time in which batches may work, by pauses within them or between them: from 0 to 1.</summary>
    internal double Speed
    {
        get
        {
            lock (_lock)
            {
                return _speed;
            }
        }
    }

    /// <summary>The share of a batch's time for work that pauses within it are to leave: from above 0 to 1. Where workers take turns it is more than their share of the whole time.</summary>
    internal double Pace
    {
        get
        {
            lock (_lock)
            {
                return _pace;
            }
        }
    }

    /// <summary>The most rows that a batch of a worker should change; null for no limit.</summary>
    internal int? MostRows { get; private set; }

    /// <summary>Takes a decision over.</summary>
    /// <param name="speed">From 0 to 1.</param>
    /// <param name="rowsPerSecond">This client's share of the rows; null for no limit.</param>
    /// <param name="workers">Workers of this client.</param>
    /// <param name="pace">The share of the time for work that pauses within the batches are to leave to each worker: from above 0 to 1. Where it is little, fewer batches run at a time, with more each: one that works twice as much harms others less than two at once.</param>
    /// <param name="idle">Lets everybody through until told otherwise: the backfill is not running, and the next batch will tell.</param>
    internal void Set(double speed, double? rowsPerSecond, int workers, double pace = 1, bool idle = false)
    {
        TaskCompletionSource before;
        lock (_lock)
        {
            int batches = pace < 1 ? (int)Math.Ceiling(workers * pace / MostOfTurn) : workers;
            (int mostBatches, double ofBatch) = batches < workers ? (batches, pace * workers / batches) : (int.MaxValue, pace);
            if ((_speed, _rowsPerSecond, _pace, _mostBatches, _idle) == (speed, rowsPerSecond, ofBatch, mostBatches, idle))
            {
                return;
            }

            (_speed, _rowsPerSecond, _pace, _mostBatches, _idle) = (speed, rowsPerSecond, ofBatch, mostBatches, idle);
            // Half a second's worth: more would come in bursts.
            MostRows = rowsPerSecond is { } rate ? (int)Math.Clamp(rate / 2 / workers, 1, int.MaxValue) : null;
            before = _changed;
            _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        before.SetResult();
    }

    /// <summary>Holds all back for a moment, or lets them go on: to see what the server is like without them.</summary>
    internal void Hold(bool hold)
    {
        TaskCompletionSource before;
        lock (_lock)
        {
            if (_held == hold)
            {
                return;
            }

            _held = hold;
            before = _changed;
            _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        before.SetResult();
    }

    /// <summary>Nobody waits any more, whatever is set: the throttle has ended.</summary>
    /// <param name="failure">Why whoever comes must not go on; null where they may.</param>
    internal void Open(Exception? failure = null)
    {
        TaskCompletionSource before;
        lock (_lock)
        {
            (_ended, _failure) = (true, _failure ?? failure);
            before = _changed;
            _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        before.SetResult();
    }

    /// <summary>A worker's statement begins that is no batch.</summary>
    internal void Begin() => Runs(1, batches: 0);

    /// <summary>It has ended.</summary>
    internal void End() => Runs(-1, batches: 0);

    /// <summary>A batch begins: when it is its turn.</summary>
    /// <param name="patience">How long it waits at most for batches that run, which may hang.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task BeginBatchAsync(TimeSpan patience, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            TimeSpan left = patience - Stopwatch.GetElapsedTime(start);
            Task changed;
            lock (_lock)
            {
                if ((_batches < _mostBatches && !_held) || _ended || _idle || left <= TimeSpan.Zero)
                {
                    Runs(1, batches: 1);
                    return;
                }

                changed = _changed.Task;
            }

            await changed.WaitAsync(left, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            cancellationToken.ThrowIfCancellationRequested();
        }
    }

    /// <summary>It has ended.</summary>
    internal void EndBatch() => Runs(-1, batches: -1);

    /// <summary>Rows were changed.</summary>
    internal void Did(long rows)
    {
        lock (_lock)
        {
            if (_rowsPerSecond is { } rate)
            {
                _rowsDue = Math.Max(_rowsDue, Stopwatch.GetTimestamp()) + (long)(rows / rate * Stopwatch.Frequency);
            }
        }
    }

    /// <summary>Waits until the next batch may begin.</summary>
    /// <param name="took">How long the worker's last batch took.</param>
    /// <param name="paused">Whether it left its pauses to others while it ran.</param>
    /// <param name="ended">When it ended, as a timestamp of <see cref="Stopwatch"/>.</param>
    /// <param name="waiting">Called again and again while it waits.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task WaitAsync(TimeSpan took, bool paused, long ended, Action waiting, CancellationToken cancellationToken)
    {
        while (true)
        {
            TimeSpan wait;
            Task changed;
            lock (_lock)
            {
                if (_failure is not null)
                {
                    throw _failure is MigrationException known
                        ? new MigrationException(known.ErrorId, known.Kind, known.Message, known.RecommendedAction, known) { SqlState = known.SqlState, Target = known.Target }
                        : new InvalidOperationException("The throttle has failed: " + _failure.Message, _failure);
                }

                changed = _changed.Task;
                wait = _ended || _idle ? TimeSpan.Zero : _speed == 0 || _held ? s_longest : Due(took, paused, ended);
            }

            if (wait <= TimeSpan.Zero)
            {
                return;
            }

            waiting();
            using CancellationTokenSource timer = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            await Task.WhenAny(changed, Task.Delay(wait, timer.Token)).ConfigureAwait(false);
            await timer.CancelAsync().ConfigureAwait(false);
            waiting();
            cancellationToken.ThrowIfCancellationRequested();
        }
    }

    private void Runs(int more, int batches)
    {
        TaskCompletionSource? before = null;
        lock (_lock)
        {
            _now = new Work(_now.Running + more, Stopwatch.GetTimestamp());
            _batches += batches;
            if (batches < 0 && _mostBatches < int.MaxValue)
            {
                before = _changed;
                _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
            }
        }

        before?.SetResult();
    }

    private TimeSpan Due(TimeSpan took, bool paused, long ended)
    {
        long now = Stopwatch.GetTimestamp();
        // Where something else asks for less than the pauses leave, it waits for what is missing.
        double share = paused ? Math.Min(1, _speed / _pace) : _speed;
        TimeSpan rest = (took * ((1 / share) - 1)) - Stopwatch.GetElapsedTime(ended, now);
        TimeSpan rows = _rowsPerSecond is null || _rowsDue <= now ? TimeSpan.Zero : Stopwatch.GetElapsedTime(now, _rowsDue);
        TimeSpan due = rest > rows ? rest : rows;
        return due < s_longest ? due : s_longest;
    }
}
