using Npgsql;

namespace MigrationSafety.Tests.Postgres;

/// <summary>The application that is in the way: a transaction that ran some statements and stays open, with their locks.</summary>
public sealed class LockHolder : IAsyncDisposable
{
    private readonly NpgsqlTransaction _transaction;
    private bool _ended;

    private LockHolder(NpgsqlConnection connection, NpgsqlTransaction transaction)
    {
        Connection = connection;
        _transaction = transaction;
        Pid = connection.ProcessID;
    }

    /// <summary>The process id of its server process, as in pg_stat_activity.</summary>
    public int Pid { get; }

    /// <summary>Its connection, in the open transaction; the application_name is "lock-holder".</summary>
    public NpgsqlConnection Connection { get; }

    /// <summary>Begins a transaction on a connection of its own, runs the statements and keeps it open.</summary>
    public static async Task<LockHolder> HoldAsync(TestDatabase db, params string[] sql)
    {
        ArgumentNullException.ThrowIfNull(db);
        ArgumentNullException.ThrowIfNull(sql);
        NpgsqlConnection connection = new(
            new NpgsqlConnectionStringBuilder(db.ConnectionString) { Pooling = false, ApplicationName = "lock-holder" }.ConnectionString);
        try
        {
            await connection.OpenAsync().ConfigureAwait(false);
            LockHolder holder = new(connection, await connection.BeginTransactionAsync().ConfigureAwait(false));
            foreach (string statement in sql)
            {
                using NpgsqlCommand command = new(statement, connection, holder._transaction);
                await command.ExecuteNonQueryAsync().ConfigureAwait(false);
            }

            return holder;
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Commits; the locks are free then.</summary>
    public async Task CommitAsync(CancellationToken cancellationToken = default)
    {
        _ended = true;
        await _transaction.CommitAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Rolls back; the locks are free then.</summary>
    public async Task RollbackAsync(CancellationToken cancellationToken = default)
    {
        _ended = true;
        await _transaction.RollbackAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Rolls back, unless the transaction has ended, and closes the connection.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            if (!_ended)
                await RollbackAsync().ConfigureAwait(false);
            await _transaction.DisposeAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (e is NpgsqlException or InvalidOperationException)
        {
            // Tests kill such sessions and crash their server: then the locks are free already.
        }

        await Connection.DisposeAsync().ConfigureAwait(false);
    }
}
