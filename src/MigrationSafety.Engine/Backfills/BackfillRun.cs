using System.Runtime.ExceptionServices;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>One run of a backfill: its workers pass through the ranges side by side, then one of them sweeps.</summary>
internal sealed class BackfillRun : IAsyncDisposable
{
    // The share of a table, and the rows, up to which one worker copies what is missing sooner than all of them pass over the table.
    private const double LittleLeft = 0.05;
    private const double FewLeft = 100_000;
    private static readonly TimeSpan s_patienceToNote = TimeSpan.FromSeconds(2);

    private readonly BackfillPlan _plan;
    private readonly BackfillDefinition _definition;
    private readonly BackfillContext _context;
    private readonly IOperationSink _sink;
    private readonly BackfillWorker[] _workers;
    private readonly BackfillTrial _trial;
    private bool _resumed;
    private bool _begun;
    private bool _completed;
    // What it works on; null where nothing is recorded yet.
    private BackfillRecord? _record;

    internal BackfillRun(BackfillPlan plan, IOperationSink sink)
    {
        _plan = plan;
        _definition = plan.Definition;
        _sink = sink;
        _context = new BackfillContext(plan, sink);
        _workers = [.. Enumerable.Range(1, plan.Request.Workers).Select(number => new BackfillWorker(_context, number))];
        _trial = new BackfillTrial(plan, sink, Leader);
        _record = plan.Resumed;
    }

    /// <summary>What whoever breaks it off has to know; null where it had not begun.</summary>
    internal string? Interrupted => _completed ? $"{_plan.Name} is completed; only how many rows the application inserted or changed meanwhile was not counted. Test-Backfill counts them."
        : _begun ? $"This run of {_plan.Name} was interrupted. What is done stays; the same command, or Resume-Backfill, goes on with it."
        : null;

    /// <summary>Batches sent.</summary>
    internal int Attempts => _workers.Sum(worker => worker.Attempts);

    internal LockWait[] Waits() => [.. _workers.SelectMany(worker => worker.Watch.Waits())];

    private BackfillWorker Leader => _workers[0];

    /// <summary>Opens the first connection, which takes the table's lock, and tries the change on some rows.</summary>
    /// <returns>Whether any row matches.</returns>
    internal Task<bool> TryAsync(CancellationToken cancellationToken) => Leader.HoldAsync(() => _trial.RunAsync(cancellationToken), cancellationToken);

    /// <summary>Begins, or finds what there is to go on with.</summary>
    /// <returns>False where an earlier run completed it and no row matches.</returns>
    internal Task<bool> BeginAsync(bool anyMatches, CancellationToken cancellationToken) => Leader.HoldAsync(
        async () =>
        {
            while (await PrepareAsync(anyMatches, cancellationToken).ConfigureAwait(false) is { } beginning)
            {
                await Leader.TellAsync(connection => BackfillLock.TakeGateAsync(connection, _definition, _plan.Request.Options.RetryFor, _sink, cancellationToken), cancellationToken).ConfigureAwait(false);
                try
                {
                    if (await Leader.AskAsync(connection => TryBeginAsync(connection, beginning, cancellationToken), cancellationToken).ConfigureAwait(false))
                    {
                        return true;
                    }
                }
                finally
                {
                    if (!Leader.Connection.IsLost)
                    {
                        await BackfillLock.ReleaseGateAsync(Leader.Connection.Connection, _definition).ConfigureAwait(false);
                    }
                }

                _sink.Verbose($"Another client has begun or completed {_plan.Name} just now; looks again.");
            }

            return false;
        },
        cancellationToken);

    internal async Task<BackfillResult> AlreadyCompletedAsync(CancellationToken cancellationToken) =>
        await ResultAsync(cancellationToken).ConfigureAwait(false) with { Outcome = BackfillOutcome.AlreadyCompleted, Resumed = false };

