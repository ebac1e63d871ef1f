using System.Net.Sockets;
using System.Security.Authentication;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>Says why a host did not let us in, and what to do about it.</summary>
internal static class ConnectErrors
{
    /// <summary>Translates what opening a connection threw.</summary>
    /// <param name="e">What it threw.</param>
    /// <param name="host">Host.</param>
    /// <param name="timeout">Connect timeout.</param>
    /// <param name="timedOut">Whether it is over.</param>
    /// <param name="cancellationToken">Cancels the second look at a certificate.</param>
    internal static async Task<MigrationException> TranslateAsync(Exception e, ConnectionHost host, TimeSpan? timeout, bool timedOut, CancellationToken cancellationToken)
    {
        if (e is MigrationException known)
        {
            return known;
        }

        List<Exception> chain = [];
        for (Exception? next = e; next is not null; next = next.InnerException)
        {
            chain.Add(next);
        }

        if (chain.OfType<PostgresException>().FirstOrDefault() is { } refusal)
        {
            return OfServer(refusal, host, e);
        }

        if (chain.OfType<SocketException>().FirstOrDefault() is { SocketErrorCode: not SocketError.TimedOut } socket && OfSocket(socket, host, e) is { } network)
        {
            return network;
        }

        if (chain.OfType<NpgsqlException>().Any(ServerErrors.IsPoolExhausted))
        {
            return Make(
                "TooManyConnections",
                MigrationErrorKind.Resource,
                host,
                $"This session has all of its {host.Settings.MaxPoolSize} connections to {host} in use.",
                "Let operations that run on it end first, run fewer at once (-ThrottleLimit), or give each its own session (Connect-MigrationDatabase).",
                e);
        }

        if (timedOut || chain.Exists(x => x is TimeoutException or OperationCanceledException or SocketException { SocketErrorCode: SocketError.TimedOut }))
        {
            string within = timeout is { } t ? $" within {t.TotalSeconds:0.#} s" : string.Empty;
            return Make("ConnectTimeout", MigrationErrorKind.Connection, host, $"{host} gave no answer{within}.", "Check host and port, and whether a firewall drops what is sent there; connect_timeout says how long to wait.", e);
        }

        if (chain.Exists(x => x is AuthenticationException) && await CertificateInspector.FindFlawAsync(host, cancellationToken).ConfigureAwait(false) is { } flaw)
        {
            return Make("CertificateInvalid", MigrationErrorKind.Authentication, host, $"The certificate of {host} was not accepted: {flaw.Why}.", flaw.Advice, e);
        }

        return OfClient(e, host);
    }

    /// <summary>A host that is there, but of another kind than target_session_attrs asks for.</summary>
    internal static MigrationException NotTheWanted(ConnectionHost host, string kind, TargetSessionAttributes wanted) => Make(
        "NoSuitableHost",
        MigrationErrorKind.Connection,
        host,
        $"{host} is {kind}, and target_session_attrs asks for {Word(wanted)}.",
        "Add the other servers to the list of hosts, connect to the right one, or drop target_session_attrs.",
        null);

    /// <summary>Several hosts, and none will do.</summary>
    internal static MigrationException NoneSuits(IReadOnlyList<(ConnectionHost Host, MigrationException Why)> failures) => new(
        "NoSuitableHost",
        MigrationErrorKind.Connection,
        $"None of the {failures.Count} hosts will do. " + string.Join(' ', failures.Select(f => f.Why.Message)),
        string.Join(' ', failures.Select(f => f.Why.RecommendedAction).Distinct()),
        failures[0].Why)
    {
        Target = string.Join(',', failures.Select(f => f.Host)),
        SqlState = failures[0].Why.SqlState,
    };

