using MigrationSafety.Engine.Sessions;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Texts, files and variables to settings, without a server and without this process's own environment.</summary>
public sealed class ConnectionTextTests : IDisposable
{
    private readonly string _home = Directory.CreateTempSubdirectory("connection-text").FullName;

    public void Dispose() => Directory.Delete(_home, recursive: true);

    // What stands on the right is what libpq 15's PQconninfoParse answers, sorted; only a list of ports that are all empty is left out.
    [Theory]
    [InlineData("host=db1 dbname=shop", "dbname=shop|host=db1")]
    [InlineData("  host = db1   dbname = shop ", "dbname=shop|host=db1")]
    [InlineData("password='a b' user=x", "password=a b|user=x")]
    [InlineData(@"password='it\'s' user=x", "password=it's|user=x")]
    [InlineData(@"password=a\ b user=x", "password=a b|user=x")]
    [InlineData(@"password=a\\b", @"password=a\b")]
    [InlineData("password='' user=x", "password=|user=x")]
    [InlineData("host=db1 host=db2", "host=db2")]
    [InlineData("password=a;b=c host=h", "host=h|password=a;b=c")]
    [InlineData("hostaddr=10.0.0.1 host=db1", "host=db1|hostaddr=10.0.0.1")]
    [InlineData("service=shop", "service=shop")]
    [InlineData("options='-c search_path=a,b -c work_mem=1MB'", "options=-c search_path=a,b -c work_mem=1MB")]
    [InlineData("", "")]
    [InlineData("postgresql://", "")]
    [InlineData("postgresql://localhost", "host=localhost")]
    [InlineData("postgresql://localhost:5433", "host=localhost|port=5433")]
    [InlineData("postgresql://localhost/mydb", "dbname=mydb|host=localhost")]
    [InlineData("postgresql://user@localhost", "host=localhost|user=user")]
    [InlineData("postgresql://user:secret@localhost", "host=localhost|password=secret|user=user")]
    [InlineData("postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp", "application_name=myapp|connect_timeout=10|dbname=otherdb|host=localhost|user=other")]
    [InlineData("postgresql://host1:123,host2:456/somedb?target_session_attrs=any", "dbname=somedb|host=host1,host2|port=123,456|target_session_attrs=any")]
    [InlineData("postgresql://h1,h2:5433,h3/db", "dbname=db|host=h1,h2,h3|port=,5433,")]
    [InlineData("postgresql://,h2/db", "dbname=db|host=,h2")]
    [InlineData("postgresql://:5433/db", "dbname=db|port=5433")]
    [InlineData("postgresql:///mydb?host=localhost&port=5433", "dbname=mydb|host=localhost|port=5433")]
    [InlineData("postgresql://[2001:db8::1234]/database", "dbname=database|host=2001:db8::1234")]
    [InlineData("postgresql://[::1]:5433,[::2]/db", "dbname=db|host=::1,::2|port=5433,")]
    [InlineData("postgresql:///dbname?host=/var/lib/postgresql", "dbname=dbname|host=/var/lib/postgresql")]
    [InlineData("postgresql://%2Fvar%2Flib%2Fpostgresql/dbname", "dbname=dbname|host=/var/lib/postgresql")]
    [InlineData("postgresql://%2Ftmp:5433/db", "dbname=db|host=/tmp|port=5433")]
    [InlineData("postgresql://us%65r:p%40ss%3Aw%2Fd@h/d%20b", "dbname=d b|host=h|password=p@ss:w/d|user=user")]
    [InlineData("postgresql://user:p%C3%A4ss@h/db", "dbname=db|host=h|password=päss|user=user")]
    [InlineData("postgresql://user:päss@h/db", "dbname=db|host=h|password=päss|user=user")]
    [InlineData("postgresql://h/db?ssl=true", "dbname=db|host=h|sslmode=require")]
    [InlineData("postgresql://h/db?options=-c%20search_path%3Da%2Cb", "dbname=db|host=h|options=-c search_path=a,b")]
    [InlineData("postgresql://h/db?", "dbname=db|host=h")]
    [InlineData("postgresql://h?user=u&password=p", "host=h|password=p|user=u")]
    [InlineData("postgresql://@h/db", "dbname=db|host=h")]
    [InlineData("postgresql://u:@h/db", "dbname=db|host=h|user=u")]
    [InlineData("postgresql://:p@h/db", "dbname=db|host=h|password=p")]
    [InlineData("postgresql://h/a/b", "dbname=a/b|host=h")]
    [InlineData("postgresql://u+v@h/db", "dbname=db|host=h|user=u+v")]
    [InlineData("postgres://h/db", "dbname=db|host=h")]
    [InlineData("postgresql://u@/db", "dbname=db|user=u")]
    [InlineData("postgresql://h?host=h2", "host=h2")]
    [InlineData("postgresql://h/a?dbname=x&dbname=y", "dbname=y|host=h")]
    [InlineData("postgresql://h/db?user=a&", "dbname=db|host=h|user=a")]
    [InlineData("postgresql://h:/db", "dbname=db|host=h")]
    public void Libpqs_texts_are_read_as_libpq_reads_them(string text, string expected) => Assert.Equal(expected, Flat(ConnectionText.Parse(text)));

