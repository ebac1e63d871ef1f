using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>An index that is not valid, as it was found on a connection.</summary>
/// <param name="Oid">Oid.</param>
/// <param name="Display">Schema and name, for people.</param>
/// <param name="Drop">The step that removes it.</param>
internal sealed record InvalidLeftover(uint Oid, string Display, MigrationStep Drop);

/// <summary>What came of removing a leftover.</summary>
/// <param name="Removed">The step that removed it; null where nothing was removed.</param>
/// <param name="Left">What is left, in words with the statement that removes it; null where nothing is.</param>
internal sealed record LeftoverRemoval(MigrationStep? Removed, string? Left);

/// <summary>Who is building an index, or may be.</summary>
/// <param name="Session">The session.</param>
/// <param name="Command">What it runs, as the progress view has it; null where that is hidden.</param>
/// <param name="Same">It is this index for certain; otherwise it builds something on the table.</param>
internal sealed record IndexBuilderSession(LockBlocker Session, string? Command, bool Same)
{
    internal string InWords(string index) => Same
        ? $"{index} is being built by {Session}."
        : $"{index} may be being built: {Session} runs {(Command is null ? "an index build" : Command)} on its table.";
}

/// <summary>Tells invalid leftovers from indexes that somebody is building, and removes them where that can be done in time.</summary>
internal static class IndexLeftover
{
    /// <summary>How long a failed operation tries to clean up behind itself.</summary>
    internal static readonly TimeSpan CleanUpFor = TimeSpan.FromSeconds(10);

    /// <summary>The same after Ctrl-C: whoever pressed it wants the prompt back.</summary>
    internal static readonly TimeSpan CleanUpOnCancelFor = TimeSpan.FromSeconds(1);

    private static readonly TimeSpan s_secondLookAfter = TimeSpan.FromMilliseconds(300);
    private static readonly TimeSpan s_lookAgainAfter = TimeSpan.FromMilliseconds(250);

