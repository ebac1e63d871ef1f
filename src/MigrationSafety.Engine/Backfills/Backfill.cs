using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Fills columns of a live table in small transactions, each with a checkpoint from which an interrupted run goes on.</summary>
public static partial class Backfill
{
    /// <summary>
    /// Settings, as rows of a VALUES list. Row-level security that hid rows is an error instead; keys are kept as texts, which have to come back as they were;
    /// backslashes in the expressions mean what they mean to the check of their parentheses. A look at a whole table as SERIALIZABLE could fail transactions of the application.
    /// </summary>
    internal const string CommonSettings =
        "('row_security', 'off'), ('datestyle', 'ISO'), ('intervalstyle', 'postgres'), ('extra_float_digits', '1'), ('standard_conforming_strings', 'on'), ('default_transaction_isolation', 'read committed')";

    internal const string ReadOnlyId = "ReadOnly";

    /// <summary>
    /// The same for what changes rows: only the range's own order, or a look-up by place or key, will do, and a wrong estimate must not choose another way; what role or database turn off for
    /// reports would leave it none.
    /// </summary>
    internal const string PlannerSettings =
        "('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('enable_indexscan', 'on'), ('enable_indexonlyscan', 'on'), ('enable_tidscan', 'on'), ('enable_nestloop', 'on'), ('max_parallel_workers_per_gather', '0'), ('jit', 'off')";

