using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Finds out, on a connection of its own, for whom a batch waits.</summary>
internal sealed class BlockerWatch : IAsyncDisposable
{
    private readonly EngineSession _session;
    private readonly IOperationSink _sink;
    private readonly WaitRecorder _recorder;
    private LockObserver? _observer;

    internal BlockerWatch(EngineSession session, string purpose, IOperationSink sink)
    {
        _session = session;
        _sink = sink;
        _recorder = new WaitRecorder(sink, purpose, queued: true);
    }

    /// <summary>Those who were in the way when somebody last was.</summary>
    internal LockBlocker[] Last { get; private set; } = [];

    /// <summary>Looks who blocks a backend. Not being able to look is no reason to fail: the batch itself tells what becomes of it.</summary>
    internal async Task LookAsync(int pid, CancellationToken cancellationToken)
    {
        try
        {
            _observer ??= await LockObserver.OpenAsync(_session, _sink, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<LockBlocker> blockers = await _observer.BlockersOfAsync(pid, cancellationToken).ConfigureAwait(false);
            if (blockers.Count > 0)
            {
                Last = [.. blockers];
                _recorder.Saw(blockers);
            }
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            _sink.Verbose($"Who is in the way cannot be seen: {e.Message}");
            await DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Nobody is in the way any more.</summary>
    internal void Cleared() => _recorder.Saw([]);

    /// <summary>The waits seen so far.</summary>
    internal LockWait[] Waits()
    {
        List<LockWait> waits = [];
        _recorder.AddTo(waits);
        return [.. waits];
    }

    public async ValueTask DisposeAsync()
    {
        if (_observer is { } observer)
        {
            _observer = null;
            await observer.DisposeAsync().ConfigureAwait(false);
        }
    }
}
