using System.Globalization;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Security.Cryptography;

namespace MigrationSafety.Tests.Postgres;

/// <summary>The files that make a bare data directory a test server.</summary>
internal static class ServerConfiguration
{
    private const string OwnFile = "migration_safety_tests.conf";

    /// <summary>A data directory fresh from initdb, copied from a template: 0.1 s instead of 0.6 to 0.9 s.</summary>
    public static async Task CreateDataDirectoryAsync(PostgresBinaries binaries, string dataDirectory, CancellationToken cancellationToken)
    {
        string name = $"initdb-{binaries.Version}-{ServerCache.Hash(binaries.Directory)}";
        string template = await ServerCache.GetAsync(name, path => InitDbAsync(binaries, path, cancellationToken), cancellationToken).ConfigureAwait(false);
        DirectoryCopy.Copy(template, dataDirectory);
    }

    /// <summary>Writes the settings; called before each start, since each may come with another port.</summary>
    public static void Write(ServerHome home, PostgresServerOptions options, int port, string? primary)
    {
        Dictionary<string, string> settings = new()
        {
            ["listen_addresses"] = "127.0.0.1",
            ["port"] = port.ToString(CultureInfo.InvariantCulture),
            ["unix_socket_directories"] = OperatingSystem.IsWindows() ? "" : home.Path,
            ["max_connections"] = options.MaxConnections.ToString(CultureInfo.InvariantCulture),
            ["shared_buffers"] = options.SharedBuffers,
            ["fsync"] = options.Durable ? "on" : "off",
            ["autovacuum"] = "on",
            ["max_prepared_transactions"] = "20",
            ["wal_level"] = "replica",
            // So that a standby needs no archive.
            ["wal_keep_size"] = "256MB",
            ["logging_collector"] = "off",
            ["log_line_prefix"] = "%m [%p] %u@%d/%a ",
            ["log_lock_waits"] = "off",
            ["log_timezone"] = "UTC",
            ["timezone"] = "UTC",
        };
        if (primary is not null)
            settings["primary_conninfo"] = primary;
        if (options.Tls != PostgresTls.Off)
        {
            settings["ssl"] = "on";
            settings["ssl_cert_file"] = Path.Combine(home.Path, TlsFiles.Certificate);
            settings["ssl_key_file"] = Path.Combine(home.Path, TlsFiles.Key);
        }

        foreach ((string name, string value) in options.Settings)
            settings[name] = value;

        File.WriteAllLines(Path.Combine(home.DataDirectory, OwnFile), settings.Select(s => $"{s.Key} = {Quote(s.Value)}"));
        string main = Path.Combine(home.DataDirectory, "postgresql.conf");
        string include = $"include '{OwnFile}'";
        if (!File.ReadLines(main).Contains(include))
            File.AppendAllText(main, include + "\n");

        string method = options.Authentication == PostgresAuthentication.Scram ? "scram-sha-256" : "trust";
        string local = OperatingSystem.IsWindows() ? "" : $"local all all {method}\nlocal replication all {method}\n";
        File.WriteAllText(
            Path.Combine(home.DataDirectory, "pg_hba.conf"), $"{local}host all all 127.0.0.1/32 {method}\nhost replication all 127.0.0.1/32 {method}\n");
    }

    /// <summary>
    /// A port that is free now, from below the range that systems take for outgoing connections; so only another server can
    /// be faster, and then the caller asks again.
    /// </summary>
    public static int FreePort()
    {
        HashSet<int> taken = [.. IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Select(e => e.Port)];
        while (true)
        {
            int port = RandomNumberGenerator.GetInt32(20000, 32000);
            if (taken.Contains(port))
                continue;

            using Socket probe = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            try
            {
                probe.Bind(new IPEndPoint(IPAddress.Loopback, port));
                return port;
            }
            catch (SocketException)
            {
                // Not free after all (reserved, or a client's own): try the next.
            }
        }
    }

    private static string Quote(string value) =>
        $"'{value.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("'", "''", StringComparison.Ordinal)}'";

    private static async Task InitDbAsync(PostgresBinaries binaries, string path, CancellationToken cancellationToken)
    {
        ServerAccount account = await ServerAccount.GetAsync().ConfigureAwait(false);
        string passwords = path + ".password";
        await File.WriteAllTextAsync(passwords, PostgresServerOptions.Password, cancellationToken).ConfigureAwait(false);
        try
        {
            // Only Linux has C.UTF-8 for certain.
            string locale = OperatingSystem.IsLinux() ? "C.UTF-8" : "C";
            CommandResult result = await account.RunAsync(
                binaries.PathOf("initdb"),
                ["-D", path, "-U", "postgres", $"--pwfile={passwords}", "--auth=scram-sha-256", "--encoding=UTF8", $"--locale={locale}", "--no-sync"],
                cancellationToken: cancellationToken).ConfigureAwait(false);
            if (result.ExitCode != 0)
                throw new InvalidOperationException($"initdb of PostgreSQL {binaries.Version} failed: {result.Text}");
        }
        finally
        {
            File.Delete(passwords);
        }
    }
}
