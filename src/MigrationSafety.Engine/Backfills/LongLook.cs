using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// A look at a whole table, which lasts as long as it lasts. It locks no row; but whoever wants the table for a moment alone queues behind it, and everybody else behind him:
/// where somebody has queued for the lock timeout, it ends, lets him pass and begins again.
/// </summary>
internal sealed class LongLook
{
    // Before the next attempt to see anything, where that failed.
    private static readonly TimeSpan s_unseen = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan s_grace = TimeSpan.FromMilliseconds(200);

    private readonly EngineSession _session;
    private readonly IOperationSink _sink;
    private readonly string _what;
    private readonly string _table;
    private readonly TimeSpan _interval;
    private readonly TimeSpan _retryFor;

    /// <param name="session">Session.</param>
    /// <param name="what">What is looked for, as the beginning of a sentence.</param>
    /// <param name="table">Table, as it is shown.</param>
    /// <param name="lockTimeout">How long anybody may queue behind it.</param>
    /// <param name="retryFor">How long to pause, in all, between attempts in vain.</param>
    /// <param name="sink">Where it reports to.</param>
    internal LongLook(EngineSession session, string what, string table, TimeSpan lockTimeout, TimeSpan retryFor, IOperationSink sink)
    {
        _session = session;
        _sink = sink;
        _what = what;
        _table = table;
        // Who is seen at two looks has queued between one interval and two.
        _interval = lockTimeout / 2;
        _retryFor = retryFor;
    }

    /// <summary>Looks.</summary>
    /// <typeparam name="T">What is found.</typeparam>
    /// <param name="backend">The backend that looks.</param>
    /// <param name="look">One statement, or one transaction.</param>
    /// <param name="again">After which errors to begin again, besides that of making way.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>TableBusy</c>: it never came to an end.</exception>
    internal async Task<T> RunAsync<T>(int backend, Func<Task<T>> look, Func<PostgresException, bool> again, CancellationToken cancellationToken)
    {
        TimeSpan paused = TimeSpan.Zero;
        IReadOnlyList<LockBlocker> queue = [];
        for (int attempt = 1; ; attempt++)
        {
            Task<T> looking = look();
            IReadOnlyList<LockBlocker> behind = await MakeWayAsync(backend, looking, cancellationToken).ConfigureAwait(false);
            try
            {
                return await looking.ConfigureAwait(false);
            }
            catch (PostgresException e) when (again(e) || (behind.Count > 0 && e.SqlState == SqlStates.QueryCanceled))
            {
                if (paused > _retryFor)
                {
                    throw Busy(attempt, behind.Count > 0 ? behind : queue, e);
                }

                if (behind.Count > 0 && queue.Count == 0)
                {
                    _sink.Warning($"{_what} makes way for who queues behind it, and begins again: {string.Join("; ", behind)}");
                }
                else
                {
                    _sink.Verbose($"{_what} was broken off ({ServerErrors.Words(e)}); begins again.");
                }
            }

            queue = behind.Count > 0 ? behind : queue;
            long pause = Stopwatch.GetTimestamp();
            await BackfillContext.PauseAsync(attempt, cancellationToken).ConfigureAwait(false);
            paused += Stopwatch.GetElapsedTime(pause);
        }
    }

    /// <summary>Cancels the look where somebody has queued behind it for too long. A network that swallows what is asked holds up no look that has ended.</summary>
    /// <returns>For whom.</returns>
    private async Task<IReadOnlyList<LockBlocker>> MakeWayAsync(int backend, Task looking, CancellationToken cancellationToken)
    {
        LockObserver? observer = null;
        HashSet<int> before = [];
        TimeSpan pause = _interval;
        while (await Task.WhenAny(looking, Task.Delay(pause, cancellationToken)).ConfigureAwait(false) != looking && !cancellationToken.IsCancellationRequested)
        {
            Task<(LockObserver Observer, LockBlocker[] Behind, bool Cancelled)> seeing = SeeAsync(observer, backend, before);
            await Task.WhenAny(seeing, looking, Task.Delay(s_patience, cancellationToken)).ConfigureAwait(false);
            // A look that ends meanwhile may have been cancelled.
            await Task.WhenAny(seeing, Task.Delay(s_grace, CancellationToken.None)).ConfigureAwait(false);
            observer = null;
            if (!seeing.IsCompletedSuccessfully)
            {
                // No reason to fail: the look itself tells what becomes of it.
                if (!looking.IsCompleted)
                {
                    _sink.Verbose($"Who queues behind {_what} cannot be seen: {seeing.Exception?.InnerException?.Message ?? "the server does not answer."}");
                }

                _ = LeaveAsync(seeing);
                (before, pause) = ([], s_unseen);
                continue;
            }

            (observer, LockBlocker[] behind, bool cancelled) = await seeing.ConfigureAwait(false);
            if (cancelled)
            {
                await observer.DisposeAsync().ConfigureAwait(false);
                return [.. behind.Where(session => before.Contains(session.Pid))];
            }

            (before, pause) = ([.. behind.Select(session => session.Pid)], _interval);
        }

        if (observer is not null)
        {
            await observer.DisposeAsync().ConfigureAwait(false);
        }

        return [];
    }

    /// <summary>Looks who queues, and cancels the look where somebody does who did before.</summary>
    private async Task<(LockObserver Observer, LockBlocker[] Behind, bool Cancelled)> SeeAsync(LockObserver? observer, int backend, HashSet<int> before)
    {
        observer ??= await LockObserver.OpenAsync(_session, _sink, CancellationToken.None).ConfigureAwait(false);
        try
        {
            LockBlocker[] behind = [.. await observer.BehindAsync(backend, CancellationToken.None).ConfigureAwait(false)];
            return (observer, behind, behind.Any(session => before.Contains(session.Pid)) && await observer.CancelAsync(backend, CancellationToken.None).ConfigureAwait(false));
        }
        catch
        {
            await observer.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private static async Task LeaveAsync(Task<(LockObserver Observer, LockBlocker[] Behind, bool Cancelled)> seeing)
    {
        await ((Task)seeing).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (seeing.IsCompletedSuccessfully)
        {
            await (await seeing.ConfigureAwait(false)).Observer.DisposeAsync().ConfigureAwait(false);
        }
    }

    private MigrationException Busy(int attempts, IReadOnlyList<LockBlocker> queue, PostgresException e) => new(
        "TableBusy",
        MigrationErrorKind.Busy,
        $"{_what} was begun {attempts:N0} times and never came to an end: {(queue.Count == 0 ? ServerErrors.Words(e) : $"it made way for {string.Join("; ", queue)}")}",
        $"Run the command again when nobody changes {_table} itself.",
        e)
    {
        SqlState = SqlStates.LockNotAvailable,
        Target = _table,
        Blockers = [.. queue],
    };
}
