using System.Diagnostics;
using MigrationSafety.Engine.Locks;

namespace MigrationSafety.Engine.Execution;

/// <summary>Cancels or ends those who have been in the way of one statement for longer than the grace period; each is asked once, and what came of it is said.</summary>
internal sealed class BlockerEnder(ExecutionOptions options, IOperationSink sink, string purpose)
{
    // A session that rolls back much, or whose client reads nothing, takes its time to end.
    private static readonly TimeSpan s_answerWithin = TimeSpan.FromSeconds(5);

    // When each was asked; null where there is nothing more to say of it.
    private readonly Dictionary<(int Pid, DateTimeOffset? Start, string? Gid), long?> _asked = [];

    /// <summary>Deals with those who are in the way now.</summary>
    internal async Task EndAsync(LockObserver observer, IReadOnlyList<LockBlocker> blockers, CancellationToken cancellationToken)
    {
        bool terminate = options.BlockerAction == BlockerAction.Terminate;
        foreach (LockBlocker blocker in blockers)
        {
            (int, DateTimeOffset?, string?) key = (blocker.Pid, blocker.BackendStart, blocker.Pid == 0 ? blocker.Query : null);
            if (_asked.TryGetValue(key, out long? asked))
            {
                if (asked is { } at && Stopwatch.GetElapsedTime(at) > s_answerWithin)
                {
                    _asked[key] = null;
                    sink.Warning($"{purpose}: {blocker} is still in the way {Durations.Text(Stopwatch.GetElapsedTime(at))} after it was asked to {(terminate ? "end" : "cancel its statement")}.");
                }
            }
            else if (IsAgeHidden(blocker))
            {
                _asked[key] = null;
                sink.Warning($"{purpose}: {blocker} is in the way and was left alone: its age is hidden from this role (GRANT pg_read_all_stats shows it).");
            }
            // Who came while others were waited for has a grace period of its own.
            else if (blocker.TransactionAge > options.BlockerGracePeriod)
            {
                SessionEnd end = blocker.Pid == 0
                    ? new(Locks.EndRefusal.Guarded, "it is a prepared transaction: only COMMIT PREPARED or ROLLBACK PREPARED ends it")
                    : await observer.EndAsync(blocker, terminate, cancellationToken).ConfigureAwait(false);
                _asked[key] = end.Signalled ? Stopwatch.GetTimestamp() : null;
                sink.Warning(end.Signalled
                    ? $"{purpose}: asked the server to {(terminate ? "end" : "cancel the statement of")} {blocker}, which was in the way for longer than {Durations.Text(options.BlockerGracePeriod)}."
                    : $"{purpose}: {blocker} is in the way and was left alone: {end.Why}.");
            }
        }
    }

    /// <summary>Without pg_read_all_stats the server hides everything about others' sessions but their user.</summary>
    private static bool IsAgeHidden(LockBlocker blocker) => blocker is { Pid: not 0, TransactionAge: null, BackendStart: null };
}
