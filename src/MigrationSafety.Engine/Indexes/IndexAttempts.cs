using System.Diagnostics;
using System.Security.Cryptography;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>
/// Tries a piece of work on an <see cref="IndexWorker"/> again where that can help: after a deadlock, behind a lock, and after a lost connection. Never where somebody ended it.
/// </summary>
internal sealed class IndexAttempts
{
    // Each may have cost hours, and what ended it (the server's memory, for one) ends the next one too.
    private const int MostLongAttempts = 3;

    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(30);

    private readonly EngineSession _session;
    private readonly string _operation;
    private readonly ExecutionOptions _options;
    private readonly TimeSpan _silence;
    private readonly IOperationSink _sink;
    private DateTimeOffset? _serverStart;

    /// <summary>Makes a loop; it tries for as long as <see cref="ExecutionOptions.RetryFor"/> allows, and no more than three times where each attempt lasted longer than that.</summary>
    /// <param name="session">Session.</param>
    /// <param name="operation">Short name, as in application_name.</param>
    /// <param name="options">Bounds.</param>
    /// <param name="silence">How long the server may say nothing before the network counts as lost.</param>
    /// <param name="sink">A warning for each attempt that failed.</param>
    internal IndexAttempts(EngineSession session, string operation, ExecutionOptions options, TimeSpan silence, IOperationSink sink)
    {
        _session = session;
        _operation = operation;
        _options = options;
        _silence = silence;
        _sink = sink;
    }

    /// <summary>Runs the work until it succeeds, or fails for good.</summary>
    /// <param name="attempt">One attempt; each has a connection of its own and starts by looking what is there.</param>
    /// <param name="doing">What it does, as a noun with a capital, for errors of the server; asked when one is to be told.</param>
    /// <param name="target">What it is about.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException">The last failure.</exception>
    internal async Task<T> RunAsync<T>(Func<IndexWorker, CancellationToken, Task<T>> attempt, Func<string> doing, string target, CancellationToken cancellationToken)
    {
        long failingSince = Stopwatch.GetTimestamp();
        int longAttempts = 0;
        for (int number = 1; ; number++)
        {
            long start = Stopwatch.GetTimestamp();
            try
            {
                return await OnceAsync(attempt, doing, target, cancellationToken).ConfigureAwait(false);
            }
            catch (MigrationException e)
            {
                TimeSpan pause = Pause(number);
                // A step that did not get its lock was tried for as long as is allowed already.
                bool lockGivenUp = e is { SqlState: SqlStates.LockNotAvailable, InnerException: MigrationException };
                bool again = !lockGivenUp && (e.SqlState is SqlStates.DeadlockDetected or SqlStates.LockNotAvailable || e.Kind == MigrationErrorKind.Connection);
                if (again && e.SqlState == SqlStates.AdminShutdown && await ServerStillRunsAsync(cancellationToken).ConfigureAwait(false))
                {
                    throw TerminatedByOther(e);
                }

                if (Stopwatch.GetElapsedTime(start) > _options.RetryFor)
                {
                    // A build that ran for hours and lost its connection has not been failing for hours.
                    failingSince = Stopwatch.GetTimestamp();
                    longAttempts++;
                }

                if (!again || longAttempts == MostLongAttempts || Stopwatch.GetElapsedTime(failingSince) + pause > _options.RetryFor)
                {
                    throw;
                }

                _sink.Warning($"{e.Message} Next attempt in {Durations.Text(pause)}.");
                await Task.Delay(pause, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task<T> OnceAsync<T>(Func<IndexWorker, CancellationToken, Task<T>> attempt, Func<string> doing, string target, CancellationToken cancellationToken)
    {
        try
        {
            await using IndexWorker worker = await IndexWorker.OpenAsync(_session, _operation, _options, _silence, _sink, cancellationToken).ConfigureAwait(false);
            _serverStart ??= await ServerStartAsync(worker.Connection, cancellationToken).ConfigureAwait(false);
            return await attempt(worker, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, doing(), target);
        }
    }

    private static TimeSpan Pause(int attempt)
    {
        double bound = Math.Min(s_longestPause.TotalMilliseconds, 500 * Math.Pow(2, Math.Min(attempt - 1, 20)));
        // At least half of it: a server that restarts needs a moment.
        return TimeSpan.FromMilliseconds((bound / 2) + RandomNumberGenerator.GetInt32((int)(bound / 2) + 1));
    }

    private static async Task<DateTimeOffset> ServerStartAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.pg_postmaster_start_time()", connection);
        return (DateTime)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    /// <summary>Whether the server runs on since the first attempt: then it was this session that somebody ended, not the server.</summary>
    private async Task<bool> ServerStillRunsAsync(CancellationToken cancellationToken)
    {
        try
        {
            await using NpgsqlConnection connection = await _session.OpenAsync(_operation, _sink, cancellationToken).ConfigureAwait(false);
            return await ServerStartAsync(connection, cancellationToken).ConfigureAwait(false) == _serverStart;
        }
        catch (Exception e) when (e is MigrationException { Kind: MigrationErrorKind.Connection } || ServerErrors.IsConnectionLost(e))
        {
            return false;
        }
    }

    private static MigrationException TerminatedByOther(MigrationException e) => new(
        "TerminatedByOther",
        MigrationErrorKind.Stopped,
        $"{e.Message} Somebody ended this session (pg_terminate_backend), while the server runs on; it is not tried again.",
        "Ask who did, then run the command again.",
        e)
    {
        SqlState = e.SqlState,
        Target = e.Target,
        Steps = e.Steps,
    };
}
