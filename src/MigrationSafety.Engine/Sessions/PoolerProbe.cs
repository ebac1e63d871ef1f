using System.Globalization;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>
/// Finds a pooler that hands a server connection to somebody else between transactions. A pooler shows in that the process id of the protocol's
/// BackendKeyData is not that of the serving process: it makes up keys, because it has to find out itself whom to cancel. Whether it is in transaction
/// mode shows only in what it does: while one client holds a transaction, the other must keep its own process.
/// </summary>
internal static class PoolerProbe
{
    private const string ProtocolViolation = "08P01";
    private const int Rounds = 5;

    internal static async Task RefuseTransactionModeAsync(NpgsqlDataSource dataSource, NpgsqlConnection first, ConnectionHost host, CancellationToken callersToken, CancellationToken cancellationToken)
    {
        try
        {
            int mine = await PidAsync(first, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection second = await dataSource.OpenPromptlyAsync(cancellationToken).ConfigureAwait(false);
            // A pool that nobody else uses gives itself away in the first round; the others are for a busy one, which deals in another order.
            for (int round = 0; round < Rounds; round++)
            {
                // As plain SQL: Npgsql's own BEGIN is only sent with the next command, and its answer cannot be given up waiting for.
                await RunAsync(second, "begin", cancellationToken).ConfigureAwait(false);
                int theirs = await PidAsync(second, cancellationToken).ConfigureAwait(false);
                if (theirs == mine || await PidAsync(first, cancellationToken).ConfigureAwait(false) != mine)
                {
                    throw Refusal(host);
                }

                await RunAsync(second, "rollback", cancellationToken).ConfigureAwait(false);
            }
        }
        catch (PostgresException e) when (e.SqlState == ProtocolViolation)
        {
            // PgBouncer in statement mode: "transaction blocks not allowed in statement pooling mode".
            throw Refusal(host, e);
        }
        catch (OperationCanceledException e) when (!callersToken.IsCancellationRequested)
        {
            throw new MigrationException(
                "TooManyConnections",
                MigrationErrorKind.Resource,
                $"{host} is a connection pooler that gave no second server connection within the connect timeout.",
                "Enlarge its pool (PgBouncer: pool_size, max_db_connections) or connect to the server directly: an operation needs at least two connections, one to work and one to watch.",
                e)
            {
                Target = host.ToString(),
            };
        }
    }

    internal static MigrationException Refusal(ConnectionHost host, Exception? cause = null) => new(
        "TransactionPooler",
        MigrationErrorKind.NotSupported,
        $"{host} is a connection pooler in transaction or statement mode: session settings such as lock_timeout, and advisory locks, do not hold there.",
        "Connect to the server directly (its own host and port), or to a pool in session mode (PgBouncer: pool_mode = session for this database).",
        cause)
    {
        Target = host.ToString(),
    };

    private static async Task RunAsync(NpgsqlConnection connection, string sql, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(sql, connection);
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    private static async Task<int> PidAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.pg_backend_pid()", connection);
        return Convert.ToInt32(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false), CultureInfo.InvariantCulture);
    }
}
