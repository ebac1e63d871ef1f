using System.Globalization;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>One host to try.</summary>
/// <param name="Name">Host name, address or socket directory, as people know it.</param>
/// <param name="Port">Port.</param>
/// <param name="Settings">Everything but the password.</param>
/// <param name="Password">Password, or null where none was found.</param>
/// <param name="PasswordFile">The file that it came from, or null.</param>
/// <param name="TlsName">The name that the certificate must have, where the address is given apart from it (hostaddr).</param>
internal sealed record ConnectionHost(
    string Name,
    int Port,
    NpgsqlConnectionStringBuilder Settings,
    string? Password,
    string? PasswordFile,
    string? TlsName)
{
    /// <inheritdoc />
    public override string ToString() => Name.Contains(':', StringComparison.Ordinal) ? $"[{Name}]:{Port}" : $"{Name}:{Port}";
}

/// <summary>What a request comes down to.</summary>
/// <param name="Hosts">The hosts, in the order in which to try them.</param>
/// <param name="Wanted">Which kind of server will do.</param>
/// <param name="ConnectTimeout">How long to try each host; null for ever.</param>
/// <param name="Warnings">What every user should read.</param>
/// <param name="Remarks">What a curious user wants to read.</param>
internal sealed record ResolvedConnection(
    IReadOnlyList<ConnectionHost> Hosts,
    TargetSessionAttributes Wanted,
    TimeSpan? ConnectTimeout,
    IReadOnlyList<string> Warnings,
    IReadOnlyList<string> Remarks);

/// <summary>Brings request, text, service, environment and defaults together, with libpq's precedence, into Npgsql's settings.</summary>
internal sealed class ConnectionResolver
{
    private const int DefaultPort = 5432;
    private static readonly TimeSpan s_defaultTimeout = TimeSpan.FromSeconds(15);

    private readonly ConnectionEnvironment _environment;
    private readonly Dictionary<string, string> _values = new(StringComparer.Ordinal);
    private readonly HashSet<string> _warnings = [];
    private readonly List<string> _remarks = [];

    private ConnectionResolver(ConnectionEnvironment environment) => _environment = environment;

    /// <summary>Resolves a request.</summary>
    /// <param name="request">Request.</param>
    /// <param name="environment">Surroundings.</param>
    /// <exception cref="MigrationException">The text or one of its values is wrong, or names a service that is not there.</exception>
    internal static ResolvedConnection Resolve(ConnectRequest request, ConnectionEnvironment environment) => new ConnectionResolver(environment).Resolve(request);

    private ResolvedConnection Resolve(ConnectRequest request)
    {
        ConnectionText? text = string.IsNullOrWhiteSpace(request.Text) ? null : ConnectionText.Parse(request.Text);
        Gather(request, text);

        TimeSpan? timeout = request.ConnectTimeout ?? (Get("connect_timeout") is null ? s_defaultTimeout : TimeSpan.FromSeconds(Number("connect_timeout", 0, int.MaxValue / 1000)));
        timeout = timeout > TimeSpan.Zero ? timeout : null;
        string user = Get("user") ?? _environment.UserName;
        string database = Get("dbname") ?? user;

        string[]? addresses = List("hostaddr");
        string[]? names = List("host");
        string[] ports = List("port") ?? [string.Empty];
        int count = addresses?.Length ?? names?.Length ?? 1;
        if ((addresses is not null && names is not null && names.Length != count) || (ports.Length != 1 && ports.Length != count))
        {
            throw Wrong("port", $"host, hostaddr and port list {names?.Length ?? 0}, {addresses?.Length ?? 0} and {ports.Length} entries", "Give each host its port and address, or one port for all.");
        }

        List<ConnectionHost> hosts = [];
        for (int i = 0; i < count; i++)
        {
            int port = Port(ports[ports.Length == 1 ? 0 : i]);
            string? name = names?[i] is { Length: > 0 } given ? given : null;
            string? address = addresses?[i] is { Length: > 0 } numeric ? numeric : null;
            string target = address ?? name ?? _environment.DefaultHost(port);
            NpgsqlConnectionStringBuilder settings = Settings(text, target, port, database, user, timeout);
            (string? password, string? file) = Password(name ?? address ?? target, port, database, user);
            hosts.Add(new(name ?? target, port, settings, password, file, address is null ? null : name));
        }

        if (Choice("load_balance_hosts", "disable", ("disable", false), ("random", true), ("false", false), ("true", true)))
        {
            Random.Shared.Shuffle(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(hosts));
        }

        return new(hosts, Wanted(), timeout, [.. _warnings], _remarks);
    }

