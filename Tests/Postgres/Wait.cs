using System.Diagnostics;

namespace MigrationSafety.Tests.Postgres;

/// <summary>Waits for conditions, so that no test ever waits for time.</summary>
public static class Wait
{
    private static readonly TimeSpan s_defaultTimeout = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_pollInterval = TimeSpan.FromMilliseconds(20);

    /// <summary>Asks every 20 ms until the condition holds.</summary>
    /// <param name="condition">The condition. What it throws is thrown on at once.</param>
    /// <param name="what">What is awaited, for the message when it does not come: "the index to be valid".</param>
    /// <param name="timeout">How long at most; 30 seconds if null.</param>
    /// <param name="cancellationToken">Ends the waiting.</param>
    /// <exception cref="TimeoutException">The condition did not hold in time; the message has <paramref name="what"/>.</exception>
    public static async Task UntilAsync(
        Func<Task<bool>> condition, string what, TimeSpan? timeout = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(condition);
        TimeSpan limit = timeout ?? s_defaultTimeout;
        long start = Stopwatch.GetTimestamp();
        while (!await condition().ConfigureAwait(false))
        {
            if (Stopwatch.GetElapsedTime(start) > limit)
                throw new TimeoutException($"Waited {limit.TotalSeconds:0.#} s in vain for {what}.");

            await Task.Delay(s_pollInterval, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Asks every 20 ms until the condition holds.</summary>
    /// <inheritdoc cref="UntilAsync(Func{Task{bool}}, string, TimeSpan?, CancellationToken)"/>
    public static Task UntilAsync(
        Func<bool> condition, string what, TimeSpan? timeout = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(condition);
        return UntilAsync(() => Task.FromResult(condition()), what, timeout, cancellationToken);
    }
}
