using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.History;

/// <summary>
/// Runs an operation and keeps its record in <c>migration_safety.operation</c>: begun before the work, finished after it. What cannot be recorded is warned of; it
/// never stops the work.
/// </summary>
public static class OperationLog
{
    /// <summary>Runs an operation.</summary>
    /// <typeparam name="TResult">Type of its result.</typeparam>
    /// <param name="plan">What it is going to do.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="work">The operation; it is given the sink that keeps the record.</param>
    /// <param name="cancellationToken">Cancels the operation.</param>
    /// <returns>Its result.</returns>
    /// <exception cref="MigrationException">Those of the operation.</exception>
    public static async Task<TResult> RunAsync<TResult>(OperationPlan plan, IOperationSink sink, Func<IOperationSink, Task<TResult>> work, CancellationToken cancellationToken)
        where TResult : class
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(sink);
        ArgumentNullException.ThrowIfNull(work);
        OperationRecorder recorder = new(plan, sink);
        OperationEntry? entry = await OperationEntry.BeginAsync(plan, recorder, sink, cancellationToken).ConfigureAwait(false);
        if (entry is null)
        {
            return await work(sink).ConfigureAwait(false);
        }

        await using (entry)
        {
            try
            {
                TResult result = await work(recorder).ConfigureAwait(false);
                string state = result is BackfillResult { Outcome: BackfillOutcome.Paused } ? "cancelled" : "succeeded";
                await entry.FinishAsync(state, (result as IOperationResult)?.Steps, LeftUndone(result)).ConfigureAwait(false);
                return Numbered(result, entry.Id);
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                await entry.FinishAsync("cancelled", final: null, error: null).ConfigureAwait(false);
                throw;
            }
            catch (Exception e)
            {
                MigrationException known = e as MigrationException ?? new("UnexpectedError", MigrationErrorKind.Server, e.Message, "", e);
                await entry.FinishAsync("failed", known.Steps, known).ConfigureAwait(false);
                known.OperationId = entry.Id;
                throw;
            }
        }
    }

    /// <summary>The result with the number of its entry, by which it is found again.</summary>
    private static TResult Numbered<TResult>(TResult result, long id)
        where TResult : class
        => (result switch
        {
            BackfillResult backfill => (backfill with { OperationId = id }) as TResult,
            IndexBuildResult build => (build with { OperationId = id }) as TResult,
            IndexDropResult drop => (drop with { OperationId = id }) as TResult,
            IndexRebuildResult rebuild => (rebuild with { OperationId = id }) as TResult,
            _ => null,
        }) ?? result;

    /// <summary>What is not done although no error ended it; null where all is.</summary>
    private static MigrationException? LeftUndone(object result) => result switch
    {
        BackfillResult { Outcome: BackfillOutcome.Paused } paused => new(
            "BackfillStopped",
            MigrationErrorKind.Stopped,
            $"{paused.Name} was stopped by somebody (Stop-Backfill).",
            "Resume-Backfill, or the same command, goes on with it."),
        BackfillResult { Errors: > 0 } refused => new(
            "RowsRefused",
            MigrationErrorKind.InvalidData,
            $"{refused.Name}: the server refused {Counts.Rows(refused.Errors)}.",
            "Get-Backfill -IncludeError gives the reason. Mend what is wrong, then Resume-Backfill tries only what is left."),
        _ => null,
    };
}
