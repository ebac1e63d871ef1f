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

    private readonly object _lock = new();
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private double _speed;
    private double? _rowsPerSecond;
    private bool _idle;
    private bool _ended;
    private Exception? _failure;
    private long _rowsDue = Stopwatch.GetTimestamp();

    /// <summary>The most rows that a batch of a worker should change; null for no limit.</summary>
    internal int? MostRows { get; private set; }

    /// <summary>Takes a decision over.</summary>
    /// <param name="speed">From 0 to 1.</param>
    /// <param name="rowsPerSecond">This client's share of the rows; null for no limit.</param>
    /// <param name="workers">Workers of this client.</param>
    /// <param name="idle">Lets everybody through until told otherwise: the backfill is not running, and the next batch will tell.</param>
    internal void Set(double speed, double? rowsPerSecond, int workers, bool idle = false)
    {
        TaskCompletionSource before;
        lock (_lock)
        {
            if ((_speed, _rowsPerSecond, _idle) == (speed, rowsPerSecond, idle))
            {
                return;
            }

            (_speed, _rowsPerSecond, _idle) = (speed, rowsPerSecond, idle);
            // Half a second's worth: more would come in bursts.
            MostRows = rowsPerSecond is { } rate ? (int)Math.Clamp(rate / 2 / workers, 1, int.MaxValue) : null;
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
    /// <param name="ended">When it ended, as a timestamp of <see cref="Stopwatch"/>.</param>
    /// <param name="waiting">Called again and again while it waits.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task WaitAsync(TimeSpan took, long ended, Action waiting, CancellationToken cancellationToken)
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
                wait = _ended || _idle ? TimeSpan.Zero : _speed == 0 ? s_longest : Due(took, ended);
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

    private TimeSpan Due(TimeSpan took, long ended)
    {
        long now = Stopwatch.GetTimestamp();
        TimeSpan rest = (took * ((1 / _speed) - 1)) - Stopwatch.GetElapsedTime(ended, now);
        TimeSpan rows = _rowsPerSecond is null || _rowsDue <= now ? TimeSpan.Zero : Stopwatch.GetElapsedTime(now, _rowsDue);
        TimeSpan due = rest > rows ? rest : rows;
        return due < s_longest ? due : s_longest;
    }
}
