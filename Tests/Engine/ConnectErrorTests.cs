using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Every way not to get in, on real servers and sockets: its id, its advice, its time, and no password in it.</summary>
public sealed class ConnectErrorTests(Servers servers)
{
    private const string WrongPassword = "wr0ng-s3cret";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("host=no-such-host.invalid", "HostNotFound", "no-such-host.invalid")]
    [InlineData("host=/no/such/directory", "ConnectionRefused", "/no/such/directory/.s.PGSQL.5432")]
    public Task A_host_that_is_not_there_is_named(string text, string errorId, string part) => FailsAsync(text, errorId, part);

    [Theory, EachMajor]
    public async Task Where_nothing_listens_the_port_is_named(int major)
    {
        await using TcpProxy proxy = TcpProxy.Start(await servers.Clusters.GetAsync(major));
        proxy.RefuseNew = true;
        await FailsAsync($"host=127.0.0.1 port={proxy.Port}", "ConnectionRefused", $"127.0.0.1:{proxy.Port}");
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task No_answer_ends_with_the_connect_timeout(int major)
    {
        PostgresServer server = await servers.Clusters.GetAsync(major);
        await using TcpProxy proxy = TcpProxy.Start(server);
        proxy.Freeze();
        foreach (string mode in new[] { "disable", "prefer", "require" })
        {
            long start = Stopwatch.GetTimestamp();
            await FailsAsync($"host=127.0.0.1 port={proxy.Port} connect_timeout=1 sslmode={mode}", "ConnectTimeout", "within 1 s");
            Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0.5, 4);
        }
    }

    [Theory, EachMajor]
    public async Task A_pool_that_is_used_up_is_not_taken_for_a_silent_server(int major)
    {
        PostgresServer server = await servers.Clusters.GetAsync(major);
        NpgsqlConnectionStringBuilder settings = new(server.ConnectionString()) { Pooling = true, MaxPoolSize = 1, Timeout = 1 };
        await using NpgsqlDataSource pool = NpgsqlDataSource.Create(settings);
        await using NpgsqlConnection only = await pool.OpenConnectionAsync(Token);
        Exception full = await Assert.ThrowsAnyAsync<NpgsqlException>(async () => await pool.OpenConnectionAsync(Token));
        MigrationException e = await ConnectErrors.TranslateAsync(full, new ConnectionHost("db1", 5432, settings, null, null, null), TimeSpan.FromSeconds(1), timedOut: false, Token);
        Assert.Equal(("TooManyConnections", MigrationErrorKind.Resource), (e.ErrorId, e.Kind));
        Assert.Contains("-ThrottleLimit", e.RecommendedAction, StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task Cancellation_ends_the_connecting(int major)
    {
        await using TcpProxy proxy = TcpProxy.Start(await servers.Clusters.GetAsync(major));
        proxy.Freeze();
        using CancellationTokenSource stop = new(300);
        long start = Stopwatch.GetTimestamp();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => SessionFactory.ConnectAsync(new() { Text = $"host=127.0.0.1 port={proxy.Port} connect_timeout=30" }, new RecordingSink(), stop.Token));
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0, 1.3);
    }

    [Theory, EachMajor]
    public async Task Logins_that_the_server_refuses_say_what_is_wrong(int major)
    {
        PostgresServer secure = await servers.GetSecureAsync(major);
        string at = $"host=127.0.0.1 port={secure.Port} dbname=postgres";
        string good = $"{at} user=postgres password={PostgresServerOptions.Password}";
        await FailsAsync($"{at} user=postgres password={WrongPassword}", "PasswordRejected", "'postgres'");
        await FailsAsync($"{at} user=nobody_here password={WrongPassword}", "PasswordRejected", "does not exist");
        await FailsAsync($"{at} user=postgres", "PasswordMissing", "PGPASSWORD");
        await FailsAsync($"{at} user=postgres require_auth=none password={WrongPassword}", "ConnectFailed", "not allowed");
        await FailsAsync(good.Replace("dbname=postgres", "dbname=Shop", StringComparison.Ordinal), "DatabaseNotFound", "'Shop'");

        await using (NpgsqlConnection admin = new(secure.ConnectionString()))
        {
            await admin.OpenAsync(Token);
            await new NpgsqlCommand(
                $"""
                drop role if exists full_up, no_login, not_here;
                create role full_up login connection limit 0 password '{PostgresServerOptions.Password}';
                create role no_login password '{PostgresServerOptions.Password}';
                create role not_here login password '{PostgresServerOptions.Password}'
                """,
                admin).ExecuteNonQueryAsync(Token);
            await new NpgsqlCommand("drop database if exists closed_shop", admin).ExecuteNonQueryAsync(Token);
            await new NpgsqlCommand("create database closed_shop", admin).ExecuteNonQueryAsync(Token);
            await new NpgsqlCommand("revoke connect on database closed_shop from public", admin).ExecuteNonQueryAsync(Token);
        }

        await FailsAsync($"{at} user=full_up password={PostgresServerOptions.Password}", "TooManyConnections", "full_up");
        await FailsAsync($"{at} user=no_login password={PostgresServerOptions.Password}", "RoleNotFound", "LOGIN");
        await FailsAsync($"host=127.0.0.1 port={secure.Port} dbname=closed_shop user=not_here password={PostgresServerOptions.Password}", "NotAdmitted", "GRANT CONNECT ON DATABASE \"closed_shop\" TO \"not_here\"");
        await FailsAsync($"host=127.0.0.1 port={(await servers.Clusters.GetAsync(major)).Port} user=nobody_here", "RoleNotFound", "'nobody_here'");
    }

    [Theory, EachMajor]
    public async Task Passwords_come_from_wherever_libpq_finds_them(int major)
    {
        PostgresServer secure = await servers.GetSecureAsync(major);
        string home = Directory.CreateTempSubdirectory("home").FullName;
        try
        {
            string file = Path.Combine(home, OperatingSystem.IsWindows() ? "pgpass.conf" : ".pgpass");
            await File.WriteAllTextAsync(file, $"127.0.0.1:{secure.Port}:*:postgres:{PostgresServerOptions.Password}\n*:*:*:*:{WrongPassword}\n", Token);
            await File.WriteAllTextAsync(
                Path.Combine(home, ".pg_service.conf"), $"[shop]\nhost=127.0.0.1\nport={secure.Port}\nuser=postgres\ndbname=postgres\nsslmode=require\n", Token);
            if (!OperatingSystem.IsWindows())
            {
                File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            }

            ConnectionEnvironment environment = Environment(home, []);
            await ConnectsAsync("service=shop", environment);
            await ConnectsAsync($"postgresql://postgres@127.0.0.1:{secure.Port}/postgres", environment);
            await ConnectsAsync(string.Empty, Environment(home, new() { ["PGSERVICE"] = "shop" }));
            await ConnectsAsync(
                string.Empty,
                Environment("/", new() { ["PGHOST"] = "127.0.0.1", ["PGPORT"] = $"{secure.Port}", ["PGUSER"] = "postgres", ["PGPASSWORD"] = PostgresServerOptions.Password }));
            // localhost is the second line's: the message says where the wrong password came from.
            MigrationException e = await FailsAsync($"host=localhost hostaddr=127.0.0.1 port={secure.Port} user=postgres", "PasswordRejected", file, environment);
            Assert.Equal("28P01", e.SqlState);
        }
        finally
        {
            Directory.Delete(home, recursive: true);
        }
    }

    [Theory, EachMajor]
    public async Task Pg_hba_can_say_no_and_a_stopping_server_too(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        string text = $"host=127.0.0.1 port={server.Port} user=postgres dbname=postgres";
        await using NpgsqlConnection open = new(server.ConnectionString() + ";Pooling=false");
        await open.OpenAsync(Token);
        string rules = Path.Combine(server.DataDirectory, "pg_hba.conf");
        await File.WriteAllTextAsync(rules, "local all all trust\nhostssl all all 127.0.0.1/32 trust\n", Token);
        await new NpgsqlCommand("select pg_reload_conf()", open).ExecuteNonQueryAsync(Token);
        MigrationException? refused = null;
        await Wait.UntilAsync(async () => (refused = await TryAsync(text)) is not null, "the new rules", cancellationToken: Token);
        Assert.Equal("NotAdmitted", refused!.ErrorId);
        Assert.Contains("pg_hba.conf", refused.Message, StringComparison.Ordinal);

        Task stopping = server.StopAsync(StopMode.Smart, Token);
        await Wait.UntilAsync(async () => (await TryAsync(text))!.ErrorId == "ServerNotReady", "the server to be shutting down", cancellationToken: Token);
        await open.CloseAsync();
        await stopping;
        await FailsAsync(text, "ConnectionRefused", "Nothing listens");
    }

    [Theory, EachMajor]
    public async Task Certificates_are_checked_and_the_flaw_is_named(int major)
    {
        PostgresServer secure = await servers.GetSecureAsync(major);
        string login = $"port={secure.Port} dbname=postgres user=postgres password={PostgresServerOptions.Password}";
        string root = $"sslrootcert={secure.RootCertificatePath}";
        await ConnectsAsync($"host=localhost hostaddr=127.0.0.1 {login} sslmode=verify-full {root}");
        await ConnectsAsync($"host=127.0.0.1 {login} sslmode=verify-full {root}");
        await ConnectsAsync($"host=db.example hostaddr=127.0.0.1 {login} sslmode=verify-ca {root}");
        await ConnectsAsync($"host=127.0.0.1 {login} sslmode=require");
        await FailsAsync($"host=db.example hostaddr=127.0.0.1 {login} sslmode=verify-full {root}", "CertificateInvalid", "made out for localhost, 127.0.0.1, not for 'db.example'");
        await FailsAsync($"host=127.0.0.1 {login} sslmode=verify-full", "CertificateInvalid", "issuer 'CN=MigrationSafety tests' is unknown");
        await FailsAsync($"host=127.0.0.1 {login} sslmode=verify-ca", "CertificateInvalid", "sslrootcert");

        PostgresServer plain = await servers.Clusters.GetAsync(major);
        await FailsAsync($"host=127.0.0.1 port={plain.Port} user=postgres sslmode=require", "TlsNotOffered", "offers no TLS");

        await using PostgresServer expired = await PostgresServer.StartAsync(major, new() { Tls = PostgresTls.Expired }, Token);
        await FailsAsync($"host=127.0.0.1 port={expired.Port} user=postgres sslmode=verify-full sslrootcert={expired.RootCertificatePath}", "CertificateInvalid", "expired on");
        await ConnectsAsync($"host=127.0.0.1 port={expired.Port} user=postgres sslmode=require");
    }

    [Theory]
    [InlineData("HTTP/1.1 400 Bad Request\r\n\r\n", "prefer", "NotPostgres")]
    [InlineData("HTTP/1.1 400 Bad Request\r\n\r\n", "disable", "ConnectionClosed")]
    [InlineData("SSH-2.0-OpenSSH_9.6\r\n", "prefer", "TlsFailed")]
    [InlineData("SSH-2.0-OpenSSH_9.6\r\n", "disable", "ConnectionClosed")]
    [InlineData("", "prefer", "ConnectionClosed")]
    [InlineData("", "disable", "ConnectionClosed")]
    public async Task Something_else_on_that_port_is_told_from_a_server(string greeting, string sslMode, string errorId)
    {
        using TcpListener listener = new(IPAddress.Loopback, 0);
        listener.Start();
        int port = ((IPEndPoint)listener.LocalEndpoint).Port;
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task serving = ServeAsync();
        await FailsAsync($"host=127.0.0.1 port={port} user=postgres sslmode={sslMode} connect_timeout=5", errorId, $"127.0.0.1:{port}");
        await stop.CancelAsync();
        await serving;

        async Task ServeAsync()
        {
            try
            {
                while (true)
                {
                    using TcpClient client = await listener.AcceptTcpClientAsync(stop.Token);
                    // Like a web server: it reads before it answers, and then closes.
                    byte[] request = new byte[1024];
                    _ = await client.GetStream().ReadAsync(request, stop.Token);
                    await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes(greeting), stop.Token);
                }
            }
            catch (OperationCanceledException)
            {
                // The end of the test.
            }
        }
    }

    [Theory, EachMajor]
    public async Task Of_several_hosts_the_first_that_suits_is_taken(int major)
    {
        // A primary of its own: databases that come and go on the shared one get in the way of the base backup.
        await using PostgresServer primary = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using PostgresServer standby = await primary.StartStandbyAsync(cancellationToken: Token);
        await using TcpProxy down = TcpProxy.Start(primary);
        down.RefuseNew = true;
        (int p, int s, int d) = (primary.Port, standby.Port, down.Port);

        async Task<int> PortAsync(string ports, string wanted)
        {
            string hosts = string.Join(',', ports.Split(',').Select(x => $"127.0.0.1:{x}"));
            MigrationSession session = await ConnectsAsync($"postgresql://postgres@{hosts}/postgres?target_session_attrs={wanted}");
            return session.Port;
        }

        Assert.Equal(p, await PortAsync($"{d},{p}", "any"));
        Assert.Equal(s, await PortAsync($"{s},{p}", "any"));
        Assert.Equal(p, await PortAsync($"{d},{s},{p}", "primary"));
        Assert.Equal(p, await PortAsync($"{s},{p}", "read-write"));
        Assert.Equal(s, await PortAsync($"{p},{s}", "standby"));
        Assert.Equal(s, await PortAsync($"{p},{s}", "read-only"));
        Assert.Equal(s, await PortAsync($"{p},{s}", "prefer-standby"));
        Assert.Equal(p, await PortAsync($"{d},{p}", "prefer-standby"));
        Assert.Equal(p, await PortAsync($"{p}", "primary"));

        MigrationException e = await FailsAsync($"postgresql://postgres@127.0.0.1:{s},127.0.0.1:{d}/postgres?target_session_attrs=primary", "NoSuitableHost", $"127.0.0.1:{s} is a standby");
        Assert.Contains($"127.0.0.1:{d}", e.Message, StringComparison.Ordinal);
        await FailsAsync($"postgresql://postgres@127.0.0.1:{s}/postgres?target_session_attrs=read-write", "NoSuitableHost", "is a standby");
        // As in libpq, a host that answers and refuses ends the search.
        await FailsAsync($"postgresql://postgres@127.0.0.1:{p},127.0.0.1:{s}/nosuchdb", "DatabaseNotFound", $"127.0.0.1:{p}");

        MigrationSession session = await ConnectsAsync($"host=127.0.0.1 port={s} user=postgres dbname=postgres");
        Assert.True(session.IsStandby);
    }

    [Fact]
    public void A_server_that_is_too_old_is_named()
    {
        ConnectionHost host = new("db1", 5432, [], null, null, null);
        MigrationException e = Assert.Throws<MigrationException>(() => SessionFactory.RequireVersion(new(13, 16), host));
        Assert.Equal("ServerTooOld", e.ErrorId);
        Assert.Contains("PostgreSQL 13.16", e.Message, StringComparison.Ordinal);
        SessionFactory.RequireVersion(new(14, 0), host);
    }

    private static ConnectionEnvironment Environment(string home, Dictionary<string, string> variables) =>
        new() { Variable = variables.GetValueOrDefault, Home = home, UserName = "osuser" };

    private static async Task<MigrationSession> ConnectsAsync(string text, ConnectionEnvironment? environment = null)
    {
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = text }, environment ?? Environment("/", []), new RecordingSink(), Token);
        await SessionFactory.DisconnectAsync(session);
        return session;
    }

    private static async Task<MigrationException?> TryAsync(string text)
    {
        try
        {
            await ConnectsAsync(text);
            return null;
        }
        catch (MigrationException e)
        {
            return e;
        }
    }

    private static async Task<MigrationException> FailsAsync(string text, string errorId, string part, ConnectionEnvironment? environment = null)
    {
        RecordingSink sink = new();
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(
            () => SessionFactory.ConnectAsync(new() { Text = text }, environment ?? Environment("/", []), sink, Token));
        Assert.True(errorId == e.ErrorId, $"{errorId} expected: {e}");
        Assert.Contains(part, $"{e.Message} {e.RecommendedAction}", StringComparison.Ordinal);
        foreach (string secret in new[] { WrongPassword, PostgresServerOptions.Password })
        {
            Assert.DoesNotContain(secret, $"{e} {e.RecommendedAction} {e.Target} {sink.All}", StringComparison.Ordinal);
        }

        return e;
    }
}
