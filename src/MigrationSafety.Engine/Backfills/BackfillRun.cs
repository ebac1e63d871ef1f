using System.Diagnostics;
using System.Security.Cryptography;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>One run of a backfill: batch after batch, sweep after sweep, and on again after whatever can be overcome.</summary>
internal sealed class BackfillRun : IAsyncDisposable
{
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(10);

    private readonly BackfillPlan _plan;
    private readonly BackfillDefinition _definition;
    private readonly ExecutionOptions _options;
    private readonly IOperationSink _sink;
    private readonly BatchSize _size;
    private readonly BlockerWatch _watch;
    private BackfillWorker? _worker;
    private (int Pid, DateTime Start)? _predecessor;
    private long _start;
    private long _lastProgress;
    private BackfillRecord? _atStart;
    private long _same;
    // Batches still to be run with SKIP LOCKED, because a row was locked for longer than a short wait.
    private int _skipping;
    private int _skippingSpan;
    private int _setbacks;

    internal BackfillRun(BackfillPlan plan, IOperationSink sink)
    {
        _plan = plan;
        _definition = plan.Definition;
        _options = plan.Request.Options;
        _sink = sink;
        _size = new BatchSize(plan.Request.BatchSize, plan.Request.TargetBatchTime, sink);
        _watch = new BlockerWatch(plan.Session, $"Backfill {plan.Name}", sink);
    }

    /// <summary>Batches sent.</summary>
    internal int Attempts { get; private set; }

    internal LockWait[] Waits() => _watch.Waits();

    /// <summary>Opens the connection and takes the table's lock.</summary>
    internal async Task OpenAsync(CancellationToken cancellationToken) =>
        _worker = await BackfillWorker.OpenAsync(_plan.Session, _definition, _plan.Request, _predecessor, _sink, cancellationToken).ConfigureAwait(false);

