using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>One run of a plan: attempts until the index is gone.</summary>
internal sealed class IndexDropRun
{
    private static readonly TimeSpan s_lookAgainAfter = TimeSpan.FromMilliseconds(250);

    private readonly IndexDropPlan _plan;
    private readonly IOperationSink _sink;
    private readonly EngineSession _session;
    private readonly ExecutionOptions _options;
    private readonly long _start = Stopwatch.GetTimestamp();
    private IndexDetails? _index;
    private MigrationStep? _drop;
    private TimeSpan _queued;
    private TimeSpan _awaited;

    internal IndexDropRun(IndexDropPlan plan, IOperationSink sink)
    {
        _plan = plan;
        _sink = sink;
        _session = plan.Session;
        _options = plan.Request.Options;
        _index = plan.Index;
    }

    private string Display => _index?.Display ?? _plan.Request.Name;

    internal async Task<IndexDropResult> RunAsync(CancellationToken cancellationToken)
    {
        if (_index is null)
        {
            return Result();
        }

        IndexAttempts attempts = new(_session, "index-drop", _options, _plan.Request.Silence, _sink);
        try
        {
            return await attempts.RunAsync(AttemptAsync, () => $"Dropping index {Display}", _plan.Target, cancellationToken).ConfigureAwait(false);
        }
        catch (MigrationException e) when (_drop is not null)
        {
            throw new MigrationException(e.ErrorId, e.Kind, $"{e.Message} {await StateAsync(IndexLeftover.CleanUpFor).ConfigureAwait(false)}", e.RecommendedAction, e)
            {
                SqlState = e.SqlState,
                Target = e.Target ?? Display,
                Blockers = e.Blockers,
                Steps = [_drop],
            };
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested && _drop is not null)
        {
            _sink.Warning(await StateAsync(IndexLeftover.CleanUpOnCancelFor).ConfigureAwait(false));
            throw;
        }
    }

    private async Task<IndexDropResult> AttemptAsync(IndexWorker worker, CancellationToken cancellationToken)
    {
        await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
        if (await FindAsync(worker.Connection, cancellationToken).ConfigureAwait(false) is not { } seen)
        {
            return Result();
        }

        long start = Stopwatch.GetTimestamp();
        await worker.LockAsync(seen.Owner, cancellationToken).ConfigureAwait(false);
        TimeSpan forTurn = Stopwatch.GetElapsedTime(start);
        _queued += forTurn > TimeSpan.FromSeconds(0.2) ? forTurn : TimeSpan.Zero;
        List<LockWait> waits = [];
        MigrationStep step;
        // DROP INDEX goes by the name: what was waited for in between is looked at again, for by then the name may be another's, and something may depend on the index.
        for (IndexDetails? awaited = null; ;)
        {
            // After the lock: what another run of this module did while this one waited counts.
            (IndexDetails? found, TimeSpan forBuilder) = await IndexLeftover.SettledAsync(
                worker.Connection,
                seen.Table,
                token => FindAsync(worker.Connection, token),
                index => index is { Valid: false } invalid ? invalid.Oid : null,
                _ => Display,
                _options.WaitFor ?? TimeSpan.MaxValue,
                _sink,
                cancellationToken).ConfigureAwait(false);
            _queued += forBuilder;
            if (found is null)
            {
                return Result();
            }

            _index = found;
            await IndexDropper.EnsureDroppableAsync(worker.Connection, found, cancellationToken).ConfigureAwait(false);
            step = await IndexDropper.StepAsync(worker.Connection, found, cancellationToken).ConfigureAwait(false);
            if (!found.Valid || (found.Oid == awaited?.Oid && found.Display == awaited.Display))
            {
                break;
            }

            waits.AddRange(await LetOldTransactionsEndAsync(found, step, worker.Connection.ProcessID, cancellationToken).ConfigureAwait(false));
            awaited = found;
        }

        // A reversal that was known before the index was half dropped knows more: the drop takes the CLUSTER mark off first.
        step = step with { Reversal = _drop?.Reversal ?? step.Reversal, Reversibility = _drop?.Reversibility ?? step.Reversibility, ReversalNote = _drop?.ReversalNote ?? step.ReversalNote };
        // Kept before it runs: whatever becomes of this connection, the drop has begun.
        MigrationStep? before = _drop;
        Note(before, waits, step with { State = StepState.Failed, Attempts = 1 });
        try
        {
            Note(before, waits, await worker.RunAsync(step, $"Dropping index {Display}", cancellationToken, Remaining).ConfigureAwait(false));
        }
        catch (MigrationException e) when (e.Steps is [MigrationStep failed])
        {
            Note(before, waits, failed);
            throw e.ErrorId == "WaitedTooLong" ? WaitedTooLong(step, e.Blockers, "", e) : e;
        }

        await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
        return await FindAsync(worker.Connection, cancellationToken).ConfigureAwait(false) is null
            ? Result()
            : throw new MigrationException("IndexNotDropped", MigrationErrorKind.InvalidState, $"{Display} is still there after the drop.", "Run the command again.") { Target = Display };
    }

