using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Progress;

/// <summary>Waits until operations end that run now, and says how they ended.</summary>
public static class ProgressWait
{
    // What an operation leaves behind may be seen a moment after it is gone: statistics are reported late, above all before PostgreSQL 15.
    private static readonly TimeSpan s_grace = TimeSpan.FromSeconds(2);

    // A server that restarts, or whose place another takes, is back by then.
    private static readonly TimeSpan s_awayFor = TimeSpan.FromMinutes(10);

    /// <summary>Waits for those that run when it is called; backfills that nobody works on and streams that never end are none. Where the connection is lost, it goes on with another one.</summary>
    /// <param name="session">Session.</param>
    /// <param name="filter">Which operations.</param>
    /// <param name="interval">Time from one look to the next.</param>
    /// <param name="ended">Told of each as soon as it is over.</param>
    /// <param name="sink">Progress while it waits; a warning where this role is not shown everything, and where the server cannot be reached.</param>
    /// <param name="places">Bounds how many look at the same time; held while this looks, not between two looks. Null for no bound.</param>
    /// <param name="cancellationToken">Cancels the waiting; the operations go on.</param>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>InvalidName</c>, or the connection's: of the first look, or after ten minutes without the server.</exception>
    public static Task RunAsync(
        EngineSession session,
        ProgressFilter filter,
        TimeSpan interval,
        Action<ProgressResult> ended,
        IOperationSink sink,
        SemaphoreSlim? places,
        CancellationToken cancellationToken) => RunAsync(session, filter, interval, ended, sink, places, s_awayFor, cancellationToken);

    /// <param name="session">Session.</param>
    /// <param name="filter">Which operations.</param>
    /// <param name="interval">Time from one look to the next.</param>
    /// <param name="ended">Told of each as soon as it is over.</param>
    /// <param name="sink">Progress and warnings.</param>
    /// <param name="places">Bounds how many look at the same time.</param>
    /// <param name="awayFor">How long a server that cannot be reached is asked again.</param>
    /// <param name="cancellationToken">Cancels the waiting.</param>
    internal static async Task RunAsync(
        EngineSession session,
        ProgressFilter filter,
        TimeSpan interval,
        Action<ProgressResult> ended,
        IOperationSink sink,
        SemaphoreSlim? places,
        TimeSpan awayFor,
        CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        ArgumentNullException.ThrowIfNull(ended);
        ArgumentNullException.ThrowIfNull(sink);
        await using ProgressReader reader = new(session, filter, Answers.Patience(interval));
        HashSet<string> said = new(StringComparer.Ordinal);
        List<OperationTrack>? awaited = null;
        HashSet<OperationTrack> told = [];
        long? awaySince = null;
        while (true)
        {
            try
            {
                await (places?.WaitAsync(cancellationToken) ?? Task.CompletedTask).ConfigureAwait(false);
                try
                {
                    if (await LookAsync().ConfigureAwait(false))
                    {
                        return;
                    }
                }
                finally
                {
                    places?.Release();
                }
            }
            catch (MigrationException e) when (awaited is not null && IsPassing(e))
            {
                if (awaySince is null)
                {
                    awaySince = Stopwatch.GetTimestamp();
                    sink.Warning($"{session.Info}: {e.Message} It is asked again for {Durations.Text(awayFor)}; what is waited for may go on meanwhile.");
                }
                else if (Stopwatch.GetElapsedTime(awaySince.Value) > awayFor)
                {
                    throw new MigrationException(
                        e.ErrorId,
                        e.Kind,
                        $"{e.Message} The server has stayed away for {Durations.Text(Stopwatch.GetElapsedTime(awaySince.Value))}; how what was waited for ended is not known: {string.Join("; ", awaited.Select(Name))}.",
                        "When the server is there again, run the command again: what goes on is waited for; Get-MigrationHistory tells how operations of this module ended.",
                        e)
                    {
                        SqlState = e.SqlState,
                    };
                }
            }

            await Task.Delay(interval, cancellationToken).ConfigureAwait(false);
        }

        // Whether nothing is left to be waited for.
        async Task<bool> LookAsync()
        {
            IReadOnlyList<MigrationProgress> found = await reader.SampleAsync(sink, cancellationToken).ConfigureAwait(false);
            foreach (string warning in reader.Tracker.Warnings.Where(said.Add))
            {
                sink.Warning(warning);
            }

            bool first = awaited is null;
            if (first && reader.IsPartial)
            {
                // What is to be waited for is not known yet.
                return false;
            }

            foreach (OperationTrack track in Look(reader.Tracker, told, ref awaited))
            {
                // Remembered until it was told: asking how it ended may be what meets the lost connection.
                ended(await Answers.WithinAsync(token => ResultAsync(session, reader, track, sink, token), s_grace + Answers.Patience(interval), session, late: null, cancellationToken).ConfigureAwait(false));
                told.Add(track);
            }

            // One that stands for what its statement has yet to do stays, until there is something of that.
            awaited.RemoveAll(track => told.Contains(track) && (Idle(track) || !reader.Tracker.IsAtWork(track) || awaited.Exists(other => !told.Contains(other) && IsSameStatement(other, track))));
            told.IntersectWith(awaited);

            awaySince = null;
            if (awaited.Count == 0)
            {
                if (first)
                {
                    sink.Verbose($"Nothing runs now that could be waited for ({session.Info}).");
                }

                return true;
            }

            Report(session.Info, [.. found.Where(row => awaited.Any(track => track.Last.Pid == row.Pid))], sink);
            return false;
        }
    }

