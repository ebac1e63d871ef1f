using System.Diagnostics;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Fills columns of a live table in small transactions, each with a checkpoint from which an interrupted run goes on.</summary>
public static class Backfill
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

    private const int MostWorkers = 64;
    private static readonly TimeSpan s_longestBatch = TimeSpan.FromMinutes(10);

    /// <summary>Checks a request and says what will be done. Writes nothing.</summary>
    /// <param name="session">Session.</param>
    /// <param name="request">Request.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The plan.</returns>
    /// <exception cref="MigrationException">What is wrong with the request or in the way of it.</exception>
    public static async Task<BackfillPlan> PlanAsync(EngineSession session, BackfillRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(sink);
        if (request.Workers is < 1 or > MostWorkers)
        {
            throw new MigrationException("WorkersInvalid", MigrationErrorKind.InvalidInput, $"{request.Workers} workers cannot work.", $"Give -Workers from 1 to {MostWorkers}; each is a connection, and more than the server has cores seldom help.");
        }

        if (request.SampleBatch < 0)
        {
            throw new MigrationException("SampleBatchInvalid", MigrationErrorKind.InvalidInput, "-SampleBatch is negative.", "Give how many batches are to be run and rolled back, 0 for none.");
        }

        if (request.MaxErrors < 0)
        {
            throw new MigrationException("MaxErrorsInvalid", MigrationErrorKind.InvalidInput, "-MaxErrors is negative.", "Give how many rows may be refused, 0 for none.");
        }

        if (request.Throttle.Slowdown <= 1)
        {
            throw new MigrationException(
                "MaxSlowdownInvalid",
                MigrationErrorKind.InvalidInput,
                $"-MaxSlowdown {request.Throttle.Slowdown:0.##} asks that commits of others take no longer, or less long, than without the backfill.",
                "Give how many times as long they may take, such as 1.1; 0 for no limit.");
        }

        if (request.BatchSize < 1 || request.TargetBatchTime <= TimeSpan.Zero || request.TargetBatchTime > s_longestBatch)
        {
            throw new MigrationException(
                "BatchInvalid",
                MigrationErrorKind.InvalidInput,
                request.TargetBatchTime > s_longestBatch ? $"A batch of {Durations.Text(request.TargetBatchTime)} would keep its rows locked for so long." : "A batch needs at least one row and some time.",
                $"Give a -TargetBatchTime of at most {Durations.Text(s_longestBatch)}, or leave it out.");
        }

        // Resume-Backfill is meant to take up what was stopped; it asks with what is recorded.
        bool isResumption = request.Settings is not null;
        try
        {
            await session.EnsurePrimaryAsync(sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await OpenAsync(session, request, sink, cancellationToken).ConfigureAwait(false);
            await CatalogReads.BoundAsync(connection, cancellationToken).ConfigureAwait(false);
            await RefuseReadOnlyAsync(connection, cancellationToken).ConfigureAwait(false);
            IReadOnlyDictionary<string, string> own = await BackfillSettings.ReadAsync(connection, cancellationToken).ConfigureAwait(false);
            async Task<BackfillDefinition> FindAsync()
            {
                try
                {
                    BackfillDefinition found = await BackfillDefinition.FindAsync(connection, request, cancellationToken).ConfigureAwait(false);
                    await BackfillPrivileges.CheckAsync(connection, found, writes: true, cancellationToken).ConfigureAwait(false);
                    return found;
                }
                catch (MigrationException denied) when (denied.Kind == MigrationErrorKind.Permission)
                {
                    throw await BackfillSchema.WithDeniedAsync(connection, denied, cancellationToken).ConfigureAwait(false);
                }
            }

            BackfillDefinition definition = await FindAsync().ConfigureAwait(false);
            List<MigrationStep> steps = [.. await BackfillSchema.StepsAsync(connection, cancellationToken).ConfigureAwait(false)];
            BackfillRecord? record = steps.Count == 0 ? await BackfillRecords.ReadAsync(connection, definition.Name, cancellationToken).ConfigureAwait(false) : null;
            string? replaced = record is not null && BackfillRecords.Replaces(record, definition) ? BackfillRecords.Difference(record, definition) : null;
            if (record is null || replaced is not null)
            {
                definition.RefuseUnmatchable();
            }

            IReadOnlyDictionary<string, string>? recorded = replaced is null ? await BackfillSettings.RecordedAsync(connection, definition.Name, cancellationToken).ConfigureAwait(false) : null;
            IReadOnlyDictionary<string, string> settings = recorded ?? own;
            request = request with { Settings = settings };
            await BackfillSettings.SetAsync(connection, settings, cancellationToken).ConfigureAwait(false);
            // The hours are those of whoever gives them; the health query is asked as the expressions are.
            DailyWindow? window = request.Throttle.Window is { TimeZone: null } given ? given.In(own[BackfillSettings.TimeZone]) : request.Throttle.Window;
            request = request with { Throttle = await ThrottleLook.CheckAsync(connection, request.Throttle with { Window = window }, cancellationToken).ConfigureAwait(false) };
            if (settings.GetValueOrDefault(BackfillSettings.SearchPath) != own[BackfillSettings.SearchPath])
            {
                // Types are written as the recorded path has them; the tables are those that this session's own has found.
                request = request.On(definition);
                definition = await FindAsync().ConfigureAwait(false);
            }

            definition = definition with { MayPause = await BackfillPrivileges.MayPauseAsync(connection, cancellationToken).ConfigureAwait(false) };
            if (definition.Into is { } target)
            {
                definition = definition with { Into = await target.LookAsync(connection, steps.Count == 0 ? definition.Name : null, cancellationToken).ConfigureAwait(false) };
            }

            string batchPlan = await ExplainAsync(connection, definition, sink, cancellationToken).ConfigureAwait(false);
            bool resumes = false;
            if (replaced is not null)
            {
                sink.Warning($"{definition.Name} is recorded with another definition, which has changed no row: this one takes its place. {replaced}{(record!.Archive is { } kept && kept != definition.Archive?.Name ? $" The archive {BackfillArchive.Table(kept)} stays; once nothing of it is needed any more: drop table {BackfillArchive.Table(kept)};" : "")}");
            }
            else if (record is not null)
            {
                if (record.IsAtWork && request.ThrottleOver is { } over)
                {
                    request = request with { Throttle = await ThrottleLook.CheckAsync(connection, over(record.Throttle), cancellationToken).ConfigureAwait(false) };
                    sink.Verbose($"Others work on {definition.Name}: their limits hold for this client too{(request.Throttle == record.Throttle ? "" : ", and what is given here holds for all of them")}: {request.Throttle.Text}.");
                }

                if (definition.Into is { } into && !record.IsCompleted)
                {
                    definition = definition with { Into = into with { IsEmpty = record.WasEmpty == true } };
                }

                if (record.State == BackfillStore.Paused && !isResumption)
                {
                    string? stopped = await BackfillStore.StoppedAsync(connection, definition.Name, record.Times.Started, cancellationToken).ConfigureAwait(false);
                    sink.Warning($"{definition.Name} was stopped (Stop-Backfill){stopped}: this command takes it up again.");
                }

                resumes = !record.IsCompleted && record.TableOid == definition.Table.Oid
                    && (await BackfillRecords.CanResumeAsync(connection, definition, request.Strategy, cancellationToken).ConfigureAwait(false)).CanResume;
            }

            if (definition.Into is { IsEmpty: false })
            {
                definition = definition with { Archive = BackfillArchive.OfCopies(definition) };
            }

            if (definition.Archive is not null)
            {
                steps.AddRange(await definition.Archive.StepsAsync(connection, cancellationToken).ConfigureAwait(false));
            }

            BackfillSample sample = await BackfillSample.TakeAsync(connection, definition, cancellationToken).ConfigureAwait(false);
            (long matching, long all) = (sample.Matching, sample.Rows);
            (long buffers, IReadOnlyDictionary<uint, ScatteredIndexes> scattered) = await ScatteredIndexes.ReadAsync(connection, [.. definition.Leaves.Select(leaf => leaf.Table.Oid)], cancellationToken).ConfigureAwait(false);
            definition = definition.InTurns(sample, buffers, scattered, request.Workers);
            BackfillForecast? measured = null;
            if (request.SampleBatch > 0)
            {
                // On a connection of its own: after some of the errors that a health query may end with the driver closes it.
                await using NpgsqlConnection asked = await OpenAsync(session, request, sink, cancellationToken).ConfigureAwait(false);
                string? closed = await ThrottleLook.WhyNotNowAsync(asked, request.Throttle, cancellationToken).ConfigureAwait(false);
                measured = closed is null ? await BackfillForecast.MeasureAsync(connection, definition, request, all, sink, cancellationToken).ConfigureAwait(false) : null;
                if (measured is null)
                {
                    sink.Warning($"-SampleBatch has measured nothing: {closed ?? "no batch that was tried found a row that matches"}. The estimate is one by the catalog.");
                }
            }

            BackfillForecast forecast = measured ?? await BackfillForecast.AssumeAsync(connection, definition, all, cancellationToken).ConfigureAwait(false);
            steps.Add(BackfillWords.BatchStep(definition));
            return new BackfillPlan
            {
                Session = session,
                Action = definition.Kind switch
                {
                    BackfillKind.Delete => $"Delete rows where {definition.Where}",
                    BackfillKind.Insert => $"Copy rows into {definition.Into!.Table.Display}{(definition.IsDefaultWhere ? "" : $" where {definition.Where}")}",
                    _ => $"Backfill {definition.SetText} where {definition.Where}",
                },
                Target = definition.Table.Display,
                Steps = steps,
                Notes = [.. BackfillWords.Notes(definition, request, batchPlan, matching, all, resumes, forecast), BackfillSettings.Note(settings, own, recorded is not null)],
                Name = definition.Name,
                EstimatedRows = matching,
                EstimatedTableRows = all,
                EstimatedTime = forecast.Time(matching, request),
                EstimatedWalBytes = forecast.WalBytes(matching),
                Resumes = resumes,
                Resumed = resumes ? record : null,
                Strategy = definition.Strategy,
                Reason = definition.Reason,
                BatchPlan = batchPlan,
                Request = request,
                Definition = definition,
                Sample = sample,
            };
        }
        catch (Exception e) when (e is PostgresException { SqlState: SqlStates.LockNotAvailable } or MigrationException { SqlState: SqlStates.LockNotAvailable })
        {
            await using NpgsqlConnection another = await session.OpenAsync("backfill", sink, cancellationToken).ConfigureAwait(false);
            throw await CatalogReads.BusyAsync(another, request.Table, "Planning the backfill", e, Written(request), cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, "Planning the backfill", request.Table);
        }
    }

    /// <summary>The tables that a request writes to, as to_regclass takes them.</summary>
    private static string[] Written(BackfillRequest request)
    {
        static string Full(string table, string? schema) => schema is null ? table : SqlName.Quote(SqlName.Parse(schema).Name, SqlName.Parse(table).Name);
        return request.InsertInto is { } into ? [Full(request.Table, request.Schema), Full(into, request.InsertIntoSchema)] : [Full(request.Table, request.Schema)];
    }

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
        catch (MigrationException e) when (e.ErrorId == BackfillRecords.FilledMeanwhile)
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
            throw;
        }
        catch (MigrationException e) when (e.ErrorId == BackfillRecords.FilledMeanwhile)
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

    private static async Task RefuseReadOnlyAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.current_setting('transaction_read_only')", connection);
        if ((string?)await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) == "on")
        {
            throw ReadOnly();
        }
    }

    /// <summary>The error for a connection that may not write.</summary>
    internal static MigrationException ReadOnly() => new(
        ReadOnlyId,
        MigrationErrorKind.InvalidState,
        "This connection may not write: the server is a standby, or default_transaction_read_only is on.",
        "Connect to the primary, or turn the setting off for the role or the database.");

    /// <summary>What the server's refusal of a statement means.</summary>
    private static async Task<MigrationException> RefusedAsync(NpgsqlConnection connection, BackfillDefinition definition, BackfillStatements statements, PostgresException e, CancellationToken cancellationToken)
    {
        if (e.SqlState == SqlStates.InsufficientPrivilege
            && await BackfillPrivileges.OfStatementAsync(connection, statements.Whole, definition.Table.Display, cancellationToken).ConfigureAwait(false) is { } denied)
        {
            return denied;
        }

        MigrationException error = ServerErrors.Translate(e, $"Checking {definition.Statement}", definition.Table.Display);
        // A text without its SQL quotation marks is the likeliest reason: to the server it is a column.
        return e.SqlState != SqlStates.UndefinedColumn
            ? error
            : new MigrationException(error.ErrorId, error.Kind, error.Message, $"{error.RecommendedAction} A text is a SQL expression with its own quotation marks: -Set @{{ tier = \"'standard'\" }}.", e)
            {
                SqlState = error.SqlState,
                Target = error.Target,
            };
    }

    /// <summary>Lets the server check names, types and privileges in each part of the table; it runs nothing.</summary>
    /// <returns>The plan of a batch.</returns>
    private static async Task<string> ExplainAsync(NpgsqlConnection connection, BackfillDefinition definition, IOperationSink sink, CancellationToken cancellationToken)
    {
        foreach (BackfillLeaf leaf in definition.Leaves)
        {
            BackfillStatements statements = new(definition, leaf);
            sink.Debug(statements.Explain);
            try
            {
                await using NpgsqlCommand command = new(statements.Explain, connection);
                await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (PostgresException e)
            {
                throw await RefusedAsync(connection, definition, statements, e, cancellationToken).ConfigureAwait(false);
            }
        }

        if (definition.Leaves.Count == 0)
        {
            return "";
        }

        // As the workers' sessions plan it.
        await using NpgsqlTransaction asWorkers = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
        await using (NpgsqlCommand set = new($"select pg_catalog.set_config(name, value, true) from (values {PlannerSettings}) as s (name, value)", connection))
        {
            await set.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }

        List<string> lines = [];
        await using (NpgsqlCommand command = new(new BackfillStatements(definition, definition.Leaves[0]).ExplainBatch, connection))
        {
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                lines.Add(reader.GetString(0).ReplaceLineEndings(" "));
            }
        }

        await asWorkers.RollbackAsync(cancellationToken).ConfigureAwait(false);
        return string.Join(Environment.NewLine, lines);
    }

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