    /// <summary>Request over text over service over environment.</summary>
    private void Gather(ConnectRequest request, ConnectionText? text)
    {
        Take("host", Given(request.Host));
        Take("port", request.Port?.ToString(CultureInfo.InvariantCulture));
        Take("dbname", Given(request.Database));
        Take("user", Given(request.User));
        Take("password", Given(request.Password));
        Take("sslmode", Given(request.SslMode));
        foreach ((string key, string value) in text?.Values ?? new Dictionary<string, string>())
        {
            // A host of its own makes the text's address, and its list of ports, another server's.
            if (request.Host is null || key is not ("hostaddr" or "port"))
            {
                Take(key, value);
            }
        }

        if (request.Host is not null && request.Port is null && text?.Values.GetValueOrDefault("port") is { } ports && !ports.Contains(',', StringComparison.Ordinal))
        {
            Take("port", ports);
        }

        if ((Get("service") ?? Variable("PGSERVICE")) is { } service)
        {
            foreach ((string key, string value) in ServiceFile.Read(service, Get("servicefile") ?? Variable("PGSERVICEFILE"), _environment))
            {
                if (!(key == "hostaddr" && request.Host is not null))
                {
                    Take(key, value);
                }
            }
        }

        bool hasHost = _values.ContainsKey("host") || _values.ContainsKey("hostaddr");
        foreach ((string key, string? variable) in ConnectionKeywords.Honoured.Concat(ConnectionKeywords.Refused))
        {
            // PGHOSTADDR belongs to PGHOST; beside another host it would silently connect to the wrong server.
            if (variable is not null && !(hasHost && key == "hostaddr"))
            {
                Take(key, Variable(variable));
            }
        }

        foreach (string key in _values.Keys.Where(k => Get(k) is not null))
        {
            if (ConnectionKeywords.Refused.ContainsKey(key))
            {
                throw new MigrationException(
                    "ConnectionKeyNotSupported",
                    MigrationErrorKind.NotSupported,
                    $"'{key}' is a keyword of libpq that cannot be honoured here.",
                    "Leave it out (a variable such as PGSSLCRL counts too), if the connection is safe enough without it.")
                {
                    Target = key,
                };
            }

            if (ConnectionKeywords.WithoutEffect.Contains(key))
            {
                _remarks.Add($"'{key}' of the connection has no effect here.");
            }
        }

        static string? Given(string? member) => string.IsNullOrEmpty(member) ? null : member;

        void Take(string key, string? value)
        {
            // As in libpq, an empty value is none, but hides what comes after.
            if (value is not null)
            {
                _values.TryAdd(key, value);
            }
        }
    }

