using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>One run of a plan: attempts until the index is written anew, and what each of them leaves behind.</summary>
internal sealed class IndexRebuildRun
{
    private readonly IndexRebuildPlan _plan;
    private readonly IOperationSink _sink;
    private readonly EngineSession _session;
    private readonly ExecutionOptions _options;
    private readonly long _start = Stopwatch.GetTimestamp();
    private readonly List<MigrationStep> _steps = [];
    private IndexDetails _index;
    private MigrationStep? _rebuild;
    private TimeSpan _queued;

    internal IndexRebuildRun(IndexRebuildPlan plan, IOperationSink sink)
    {
        _plan = plan;
        _sink = sink;
        _session = plan.Session;
        _options = plan.Request.Options;
        _index = plan.Index;
    }

    internal async Task<IndexRebuildResult> RunAsync(CancellationToken cancellationToken)
    {
        if (_plan.Steps.Count == 0)
        {
            return Result(_index, IndexRebuildOutcome.Skipped);
        }

        IndexAttempts attempts = new(_session, "index-rebuild", _options, _plan.Request.Silence, _sink);
        try
        {
            return await attempts.RunAsync(AttemptAsync, () => $"Rebuilding index {_index.Display}", _plan.Target, cancellationToken).ConfigureAwait(false);
        }
        catch (MigrationException e) when (_rebuild is not null)
        {
            string? left = await LeftoversAsync(IndexLeftover.CleanUpFor).ConfigureAwait(false);
            throw new MigrationException(
                e.ErrorId,
                e.Kind,
                left is null ? $"{e.Message} Nothing is left of it." : $"{e.Message} {left}",
                left is null ? e.RecommendedAction : $"{e.RecommendedAction} The same command removes the leftover and rebuilds the index.",
                e)
            {
                SqlState = e.SqlState,
                Target = e.Target ?? _index.Display,
                Blockers = e.Blockers,
                Steps = [.. _steps, _rebuild],
            };
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested && _rebuild is not null)
        {
            if (await LeftoversAsync(IndexLeftover.CleanUpOnCancelFor).ConfigureAwait(false) is { } left)
            {
                _sink.Warning($"{left} Run the same command again: it removes it and rebuilds the index.");
            }

            throw;
        }
    }

    private async Task<IndexRebuildResult> AttemptAsync(IndexWorker worker, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        await worker.LockAsync(_index.Owner, cancellationToken).ConfigureAwait(false);
        TimeSpan forTurn = Stopwatch.GetElapsedTime(start);
        await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
        // After the lock: what another run of this module did while this one waited counts.
        (IndexDetails? found, TimeSpan forBuilder) = await IndexLeftover.SettledAsync(
            worker.Connection,
            _index.Table,
            token => NowAsync(worker.Connection, token),
            index => index is { Valid: false } invalid ? invalid.Oid : null,
            _ => _index.Display,
            _options.WaitFor ?? TimeSpan.MaxValue,
            _sink,
            cancellationToken).ConfigureAwait(false);
        _queued += (forTurn > TimeSpan.FromSeconds(0.2) ? forTurn : TimeSpan.Zero) + forBuilder;
        if (_plan.Leftover)
        {
            return await RemoveAsync(worker, found, cancellationToken).ConfigureAwait(false);
        }

        IndexDetails now = found ?? throw Gone();
        if (await DropLeftoversAsync(worker, now, cancellationToken).ConfigureAwait(false))
        {
            // The drops may have waited for long: the name may be another's by now.
            now = await NowAsync(worker.Connection, cancellationToken).ConfigureAwait(false) ?? throw Gone();
        }

        if (_plan.Reason is not null)
        {
            return Result(now, IndexRebuildOutcome.LeftoverRemoved);
        }

        // The oid is another once the new index has taken over: an earlier attempt that was lost from sight did its work.
        if (now.Oid == _plan.Index.Oid)
        {
            if (now.Valid && !_plan.Index.Valid)
            {
                return Result(now, IndexRebuildOutcome.Skipped, "Somebody else made it valid meanwhile.");
            }

            await SettingsAsync(worker.Connection, cancellationToken).ConfigureAwait(false);
            await RebuildAsync(worker, IndexRebuilder.RebuildStep(now, _plan.EstimatedBloatPercent), cancellationToken).ConfigureAwait(false);
            await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
            now = await NowAsync(worker.Connection, cancellationToken).ConfigureAwait(false) ?? throw Gone();
        }
        else if (_rebuild is null)
        {
            return Result(now, IndexRebuildOutcome.Skipped, "Somebody else rebuilt it meanwhile.");
        }

        return now.Valid
            ? Result(now, _plan.Index.Valid ? IndexRebuildOutcome.Rebuilt : IndexRebuildOutcome.Repaired)
            : throw new MigrationException("IndexNotValid", MigrationErrorKind.InvalidState, $"{now.Display} is not valid after the rebuild.", "Run the command again.") { Target = now.Display };
    }

