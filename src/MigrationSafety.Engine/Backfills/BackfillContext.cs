using System.Collections.Immutable;
using System.Diagnostics;
using System.Security.Cryptography;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What the workers of one run share.</summary>
internal sealed class BackfillContext
{
    /// <summary>The classes of errors that are about the session, the statement or the server, and not about a row (appendix "PostgreSQL Error Codes" of the manual).</summary>
    internal static readonly ImmutableArray<string> StatementClasses =
    [
        "00", "01", "02", "03", "08", "0A", "0B", "0F", "0L", "0P", "0Z", "24", "25", "26", "28", "2B", "2D", "34", "3B", "3D", "3F", "40", "42", "53", "55", "57", "58", "72", "F0", "HV", "XX",
    ];

    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_still = TimeSpan.FromSeconds(2);

    private readonly long _start = Stopwatch.GetTimestamp();
    private long _lastProgress = Stopwatch.GetTimestamp();
    private long _rows;
    private long _seen;
    private long _seenBefore;
    private long _rowsInTable;
    private int _sweep;
    private long _errorsUncounted;
    private string? _throttled;
    private TaskCompletionSource _rangeEnded = new(TaskCreationOptions.RunContinuationsAsynchronously);

    internal BackfillContext(BackfillPlan plan, IOperationSink sink)
    {
        Plan = plan;
        Sink = sink;
        Definition = plan.Definition;
    }

    internal BackfillPlan Plan { get; }

    /// <summary>The definition; parts of the table that appear while it runs are added to it.</summary>
    internal BackfillDefinition Definition { get; set; }

    internal BackfillRequest Request => Plan.Request;

    internal ExecutionOptions Options => Plan.Request.Options;

    internal IOperationSink Sink { get; }

    /// <summary>This run, among all that work or worked on the backfill.</summary>
    internal Guid Run { get; } = Guid.NewGuid();

    /// <summary>Whether any worker has been let in by the server.</summary>
    internal bool HasConnected { get; set; }

    /// <summary>Whether its record is there: it has begun, or goes on.</summary>
    internal bool HasBegun { get; private set; }

    internal string Activity => $"Backfill {Plan.Name}";

    /// <summary>Where workers wait before each batch.</summary>
    internal ThrottleGate Gate { get; } = new();

    /// <summary>Ends when a worker of this run comes to the end of a range: whoever has none looks again.</summary>
    internal Task RangeEnded => Volatile.Read(ref _rangeEnded).Task;

    internal void EndRange() => Interlocked.Exchange(ref _rangeEnded, new(TaskCreationOptions.RunContinuationsAsynchronously)).SetResult();

    /// <summary>Since the run began.</summary>
    internal TimeSpan Elapsed => Stopwatch.GetElapsedTime(_start);

    /// <summary>Whether nothing has moved for as long as is to be waited for.</summary>
    internal bool IsStuck => Stopwatch.GetElapsedTime(Interlocked.Read(ref _lastProgress)) > Options.RetryFor;

    /// <summary>Rows of a block, estimated.</summary>
    internal double RowsOfBlock => Math.Max(1, (double)Plan.EstimatedTableRows / Math.Max(1, Definition.Blocks));

    internal static bool IsBusy(PostgresException e) =>
        e.SqlState is SqlStates.LockNotAvailable or SqlStates.DeadlockDetected or SqlStates.SerializationFailure or SqlStates.QueryCanceled;

    /// <summary>Whether a row is at fault: a value that does not fit, a constraint, what a trigger or a function raises, also with a state of its own.</summary>
    internal static bool IsDataError(PostgresException e) => !StatementClasses.Contains(e.SqlState[..2]);

    /// <summary>Where the run begins: what is seen and of how much.</summary>
    internal void Begins(BackfillRecord record)
    {
        HasBegun = true;
        Interlocked.Exchange(ref _rowsInTable, record.RowsInTable);
        Interlocked.Exchange(ref _seen, record.RowsSeen);
        Interlocked.Exchange(ref _seenBefore, record.RowsSeen);
        Moved();
    }

    /// <summary>A look at rows of the table that may take long.</summary>
    internal LongLook Look(string what) => new(Plan.Session, what, Definition.Table.Display, Options.LockTimeout, Options.RetryFor, Sink);

    /// <summary>Whether nothing has moved for seconds.</summary>
    internal bool StandsStill => Stopwatch.GetElapsedTime(Interlocked.Read(ref _lastProgress)) > s_still;

    internal void Moved() => Interlocked.Exchange(ref _lastProgress, Stopwatch.GetTimestamp());

    internal void Sweeps(int number) => Interlocked.Exchange(ref _sweep, number);

    /// <summary>Whether the rows that were refused are to be counted, after another one: not each time, which would take ever longer.</summary>
    internal bool MustCountErrors() => Interlocked.Decrement(ref _errorsUncounted) < 0;

    /// <summary>They were: a tenth of what is left until -MaxErrors may pass uncounted, so that clients side by side do not go beyond it together.</summary>
    internal void CountedErrors(long errors) => Interlocked.Exchange(ref _errorsUncounted, (Request.MaxErrors - errors) / 10);

    /// <summary>Why it is slow or paused by itself; null where it is not.</summary>
    internal void Throttled(string? reason)
    {
        if (Interlocked.Exchange(ref _throttled, reason) is not null || reason is not null)
        {
            Show();
        }
    }

    /// <summary>A batch was committed.</summary>
    internal void Did(long changed, long passed, TimeSpan serverTime)
    {
        Sink.Record(new BatchEvent(changed, serverTime));
        if (changed > 0 || passed > 0)
        {
            Moved();
        }

        Interlocked.Add(ref _rows, changed);
        Interlocked.Add(ref _seen, passed);
        Gate.Did(changed);
        Show();
    }

    private void Show()
    {
        long rows = Interlocked.Read(ref _rows);
        long seen = Interlocked.Read(ref _seen);
        long rowsInTable = Interlocked.Read(ref _rowsInTable);
        double seconds = Math.Max(0.001, Elapsed.TotalSeconds);
        double? percent = rowsInTable > 0 ? Math.Min(99.9, 100.0 * seen / rowsInTable) : null;
        int sweep = _sweep;
        long seenNow = seen - Interlocked.Read(ref _seenBefore);
        bool paused = _throttled?.StartsWith(ThrottleDecision.PausedWord, StringComparison.Ordinal) == true;
        TimeSpan? remaining = sweep == 0 && seenNow > 0 && rowsInTable > seen && !paused ? TimeSpan.FromSeconds((rowsInTable - seen) * seconds / seenNow) : null;
        string phase = sweep > 0 ? $"; sweep {sweep} over rows that were locked, moved or new" : "";
        string of = Plan.EstimatedRows > rows ? $" of about {Plan.EstimatedRows:N0}" : "";
        // Why it is slow comes after the numbers: a bar shows as much of it as fits.
        Sink.Progress(new OperationProgress(Activity, $"{rows:N0}{of} rows, {rows / seconds:N0}/s{(_throttled is { } why ? $"; {why}" : "")}{phase}", percent, remaining));
    }

    /// <summary>Growing pauses with jitter, so that two clients do not meet again and again.</summary>
    internal static Task PauseAsync(int attempt, CancellationToken cancellationToken)
    {
        double bound = Math.Min(s_longestPause.TotalMilliseconds, s_firstPause.TotalMilliseconds * Math.Pow(2, Math.Min(attempt - 1, 20)));
        return Task.Delay(TimeSpan.FromMilliseconds((bound / 2) + RandomNumberGenerator.GetInt32((int)(bound / 2) + 1)), cancellationToken);
    }
}
