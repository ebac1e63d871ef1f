using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>How a worker holds on to the server: opens its connection, asks on it, and takes another one where it is lost.</summary>
internal sealed partial class BackfillWorker
{
    private (int Pid, DateTime Start)? _predecessor;
    private BackfillConnection? _connection;
    private long _asked;

    /// <summary>Transactions that it has ended, about.</summary>
    internal long Transactions => Attempts + Interlocked.Read(ref _asked);

    /// <summary>Its backend; null while it is not connected.</summary>
    internal int? Pid => _connection?.Backend.Pid;

    /// <summary>The open connection; inside <see cref="HoldAsync"/> only.</summary>
    internal BackfillConnection Connection => _connection!;

    /// <summary>What kept it from a connection when it last tried to have one; null where it got one.</summary>
    internal Exception? Refusal { get; private set; }

    /// <summary>Does something on a connection, and on another one from the start where the first is lost.</summary>
    /// <typeparam name="T">What comes of it.</typeparam>
    /// <param name="work">What is to be done.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <param name="connecting">Cancels while there is no connection; null for the same.</param>
    internal async Task<T> HoldAsync<T>(Func<Task<T>> work, CancellationToken cancellationToken, CancellationToken? connecting = null)
    {
        for (int failures = 0; ; failures++)
        {
            int sent = Attempts;
            try
            {
                if (_connection is null)
                {
                    _connection = await OpenAsync(connecting ?? cancellationToken).ConfigureAwait(false);
                    if (_context.HasBegun)
                    {
                        await TellAsync(connection => BackfillRecords.RefuseReplacedAsync(connection, _context.Definition, CancellationToken.None), cancellationToken).ConfigureAwait(false);
                    }

                    if (_predecessor is not null)
                    {
                        Sink.Verbose("Connected again; goes on from the checkpoint.");
                    }
                }

                return await work().ConfigureAwait(false);
            }
            catch (Exception e) when (CanReconnect(e, cancellationToken))
            {
                string what = _connection is null ? "It cannot begin on a connection" : "The connection was lost";
                // What was lost may be another connection than this: one that is well is kept, its backend must not be ended.
                if (_connection is { IsLost: true } lost)
                {
                    _predecessor = lost.Backend;
                    _connection = null;
                    await lost.DisposeAsync().ConfigureAwait(false);
                }

                failures = Attempts > sent + 1 ? 0 : failures;
                Sink.Verbose($"{what}: {(e is PostgresException server ? ServerErrors.Words(server) : e.Message)} Connects again.");
                await BackfillContext.PauseAsync(failures + 1, connecting ?? cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Asks what is quick, again and again where the server is slow or somebody is in the way.</summary>
    /// <typeparam name="T">Answer.</typeparam>
    /// <param name="ask">Asks on the open connection; it is not cancelled but left alone.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <param name="repeat">Whether to ask again.</param>
    internal async Task<T> AskAsync<T>(Func<NpgsqlConnection, Task<T>> ask, CancellationToken cancellationToken, bool repeat = true)
    {
        long start = Stopwatch.GetTimestamp();
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return await AnswerAsync().ConfigureAwait(false);
            }
            catch (PostgresException e) when (repeat && BackfillContext.IsBusy(e) && Stopwatch.GetElapsedTime(start) < _context.Options.RetryFor)
            {
                Sink.Verbose($"The server is slow to answer ({ServerErrors.Words(e)}); asks again.");
                await BackfillContext.PauseAsync(attempt, cancellationToken).ConfigureAwait(false);
            }
        }

        async Task<T> AnswerAsync()
        {
            Interlocked.Increment(ref _asked);
            _context.Gate.Begin();
            try
            {
                return await Connection.AnswerAsync(ask(Connection.Connection), cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                _context.Gate.End();
            }
        }
    }

    /// <summary>The same for what has no answer.</summary>
    internal Task TellAsync(Func<NpgsqlConnection, Task> tell, CancellationToken cancellationToken) => AskAsync(
        async connection =>
        {
            await tell(connection).ConfigureAwait(false);
            return true;
        },
        cancellationToken);

    /// <summary>Asks in the same way what locks no row, and takes as long as it takes.</summary>
    internal async Task<List<T>> LookAsync<T>(string sql, object[] parameters, Func<NpgsqlDataReader, T> read, CancellationToken cancellationToken)
    {
        List<T> found = await _context.Look($"A look for rows of {Name}").RunAsync(
            Connection.Backend.Pid,
            () => AskAsync(_ => Connection.LookAsync(sql, parameters, read, cancellationToken), cancellationToken, repeat: false),
            BackfillContext.IsBusy,
            cancellationToken).ConfigureAwait(false);
        _context.Moved();
        return found;
    }

    private async Task<BackfillConnection> OpenAsync(CancellationToken cancellationToken)
    {
        try
        {
            BackfillConnection connection = await BackfillConnection.OpenAsync(_context.Plan.Session, _context.Definition, _context.Request, _predecessor, Sink, cancellationToken).ConfigureAwait(false);
            Refusal = null;
            _context.HasConnected = true;
            return connection;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            Refusal = e;
            throw;
        }
    }

    private bool CanReconnect(Exception e, CancellationToken cancellationToken)
    {
        PostgresException? refusal = e as PostgresException ?? e.InnerException as PostgresException;
        bool forGood = refusal?.SqlState is SqlStates.InvalidPassword or SqlStates.InvalidAuthorization or SqlStates.InvalidCatalogName or SqlStates.DatabaseDropped;
        bool full = refusal?.SqlState == SqlStates.TooManyConnections;
        // While a server goes down or starts again, TLS can fail in ways that say nothing about the connection to come, also where this worker has had none yet:
        // once one worker was let in, so will the others be.
        bool opening = _connection is null && _context.HasConnected && e is MigrationException { InnerException: NpgsqlException };
        // What is asked on a new connection is bounded as a batch is, which a server under load can exceed.
        bool busy = _connection is null && refusal is not null && BackfillContext.IsBusy(refusal);
        // For some seconds of a failover the name may lead to a standby that is not promoted yet.
        bool standby = e is MigrationException { ErrorId: Backfill.ReadOnlyId };
        return !forGood && (full || opening || busy || standby || ServerErrors.IsConnectionLost(e)) && !cancellationToken.IsCancellationRequested && !_context.IsStuck;
    }
}