    private MigrationException Gone() =>
        new("IndexNotFound", MigrationErrorKind.NotFound, $"{_index.Display} was dropped meanwhile.", "Run the command again, if there is another one of that name.") { Target = _index.Display };

    /// <summary>The index as it is now: by its oid, or by its name once a rebuild has given that to another.</summary>
    private async Task<IndexDetails?> NowAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        IndexDetails? same = await IndexDetails.ReadAsync(connection, _plan.Index.Oid, cancellationToken).ConfigureAwait(false);
        if (_plan.Leftover || same?.Name == _plan.Index.Name)
        {
            return same;
        }

        // Gone, or renamed to _ccold: the one that has its name and definition took over.
        IndexDetails? successor = await IndexDetails.FindAsync(connection, SqlName.Quote(_plan.Index.Name), SqlName.Quote(_plan.Index.Schema), cancellationToken).ConfigureAwait(false);
        return successor?.Definition == _plan.Index.Definition ? successor : null;
    }

    private async Task<IndexRebuildResult> RemoveAsync(IndexWorker worker, IndexDetails? leftover, CancellationToken cancellationToken)
    {
        if (leftover is null)
        {
            return Result(_plan.Index, IndexRebuildOutcome.Skipped, "It has gone meanwhile.");
        }

        InvalidIndexEntry? entry = await InvalidIndexEntry.ReadOneAsync(worker.Connection, leftover.Oid, cancellationToken).ConfigureAwait(false);
        if (entry?.LeftByRebuild is null)
        {
            return Result(leftover, IndexRebuildOutcome.Skipped, "It is no leftover of a rebuild any more.");
        }

        await DropAsync(worker, IndexRebuilder.DropStep(leftover, leftover.Display, SqlName.QuoteIfNeeded(entry.Original!), entry.OriginalServes), cancellationToken).ConfigureAwait(false);
        return Result(leftover with { SizeBytes = 0 }, IndexRebuildOutcome.LeftoverRemoved);
    }

    /// <summary>Drops what rebuilds left; looks anew before each, for a drop may wait for long and goes by the name.</summary>
    /// <returns>Whether anything was dropped.</returns>
    private async Task<bool> DropLeftoversAsync(IndexWorker worker, IndexDetails index, CancellationToken cancellationToken)
    {
        HashSet<uint> dropped = [];
        while (true)
        {
            IReadOnlyList<InvalidIndexEntry> invalid = await InvalidIndexEntry.ReadAsync(worker.Connection, index.Table.Oid, schema: null, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<InvalidIndexEntry> leftovers = IndexRebuilder.LeftoversOf(index, invalid);
            IReadOnlyDictionary<uint, IndexActivity> busy = await IndexActivity.ReadAsync(worker.Connection, [.. leftovers.Select(entry => entry.Oid)], cancellationToken).ConfigureAwait(false);
            if (leftovers.FirstOrDefault(entry => !busy.ContainsKey(entry.Oid) && !dropped.Contains(entry.Oid)) is not { } leftover)
            {
                return dropped.Count > 0;
            }

            await DropAsync(worker, IndexRebuilder.DropStep(index, leftover.Display, index.Display, index.Valid), cancellationToken).ConfigureAwait(false);
            dropped.Add(leftover.Oid);
            await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private async Task DropAsync(IndexWorker worker, MigrationStep step, CancellationToken cancellationToken) =>
        _steps.Add(await worker.RunAsync(step, $"Rebuilding index {_index.Display}", cancellationToken).ConfigureAwait(false));

    private async Task SettingsAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        foreach ((string name, string value) in IndexRebuilder.Settings(_plan.Request))
        {
            await using NpgsqlCommand command = new("select pg_catalog.set_config($1, $2, false)", connection) { Parameters = { new() { Value = name }, new() { Value = value } } };
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private async Task RebuildAsync(IndexWorker worker, MigrationStep step, CancellationToken cancellationToken)
    {
        // Kept before it runs: whatever becomes of this connection, the rebuild has begun.
        MigrationStep? before = _rebuild;
        Note(before, step with { State = StepState.Failed, Attempts = 1 });
        try
        {
            Note(before, await worker.RunAsync(step, $"Rebuilding index {_index.Display}", cancellationToken).ConfigureAwait(false));
        }
        catch (MigrationException e) when (e.Steps is [MigrationStep failed])
        {
            Note(before, failed);
            throw;
        }
    }

    /// <summary>Keeps the outcome of an attempt; all of them are one step.</summary>
    private void Note(MigrationStep? before, MigrationStep outcome) => _rebuild = outcome with
    {
        StartedAt = before?.StartedAt ?? outcome.StartedAt,
        Attempts = (before?.Attempts ?? 0) + outcome.Attempts,
        Duration = (before?.Duration ?? TimeSpan.Zero) + outcome.Duration,
        LockWaits = [.. before?.LockWaits ?? [], .. outcome.LockWaits],
    };

    private IndexRebuildResult Result(IndexDetails now, IndexRebuildOutcome outcome, string? reason = null)
    {
        // Lost from sight, yet finished by the server.
        MigrationStep? rebuild = _rebuild is { State: not StepState.Done } seenFailing ? seenFailing with { State = StepState.Done } : _rebuild;
        MigrationStep[] steps = rebuild is null ? [.. _steps] : [.. _steps, rebuild];
        return new IndexRebuildResult
        {
            Origin = _session.Info,
            Server = _session.Info.Server,
            Port = _session.Info.Port,
            Database = _session.Info.Database,
            Schema = SqlName.QuoteIfNeeded(now.Schema),
            Table = SqlName.QuoteIfNeeded(now.Table.Name),
            Name = SqlName.QuoteIfNeeded(now.Name),
            Outcome = outcome,
            Reason = reason ?? _plan.Reason,
            Definition = now.Definition,
            Attempts = rebuild?.Attempts ?? 0,
            Duration = Stopwatch.GetElapsedTime(_start),
            WaitTime = steps.SelectMany(step => step.LockWaits).Where(wait => wait.Queued).Aggregate(_queued, (sum, wait) => sum + wait.WaitTime),
            SizeBytes = now.SizeBytes,
            SizeBytesBefore = _plan.Index.SizeBytes,
            EstimatedBloatPercent = _plan.EstimatedBloatPercent,
            Steps = steps,
        };
    }

    /// <summary>Removes what a failed rebuild left, where that can be done in time.</summary>
    /// <returns>Null where nothing is left; otherwise what is, in words.</returns>
    private async Task<string?> LeftoversAsync(TimeSpan bound)
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            LeftoverRemoval removal = await IndexLeftover.RemoveAsync(_session, _index.Table, FindAsync, _index.Display, bound - TimeSpan.FromTicks(Math.Min(bound.Ticks, Stopwatch.GetElapsedTime(start).Ticks)), _sink).ConfigureAwait(false);
            if (removal.Removed is not { } removed)
            {
                return removal.Left;
            }

            _steps.Add(removed);
        }

        async Task<InvalidLeftover?> FindAsync(NpgsqlConnection connection)
        {
            if (await NowAsync(connection, CancellationToken.None).ConfigureAwait(false) is not { } now)
            {
                return null;
            }

            IReadOnlyList<InvalidIndexEntry> invalid = await InvalidIndexEntry.ReadAsync(connection, now.Table.Oid, schema: null, CancellationToken.None).ConfigureAwait(false);
            return IndexRebuilder.LeftoversOf(now, invalid) is [InvalidIndexEntry leftover, ..]
                ? new InvalidLeftover(leftover.Oid, leftover.Display, IndexRebuilder.DropStep(now, leftover.Display, now.Display, now.Valid))
                : null;
        }
    }
}
