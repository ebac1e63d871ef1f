namespace MigrationSafety;

/// <summary>State of a <see cref="MigrationSession"/>.</summary>
public enum SessionState
{
    /// <summary>Usable.</summary>
    Open,

    /// <summary>Disconnected; a cmdlet refuses it.</summary>
    Closed,
}

/// <summary>A connected database: what <c>Connect-MigrationDatabase</c> returns and <c>-Session</c> takes. Holds no visible secret.</summary>
public sealed class MigrationSession
{
    internal MigrationSession(int id, string server, int port, string database, string user, Version serverVersion, bool isStandby, object handle)
    {
        Id = id;
        Server = server;
        Port = port;
        Database = database;
        User = user;
        ServerVersion = serverVersion;
        IsStandby = isStandby;
        Handle = handle;
    }

    /// <summary>Number of the session in this process, from 1.</summary>
    public int Id { get; }

    /// <summary>Host name, address or socket directory that answered.</summary>
    public string Server { get; }

    /// <summary>TCP port, or the number in the socket's name.</summary>
    public int Port { get; }

    /// <summary>Database.</summary>
    public string Database { get; }

    /// <summary>Role that is logged in.</summary>
    public string User { get; }

    /// <summary>Version of the server (<c>server_version_num</c>).</summary>
    public Version ServerVersion { get; }

    /// <summary>Whether the server was in recovery (a standby) when the session was opened (<c>pg_is_in_recovery()</c>).</summary>
    public bool IsStandby { get; }

    /// <summary>State.</summary>
    public SessionState State { get; internal set; }

    /// <summary>When the session was opened.</summary>
    public DateTimeOffset ConnectedAt { get; } = DateTimeOffset.Now;

    /// <summary>The engine's side; opaque here, because nothing of Npgsql may be seen.</summary>
    internal object Handle { get; }

    /// <inheritdoc />
    public override string ToString() => $"{User}@{Server}:{Port}/{Database}";
}
