using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Engine.Execution;

/// <summary>Waits for answers of a server, but not for as long as the network takes to notice that it swallows them: a quarter of an hour.</summary>
public static class Answers
{
    private static readonly TimeSpan s_least = TimeSpan.FromSeconds(10);
    // Telling a dead network to cancel takes the driver as long as connecting may take.
    private static readonly TimeSpan s_leave = TimeSpan.FromSeconds(1);

    /// <summary>How long a look that is taken again and again may take.</summary>
    /// <param name="interval">Time from one look to the next.</param>
    /// <returns>Ten seconds, or three intervals where that is longer.</returns>
    public static TimeSpan Patience(TimeSpan interval) => interval > s_least / 3 ? 3 * interval : s_least;

    /// <summary>Asks, and waits for the answer no longer than that.</summary>
    /// <typeparam name="T">Answer.</typeparam>
    /// <param name="ask">Asks, on a connection that nobody else goes on with.</param>
    /// <param name="patience">How long.</param>
    /// <param name="session">Who is asked.</param>
    /// <param name="late">What becomes of an answer that comes too late; null for nothing.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The answer.</returns>
    /// <exception cref="MigrationException"><c>ConnectionLost</c>, or what asking ended with.</exception>
    public static async Task<T> WithinAsync<T>(Func<CancellationToken, Task<T>> ask, TimeSpan patience, EngineSession session, Func<T, ValueTask>? late, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(ask);
        ArgumentNullException.ThrowIfNull(session);
        using CancellationTokenSource stop = new();
        // Not in line, and of what is left behind no more: a driver that cancels waits for the server's answer, and keeps the others that are to be cancelled.
        using CancellationTokenRegistration cancelled = cancellationToken.Register(() => _ = stop.CancelAsync());
        Task<T> asking = ask(stop.Token);
        await Task.WhenAny(asking, Task.Delay(patience, cancellationToken)).ConfigureAwait(false);
        if (!asking.IsCompleted && cancellationToken.IsCancellationRequested)
        {
            // A server that is alive ends its statement by then.
            await Task.WhenAny(asking, Task.Delay(s_leave, CancellationToken.None)).ConfigureAwait(false);
        }

        if (asking.IsCompleted)
        {
            return await asking.ConfigureAwait(false);
        }

        _ = EndAsync(asking, late);
        cancellationToken.ThrowIfCancellationRequested();
        throw new MigrationException(
            "ConnectionLost",
            MigrationErrorKind.Connection,
            $"The server has not answered for {Durations.Text(patience)}; the connection counts as lost.",
            "Check the network and that the server runs, then run the command again.")
        {
            Target = session.Info.ToString(),
        };
    }

    private static async Task EndAsync<T>(Task<T> asking, Func<T, ValueTask>? late)
    {
        // Whether it fails or comes to an end one day: nobody waits for it.
        await ((Task)asking).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (asking.IsCompletedSuccessfully && late is not null)
        {
            await late(await asking.ConfigureAwait(false)).ConfigureAwait(false);
        }
    }
}
