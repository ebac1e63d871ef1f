using Npgsql;

namespace MigrationSafety.Tests.Postgres;

/// <summary>A database of one test class or test, dropped when it is disposed, whoever is still in it.</summary>
public sealed class TestDatabase : IAsyncDisposable
{
    private TestDatabase(PostgresServer server, string name)
    {
        Server = server;
        Name = name;
        ConnectionString = server.ConnectionString(name);
        DataSource = NpgsqlDataSource.Create(new NpgsqlConnectionStringBuilder(ConnectionString) { IncludeErrorDetail = true });
    }

    /// <summary>The server that it is on.</summary>
    public PostgresServer Server { get; }

    /// <summary>Its name.</summary>
    public string Name { get; }

    /// <summary>An Npgsql connection string of it, as the superuser.</summary>
    public string ConnectionString { get; }

    /// <summary>Pooled connections to it, for the tests' own questions.</summary>
    public NpgsqlDataSource DataSource { get; }

    /// <summary>Creates an empty database.</summary>
    /// <param name="server">A running server.</param>
    /// <param name="prefix">What its name starts with; "t" if null.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public static async Task<TestDatabase> CreateAsync(PostgresServer server, string? prefix = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(server);
        return new TestDatabase(server, await server.CreateDatabaseAsync(prefix, cancellationToken).ConfigureAwait(false));
    }

    /// <summary>Opens a pooled connection.</summary>
    public async Task<NpgsqlConnection> OpenAsync(CancellationToken cancellationToken = default) =>
        await DataSource.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);

    /// <summary>Runs statements; returns the number of rows changed, -1 if they change none.</summary>
    public async Task<int> ExecuteAsync(string sql, CancellationToken cancellationToken = default)
    {
        NpgsqlCommand command = DataSource.CreateCommand(sql);
        await using (command.ConfigureAwait(false))
        {
            return await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The first column of the first row; default when there is no row or it is NULL. The type must be the column's own.</summary>
    public async Task<T?> ScalarAsync<T>(string sql, CancellationToken cancellationToken = default)
    {
        NpgsqlCommand command = DataSource.CreateCommand(sql);
        await using (command.ConfigureAwait(false))
        {
            object? value = await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false);
            return value is null or DBNull ? default : (T)value;
        }
    }

    /// <summary>All rows; NULL comes as null.</summary>
    public async Task<IReadOnlyList<object?[]>> QueryAsync(string sql, CancellationToken cancellationToken = default)
    {
        List<object?[]> rows = [];
        NpgsqlCommand command = DataSource.CreateCommand(sql);
        await using (command.ConfigureAwait(false))
        {
            NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await using (reader.ConfigureAwait(false))
            {
                while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
                {
                    object?[] row = new object?[reader.FieldCount];
                    for (int i = 0; i < row.Length; i++)
                        row[i] = await reader.IsDBNullAsync(i, cancellationToken).ConfigureAwait(false) ? null : reader.GetValue(i);
                    rows.Add(row);
                }
            }
        }

        return rows;
    }

    /// <summary>Drops the database. A server that is down or gone keeps it; that is no error, since the server's files go too.</summary>
    public async ValueTask DisposeAsync()
    {
        await DataSource.DisposeAsync().ConfigureAwait(false);
        try
        {
            await Server.DropDatabaseAsync(Name).ConfigureAwait(false);
        }
        catch (NpgsqlException e) when (e is not PostgresException && !Server.IsExternal)
        {
            // No connection: a test stopped the server, or disposed of it first.
        }
    }
}
