using System.Collections.Concurrent;
using System.Globalization;
using Npgsql;

namespace MigrationSafety.Tests.Postgres;

/// <summary>The servers of a test run: one a major, started when it is first asked for.</summary>
public sealed class PostgresClusters : IAsyncDisposable
{
    /// <summary>The environment variable with the Npgsql connection string of a running server, to be used instead of own ones.</summary>
    public const string ServerVariable = "MIGRATIONSAFETY_TEST_SERVER";

    /// <summary>The environment variable with the majors to test: "14,15" or "all".</summary>
    public const string MajorsVariable = "MIGRATIONSAFETY_TEST_MAJORS";

    private readonly ConcurrentDictionary<int, Lazy<Task<PostgresServer>>> _servers = new();
    private readonly PostgresServerOptions? _options;

    /// <summary>Starts nothing yet.</summary>
    /// <param name="options">How the servers are to be; null for the defaults.</param>
    public PostgresClusters(PostgresServerOptions? options = null) => _options = options;

    /// <summary>
    /// The majors that tests are to run on, oldest first: those of MIGRATIONSAFETY_TEST_MAJORS; else the one of
    /// MIGRATIONSAFETY_TEST_SERVER; else all when CI is "true"; else the newest.
    /// </summary>
    /// <exception cref="FormatException">MIGRATIONSAFETY_TEST_MAJORS is neither "all" nor a list of supported majors.</exception>
    public static IReadOnlyList<int> RequestedMajors
    {
        get
        {
            string? wanted = Environment.GetEnvironmentVariable(MajorsVariable);
            if (string.Equals(wanted, "all", StringComparison.OrdinalIgnoreCase))
                return PostgresBinaries.Majors;
            if (!string.IsNullOrWhiteSpace(wanted))
                return [.. wanted.Split(',', StringSplitOptions.TrimEntries).Select(ParseMajor).Distinct().Order()];
            if (ServerFromEnvironment is { } server)
                return [MajorOf(server)];

            bool ci = string.Equals(Environment.GetEnvironmentVariable("CI"), "true", StringComparison.OrdinalIgnoreCase);
            return ci ? PostgresBinaries.Majors : [PostgresBinaries.Newest];
        }
    }

    /// <summary>Whether the majors, or all of them, are named by <see cref="MajorsVariable"/>.</summary>
    public static bool AreMajorsNamed => !string.IsNullOrWhiteSpace(Environment.GetEnvironmentVariable(MajorsVariable));

    private static string? ServerFromEnvironment =>
        Environment.GetEnvironmentVariable(ServerVariable) is { } text && !string.IsNullOrWhiteSpace(text) ? text : null;

    /// <summary>
    /// The server of a major. With MIGRATIONSAFETY_TEST_SERVER it is that server, and then its
    /// <see cref="PostgresServer.Major"/> is what it is.
    /// </summary>
    /// <exception cref="PostgresUnavailableException">There is no PostgreSQL of that major here.</exception>
    public Task<PostgresServer> GetAsync(int major)
    {
        // Key 0: one server, whatever major is asked for.
        return ServerFromEnvironment is { } server
            ? _servers.GetOrAdd(0, _ => new(() => PostgresServer.AttachAsync(server, CancellationToken.None))).Value
            : _servers.GetOrAdd(major, m => new(() => PostgresServer.StartAsync(m, _options))).Value;
    }

    /// <summary>Creates an empty database on the server of a major.</summary>
    public async Task<TestDatabase> CreateDatabaseAsync(int major, CancellationToken cancellationToken = default)
    {
        PostgresServer server = await GetAsync(major).ConfigureAwait(false);
        return await TestDatabase.CreateAsync(server, cancellationToken: cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Stops the servers and deletes their files.</summary>
    public async ValueTask DisposeAsync()
    {
        foreach (Lazy<Task<PostgresServer>> lazy in _servers.Values.Where(l => l.IsValueCreated))
        {
            // One that failed to start has cleaned up already, and has told whoever asked for it.
            await ((Task)lazy.Value).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (lazy.Value.IsCompletedSuccessfully)
                await lazy.Value.Result.DisposeAsync().ConfigureAwait(false);
        }

        _servers.Clear();
    }

    private static int ParseMajor(string text) =>
        int.TryParse(text, CultureInfo.InvariantCulture, out int major) && PostgresBinaries.Majors.Contains(major)
            ? major
            : throw new FormatException($"{MajorsVariable} is to be \"all\" or a list of {string.Join(", ", PostgresBinaries.Majors)}, not '{text}'.");

    private static int MajorOf(string connectionString)
    {
        using NpgsqlConnection connection = new(connectionString);
        connection.Open();
        return connection.PostgreSqlVersion.Major;
    }
}
