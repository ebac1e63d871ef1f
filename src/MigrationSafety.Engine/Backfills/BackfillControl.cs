using System.Diagnostics;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Stops, takes up and removes backfills that are recorded, from wherever.</summary>
public static class BackfillControl
{
    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(100);
    private const int PatienceSeconds = 10;

    /// <summary>Reads one.</summary>
    /// <exception cref="MigrationException"><c>BackfillNotFound</c>.</exception>
    public static async Task<BackfillStatus> FindAsync(EngineSession session, string name, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        try
        {
            await using NpgsqlConnection connection = await OpenAsync(session, sink, cancellationToken).ConfigureAwait(false);
            return await FindAsync(connection, session, name, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw BackfillSchema.Translate(e, session.Info.User, $"Reading backfill {name}", name, writes: false);
        }
    }

    /// <summary>Reads one that is to be stopped or removed: not on a standby.</summary>
    /// <exception cref="MigrationException"><c>BackfillNotFound</c>, <c>PrimaryRequired</c>.</exception>
    public static async Task<BackfillStatus> FindOnPrimaryAsync(EngineSession session, string name, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(sink);
        await session.EnsurePrimaryAsync(sink, cancellationToken).ConfigureAwait(false);
        return await FindAsync(session, name, sink, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Stops one as planned, and says so to the operation's record.</summary>
    /// <inheritdoc cref="StopAsync(EngineSession, string, TimeSpan, IOperationSink, CancellationToken)"/>
    public static async Task<BackfillStatus> StopAsync(BackfillStopPlan plan, TimeSpan waitFor, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(sink);
        DateTimeOffset start = DateTimeOffset.Now;
        BackfillStatus status = await StopAsync(plan.Session, plan.Name, waitFor, sink, cancellationToken).ConfigureAwait(false);
        Done(plan, start, IsEnded(status) ? StepState.Skipped : StepState.Done, sink);
        return status;
    }

    /// <summary>Removes one as planned, and says so to the operation's record.</summary>
    /// <returns>The plan.</returns>
    /// <inheritdoc cref="RemoveAsync(EngineSession, string, bool, bool, TimeSpan, IOperationSink, CancellationToken)"/>
    public static async Task<BackfillRemovalPlan> RemoveAsync(BackfillRemovalPlan plan, bool force, bool dropArchive, TimeSpan waitFor, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(sink);
        DateTimeOffset start = DateTimeOffset.Now;
        await RemoveAsync(plan.Session, plan.Name, force, dropArchive, waitFor, sink, cancellationToken).ConfigureAwait(false);
        Done(plan, start, StepState.Done, sink);
        return plan;
    }

    /// <summary>Has everybody who works on it end after the batch at hand. What is done stays.</summary>
    /// <param name="session">Session.</param>
    /// <param name="name">Name.</param>
    /// <param name="waitFor">How long to wait until all have ended; a warning tells who has not.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Ends the wait; the backfill is stopped all the same.</param>
    /// <returns>What became of it.</returns>
    /// <exception cref="MigrationException"><c>BackfillNotFound</c>, or what the server refused.</exception>
    public static async Task<BackfillStatus> StopAsync(EngineSession session, string name, TimeSpan waitFor, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await session.EnsurePrimaryAsync(sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await OpenAsync(session, sink, cancellationToken).ConfigureAwait(false);
            BackfillStatus before = await FindAsync(connection, session, name, cancellationToken).ConfigureAwait(false);
            if (IsEnded(before))
            {
                sink.Verbose($"{name} is completed already; nothing is to be stopped.");
                return before;
            }

            return await EndedAsync(connection, session, name, waitFor, stops: true, sink, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw BackfillSchema.Translate(e, session.Info.User, $"Stopping backfill {name}", name, writes: true);
        }
    }

    /// <summary>Removes what is recorded about one: definition, checkpoints, rows that were refused. The table stays as it is, and so does the archive of what it kept; a warning names it.</summary>
    /// <param name="session">Session.</param>
    /// <param name="name">Name.</param>
    /// <param name="force">Also where it is not at its end; one that runs is stopped first.</param>
    /// <param name="dropArchive">Drops the archive too, without which nothing can be taken back.</param>
    /// <param name="waitFor">How long to wait until all who work on it have ended.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>BackfillNotFound</c>, <c>BackfillRunning</c>, <c>BackfillUnfinished</c>, or what the server refused.</exception>
    public static async Task RemoveAsync(EngineSession session, string name, bool force, bool dropArchive, TimeSpan waitFor, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await session.EnsurePrimaryAsync(sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await OpenAsync(session, sink, cancellationToken).ConfigureAwait(false);
            BackfillStatus status = await FindAsync(connection, session, name, cancellationToken).ConfigureAwait(false);
            RefuseRemoval(status, force);
            // Who is about to work on it is no worker yet, and would begin it anew.
            async Task<bool> IsHeldAsync() => status.Workers.Length > 0 || (!IsEnded(status) && (await BackfillLock.HoldersAsync(connection, name, cancellationToken).ConfigureAwait(false)).Length > 0);
            if (await IsHeldAsync().ConfigureAwait(false))
            {
                // Who has completed it may still count the rows that match.
                status = IsEnded(status)
                    ? await EndedAsync(connection, session, name, waitFor, stops: false, sink, cancellationToken).ConfigureAwait(false)
                    : await StopAsync(session, name, waitFor, sink, cancellationToken).ConfigureAwait(false);
                if (await IsHeldAsync().ConfigureAwait(false))
                {
                    throw Running(status, force);
                }
            }

            await using NpgsqlTransaction both = await connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
            // Checked again in the statement itself: somebody may just have taken it up.
            await using NpgsqlCommand command = new(
                $"delete from {BackfillStore.Table} where name = $1 and (state <> 'running' or $2)", connection)
            {
                Parameters = { new() { Value = name }, new() { Value = force } },
            };
            if (await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false) == 0)
            {
                throw Running(await FindAsync(connection, session, name, cancellationToken).ConfigureAwait(false), force);
            }

            if (dropArchive && status.Archive is not null)
            {
                await using NpgsqlCommand drop = new($"drop table if exists {status.Archive}", connection);
                await drop.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }

            await both.CommitAsync(cancellationToken).ConfigureAwait(false);
            if (!dropArchive && status.Archive is not null)
            {
                sink.Warning($"What {name} kept remains in {status.Archive}. When no rollback needs it any more: drop table {status.Archive};");
            }
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw BackfillSchema.Translate(e, session.Info.User, $"Removing backfill {name}", name, writes: true);
        }
    }

    /// <summary>Refuses to remove one that is not at its end, unless by force.</summary>
    /// <exception cref="MigrationException"><c>BackfillRunning</c>, <c>BackfillUnfinished</c>.</exception>
    public static void RefuseRemoval(BackfillStatus status, bool force)
    {
        ArgumentNullException.ThrowIfNull(status);
        if (force)
        {
            return;
        }

        if (status.Workers.Length > 0 && !IsEnded(status))
        {
            throw Running(status, force: false);
        }

        if (!IsEnded(status))
        {
            throw new MigrationException(
                "BackfillUnfinished",
                MigrationErrorKind.InvalidState,
                $"{status.Name} is not at its end: about {Counts.Rows(status.Remaining, "is", "are")} to be changed, and its checkpoints would be lost.",
                "Resume-Backfill finishes it; -Force removes it all the same, and the rows that are done stay done.")
            {
                Target = status.Name,
            };
        }
    }

    /// <summary>What it was asked to do and how, from the server: what takes it up from any machine.</summary>
    /// <exception cref="MigrationException"><c>BackfillNotFound</c>.</exception>
    public static async Task<BackfillRequest> RequestAsync(EngineSession session, string name, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        try
        {
            await using NpgsqlConnection connection = await OpenAsync(session, sink, cancellationToken).ConfigureAwait(false);
            await FindAsync(connection, session, name, cancellationToken).ConfigureAwait(false);
            await BackfillRecords.RefuseRenamedAsync(connection, name, runs: false, cancellationToken).ConfigureAwait(false);
            const string Query = $"""
                select table_schema, table_name, set_columns, set_expressions, case when predicate_given then predicate end, workers, target_batch_ms, max_errors, throttle::text, strategy, reason, kind, source, archive is not null, settings::text, into_schema, into_table
                from {BackfillStore.Table}
                where name = $1
                """;
            await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = name } } };
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                throw BackfillReader.NotFound(name, []);
            }

            BackfillKind kind = BackfillStore.KindOf(reader.GetString(11));
            KeyValuePair<string, string>[] set = [.. reader.GetFieldValue<string[]>(2).Zip(reader.GetFieldValue<string[]>(3), (column, expression) => new KeyValuePair<string, string>(SqlName.Quote(column), expression))];
            return new BackfillRequest
            {
                Name = name,
                Schema = SqlName.Quote(reader.GetString(0)),
                Table = SqlName.Quote(reader.GetString(1)),
                Set = kind == BackfillKind.Insert ? [] : set,
                InsertInto = kind == BackfillKind.Insert ? SqlName.Quote(reader.GetString(16)) : null,
                InsertIntoSchema = kind == BackfillKind.Insert ? SqlName.Quote(reader.GetString(15)) : null,
                Select = kind == BackfillKind.Insert ? [.. set.Select(column => new KeyValuePair<string, string?>(column.Key, column.Value))] : [],
                SelectOnly = kind == BackfillKind.Insert,
                Where = reader.Text(4),
                Delete = kind == BackfillKind.Delete,
                From = reader.Text(12),
                KeepOldValues = kind != BackfillKind.Insert && reader.GetBoolean(13),
                Settings = BackfillSettings.FromJson(reader.GetString(14)),
                Workers = reader.GetInt32(5),
                TargetBatchTime = TimeSpan.FromMilliseconds(reader.GetInt32(6)),
                MaxErrors = reader.GetInt64(7),
                Throttle = ThrottleLimits.FromJson(reader.Text(8)),
                Strategy = reader.GetString(10) == BackfillDefinition.AsAsked ? (reader.GetString(9) == "key" ? BackfillStrategy.Key : BackfillStrategy.Block) : BackfillStrategy.Auto,
            };
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw BackfillSchema.Translate(e, session.Info.User, $"Reading backfill {name}", name, writes: false);
        }
    }

    /// <summary>What it has done so far, and what takes that back, by its record.</summary>
    /// <exception cref="MigrationException"><c>BackfillNotFound</c>, <c>TableRenamed</c>, <c>TableDropped</c>, or why its tables cannot be looked at.</exception>
    public static async Task<MigrationStep> StepAsync(EngineSession session, string name, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(sink);
        const string Elsewhere = "Get-MigrationHistory -Operation Backfill | New-RollbackScript makes the script from what ran, with the names of then.";
        try
        {
            BackfillRequest request = await RequestAsync(session, name, sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await Backfill.OpenAsync(session, request, sink, cancellationToken).ConfigureAwait(false);
            BackfillDefinition definition = await BackfillDefinition.FindAsync(connection, request, cancellationToken).ConfigureAwait(false);
            BackfillRecord record = await BackfillRecords.ReadAsync(connection, name, cancellationToken).ConfigureAwait(false) ?? throw BackfillReader.NotFound(name, []);
            if (record.TableOid != definition.Table.Oid)
            {
                throw new MigrationException(
                    "TableDropped", MigrationErrorKind.InvalidState, $"{definition.Table.Display}, the table of backfill {name}, was dropped, and what has its name now is another one.", Elsewhere)
                {
                    Target = definition.Table.Display,
                };
            }

            if (record.IsAtWork)
            {
                sink.Warning($"{name} is being worked on: stop it (Stop-Backfill) before it is taken back, or both work against each other.");
            }

            if (definition.Into is { } into)
            {
                definition = definition with { Into = into with { IsEmpty = record.WasEmpty == true } };
                definition = record.Archive is null ? definition : definition with { Archive = BackfillArchive.OfCopies(definition) };
            }

            return BackfillWords.BatchStep(definition) with { State = record.IsCompleted || record.IsAtWork ? StepState.Done : StepState.Cancelled };
        }
        catch (MigrationException e) when (e.ErrorId == "TableRenamed")
        {
            throw new MigrationException(e.ErrorId, e.Kind, e.Message, Elsewhere, e) { Target = e.Target };
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw BackfillSchema.Translate(e, session.Info.User, $"Reading backfill {name}", name, writes: false);
        }
    }

    private static void Done(OperationPlan plan, DateTimeOffset start, StepState state, IOperationSink sink)
    {
        foreach (MigrationStep step in plan.Steps)
        {
            sink.Record(new StepEvent(step with { State = state, Attempts = 1, StartedAt = start, Duration = DateTimeOffset.Now - start }));
        }
    }

    private static bool IsEnded(BackfillStatus status) => status.State is BackfillState.Completed or BackfillState.CompletedWithErrors;

    private static MigrationException Running(BackfillStatus status, bool force) => new(
        "BackfillRunning",
        MigrationErrorKind.Busy,
        $"{status.Name} is being worked on{(status.Workers.Length == 0 ? ", or about to be" : $" by {string.Join("; ", status.Workers.Select(worker => worker.ToString()))}")}.",
        force
            ? "It is stopped, but who works on it has not ended: wait longer for that (-WaitFor), or end that client, and run the command again."
            : "Stop-Backfill stops it; Remove-Backfill -Force stops it and removes it.")
    {
        Target = status.Name,
    };

    private static async Task<BackfillStatus> FindAsync(NpgsqlConnection connection, EngineSession session, string name, CancellationToken cancellationToken)
    {
        IReadOnlyList<BackfillStatus> all = await BackfillReader.ReadAsync(connection, session.Info, name: null, withErrors: false, cancellationToken).ConfigureAwait(false);
        return all.FirstOrDefault(status => status.Name == name) ?? throw BackfillReader.NotFound(name, all.Select(status => status.Name));
    }

    /// <summary>Waits until nobody works on it any more.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="session">Session.</param>
    /// <param name="name">Name.</param>
    /// <param name="waitFor">Bound on the wait; a warning tells who has not ended.</param>
    /// <param name="stops">Whether it is to be stopped: also for whoever is just about to work on it, and would have it run again.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels the wait.</param>
    private static async Task<BackfillStatus> EndedAsync(
        NpgsqlConnection connection, EngineSession session, string name, TimeSpan waitFor, bool stops, IOperationSink sink, CancellationToken cancellationToken)
    {
        for (long start = Stopwatch.GetTimestamp(); ;)
        {
            // Before it is stopped: who comes after that takes it up anew.
            int[] holders = stops ? await BackfillLock.HoldersAsync(connection, name, cancellationToken).ConfigureAwait(false) : [];
            if (stops)
            {
                await using NpgsqlCommand pause = new(
                    $"update {BackfillStore.Table} set state = 'paused', waiting_for = null, waiting_since = null, updated_at = pg_catalog.clock_timestamp() where name = $1 and state = 'running'", connection)
                {
                    Parameters = { new() { Value = name } },
                };
                await pause.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }

            BackfillStatus status = await FindAsync(connection, session, name, cancellationToken).ConfigureAwait(false);
            bool runs = status.State is BackfillState.Running or BackfillState.Interrupted;
            if (stops ? status.Workers.Length == 0 && holders.Length == 0 && !runs : status.Workers.Length == 0 || status.State == BackfillState.Running)
            {
                return status;
            }

            if (Stopwatch.GetElapsedTime(start) >= waitFor)
            {
                if (waitFor > TimeSpan.Zero)
                {
                    string who = status.Workers.Length > 0 ? string.Join("; ", status.Workers.Select(worker => worker.ToString())) : $"pid {string.Join(", ", holders)}, about to work on it,";
                    sink.Warning($"{name} is {(IsEnded(status) ? "at its end" : "stopped")}, but {who} has not ended within {Durations.Text(waitFor)}: a batch, a wait for a lock or a count of the rows is not over yet, or the client is frozen. No further batch begins.");
                }

                return status;
            }

            sink.Progress(new OperationProgress(
                $"Stopping {name}",
                status.Workers.Length == 0 && holders.Length > 0
                    ? $"Waiting for pid {string.Join(", ", holders)}, about to work on it"
                    : $"Waiting for {status.Workers.Length:N0} worker{(status.Workers.Length > 1 ? "s" : "")} to end the batch at hand"));
            await Task.Delay(s_poll, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>A connection for short statements, which do not wait long for locks either, nor for a standby that does not answer: batches do not, and would go on meanwhile.</summary>
    private static async Task<NpgsqlConnection> OpenAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await session.OpenAsync("backfills", sink, cancellationToken).ConfigureAwait(false);
        await using NpgsqlCommand command = new("select pg_catalog.set_config('lock_timeout', $1, false), pg_catalog.set_config('synchronous_commit', 'local', false), pg_catalog.set_config('default_transaction_isolation', 'read committed', false)", connection)
        {
            Parameters = { new() { Value = $"{PatienceSeconds}s" } },
        };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        return connection;
    }
}