    /// <summary>The index that is to go; null where it has gone. One that got its name since is another's.</summary>
    private async Task<IndexDetails?> FindAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        if (await IndexDetails.ReadAsync(connection, _index!.Oid, cancellationToken).ConfigureAwait(false) is { } same)
        {
            return same;
        }

        // A rebuild gives the name to a new index of the same definition; unless our drop is on its way, that is the one that is meant.
        IndexDetails? byName = _drop is null ? await IndexDetails.FindAsync(connection, SqlName.QuoteIfNeeded(_index.Name), SqlName.QuoteIfNeeded(_index.Schema), cancellationToken).ConfigureAwait(false) : null;
        return byName?.Definition == _index.Definition ? byName : null;
    }

    /// <summary>
    /// The drop first takes the index from the queries and then waits for every transaction that uses the table. Those that are open now are awaited before, while the
    /// index still serves: a drop that is interrupted or given up meanwhile has changed nothing.
    /// </summary>
    private async Task<List<LockWait>> LetOldTransactionsEndAsync(IndexDetails index, MigrationStep step, int worker, CancellationToken cancellationToken)
    {
        await using LockObserver observer = await LockObserver.OpenAsync(_session, _sink, cancellationToken).ConfigureAwait(false);
        WaitRecorder recorder = new(_sink, step.Purpose, queued: false);
        long start = Stopwatch.GetTimestamp();
        TimeSpan before = _awaited;
        BlockerEnder ender = new(_options, _sink, step.Purpose);
        while (true)
        {
            TimeSpan elapsed = Stopwatch.GetElapsedTime(start);
            _awaited = before + elapsed;
            // An autovacuum makes way when the drop asks for its lock. A younger transaction, and one whose age is hidden, is the drop's own to wait for.
            LockBlocker[] old =
            [
                .. (await observer.InTheWayAsync([index.Table.Oid, index.Oid], TableLockMode.AccessExclusive, ownPid: 0, cancellationToken).ConfigureAwait(false))
                    .Where(blocker => !blocker.IsAutovacuum && blocker.TransactionAge > elapsed + s_lookAgainAfter),
            ];
            recorder.Saw(old);
            if (old.Length == 0)
            {
                List<LockWait> waits = [];
                recorder.AddTo(waits);
                _sink.Record(new PhaseEndEvent(worker));
                return waits;
            }

            TurnWaits.Begin(_sink, worker, index.Table.Display, TurnWaits.ForOldTransactions);
            string names = string.Join("; ", old.Select(blocker => blocker.ToString()));
            if (_awaited > _options.WaitFor)
            {
                throw WaitedTooLong(step, old, " Nothing was changed: the index serves on.");
            }

            if (_options.BlockerAction != BlockerAction.Report && elapsed > _options.BlockerGracePeriod)
            {
                await ender.EndAsync(observer, old, cancellationToken).ConfigureAwait(false);
            }

            _sink.Progress(new OperationProgress($"Dropping index {index.Display}", "not begun", CurrentOperation: $"Waits for {names}"));
            await Task.Delay(s_lookAgainAfter, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>What is left of the bound for the drop's own wait; null where there is none.</summary>
    private TimeSpan? Remaining => _options.WaitFor is { } bound ? TimeSpan.FromTicks(Math.Max(0, (bound - _awaited).Ticks)) : null;

    private MigrationException WaitedTooLong(MigrationStep step, LockBlocker[] blockers, string state, MigrationException? inner = null) => new(
        "WaitedTooLong",
        MigrationErrorKind.Timeout,
        $"{step.Purpose}: waited longer than {Durations.Text(_options.WaitFor!.Value)} for {(blockers.Length == 0 ? "transactions that came and went too fast to be seen" : string.Join("; ", blockers.Select(blocker => blocker.ToString())))}.{state}",
        "Let these transactions end, or end them, then run the command again; or allow more with -WaitFor.",
        inner)
    {
        Target = Display,
        Blockers = blockers,
    };

    /// <summary>Keeps the outcome of an attempt; all of them are one step.</summary>
    private void Note(MigrationStep? before, IEnumerable<LockWait> waits, MigrationStep outcome) => _drop = outcome with
    {
        StartedAt = before?.StartedAt ?? outcome.StartedAt,
        Attempts = (before?.Attempts ?? 0) + outcome.Attempts,
        Duration = (before?.Duration ?? TimeSpan.Zero) + outcome.Duration,
        LockWaits = [.. before?.LockWaits ?? [], .. waits, .. outcome.LockWaits],
    };

    private IndexDropResult Result()
    {
        // Lost from sight, yet finished by the server.
        MigrationStep? drop = _drop is { State: not StepState.Done } seenFailing ? seenFailing with { State = StepState.Done } : _drop;
        (string? schema, string name) = _index is null ? (_plan.Request.Schema, _plan.Request.Name) : (SqlName.QuoteIfNeeded(_index.Schema), SqlName.QuoteIfNeeded(_index.Name));
        return new IndexDropResult
        {
            Origin = _session.Info,
            Server = _session.Info.Server,
            Port = _session.Info.Port,
            Database = _session.Info.Database,
            Schema = schema,
            Table = _index is null ? null : SqlName.QuoteIfNeeded(_index.Table.Name),
            Name = name,
            Outcome = drop is null ? IndexDropOutcome.AlreadyGone : IndexDropOutcome.Dropped,
            Definition = _index?.Definition,
            Attempts = drop?.Attempts ?? 0,
            Duration = Stopwatch.GetElapsedTime(_start),
            WaitTime = (drop?.LockWaits ?? []).Aggregate(_queued, (sum, wait) => sum + wait.WaitTime),
            SizeBytes = _index?.SizeBytes ?? 0,
            // Somebody else dropped it since it was planned, an earlier run perhaps: its way back is not lost.
            Steps = drop is null ? [.. _plan.Steps.Select(step => step with { State = StepState.Skipped })] : [drop],
        };
    }

    /// <summary>In what state the index is left, in words; asked on a connection of its own, and not for long.</summary>
    private async Task<string> StateAsync(TimeSpan bound)
    {
        string unknown = $"Whether {Display} is dropped, half dropped or untouched could not be asked. Run the same command again: it finishes.";
        Task<string> look = LookAsync();
        if (await Task.WhenAny(look, Task.Delay(bound)).ConfigureAwait(false) != look)
        {
            _ = look.ContinueWith(task => task.Exception, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            return unknown;
        }

        try
        {
            return await look.ConfigureAwait(false);
        }
        catch (Exception e) when (e is NpgsqlException or MigrationException or IOException or TimeoutException)
        {
            // The failure that matters is on its way to the caller.
            _sink.Verbose($"{Display}: what is left could not be looked at: {e.Message}");
            return unknown;
        }
    }

    private async Task<string> LookAsync()
    {
        await using NpgsqlConnection connection = await _session.OpenAsync("index-drop", _sink, CancellationToken.None).ConfigureAwait(false);
        await CatalogReads.BoundAsync(connection, CancellationToken.None).ConfigureAwait(false);
        return await IndexDetails.ReadAsync(connection, _index!.Oid, CancellationToken.None).ConfigureAwait(false) switch
        {
            null => $"{Display} is dropped all the same.",
            { Valid: true } => $"Nothing was changed: {Display} is valid.",
            { Ready: true } => $"{Display} is half dropped: no query uses it any more, and every write still pays for it. Run the same command again to finish, or Invoke-SafeIndexRebuild to have it back.",
            _ => $"{Display} is all but dropped. Run the same command again to finish.",
        };
    }
}
