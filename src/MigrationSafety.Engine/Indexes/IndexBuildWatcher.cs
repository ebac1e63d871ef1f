using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Tells how far a build is while it runs, from a connection of its own, and notices when the network is gone.</summary>
internal sealed class IndexBuildWatcher : IAsyncDisposable
{
    private static readonly TimeSpan s_every = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan s_answerToCancel = TimeSpan.FromSeconds(3);

    private readonly EngineSession _session;
    private readonly IOperationSink _sink;
    private readonly string _activity;
    private readonly int _pid;
    private readonly TimeSpan _silence;
    private readonly CancellationToken _cancelled;
    private readonly CancellationTokenSource _stop = new();
    private readonly TaskCompletionSource _lost = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task _loop;
    private readonly ProgressTracker _tracker;
    private long? _waitingSince;

    private IndexBuildWatcher(EngineSession session, IOperationSink sink, string activity, int pid, TimeSpan silence, CancellationToken cancellationToken)
    {
        _session = session;
        _sink = sink;
        _activity = activity;
        _pid = pid;
        _silence = silence;
        _cancelled = cancellationToken;
        _tracker = new ProgressTracker(session.Info, new ProgressFilter { Pid = pid, ViewsOnly = true });
        _loop = Task.Run(WatchAsync, CancellationToken.None);
    }

    /// <summary>
    /// Completes when the server has been silent for too long, or has not answered to a cancellation. What runs on its connections is then to be left behind, not
    /// cancelled and not awaited: a driver that cancels waits for the server's answer, for ever where the network swallows it.
    /// </summary>
    internal Task Lost => _lost.Task;

