namespace MigrationSafety;

/// <summary>
/// What <c>-Session</c> accepts: a <see cref="MigrationSession"/>, or a text: key=value connection string, <c>postgresql://</c> URI or <c>service=NAME</c>.
/// </summary>
public sealed class SessionArgument
{
    /// <summary>From a session.</summary>
    /// <param name="session">An open session.</param>
    public SessionArgument(MigrationSession session)
    {
        ArgumentNullException.ThrowIfNull(session);
        Session = session;
    }

    /// <summary>From a connection text; it is read when the cmdlet runs.</summary>
    /// <param name="connection">Key=value string, URI or <c>service=NAME</c>.</param>
    public SessionArgument(string connection)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(connection);
        Connection = connection;
    }

    /// <summary>The session, or null where a text was given.</summary>
    public MigrationSession? Session { get; }

    /// <summary>The text; may hold a password, therefore internal.</summary>
    internal string? Connection { get; }

    /// <inheritdoc />
    public override string ToString() => Session?.ToString() ?? "connection text";
}