    /// <summary>Runs it from its checkpoints to its end.</summary>
    internal async Task<BackfillResult> RunAsync(CancellationToken cancellationToken)
    {
        _record = await RecordAsync(cancellationToken).ConfigureAwait(false);
        _context.Begins(_record);
        await using ThrottleWatch throttle = await ThrottleWatch.StartAsync(
            new ThrottleOwner(
                _plan.Session,
                _plan.Name,
                _context.Run,
                _context.Gate,
                _workers.Length,
                () => [.. _workers.Select(worker => worker.Pid).OfType<int>()],
                () => _workers.Sum(worker => worker.Transactions),
                [.. _definition.Leaves.Select(leaf => leaf.Table.Oid)],
                _plan.Request.Options.RetryFor,
                _context.Throttled)
            {
                Settings = _plan.Request.Settings,
                Waiting = () => _context.StandsStill ? _workers.Select(worker => worker.Watch.Waiting).FirstOrDefault(waiting => waiting is not null) : null,
            },
            _plan.Request.Throttle,
            _sink,
            cancellationToken).ConfigureAwait(false);
        await PassAsync(cancellationToken).ConfigureAwait(false);
        BackfillSweep sweep = new(_context, Leader);
        await Leader.HoldAsync(() => sweep.RunAsync(cancellationToken), cancellationToken).ConfigureAwait(false);
        if (_definition.ShardOf is not null
            && !await Leader.HoldAsync(() => Leader.AskAsync(connection => DistributedTable.IsHereAsync(connection, _definition.Table, CancellationToken.None), cancellationToken), cancellationToken).ConfigureAwait(false))
        {
            throw DistributedTable.Moved(_definition.Table);
        }

        BackfillResult result = await ResultAsync(cancellationToken).ConfigureAwait(false);
        if (result.Outcome == BackfillOutcome.Paused)
        {
            // Not counted: who stopped it waits for the batch at hand, not for a look at the whole table.
            _sink.Warning($"{_plan.Name} was stopped by somebody (Stop-Backfill); Resume-Backfill, or the same command, goes on with it.");
            return result;
        }

        _completed = true;
        // What a sweep has just looked for in vain is not looked for again.
        bool none = sweep.FoundNothing && result.Errors == 0;
        result = result with { Remaining = none ? 0 : await TryCountAsync(cancellationToken).ConfigureAwait(false) ?? result.Errors };

        if (!_definition.IsDefaultWhere && _plan.EstimatedTableRows > 0 && (result.TotalRows, result.Errors, result.Remaining) == (0, 0, 0))
        {
            _sink.Warning($"{_plan.Name}: no row of {_definition.Table.Display} matched ({_definition.Where}), so nothing was changed. Where rows should have: nothing is equal to NULL (IS NULL asks for it), and texts tell capitals.");
        }

        if (result.Errors > 0)
        {
            _sink.Warning($"{_plan.Name}: the server refused {Counts.Rows(result.Errors)}; Get-Backfill -IncludeError gives the reason. Mend what is wrong, then Resume-Backfill tries only what is left.");
        }

        if (result.Remaining > result.Errors)
        {
            _sink.Warning(_definition.Into is { } into
                ? $"{_plan.Name}: {Counts.Rows(result.Remaining - result.Errors, "is", "are")} missing in {into.Table.Display}, inserted by the application while the backfill ran: {_definition.Remedy}, then run the command again."
                : $"{_plan.Name}: {Counts.Rows(result.Remaining - result.Errors, "matches", "match")}, inserted or changed by the application while the backfill ran: {_definition.Remedy}, then run the command again.");
        }

        if (_definition.Into is { Sequences.Count: > 0 } copied)
        {
            _sink.Warning($"{_plan.Name}: before the application inserts into {copied.Table.Display}, move on what numbers its rows: {string.Join(" and ", copied.Sequences.Select(s => $"select setval({SqlName.Literal(s.Sequence)}, (select max({s.Column}) from {copied.Table.Display}))"))}.");
        }

        return result;
    }

