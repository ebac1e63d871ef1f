using System.Diagnostics;
using System.Security.Cryptography;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Execution;

/// <summary>
/// Runs steps so that nobody waits: looks before it queues, queues under a lock timeout, tries again with growing pauses, bounds how long a lock is
/// held, and records who was in the way. One executor serves one operation.
/// </summary>
internal sealed class StepExecutor : IAsyncDisposable
{
    // A wait shorter than this is not worth a look at the lock tables.
    private static readonly TimeSpan s_watchEvery = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan s_watchConcurrentEvery = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan s_watchAgainWithin = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(30);

    private readonly EngineSession _session;
    private readonly ExecutionOptions _options;
    private readonly IOperationSink _sink;
    private readonly LockObserver _observer;

    private StepExecutor(EngineSession session, ExecutionOptions options, IOperationSink sink, LockObserver observer)
    {
        _session = session;
        _options = options;
        _sink = sink;
        _observer = observer;
    }

    private enum Verdict
    {
        Done,
        LockTimeout,
        HeldTooLong,
        WaitedTooLong,
    }

    internal static async Task<StepExecutor> OpenAsync(EngineSession session, ExecutionOptions options, IOperationSink sink, CancellationToken cancellationToken) =>
        new(session, options, sink, await LockObserver.OpenAsync(session, sink, cancellationToken).ConfigureAwait(false));

    /// <summary>Runs steps one after the other, each on its own; steps that are done already are passed over.</summary>
    /// <returns>The steps with their outcome.</returns>
    /// <exception cref="MigrationException">The first step that fails ends it; <see cref="MigrationException.Steps"/> says how far it came.</exception>
    internal async Task<IReadOnlyList<MigrationStep>> RunAsync(IReadOnlyList<MigrationStep> steps, string operation, CancellationToken cancellationToken)
    {
        MigrationStep[] outcome = [.. steps];
        await using NpgsqlConnection connection = await _session.OpenAsync(operation, _sink, cancellationToken).ConfigureAwait(false);
        for (int i = 0; i < outcome.Length; i++)
        {
            if (outcome[i].State != StepState.Planned)
            {
                continue;
            }

            try
            {
                outcome[i] = await RunAsync(connection, outcome[i], cancellationToken).ConfigureAwait(false);
            }
            catch (MigrationException e)
            {
                outcome[i] = e.Steps is [MigrationStep failed] ? failed : outcome[i] with { State = StepState.Failed };
                throw new MigrationException(e.ErrorId, e.Kind, e.Message, e.RecommendedAction, e)
                {
                    SqlState = e.SqlState,
                    Target = e.Target,
                    Blockers = e.Blockers,
                    Steps = outcome,
                };
            }
        }

        return outcome;
    }

