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

    /// <summary>Waits for those that run when it is called; backfills that nobody works on and streams that never end are none.</summary>
    /// <param name="session">Session.</param>
    /// <param name="filter">Which operations.</param>
    /// <param name="interval">Time from one look to the next.</param>
    /// <param name="ended">Told of each as soon as it is over.</param>
    /// <param name="sink">Progress while it waits; a warning where this role is not shown everything.</param>
    /// <param name="cancellationToken">Cancels the waiting; the operations go on.</param>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>InvalidName</c>, or the connection's.</exception>
    public static async Task RunAsync(
        EngineSession session,
        ProgressFilter filter,
        TimeSpan interval,
        Action<ProgressResult> ended,
        IOperationSink sink,
        CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        ArgumentNullException.ThrowIfNull(ended);
        ArgumentNullException.ThrowIfNull(sink);
        await using ProgressReader reader = new(session, filter);
        WarnsOnce once = new(sink);
        HashSet<OperationTrack> awaited = [];
        for (bool first = true; ; first = false)
        {
            IReadOnlyList<MigrationProgress> found = await reader.ReadAsync(once, cancellationToken).ConfigureAwait(false);
            List<OperationTrack> gone = [.. awaited.Where(track => !reader.Tracker.Running.Contains(track))];
            // A statement that goes from table to table, or from index to index, goes on under another name; the session's next statement is none that was waited for.
            awaited.UnionWith(reader.Tracker.Running.Where(track => !Idle(track) && (first || gone.Any(over => IsSameStatement(over.Last, track.Last)))));
            gone.AddRange(awaited.Where(track => Idle(track) && !gone.Contains(track)));
            foreach (OperationTrack track in gone)
            {
                awaited.Remove(track);
                ended(await ResultAsync(session, reader, track, sink, cancellationToken).ConfigureAwait(false));
            }

            if (awaited.Count == 0)
            {
                if (first)
                {
                    sink.Verbose($"Nothing runs now that could be waited for ({session.Info}).");
                }

                return;
            }

            Report(session.Info, [.. found.Where(row => awaited.Any(track => track.Last.Pid == row.Pid))], sink);
            await Task.Delay(interval, cancellationToken).ConfigureAwait(false);
        }
    }

    private static bool IsSameStatement(ProgressSample one, ProgressSample other) =>
        one.Pid == other.Pid && one.BackendStart == other.BackendStart && one.Started == other.Started;

    private static bool Idle(OperationTrack track) => track.State.Endless || OwnModels.IsAtRest(track.State.Phase);

    private static async Task<ProgressResult> ResultAsync(EngineSession session, ProgressReader reader, OperationTrack track, IOperationSink sink, CancellationToken cancellationToken)
    {
        DateTime missed = reader.Tracker.Time;
        (ProgressOutcome outcome, string detail) = (ProgressOutcome.Ended, "");
        await using (NpgsqlConnection connection = await session.OpenAsync("progress", sink, cancellationToken).ConfigureAwait(false))
        {
            try
            {
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
            Target = track.Last.Target,
            Index = track.Last.Index,
            Outcome = outcome,
            Detail = detail,
            Elapsed = track.Last.Elapsed,
            EndedAt = new DateTimeOffset(missed, TimeSpan.Zero).ToLocalTime(),
            Query = track.Last.Query,
            User = track.Last.User,
            Application = track.Last.Application,
            Server = session.Info.Server,
            Port = session.Info.Port,
            Database = track.Last.Database,
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
            string.Join(", ", new[] { string.Join(' ', new[] { row.Operation, row.Index ?? row.Target, row.Percent?.ToString("0'%'", CultureInfo.CurrentCulture) }.OfType<string>()), row.Phase }.OfType<string>());
        MigrationProgress slowest = rows.OrderBy(row => row.Remaining ?? TimeSpan.MaxValue).Last();
        // What is waited for before where: PowerShell's default bar begins with the activity, and cuts it at half of the line.
        sink.Progress(new OperationProgress(
            string.Join("; ", rows.Select(Text)),
            $"Waiting on {session}",
            rows.Min(row => row.Percent),
            slowest.Remaining,
            slowest.WaitingFor is { } waits ? $"Waits for {waits}" : null));
    }

    /// <summary>Each look says again what this role is not shown.</summary>
    private sealed class WarnsOnce(IOperationSink sink) : IOperationSink
    {
        private readonly HashSet<string> _said = new(StringComparer.Ordinal);

        public void Verbose(string message) => sink.Verbose(message);

        public void Debug(string message) => sink.Debug(message);

        public void Warning(string message)
        {
            if (_said.Add(message))
            {
                sink.Warning(message);
            }
        }

        public void Progress(OperationProgress progress) => sink.Progress(progress);
    }
}
