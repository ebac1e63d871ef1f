using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>The engine's side of a <see cref="MigrationSession"/>: opens connections to its database.</summary>
public sealed class EngineSession : IAsyncDisposable
{
    private readonly NpgsqlDataSource _dataSource;
    private readonly ConnectionHost _host;
    private readonly TimeSpan? _connectTimeout;
    private readonly string _clientCheckInterval;
    private int _warnedOfHistory;

    internal EngineSession(NpgsqlDataSource dataSource, ConnectionHost host, TimeSpan? connectTimeout, bool noticesLostClient)
    {
        _dataSource = dataSource;
        _host = host;
        _connectTimeout = connectTimeout;
        _clientCheckInterval = noticesLostClient ? "1s" : "0";
    }

    /// <summary>What users see of it.</summary>
    public MigrationSession Info { get; internal set; } = null!;

    /// <summary>When its server started, to the microsecond: the same for all sessions with one server, by whatever name it was reached.</summary>
    internal DateTime ServerStartedAt { get; init; }

    /// <summary>Whether it is a session with a node of a Citus cluster that belongs to another session.</summary>
    internal bool IsNode { get; set; }

    /// <summary>Sessions with the nodes of its Citus cluster, by group, for whoever has <see cref="NodesTurn"/>.</summary>
    internal Dictionary<int, EngineSession> Nodes { get; } = [];

    internal SemaphoreSlim NodesTurn { get; } = new(1);

    /// <summary>The host that it keeps to.</summary>
    internal ConnectionHost Host => _host;

    /// <summary>How long to try to connect; null for ever.</summary>
    internal TimeSpan? ConnectTimeout => _connectTimeout;

    /// <summary>The engine's side of a session that is open.</summary>
    /// <param name="session">Session.</param>
    /// <returns>Its engine side.</returns>
    /// <exception cref="MigrationException"><c>SessionClosed</c>.</exception>
    public static EngineSession Of(MigrationSession session)
    {
        ArgumentNullException.ThrowIfNull(session);
        return session.State == SessionState.Open
            ? (EngineSession)session.Handle
            : throw Closed(session);
    }

    private static MigrationException Closed(MigrationSession session) => new(
        "SessionClosed",
        MigrationErrorKind.InvalidState,
        $"Session {session.Id} ({session}) is closed.",
        "Connect again with Connect-MigrationDatabase.")
    {
        Target = session.ToString(),
    };

    /// <summary>Refuses a standby, for what writes. One that was a standby when the session was opened is asked again: it may have been promoted since.</summary>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>PrimaryRequired</c>.</exception>
    public async Task EnsurePrimaryAsync(IOperationSink sink, CancellationToken cancellationToken)
    {
        if (!Info.IsStandby)
        {
            return;
        }

        await using NpgsqlConnection connection = await OpenAsync("Check", sink, cancellationToken).ConfigureAwait(false);
        ServerFacts facts = await ServerFacts.ReadAsync(connection, cancellationToken).ConfigureAwait(false);
        if (facts.IsStandby)
        {
            throw new MigrationException(
                "PrimaryRequired",
                MigrationErrorKind.InvalidState,
                $"{Info} is a standby: nothing can be changed there.",
                "Connect to the primary: name it, or list all hosts with target_session_attrs=primary.")
            {
                Target = Info.ToString(),
            };
        }
    }

    /// <summary>
    /// Opens a connection for an operation. Time-outs that the role or the database set are lifted for it, the server is asked to notice a client
    /// that is gone, and notices go to the sink.
    /// </summary>
    /// <remarks>
    /// When it is disposed of, an open transaction is rolled back at once, but the rest of its state (advisory locks, prepared statements, settings) stays until it
    /// is taken from the pool again: release advisory locks yourself.
    /// </remarks>
    /// <param name="operation">Short name, seen as application_name <c>MigrationSafety/operation</c>.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>An open connection; the caller disposes of it.</returns>
    /// <exception cref="MigrationException">As <see cref="SessionFactory.ConnectAsync(ConnectRequest, IOperationSink, CancellationToken)"/>.</exception>
    internal async Task<NpgsqlConnection> OpenAsync(string operation, IOperationSink sink, CancellationToken cancellationToken)
    {
        try
        {
            if (await TryOpenAsync(operation, sink, cancellationToken).ConfigureAwait(false) is { } connection)
            {
                return connection;
            }

            // It came from the pool, and its server was restarted or its line cut while it lay idle: the others will not be better, a new one may be.
            _dataSource.Clear();
            return await TryOpenAsync(operation, sink, cancellationToken).ConfigureAwait(false)
                ?? throw new NpgsqlException("The server ends each connection as soon as it is open", new IOException("closed by the server"));
        }
        catch (ObjectDisposedException)
        {
            throw Closed(Info);
        }
        catch (Exception e)
        {
            cancellationToken.ThrowIfCancellationRequested();
            throw await ConnectErrors.TranslateAsync(e, _host, _connectTimeout, timedOut: false, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>An open connection that is set up; null where it opened but turned out to be dead.</summary>
    private async Task<NpgsqlConnection?> TryOpenAsync(string operation, IOperationSink sink, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await _dataSource.OpenPromptlyAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            connection.Notice += (_, e) => sink.Verbose($"{e.Notice.Severity}: {e.Notice.MessageText}");
            // set_config over pg_settings: a parameter that this server lacks (transaction_timeout before 17) is passed over. The keepalives end the
            // backend of a client whose network is gone after 10 + 3 * 5 s; on a socket, and where the system has none, they are ignored.
            const string Sql = """
                select pg_catalog.set_config(s.name, w.value, false)
                from (values ('application_name', $1), ('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
                             ('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('client_min_messages', 'notice'),
                             ('client_connection_check_interval', $2), ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'),
                             ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '30s')) as w (name, value)
                join pg_catalog.pg_settings s on s.name = w.name
                """;
            await using NpgsqlBatch batch = new(connection)
            {
                // What DISCARD ALL does, less DEALLOCATE ALL: the driver keeps its prepared statements with the connection, and would not know that they are gone.
                // One round trip, and yet each a transaction of its own.
                EnableErrorBarriers = true,
                BatchCommands =
                {
                    new("close all"),
                    new("set session authorization default"),
                    new("reset all"),
                    new("unlisten *"),
                    new("select pg_catalog.pg_advisory_unlock_all()"),
                    new("discard plans"),
                    new("discard temp"),
                    new("discard sequences"),
                    new(Sql) { Parameters = { new() { Value = "MigrationSafety/" + operation }, new() { Value = _clientCheckInterval } } },
                },
            };
            await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            return connection;
        }
        catch (Exception e)
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            if (ServerErrors.IsConnectionLost(e))
            {
                sink.Verbose($"Connecting to {_host} again: {e.Message}");
                return null;
            }

            throw;
        }
    }

    /// <summary>Closes the connections that lie idle, and those in use when they are disposed of: they lead to a server that is the wrong one by now.</summary>
    internal void Forget() => _dataSource.Clear();

    /// <summary>Whether it has still to be said, once a session, that operations are not recorded.</summary>
    internal bool MayWarnOfHistory() => Interlocked.Exchange(ref _warnedOfHistory, 1) == 0;

    /// <inheritdoc />
    public async ValueTask DisposeAsync()
    {
        foreach (EngineSession node in Nodes.Values)
        {
            node.Info.State = SessionState.Closed;
            await node.DisposeAsync().ConfigureAwait(false);
        }

        NodesTurn.Dispose();
        await _dataSource.DisposeAsync().ConfigureAwait(false);
    }
}
