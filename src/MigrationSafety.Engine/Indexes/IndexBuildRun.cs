using System.Diagnostics;
using System.Security.Cryptography;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>One run of a plan: attempts until the index is valid, and what each of them leaves behind.</summary>
internal sealed class IndexBuildRun
{
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_cleanUpFor = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_secondLookAfter = TimeSpan.FromMilliseconds(300);
    private static readonly TimeSpan s_cleanUpOnCancelFor = TimeSpan.FromSeconds(1);

    private readonly IndexBuildPlan _plan;
    private readonly IOperationSink _sink;
    private readonly EngineSession _session;
    private readonly ExecutionOptions _options;
    private readonly long _start = Stopwatch.GetTimestamp();
    private readonly List<MigrationStep> _steps = [];
    private IndexSituation? _situation;
    private MigrationStep? _build;
    private TimeSpan _queued;
    private DateTimeOffset? _serverStart;
    private Task? _abandoned;

    internal IndexBuildRun(IndexBuildPlan plan, IOperationSink sink)
    {
        _plan = plan;
        _sink = sink;
        _session = plan.Session;
        _options = plan.Request.Options;
    }

    private string Display => _situation?.Display ?? $"{_plan.Name} on {_plan.Target}";

    internal async Task<IndexBuildResult> RunAsync(CancellationToken cancellationToken)
    {
        try
        {
            return await AttemptsAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            if (await LeftoverAsync(s_cleanUpOnCancelFor).ConfigureAwait(false) is { } left)
            {
                _sink.Warning($"{left} Run the same command again: it removes and rebuilds it.");
            }

            throw;
        }
    }

