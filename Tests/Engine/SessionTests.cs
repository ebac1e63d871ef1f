using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What a session knows, what its connections are set to, and what is left when they end in whatever way.</summary>
public sealed class SessionTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task A_session_knows_its_server(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = db.ConnectionString }, new RecordingSink(), Token);
        MigrationSession second = await SessionFactory.ConnectAsync(new() { Text = db.Server.Uri(db.Name) }, new RecordingSink(), Token);
        Assert.Equal(db.Name, session.Database);
        Assert.Equal("postgres", session.User);
        Assert.Equal((db.Server.Host, db.Server.Port), (session.Server, session.Port));
        Assert.Equal(db.Server.Version, session.ServerVersion);
        Assert.False(session.IsStandby);
        Assert.True(session.Id >= 1 && second.Id > session.Id);
        await EngineSession.Of(session).EnsurePrimaryAsync(new RecordingSink(), Token);

        await SessionFactory.DisconnectAsync(session);
        await SessionFactory.DisconnectAsync(session);
        Assert.Equal(SessionState.Closed, session.State);
        Assert.Equal("SessionClosed", Assert.Throws<MigrationException>(() => EngineSession.Of(session)).ErrorId);
        await SessionFactory.DisconnectAsync(second);
        await Wait.UntilAsync(async () => await CountAsync(db, "application_name like 'MigrationSafety%'") == 0, "the connections to be closed", cancellationToken: Token);
    }

    [Theory, EachMajor]
    public async Task A_socket_directory_is_a_host(int major)
    {
        PostgresServer server = await servers.Clusters.GetAsync(major);
        Assert.SkipWhen(server.IsExternal || OperatingSystem.IsWindows(), "There is no socket of the tests' own.");
        string uri = $"postgresql://postgres@{Uri.EscapeDataString(server.SocketDirectory)}:{server.Port}/postgres?sslmode=require";
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = uri }, new RecordingSink(), Token);
        Assert.Equal((server.SocketDirectory, server.Port), (session.Server, session.Port));
        await SessionFactory.DisconnectAsync(session);
    }

    [Theory, EachMajor]
    public async Task Time_outs_are_lifted_and_the_users_own_settings_stay(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        foreach (string setting in new[]
        {
            "statement_timeout = '1s'", "lock_timeout = '1s'", "idle_in_transaction_session_timeout = '1s'", "client_min_messages = 'error'",
            "search_path = app, public", "synchronous_commit = 'off'", "default_transaction_read_only = 'on'", "work_mem = '9MB'",
        })
        {
            await db.ExecuteAsync($"alter database \"{db.Name}\" set {setting}", Token);
        }

        await using Connected on = await Connected.ToAsync(db.ConnectionString);
        await using NpgsqlConnection connection = await on.Engine.OpenAsync("Test", on.Sink, Token);
        foreach ((string name, string value) in new[]
        {
            ("application_name", "MigrationSafety/Test"), ("statement_timeout", "0"), ("lock_timeout", "0"), ("idle_in_transaction_session_timeout", "0"),
            ("client_min_messages", "notice"), ("idle_session_timeout", "0"), ("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3"),
            ("search_path", "app, public"), ("synchronous_commit", "off"), ("default_transaction_read_only", "on"), ("work_mem", "9MB"),
        })
        {
            Assert.Equal((name, value), (name, await ShowAsync(connection, name)));
        }

        if (OperatingSystem.IsLinux())
        {
            Assert.Equal("1s", await ShowAsync(connection, "client_connection_check_interval"));
        }

        await RunAsync(connection, "do $$ begin raise notice 'hello'; raise warning 'careful'; end $$");
        Assert.Contains("NOTICE: hello", on.Sink.VerboseMessages);
        Assert.DoesNotContain("Password", connection.ConnectionString, StringComparison.OrdinalIgnoreCase);
    }

    [Theory, EachMajor]
    public async Task A_connection_from_the_pool_is_clean(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await using Connected on = await Connected.ToAsync(db.ConnectionString);
        int pid;
        await using (NpgsqlConnection dirty = await on.Engine.OpenAsync("First", on.Sink, Token))
        {
            pid = dirty.ProcessID;
            await RunAsync(dirty, "set work_mem = '17MB'; set search_path = nowhere; select pg_advisory_lock(42); create temp table leftover (); listen somewhere; set lock_timeout = '5ms'");
            await using NpgsqlTransaction open = await dirty.BeginTransactionAsync(Token);
            await RunAsync(dirty, "set local statement_timeout = '5s'; create table public.half_done ()");
        }

        await using NpgsqlConnection clean = await on.Engine.OpenAsync("Second", on.Sink, Token);
        Assert.Equal(pid, clean.ProcessID);
        Assert.Equal("MigrationSafety/Second", await ShowAsync(clean, "application_name"));
        Assert.Equal("4MB", await ShowAsync(clean, "work_mem"));
        Assert.Equal("\"$user\", public", await ShowAsync(clean, "search_path"));
        Assert.Equal("0", await ShowAsync(clean, "lock_timeout"));
        Assert.Equal("0", await ShowAsync(clean, "statement_timeout"));
        Assert.Equal(0L, await ScalarAsync(clean, "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"));
        Assert.Equal(0L, await ScalarAsync(clean, "select count(*) from pg_class where relname in ('leftover', 'half_done')"));
        Assert.Equal(0L, await ScalarAsync(clean, "select count(*) from pg_listening_channels()"));
    }

    [Theory, EachMajor]
    public async Task A_connection_that_died_in_the_pool_is_replaced(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await using Connected on = await Connected.ToAsync(db.ConnectionString);
        await using (await on.Engine.OpenAsync("First", on.Sink, Token))
        await using (await on.Engine.OpenAsync("Second", on.Sink, Token))
        {
        }

        await db.ExecuteAsync("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'MigrationSafety/%'", Token);
        await Wait.UntilAsync(async () => await CountAsync(db, "application_name like 'MigrationSafety/%'") == 0, "the connections to be gone", cancellationToken: Token);
        await using NpgsqlConnection connection = await on.Engine.OpenAsync("Third", on.Sink, Token);
        Assert.Equal("MigrationSafety/Third", await ShowAsync(connection, "application_name"));
    }

    [Theory, EachMajor]
    public async Task A_server_that_is_gone_is_named_and_one_that_is_back_is_found(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using Connected on = await Connected.ToAsync(server.ConnectionString());
        await server.StopAsync(StopMode.Immediate, Token);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => on.Engine.OpenAsync("Test", on.Sink, Token));
        Assert.Equal("ConnectionRefused", e.ErrorId);
        Assert.True(ServerErrors.IsConnectionLost(e));
        await server.StartAgainAsync(Token);
        await using NpgsqlConnection connection = await on.Engine.OpenAsync("Test", on.Sink, Token);
        await server.StopAsync(StopMode.Fast, Token);
        Exception lost = await Assert.ThrowsAnyAsync<NpgsqlException>(() => RunAsync(connection, "select 1"));
        Assert.True(ServerErrors.IsConnectionLost(lost));
        Assert.Contains(ServerErrors.Translate(lost, "Testing").ErrorId, new[] { "ServerShutdown", "ConnectionLost" });
        // What Npgsql says from then on, and at once where the server's last word came with the answer before.
        Exception closed = await Assert.ThrowsAsync<InvalidOperationException>(() => RunAsync(connection, "select 1"));
        Assert.Equal("ConnectionLost", ServerErrors.Translate(closed, "Testing").ErrorId);
    }

    [Theory, EachMajor]
    public async Task Cancellation_ends_the_statement_on_the_server_within_a_second(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await using Connected on = await Connected.ToAsync(db.ConnectionString);
        await using NpgsqlConnection connection = await on.Engine.OpenAsync("Test", on.Sink, Token);
        using CancellationTokenSource stop = new();
        await using NpgsqlCommand command = new("select pg_sleep(60)", connection);
        Task sleeping = command.ExecuteNonQueryAsync(stop.Token);
        await Wait.UntilAsync(async () => await CountAsync(db, "query = 'select pg_sleep(60)' and state = 'active'") == 1, "the statement to run", cancellationToken: Token);
        long start = Stopwatch.GetTimestamp();
        await stop.CancelAsync();
        OperationCanceledException e = await Assert.ThrowsAnyAsync<OperationCanceledException>(() => sleeping);
        await Wait.UntilAsync(async () => await CountAsync(db, "query = 'select pg_sleep(60)' and state = 'active'") == 0, "the statement to be gone", cancellationToken: Token);
        Assert.InRange(Stopwatch.GetElapsedTime(start).TotalSeconds, 0, 1);
        // The cancellation is handed on as what it is.
        Assert.ThrowsAny<OperationCanceledException>(() => ServerErrors.Translate(e, "Testing"));
        Assert.Equal(1, await ScalarAsync(connection, "select 1"));
    }

    [Theory, EachMajor]
    public async Task The_server_ends_the_statement_of_a_client_that_is_gone(int major)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Only some platforms tell a server that its client is gone.");
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await db.ExecuteAsync("create table t (id int); insert into t values (1)", Token);
        await using TcpProxy proxy = TcpProxy.Start(db.Server);
        await using Connected on = await Connected.ToAsync(proxy.ConnectionString(db));
        await using LockHolder writer = await LockHolder.HoldAsync(db, "insert into t values (2)");
        await using NpgsqlConnection sleeper = await on.Engine.OpenAsync("Sleep", on.Sink, Token);
        await using NpgsqlConnection builder = await on.Engine.OpenAsync("Build", on.Sink, Token);
        Task[] statements = [RunAsync(sleeper, "select pg_sleep(60)"), RunAsync(builder, "create index concurrently i on t (id)")];
        const string Ours = "application_name like 'MigrationSafety/%' and state = 'active'";
        await Wait.UntilAsync(async () => await CountAsync(db, Ours + " and (query ~ 'pg_sleep' or wait_event_type = 'Lock')") == 2, "both to run and the build to wait", cancellationToken: Token);
        long start = Stopwatch.GetTimestamp();
        proxy.DropAll();
        await Wait.UntilAsync(async () => await CountAsync(db, Ours) == 0, "both to be gone", cancellationToken: Token);
        TimeSpan took = Stopwatch.GetElapsedTime(start);
        TestContext.Current.TestOutputHelper?.WriteLine($"PostgreSQL {major}: gone after {took.TotalSeconds:0.00} s");
        Assert.InRange(took.TotalSeconds, 0, 3);
        foreach (Task statement in statements)
        {
            Assert.True(ServerErrors.IsConnectionLost(await Assert.ThrowsAnyAsync<NpgsqlException>(() => statement)));
        }
    }

    [Theory, EachMajor]
    public async Task What_writes_is_refused_on_a_standby_until_it_is_promoted(int major)
    {
        // A primary of its own: databases that come and go on the shared one get in the way of the base backup.
        await using PostgresServer primary = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using PostgresServer standby = await primary.StartStandbyAsync(cancellationToken: Token);
        await using Connected on = await Connected.ToAsync(standby.ConnectionString());
        Assert.True(on.Session.IsStandby);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => on.Engine.EnsurePrimaryAsync(on.Sink, Token));
        Assert.Equal("PrimaryRequired", e.ErrorId);
        Assert.Contains("target_session_attrs", e.RecommendedAction, StringComparison.Ordinal);
        await using (NpgsqlConnection connection = await on.Engine.OpenAsync("Promote", on.Sink, Token))
        {
            await RunAsync(connection, "select pg_promote()");
        }

        await on.Engine.EnsurePrimaryAsync(on.Sink, Token);
    }

    [Theory, EachMajor]
    public async Task Errors_of_the_server_get_their_ids(int major)
    {
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await db.ExecuteAsync("create table t (id int primary key, n int not null); insert into t values (1, 1), (2, 1); create role reader_" + db.Name, Token);
        await using Connected on = await Connected.ToAsync(db.ConnectionString);
        foreach ((string sql, string errorId, MigrationErrorKind kind, string part) in new[]
        {
            ("select * from nowhere", "TableNotFound", MigrationErrorKind.NotFound, "nowhere"),
            ("select nothing from t", "ColumnNotFound", MigrationErrorKind.NotFound, "nothing"),
            ("select nothing(1)", "FunctionNotFound", MigrationErrorKind.NotFound, "Hint:"),
            ("create unique index on t (n)", "DuplicateKey", MigrationErrorKind.InvalidData, "(n)=(1)"),
            ("create table t ()", "ObjectExists", MigrationErrorKind.InvalidInput, "\"t\""),
            ("insert into t values (3, null)", "NullValue", MigrationErrorKind.InvalidData, "Detail:"),
            ("alter table t add check (n > 5)", "CheckViolated", MigrationErrorKind.InvalidData, "violated"),
            ("selct 1", "SyntaxError", MigrationErrorKind.InvalidInput, "selct"),
            ("select 1/0", "InvalidData", MigrationErrorKind.InvalidData, "division"),
            ("begin; set transaction read only; insert into t values (3, 3)", "ReadOnly", MigrationErrorKind.InvalidState, "read-only"),
            ($"set role \"reader_{db.Name}\"; select * from t", "InsufficientPrivilege", MigrationErrorKind.Permission, "permission denied"),
            ("do $$ begin raise sqlstate '53100' using message = 'no space left'; end $$", "DiskFull", MigrationErrorKind.Resource, "no space left"),
            ("do $$ begin raise sqlstate '53999' using message = 'whatever'; end $$", "ResourceExhausted", MigrationErrorKind.Resource, "whatever"),
            ("do $$ begin raise sqlstate 'ZZ999' using message = 'whatever'; end $$", "ServerError", MigrationErrorKind.Server, "whatever"),
            ("set statement_timeout = '10ms'; select pg_sleep(5)", "Cancelled", MigrationErrorKind.Stopped, "timeout"),
        })
        {
            // One for each: Npgsql itself closes the connection after class 53.
            await using NpgsqlConnection connection = await on.Engine.OpenAsync("Test", on.Sink, Token);
            PostgresException raw = await Assert.ThrowsAsync<PostgresException>(() => RunAsync(connection, sql));
            MigrationException e = ServerErrors.Translate(raw, "Testing", "public.t");
            Assert.Equal((sql, errorId, kind, raw.SqlState, "public.t"), (sql, e.ErrorId, e.Kind, e.SqlState, e.Target));
            Assert.StartsWith("Testing failed: ", e.Message, StringComparison.Ordinal);
            Assert.Contains(part, e.Message, StringComparison.Ordinal);
            Assert.NotEmpty(e.RecommendedAction);
            Assert.False(ServerErrors.IsConnectionLost(raw));
        }

        await db.ExecuteAsync("drop role reader_" + db.Name, Token);
        Assert.Throws<InvalidOperationException>(() => ServerErrors.Translate(new InvalidOperationException("a bug"), "Testing"));
    }

    private static async Task<long> CountAsync(TestDatabase db, string condition) =>
        await db.ScalarAsync<long>($"select count(*) from pg_stat_activity where datname = '{db.Name}' and pid <> pg_backend_pid() and {condition}", Token);

    private static async Task<string> ShowAsync(NpgsqlConnection connection, string name) => (string)(await ScalarAsync(connection, $"select current_setting('{name}')"))!;

    private static async Task<object?> ScalarAsync(NpgsqlConnection connection, string sql)
    {
        await using NpgsqlCommand command = new(sql, connection);
        return await command.ExecuteScalarAsync(Token);
    }

    private static async Task RunAsync(NpgsqlConnection connection, string sql)
    {
        await using NpgsqlCommand command = new(sql, connection);
        await command.ExecuteNonQueryAsync(Token);
    }

    /// <summary>A session for the length of a test.</summary>
    private sealed class Connected : IAsyncDisposable
    {
        internal required MigrationSession Session { get; init; }

        internal required RecordingSink Sink { get; init; }

        internal EngineSession Engine => EngineSession.Of(Session);

        internal static async Task<Connected> ToAsync(string text)
        {
            RecordingSink sink = new();
            return new() { Session = await SessionFactory.ConnectAsync(new() { Text = text }, sink, Token), Sink = sink };
        }

        public async ValueTask DisposeAsync() => await SessionFactory.DisconnectAsync(Session);
    }
}
