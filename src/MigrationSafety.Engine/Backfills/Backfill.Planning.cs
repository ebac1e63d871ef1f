using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

public static partial class Backfill
{
    private const int MostWorkers = 64;
    private static readonly TimeSpan s_longestBatch = TimeSpan.FromMinutes(10);
    // Until it is said what lasts so long.
    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(1);

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
                    && (await BackfillBeginnings.CanResumeAsync(connection, definition, request.Strategy, cancellationToken).ConfigureAwait(false)).CanResume;
            }

            if (definition.Into is { IsEmpty: false })
            {
                definition = definition with { Archive = BackfillArchive.OfCopies(definition) };
            }

            if (definition.Archive is not null)
            {
                steps.AddRange(await definition.Archive.StepsAsync(connection, cancellationToken).ConfigureAwait(false));
            }

            Task<BackfillSample> looking = BackfillSample.TakeAsync(connection, definition, cancellationToken);
            if (await Task.WhenAny(looking, Task.Delay(s_silence, cancellationToken)).ConfigureAwait(false) != looking)
            {
                sink.Progress(new OperationProgress($"Planning {definition.Name}", $"Estimating how many rows of {definition.Table.Display} match, by some of its blocks"));
            }

            BackfillSample sample = await looking.ConfigureAwait(false);
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

    private static async Task RefuseReadOnlyAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.current_setting('transaction_read_only')", connection);
        if ((string?)await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) == "on")
        {
            throw ReadOnly();
        }
    }

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
}