    /// <summary>Writes down what ended the run, for who looks from elsewhere. It has been said already: where it cannot be written down, nothing more is lost.</summary>
    internal async Task NoteFailureAsync(string message)
    {
        if (_record is not { } record)
        {
            return;
        }

        async Task NoteAsync()
        {
            await using NpgsqlConnection connection = await _plan.Session.OpenAsync("backfill", _sink, CancellationToken.None).ConfigureAwait(false);
            await BackfillStore.NoteFailureAsync(connection, _plan.Name, record, message, CancellationToken.None).ConfigureAwait(false);
        }

        Task note = NoteAsync();
        try
        {
            await note.WaitAsync(s_patienceToNote).ConfigureAwait(false);
        }
        catch (Exception e) when (e is NpgsqlException or MigrationException or TimeoutException or IOException)
        {
            _sink.Verbose($"What ended {_plan.Name} is not recorded: {e.Message}");
        }
    }

    public async ValueTask DisposeAsync()
    {
        _sink.Progress(new OperationProgress(_context.Activity, "Ended", Completed: true));
        // Side by side: each may have to wait for a server that does not answer.
        await Task.WhenAll(_workers.Select(worker => worker.DisposeAsync().AsTask())).ConfigureAwait(false);
    }

    private async Task PassAsync(CancellationToken cancellationToken)
    {
        using CancellationTokenSource others = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        using CancellationTokenSource over = new();
        Exception? cause = null;
        int left = _workers.Length;
        async Task PassAsync(BackfillWorker worker)
        {
            try
            {
                await worker.PassAsync(over.Token, others.Token).ConfigureAwait(false);
                await over.CancelAsync().ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (over.IsCancellationRequested && !others.IsCancellationRequested)
            {
                _sink.Verbose($"Worker {worker.Number} has no connection, and needs none any more: the others have done all.");
            }
            catch (Exception e) when (e == worker.Refusal && Interlocked.Decrement(ref left) > 0)
            {
                _sink.Verbose($"Worker {worker.Number} gets no connection; the others go on without it.");
            }
            catch (Exception e)
            {
                // What ends one worker ends them all, each after its batch; the others' failures are but its consequences.
                Interlocked.CompareExchange(ref cause, e, null);
                await others.CancelAsync().ConfigureAwait(false);
                throw;
            }

            if (worker != Leader)
            {
                // Where connections are few, the leader may need this one to sweep.
                await worker.DisposeAsync().ConfigureAwait(false);
            }
        }

        Task[] passes = [.. _workers.Select(PassAsync)];
        try
        {
            await Task.WhenAll(passes).ConfigureAwait(false);
        }
        catch (Exception) when (cancellationToken.IsCancellationRequested)
        {
            throw new OperationCanceledException(cancellationToken);
        }
        catch (Exception) when (cause is not null)
        {
            ExceptionDispatchInfo.Throw(cause);
        }

        Exception[] refusals = [.. _workers.Select(worker => worker.Refusal).OfType<Exception>()];
        if (refusals.Length > 0)
        {
            _sink.Warning($"{_plan.Name}: {refusals.Length} of {_workers.Length} workers had no connection at the end, so that the others did their work: {refusals[0].Message}");
        }
    }

    /// <summary>Looks at what is recorded and at the table, before the gate: nobody waits for that.</summary>
    /// <returns>Null where an earlier run completed it and no row matches.</returns>
    private async Task<Beginning?> PrepareAsync(bool anyMatches, CancellationToken cancellationToken)
    {
        BackfillRecord? record = await Leader.AskAsync(connection => BackfillRecords.ReadAsync(connection, _plan.Name, CancellationToken.None), cancellationToken).ConfigureAwait(false);
        if (record is not null && !BackfillRecords.Replaces(record, _definition))
        {
            (bool canResume, bool begun) = await Leader.AskAsync(
                connection => BackfillBeginnings.CanResumeAsync(connection, _definition, _plan.Request.Strategy, CancellationToken.None), cancellationToken).ConfigureAwait(false);
            canResume &= record.TableOid == _definition.Table.Oid;
            // What was refused, or came since, is found by a sweep alone.
            if (canResume && (!record.IsCompleted || record.Errors > 0))
            {
                BackfillRecords.RefuseOtherArchive(record, _definition);
                return new Beginning(record, record.IsCompleted || begun, []);
            }

            // Looked for again: another client may just have done them.
            if (record.IsCompleted && (!anyMatches || (await _trial.PickAsync(1, cancellationToken).ConfigureAwait(false)).Length == 0))
            {
                return null;
            }

            _sink.Verbose(record.IsCompleted
                ? $"{_plan.Name} was completed, but rows match again; begins from the start."
                : $"{_plan.Name} was begun on a table or along a key that is another now; begins from the start.");
        }

        // A pass over what is copied already would lock every row of it; the sweep finds the few that are missing in one look.
        if (_definition.Into is { IsEmpty: false } && _plan.EstimatedRows < Math.Min(LittleLeft * _plan.EstimatedTableRows, FewLeft))
        {
            _sink.Verbose($"Of about {_plan.EstimatedTableRows:N0} rows {_plan.EstimatedRows:N0} are to be copied: a sweep looks for them, without a pass.");
            return new Beginning(record, null, []);
        }

        IReadOnlyList<BackfillRange> ranges = await Backfill.AskAsync(
            _plan, _sink, connection => BackfillRanges.CutAsync(connection, _definition, _plan.Request.Workers, _plan.Sample, _sink, cancellationToken), cancellationToken).ConfigureAwait(false);
        _sink.Verbose($"{ranges.Count:N0} ranges for {_plan.Request.Workers:N0} worker{(_plan.Request.Workers > 1 ? "s" : "")}, {(_definition.Strategy == BackfillStrategy.Key ? "along a key" : "by blocks")}: {_definition.Reason}.");
        return new Beginning(record, null, ranges);
    }

    /// <summary>Begins or goes on as was prepared, behind the gate.</summary>
    /// <returns>False where somebody has begun or completed it since.</returns>
    private async Task<bool> TryBeginAsync(NpgsqlConnection connection, Beginning beginning, CancellationToken cancellationToken)
    {
        BackfillRecord? record = await BackfillRecords.ReadAsync(connection, _plan.Name, cancellationToken).ConfigureAwait(false);
        if (record?.Stamp != beginning.Record?.Stamp)
        {
            return false;
        }

        // With its beginning, so that nobody sees it interrupted before its first batch.
        Task AttendAsync() => BackfillStore.AttendAsync(connection, _plan.Name, _context.Run, Leader.Number, cancellationToken);
        if (beginning.Resumes is { } resumes)
        {
            _resumed = resumes;
            _sink.Verbose(record!.IsCompleted
                ? $"{_plan.Name} was completed but for {Counts.Rows(record.Errors)} that the server refused; tries those again."
                : $"Goes on with {_plan.Name} at its checkpoints: {Counts.Rows(record.TotalRows, "is", "are")} done.");
            await AttendAsync().ConfigureAwait(false);
            await BackfillBeginnings.ResumeAsync(connection, _definition, _plan.Request, _plan.EstimatedRows, cancellationToken).ConfigureAwait(false);
            _begun = true;
            return true;
        }

        if (!await BackfillBeginnings.BeginAsync(connection, _definition, record, _plan.Request, beginning.Ranges, _plan.EstimatedRows, _plan.EstimatedTableRows, AttendAsync, cancellationToken).ConfigureAwait(false))
        {
            return false;
        }

        _begun = true;
        // Counts rows only where they are few.
        await using NpgsqlConnection questions = await Backfill.OpenAsync(_plan.Session, _plan.Request, _sink, cancellationToken).ConfigureAwait(false);
        await BackfillProof.NoteStartAsync(questions, _definition, cancellationToken).ConfigureAwait(false);
        return true;
    }

    private Task<BackfillRecord> RecordAsync(CancellationToken cancellationToken) => Leader.HoldAsync(
        async () => await Leader.AskAsync(connection => BackfillRecords.ReadAsync(connection, _plan.Name, CancellationToken.None), cancellationToken).ConfigureAwait(false)
            ?? throw BackfillStore.Missing(_plan.Name),
        cancellationToken);

    /// <summary>How many rows match at the end; null where that cannot be told. All is done by then, so that nothing of it is an error.</summary>
    private async Task<long?> TryCountAsync(CancellationToken cancellationToken)
    {
        try
        {
            return await Leader.HoldAsync(
                () => _context.Look($"The count of what is left for {_plan.Name}").RunAsync(
                    Leader.Connection.Backend.Pid,
                    () => Leader.AskAsync(_ => CountAsync(cancellationToken), cancellationToken, repeat: false),
                    BackfillContext.IsBusy,
                    cancellationToken),
                cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            _sink.Warning($"{_plan.Name} is completed, but how many rows the application inserted or changed meanwhile could not be counted: {(e is PostgresException server ? ServerErrors.Words(server) : e.Message)} Test-Backfill counts them.");
            return null;
        }
    }

    /// <summary>On the leader's own connection: another one may not be had any more, after hours.</summary>
    private async Task<long> CountAsync(CancellationToken cancellationToken)
    {
        long rows = 0;
        try
        {
            await Leader.Connection.InTransactionAsync(
                [
                    new(BackfillConnection.Unbounded),
                    new("set local enable_seqscan = on"),
                    new("set local enable_bitmapscan = on"),
                    new("set local max_parallel_workers_per_gather to default"),
                    new(new BackfillQueries(_definition).Count),
                    new("commit"),
                ],
                async reader =>
                {
                    await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
                    await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
                    rows = reader.GetInt64(0);
                },
                cancellationToken).ConfigureAwait(false);
            return rows;
        }
        finally
        {
            _context.Moved();
        }
    }

    private async Task<BackfillResult> ResultAsync(CancellationToken cancellationToken)
    {
        TimeSpan elapsed = _context.Elapsed;
        BackfillRecord record = await RecordAsync(cancellationToken).ConfigureAwait(false);
        (long rows, long batches) = await Leader.HoldAsync(
            () => Leader.AskAsync(connection => BackfillStore.RunAsync(connection, _plan.Name, _context.Run, CancellationToken.None), cancellationToken),
            cancellationToken).ConfigureAwait(false);
        return new BackfillResult
        {
            Origin = _plan.Session.Info,
            Server = _plan.Session.Info.Server,
            Port = _plan.Session.Info.Port,
            Database = _plan.Session.Info.Database,
            Name = _plan.Name,
            Schema = SqlName.QuoteIfNeeded(_definition.Table.Schema),
            Table = SqlName.QuoteIfNeeded(_definition.Table.Name),
            Outcome = !record.IsCompleted ? BackfillOutcome.Paused : record.Errors > 0 ? BackfillOutcome.CompletedWithErrors : BackfillOutcome.Completed,
            Resumed = _resumed,
            Rows = rows,
            TotalRows = record.TotalRows,
            Batches = batches,
            Remaining = record.IsCompleted ? 0 : record.Remaining,
            Errors = record.Errors,
            Archive = _definition.Archive?.Display,
            Strategy = _definition.Strategy,
            RowsPerSecond = rows / Math.Max(0.001, elapsed.TotalSeconds),
        };
    }

    /// <summary>How it is to begin.</summary>
    /// <param name="Record">What was recorded by then.</param>
    /// <param name="Resumes">Whether it goes on where rows were done before; null where it begins from the start.</param>
    /// <param name="Ranges">The ranges of a new beginning.</param>
    private sealed record Beginning(BackfillRecord? Record, bool? Resumes, IReadOnlyList<BackfillRange> Ranges);
}
