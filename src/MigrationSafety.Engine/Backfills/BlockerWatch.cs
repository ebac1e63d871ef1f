using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Finds out, on a connection of its own, for whom a batch waits.</summary>
internal sealed class BlockerWatch : IAsyncDisposable
{
    /// <summary>What the words of a wait begin with.</summary>
    internal const string WaitsFor = "waits for ";

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    private readonly EngineSession _session;
    private readonly IOperationSink _sink;
    private readonly WaitRecorder _recorder;
    private LockObserver? _observer;
    private Task _look = Task.CompletedTask;
    private long _waitsSince;

    internal BlockerWatch(EngineSession session, string purpose, IOperationSink sink)
    {
        _session = session;
        _sink = sink;
        _recorder = new WaitRecorder(sink, purpose, queued: true);
    }

    /// <summary>Those who were in the way when somebody last was.</summary>
    internal LockBlocker[] Last { get; private set; } = [];

    /// <summary>For whom it waits now, where that has lasted for seconds; null where it does not.</summary>
    internal string? Waiting => Interlocked.Read(ref _waitsSince) is not 0 and var since && Stopwatch.GetElapsedTime(since) > s_patience ? $"{WaitsFor}{string.Join("; ", Last.Select(blocker => blocker.ToString()))}" : null;

    /// <summary>Looks who blocks a backend. Not being able to look is no reason to fail: the batch itself tells what becomes of it.</summary>
    internal async Task LookAsync(int pid, CancellationToken cancellationToken)
    {
        _look = TryLookAsync(pid);
        try
        {
            await _look.WaitAsync(s_patience, cancellationToken).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            _sink.Verbose("Who is in the way cannot be seen: the server does not answer.");
            await DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Nobody is in the way any more.</summary>
    internal void Cleared()
    {
        Interlocked.Exchange(ref _waitsSince, 0);
        _recorder.Saw([]);
    }

    /// <summary>The waits seen so far.</summary>
    internal LockWait[] Waits()
    {
        List<LockWait> waits = [];
        _recorder.AddTo(waits);
        return [.. waits];
    }

    public async ValueTask DisposeAsync()
    {
        LockObserver? observer = _observer;
        _observer = null;
        if (!_look.IsCompleted)
        {
            // A connection cannot be closed under its statement.
            _ = _look.ContinueWith(_ => observer?.DisposeAsync().AsTask() ?? Task.CompletedTask, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        }
        else if (observer is not null)
        {
            await observer.DisposeAsync().ConfigureAwait(false);
        }
    }

    // Not cancelled but left alone: a driver that tells a dead network to cancel waits for it.
    private async Task TryLookAsync(int pid)
    {
        try
        {
            _observer ??= await LockObserver.OpenAsync(_session, _sink, CancellationToken.None).ConfigureAwait(false);
            IReadOnlyList<LockBlocker> blockers = await _observer.BlockersOfAsync(pid, CancellationToken.None).ConfigureAwait(false);
            if (blockers.Count > 0)
            {
                Last = [.. blockers];
                Interlocked.CompareExchange(ref _waitsSince, Stopwatch.GetTimestamp(), 0);
                _recorder.Saw(blockers);
            }
        }
        catch (Exception e)
        {
            _sink.Verbose($"Who is in the way cannot be seen: {e.Message}");
            if (_observer is { } observer)
            {
                _observer = null;
                await observer.DisposeAsync().ConfigureAwait(false);
            }
        }
    }
}