    private async Task<IndexBuildResult> AttemptsAsync(CancellationToken cancellationToken)
    {
        long failingSince = _start;
        for (int attempt = 1; ; attempt++)
        {
            long attemptStart = Stopwatch.GetTimestamp();
            try
            {
                return await AttemptAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (MigrationException e)
            {
                TimeSpan pause = Pause(attempt);
                MigrationException failure = e;
                bool again = e.SqlState == SqlStates.DeadlockDetected || e.Kind == MigrationErrorKind.Connection;
                if (again && e.SqlState == SqlStates.AdminShutdown && await ServerStillRunsAsync(cancellationToken).ConfigureAwait(false))
                {
                    again = false;
                    failure = TerminatedByOther(e);
                }

                if (Stopwatch.GetElapsedTime(attemptStart) > _options.RetryFor)
                {
                    // A build that ran for hours and lost its connection has not been failing for hours.
                    failingSince = Stopwatch.GetTimestamp();
                }

                if (!again || Stopwatch.GetElapsedTime(failingSince) + pause > _options.RetryFor)
                {
                    throw Final(failure, await LeftoverAsync(s_cleanUpFor).ConfigureAwait(false));
                }

                _sink.Warning($"{e.Message} Next attempt in {Durations.Text(pause)}.");
                await Task.Delay(pause, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private static TimeSpan Pause(int attempt)
    {
        double bound = Math.Min(s_longestPause.TotalMilliseconds, 500 * Math.Pow(2, Math.Min(attempt - 1, 20)));
        // At least half of it: a server that restarts needs a moment.
        return TimeSpan.FromMilliseconds((bound / 2) + RandomNumberGenerator.GetInt32((int)(bound / 2) + 1));
    }

    private async Task<IndexBuildResult> AttemptAsync(CancellationToken cancellationToken)
    {
        try
        {
            NpgsqlConnection connection = await _session.OpenAsync("index-build", _sink, cancellationToken).ConfigureAwait(false);
            TableReference? locked = null;
            _abandoned = null;
            try
            {
                _serverStart ??= await ServerStartAsync(connection, cancellationToken).ConfigureAwait(false);
                TableReference table = await TableReference.FindAsync(connection, _plan.Request.Table, _plan.Request.Schema, cancellationToken).ConfigureAwait(false);
                long start = Stopwatch.GetTimestamp();
                await TableOperationLock.TakeAsync(connection, table, _options.WaitFor ?? TimeSpan.MaxValue, _sink, cancellationToken).ConfigureAwait(false);
                locked = table;
                // After the lock: what another run of this module did while this one waited counts.
                _situation = await InspectAsync(connection, start, cancellationToken).ConfigureAwait(false);
                await BuildAsync(connection, _situation, cancellationToken).ConfigureAwait(false);
                return await VerifiedAsync(connection, cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                if (_abandoned is { } running)
                {
                    _ = CloseAfterAsync(running, connection, locked);
                }
                else
                {
                    await CloseAsync(connection, locked).ConfigureAwait(false);
                }
            }
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, $"Building index {Display}", _plan.Target);
        }
    }

    private static async Task<DateTimeOffset> ServerStartAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.pg_postmaster_start_time()", connection);
        return (DateTime)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    /// <summary>Closes what was left behind when it comes to an end: the network came back, or the system gave the connection up.</summary>
    private static async Task CloseAfterAsync(Task running, NpgsqlConnection connection, TableReference? locked)
    {
        await running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await CloseAsync(connection, locked).ConfigureAwait(false);
    }

    private static async Task CloseAsync(NpgsqlConnection connection, TableReference? locked)
    {
        if (locked is not null)
        {
            await ReleaseAsync(connection, locked).ConfigureAwait(false);
        }

        await connection.DisposeAsync().ConfigureAwait(false);
    }

    private static async Task ReleaseAsync(NpgsqlConnection connection, TableReference table)
    {
        if (connection.State != System.Data.ConnectionState.Open)
        {
            return;
        }

        try
        {
            await TableOperationLock.ReleaseAsync(connection, table).ConfigureAwait(false);
        }
        catch (NpgsqlException)
        {
            // The connection broke: its end releases the lock, and what broke it is on its way to the caller already.
        }
    }

    /// <summary>Looks at what is there; an index that somebody else is building is awaited.</summary>
    private async Task<IndexSituation> InspectAsync(NpgsqlConnection connection, long start, CancellationToken cancellationToken)
    {
        bool told = false;
        uint? abandoned = null;
        while (true)
        {
            IndexSituation situation = await IndexCatalog.InspectAsync(connection, _plan.Request, cancellationToken).ConfigureAwait(false);
            IndexEntry? unfinished = situation.Existing is { Valid: false } invalid ? invalid : null;
            LockBlocker? builder = unfinished is null
                ? null
                : await IndexCatalog.BuilderAsync(connection, situation.Table, unfinished.Oid, cancellationToken).ConfigureAwait(false);
            if (builder is null && unfinished is not null && abandoned != unfinished.Oid)
            {
                // A build that ends between the two questions looks abandoned: it counts as a leftover when it still does a moment later.
                abandoned = unfinished.Oid;
                await Task.Delay(s_secondLookAfter, cancellationToken).ConfigureAwait(false);
                continue;
            }

            if (builder is null)
            {
                _queued += told || Stopwatch.GetElapsedTime(start) > TimeSpan.FromSeconds(0.2) ? Stopwatch.GetElapsedTime(start) : TimeSpan.Zero;
                return situation;
            }

            if (Stopwatch.GetElapsedTime(start) > (_options.WaitFor ?? TimeSpan.MaxValue))
            {
                throw new MigrationException(
                    "IndexBeingBuilt",
                    MigrationErrorKind.Busy,
                    $"{situation.Display} is being built by {builder}.",
                    "Wait for it (Get-MigrationProgress shows how far it is), then run the command again; or allow more with -WaitFor.")
                {
                    Target = situation.Display,
                    Blockers = [builder],
                };
            }

            if (!told)
            {
                _sink.Warning($"{situation.Display} is being built already; waiting for {builder}.");
                told = true;
            }

            await Task.Delay(TimeSpan.FromMilliseconds(250), cancellationToken).ConfigureAwait(false);
        }
    }

    private async Task BuildAsync(NpgsqlConnection connection, IndexSituation situation, CancellationToken cancellationToken)
    {
        IReadOnlyList<MigrationStep> steps = situation.Steps();
        if (steps.Count == 0)
        {
            return;
        }

        await using IndexBuildWatcher watcher = IndexBuildWatcher.Start(
            _session, _sink, $"Building index {situation.Display}", connection.ProcessID, _plan.Request.Silence, cancellationToken);
        foreach (MigrationStep step in steps)
        {
            MigrationStep? outcome = null;
            Task<MigrationStep> running = RunStepAsync(connection, step, cancellationToken);
            try
            {
                if (await Task.WhenAny(running, watcher.Lost).ConfigureAwait(false) != running)
                {
                    _abandoned = running;
                    cancellationToken.ThrowIfCancellationRequested();
                    throw new MigrationException(
                        "ConnectionLost",
                        MigrationErrorKind.Connection,
                        $"{step.Purpose}: the server has not answered for {Durations.Text(_plan.Request.Silence)}; the connection counts as lost.",
                        "Check the network and that the server runs, then run the command again: it goes on where it was.")
                    {
                        Target = _plan.Target,
                    };
                }

                outcome = await running.ConfigureAwait(false);
            }
            catch (MigrationException e) when (e.Steps is [MigrationStep failed])
            {
                outcome = failed;
                throw;
            }
            finally
            {
                Note(outcome ?? step with { State = StepState.Failed, Attempts = 1 });
            }
        }
    }

    private async Task<MigrationStep> RunStepAsync(NpgsqlConnection connection, MigrationStep step, CancellationToken cancellationToken)
    {
        await using StepExecutor executor = await StepExecutor.OpenAsync(_session, _options, _sink, cancellationToken).ConfigureAwait(false);
        return await executor.RunAsync(connection, step, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Keeps the outcome of a step; the attempts at the build are one step.</summary>
    private void Note(MigrationStep outcome)
    {
        if (outcome.Cost != StepCost.BuildsIndex)
        {
            _steps.Add(outcome);
            return;
        }

        _build = outcome with
        {
            Attempts = (_build?.Attempts ?? 0) + outcome.Attempts,
            Duration = (_build?.Duration ?? TimeSpan.Zero) + outcome.Duration,
            LockWaits = [.. _build?.LockWaits ?? [], .. outcome.LockWaits],
        };
    }

    private async Task<IndexBuildResult> VerifiedAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        IndexSituation now = await IndexCatalog.InspectAsync(connection, _plan.Request, cancellationToken).ConfigureAwait(false);
        if (now.Existing is not { Valid: true } index)
        {
            throw new MigrationException(
                "IndexNotValid",
                MigrationErrorKind.InvalidState,
                now.Existing is null ? $"{now.Display} is not there after the build: somebody dropped it." : $"{now.Display} is not valid after the build.",
                "Run the command again: it removes what is left and builds the index anew.")
            {
                Target = now.Display,
            };
        }

        // Lost from sight, yet finished by the server: an earlier attempt of this run built it.
        MigrationStep? build = _build is { State: not StepState.Done } seenFailing ? seenFailing with { State = StepState.Done } : _build;
        MigrationStep[] steps = [.. _steps, build ?? now.CreateStep() with { State = StepState.Skipped }];
        return new IndexBuildResult
        {
            Origin = _session.Info,
            Server = _session.Info.Server,
            Database = _session.Info.Database,
            Schema = SqlName.QuoteIfNeeded(now.Table.Schema),
            Table = SqlName.QuoteIfNeeded(now.Table.Name),
            Name = SqlName.QuoteIfNeeded(now.Name),
            Outcome = build is null ? IndexBuildOutcome.AlreadyValid
                : _steps.Any(step => step.State == StepState.Done) ? IndexBuildOutcome.Rebuilt
                : IndexBuildOutcome.Built,
            Definition = index.Definition!,
            Attempts = build?.Attempts ?? 0,
            Duration = Stopwatch.GetElapsedTime(_start),
            WaitTime = steps.SelectMany(step => step.LockWaits).Where(wait => wait.Queued).Aggregate(_queued, (sum, wait) => sum + wait.WaitTime),
            SizeBytes = index.SizeBytes,
            Steps = steps,
        };
    }

    /// <summary>Whether the server runs on since this run began: then it was this session that somebody ended, not the server.</summary>
    private async Task<bool> ServerStillRunsAsync(CancellationToken cancellationToken)
    {
        try
        {
            await using NpgsqlConnection connection = await _session.OpenAsync("index-build", _sink, cancellationToken).ConfigureAwait(false);
            return await ServerStartAsync(connection, cancellationToken).ConfigureAwait(false) == _serverStart;
        }
        catch (Exception e) when (e is MigrationException { Kind: MigrationErrorKind.Connection } || ServerErrors.IsConnectionLost(e))
        {
            return false;
        }
    }

    private static MigrationException TerminatedByOther(MigrationException e) => new(
        "TerminatedByOther",
        MigrationErrorKind.Stopped,
        $"{e.Message} Somebody ended this session (pg_terminate_backend), while the server runs on; it is not tried again.",
        "Ask who did, then run the command again.",
        e)
    {
        SqlState = e.SqlState,
        Target = e.Target,
    };

    private MigrationException Final(MigrationException e, string? left) => new(
        e.ErrorId,
        e.Kind,
        left is null ? e.Message : $"{e.Message} {left}",
        left is null ? e.RecommendedAction : $"{e.RecommendedAction} The same command removes the leftover and builds the index anew.",
        e)
    {
        SqlState = e.SqlState,
        Target = e.Target ?? _plan.Target,
        Blockers = e.Blockers,
        Steps = _build is null ? [.. _steps] : [.. _steps, _build],
    };

    /// <summary>Removes what a failed build left, where that can be done in time; never what is not ours to remove.</summary>
    /// <returns>Null where nothing is left; otherwise what is, in words.</returns>
    private async Task<string?> LeftoverAsync(TimeSpan bound)
    {
        if (_build is null || _situation is not { } situation)
        {
            return null;
        }

        string mayBeLeft = $"An invalid index {situation.Display} may be left, or the server may still be building it.";
        Task<string?> removal = RemoveLeftoverAsync(situation, bound);
        // The server bounds the drop itself; this bounds a network that says nothing.
        Task first = await Task.WhenAny(removal, Task.Delay(bound + TimeSpan.FromMilliseconds(500))).ConfigureAwait(false);
        if (first != removal)
        {
            _ = removal.ContinueWith(task => task.Exception, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            return mayBeLeft;
        }

        try
        {
            return await removal.ConfigureAwait(false);
        }
        catch (Exception e) when (e is NpgsqlException or MigrationException or IOException or TimeoutException)
        {
            // The failure that matters is on its way to the caller; this one only says that the leftover stays.
            _sink.Verbose($"{situation.Display}: what is left could not be looked at: {e.Message}");
            return mayBeLeft;
        }
    }

    private async Task<string?> RemoveLeftoverAsync(IndexSituation situation, TimeSpan bound)
    {
        // A connection of its own: whatever became of the one that worked, this one starts clean, and it holds the operation's lock while it drops.
        await using NpgsqlConnection connection = await _session.OpenAsync("index-cleanup", _sink, CancellationToken.None).ConfigureAwait(false);
        try
        {
            await TableOperationLock.TakeAsync(connection, situation.Table, TimeSpan.Zero, new QuietSink(_sink), CancellationToken.None).ConfigureAwait(false);
        }
        catch (MigrationException e) when (e.ErrorId == "TableBusy")
        {
            return $"Index {situation.Display} may be left invalid, or still be built: {e.Message}";
        }

        try
        {
            IndexSituation now = await IndexCatalog.InspectAsync(connection, _plan.Request, CancellationToken.None).ConfigureAwait(false);
            if (now.Name != situation.Name || now.Existing is not { Valid: false } leftover)
            {
                return null;
            }

            if (await IndexCatalog.BuilderAsync(connection, now.Table, leftover.Oid, CancellationToken.None).ConfigureAwait(false) is { } builder)
            {
                return $"Index {now.Display} is not valid yet; it is being built by {builder}.";
            }

            MigrationStep drop = now.DropStep();
            long start = Stopwatch.GetTimestamp();
            await using (NpgsqlCommand limit = new("select pg_catalog.set_config('statement_timeout', $1::text, false)", connection) { Parameters = { new() { Value = (int)bound.TotalMilliseconds } } })
            {
                await limit.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
            }

            _sink.Debug(drop.Sql);
            await using NpgsqlCommand command = new(drop.Sql, connection);
            try
            {
                await command.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
                _steps.Add(drop with { State = StepState.Done, Attempts = 1, Duration = Stopwatch.GetElapsedTime(start) });
                _sink.Verbose($"Removed the invalid leftover {now.Display}.");
                return null;
            }
            catch (PostgresException e)
            {
                _sink.Verbose($"The invalid leftover {now.Display} could not be removed within {Durations.Text(bound)}: {ServerErrors.Words(e)}");
                return $"The invalid index {now.Display} is left; transactions on the table kept it from being removed within {Durations.Text(bound)}. {drop.Sql} removes it.";
            }
        }
        finally
        {
            await ReleaseAsync(connection, situation.Table).ConfigureAwait(false);
        }
    }

    /// <summary>Keeps to itself that another operation is waited for: nobody waits here.</summary>
    private sealed class QuietSink(IOperationSink sink) : IOperationSink
    {
        public void Verbose(string message) => sink.Verbose(message);

        public void Debug(string message) => sink.Debug(message);

        public void Warning(string message) => sink.Verbose(message);

        public void Progress(OperationProgress progress) => sink.Progress(progress);
    }
}
