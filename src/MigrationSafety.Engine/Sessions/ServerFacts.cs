using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>What a connection says of its server.</summary>
/// <param name="Version">From <c>server_version_num</c>.</param>
/// <param name="IsStandby"><c>pg_is_in_recovery()</c>.</param>
/// <param name="IsReadOnly"><c>default_transaction_read_only</c>.</param>
/// <param name="Database">Database.</param>
/// <param name="User">Role that logged in.</param>
/// <param name="BackendPid">Process that serves the connection.</param>
/// <param name="StartedAt"><c>pg_postmaster_start_time()</c>.</param>
internal sealed record ServerFacts(Version Version, bool IsStandby, bool IsReadOnly, string Database, string User, int BackendPid, DateTime StartedAt)
{
    internal static async Task<ServerFacts> ReadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        // Only what every server since 9.0 knows: an older one than we support is to be named, not to fail.
        const string Sql = """
            select current_setting('server_version_num')::int, pg_catalog.pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean,
                   current_database()::text, session_user::text, pg_catalog.pg_backend_pid(),
                   pg_catalog.pg_postmaster_start_time()
            """;
        await using NpgsqlCommand command = new(Sql, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        int number = reader.GetInt32(0);
        // Since 10, the number is major * 10000 + minor; before, a version had three parts.
        Version version = number >= 100000 ? new(number / 10000, number % 10000) : new(number / 10000, number / 100 % 100, number % 100);
        return new(version, reader.GetBoolean(1), reader.GetBoolean(2), reader.GetString(3), reader.GetString(4), reader.GetInt32(5), reader.GetDateTime(6));
    }

    /// <summary>Whether the server's platform can look after its clients while a statement runs (manual, <c>client_connection_check_interval</c>).</summary>
    internal static async Task<bool> CanNoticeLostClientAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        try
        {
            await using NpgsqlCommand command = new("select set_config('client_connection_check_interval', '1s', false)", connection);
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.InvalidParameterValue)
        {
            // A platform without POLLRDHUP (Windows, and before 15 some others): there the server notices when it next writes.
            return false;
        }
    }
}
