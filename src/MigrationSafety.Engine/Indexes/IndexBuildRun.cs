using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>One run of a plan: the build of a table or of all its partitions, and the result.</summary>
internal sealed class IndexBuildRun(IndexBuildPlan plan, IOperationSink sink)
{
    private readonly long _start = Stopwatch.GetTimestamp();

    internal async Task<IndexBuildResult> RunAsync(CancellationToken cancellationToken)
    {
        if (plan.Definition.Unique && plan.Steps.Count > 0 && !plan.Request.SkipDuplicateCheck)
        {
            await InPlaceAsync(LookForDuplicatesAsync, cancellationToken).ConfigureAwait(false);
        }

        return plan.Table.Kind == 'p' ? await PartitionedAsync(cancellationToken).ConfigureAwait(false) : await InPlaceAsync(TableAsync, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Runs what reads a whole table when there is a place for it among all that share the places.</summary>
    private async Task<T> InPlaceAsync<T>(Func<CancellationToken, Task<T>> work, CancellationToken cancellationToken)
    {
        if (plan.Request.Places is { } places)
        {
            await places.EnterAsync(sink, plan.Target, cancellationToken).ConfigureAwait(false);
        }

        try
        {
            return await work(cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            plan.Request.Places?.Release();
        }
    }

    private async Task<bool> LookForDuplicatesAsync(CancellationToken cancellationToken)
    {
        try
        {
            return await DuplicateCheck.RunAsync(plan.Session, plan.Table, plan.Definition, sink, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, $"Looking for duplicates in {plan.Target}", plan.Target);
        }
    }

    private async Task<IndexBuildResult> TableAsync(CancellationToken cancellationToken)
    {
        TableBuild build = new(plan, plan.Table, plan.Request.Name, null, sink);
        IndexSituation now = await build.RunAsync(cancellationToken).ConfigureAwait(false);
        return Result(now, build.Build is null ? [.. build.Steps, now.CreateStep() with { State = StepState.Skipped }] : build.Steps, build.Queued);
    }

    private async Task<IndexBuildResult> PartitionedAsync(CancellationToken cancellationToken)
    {
        PartitionedBuild build = new(plan, sink);
        IndexSituation now = await build.RunAsync(cancellationToken).ConfigureAwait(false);
        MigrationStep root = now.CreateStep();
        IReadOnlyList<MigrationStep> steps = build.Steps;
        return Result(now, steps.Any(step => step.Sql == root.Sql) ? steps : [build.WithRestorations(root) with { State = StepState.Skipped }, .. steps], build.Queued);
    }

    private IndexBuildResult Result(IndexSituation now, IReadOnlyList<MigrationStep> steps, TimeSpan queued)
    {
        IndexEntry index = now.Existing!;
        LockWait[] waits = [.. steps.SelectMany(step => step.LockWaits).Where(wait => wait.Queued)];
        TimeSpan Waited(LockWaitCause cause) => waits.Where(wait => wait.Cause == cause).Aggregate(TimeSpan.Zero, (sum, wait) => sum + wait.WaitTime);
        return Empty(plan, steps) with
        {
            Name = SqlName.QuoteIfNeeded(now.Name),
            Outcome = Outcome(steps),
            Definition = index.Definition!,
            Attempts = steps.Where(step => step.Cost == StepCost.BuildsIndex).Select(step => step.Attempts).DefaultIfEmpty().Max(),
            Duration = Stopwatch.GetElapsedTime(_start),
            WaitTime = waits.Aggregate(queued, (sum, wait) => sum + wait.WaitTime),
            QueueWaitTime = queued,
            WriterWaitTime = Waited(LockWaitCause.Writers),
            SnapshotWaitTime = Waited(LockWaitCause.Snapshots),
            LockWaitTime = Waited(LockWaitCause.Lock) + Waited(LockWaitCause.Readers),
            SizeBytes = index.SizeBytes,
        };
    }

    /// <summary>What a failed run leaves as a result: the steps with their reversals are in it.</summary>
    internal static IndexBuildResult Failed(IndexBuildPlan plan, MigrationException e) => Empty(plan, e.Steps) with
    {
        Outcome = IndexBuildOutcome.Failed,
        Attempts = e.Steps.Where(step => step.Cost == StepCost.BuildsIndex).Select(step => step.Attempts).DefaultIfEmpty().Max(),
        Error = e.Message,
    };

    private static IndexBuildResult Empty(IndexBuildPlan plan, IReadOnlyList<MigrationStep> steps) => new()
    {
        Origin = plan.Session.Info,
        Server = plan.Session.Info.Server,
        Port = plan.Session.Info.Port,
        Database = plan.Session.Info.Database,
        Schema = SqlName.QuoteIfNeeded(plan.Table.Schema),
        Table = SqlName.QuoteIfNeeded(plan.Table.Name),
        Name = SqlName.QuoteIfNeeded(plan.Name),
        Definition = plan.Definition.CreateSql(plan.Name, plan.Table.Display, concurrently: false),
        Steps = [.. steps],
    };

    private static IndexBuildOutcome Outcome(IReadOnlyList<MigrationStep> steps)
    {
        MigrationStep[] done = [.. steps.Where(step => step.State == StepState.Done)];
        bool dropped = done.Any(step => step.Sql.StartsWith("DROP INDEX", StringComparison.Ordinal));
        bool built = done.Any(step => step.Cost == StepCost.BuildsIndex);
        return built ? (dropped ? IndexBuildOutcome.Rebuilt : IndexBuildOutcome.Built)
            : done.Any(step => step.Sql.Contains(" ATTACH PARTITION ", StringComparison.Ordinal)) ? IndexBuildOutcome.Attached
            : done.Length > 0 ? IndexBuildOutcome.Built
            : IndexBuildOutcome.AlreadyValid;
    }
}