    private static MigrationException OfServer(PostgresException refusal, ConnectionHost host, Exception e)
    {
        string words = $"{host} refused the connection: {ServerErrors.Words(refusal)}";
        string user = host.Settings.Username!;
        string database = host.Settings.Database!;
        // The routine is the same in every language of the server; its messages are not.
        return (refusal.SqlState, refusal.Routine) switch
        {
            (SqlStates.InvalidPassword, _) => Make(
                "PasswordRejected",
                MigrationErrorKind.Authentication,
                host,
                words + (host.PasswordFile is { } file ? $" The password came from {file}." : string.Empty),
                $"Check user '{user}' and its password (-Credential, the connection text, PGPASSWORD, the password file). The server says the same of a role that does not exist.",
                e),
            (SqlStates.InvalidAuthorization, "InitializeSessionUserId") => Make(
                "RoleNotFound", MigrationErrorKind.Authentication, host, words, $"Check the user's name '{user}' (capitals count; without one, it is the operating system's user), and that the role has LOGIN.", e),
            (SqlStates.InvalidAuthorization, _) => Make(
                "NotAdmitted",
                MigrationErrorKind.Authentication,
                host,
                words,
                $"Check user '{user}', database '{database}' and sslmode, or have an entry added to the server's pg_hba.conf for them and this client's address.",
                e),
            (SqlStates.InvalidCatalogName, _) => Make(
                "DatabaseNotFound", MigrationErrorKind.NotFound, host, words, $"Check the database's name '{database}': capitals count, and without one it is the user's name.", e),
            (SqlStates.InsufficientPrivilege, _) => Make(
                "NotAdmitted", MigrationErrorKind.Permission, host, words, $"Have it granted: GRANT CONNECT ON DATABASE {Sql.SqlName.Quote(database)} TO {Sql.SqlName.Quote(user)};", e),
            ("08P01", _) when refusal.MessageText.Contains("startup parameter", StringComparison.OrdinalIgnoreCase) => Make(
                "StartupParameterRefused",
                MigrationErrorKind.NotSupported,
                host,
                words,
                "A connection pooler is there that does not pass this on. Connect to the server directly, or leave out options= (PGOPTIONS).",
                e),
            // PgBouncer has no codes of its own for these.
            ("08P01", _) when refusal.MessageText.Contains("password authentication failed", StringComparison.OrdinalIgnoreCase) || refusal.MessageText.Contains("SASL authentication failed", StringComparison.OrdinalIgnoreCase) => Make(
                "PasswordRejected", MigrationErrorKind.Authentication, host, words, $"Check user '{user}' and its password, in the pooler's own list of users too.", e),
            ("08P01", _) when refusal.MessageText.Contains("no such database", StringComparison.OrdinalIgnoreCase) => Make(
                "DatabaseNotFound", MigrationErrorKind.NotFound, host, words, $"Check the database's name '{database}', in the pooler's own list of databases too.", e),
            ("0A000", _) => Make("NotSupported", MigrationErrorKind.NotSupported, host, words, "Something between here and the server speaks another version of the protocol; connect to the server directly.", e),
            ("08P01", _) => Make("NotAdmitted", MigrationErrorKind.Connection, host, words, "The message is the server's own, or that of a pooler before it; its log may say more.", e),
            _ => Relabel(ServerErrors.Translate(refusal, $"Connecting to {host}", host.ToString())),
        };
    }

    /// <summary>While one connects there is nothing to go on with: lost then means refused for now.</summary>
    private static MigrationException Relabel(MigrationException e) => e.ErrorId switch
    {
        "ServerShutdown" => new("ServerNotReady", e.Kind, e.Message, "The server is shutting down. Try again when it is back.", e.InnerException) { SqlState = e.SqlState, Target = e.Target },
        _ => e,
    };

    private static MigrationException? OfSocket(SocketException socket, ConnectionHost host, Exception e)
    {
        bool isSocketFile = Path.IsPathRooted(host.Name) || host.Name[0] == '@';
        string file = isSocketFile ? Path.Combine(host.Name, $".s.PGSQL.{host.Port}") : string.Empty;
        return socket.SocketErrorCode switch
        {
            SocketError.HostNotFound or SocketError.NoData or SocketError.TryAgain or SocketError.NoRecovery => Make(
                "HostNotFound", MigrationErrorKind.Connection, host, $"There is no address for the host '{host.Name}' ({socket.Message}).", "Check the spelling, and that this machine's DNS knows the name (VPN, search domain).", e),
            SocketError.ConnectionRefused or SocketError.AddressNotAvailable when isSocketFile => Make(
                "ConnectionRefused", MigrationErrorKind.Connection, host, $"No server listens on the socket {file}.", "Check that the server runs, its port, and unix_socket_directories; or name a host to use TCP.", e),
            SocketError.ConnectionRefused => Make(
                "ConnectionRefused", MigrationErrorKind.Connection, host, $"Nothing listens on {host}.", "Check host and port, that the server runs, and that its listen_addresses has that address.", e),
            SocketError.AccessDenied => Make(
                "NotAdmitted", MigrationErrorKind.Permission, host, $"The operating system does not let this user connect to {(isSocketFile ? file : host.ToString())}.", "Check the permissions of the socket (unix_socket_permissions) or the local firewall.", e),
            SocketError.HostUnreachable or SocketError.NetworkUnreachable or SocketError.NetworkDown or SocketError.HostDown => Make(
                "HostUnreachable", MigrationErrorKind.Connection, host, $"There is no way to {host} ({socket.Message}).", "Check the network and the VPN, and whether the name leads to an IPv6 address that this machine cannot reach.", e),
            _ when isSocketFile && !File.Exists(file) => Make(
                "ConnectionRefused", MigrationErrorKind.Connection, host, $"There is no socket {file}.", "Check that the server runs, its port, and unix_socket_directories; or name a host to use TCP.", e),
            _ => null,
        };
    }

