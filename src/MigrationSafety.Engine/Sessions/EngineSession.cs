using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>The engine's side of a <see cref="MigrationSession"/>: opens connections to its database.</summary>
public sealed class EngineSession : IAsyncDisposable
{
    private readonly NpgsqlDataSource _dataSource;

    internal EngineSession(NpgsqlDataSource dataSource) => _dataSource = dataSource;

    /// <summary>What users see of it.</summary>
    public MigrationSession Info { get; internal set; } = null!;

    /// <summary>The engine's side of a session that is open.</summary>
    /// <param name="session">Session.</param>
    /// <returns>Its engine side.</returns>
    /// <exception cref="MigrationException"><c>SessionClosed</c>.</exception>
    public static EngineSession Of(MigrationSession session)
    {
        ArgumentNullException.ThrowIfNull(session);
        return session.State == SessionState.Open
            ? (EngineSession)session.Handle
            : throw new MigrationException(
                "SessionClosed",
                MigrationErrorKind.InvalidState,
                $"Session {session.Id} ({session}) is closed.",
                "Connect again with Connect-MigrationDatabase.")
            {
                Target = session.ToString(),
            };
    }

    /// <summary>
    /// Opens a connection for an operation. Time-outs that the role or the database set are lifted for it, the server is asked to notice a client
    /// that is gone, and notices go to the sink.
    /// </summary>
    /// <param name="operation">Short name, seen as application_name <c>MigrationSafety/operation</c>.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>An open connection; the caller disposes of it.</returns>
    internal async Task<NpgsqlConnection> OpenAsync(string operation, IOperationSink sink, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await _dataSource.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            connection.Notice += (_, e) => sink.Verbose($"{e.Notice.Severity}: {e.Notice.MessageText}");
            // set_config over pg_settings: a parameter that this server lacks (transaction_timeout before 17) is passed over.
            const string Sql = """
                select set_config(s.name, w.value, false)
                from (values ('application_name', $1), ('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
                             ('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('client_min_messages', 'notice')) as w (name, value)
                join pg_catalog.pg_settings s on s.name = w.name
                """;
            await using NpgsqlCommand command = new(Sql, connection) { Parameters = { new() { Value = "MigrationSafety/" + operation } } };
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            return connection;
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc />
    public ValueTask DisposeAsync() => _dataSource.DisposeAsync();
}
