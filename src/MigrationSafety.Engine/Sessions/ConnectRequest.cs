namespace MigrationSafety.Engine.Sessions;

/// <summary>
/// Where to connect to. What is left out comes from <see cref="Text"/>, then from its service, then from libpq's environment variables,
/// then from libpq's defaults; the other members win over the text.
/// </summary>
public sealed record ConnectRequest
{
    /// <summary>Key=value string (libpq's or Npgsql's), <c>postgresql://</c> URI or <c>service=NAME</c>; may hold a password.</summary>
    public string? Text { get; init; }

    /// <summary>Host name, address, socket directory, or several separated by commas.</summary>
    public string? Host { get; init; }

    /// <summary>TCP port, or the number in the socket's name.</summary>
    public int? Port { get; init; }

    /// <summary>Database.</summary>
    public string? Database { get; init; }

    /// <summary>Role.</summary>
    public string? User { get; init; }

    /// <summary>Password.</summary>
    public string? Password { get; init; }

    /// <summary><c>disable</c>, <c>allow</c>, <c>prefer</c>, <c>require</c>, <c>verify-ca</c> or <c>verify-full</c>.</summary>
    public string? SslMode { get; init; }

    /// <summary>How long to try each host; zero is for ever, and without one it is 15 s.</summary>
    public TimeSpan? ConnectTimeout { get; init; }

    /// <inheritdoc />
    public override string ToString() => nameof(ConnectRequest);
}