    /// <summary>Whether another connection may succeed a while later.</summary>
    private static bool IsPassing(MigrationException e) => e.Kind is MigrationErrorKind.Connection or MigrationErrorKind.Timeout or MigrationErrorKind.Busy or MigrationErrorKind.Resource or MigrationErrorKind.Stopped;

    private static string Name(OperationTrack track) => string.Join(' ', new[] { track.State.Operation, track.Said.Index ?? track.Said.Target }.OfType<string>());

    /// <summary>Brings what is awaited up to date.</summary>
    /// <returns>Those of it that are over, and were not told yet.</returns>
    private static List<OperationTrack> Look(ProgressTracker tracker, HashSet<OperationTrack> told, [NotNull] ref List<OperationTrack>? awaited)
    {
        bool first = awaited is null;
        // What an operation of this module is at changes; it is awaited as a whole, as what it was last seen at.
        List<OperationTrack> now =
        [
            .. (awaited ?? []).Select(track => tracker.Running.Contains(track) || track.EntryId is not { } id ? track : tracker.Running.FirstOrDefault(other => other.EntryId == id) ?? track).Distinct(),
        ];
        foreach (OperationTrack track in tracker.Running.Where(track => !Idle(track) && !now.Exists(other => other == track || (other.EntryId is not null && other.EntryId == track.EntryId))))
        {
            // A statement that goes from table to table, or from index to index, goes on under another name; the session's next statement is none that was waited for.
            if (first || now.Exists(other => IsSameStatement(other, track)))
            {
                now.Add(track);
            }
        }

        // What was queued for its lock, and is shown by a view since it has it, is one operation.
        now.RemoveAll(track => track.Last.View == ProgressQueries.Ddl && OwnModels.HasView(track.State.Operation) && !tracker.Running.Contains(track)
            && now.Exists(other => other.Last.View != ProgressQueries.Ddl && IsSameStatement(other, track) && other.Last.Number("relid") == track.Last.Number("relid")));
        List<OperationTrack> over =
        [
            .. now.Where(track => !told.Contains(track) && (Idle(track) || !(tracker.Running.Contains(track) || (track.EntryId is { } id && tracker.Entries.Contains(id)) || tracker.GoesOn(track)))),
        ];
        // An ALTER TABLE that was seen waiting, and then building an index, is one operation.
        foreach (IGrouping<(int, DateTime?, DateTime?, long?), OperationTrack> statement in over
            .Where(track => track.Last.View == ProgressQueries.Ddl || (track.Last.View == "create_index" && track.Last.Text("command") == "CREATE INDEX"))
            .GroupBy(track => (track.Last.Pid, track.Last.BackendStart, track.Last.Started, track.Last.Number("relid"))).ToArray())
        {
            OperationTrack whole = statement.LastOrDefault(track => track.Last.View == ProgressQueries.Ddl) ?? statement.Last();
            now.RemoveAll(track => track != whole && statement.Contains(track));
        }

        awaited = now;
        return [.. over.Where(now.Contains)];
    }