    [Theory]
    [InlineData("Host=db1;Database=shop;Username=deploy;Password=x", "dbname=shop|host=db1|password=x|user=deploy")]
    [InlineData("Server=db1; User Id=deploy; Pwd='a;b=c'; SSL Mode=VerifyFull", "host=db1|password=a;b=c|sslmode=VerifyFull|user=deploy")]
    [InlineData("host=db1;port=5433;dbname=shop;user=deploy", "dbname=shop|host=db1|port=5433|user=deploy")]
    [InlineData("host=db1; port=5433; password=x;", "host=db1|password=x|port=5433")]
    [InlineData("Host=db1:5433,db2;Database=shop", "dbname=shop|host=db1,db2|port=5433,")]
    [InlineData("Host=db1:5433,db2;Port=6000", "host=db1,db2|port=5433,6000")]
    [InlineData("Host=[::1]:5433", "host=::1|port=5433")]
    [InlineData("Host=::1;Database=x", "dbname=x|host=::1")]
    [InlineData("Host=/var/run/postgresql;Database=x", "dbname=x|host=/var/run/postgresql")]
    [InlineData("Host=db1;Password=\"a b\"\"c\"", "host=db1|password=a b\"c")]
    [InlineData("Host=db1;Timeout=5;Root Certificate=/r.crt;Target Session Attributes=primary", "connect_timeout=5|host=db1|sslrootcert=/r.crt|target_session_attrs=primary")]
    [InlineData("Host=db1;Search Path=app", "host=db1|search path=app")]
    public void Npgsqls_texts_are_read_as_npgsql_reads_them(string text, string expected) => Assert.Equal(expected, Flat(ConnectionText.Parse(text)));