    private NpgsqlConnectionStringBuilder Settings(ConnectionText? text, string host, int port, string database, string user, TimeSpan? timeout)
    {
        NpgsqlConnectionStringBuilder settings = [];
        foreach ((string key, string value) in text?.NpgsqlOnly ?? new Dictionary<string, string>())
        {
            try
            {
                settings[key] = value;
            }
            catch (Exception e) when (e is ArgumentException or FormatException or InvalidCastException)
            {
                throw Wrong(key, "it has a value that Npgsql does not take", "See Npgsql's documentation of connection string parameters.", e);
            }
        }

        settings.Host = host;
        settings.Port = port;
        settings.Database = database;
        settings.Username = user;
        settings.Timeout = timeout is { } t ? (int)Math.Clamp(Math.Ceiling(t.TotalSeconds), 1, 1024) : 0;
        settings.Options = Get("options");
        SetTls(settings, host);
        settings.ChannelBinding = Choice("channel_binding", "prefer", ("disable", ChannelBinding.Disable), ("prefer", ChannelBinding.Prefer), ("require", ChannelBinding.Require));
        // Without a wish there is no attempt: Npgsql's default loads a Kerberos library, complains on stderr where there is none, and costs time.
        settings.GssEncryptionMode = Choice(
            "gssencmode", "disable", ("disable", GssEncryptionMode.Disable), ("prefer", GssEncryptionMode.Prefer), ("require", GssEncryptionMode.Require));
        settings.KerberosServiceName = Get("krbsrvname") ?? settings.KerberosServiceName;
        try
        {
            settings.RequireAuth = AuthenticationMethods(Get("require_auth"));
        }
        catch (ArgumentException e)
        {
            throw Wrong("require_auth", e.Message.TrimEnd('.'), "Use a list of password, md5, gss, sspi, scram-sha-256 and none, or of the same with '!' before each.", e);
        }

        // The module's own, whatever the text says.
        settings.ApplicationName = "MigrationSafety";
        settings.ClientEncoding = "UTF8";
        settings.CommandTimeout = 0;
        settings.Enlist = false;
        settings.Multiplexing = false;
        settings.MaxAutoPrepare = 0;
        // EngineSession resets a connection when it takes it from the pool: Npgsql would do so too, but in a way that cannot be cancelled.
        settings.NoResetOnClose = true;
        settings.IncludeErrorDetail = true;
        settings.PersistSecurityInfo = false;
        settings.Pooling = true;
        settings.MinPoolSize = 0;
        // No bound of our own: operations that hold connections while they wait for more would wait for each other. The server's max_connections refuses at once.
        settings.MaxPoolSize = 1000;
        settings.ConnectionIdleLifetime = 30;
        settings.ConnectionPruningInterval = 10;
        // An idle connection is asked now and then, one that waits for a long statement is watched by TCP: 10 s of silence, then every 5 s.
        settings.KeepAlive = 30;
        // A socket is not to be asked for keepalives: .NET fails to set them.
        settings.TcpKeepAlive = !IsSocket(host) && Choice("keepalives", "1", ("0", false), ("1", true), ("false", false), ("true", true));
        if (settings.TcpKeepAlive)
        {
            settings.TcpKeepAliveTime = Get("keepalives_idle") is null ? 10 : Number("keepalives_idle", 0, int.MaxValue);
            settings.TcpKeepAliveInterval = Get("keepalives_interval") is null ? 5 : Number("keepalives_interval", 0, int.MaxValue);
        }

        return settings;
    }

    private void SetTls(NpgsqlConnectionStringBuilder settings, string host)
    {
        string? root = Get("sslrootcert");
        bool system = root == "system";
        SslMode mode = Choice(
            "sslmode",
            system ? "verify-full" : "prefer",
            ("disable", SslMode.Disable),
            ("allow", SslMode.Allow),
            ("prefer", SslMode.Prefer),
            ("require", SslMode.Require),
            ("verify-ca", SslMode.VerifyCA),
            ("verify-full", SslMode.VerifyFull));
        if (system && mode != SslMode.VerifyFull)
        {
            throw Wrong("sslmode", "sslrootcert=system allows verify-full only", "Use sslmode=verify-full, or name a file by sslrootcert.");
        }

        string? defaultRoot = _environment.Home is { } home ? Path.Combine(home, OperatingSystem.IsWindows() ? "." : ".postgresql", "root.crt") : null;
        root = system ? null : root ?? (defaultRoot is not null && File.Exists(defaultRoot) ? defaultRoot : null);
        if (root is not null && mode == SslMode.Require)
        {
            // Said so in the manual, "Certificate Verification": with a root certificate, require is as strict as verify-ca.
            mode = SslMode.VerifyCA;
        }

        if (mode is SslMode.VerifyCA or SslMode.VerifyFull && root is not null && !File.Exists(root))
        {
            throw Wrong("sslrootcert", $"the file '{root}' does not exist", "Name the certificate of the authority that signed the server's, or use sslrootcert=system.");
        }

        // As in libpq, a socket has no TLS, whatever the mode.
        settings.SslMode = IsSocket(host) ? SslMode.Disable : mode;
        settings.RootCertificate = root;
        settings.SslCertificate = Existing("sslcert");
        settings.SslKey = Existing("sslkey");
        settings.SslPassword = Get("sslpassword");
        if (Get("sslnegotiation") is not null && settings.SslMode != SslMode.Disable)
        {
            settings.SslNegotiation = Choice("sslnegotiation", "postgres", ("postgres", SslNegotiation.Postgres), ("direct", SslNegotiation.Direct));
            if (settings.SslNegotiation == SslNegotiation.Direct && mode is not (SslMode.Require or SslMode.VerifyCA or SslMode.VerifyFull))
            {
                throw Wrong("sslnegotiation", "direct needs a TLS mode that insists on TLS", "Add sslmode=require, verify-ca or verify-full.");
            }
        }
    }