    private static bool IsSameStatement(OperationTrack one, OperationTrack other) => one.Last.IsSameStatement(other.Last);

    private static bool Idle(OperationTrack track) => track.State.Endless || OwnModels.IsAtRest(track.State.Phase);

    private static async Task<ProgressResult> ResultAsync(EngineSession session, ProgressReader reader, OperationTrack track, IOperationSink sink, CancellationToken cancellationToken)
    {
        DateTime missed = reader.Tracker.Time;
        ProgressSample whole = track.Entry ?? track.Last;
        (ProgressOutcome outcome, string detail) = (ProgressOutcome.Ended, "");
        await using (NpgsqlConnection connection = await session.OpenAsync("progress", sink, cancellationToken).ConfigureAwait(false))
        {
            try
            {
                // This module's tables may be locked by somebody for long.
                await using (NpgsqlCommand limit = new("select pg_catalog.set_config('lock_timeout', '100ms', false)", connection))
                {
                    await limit.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
                }

                for (DateTime start = DateTime.UtcNow; ;)
                {
                    (outcome, detail) = await ProgressEnds.OfAsync(connection, track, cancellationToken).ConfigureAwait(false);
                    if (outcome is ProgressOutcome.Finished or ProgressOutcome.Cancelled || DateTime.UtcNow - start > s_grace)
                    {
                        break;
                    }

                    await Task.Delay(TimeSpan.FromMilliseconds(200), cancellationToken).ConfigureAwait(false);
                }
            }
            catch (NpgsqlException e)
            {
                throw ServerErrors.Translate(e, "Asking how an operation ended", track.Last.Target);
            }
        }

        return new ProgressResult
        {
            Pid = track.Last.Pid,
            Operation = track.State.Operation,
            Target = whole.Target ?? track.Said.Target,
            Index = whole.Target == track.Last.Target ? track.Said.Index : null,
            Name = track.Last.BackfillName,
            Outcome = outcome,
            Detail = detail,
            Elapsed = whole.Elapsed,
            EndedAt = new DateTimeOffset(missed, TimeSpan.Zero).ToLocalTime(),
            Query = track.Last.Query,
            User = track.Last.User,
            Application = track.Last.Application,
            Server = session.Info.Server,
            Port = session.Info.Port,
            Database = track.Last.Database,
            Origin = session.Info,
        };
    }

    /// <summary>One bar a session: how far the last of them is, as far as can be told.</summary>
    private static void Report(MigrationSession session, MigrationProgress[] rows, IOperationSink sink)
    {
        if (rows.Length == 0)
        {
            return;
        }

        static string Text(MigrationProgress row) =>
            string.Join(", ", new[] { string.Join(' ', new[] { row.Operation, row.Index ?? row.Target, (row.Percent is { } percent ? Math.Floor(percent) : (double?)null)?.ToString("0'%'", CultureInfo.CurrentCulture) }.OfType<string>()), row.Phase }.OfType<string>());
        MigrationProgress slowest = rows.OrderBy(row => row.Remaining ?? TimeSpan.MaxValue).Last();
        // What is waited for before where: PowerShell's default bar begins with the activity, and cuts it at half of the line.
        sink.Progress(new OperationProgress(
            Text(slowest) + (rows.Length > 1 ? string.Create(CultureInfo.CurrentCulture, $"; and {rows.Length - 1:N0} more") : ""),
            $"Waiting on {session}",
            rows.Min(row => row.Percent),
            slowest.Remaining,
            slowest.WaitingFor is { } waits ? $"Waits for {waits}" : null));
    }
}
