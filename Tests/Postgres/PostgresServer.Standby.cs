using Npgsql;

namespace MigrationSafety.Tests.Postgres;

public sealed partial class PostgresServer
{
    /// <summary>The application_name of a standby's connection, as in pg_stat_replication and synchronous_standby_names.</summary>
    public const string StandbyName = "standby";

    private static readonly string[] s_notForStandby = ["postmaster.pid", "postmaster.opts"];
    private static readonly string[] s_emptyForStandby = ["pg_wal", "pg_replslot", "pg_stat_tmp", "pg_notify", "pg_snapshots"];

    /// <summary>
    /// Starts a hot standby that streams from this server, which goes on working meanwhile; returns when it has replayed all that
    /// this server had written. The packages lack pg_basebackup, so this is a base backup by the low-level API (manual, "Making a
    /// Base Backup Using the Low Level API").
    /// </summary>
    /// <param name="options">How it is to be; null for this server's options. max_connections must not be less than here.</param>
    /// <param name="cancellationToken">Gives up; nothing is left behind.</param>
    public async Task<PostgresServer> StartStandbyAsync(PostgresServerOptions? options = null, CancellationToken cancellationToken = default)
    {
        ServerHome home = await ServerHome.CreateAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            NpgsqlConnection connection = await OpenAsync(cancellationToken).ConfigureAwait(false);
            await using (connection.ConfigureAwait(false))
            {
                await BackUpAsync(connection, home.DataDirectory, cancellationToken).ConfigureAwait(false);
                string password = _connection.Password is { Length: > 0 } secret ? $" password={secret}" : "";
                string primary = $"host={Host} port={Port} user={_connection.Username}{password} application_name={StandbyName}";
                PostgresServer standby = new(_binaries!, home, options ?? Options, primary);
                await standby.LaunchAsync(cancellationToken).ConfigureAwait(false);
                await AwaitReplayAsync(connection, standby, cancellationToken).ConfigureAwait(false);
                return standby;
            }
        }
        catch
        {
            await home.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private async Task BackUpAsync(NpgsqlConnection connection, string target, CancellationToken cancellationToken)
    {
        // The functions were renamed in 15; both must run in one session.
        (string start, string stop) = Major >= 15
            ? ("SELECT pg_backup_start('standby', true)::text", "SELECT labelfile FROM pg_backup_stop(false)")
            : ("SELECT pg_start_backup('standby', true, false)::text", "SELECT labelfile FROM pg_stop_backup(false, false)");
        await ScalarAsync(connection, start, cancellationToken).ConfigureAwait(false);
        DirectoryCopy.Copy(DataDirectory, target, path =>
            s_notForStandby.Contains(path) || s_emptyForStandby.Any(d => path.StartsWith(d + Path.DirectorySeparatorChar, StringComparison.Ordinal)));
        string label = await ScalarAsync(connection, stop, cancellationToken).ConfigureAwait(false);
        await File.WriteAllTextAsync(Path.Combine(target, "backup_label"), label, cancellationToken).ConfigureAwait(false);
        await File.WriteAllTextAsync(Path.Combine(target, "standby.signal"), "", cancellationToken).ConfigureAwait(false);
    }

    private static async Task AwaitReplayAsync(NpgsqlConnection primary, PostgresServer standby, CancellationToken cancellationToken)
    {
        string written = await ScalarAsync(primary, "SELECT pg_current_wal_lsn()::text", cancellationToken).ConfigureAwait(false);
        string replayed = $"SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}'::pg_lsn, false)::text";
        NpgsqlConnection connection = await standby.OpenAsync(cancellationToken).ConfigureAwait(false);
        await using (connection.ConfigureAwait(false))
        {
            await Wait.UntilAsync(
                async () => await ScalarAsync(connection, replayed, cancellationToken).ConfigureAwait(false) == "true",
                $"the standby to replay up to {written}", cancellationToken: cancellationToken).ConfigureAwait(false);
        }
    }

    private static async Task<string> ScalarAsync(NpgsqlConnection connection, string sql, CancellationToken cancellationToken)
    {
        using NpgsqlCommand command = new(sql, connection);
        return (string)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }
}