    private string? Existing(string key) =>
        Get(key) is not { } path || File.Exists(path) ? Get(key) : throw Wrong(key, $"the file '{path}' does not exist", "Check the path; a relative one starts at the current directory of the process.");

    private (string? Password, string? File) Password(string host, int port, string database, string user)
    {
        if (Get("password") is { } given)
        {
            return (given, null);
        }

        if ((Get("passfile") ?? PasswordFile.DefaultPath(_environment)) is not { } path)
        {
            return (null, null);
        }

        // In the file, the default socket directory goes by the name of localhost.
        string known = IsSocket(host) && _environment.SocketDirectories.Contains(host) ? "localhost" : host;
        return PasswordFile.Find(path, known, port, database, user, w => _warnings.Add(w)) is { } found ? (found, path) : (null, null);
    }

    private TargetSessionAttributes Wanted() => Choice(
        "target_session_attrs",
        "any",
        ("any", TargetSessionAttributes.Any),
        ("read-write", TargetSessionAttributes.ReadWrite),
        ("read-only", TargetSessionAttributes.ReadOnly),
        ("primary", TargetSessionAttributes.Primary),
        ("standby", TargetSessionAttributes.Standby),
        ("prefer-standby", TargetSessionAttributes.PreferStandby),
        ("prefer-primary", TargetSessionAttributes.PreferPrimary));

    private T Choice<T>(string key, string byDefault, params (string Word, T Value)[] choices)
    {
        string word = Get(key) ?? byDefault;
        // Npgsql writes VerifyFull for libpq's verify-full.
        string plain = word.Replace("-", string.Empty, StringComparison.Ordinal);
        foreach ((string name, T value) in choices)
        {
            if (string.Equals(plain, name.Replace("-", string.Empty, StringComparison.Ordinal), StringComparison.OrdinalIgnoreCase))
            {
                return value;
            }
        }

        throw Wrong(key, $"'{word}' is none of its values", $"Use one of {string.Join(", ", choices.Select(c => c.Word))}.");
    }

    private int Number(string key, int least, int most) =>
        int.TryParse(Get(key), NumberStyles.AllowLeadingSign | NumberStyles.AllowLeadingWhite | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out int number) && number <= most
            ? Math.Max(number, least)
            : throw Wrong(key, $"'{Get(key)}' is not a whole number", "Give a number of seconds.");

    private static int Port(string text) =>
        text.Length == 0 ? DefaultPort
        : int.TryParse(text, NumberStyles.AllowLeadingWhite | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out int port) && port is > 0 and < 65536
            ? port
            // The value is not shown: in a URI whose password has a bare '/' it is the beginning of the password.
            : throw Wrong("port", "it is not a number from 1 to 65535", "Give the port's number; in a URI, a '/', '@', ':' or '?' inside user or password must be percent-encoded.");

    /// <summary>Npgsql has the same methods under other names, and is strict about capitals.</summary>
    private static string? AuthenticationMethods(string? list) => list is null ? null : string.Join(',', list.Split(',', StringSplitOptions.TrimEntries).Select(entry =>
    {
        string sign = entry.StartsWith('!') ? "!" : string.Empty;
        string method = entry[sign.Length..];
        return sign + (method.ToLowerInvariant() switch
        {
            "password" => "Password",
            "md5" => "MD5",
            "gss" => "GSS",
            "sspi" => "SSPI",
            "scram-sha-256" => "ScramSHA256",
            "none" => "None",
            _ => method,
        });
    }));

    private static bool IsSocket(string host) => host[0] == '@' || Path.IsPathRooted(host);

    private string[]? List(string key) => Get(key)?.Split(',', StringSplitOptions.TrimEntries);

    private string? Get(string key) => _values.TryGetValue(key, out string? value) && value.Length > 0 ? value : null;

    private string? Variable(string name) => _environment.Variable(name) is { Length: > 0 } value ? value : null;

    private static MigrationException Wrong(string key, string why, string advice, Exception? cause = null) =>
        new("ConnectionValueInvalid", MigrationErrorKind.InvalidInput, $"'{key}' of the connection is wrong: {why}.", advice, cause) { Target = key };
}