    internal static IndexBuildWatcher Start(EngineSession session, IOperationSink sink, string activity, int pid, TimeSpan silence, CancellationToken cancellationToken) =>
        new(session, sink, activity, pid, silence, cancellationToken);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _loop.ConfigureAwait(false);
        _stop.Dispose();
        _sink.Record(new PhaseEndEvent(_pid));
        _sink.Progress(new OperationProgress(_activity, "Done", 100, Completed: true));
    }

    private async Task WatchAsync()
    {
        long began = Stopwatch.GetTimestamp();
        long answered = began;
        long? cancelledAt = null;
        NpgsqlConnection? connection = null;
        Task<NpgsqlConnection>? sampling = null;
        while (!_stop.IsCancellationRequested && !_lost.Task.IsCompleted)
        {
            // Not cancelled: a sample takes milliseconds, and a frozen connection does not answer to a cancellation either.
            sampling ??= SampleAsync(connection, CancellationToken.None);
            await Task.WhenAny(sampling, Task.Delay(s_every, _stop.Token)).ConfigureAwait(false);
            if (sampling.IsCompleted)
            {
                // No progress to be told (no connection free, for one) is an answer too, unless it is the connection that failed.
                answered = sampling.IsCompletedSuccessfully || IsAnswer(sampling.Exception!.InnerException!) ? Stopwatch.GetTimestamp() : answered;
                connection = sampling.IsCompletedSuccessfully ? await sampling.ConfigureAwait(false) : null;
                sampling = null;
                // The log learns from these looks how long the phases take, which are short where the build is.
                double every = Math.Clamp(Stopwatch.GetElapsedTime(began) / s_every / 40, 0.4, 1);
                await Task.Delay(s_every * every, _stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }

            // Asked, not told: callbacks of a token run one after the other, and one that hangs keeps the others.
            cancelledAt ??= _cancelled.IsCancellationRequested ? Stopwatch.GetTimestamp() : null;
            if (Stopwatch.GetElapsedTime(answered) >= _silence || (cancelledAt is { } since && Stopwatch.GetElapsedTime(since) >= s_answerToCancel))
            {
                _lost.TrySetResult();
            }
        }

        if (sampling is null)
        {
            await using (connection)
            {
                return;
            }
        }

        if (await Task.WhenAny(sampling, Task.Delay(s_every, CancellationToken.None)).ConfigureAwait(false) == sampling && sampling.IsCompletedSuccessfully)
        {
            await (await sampling.ConfigureAwait(false)).DisposeAsync().ConfigureAwait(false);
        }
        else
        {
            Abandon(sampling);
        }
    }

    /// <summary>A server that refuses another connection (too many, a changed password) is there all the same, and so is the build.</summary>
    private static bool IsAnswer(Exception failure)
    {
        for (Exception? e = failure; e is not null; e = e.InnerException)
        {
            if (e is PostgresException server)
            {
                return server.SqlState is not (SqlStates.AdminShutdown or SqlStates.CrashShutdown) && !server.SqlState.StartsWith("08", StringComparison.Ordinal);
            }
        }

        return !ServerErrors.IsConnectionLost(failure);
    }

    private static void Abandon(Task<NpgsqlConnection> sampling) =>
        // Whether it fails or comes to an end one day: nobody waits for it, its connection is closed then.
        _ = sampling.ContinueWith(
            async task =>
            {
                if (task.IsCompletedSuccessfully)
                {
                    await (await task.ConfigureAwait(false)).DisposeAsync().ConfigureAwait(false);
                }

                _ = task.Exception;
            },
            CancellationToken.None,
            TaskContinuationOptions.None,
            TaskScheduler.Default);

    /// <summary>Takes one sample and reports it.</summary>
    /// <returns>The connection, for the next one.</returns>
    private async Task<NpgsqlConnection> SampleAsync(NpgsqlConnection? connection, CancellationToken cancellationToken)
    {
        connection ??= await _session.OpenAsync("progress", _sink, cancellationToken).ConfigureAwait(false);
        try
        {
            IReadOnlyList<MigrationProgress> samples = await _tracker.SampleAsync(connection, cancellationToken).ConfigureAwait(false);
            if (samples is [{ PhaseNumber: not null } build])
            {
                string? waiting = null;
                if (!_stop.IsCancellationRequested)
                {
                    // One that was left behind answers late: its phase has ended.
                    _sink.Record(new PhaseEvent(_pid, build.Operation, build.Index, build.Phase!, build.BlockedBy.Length > 0, build.Total));
                }

                if (build.BlockedBy.Length > 0)
                {
                    IReadOnlyList<LockBlocker> known = await LockObserver.BlockersOfAsync(connection, _pid, cancellationToken).ConfigureAwait(false);
                    waiting = Waiting(known.Count > 0 ? string.Join("; ", known.Select(blocker => blocker.ToString())) : build.WaitingFor);
                }
                else
                {
                    _waitingSince = null;
                }

                Report(build, waiting);
            }

            else if (samples.Count == 0 && await LockObserver.BlockersOfAsync(connection, _pid, cancellationToken).ConfigureAwait(false) is { Count: > 0 } blockers)
            {
                // DROP INDEX CONCURRENTLY has no view.
                _sink.Progress(new OperationProgress(_activity, "waiting", CurrentOperation: Waiting(string.Join("; ", blockers.Select(blocker => blocker.ToString())))));
            }

            return connection;
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private string Waiting(string? who)
    {
        _waitingSince ??= Stopwatch.GetTimestamp();
        return $"Has waited {Durations.Text(Stopwatch.GetElapsedTime(_waitingSince.Value))} for {who}";
    }

    private void Report(MigrationProgress build, string? waiting)
    {
        string numbers = build is { Done: { } done, Total: { } total } ? string.Create(CultureInfo.CurrentCulture, $", {done:N0} of {total:N0} {build.Unit}") : "";
        string rate = build.Rate is > 0 and { } perSecond ? string.Create(CultureInfo.CurrentCulture, $", {perSecond:N0} {build.Unit}/s") : "";
        double? percent = build.Percent is { } exact ? Math.Round(exact, 1) : null;
        _sink.Progress(new OperationProgress(_activity, $"{build.PhaseNumber}/{build.PhaseCount} {build.Phase}{numbers}{rate}", percent, build.Remaining, waiting));
    }
}
