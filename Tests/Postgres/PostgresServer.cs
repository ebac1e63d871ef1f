using Npgsql;

namespace MigrationSafety.Tests.Postgres;

/// <summary>
/// A PostgreSQL server of this process alone, on 127.0.0.1 and a Unix socket, with its data below the temp folder. It stops and
/// its files go when it is disposed, when this process exits and when this process is killed.
/// </summary>
public sealed partial class PostgresServer : IAsyncDisposable
{
    private const int PortAttempts = 10;
    private readonly PostgresBinaries? _binaries;
    private readonly ServerHome? _home;
    private readonly NpgsqlConnectionStringBuilder _connection;
    private readonly string? _primary;

    private PostgresServer(PostgresBinaries binaries, ServerHome home, PostgresServerOptions options, string? primary)
    {
        _binaries = binaries;
        _home = home;
        _primary = primary;
        Options = options;
        Version = binaries.Version;
        _connection = new NpgsqlConnectionStringBuilder { Host = "127.0.0.1", Username = "postgres" };
        if (options.Authentication == PostgresAuthentication.Scram)
            _connection.Password = PostgresServerOptions.Password;
    }

    private PostgresServer(NpgsqlConnectionStringBuilder connection, Version version)
    {
        _connection = connection;
        Version = version;
        Options = new PostgresServerOptions();
    }

    /// <summary>The major, such as 18.</summary>
    public int Major => Version.Major;

    /// <summary>Major and minor, such as 18.4.</summary>
    public Version Version { get; }

    /// <summary>How it was started.</summary>
    public PostgresServerOptions Options { get; }

    /// <summary>True for a server that somebody else runs: it cannot be stopped, and has no files here.</summary>
    public bool IsExternal => _home is null;

    /// <summary>The host of the TCP port: 127.0.0.1, unless somebody else runs the server.</summary>
    public string Host => _connection.Host!;

    /// <summary>The TCP port; the same after a stop and a start.</summary>
    public int Port => _connection.Port;

    /// <summary>The directory of the Unix socket, usable as <c>Host</c>; on Windows there is no socket in it.</summary>
    public string SocketDirectory => Home.Path;

    /// <summary>The data directory.</summary>
    public string DataDirectory => Home.DataDirectory;

    /// <summary>The server's log file.</summary>
    public string LogPath => Home.LogPath;

    /// <summary>The certificate that a client has to trust under <see cref="PostgresServerOptions.Tls"/>; null without TLS.</summary>
    public string? RootCertificatePath => Options.Tls == PostgresTls.Off ? null : Path.Combine(Home.Path, TlsFiles.Root);

    private ServerHome Home => _home ?? throw new InvalidOperationException($"Somebody else runs the server that {PostgresClusters.ServerVariable} names.");

