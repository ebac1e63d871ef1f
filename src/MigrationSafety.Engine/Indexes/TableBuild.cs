using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Builds one index on one table that has rows of its own: attempts until it is valid, and what each of them leaves behind.</summary>
internal sealed class TableBuild
{
    private readonly EngineSession _session;
    private readonly IndexBuildRequest _request;
    private readonly TableReference _table;
    private readonly IndexDefinition _definition;
    private readonly string? _name;
    private readonly uint? _parent;
    private readonly IOperationSink _sink;
    private readonly List<MigrationStep> _steps = [];
    private IndexSituation? _situation;
    private MigrationStep? _build;

    /// <summary>Makes it.</summary>
    /// <param name="plan">Plan.</param>
    /// <param name="table">Table: the plan's, or a partition of it.</param>
    /// <param name="name">Name as a user typed it; null for the one that PostgreSQL would choose.</param>
    /// <param name="parent">The partitioned index that it is to be a part of; then any index that can be is as good as a new one.</param>
    /// <param name="sink">Progress, waits, retries.</param>
    internal TableBuild(IndexBuildPlan plan, TableReference table, string? name, uint? parent, IOperationSink sink)
    {
        _session = plan.Session;
        _request = plan.Request;
        _definition = plan.Definition;
        _table = table;
        _name = name;
        _parent = parent;
        _sink = sink;
    }

    /// <summary>The steps so far with their outcome; the attempts at the build are one.</summary>
    internal IReadOnlyList<MigrationStep> Steps => _build is null ? _steps : [.. _steps, _build];

    /// <summary>The build of this run; null where none was needed.</summary>
    internal MigrationStep? Build => _build;

    /// <summary>Time spent waiting for others who worked on the same table or index.</summary>
    internal TimeSpan Queued { get; private set; }

    private string Display => _situation?.Display ?? $"on {_table.Display}";

    /// <summary>Builds it where it is missing.</summary>
    /// <returns>What is there now: <see cref="IndexSituation.Existing"/> is valid.</returns>
    /// <exception cref="MigrationException">It failed for good; <see cref="MigrationException.Steps"/> says how far it came.</exception>
    internal async Task<IndexSituation> RunAsync(CancellationToken cancellationToken)
    {
        IndexAttempts attempts = new(_session, "index-build", _request.Options, _request.Silence, _sink);
        try
        {
            return await attempts.RunAsync(AttemptAsync, () => $"Building index {Display}", _table.Display, cancellationToken).ConfigureAwait(false);
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

    /// <summary>The index of the same definition that is a part of a partitioned one, valid or not: there can be no second. Otherwise one that can be: valid, and not a part of another.</summary>
    internal static IndexEntry? Attachable(IndexSituation situation, uint parent)
    {
        IndexEntry[] entries = situation.Existing is { } existing ? [existing, .. situation.Twins] : [.. situation.Twins];
        return entries.FirstOrDefault(entry => entry.Parent == parent) ?? entries.FirstOrDefault(entry => entry is { Valid: true, Parent: null });
    }

    private async Task<IndexSituation> AttemptAsync(IndexWorker worker, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        await worker.LockAsync(_table, cancellationToken).ConfigureAwait(false);
        TimeSpan forTurn = Stopwatch.GetElapsedTime(start);
        await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
        // After the lock: what another run of this module did while this one waited counts.
        (_situation, TimeSpan forBuilder) = await IndexLeftover.SettledAsync(
            worker.Connection,
            _table,
            token => InspectAsync(worker.Connection, token),
            situation => situation.Existing is { Valid: false } invalid ? invalid.Oid : null,
            situation => situation.Display,
            _request.Options.WaitFor ?? TimeSpan.MaxValue,
            _sink,
            cancellationToken).ConfigureAwait(false);
        Queued += (forTurn > TimeSpan.FromSeconds(0.2) ? forTurn : TimeSpan.Zero) + forBuilder;
        if (_situation.Existing is not { Valid: true })
        {
            await SettingsAsync(worker.Connection, cancellationToken).ConfigureAwait(false);
        }

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

        return await VerifiedAsync(worker, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>What is there. For a part of a partitioned index one that can be attached counts as existing, whatever its name.</summary>
    private async Task<IndexSituation> InspectAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        IndexSituation situation = await IndexCatalog.InspectAsync(connection, _table, _definition, _name, cancellationToken, _parent).ConfigureAwait(false);
        return _parent is { } parent && Attachable(situation, parent) is { } there ? situation with { Name = there.Name, Existing = there } : situation;
    }

    private async Task SettingsAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        foreach ((string name, string? value) in IndexBuilder.Settings(_request))
        {
            await using NpgsqlCommand command = new("select pg_catalog.set_config($1, $2, false)", connection) { Parameters = { new() { Value = name }, new() { Value = value } } };
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }
    }

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

    private async Task<IndexSituation> VerifiedAsync(IndexWorker worker, CancellationToken cancellationToken)
    {
        await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
        IndexSituation now = await InspectAsync(worker.Connection, cancellationToken).ConfigureAwait(false);
        if (now.Existing is not { Valid: true })
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

        if (_build is { State: not StepState.Done })
        {
            // Lost from sight, yet finished by the server: an earlier attempt of this run built it.
            _build = _build with { State = StepState.Done };
        }

        return now;
    }

    private MigrationException Final(MigrationException e, string? left) => new(
        e.ErrorId,
        e.Kind,
        left is null ? e.Message : $"{e.Message} {left}",
        left is null ? e.RecommendedAction : $"{e.RecommendedAction} The same command removes the leftover and builds the index anew.",
        e)
    {
        SqlState = e.SqlState,
        Target = e.Target ?? _table.Display,
        Blockers = e.Blockers,
        Steps = [.. Steps],
    };

    /// <summary>Removes what a failed build left, where that can be done in time; never what is not ours to remove.</summary>
    /// <returns>Null where nothing is left; otherwise what is, in words.</returns>
    private async Task<string?> LeftoverAsync(TimeSpan bound)
    {
        // Without a build of this run it may be the older leftover, half dropped.
        if (_situation is not { } situation || (_build is null && situation.Existing is not { Valid: false }))
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
            IndexSituation now = await InspectAsync(connection, CancellationToken.None).ConfigureAwait(false);
            return now.Name == situation.Name && now.Existing is { Valid: false, Parent: null } leftover ? new InvalidLeftover(leftover.Oid, now.Display, now.DropStep()) : null;
        }
    }
}