    /// <summary>
    /// What Npgsql itself has to complain of has no codes; its words are those of version 10, and where they change the error is a plain <c>ConnectFailed</c>
    /// with the same words.
    /// </summary>
    private static MigrationException OfClient(Exception e, ConnectionHost host)
    {
        string text = e.Message;
        if (text.Contains("No password has been provided", StringComparison.Ordinal))
        {
            return Make(
                "PasswordMissing",
                MigrationErrorKind.Authentication,
                host,
                $"{host} wants a password for user '{host.Settings.Username}', and none was given.",
                $"Give one: -Credential, PGPASSWORD, or a line in the password file for {host.Name}:{host.Port}:{host.Settings.Database}:{host.Settings.Username}.",
                e);
        }

        if (text.Contains("No SSL enabled connection", StringComparison.Ordinal))
        {
            return Make("TlsNotOffered", MigrationErrorKind.Connection, host, $"{host} offers no TLS, and sslmode insists on it.", "Turn TLS on at the server (ssl = on), or use sslmode=prefer where the network is safe.", e);
        }

        if (text.Contains("SSLRequest", StringComparison.Ordinal) || text.Contains("unexpected message", StringComparison.OrdinalIgnoreCase)
            || text.Contains("Received backend message", StringComparison.Ordinal) || text.Contains("Unknown message code", StringComparison.Ordinal))
        {
            return Make("NotPostgres", MigrationErrorKind.Connection, host, $"What answers on {host} is not a PostgreSQL server.", "Check the port: another service listens there.", e);
        }

        if (e is AuthenticationException || e.InnerException is AuthenticationException || text.Contains("SSL handshake", StringComparison.Ordinal))
        {
            return Make(
                "TlsFailed", MigrationErrorKind.Connection, host, $"TLS with {host} failed: {Innermost(e)}.", "Check that a PostgreSQL server with TLS is there, the client's certificate (sslcert, sslkey), and the versions of TLS on both sides.", e);
        }

        return ServerErrors.IsConnectionLost(e)
            ? Make(
                "ConnectionClosed",
                MigrationErrorKind.Connection,
                host,
                $"{host} took the connection and closed it again during the login ({Innermost(e)}).",
                "Check that a PostgreSQL server is there, not another service or a proxy with no server behind it; the server's log says what it saw.",
                e)
            : e is NpgsqlException or System.Security.Cryptography.CryptographicException or IOException or UnauthorizedAccessException or NotSupportedException
                ? Make("ConnectFailed", MigrationErrorKind.Connection, host, $"Connecting to {host} failed: {text.TrimEnd('.')}.", "The message is the driver's own; the server's log may say more.", e)
                : ServerErrors.Translate(e, $"Connecting to {host}", host.ToString());
    }

    private static string Innermost(Exception e)
    {
        while (e.InnerException is { } inner)
        {
            e = inner;
        }

        return e.Message.TrimEnd('.');
    }

    private static string Word(TargetSessionAttributes wanted) => wanted switch
    {
        TargetSessionAttributes.ReadWrite => "read-write",
        TargetSessionAttributes.ReadOnly => "read-only",
        TargetSessionAttributes.Primary or TargetSessionAttributes.PreferPrimary => "primary",
        TargetSessionAttributes.Standby or TargetSessionAttributes.PreferStandby => "standby",
        _ => "any",
    };

    private static MigrationException Make(string id, MigrationErrorKind kind, ConnectionHost host, string message, string advice, Exception? cause) =>
        new(id, kind, message, advice, cause) { Target = host.ToString(), SqlState = (cause as PostgresException ?? cause?.InnerException as PostgresException)?.SqlState };
}