    /// <summary>Does what a plan says, or the rest of it where an earlier run was interrupted.</summary>
    /// <param name="plan">Plan.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels at the end of the batch; the checkpoint stays.</param>
    /// <returns>The outcome.</returns>
    /// <exception cref="MigrationException">Why it could not go on; what was committed stays, and the same command resumes.</exception>
    public static async Task<BackfillResult> RunAsync(BackfillPlan plan, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            return await RunPlanAsync(plan, sink, cancellationToken).ConfigureAwait(false);
        }
        catch (MigrationException e) when (e.ErrorId == BackfillBeginnings.FilledMeanwhile)
        {
            // As where two tables are copied into one, and the second was planned before the first was done.
            sink.Warning($"{e.Message} It is planned anew.");
            return await RunPlanAsync(await PlanAsync(plan.Session, plan.Request with { SampleBatch = 0 }, sink, cancellationToken).ConfigureAwait(false), sink, cancellationToken).ConfigureAwait(false);
        }
    }

    private static async Task<BackfillResult> RunPlanAsync(BackfillPlan plan, IOperationSink sink, CancellationToken cancellationToken)
    {
        List<MigrationStep> done = [];
        long start = Stopwatch.GetTimestamp();
        MigrationStep batches = plan.Steps[^1] with { StartedAt = DateTimeOffset.Now };
        await using BackfillRun run = new(plan, sink);
        MigrationStep Outcome(StepState state)
        {
            MigrationStep outcome = batches with { State = state, Attempts = run.Attempts, Duration = Stopwatch.GetElapsedTime(start), LockWaits = run.Waits() };
            sink.Record(new StepEvent(outcome));
            return outcome;
        }

        try
        {
            sink.Record(new StepEvent(batches));
            bool anyMatches = await run.TryAsync(cancellationToken).ConfigureAwait(false);
            done.AddRange(await CreateStateAsync(plan, sink, cancellationToken).ConfigureAwait(false));
            bool begun = await run.BeginAsync(anyMatches, cancellationToken).ConfigureAwait(false);
            BackfillResult result = begun
                ? await run.RunAsync(cancellationToken).ConfigureAwait(false)
                : await run.AlreadyCompletedAsync(cancellationToken).ConfigureAwait(false);
            done.Add(Outcome(begun ? StepState.Done : StepState.Skipped));
            return result with { Duration = Stopwatch.GetElapsedTime(start), Steps = [.. done] };
        }
        catch (OperationCanceledException)
        {
            Outcome(StepState.Cancelled);
            if (run.Interrupted is { } said)
            {
                sink.Warning(said);
            }

            throw;
        }
        catch (MigrationException e) when (e.ErrorId == BackfillBeginnings.FilledMeanwhile)
        {
            Outcome(StepState.Skipped);
            throw;
        }
        catch (Exception e)
        {
            MigrationException known = ServerErrors.Translate(e, $"Backfilling {plan.Target}", plan.Target);
            done.Add(Outcome(StepState.Failed));
            await run.NoteFailureAsync(known.Message).ConfigureAwait(false);
            throw new MigrationException(known.ErrorId, known.Kind, known.Message, known.RecommendedAction, e)
            {
                SqlState = known.SqlState,
                Target = known.Target ?? plan.Target,
                Blockers = known.Blockers,
                Steps = [.. done],
            };
        }
    }

    /// <summary>A connection for questions, which may take long but do not wait long for locks.</summary>
    internal static async Task<NpgsqlConnection> OpenAsync(EngineSession session, BackfillRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await session.OpenAsync("backfill", sink, cancellationToken).ConfigureAwait(false);
        try
        {
            const string Sql = $"""
                select pg_catalog.set_config(name, value, false) from (values ('lock_timeout', $1), {CommonSettings}) as s (name, value)
                """;
            await using NpgsqlCommand command = new(Sql, connection) { Parameters = { new() { Value = $"{(int)request.Options.LockTimeout.TotalMilliseconds}ms" } } };
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            if (request.Settings is { } settings)
            {
                await BackfillSettings.SetAsync(connection, settings, cancellationToken).ConfigureAwait(false);
            }

            return connection;
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Asks on a connection for questions, again and again where somebody has locked the table.</summary>
    /// <typeparam name="T">Answer.</typeparam>
    /// <param name="plan">What asks.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="ask">Asks.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>LockNotAvailable</c>, with who has: it lasts longer than is to be waited for.</exception>
    internal static async Task<T> AskAsync<T>(BackfillPlan plan, IOperationSink sink, Func<NpgsqlConnection, Task<T>> ask, CancellationToken cancellationToken)
    {
        await using NpgsqlConnection connection = await OpenAsync(plan.Session, plan.Request, sink, cancellationToken).ConfigureAwait(false);
        BusyTable busy = new(plan, sink);
        while (true)
        {
            try
            {
                return await ask(connection).ConfigureAwait(false);
            }
            catch (PostgresException e) when (e.SqlState == SqlStates.LockNotAvailable)
            {
                await busy.WaitAsync(connection, e, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>The error for a connection that may not write.</summary>
    internal static MigrationException ReadOnly() => new(
        ReadOnlyId,
        MigrationErrorKind.InvalidState,
        "This connection may not write: the server is a standby, or default_transaction_read_only is on.",
        "Connect to the primary, or turn the setting off for the role or the database.");

    private static async Task<IReadOnlyList<MigrationStep>> CreateStateAsync(BackfillPlan plan, IOperationSink sink, CancellationToken cancellationToken)
    {
        MigrationStep[] planned = [.. plan.Steps.SkipLast(1)];
        List<MigrationStep> done = [];
        if (planned.Length == 0)
        {
            return done;
        }

        await using StepExecutor executor = await StepExecutor.OpenAsync(plan.Session, plan.Request.Options, sink, cancellationToken).ConfigureAwait(false);
        foreach (MigrationStep step in planned)
        {
            try
            {
                done.AddRange(await executor.RunAsync([step], "backfill", cancellationToken).ConfigureAwait(false));
            }
            catch (MigrationException e) when (e.SqlState is SqlStates.UniqueViolation or SqlStates.DuplicateObject or SqlStates.DuplicateSchema or SqlStates.DuplicateTable)
            {
                // IF NOT EXISTS does not see what another client is just creating; that one has done it for both.
                sink.Verbose($"{step.Purpose}: another client has just done it.");
                done.Add(step with { State = StepState.Skipped });
            }
        }

        return done;
    }
}