    /// <summary>The session that is building the index right now, or may be: an unfinished index is a leftover only when there is none.</summary>
    internal static async Task<IndexBuilderSession?> BuilderAsync(NpgsqlConnection connection, TableReference table, uint index, CancellationToken cancellationToken)
    {
        // The progress view hides relid and index_relid from roles without pg_read_all_stats, pg_locks hides nothing: one session at a time holds this lock
        // on the table, so whoever is in the view and holds it builds on this table. A REINDEX works on a copy under another oid.
        const string Query = """
            select p.pid, a.usename::text, a.application_name, pg_catalog.host(a.client_addr), a.state,
                   pg_catalog.clock_timestamp() - a.query_start, pg_catalog.left(a.query, 1000), a.backend_type, a.backend_start, p.command, coalesce(p.index_relid = $2, false)
            from pg_catalog.pg_stat_progress_create_index p
            join pg_catalog.pg_locks l on l.pid = p.pid and l.locktype = 'relation' and l.relation = $1 and l.database = p.datid
                and l.mode = 'ShareUpdateExclusiveLock' and l.granted
            left join pg_catalog.pg_stat_activity a on a.pid = p.pid
            where p.datname = pg_catalog.current_database() and p.pid <> pg_catalog.pg_backend_pid()
              and not (coalesce(p.command, '') = 'CREATE INDEX CONCURRENTLY' and coalesce(p.index_relid, $2) not in (0, $2))
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = index, NpgsqlDbType = NpgsqlDbType.Oid } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new IndexBuilderSession(reader.Blocker() with { Mode = "ShareUpdateExclusiveLock", Granted = true, Relation = table.Display }, reader.Text(9), reader.GetBoolean(10))
            : null;
    }

    /// <summary>Looks until what is there is either finished or a leftover: an index that somebody is building is awaited.</summary>
    /// <typeparam name="T">What the look finds.</typeparam>
    /// <param name="connection">Connection.</param>
    /// <param name="table">Table.</param>
    /// <param name="look">Looks at the catalog.</param>
    /// <param name="unfinished">The invalid index in what was found; null where there is none.</param>
    /// <param name="display">Name of the index, for people.</param>
    /// <param name="waitFor">Bound on the wait.</param>
    /// <param name="sink">A warning that names the builder.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>What was found at last, and how long the builder was awaited.</returns>
    /// <exception cref="MigrationException"><c>IndexBeingBuilt</c>.</exception>
    internal static async Task<(T Found, TimeSpan Waited)> SettledAsync<T>(
        NpgsqlConnection connection,
        TableReference table,
        Func<CancellationToken, Task<T>> look,
        Func<T, uint?> unfinished,
        Func<T, string> display,
        TimeSpan waitFor,
        IOperationSink sink,
        CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        bool told = false;
        uint? abandoned = null;
        while (true)
        {
            T found = await look(cancellationToken).ConfigureAwait(false);
            uint? oid = unfinished(found);
            IndexBuilderSession? builder = oid is { } index ? await BuilderAsync(connection, table, index, cancellationToken).ConfigureAwait(false) : null;
            if (builder is null && oid is not null && abandoned != oid)
            {
                // A build that ends between the two questions looks abandoned: it counts as a leftover when it still does a moment later.
                abandoned = oid;
                await Task.Delay(s_secondLookAfter, cancellationToken).ConfigureAwait(false);
                continue;
            }

            if (builder is null)
            {
                if (told)
                {
                    sink.Record(new PhaseEndEvent(connection.ProcessID));
                }

                return (found, told ? Stopwatch.GetElapsedTime(start) : TimeSpan.Zero);
            }

            if (Stopwatch.GetElapsedTime(start) > waitFor)
            {
                throw new MigrationException(
                    "IndexBeingBuilt",
                    MigrationErrorKind.Busy,
                    builder.InWords(display(found)),
                    "Wait for it (Get-MigrationProgress shows how far it is), then run the command again; or allow more with -WaitFor.")
                {
                    Target = display(found),
                    Blockers = [builder.Session],
                };
            }

            if (!told)
            {
                sink.Warning(builder.Same ? $"{display(found)} is being built already; waiting for {builder.Session}." : $"{builder.InWords(display(found))} Waiting for it.");
                TurnWaits.Begin(sink, connection.ProcessID, table.Display, TurnWaits.ForTable);
                told = true;
            }

            await Task.Delay(s_lookAgainAfter, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Removes what an operation left, on a connection of its own, where that can be done in time; never what another session is building, and never while another
    /// operation works on the table. Not to be cancelled: it is bounded.
    /// </summary>
    /// <param name="session">Session.</param>
    /// <param name="table">Table of the index.</param>
    /// <param name="find">Looks again for the leftover; null where there is none.</param>
    /// <param name="display">Name of the index, for people.</param>
    /// <param name="bound">How long all of it may take; nothing is dropped afterwards.</param>
    /// <param name="sink">What was removed.</param>
    /// <returns>What came of it.</returns>
    internal static async Task<LeftoverRemoval> RemoveAsync(
        EngineSession session, TableReference table, Func<NpgsqlConnection, Task<InvalidLeftover?>> find, string display, TimeSpan bound, IOperationSink sink)
    {
        LeftoverRemoval mayBeLeft = new(null, $"An invalid index {display} may be left, or the server may still be building it.");
        Task<LeftoverRemoval> removal = RemoveOnceAsync(session, table, find, display, bound, sink);
        // The server bounds the drop itself; this bounds a network that says nothing.
        Task first = await Task.WhenAny(removal, Task.Delay(bound + TimeSpan.FromMilliseconds(500))).ConfigureAwait(false);
        if (first != removal)
        {
            _ = removal.ContinueWith(task => task.Exception, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            return mayBeLeft;
        }

        try
        {
            return await removal.ConfigureAwait(false);
        }
        catch (Exception e) when (e is NpgsqlException or MigrationException or IOException or TimeoutException)
        {
            // The failure that matters is on its way to the caller; this one only says that the leftover stays.
            sink.Verbose($"{display}: what is left could not be looked at: {e.Message}");
            return mayBeLeft;
        }
    }

    private static async Task<LeftoverRemoval> RemoveOnceAsync(
        EngineSession session, TableReference table, Func<NpgsqlConnection, Task<InvalidLeftover?>> find, string display, TimeSpan bound, IOperationSink sink)
    {
        long start = Stopwatch.GetTimestamp();
        // A connection of its own: whatever became of the one that worked, this one starts clean, and it holds the operation's lock while it drops.
        await using NpgsqlConnection connection = await session.OpenAsync("index-cleanup", sink, CancellationToken.None).ConfigureAwait(false);
        // Also for the questions: a size waits behind ACCESS EXCLUSIVE. Whichever of the two runs out first is the server's answer.
        await BoundAsync(connection, bound - Stopwatch.GetElapsedTime(start)).ConfigureAwait(false);
        try
        {
            await TableOperationLock.TakeAsync(connection, table, TimeSpan.Zero, new QuietSink(sink), CancellationToken.None).ConfigureAwait(false);
        }
        catch (MigrationException e) when (e.ErrorId == "TableBusy")
        {
            return new LeftoverRemoval(null, $"Index {display} may be left invalid, or still be built: {e.Message}");
        }

        try
        {
            if (await find(connection).ConfigureAwait(false) is not { } leftover)
            {
                return new LeftoverRemoval(null, null);
            }

            if (await BuilderAsync(connection, table, leftover.Oid, CancellationToken.None).ConfigureAwait(false) is { } builder)
            {
                return new LeftoverRemoval(null, $"Index {leftover.Display} is not valid. {builder.InWords(leftover.Display)}");
            }

            TimeSpan remaining = bound - Stopwatch.GetElapsedTime(start);
            // Later the caller has been told that it is left, and may be at work on it again.
            return remaining > TimeSpan.Zero
                ? await DropAsync(connection, leftover, bound, remaining, sink).ConfigureAwait(false)
                : new LeftoverRemoval(null, Left(leftover, bound));
        }
        finally
        {
            await IndexWorker.ReleaseAsync(connection, table).ConfigureAwait(false);
        }
    }

    private static async Task<LeftoverRemoval> DropAsync(NpgsqlConnection connection, InvalidLeftover leftover, TimeSpan bound, TimeSpan remaining, IOperationSink sink)
    {
        long start = Stopwatch.GetTimestamp();
        await BoundAsync(connection, remaining).ConfigureAwait(false);
        sink.Debug(leftover.Drop.Sql);
        MigrationStep drop = leftover.Drop with { StartedAt = DateTimeOffset.Now, Attempts = 1 };
        await using NpgsqlCommand command = new(leftover.Drop.Sql, connection);
        try
        {
            await command.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
            sink.Verbose($"Removed the invalid leftover {leftover.Display}.");
            drop = drop with { State = StepState.Done, Duration = Stopwatch.GetElapsedTime(start) };
            sink.Record(new StepEvent(drop));
            return new LeftoverRemoval(drop, null);
        }
        catch (PostgresException e)
        {
            sink.Verbose($"The invalid leftover {leftover.Display} could not be removed within {Durations.Text(bound)}: {ServerErrors.Words(e)}");
            return new LeftoverRemoval(null, Left(leftover, bound));
        }
    }

    private static string Left(InvalidLeftover leftover, TimeSpan bound) =>
        $"The invalid index {leftover.Display} is left; transactions on the table kept it from being removed within {Durations.Text(bound)}. {leftover.Drop.Sql} removes it.";

    private static async Task BoundAsync(NpgsqlConnection connection, TimeSpan bound)
    {
        // Zero would be no bound at all.
        await using NpgsqlCommand command = new("select pg_catalog.set_config('lock_timeout', $1::text, false), pg_catalog.set_config('statement_timeout', $1::text, false)", connection)
        {
            Parameters = { new() { Value = Math.Max(1, (int)bound.TotalMilliseconds) } },
        };
        await command.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Keeps to itself that another operation is waited for: nobody waits here.</summary>
    private sealed class QuietSink(IOperationSink sink) : IOperationSink
    {
        public void Verbose(string message) => sink.Verbose(message);

        public void Debug(string message) => sink.Debug(message);

        public void Warning(string message) => sink.Verbose(message);

        public void Progress(OperationProgress progress) => sink.Progress(progress);
    }
}