    /// <summary>Makes a data directory and starts a server on it; returns when it answers queries.</summary>
    /// <param name="major">One of <see cref="PostgresBinaries.Majors"/>.</param>
    /// <param name="options">How it is to be; null for the defaults.</param>
    /// <param name="cancellationToken">Gives up; nothing is left behind.</param>
    /// <exception cref="PostgresUnavailableException">There is no PostgreSQL of that major here.</exception>
    public static async Task<PostgresServer> StartAsync(int major, PostgresServerOptions? options = null, CancellationToken cancellationToken = default)
    {
        options ??= new PostgresServerOptions();
        PostgresBinaries binaries = await PostgresBinaries.FindAsync(major).ConfigureAwait(false);
        ServerHome home = await ServerHome.CreateAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await ServerConfiguration.CreateDataDirectoryAsync(binaries, home.DataDirectory, cancellationToken).ConfigureAwait(false);
            PostgresServer server = new(binaries, home, options, primary: null);
            await server.LaunchAsync(cancellationToken).ConfigureAwait(false);
            return server;
        }
        catch
        {
            await home.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>An Npgsql connection string of the TCP port, with the password if one is asked for.</summary>
    /// <param name="database">The database.</param>
    /// <param name="user">The user; null for the superuser.</param>
    public string ConnectionString(string database = "postgres", string? user = null)
    {
        NpgsqlConnectionStringBuilder builder = new(_connection.ConnectionString) { Database = database };
        if (user is not null)
            builder.Username = user;
        return builder.ConnectionString;
    }

    /// <summary>The same as a libpq URI: <c>postgresql://postgres@127.0.0.1:port/database</c>.</summary>
    public string Uri(string database = "postgres")
    {
        string password = _connection.Password is { Length: > 0 } secret ? ":" + System.Uri.EscapeDataString(secret) : "";
        return $"postgresql://{System.Uri.EscapeDataString(_connection.Username!)}{password}@{Host}:{Port}/{System.Uri.EscapeDataString(database)}";
    }

    /// <summary>Stops the server; its data stay, and <see cref="StartAgainAsync"/> starts it again.</summary>
    public async Task StopAsync(StopMode mode = StopMode.Fast, CancellationToken cancellationToken = default)
    {
        string name = mode switch { StopMode.Smart => "smart", StopMode.Fast => "fast", _ => "immediate" };
        CommandResult result = await ControlAsync(["stop", "-m", name], capture: true, cancellationToken).ConfigureAwait(false);
        if (result.ExitCode != 0)
            throw new InvalidOperationException($"PostgreSQL {Version} did not stop: {result.Text}{LogTail()}");
    }

    /// <summary>Starts a stopped or crashed server with the same data and port; returns when it answers queries.</summary>
    public async Task StartAgainAsync(CancellationToken cancellationToken = default)
    {
        if (await TryStartAsync(cancellationToken).ConfigureAwait(false) is { } error)
            throw new InvalidOperationException(error);

        await AwaitReadyAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Kills the postmaster with signal 9, and its children too, and returns when all are gone. What was not written to files is
    /// lost, as in a crash; the operating system's cache survives.
    /// </summary>
    public async Task CrashAsync(CancellationToken cancellationToken = default)
    {
        int pid = ProcessTree.ReadPid(DataDirectory) ?? throw new InvalidOperationException($"PostgreSQL {Version} does not run.");
        await ProcessTree.KillAsync(pid, cancellationToken).ConfigureAwait(false);
        // All are gone, as was just seen. Their lock files would only mislead: the number in them may be a zombie's that no one ever
        // reaps (containers), or soon another process's.
        File.Delete(Path.Combine(DataDirectory, "postmaster.pid"));
        File.Delete(Path.Combine(SocketDirectory, $".s.PGSQL.{Port}.lock"));
    }

    /// <summary>Creates an empty database and returns its name.</summary>
    /// <param name="prefix">What the name starts with: lower-case letters, digits and underscores; "t" if null.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async Task<string> CreateDatabaseAsync(string? prefix = null, CancellationToken cancellationToken = default)
    {
        string name = $"{prefix ?? "t"}_{Guid.NewGuid().ToString("N")[..12]}";
        await ExecuteAsync($"CREATE DATABASE \"{name}\"", cancellationToken).ConfigureAwait(false);
        return name;
    }

    /// <summary>Drops a database, if it is there, and throws out who is in it.</summary>
    public Task DropDatabaseAsync(string name, CancellationToken cancellationToken = default) =>
        ExecuteAsync($"DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)", cancellationToken);

    /// <summary>What the server has logged so far.</summary>
    public string ReadLog()
    {
        if (!File.Exists(LogPath))
            return "";

        using StreamReader reader = new(new FileStream(LogPath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
        return reader.ReadToEnd();
    }

    /// <summary>Stops the server at once and deletes its files.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_home is not null)
            await _home.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>A server that somebody else runs.</summary>
    internal static async Task<PostgresServer> AttachAsync(string connectionString, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = new(new NpgsqlConnectionStringBuilder(connectionString) { Pooling = false }.ConnectionString);
        await using (connection.ConfigureAwait(false))
        {
            await connection.OpenAsync(cancellationToken).ConfigureAwait(false);
            NpgsqlConnectionStringBuilder builder = new(connectionString);
            // Npgsql leaves these open in the text when they come from PGUSER and the like.
            builder.Host ??= connection.Host;
            builder.Username ??= connection.UserName;
            return new PostgresServer(builder, connection.PostgreSqlVersion);
        }
    }

    private async Task LaunchAsync(CancellationToken cancellationToken)
    {
        if (Options.Tls != PostgresTls.Off)
            TlsFiles.Write(Home.Path, Options.Tls == PostgresTls.Expired);

        for (int attempt = 1; ; attempt++)
        {
            _connection.Port = ServerConfiguration.FreePort();
            ServerConfiguration.Write(Home, Options, Port, _primary);
            ServerAccount account = await ServerAccount.GetAsync().ConfigureAwait(false);
            await account.TakeOwnershipAsync(Home.Path, cancellationToken).ConfigureAwait(false);
            string? error = await TryStartAsync(cancellationToken).ConfigureAwait(false);
            if (error is null)
                break;
            // Another server took the port between the look and the start.
            if (attempt == PortAttempts || !error.Contains("could not bind", StringComparison.Ordinal))
                throw new InvalidOperationException(error);

            File.Delete(LogPath);
        }

        await AwaitReadyAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Null, or why it did not start.</summary>
    private async Task<string?> TryStartAsync(CancellationToken cancellationToken)
    {
        CommandResult result = await ControlAsync(["start", "-l", LogPath], !OperatingSystem.IsWindows(), cancellationToken).ConfigureAwait(false);
        return result.ExitCode == 0 ? null : $"PostgreSQL {Version} did not start: {result.Text}{LogTail()}";
    }

    private async Task<CommandResult> ControlAsync(string[] command, bool capture, CancellationToken cancellationToken)
    {
        ServerAccount account = await ServerAccount.GetAsync().ConfigureAwait(false);
        string[] arguments = [.. command, "-D", DataDirectory, "-w", "-t", "120", "-s"];
        return await account.RunAsync(_binaries!.PathOf("pg_ctl"), arguments, Home.Path, capture, cancellationToken).ConfigureAwait(false);
    }

    private async Task AwaitReadyAsync(CancellationToken cancellationToken)
    {
        try
        {
            await Wait.UntilAsync(IsReadyAsync, "answers", TimeSpan.FromSeconds(120), cancellationToken).ConfigureAwait(false);
        }
        catch (TimeoutException e)
        {
            throw new InvalidOperationException($"PostgreSQL {Version} started but does not answer.{LogTail()}", e);
        }

        async Task<bool> IsReadyAsync()
        {
            try
            {
                await ExecuteAsync("SELECT 1", cancellationToken).ConfigureAwait(false);
                return true;
            }
            catch (NpgsqlException e) when (e is not PostgresException || e.SqlState == PostgresErrorCodes.CannotConnectNow)
            {
                return false;
            }
        }
    }

    private async Task ExecuteAsync(string sql, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await OpenAsync(cancellationToken).ConfigureAwait(false);
        await using (connection.ConfigureAwait(false))
        {
            using NpgsqlCommand command = new(sql, connection);
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>A connection to the database postgres outside any pool.</summary>
    private async Task<NpgsqlConnection> OpenAsync(CancellationToken cancellationToken)
    {
        NpgsqlConnectionStringBuilder builder = new(ConnectionString())
        {
            Pooling = false,
            CommandTimeout = 0,
            ApplicationName = "MigrationSafety tests",
        };
        // Whether its certificate is any good is the tests' question.
        if (!IsExternal)
            builder.SslMode = SslMode.Disable;

        NpgsqlConnection connection = new(builder.ConnectionString);
        try
        {
            await connection.OpenAsync(cancellationToken).ConfigureAwait(false);
            return connection;
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private string LogTail()
    {
        string[] lines = ReadLog().Split('\n', StringSplitOptions.RemoveEmptyEntries);
        return lines.Length == 0 ? "" : "\nThe end of its log:\n" + string.Join('\n', lines.TakeLast(20));
    }
}
