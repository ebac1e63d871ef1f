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

    private readonly EngineSession _session;
    private readonly IOperationSink _sink;
    private readonly string _activity;
    private readonly int _pid;
    private readonly TimeSpan _silence;
    private readonly CancellationTokenSource _stop = new();
    private readonly CancellationTokenSource _lost;
    private readonly Task _loop;
    private double _percent;
    private TimeSpan _worked;

    private IndexBuildWatcher(EngineSession session, IOperationSink sink, string activity, int pid, TimeSpan silence, CancellationToken cancellationToken)
    {
        _session = session;
        _sink = sink;
        _activity = activity;
        _pid = pid;
        _silence = silence;
        _lost = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        _loop = Task.Run(WatchAsync, CancellationToken.None);
    }

    /// <summary>Cancelled with the operation, and when the server has not answered for too long: then the build's own connection is given up too.</summary>
    internal CancellationToken Token => _lost.Token;

    /// <summary>Whether the server was silent for too long.</summary>
    internal bool ServerIsSilent { get; private set; }

    internal static IndexBuildWatcher Start(EngineSession session, IOperationSink sink, string activity, int pid, TimeSpan silence, CancellationToken cancellationToken) =>
        new(session, sink, activity, pid, silence, cancellationToken);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _loop.ConfigureAwait(false);
        _stop.Dispose();
        _lost.Dispose();
        _sink.Progress(new OperationProgress(_activity, "Done", 100, Completed: true));
    }

    private async Task WatchAsync()
    {
        long answered = Stopwatch.GetTimestamp();
        NpgsqlConnection? connection = null;
        try
        {
            while (!_stop.IsCancellationRequested)
            {
                // Not cancelled: a sample takes milliseconds, and a frozen connection does not answer to a cancellation either. It is left behind then.
                Task<NpgsqlConnection> sampling = SampleAsync(connection, CancellationToken.None);
                connection = null;
                Task first = await Task.WhenAny(sampling, Task.Delay(_silence, _stop.Token)).ConfigureAwait(false);
                if (first != sampling && _stop.IsCancellationRequested)
                {
                    first = await Task.WhenAny(sampling, Task.Delay(s_every, CancellationToken.None)).ConfigureAwait(false);
                }

                if (first != sampling)
                {
                    Abandon(sampling);
                }
                else if (sampling.IsCompletedSuccessfully)
                {
                    connection = await sampling.ConfigureAwait(false);
                    answered = Stopwatch.GetTimestamp();
                }
                else if (sampling.Exception?.InnerException is { } e && !ServerErrors.IsConnectionLost(e))
                {
                    // No progress to be told (no connection free, for one), but the server answers.
                    answered = Stopwatch.GetTimestamp();
                }

                if (Stopwatch.GetElapsedTime(answered) >= _silence && !_stop.IsCancellationRequested)
                {
                    ServerIsSilent = true;
                    await _lost.CancelAsync().ConfigureAwait(false);
                    return;
                }

                await Task.Delay(s_every, _stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
        finally
        {
            if (connection is not null)
            {
                await connection.DisposeAsync().ConfigureAwait(false);
            }
        }
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
            long start = Stopwatch.GetTimestamp();
            IReadOnlyList<IndexBuildSample> samples = await IndexBuildSample.ReadAsync(connection, _pid, table: null, cancellationToken).ConfigureAwait(false);
            if (samples is [IndexBuildSample sample] && IndexBuildPhase.Of(sample) is { } phase)
            {
                int[] blockers = sample.Blockers();
                string? waiting = null;
                if (blockers.Length > 0)
                {
                    IReadOnlyList<LockBlocker> known = await LockObserver.BlockersOfAsync(connection, _pid, cancellationToken).ConfigureAwait(false);
                    waiting = known.Count > 0 ? "Waits for " + string.Join("; ", known.Select(blocker => blocker.ToString())) : "Waits for " + sample.Waiting();
                }
                else
                {
                    _worked += s_every + Stopwatch.GetElapsedTime(start);
                }

                Report(sample, phase, waiting);
            }

            return connection;
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private void Report(IndexBuildSample sample, IndexBuildPhase phase, string? waiting)
    {
        // The table grows while it is scanned, and the shares of the phases are assumed: what was said stays said.
        _percent = Math.Max(_percent, phase.Overall);
        TimeSpan? remaining = waiting is null && _percent is > 5 and < 100 ? _worked * ((100 - _percent) / _percent) : null;
        string numbers = phase is { Done: { } done, Total: { } total } ? string.Create(CultureInfo.CurrentCulture, $", {done:N0} of {total:N0} {phase.Unit}") : "";
        _sink.Progress(new OperationProgress(_activity, $"{phase.Number}/{phase.Count} {sample.Phase}{numbers}", Math.Round(_percent, 1), remaining, waiting));
    }
}
