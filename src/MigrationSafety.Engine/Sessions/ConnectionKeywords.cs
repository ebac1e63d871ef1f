namespace MigrationSafety.Engine.Sessions;

/// <summary>The words of connection texts (manual, "Parameter Key Words" and "Environment Variables"; Npgsql's documentation).</summary>
internal static class ConnectionKeywords
{
    /// <summary>libpq's keywords that are honoured, with the environment variable of each where it has one.</summary>
    internal static readonly IReadOnlyDictionary<string, string?> Honoured = new Dictionary<string, string?>(StringComparer.Ordinal)
    {
        ["service"] = "PGSERVICE",
        ["servicefile"] = "PGSERVICEFILE",
        ["host"] = "PGHOST",
        ["hostaddr"] = "PGHOSTADDR",
        ["port"] = "PGPORT",
        ["dbname"] = "PGDATABASE",
        ["user"] = "PGUSER",
        ["password"] = "PGPASSWORD",
        ["passfile"] = "PGPASSFILE",
        ["require_auth"] = "PGREQUIREAUTH",
        ["channel_binding"] = "PGCHANNELBINDING",
        ["connect_timeout"] = "PGCONNECT_TIMEOUT",
        ["options"] = "PGOPTIONS",
        ["sslmode"] = "PGSSLMODE",
        ["sslnegotiation"] = "PGSSLNEGOTIATION",
        ["sslcert"] = "PGSSLCERT",
        ["sslkey"] = "PGSSLKEY",
        ["sslpassword"] = null,
        ["sslrootcert"] = "PGSSLROOTCERT",
        ["gssencmode"] = "PGGSSENCMODE",
        ["krbsrvname"] = "PGKRBSRVNAME",
        ["target_session_attrs"] = "PGTARGETSESSIONATTRS",
        ["load_balance_hosts"] = "PGLOADBALANCEHOSTS",
        ["keepalives"] = null,
        ["keepalives_idle"] = null,
        ["keepalives_interval"] = null,
    };

    /// <summary>libpq's keywords that change nothing here: the name and the encoding are the module's own, the rest is tuning that Npgsql leaves to the system.</summary>
    internal static readonly IReadOnlySet<string> WithoutEffect = new HashSet<string>(StringComparer.Ordinal)
    {
        "application_name", "fallback_application_name", "client_encoding", "keepalives_count", "tcp_user_timeout", "sslcompression", "sslsni", "gsslib", "gssdelegation",
    };

    /// <summary>libpq's keywords that ask for a safety that Npgsql cannot give, with their variables. To pass them over would be to lie.</summary>
    internal static readonly IReadOnlyDictionary<string, string?> Refused = new Dictionary<string, string?>(StringComparer.Ordinal)
    {
        ["sslcrl"] = "PGSSLCRL",
        ["sslcrldir"] = "PGSSLCRLDIR",
        ["sslcertmode"] = "PGSSLCERTMODE",
        ["requirepeer"] = "PGREQUIREPEER",
        ["ssl_min_protocol_version"] = "PGSSLMINPROTOCOLVERSION",
        ["ssl_max_protocol_version"] = "PGSSLMAXPROTOCOLVERSION",
        ["min_protocol_version"] = "PGMINPROTOCOLVERSION",
        ["max_protocol_version"] = "PGMAXPROTOCOLVERSION",
        ["requiressl"] = null,
        ["replication"] = null,
        ["scram_client_key"] = null,
        ["scram_server_key"] = null,
        ["sslkeylogfile"] = null,
        ["oauth_issuer"] = null,
        ["oauth_client_id"] = null,
        ["oauth_client_secret"] = null,
        ["oauth_scope"] = null,
    };

    /// <summary>Npgsql's words, without spaces and capitals, for what libpq has a keyword for.</summary>
    internal static readonly IReadOnlyDictionary<string, string> OfNpgsql = new Dictionary<string, string>(StringComparer.Ordinal)
    {
        ["server"] = "host",
        ["database"] = "dbname",
        ["db"] = "dbname",
        ["username"] = "user",
        ["userid"] = "user",
        ["uid"] = "user",
        ["psw"] = "password",
        ["pwd"] = "password",
        ["requireauth"] = "require_auth",
        ["channelbinding"] = "channel_binding",
        ["timeout"] = "connect_timeout",
        ["sslcertificate"] = "sslcert",
        ["rootcertificate"] = "sslrootcert",
        ["gssencryptionmode"] = "gssencmode",
        ["kerberosservicename"] = "krbsrvname",
        ["targetsessionattributes"] = "target_session_attrs",
        ["loadbalancehosts"] = "load_balance_hosts",
        ["tcpkeepalive"] = "keepalives",
        ["tcpkeepalivetime"] = "keepalives_idle",
        ["tcpkeepaliveinterval"] = "keepalives_interval",
        ["applicationname"] = "application_name",
        ["clientencoding"] = "client_encoding",
    };

    /// <summary>Whether libpq knows the word.</summary>
    internal static bool IsLibpq(string key) => Honoured.ContainsKey(key) || WithoutEffect.Contains(key) || Refused.ContainsKey(key);
}