    /// <summary>Tries the update on a few rows and takes it back.</summary>
    /// <param name="places">Places of rows that match.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>PredicateStaysTrue</c>, or what the server says to the update.</exception>
    internal async Task TryAsync(string[] places, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        for (int attempt = 1; places.Length > 0; attempt++)
        {
            try
            {
                (int tried, IReadOnlyList<string[]> same) = await _worker!.TryAsync(places, cancellationToken).ConfigureAwait(false);
                if (same.Count > 0)
                {
                    throw new MigrationException(
                        "PredicateStaysTrue",
                        MigrationErrorKind.InvalidInput,
                        $"The condition ({_definition.Where}) is still true after the update in {same.Count} of {tried} rows that were tried and taken back, "
                        + $"such as the one with the key ({string.Join(", ", same[0])}): the backfill could not tell what is done from what is to be done. Nothing was changed.",
                        "Give a -Where that the update makes untrue. Where an expression yields NULL for some rows, leave them out with -Where or give them a value with coalesce().")
                    {
                        Target = _definition.Table.Display,
                    };
                }

                return;
            }
            catch (PostgresException e) when (Stopwatch.GetElapsedTime(start) < _options.RetryFor && IsBusy(e))
            {
                if (e.SqlState == SqlStates.QueryCanceled)
                {
                    if (places.Length == 1 && attempt > 5)
                    {
                        throw TooSlow(e);
                    }

                    places = places[..1];
                }

                await PauseAsync(attempt, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    internal async Task<BackfillResult> AlreadyCompletedAsync(CancellationToken cancellationToken)
    {
        BackfillRecord record = await RecordAsync(cancellationToken).ConfigureAwait(false);
        return Result(record, record, remaining: 0) with { Outcome = BackfillOutcome.AlreadyCompleted, Resumed = false };
    }

    /// <summary>Runs it from its checkpoint to its end.</summary>
    internal async Task<BackfillResult> RunAsync(CancellationToken cancellationToken)
    {
        _start = _lastProgress = Stopwatch.GetTimestamp();
        for (int failures = 0; ; failures++)
        {
            long committed = Attempts;
            try
            {
                if (_worker is null)
                {
                    await OpenAsync(cancellationToken).ConfigureAwait(false);
                    _sink.Verbose("Connected again; goes on from the checkpoint.");
                }

                return await WalkAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (CanReconnect(e, cancellationToken))
            {
                if (_worker is { } lost)
                {
                    _predecessor = lost.Backend;
                    _worker = null;
                    await lost.DisposeAsync().ConfigureAwait(false);
                }

                failures = Attempts > committed + 1 ? 0 : failures;
                _sink.Verbose($"The connection was lost: {e.Message} Connects again.");
                await PauseAsync(failures + 1, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        _sink.Progress(new OperationProgress(Activity, "Ended", Completed: true));
        await _watch.DisposeAsync().ConfigureAwait(false);
        if (_worker is { } worker)
        {
            _worker = null;
            await worker.DisposeAsync().ConfigureAwait(false);
        }
    }

    private string Activity => $"Backfill {_plan.Name}";

    private static bool IsBusy(PostgresException e) =>
        e.SqlState is SqlStates.LockNotAvailable or SqlStates.DeadlockDetected or SqlStates.SerializationFailure or SqlStates.QueryCanceled;

    private bool CanReconnect(Exception e, CancellationToken cancellationToken)
    {
        PostgresException? refusal = e as PostgresException ?? e.InnerException as PostgresException;
        bool forGood = refusal?.SqlState is SqlStates.InvalidPassword or SqlStates.InvalidAuthorization or SqlStates.InvalidCatalogName or SqlStates.DatabaseDropped;
        bool full = refusal?.SqlState == SqlStates.TooManyConnections;
        return !forGood && (full || ServerErrors.IsConnectionLost(e)) && !cancellationToken.IsCancellationRequested
            && Stopwatch.GetElapsedTime(_lastProgress) < _options.RetryFor;
    }

    private async Task<BackfillResult> WalkAsync(CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = _worker!.Connection;
        await BackfillStore.AttendAsync(connection, _definition.Name, cancellationToken).ConfigureAwait(false);
        BackfillRecord record = await RecordAsync(cancellationToken).ConfigureAwait(false);
        _atStart ??= record;
        for (int sweepsInVain = 0; !record.IsCompleted;)
        {
            long before = record.RowsDone;
            await SweepAsync(record, cancellationToken).ConfigureAwait(false);
            record = await RecordAsync(cancellationToken).ConfigureAwait(false);
            if (!record.RetryNeeded)
            {
                await BackfillStore.CompleteAsync(connection, _definition.Name, cancellationToken).ConfigureAwait(false);
                break;
            }

            sweepsInVain = record.RowsDone > before ? 0 : sweepsInVain + 1;
            if (sweepsInVain > 0 && record.Sweep > 1 && Stopwatch.GetElapsedTime(_lastProgress) > _options.RetryFor)
            {
                throw StayLocked();
            }

            _sink.Verbose($"Sweep {record.Sweep} of {_plan.Name} passed over rows that others have locked; sweeps their range again.");
            await PauseAsync(sweepsInVain + 1, cancellationToken).ConfigureAwait(false);
            await BackfillStore.SweepAgainAsync(connection, _definition.Name, cancellationToken).ConfigureAwait(false);
            record = await RecordAsync(cancellationToken).ConfigureAwait(false);
        }

        record = await RecordAsync(cancellationToken).ConfigureAwait(false);
        long remaining = await RemainingAsync(cancellationToken).ConfigureAwait(false);
        if (_same > 0)
        {
            _sink.Warning($"{_plan.Name}: {_same:N0} rows match as before although they were updated (an expression that yields NULL, for one). Another run would update them again.");
        }

        if (remaining > _same)
        {
            _sink.Warning($"{_plan.Name}: {remaining:N0} rows match; the application inserted or changed them while the backfill ran. Have it, a default or a trigger fill them, then run the command again.");
        }

        return Result(_atStart, record, remaining);
    }

    private async Task SweepAsync(BackfillRecord record, CancellationToken cancellationToken)
    {
        bool first = record.AtStart;
        if (record.Sweep > 1)
        {
            _skipping = 0;
        }

        while (true)
        {
            cancellationToken.ThrowIfCancellationRequested();
            bool skip = _skipping > 0;
            // Who is in the way is of interest where rows or the table stay locked, not at every short wait.
            bool watched = _setbacks > 0 || (record.Sweep > 1 && !skip);
            Attempts++;
            long sent = Stopwatch.GetTimestamp();
            BatchOutcome outcome;
            try
            {
                outcome = await _worker!.RunBatchAsync(_size.Rows, first, skip, watched ? _watch : null, cancellationToken).ConfigureAwait(false);
            }
            catch (PostgresException e) when (e.SqlState == SqlStates.QueryCanceled && Stopwatch.GetElapsedTime(sent) < 0.9 * _worker!.HoldLimit)
            {
                throw new MigrationException(
                    "CancelledByOther",
                    MigrationErrorKind.Stopped,
                    $"{Activity}: somebody cancelled a batch on the server (pg_cancel_backend).",
                    "Ask who did, then run the command again: it goes on at the checkpoint.",
                    e)
                {
                    SqlState = e.SqlState,
                    Target = _definition.Table.Display,
                };
            }
            catch (PostgresException e) when (IsBusy(e))
            {
                await SetBackAsync(e, skip, cancellationToken).ConfigureAwait(false);
                continue;
            }

            _setbacks = 0;
            first = false;
            _skipping = skip ? _skipping - 1 : 0;
            _skippingSpan = skip ? _skippingSpan : 0;
            _same += outcome.Same;
            if (outcome.Changed > 0 || (record.Sweep == 1 && !outcome.AtEnd))
            {
                _lastProgress = Stopwatch.GetTimestamp();
            }

            if (watched)
            {
                _watch.Cleared();
            }

            if (outcome.Skipped > 0)
            {
                _sink.Verbose($"Passed over {outcome.Skipped:N0} locked rows; they come back in another sweep.");
            }

            _sink.Record(new BatchEvent(outcome.Changed, outcome.ServerTime));
            Report(record, outcome);
            if (outcome.AtEnd)
            {
                return;
            }

            _size.Took(outcome.ServerTime);
        }
    }

    /// <summary>A batch was taken back because of others, or because it took too long.</summary>
    private async Task SetBackAsync(PostgresException e, bool skipped, CancellationToken cancellationToken)
    {
        if (e.SqlState == SqlStates.LockNotAvailable && !skipped)
        {
            _skippingSpan = Math.Clamp(_skippingSpan * 2, 1, 32);
            _skipping = _skippingSpan;
            return;
        }

        _setbacks++;
        if (e.SqlState == SqlStates.QueryCanceled)
        {
            if (_setbacks > 8 && _size.IsSmallest)
            {
                throw TooSlow(e);
            }

            _size.Divide(4);
        }
        else if (e.SqlState != SqlStates.LockNotAvailable)
        {
            _size.Divide(2);
        }

        if (Stopwatch.GetElapsedTime(_lastProgress) > _options.RetryFor)
        {
            throw ServerErrors.Translate(e, $"Backfilling {_definition.Table.Display}", _definition.Table.Display, blockers: _watch.Last);
        }

        _sink.Verbose($"A batch was taken back ({ServerErrors.Words(e)}); tries again.");
        // A batch that was merely too large need not wait.
        if (e.SqlState != SqlStates.QueryCanceled || _setbacks > 2)
        {
            await PauseAsync(_setbacks, cancellationToken).ConfigureAwait(false);
        }
    }

    private void Report(BackfillRecord record, BatchOutcome outcome)
    {
        double seconds = Math.Max(0.001, Stopwatch.GetElapsedTime(_start).TotalSeconds);
        double rate = (outcome.RowsDone - _atStart!.RowsDone) / seconds;
        double seenRate = (outcome.RowsSeen - _atStart.RowsSeen) / seconds;
        double? percent = record.RowsInTable > 0 ? Math.Min(99.9, 100.0 * outcome.RowsSeen / record.RowsInTable) : null;
        TimeSpan? remaining = record.Sweep == 1 && seenRate > 0 && record.RowsInTable > outcome.RowsSeen
            ? TimeSpan.FromSeconds((record.RowsInTable - outcome.RowsSeen) / seenRate)
            : null;
        string sweep = record.Sweep > 1 ? $"sweep {record.Sweep} over rows that were locked; " : "";
        _sink.Progress(new OperationProgress(Activity, $"{sweep}{outcome.RowsDone:N0} rows done, {rate:N0} rows/s", percent, remaining));
    }

    private async Task<BackfillRecord> RecordAsync(CancellationToken cancellationToken) =>
        await BackfillStore.ReadAsync(_worker!.Connection, _definition.Name, cancellationToken).ConfigureAwait(false)
        ?? throw new MigrationException(
            "CheckpointMissing",
            MigrationErrorKind.InvalidState,
            $"The checkpoint of {_definition.Name} was removed while the backfill ran.",
            "Run the command again: it begins from the start and passes over the rows that are done.")
        {
            Target = _definition.Name,
        };

    private async Task<long> RemainingAsync(CancellationToken cancellationToken)
    {
        await using NpgsqlConnection connection = await Backfill.OpenAsync(_plan.Session, _plan.Request, _sink, cancellationToken).ConfigureAwait(false);
        await using NpgsqlCommand command = new(new BackfillStatements(_definition).Count, connection);
        return (long)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    private BackfillResult Result(BackfillRecord before, BackfillRecord after, long remaining)
    {
        double seconds = _start == 0 ? 0 : Stopwatch.GetElapsedTime(_start).TotalSeconds;
        long rows = after.RowsDone - before.RowsDone;
        return new BackfillResult
        {
            Origin = _plan.Session.Info,
            Server = _plan.Session.Info.Server,
            Database = _plan.Session.Info.Database,
            Name = _plan.Name,
            Schema = SqlName.QuoteIfNeeded(_definition.Table.Schema),
            Table = SqlName.QuoteIfNeeded(_definition.Table.Name),
            Outcome = BackfillOutcome.Completed,
            Resumed = before.Batches > 0,
            Rows = rows,
            TotalRows = after.TotalRows,
            Batches = after.Batches - before.Batches,
            Remaining = remaining,
            RowsPerSecond = seconds > 0 ? rows / seconds : 0,
        };
    }

    /// <summary>Growing pauses with jitter, so that two clients do not meet again and again.</summary>
    private static Task PauseAsync(int attempt, CancellationToken cancellationToken)
    {
        double bound = Math.Min(s_longestPause.TotalMilliseconds, s_firstPause.TotalMilliseconds * Math.Pow(2, Math.Min(attempt - 1, 20)));
        return Task.Delay(TimeSpan.FromMilliseconds((bound / 2) + RandomNumberGenerator.GetInt32((int)(bound / 2) + 1)), cancellationToken);
    }

    private MigrationException StayLocked() => new(
        "RowsStayLocked",
        MigrationErrorKind.Busy,
        $"Rows of {_definition.Table.Display} stay locked: {Durations.Text(_options.RetryFor)} have passed without progress. "
        + $"In the way: {(_watch.Last.Length == 0 ? "transactions that came and went too fast to be seen" : string.Join("; ", _watch.Last.Select(blocker => blocker.ToString())))}. All other rows are done.",
        "Let these sessions end their transactions (Get-BlockingLock shows them), then run the command again: it goes on with the rows that are left.")
    {
        SqlState = SqlStates.LockNotAvailable,
        Target = _definition.Table.Display,
        Blockers = _watch.Last,
    };

    private MigrationException TooSlow(PostgresException e) => new(
        "BatchTooSlow",
        MigrationErrorKind.Timeout,
        $"The update of a single row of {_definition.Table.Display} takes longer than {Durations.Text(_worker!.HoldLimit)}, for which it would keep others waiting.",
        "Compute what the expression needs beforehand (a table with an index to look it up in), look for slow triggers, or allow a longer -TargetBatchTime.",
        e)
    {
        SqlState = e.SqlState,
        Target = _definition.Table.Display,
    };
}
