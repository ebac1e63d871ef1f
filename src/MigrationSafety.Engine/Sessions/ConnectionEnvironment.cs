namespace MigrationSafety.Engine.Sessions;

/// <summary>What of the surroundings decides where a connection goes; a value, so that nothing else is read.</summary>
internal sealed record ConnectionEnvironment
{
    /// <summary>An environment variable, or null where it is not set.</summary>
    internal required Func<string, string?> Variable { get; init; }

    /// <summary>The user's home; on Windows <c>%APPDATA%\postgresql</c> (manual, "The Password File"); null where there is none.</summary>
    internal required string? Home { get; init; }

    /// <summary>The operating system's name of the user.</summary>
    internal required string UserName { get; init; }

    /// <summary>Where servers usually put their socket; the first that has one for the port is the default host.</summary>
    internal IReadOnlyList<string> SocketDirectories { get; init; } = [];

    /// <summary>Where a system-wide service file lies when PGSYSCONFDIR does not say so.</summary>
    internal IReadOnlyList<string> SystemDirectories { get; init; } = [];

    /// <summary>This process's.</summary>
    internal static ConnectionEnvironment Current => OperatingSystem.IsWindows()
        ? new()
        {
            Variable = Environment.GetEnvironmentVariable,
            Home = Environment.GetEnvironmentVariable("APPDATA") is { Length: > 0 } data ? Path.Combine(data, "postgresql") : null,
            UserName = Environment.UserName,
        }
        : new()
        {
            Variable = Environment.GetEnvironmentVariable,
            Home = Environment.GetEnvironmentVariable("HOME") is { Length: > 0 } home
                ? home
                : Environment.GetFolderPath(Environment.SpecialFolder.UserProfile) is { Length: > 0 } profile ? profile : null,
            UserName = Environment.UserName,
            // Debian and Red Hat build PostgreSQL with the first, everybody else with the second.
            SocketDirectories = ["/var/run/postgresql", "/tmp"],
            SystemDirectories = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc"],
        };

    /// <summary>The host of somebody who names none: a local socket where there is one, else localhost.</summary>
    /// <param name="port">Port.</param>
    internal string DefaultHost(int port) =>
        SocketDirectories.FirstOrDefault(d => File.Exists(Path.Combine(d, $".s.PGSQL.{port}"))) ?? "localhost";
}
