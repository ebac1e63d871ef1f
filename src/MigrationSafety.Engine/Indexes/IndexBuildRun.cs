using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>One run of a plan: attempts until the index is valid, and what each of them leaves behind.</summary>
internal sealed class IndexBuildRun
{
    private readonly IndexBuildPlan _plan;
    private readonly IOperationSink _sink;
    private readonly EngineSession _session;
    private readonly ExecutionOptions _options;
    private readonly long _start = Stopwatch.GetTimestamp();
    private readonly List<MigrationStep> _steps = [];
    private IndexSituation? _situation;
    private MigrationStep? _build;
    private TimeSpan _queued;

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
        IndexAttempts attempts = new(_session, "index-build", _options, _plan.Request.Silence, _sink);
        try
        {
            return await attempts.RunAsync(AttemptAsync, () => $"Building index {Display}", _plan.Target, cancellationToken).ConfigureAwait(false);
        }
        catch (MigrationException e)
        {
            throw Final(e, await LeftoverAsync(IndexLeftover.CleanUpFor).ConfigureAwait(false));
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            if (await LeftoverAsync(IndexLeftover.CleanUpOnCancelFor).ConfigureAwait(false) is { } left)
            {
                _sink.Warning($"{left} Run the same command again: it removes and rebuilds it.");
            }

            throw;
        }
    }

    private async Task<IndexBuildResult> AttemptAsync(IndexWorker worker, CancellationToken cancellationToken)
    {
        TableReference table = await TableReference.FindAsync(worker.Connection, _plan.Request.Table, _plan.Request.Schema, cancellationToken).ConfigureAwait(false);
        long start = Stopwatch.GetTimestamp();
        await worker.LockAsync(table, cancellationToken).ConfigureAwait(false);
        TimeSpan forTurn = Stopwatch.GetElapsedTime(start);
        // After the lock: what another run of this module did while this one waited counts.
        (_situation, TimeSpan forBuilder) = await IndexLeftover.SettledAsync(
            worker.Connection,
            table,
            token => IndexCatalog.InspectAsync(worker.Connection, _plan.Request, token),
            situation => situation.Existing is { Valid: false } invalid ? invalid.Oid : null,
            situation => situation.Display,
            _options.WaitFor ?? TimeSpan.MaxValue,
            _sink,
            cancellationToken).ConfigureAwait(false);
        _queued += (forTurn > TimeSpan.FromSeconds(0.2) ? forTurn : TimeSpan.Zero) + forBuilder;
        foreach (MigrationStep step in _situation.Steps())
        {
            MigrationStep? outcome = null;
            try
            {
                outcome = await worker.RunAsync(step, $"Building index {_situation.Display}", cancellationToken).ConfigureAwait(false);
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

        return await VerifiedAsync(worker.Connection, cancellationToken).ConfigureAwait(false);
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
            StartedAt = _build?.StartedAt ?? outcome.StartedAt,
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

        LeftoverRemoval removal = await IndexLeftover.RemoveAsync(_session, situation.Table, FindAsync, situation.Display, bound, _sink).ConfigureAwait(false);
        if (removal.Removed is { } removed)
        {
            _steps.Add(removed);
        }

        return removal.Left;

        async Task<InvalidLeftover?> FindAsync(NpgsqlConnection connection)
        {
            IndexSituation now = await IndexCatalog.InspectAsync(connection, _plan.Request, CancellationToken.None).ConfigureAwait(false);
            return now.Name == situation.Name && now.Existing is { Valid: false } leftover ? new InvalidLeftover(leftover.Oid, now.Display, now.DropStep()) : null;
        }
    }
}