    [Theory]
    [InlineData("host=db1 prot=1", "ConnectionKeyUnknown", "'prot'")]
    [InlineData("Host=db1;Prot=1", "ConnectionKeyUnknown", "'prot'")]
    [InlineData("postgresql://h/db?bogus=1", "ConnectionKeyUnknown", "'bogus'")]
    [InlineData("postgresql://h/db?a%3Db=c", "ConnectionKeyUnknown", "'a=b'")]
    [InlineData("host=db1 =x", "ConnectionKeyUnknown", "''")]
    [InlineData("host=db1 dbname", "ConnectionTextInvalid", "no '='")]
    [InlineData("shop", "ConnectionTextInvalid", "no '='")]
    [InlineData("POSTGRESQL://h/db", "ConnectionTextInvalid", "no '='")]
    [InlineData("password='a''b'", "ConnectionTextInvalid", "no '='")]
    [InlineData("host='abc", "ConnectionTextInvalid", "'host='")]
    [InlineData("Host=db1;Database", "ConnectionTextInvalid", "no '='")]
    [InlineData("postgresql://h/db?user", "ConnectionTextInvalid", "no '='")]
    [InlineData("postgresql://h/db?user=a=b", "ConnectionTextInvalid", "%3D")]
    [InlineData("postgresql://h/db?user=%zz", "ConnectionTextInvalid", "percent")]
    [InlineData("postgresql://h/db?user=%00", "ConnectionTextInvalid", "percent")]
    [InlineData("postgresql://h/db?user=%ff", "ConnectionTextInvalid", "UTF-8")]
    [InlineData("postgresql://[::1/db", "ConnectionTextInvalid", "bracket")]
    [InlineData("postgresql://[]/db", "ConnectionTextInvalid", "empty IPv6")]
    [InlineData("postgresql://[::1]x/db", "ConnectionTextInvalid", "IPv6")]
    [InlineData("port=x", "ConnectionValueInvalid", "1 to 65535")]
    [InlineData("port=0", "ConnectionValueInvalid", "1 to 65535")]
    [InlineData("host=a,b port=1,2,3", "ConnectionValueInvalid", "entries")]
    [InlineData("sslmode=strict", "ConnectionValueInvalid", "verify-full")]
    [InlineData("target_session_attrs=master", "ConnectionValueInvalid", "'master'")]
    [InlineData("connect_timeout=soon", "ConnectionValueInvalid", "'soon'")]
    [InlineData("sslmode=verify-full sslrootcert=/no/such/file", "ConnectionValueInvalid", "/no/such/file")]
    [InlineData("sslcert=/no/such/file", "ConnectionValueInvalid", "sslcert")]
    [InlineData("sslrootcert=system sslmode=require", "ConnectionValueInvalid", "verify-full")]
    [InlineData("sslcrl=/a", "ConnectionKeyNotSupported", "'sslcrl'")]
    [InlineData("requirepeer=postgres", "ConnectionKeyNotSupported", "'requirepeer'")]
    [InlineData("Host=a;Read Buffer Size=many", "ConnectionValueInvalid", "read buffer size")]
    [InlineData("require_auth=telepathy", "ConnectionValueInvalid", "require_auth")]
    public void A_wrong_text_is_refused_with_the_reason(string text, string errorId, string reason)
    {
        MigrationException e = Assert.Throws<MigrationException>(() => Resolve(text));
        Assert.Equal(errorId, e.ErrorId);
        Assert.Contains(reason, e.Message + e.RecommendedAction, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("host=db1 password=hun ter=2")]
    [InlineData("host=db1 password=hun ter")]
    [InlineData("host=db1 password='hunter")]
    [InlineData("Host=db1;Password=hun;ter=2")]
    [InlineData("Host=db1;Password='hunter")]
    [InlineData("postgresql://u:hun@ter@h/db")]
    [InlineData("postgresql://u:hun/ter@h/db")]
    [InlineData("postgresql://u:hun%ter@h/db")]
    [InlineData("hunter")]
    public void A_misquoted_password_is_in_no_message(string text)
    {
        MigrationException e = Assert.Throws<MigrationException>(() => Resolve(text));
        Assert.DoesNotContain("hun", e.Message + e.RecommendedAction + e.Target, StringComparison.Ordinal);
        Assert.DoesNotContain("ter@", e.Message + e.RecommendedAction + e.Target, StringComparison.Ordinal);
        Assert.DoesNotContain("'ter'", e.Message + e.RecommendedAction + e.Target, StringComparison.Ordinal);
    }

    [Fact]
    public void The_environment_fills_what_the_text_leaves_open()
    {
        ResolvedConnection resolved = Resolve("host=db1 port=5433 user=me", new()
        {
            ["PGHOST"] = "other",
            ["PGHOSTADDR"] = "10.9.9.9",
            ["PGPORT"] = "6000",
            ["PGDATABASE"] = "shop",
            ["PGUSER"] = "other",
            ["PGPASSWORD"] = "secret",
            ["PGSSLMODE"] = "require",
            ["PGCONNECT_TIMEOUT"] = "7",
            ["PGOPTIONS"] = "-c work_mem=1MB",
            ["PGAPPNAME"] = "psql",
            ["PGTARGETSESSIONATTRS"] = "primary",
            ["PGCHANNELBINDING"] = "require",
            ["PGREQUIREAUTH"] = "scram-sha-256",
            ["PGCLIENTENCODING"] = "LATIN1",
        });
        ConnectionHost host = Assert.Single(resolved.Hosts);
        Assert.Equal(("db1", 5433, "me", "shop", "secret"), (host.Settings.Host, host.Settings.Port, host.Settings.Username, host.Settings.Database, host.Password));
        Assert.Equal(SslMode.Require, host.Settings.SslMode);
        Assert.Equal(TimeSpan.FromSeconds(7), resolved.ConnectTimeout);
        Assert.Equal("-c work_mem=1MB", host.Settings.Options);
        Assert.Equal("MigrationSafety", host.Settings.ApplicationName);
        Assert.Equal("UTF8", host.Settings.ClientEncoding);
        Assert.Equal(TargetSessionAttributes.Primary, resolved.Wanted);
        Assert.Equal(ChannelBinding.Require, host.Settings.ChannelBinding);
        Assert.Equal("ScramSHA256", host.Settings.RequireAuth);
    }

    [Fact]
    public void Nothing_at_all_is_libpqs_default()
    {
        ConnectionHost host = Assert.Single(Resolve(null).Hosts);
        Assert.Equal(("localhost", 5432, "osuser", "osuser"), (host.Name, host.Port, host.Settings.Username, host.Settings.Database));
        Assert.Null(host.Password);
        Assert.Equal(SslMode.Prefer, host.Settings.SslMode);
    }

    [Fact]
    public void The_default_host_is_the_socket_that_is_there()
    {
        File.WriteAllText(Path.Combine(_home, ".s.PGSQL.5433"), string.Empty);
        Assert.Equal("localhost", Resolve("port=5432").Hosts[0].Name);
        ConnectionHost host = Resolve("port=5433 sslmode=require").Hosts[0];
        Assert.Equal(_home, host.Name);
        // A socket has no TLS.
        Assert.Equal(SslMode.Disable, host.Settings.SslMode);
        Assert.Equal(_home, Resolve("host=,db2 port=5433").Hosts[0].Name);
    }

    [Fact]
    public void Our_own_settings_win_over_the_texts()
    {
        NpgsqlConnectionStringBuilder settings = Resolve(
            "Host=db1;Command Timeout=5;Enlist=true;Multiplexing=true;Max Auto Prepare=10;Persist Security Info=true;Pooling=false;Application Name=x;Password=secret;Search Path=app").Hosts[0].Settings;
        Assert.Equal(0, settings.CommandTimeout);
        Assert.False(settings.Enlist);
        Assert.False(settings.Multiplexing);
        Assert.Equal(0, settings.MaxAutoPrepare);
        Assert.False(settings.PersistSecurityInfo);
        Assert.True(settings.Pooling);
        Assert.True(settings.TcpKeepAlive);
        Assert.True(settings.KeepAlive > 0);
        Assert.True(settings.IncludeErrorDetail);
        Assert.Equal("MigrationSafety", settings.ApplicationName);
        Assert.Equal("app", settings.SearchPath);
        Assert.DoesNotContain("secret", settings.ConnectionString, StringComparison.Ordinal);
    }

    [Fact]
    public void The_request_wins_over_the_text()
    {
        ResolvedConnection resolved = ConnectionResolver.Resolve(
            new()
            {
                Text = "postgresql://a:b@h1:1,h2:2/c?sslmode=disable&hostaddr=10.0.0.1,10.0.0.2",
                Host = "db9",
                Database = "d",
                User = "u",
                Password = "p",
                SslMode = "require",
                ConnectTimeout = TimeSpan.FromSeconds(3),
            },
            Environment([]));
        ConnectionHost host = Assert.Single(resolved.Hosts);
        Assert.Equal(("db9", 5432, "d", "u", "p"), (host.Settings.Host, host.Port, host.Settings.Database, host.Settings.Username, host.Password));
        Assert.Equal(SslMode.Require, host.Settings.SslMode);
        Assert.Equal(3, host.Settings.Timeout);
    }

    [Fact]
    public void Several_hosts_keep_their_order_ports_and_addresses()
    {
        ResolvedConnection resolved = Resolve("host=db1,db2 hostaddr=10.0.0.1,10.0.0.2 port=5433 sslmode=prefer");
        Assert.Equal(["db1:5433", "db2:5433"], resolved.Hosts.Select(h => h.ToString()));
        Assert.Equal(["10.0.0.1", "10.0.0.2"], resolved.Hosts.Select(h => h.Settings.Host));
        Assert.Equal(["db1", "db2"], resolved.Hosts.Select(h => h.TlsName));
        Assert.Equal(["a:5432", "[::1]:6000"], Resolve("postgresql://a,[::1]:6000/x").Hosts.Select(h => h.ToString()));
    }

    [Fact]
    public void A_root_certificate_makes_require_verify()
    {
        Directory.CreateDirectory(Path.Combine(_home, ".postgresql"));
        string root = Path.Combine(_home, OperatingSystem.IsWindows() ? "." : ".postgresql", "root.crt");
        Assert.Equal(SslMode.Require, Resolve("host=db1 sslmode=require").Hosts[0].Settings.SslMode);
        File.WriteAllText(root, "x");
        NpgsqlConnectionStringBuilder settings = Resolve("host=db1 sslmode=require").Hosts[0].Settings;
        Assert.Equal((SslMode.VerifyCA, root), (settings.SslMode, settings.RootCertificate));
        Assert.Equal(SslMode.Prefer, Resolve("host=db1").Hosts[0].Settings.SslMode);
        settings = Resolve("host=db1 sslrootcert=system").Hosts[0].Settings;
        Assert.Equal((SslMode.VerifyFull, null), (settings.SslMode, settings.RootCertificate));
    }

    [Fact]
    public void A_service_stands_between_text_and_environment()
    {
        string users = Path.Combine(_home, ".pg_service.conf");
        File.WriteAllText(users, "# mine\n[other]\nhost=no\n\n[shop]\n  host=db1\nport=5433\nuser=svc\nhost=db2\noptions=-c work_mem=1MB\n[later]\nhost=no\n");
        string system = Directory.CreateDirectory(Path.Combine(_home, "sys")).FullName;
        File.WriteAllText(Path.Combine(system, "pg_service.conf"), "[shop]\nhost=system\n[wide]\nhost=db7\n");
        Dictionary<string, string> variables = new() { ["PGUSER"] = "env", ["PGDATABASE"] = "env", ["PGSYSCONFDIR"] = system };

        ConnectionHost host = Resolve("service=shop port=6000", variables).Hosts[0];
        Assert.Equal(("db1", 6000, "svc", "env"), (host.Name, host.Port, host.Settings.Username, host.Settings.Database));
        Assert.Equal("-c work_mem=1MB", host.Settings.Options);
        Assert.Equal("db7", Resolve("service=wide", variables).Hosts[0].Name);
        Assert.Equal("db7", Resolve(null, new(variables) { ["PGSERVICE"] = "wide" }).Hosts[0].Name);
        Assert.Equal("db7", Resolve("postgresql:///x?service=wide", variables).Hosts[0].Name);
        Assert.Equal("system", Resolve("service=shop", new(variables) { ["PGSERVICEFILE"] = Path.Combine(system, "pg_service.conf") }).Hosts[0].Name);

        MigrationException e = Assert.Throws<MigrationException>(() => Resolve("service=none", variables));
        Assert.Equal("ServiceNotFound", e.ErrorId);
        Assert.Contains(users, e.Message, StringComparison.Ordinal);
        Assert.Equal("ServiceFileNotFound", Assert.Throws<MigrationException>(() => Resolve("service=shop", new() { ["PGSERVICEFILE"] = "/no/file" })).ErrorId);
        File.WriteAllText(users, "[shop]\nhst=db1\n");
        e = Assert.Throws<MigrationException>(() => Resolve("service=shop"));
        Assert.Equal("ServiceFileInvalid", e.ErrorId);
        Assert.Contains("line 2", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("db1:5432:shop:me:secret", "secret")]
    [InlineData("*:*:*:*:secret", "secret")]
    [InlineData("# db1:5432:shop:me:no\n\nnonsense\na:b\ndb1:5432:shop:you:no\ndb1:*:shop:me:secret\n*:*:*:*:no", "secret")]
    [InlineData(@"db1:5432:shop:me:se\:cr\\et", @"se:cr\et")]
    [InlineData("db1:5432:shop:me:secret:more", "secret")]
    [InlineData("db1:5432:shop:me:*", "*")]
    [InlineData("db1:5432:shop:me: secret ", " secret ")]
    [InlineData("db1:5432:shop:me:secret\r\n", "secret")]
    [InlineData("db1:5433:shop:me:no", null)]
    [InlineData("db1:5432:shop:me", null)]
    [InlineData("\\*:5432:shop:me:no", null)]
    public void The_password_file_is_read_as_libpq_reads_it(string lines, string? password)
    {
        string path = WritePasswords(lines);
        Assert.Equal(password, Resolve($"host=db1 dbname=shop user=me passfile={path}").Hosts[0].Password);
    }

    [Fact]
    public void The_password_file_is_found_by_default_and_by_variable_and_comes_last()
    {
        string path = WritePasswords("db1:*:*:*:file\nlocalhost:*:*:*:socket\n");
        Assert.Equal(("file", path), (Resolve("host=db1").Hosts[0].Password, Resolve("host=db1").Hosts[0].PasswordFile));
        Assert.Equal("text", Resolve("host=db1 password=text").Hosts[0].Password);
        Assert.Equal("env", Resolve("host=db1", new() { ["PGPASSWORD"] = "env" }).Hosts[0].Password);
        Assert.Equal("file", Resolve("host=db1 hostaddr=10.0.0.1").Hosts[0].Password);
        Assert.Equal("socket", Resolve($"host={_home}").Hosts[0].Password);
        Assert.Equal(["file", null], Resolve("host=db1,db2").Hosts.Select(h => h.Password));
        Assert.Null(Resolve("host=db1", new() { ["PGPASSFILE"] = "/no/file" }).Hosts[0].Password);
    }

    [Fact]
    public void A_password_file_that_others_may_read_is_not_used()
    {
        if (OperatingSystem.IsWindows())
        {
            Assert.Skip("Windows has no such permissions.");
            return;
        }

        string path = WritePasswords("*:*:*:*:secret");
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead);
        ResolvedConnection resolved = Resolve("host=db1,db2");
        Assert.All(resolved.Hosts, h => Assert.Null(h.Password));
        Assert.Contains("chmod 0600", Assert.Single(resolved.Warnings), StringComparison.Ordinal);
    }

    [Fact]
    public void Nothing_prints_a_password()
    {
        ConnectRequest request = new() { Text = "host=h password=secret", Password = "secret" };
        ResolvedConnection resolved = ConnectionResolver.Resolve(request, Environment([]));
        Assert.Equal("secret", resolved.Hosts[0].Password);
        Assert.DoesNotContain("secret", $"{request} {resolved} {resolved.Hosts[0]} {resolved.Hosts[0].Settings}", StringComparison.Ordinal);
    }

    private static string Flat(ConnectionText text) =>
        string.Join('|', text.Values.Concat(text.NpgsqlOnly).OrderBy(p => p.Key, StringComparer.Ordinal).Select(p => $"{p.Key}={p.Value}"));

    private string WritePasswords(string lines)
    {
        string path = Path.Combine(_home, OperatingSystem.IsWindows() ? "pgpass.conf" : ".pgpass");
        File.WriteAllText(path, lines);
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        }

        return path;
    }

    private ResolvedConnection Resolve(string? text, Dictionary<string, string>? variables = null) =>
        ConnectionResolver.Resolve(new() { Text = text }, Environment(variables ?? []));

    private ConnectionEnvironment Environment(Dictionary<string, string> variables) => new()
    {
        Variable = variables.GetValueOrDefault,
        Home = _home,
        UserName = "osuser",
        SocketDirectories = [_home],
    };
}
