using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Fills columns of a live table in small transactions along its primary key, each with a checkpoint from which an interrupted run goes on.</summary>
public static class Backfill
{
    /// <summary>
    /// Settings, as rows of a VALUES list. Row-level security that hid rows is an error instead; keys are kept as texts, which have to come back as they were;
    /// backslashes in the expressions mean what they mean to the check of their parentheses.
    /// </summary>
    internal const string CommonSettings =
        "('row_security', 'off'), ('datestyle', 'ISO'), ('intervalstyle', 'postgres'), ('extra_float_digits', '1'), ('standard_conforming_strings', 'on')";

    // Enough for an estimate within some percent; a small table is counted.
    private const double SampleBlocks = 300;
    private const int TriedRows = 10;

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
        if (request.BatchSize < 1 || request.TargetBatchTime <= TimeSpan.Zero)
        {
            throw new MigrationException(
                "BatchInvalid", MigrationErrorKind.InvalidInput, "A batch needs at least one row and some time.", "Give a positive -TargetBatchTime, or leave it out.");
        }

        try
        {
            await session.EnsurePrimaryAsync(sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await OpenAsync(session, request, sink, cancellationToken).ConfigureAwait(false);
            await RefuseReadOnlyAsync(connection, cancellationToken).ConfigureAwait(false);
            BackfillDefinition definition = await BackfillDefinition.FindAsync(connection, request, cancellationToken).ConfigureAwait(false);
            BackfillStatements statements = new(definition);
            await ExplainAsync(connection, definition, statements, sink, cancellationToken).ConfigureAwait(false);
            List<MigrationStep> steps = [.. await BackfillStore.StepsAsync(connection, cancellationToken).ConfigureAwait(false)];
            bool resumes = false;
            if (steps.Count == 0 && await BackfillStore.ReadAsync(connection, definition.Name, cancellationToken).ConfigureAwait(false) is { } record)
            {
                BackfillStore.Check(record, definition);
                resumes = CanResume(record, definition);
            }

            (long matching, long all) = await EstimateAsync(connection, definition, statements, cancellationToken).ConfigureAwait(false);
            steps.Add(BatchStep(definition, statements));
            return new BackfillPlan
            {
                Session = session,
                Action = $"Backfill {definition.SetText} where {definition.Where}",
                Target = definition.Table.Display,
                Steps = steps,
                Name = definition.Name,
                EstimatedRows = matching,
                EstimatedTableRows = all,
                Resumes = resumes,
                Request = request,
                Definition = definition,
            };
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, "Planning the backfill", request.Table);
        }
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
            await run.OpenAsync(cancellationToken).ConfigureAwait(false);
            string[] places = await PickAsync(plan, sink, cancellationToken).ConfigureAwait(false);
            await run.TryAsync(places, cancellationToken).ConfigureAwait(false);
            done.AddRange(await CreateStateAsync(plan, sink, cancellationToken).ConfigureAwait(false));
            bool begun = await BeginAsync(plan, anyMatches: places.Length > 0, sink, cancellationToken).ConfigureAwait(false);
            BackfillResult result = begun
                ? await run.RunAsync(cancellationToken).ConfigureAwait(false)
                : await run.AlreadyCompletedAsync(cancellationToken).ConfigureAwait(false);
            done.Add(Outcome(begun ? StepState.Done : StepState.Skipped));
            return result with { Duration = Stopwatch.GetElapsedTime(start), Steps = [.. done] };
        }
        catch (OperationCanceledException)
        {
            Outcome(StepState.Failed);
            throw;
        }
        catch (Exception e)
        {
            MigrationException known = ServerErrors.Translate(e, $"Backfilling {plan.Target}", plan.Target);
            done.Add(Outcome(StepState.Failed));
            throw new MigrationException(known.ErrorId, known.Kind, known.Message, known.RecommendedAction, e)
            {
                SqlState = known.SqlState,
                Target = known.Target ?? plan.Target,
                Blockers = known.Blockers,
                Steps = [.. done],
            };
        }
    }

    internal static bool CanResume(BackfillRecord record, BackfillDefinition definition) =>
        // Another oid or key: the table was made anew, and the checkpoint says nothing about it. To begin from the start is always right.
        !record.IsCompleted && record.TableOid == definition.Table.Oid && record.Key.SequenceEqual(definition.KeyNames);

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
            return connection;
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private static async Task RefuseReadOnlyAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.current_setting('transaction_read_only')", connection);
        if ((string?)await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) == "on")
        {
            throw new MigrationException(
                "ReadOnly",
                MigrationErrorKind.InvalidState,
                "This connection may not write: the server is a standby, or default_transaction_read_only is on.",
                "Connect to the primary, or turn the setting off for the role or the database.");
        }
    }

    /// <summary>Lets the server check names, types and privileges; it runs nothing.</summary>
    private static async Task ExplainAsync(
        NpgsqlConnection connection, BackfillDefinition definition, BackfillStatements statements, IOperationSink sink, CancellationToken cancellationToken)
    {
        sink.Debug(statements.Explain);
        try
        {
            await using NpgsqlCommand command = new(statements.Explain, connection);
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (PostgresException e)
        {
            MigrationException error = ServerErrors.Translate(e, $"Checking UPDATE {definition.Table.Display} SET {definition.SetText} WHERE {definition.Where}", definition.Table.Display);
            // A text without its SQL quotation marks is the likeliest reason: to the server it is a column.
            throw e.SqlState != SqlStates.UndefinedColumn
                ? error
                : new MigrationException(error.ErrorId, error.Kind, error.Message, $"{error.RecommendedAction} A text is a SQL expression with its own quotation marks: -Set @{{ tier = \"'standard'\" }}.", e)
                {
                    SqlState = error.SqlState,
                    Target = error.Target,
                };
        }
    }

    private static async Task<(long Matching, long All)> EstimateAsync(
        NpgsqlConnection connection, BackfillDefinition definition, BackfillStatements statements, CancellationToken cancellationToken)
    {
        // A new column has no statistics, and the planner's guess at it is far off; at a new table's rows too. Look at some blocks instead.
        double percent = Math.Min(100, 100 * SampleBlocks / Math.Max(1, definition.Table.SizeBytes / 8192.0));
        await using NpgsqlCommand sample = new(statements.Sample, connection) { Parameters = { new() { Value = (float)percent } } };
        await using NpgsqlDataReader reader = await sample.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        (long matching, long seen, long seenBlocks, long blocks) = (reader.GetInt64(0), reader.GetInt64(1), reader.GetInt64(2), reader.GetInt64(3));
        double scale = percent >= 100 ? 1 : (double)blocks / Math.Max(1, seenBlocks);
        return ((long)(matching * scale), (long)(seen * scale));
    }

    private static async Task<string[]> PickAsync(BackfillPlan plan, IOperationSink sink, CancellationToken cancellationToken)
    {
        await using NpgsqlConnection connection = await OpenAsync(plan.Session, plan.Request, sink, cancellationToken).ConfigureAwait(false);
        await using NpgsqlCommand command = new(new BackfillStatements(plan.Definition).PickSample, connection) { Parameters = { new() { Value = (long)TriedRows } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<string> places = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            places.Add(reader.GetString(0));
        }

        return [.. places];
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

    /// <summary>Begins, or finds what there is to resume.</summary>
    /// <returns>False where an earlier run completed it and no row matches.</returns>
    private static async Task<bool> BeginAsync(BackfillPlan plan, bool anyMatches, IOperationSink sink, CancellationToken cancellationToken)
    {
        BackfillDefinition definition = plan.Definition;
        await using NpgsqlConnection connection = await OpenAsync(plan.Session, plan.Request, sink, cancellationToken).ConfigureAwait(false);
        if (await BackfillStore.ReadAsync(connection, definition.Name, cancellationToken).ConfigureAwait(false) is { } record)
        {
            BackfillStore.Check(record, definition);
            if (CanResume(record, definition))
            {
                sink.Verbose($"Resumes {definition.Name} at its checkpoint: {record.RowsDone:N0} rows in {record.Batches:N0} batches are done.");
                return true;
            }

            if (record.IsCompleted && !anyMatches)
            {
                return false;
            }

            sink.Verbose(record.IsCompleted
                ? $"{definition.Name} was completed, but rows match again; begins from the start."
                : $"{definition.Name} was begun on a table that was made anew since; begins from the start.");
        }

        await using NpgsqlCommand command = new(new BackfillStatements(definition).Bound, connection);
        string[]? bound = (string[]?)await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false);
        await BackfillStore.BeginAsync(connection, definition, bound, plan.EstimatedRows, plan.EstimatedTableRows, cancellationToken).ConfigureAwait(false);
        return true;
    }

    private static MigrationStep BatchStep(BackfillDefinition definition, BackfillStatements statements)
    {
        string columns = string.Join(", ", definition.Set.Select(column => SqlName.QuoteIfNeeded(column.Name)));
        MigrationStep step = new()
        {
            Sql = statements.Batch(first: false),
            Purpose = $"Set {definition.SetText} where {definition.Where}, in batches along ({string.Join(", ", definition.Key.Select(k => SqlName.QuoteIfNeeded(k.Name)))})",
            LockMode = TableLockMode.RowExclusive,
            Objects = [definition.Table.Sql],
            Cost = StepCost.UpdatesRows,
            Reversibility = Reversibility.Irreversible,
            ReversalNote = $"The values that {columns} had before are not kept. Where the column was added by the same migration, dropping it takes this back too.",
        };
        if (!definition.IsDefaultWhere)
        {
            return step;
        }

        return step with
        {
            Reversal = statements.Reset,
            Reversibility = Reversibility.ReversibleWithDataLoss,
            ReversalNote = $"Sets {columns} to NULL in every row, also where it had a value before or the application has written one since; in small batches that commit one by one and pass over locked rows, so that it may run again, and a warning says how many rows are left. Where the column was added by the same migration, dropping it takes this back at once.",
        };
    }
}