    /// <summary>Runs one step on a connection of the caller.</summary>
    /// <returns>The step with its outcome.</returns>
    /// <exception cref="MigrationException">It failed; <see cref="MigrationException.Steps"/> holds the step with its outcome.</exception>
    internal async Task<MigrationStep> RunAsync(NpgsqlConnection connection, MigrationStep step, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        step = step with { StartedAt = DateTimeOffset.Now };
        _sink.Record(new StepEvent(step));
        List<LockWait> waits = [];
        int attempts = 0;
        MigrationStep Outcome(StepState state)
        {
            MigrationStep outcome = step with { State = state, Attempts = attempts, Duration = Stopwatch.GetElapsedTime(start), LockWaits = [.. waits] };
            _sink.Record(new StepEvent(outcome));
            return outcome;
        }

        try
        {
            bool stopsTraffic = step.LockMode.StopsTraffic();
            await _observer.EnsureOpenAsync(cancellationToken).ConfigureAwait(false);
            // Dropping a foreign key, its column or its table locks the parent too.
            SqlFacts facts = SqlFacts.Of(step.Sql);
            uint[] scope = await _observer.ScopeAsync(step, stopsTraffic && facts.LocksForeignKeyParents, facts.LocksNamedAlone, cancellationToken).ConfigureAwait(false);
            bool announcedAttemptMade = false;
            while (true)
            {
                TimeSpan lockTimeout = _options.LockTimeout;
                if (stopsTraffic)
                {
                    await _observer.EnsureOpenAsync(cancellationToken).ConfigureAwait(false);
                    bool onlyAutovacuum = await LookAsync(step, scope, connection.ProcessID, waits, cancellationToken).ConfigureAwait(false);
                    if (onlyAutovacuum && !announcedAttemptMade)
                    {
                        lockTimeout = await AnnounceAsync(step, cancellationToken).ConfigureAwait(false);
                        announcedAttemptMade = true;
                    }
                }

                attempts++;
                Verdict verdict = await AttemptAsync(connection, step, scope, lockTimeout, waits, cancellationToken).ConfigureAwait(false);
                switch (verdict)
                {
                    case Verdict.Done:
                        return Outcome(StepState.Done);
                    case Verdict.HeldTooLong:
                        throw HeldTooLong(step);
                    case Verdict.WaitedTooLong:
                        throw WaitedTooLong(step, waits);
                }

                TimeSpan pause = Pause(attempts);
                if (Stopwatch.GetElapsedTime(start) + pause > _options.RetryFor)
                {
                    throw GivenUp(step, attempts, Stopwatch.GetElapsedTime(start), waits);
                }

                _sink.Verbose($"{step.Purpose}: attempt {attempts} did not get its lock within {Durations.Text(lockTimeout)}; next in {Durations.Text(pause)}.");
                await Task.Delay(pause, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException)
        {
            Outcome(StepState.Cancelled);
            throw;
        }
        catch (Exception e)
        {
            MigrationException translated = ServerErrors.Translate(e, step.Purpose, step.Objects.FirstOrDefault());
            throw new MigrationException(translated.ErrorId, translated.Kind, translated.Message, translated.RecommendedAction, e)
            {
                SqlState = translated.SqlState,
                Target = translated.Target,
                Blockers = translated.Blockers,
                Steps = [Outcome(StepState.Failed)],
            };
        }
    }

    public ValueTask DisposeAsync() => _observer.DisposeAsync();

    /// <summary>Full jitter: anywhere between nothing and the bound, which doubles; so two clients do not meet again and again.</summary>
    private static TimeSpan Pause(int attempts)
    {
        double bound = Math.Min(s_longestPause.TotalMilliseconds, s_firstPause.TotalMilliseconds * Math.Pow(2, Math.Min(attempts - 1, 20)));
        return TimeSpan.FromMilliseconds(RandomNumberGenerator.GetInt32((int)bound + 1));
    }

    /// <summary>
    /// Watches until nobody is in the way or <see cref="ExecutionOptions.LookFor"/> is over. Transactions younger than half the lock timeout do not count:
    /// under live traffic some are always open, and they end while we queue.
    /// </summary>
    /// <returns>Whether what is left in the way is autovacuum alone, which yields to a long enough wait.</returns>
    private async Task<bool> LookAsync(MigrationStep step, uint[] scope, int ownPid, List<LockWait> waits, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        WaitRecorder recorder = new(_sink, step.Purpose, queued: false);
        HashSet<int> cancelled = [];
        while (true)
        {
            IReadOnlyList<LockBlocker> inTheWay = await _observer.InTheWayAsync(scope, step.LockMode, ownPid, cancellationToken).ConfigureAwait(false);
            // An idle session outside a transaction holds no relation lock: it ended between the look at the locks and the one at the sessions.
            LockBlocker[] counting =
            [
                .. inTheWay.Where(blocker => blocker.State != "idle" && (blocker.IsAutovacuum || blocker.TransactionAge is null || blocker.TransactionAge > _options.LockTimeout / 2)),
            ];
            recorder.Saw(counting);
            bool autovacuumAlone = counting.Length > 0 && counting.All(blocker => blocker.IsAutovacuum && !blocker.PreventsWraparound);
            if (autovacuumAlone)
            {
                foreach (LockBlocker worker in counting.Where(worker => cancelled.Add(worker.Pid)))
                {
                    if (!await _observer.CancelAsync(worker.Pid, cancellationToken).ConfigureAwait(false))
                    {
                        recorder.AddTo(waits);
                        return true;
                    }

                    _sink.Verbose($"{step.Purpose}: cancelled the autovacuum in the way, {worker}. It starts again by itself.");
                }
            }

            if (counting.Length == 0 || Stopwatch.GetElapsedTime(start) >= _options.LookFor)
            {
                recorder.AddTo(waits);
                return autovacuumAlone;
            }

            await Task.Delay(s_watchEvery, cancellationToken).ConfigureAwait(false);
        }
    }

    private async Task<TimeSpan> AnnounceAsync(MigrationStep step, CancellationToken cancellationToken)
    {
        TimeSpan lockTimeout = await _observer.DeadlockTimeoutAsync(cancellationToken).ConfigureAwait(false) + TimeSpan.FromMilliseconds(250);
        if (lockTimeout < _options.LockTimeout)
        {
            return _options.LockTimeout;
        }

        _sink.Warning(
            $"{step.Purpose}: autovacuum works on {string.Join(", ", step.Objects)} and yields only to a wait longer than deadlock_timeout, and this role may not cancel it. "
            + $"One attempt waits up to {Durations.Text(lockTimeout)}; statements on the table may wait as long behind it.");
        return lockTimeout;
    }

    private async Task<Verdict> AttemptAsync(
        NpgsqlConnection connection,
        MigrationStep step,
        uint[] scope,
        TimeSpan lockTimeout,
        List<LockWait> waits,
        CancellationToken cancellationToken)
    {
        bool stopsTraffic = step.LockMode.StopsTraffic();
        // The server's own bound: it holds even when this client is frozen or gone. The watch below is finer.
        TimeSpan statementTimeout = lockTimeout + _options.MaxHold + TimeSpan.FromMilliseconds(500);
        await SetTimeoutsAsync(connection, stopsTraffic ? lockTimeout : TimeSpan.Zero, stopsTraffic ? statementTimeout : TimeSpan.Zero, cancellationToken).ConfigureAwait(false);
        _sink.Debug(step.Sql);

        long start = Stopwatch.GetTimestamp();
        await using NpgsqlBatch batch = StatementBatch.Of(connection, step.Sql);
        Task work = batch.ExecuteNonQueryAsync(cancellationToken);
        WaitRecorder recorder = new(_sink, step.Purpose, queued: true);
        Verdict verdict = Verdict.Done;
        try
        {
            verdict = await WatchAsync(batch, work, connection.ProcessID, step, scope, lockTimeout, recorder, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            // Whatever the watch met, the statement is ours to the end.
            await ((Task)work).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            recorder.AddTo(waits);
        }

        try
        {
            await work.ConfigureAwait(false);
            return Verdict.Done;
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.LockNotAvailable || (e.SqlState is SqlStates.DeadlockDetected && step.Transactional))
        {
            return Verdict.LockTimeout;
        }
        catch (OperationCanceledException e) when (e.InnerException is PostgresException && verdict != Verdict.Done && !cancellationToken.IsCancellationRequested)
        {
            // So the driver words a cancellation that this client asked for over a command.
            return verdict;
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.QueryCanceled && !cancellationToken.IsCancellationRequested)
        {
            return verdict != Verdict.Done ? verdict
                : stopsTraffic && Stopwatch.GetElapsedTime(start) >= statementTimeout ? Verdict.HeldTooLong
                : throw new MigrationException(
                    "CancelledByOther",
                    MigrationErrorKind.Stopped,
                    $"{step.Purpose}: somebody cancelled the statement on the server (pg_cancel_backend).",
                    "Ask who did, then run the command again.",
                    e)
                {
                    SqlState = e.SqlState,
                    Target = step.Objects.FirstOrDefault(),
                };
        }
    }

    /// <summary>
    /// Looks at the statement's locks while it runs; cancels it where it waits or holds for too long. Where the observer's connection is lost another one goes on;
    /// while there is none, nobody can say that a wait is over, and it counts on by this client's clock.
    /// </summary>
    private async Task<Verdict> WatchAsync(
        NpgsqlBatch batch,
        Task work,
        int pid,
        MigrationStep step,
        uint[] scope,
        TimeSpan lockTimeout,
        WaitRecorder recorder,
        CancellationToken cancellationToken)
    {
        bool stopsTraffic = step.LockMode.StopsTraffic();
        TimeSpan every = stopsTraffic ? s_watchEvery : s_watchConcurrentEvery;
        long start = Stopwatch.GetTimestamp();
        long? heldSince = null;
        BlockerEnder ender = new(_options, _sink, step.Purpose);
        int failures = 0;
        long failedAt = 0;
        while (!await EndsWithinAsync(work, every).ConfigureAwait(false))
        {
            try
            {
                if (failures < 2 || Stopwatch.GetElapsedTime(failedAt) > s_watchAgainWithin)
                {
                    await WatchAgainAsync(failures > 0, cancellationToken).ConfigureAwait(false);
                    Verdict verdict = await JudgeAsync().ConfigureAwait(false);
                    failures = 0;
                    if (verdict != Verdict.Done)
                    {
                        await _observer.CancelAsync(pid, cancellationToken).ConfigureAwait(false);
                        return verdict;
                    }
                }
            }
            catch (Exception e) when (e is NpgsqlException or MigrationException or OperationCanceledException && !cancellationToken.IsCancellationRequested)
            {
                failedAt = Stopwatch.GetTimestamp();
                Lost(step, ++failures, e);
            }

            if (failures > 0 && !stopsTraffic && _options.WaitFor is { } bound && recorder.CurrentWait > bound)
            {
                // Over a connection of its own, which blocks where the network is dead; the statement is awaited anyway.
                await Task.Run(batch.Cancel, CancellationToken.None).ConfigureAwait(false);
                return Verdict.WaitedTooLong;
            }
        }

        return Verdict.Done;

        async Task<Verdict> JudgeAsync()
        {
            LockSnapshot snapshot = await _observer.WatchAsync(pid, scope, cancellationToken).ConfigureAwait(false);
            recorder.Saw(snapshot.Blockers, snapshot.Cause);
            if (stopsTraffic && snapshot.Waiting)
            {
                // lock_timeout counts per lock; a statement that needs several may not add them up.
                return Stopwatch.GetElapsedTime(start) > lockTimeout ? Verdict.LockTimeout : Verdict.Done;
            }

            if (stopsTraffic && snapshot.HoldsTraffic)
            {
                heldSince ??= Stopwatch.GetTimestamp();
                return Stopwatch.GetElapsedTime(heldSince.Value) > _options.MaxHold ? Verdict.HeldTooLong : Verdict.Done;
            }

            if (_options.WaitFor is { } bound && recorder.CurrentWait > bound)
            {
                return Verdict.WaitedTooLong;
            }

            if (!stopsTraffic && _options.BlockerAction != BlockerAction.Report && recorder.CurrentWait > _options.BlockerGracePeriod)
            {
                await ender.EndAsync(_observer, snapshot.Blockers, cancellationToken).ConfigureAwait(false);
            }

            return Verdict.Done;
        }
    }

    /// <summary>Brings the observer's connection back where it was lost, without letting the bounds wait for it.</summary>
    private async Task WatchAgainAsync(bool wasLost, CancellationToken cancellationToken)
    {
        if (wasLost)
        {
            using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            limit.CancelAfter(s_watchAgainWithin);
            await _observer.EnsureOpenAsync(limit.Token).ConfigureAwait(false);
        }
    }

    private void Lost(MigrationStep step, int failures, Exception e)
    {
        // The statement goes on under the server's own bounds; a connection that was ended, and is open again at the next look, is nothing to worry about.
        string what = $"{step.Purpose}: who is in the way cannot be watched: {e.Message}";
        switch (failures)
        {
            case 2:
                _sink.Warning($"{what} It is tried again every {Durations.Text(s_watchAgainWithin)}; until then a wait that was seen counts on{(_options.BlockerAction == BlockerAction.Report ? "" : ", and nobody is cancelled or ended")}.");
                break;
            default:
                _sink.Verbose(what);
                break;
        }
    }

    private static async Task<bool> EndsWithinAsync(Task work, TimeSpan time)
    {
        using CancellationTokenSource timer = new();
        Task first = await Task.WhenAny(work, Task.Delay(time, timer.Token)).ConfigureAwait(false);
        await timer.CancelAsync().ConfigureAwait(false);
        return first == work;
    }

    private static async Task SetTimeoutsAsync(NpgsqlConnection connection, TimeSpan lockTimeout, TimeSpan statementTimeout, CancellationToken cancellationToken)
    {
        const string Sql = """
            select pg_catalog.set_config('lock_timeout', $1::text, false), pg_catalog.set_config('statement_timeout', $2::text, false)
            """;
        await using NpgsqlCommand command = new(Sql, connection)
        {
            Parameters = { new() { Value = (int)lockTimeout.TotalMilliseconds }, new() { Value = (int)statementTimeout.TotalMilliseconds } },
        };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    private MigrationException HeldTooLong(MigrationStep step) => new(
        "HeldTooLong",
        MigrationErrorKind.Timeout,
        $"{step.Purpose}: the statement held {step.LockMode.SqlText()} on {string.Join(", ", step.Objects)} for longer than {Durations.Text(_options.MaxHold)}; it was cancelled and rolled back. It is not an instant one.",
        "Split it into steps that are (a check NOT VALID and VALIDATE, a new column and a backfill), or run the statement by hand while nobody uses the table.")
    {
        SqlState = SqlStates.QueryCanceled,
        Target = step.Objects.FirstOrDefault(),
    };

    private MigrationException WaitedTooLong(MigrationStep step, List<LockWait> waits)
    {
        LockBlocker[] blockers = waits.Count > 0 ? waits[^1].Blockers : [];
        return new(
            "WaitedTooLong",
            MigrationErrorKind.Timeout,
            $"{step.Purpose}: waited longer than {Durations.Text(_options.WaitFor!.Value)} for {Names(blockers)}.",
            "Let these transactions end, or end them, then run the command again; or allow more with -WaitFor.")
        {
            Target = step.Objects.FirstOrDefault(),
            Blockers = blockers,
        };
    }

    private static MigrationException GivenUp(MigrationStep step, int attempts, TimeSpan elapsed, List<LockWait> waits)
    {
        LockBlocker[] blockers = waits.Count > 0 ? waits[^1].Blockers : [];
        return new(
            "LockNotAvailable",
            MigrationErrorKind.Busy,
            $"{step.Purpose}: {step.LockMode.SqlText()} on {string.Join(", ", step.Objects)} could not be had in {attempts} attempts over {Durations.Text(elapsed)}. In the way: {Names(blockers)}.",
            "Let these sessions end their transactions (Get-BlockingLock shows them), then run the command again; "
            + (step.Transactional ? "nothing was changed by this step." : "what this step committed before stays."))
        {
            SqlState = SqlStates.LockNotAvailable,
            Target = step.Objects.FirstOrDefault(),
            Blockers = blockers,
        };
    }

    private static string Names(LockBlocker[] blockers) =>
        blockers.Length == 0 ? "transactions that came and went too fast to be seen" : string.Join("; ", blockers.Select(blocker => blocker.ToString()));
}
