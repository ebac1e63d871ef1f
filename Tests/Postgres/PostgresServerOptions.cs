namespace MigrationSafety.Tests.Postgres;

/// <summary>How <see cref="PostgresServer.StopAsync"/> stops; as in <c>pg_ctl stop -m</c>.</summary>
public enum StopMode
{
    /// <summary>Waits for all clients to leave.</summary>
    Smart,

    /// <summary>Throws clients out and rolls back.</summary>
    Fast,

    /// <summary>Ends without a checkpoint: the next start recovers, as after a crash.</summary>
    Immediate,
}

/// <summary>How clients prove who they are.</summary>
public enum PostgresAuthentication
{
    /// <summary>They need not.</summary>
    Trust,

    /// <summary>With a password, by SCRAM-SHA-256; that of <c>postgres</c> is <see cref="PostgresServerOptions.Password"/>.</summary>
    Scram,
}

/// <summary>Whether the server speaks TLS, and with what certificate.</summary>
public enum PostgresTls
{
    /// <summary>No TLS.</summary>
    Off,

    /// <summary>A certificate for localhost and 127.0.0.1, signed by <see cref="PostgresServer.RootCertificatePath"/>.</summary>
    Valid,

    /// <summary>Like <see cref="Valid"/>, but it ended yesterday.</summary>
    Expired,
}

/// <summary>How a test server is to be; every default suits a test.</summary>
public sealed record PostgresServerOptions
{
    /// <summary>The password of <c>postgres</c>; asked for under <see cref="PostgresAuthentication.Scram"/>.</summary>
    public const string Password = "mspg-secret";

    /// <summary>How clients prove who they are, over TCP and over the Unix socket.</summary>
    public PostgresAuthentication Authentication { get; init; }

    /// <summary>TLS on the TCP port. Plain connections stay possible.</summary>
    public PostgresTls Tls { get; init; }

    /// <summary>True for tests that crash the operating system's side too: fsync = on. After a mere kill of processes nothing is lost without it.</summary>
    public bool Durable { get; init; }

    /// <summary>max_connections.</summary>
    public int MaxConnections { get; init; } = 200;

    /// <summary>shared_buffers, with its unit.</summary>
    public string SharedBuffers { get; init; } = "32MB";

    /// <summary>Settings of postgresql.conf by name, as values without quotes; they override all others.</summary>
    public IReadOnlyDictionary<string, string> Settings { get; init; } = new Dictionary<string, string>();
}
