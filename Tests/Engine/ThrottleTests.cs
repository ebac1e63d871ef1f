using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>A backfill slows down, pauses and goes on by what the server shows, and says why on the server too.</summary>
public sealed class ThrottleTests(Servers servers)
{
    private const string Table = "create table t (id int primary key, v int); insert into t select i from generate_series(1, 3000) i;";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static ThrottleLimits None { get; } = new();

    [Theory, EachMajor]
    public async Task Sessions_that_wait_for_its_rows_are_seen(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        await bench.RunAsync(Request(None));
        await using NpgsqlConnection watch = await bench.Database.OpenAsync(Token);
        await using NpgsqlConnection worker = await bench.Database.OpenAsync(Token);
        await using NpgsqlTransaction batch = await worker.BeginTransactionAsync(Token);
        await worker.ExecuteAsync("update t set v = 2 where id = 1", Token);
        ThrottleLook look = new(None with { WaitingSessions = 1, ActiveSessions = 5 }, "x", []);
        Assert.Equal(0, (await look.ReadAsync(watch, [worker.ProcessID], Token)).Waiters!.Count);

        // The second waits behind the first, not for the worker.
        await using Waiter application = await Waiter.StartAsync(bench.Database, "update t set v = 3 where id = 1");
        await using Waiter other = await Waiter.StartAsync(bench.Database, "update t set v = 4 where id = 1");
        ThrottleSample sample = await look.ReadAsync(watch, [worker.ProcessID], Token);
        Assert.Equal((1, application.Pid), (sample.Waiters!.Count, sample.Waiters.Pid));
        Assert.True(sample.ActiveSessions >= 2);
        // Whoever waits for somebody else is none of ours.
        Assert.Equal(0, (await look.ReadAsync(watch, [watch.ProcessID], Token)).Waiters!.Count);
    }

    [Theory, EachMajor]
    public async Task It_waits_for_its_window_and_ends_at_once_when_somebody_pauses_it(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        await bench.Database.ExecuteAsync($"alter database {bench.Database.Name} set timezone = 'Asia/Kathmandu'", Token);
        EngineSession session = await bench.SessionAsync(db => db.ConnectionString + ";Application Name=nepal");
        TimeOnly now = TimeOnly.FromDateTime(await bench.ScalarAsync<DateTime>("select clock_timestamp() at time zone 'Asia/Kathmandu'"));
        string Hours(int from, int to) => string.Create(CultureInfo.InvariantCulture, $"{now.AddHours(from):HH\\:mm}-{now.AddHours(to):HH\\:mm}");

        // Without a time zone it is the server's, and the record keeps it for whoever resumes from elsewhere.
        Task<BackfillResult> run = bench.RunAsync(Request(None with { Window = new DailyWindow(Hours(2, 3)) }), session: session);
        string reason = await bench.ReasonAsync(run);
        Assert.StartsWith($"paused: outside the window {Hours(2, 3)} Asia/Kathmandu, which opens in 1", reason, StringComparison.Ordinal);
        Assert.Equal($"{Hours(2, 3)} Asia/Kathmandu", await bench.ScalarAsync<string>("select throttle->>'window' from migration_safety.backfill"));
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'paused'", Token);
        BackfillResult paused = await run;
        Assert.Equal((BackfillOutcome.Paused, 0), (paused.Outcome, paused.Rows));
        await bench.UntilNothingHeldAsync();

        Assert.Equal(3000, (await bench.RunAsync(Request(None with { Window = new DailyWindow(Hours(-1, 2)) }), session: session)).Rows);
        Assert.Equal("TimeZoneUnknown", (await bench.FailsAsync(Request(None with { Window = new DailyWindow("22:00-05:00 Mars/Olympus") }))).ErrorId);
    }

    [Theory, EachMajor]
    public async Task One_that_is_stopped_and_taken_up_again_waits_as_before(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table + "create table health (ok bool); insert into health values (false)");
        await bench.RunAsync(Request(None));
        ThrottleLimits limits = None with { HealthQuery = "select ok from health" };
        await bench.Database.ExecuteAsync($"update migration_safety.backfill set state = 'running', throttle = '{limits.ToJson()}'", Token);
        string name = (await bench.ScalarAsync<string>("select name from migration_safety.backfill"))!;
        ThrottleGate gate = new();
        await using ThrottleWatch watch = await ThrottleWatch.StartAsync(
            new ThrottleOwner(bench.Session, name, Guid.NewGuid(), gate, 1, () => [], () => 0, [], TimeSpan.FromMinutes(1), _ => { }), limits, bench.Sink, Token);
        Assert.False(await LetsThroughAsync(gate));

        // Whoever waits is to learn of it from the next batch.
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'paused'", Token);
        await Wait.UntilAsync(() => LetsThroughAsync(gate), "the gate to open", cancellationToken: Token);
        // Before the worker came to its next batch.
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'running'", Token);
        await Wait.UntilAsync(async () => !await LetsThroughAsync(gate), "the gate to close", cancellationToken: Token);
    }

    // On one major: what is written how often depends on none of them.
    [Fact]
    public async Task A_reason_whose_figures_alone_change_is_not_written_each_second()
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, PostgresClusters.RequestedMajors.Max(), Table);
        await bench.RunAsync(Request(None));
        ThrottleLimits limits = None with { WalRate = 1 };
        await bench.Database.ExecuteAsync($"update migration_safety.backfill set state = 'running', throttle = '{limits.ToJson()}'", Token);
        string name = (await bench.ScalarAsync<string>("select name from migration_safety.backfill"))!;
        List<string?> shown = [];
        HashSet<string> written = [];
        Stopwatch clock = Stopwatch.StartNew();
        await using NpgsqlConnection others = await bench.Database.OpenAsync(Token);
        await using ThrottleWatch watch = await ThrottleWatch.StartAsync(
            new ThrottleOwner(bench.Session, name, Guid.NewGuid(), new ThrottleGate(), 1, () => [], () => 0, [], TimeSpan.FromMinutes(1), shown.Add), limits, bench.Sink, Token);
        await Wait.UntilAsync(
            async () =>
            {
                await others.ExecuteAsync($"create temp table if not exists x (); select pg_logical_emit_message(false, 'x', repeat('x', {1000 * (1 + shown.Count)}))", Token);
                written.Add(await bench.ScalarAsync<string>("select coalesce(waiting_for, '') from migration_safety.backfill") ?? "");
                return shown.OfType<string>().Where(words => words.StartsWith("paused", StringComparison.Ordinal)).Distinct().Count() >= 5;
            },
            "five different figures",
            cancellationToken: Token);
        // Each ten seconds, and however slow the machine is, not with each figure.
        Assert.InRange(written.Count(words => words.StartsWith("paused", StringComparison.Ordinal)), 1, 2 + (int)(clock.Elapsed.TotalSeconds / 10));
    }

    // On one major, as above.
    [Fact]
    public async Task A_reason_that_a_client_left_behind_gives_way_to_the_one_that_counts()
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, PostgresClusters.RequestedMajors.Max(), Table);
        await bench.RunAsync(Request(None));
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'running'", Token);
        string name = (await bench.ScalarAsync<string>("select name from migration_safety.backfill"))!;
        await using ThrottleWatch watch = await ThrottleWatch.StartAsync(
            new ThrottleOwner(bench.Session, name, Guid.NewGuid(), new ThrottleGate(), 1, () => [], () => 0, [], TimeSpan.FromMinutes(1), _ => { }), None, bench.Sink, Token);

        // Nothing changes for the one that is left.
        await bench.Database.ExecuteAsync("update migration_safety.backfill set waiting_for = 'paused: by one that was killed', waiting_since = now()", Token);
        await Wait.UntilAsync(async () => await bench.ScalarAsync<bool>("select (waiting_for, waiting_since) is not distinct from (null, null) from migration_safety.backfill"), "the reason to go", cancellationToken: Token);
    }

    [Theory, EachMajor]
    public async Task A_client_counts_as_long_as_it_holds_the_lock_however_slow_it_is(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        await bench.RunAsync(Request(None));
        await using NpgsqlConnection watch = await bench.Database.OpenAsync(Token);
        ThrottleLook look = new(None, (await bench.ScalarAsync<string>("select name from migration_safety.backfill"))!, []);
        // Its heartbeat is young still, but nobody works any more.
        Assert.Equal(1, (await look.ReadAsync(watch, [], Token)).Clients);

        await using NpgsqlConnection first = await bench.Database.OpenAsync(Token);
        await using NpgsqlConnection second = await bench.Database.OpenAsync(Token);
        await using NpgsqlConnection third = await bench.Database.OpenAsync(Token);
        foreach (NpgsqlConnection client in (NpgsqlConnection[])[first, second, third])
        {
            await client.ExecuteAsync("""
                insert into migration_safety.backfill_worker (backfill, run, number, pid, backend_start, heartbeat)
                select name, gen_random_uuid(), 1, pg_backend_pid(), now(), now() - interval '1 min' from migration_safety.backfill
                """, Token);
            await client.ExecuteAsync($"select pg_advisory_lock_shared({TableOperationLock.ClassId}, 't'::regclass::int)", Token);
        }

        Assert.Equal(3, (await look.ReadAsync(watch, [], Token)).Clients);
        await third.ExecuteAsync("select pg_advisory_unlock_all()", Token);
        Assert.Equal(2, (await look.ReadAsync(watch, [], Token)).Clients);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_query_of_the_users_own_stops_it_while_it_is_not_true(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table + "create table health (ok bool); insert into health values (false)");
        ThrottleLimits limits = None with { HealthQuery = "select ok from health;" };

        Task<BackfillResult> run = bench.RunAsync(Request(limits));
        Assert.Equal("paused: the health query says no", await bench.ReasonAsync(run));
        await bench.Database.ExecuteAsync("alter table health rename to ill", Token);
        Assert.StartsWith("paused: the health query fails: relation \"health\" does not exist", await bench.ReasonAsync(run, "fails"), StringComparison.Ordinal);
        await bench.Database.ExecuteAsync("alter table ill rename to health; delete from health", Token);
        Assert.Equal("paused: the health query returns neither true nor false", await bench.ReasonAsync(run, "neither"));
        await bench.Database.ExecuteAsync("insert into health values (true)", Token);
        Assert.Equal((BackfillOutcome.Completed, 3000), ((await run).Outcome, (await run).Rows));

        foreach (string query in (string[])["select 1", "select nonsense", "insert into health values (true) returning ok", "select 1 / count(*) = 1 from health where not ok", "select pg_sleep(60) is null"])
        {
            MigrationException invalid = await bench.FailsAsync(Request(None with { HealthQuery = query }));
            Assert.Equal("HealthQueryInvalid", invalid.ErrorId);
            Assert.StartsWith("-HealthQuery: ", invalid.Message, StringComparison.Ordinal);
        }

        // A function may hide what it writes; it does not get to.
        await bench.Database.ExecuteAsync("create function sneaky() returns bool language sql as 'insert into health values (true) returning ok'; update t set v = null", Token);
        MigrationException writes = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(Request(None with { HealthQuery = "select sneaky()" })));
        Assert.Equal("HealthQueryInvalid", writes.ErrorId);
        Assert.Contains("read-only transaction", writes.Message, StringComparison.Ordinal);
        Assert.Equal(1, await bench.ScalarAsync<long>("select count(*) from health"));
        run = bench.RunAsync(Request(None with { HealthQuery = "select case when (select count(*) from health) > 1 then sneaky() else false end" }));
        Assert.Equal("paused: the health query says no", await bench.ReasonAsync(run, "says"));
        await bench.Database.ExecuteAsync("insert into health values (true)", Token);
        Assert.Contains("read-only transaction", await bench.ReasonAsync(run, "read-only"), StringComparison.Ordinal);
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'paused'", Token);
        Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_query_after_whose_error_the_driver_closes_the_connection_pauses_it_too(int major)
    {
        const string Healthy = """
            create table health (code text);
            insert into health values ('00000');
            create function healthy() returns bool language plpgsql as $$
            declare state text = (select code from public.health);
            begin
                if state <> '00000' then raise exception 'trouble %', state using errcode = state; end if;
                return true;
            end $$;
            """;
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table + Healthy);
        BackfillPlan plan = await bench.PlanAsync(Request(None with { HealthQuery = "select healthy()" }));
        await bench.Database.ExecuteAsync("update health set code = '58P01'", Token);
        Task<BackfillResult> run = Backfill.RunAsync(plan, bench.Sink, Token);
        // At the first look, and at later ones; 08 is what dblink says of another server.
        foreach (string code in (string[])["58P01", "XX000", "53200", "57P03", "08006"])
        {
            await bench.Database.ExecuteAsync($"update health set code = '{code}'", Token);
            Assert.Equal($"paused: the health query fails: trouble {code}.", await bench.ReasonAsync(run, code));
        }

        await bench.Database.ExecuteAsync("update health set code = '00000'", Token);
        Assert.Equal((BackfillOutcome.Completed, 3000), ((await run).Outcome, (await run).Rows));
        Assert.DoesNotContain(bench.Sink.VerboseMessages, message => message.Contains("Looks again", StringComparison.Ordinal));
    }

    [Theory, EachMajor]
    public async Task Whoever_goes_on_asks_the_users_query_as_who_began(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table + """
            create schema app;
            create schema other;
            create table app.health (ok bool);
            create table other.health (ok bool);
            insert into app.health values (true);
            insert into other.health values (false);
            """);
        EngineSession first = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c search_path=app,public -c TimeZone=Asia/Tokyo");
        EngineSession second = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c search_path=other,public -c TimeZone=UTC");
        BackfillRequest request = Request(None with { HealthQuery = "select ok and current_setting('TimeZone') = 'Asia/Tokyo' and current_setting('statement_timeout') = '5s' from health", RowsPerSecond = 500 });
        Task<BackfillResult> run = bench.RunAsync(request, session: first);
        await bench.UntilBatchesAsync(1, run);
        await BackfillControl.StopAsync(bench.Session, "public.t.v", TimeSpan.FromSeconds(30), bench.Sink, Token);
        Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);

        BackfillRequest resumed = await BackfillControl.RequestAsync(second, "public.t.v", bench.Sink, Token);
        Assert.Equal(request.Throttle, resumed.Throttle);
        run = bench.RunAsync(resumed with { Throttle = request.Throttle with { RowsPerSecond = null } }, session: second);
        BackfillResult result = await run.WaitAsync(TimeSpan.FromSeconds(60), Token);
        Assert.Equal((BackfillOutcome.Completed, 3000), (result.Outcome, result.TotalRows));
    }

    [Theory, EachMajor]
    public async Task Dead_rows_are_held_against_the_rules_of_autovacuum(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, Table + "alter table t set (autovacuum_enabled = off, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0.3); analyze t");
        await bench.RunAsync(Request(None));
        // Dead versions of updated rows may go with the next scan already; deleted rows stay until a vacuum.
        await bench.Database.ExecuteAsync("delete from t where id > 1000", Token);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        ThrottleLook look = new(None with { VacuumLag = 1 }, "x", [(uint)(await bench.ScalarAsync<object>("select 't'::regclass::oid"))!]);
        VacuumSample? vacuum = null;
        await Wait.UntilAsync(async () => (vacuum = (await look.ReadAsync(connection, [], Token)).Vacuum)!.Dead > 0, "the statistics to have dead rows", cancellationToken: Token);
        Assert.Equal(("public.t", 100 + (0.3 * 3000), false, false), (vacuum!.Name, vacuum.Threshold, vacuum.Vacuumed, vacuum.Autovacuum));
        await bench.Database.ExecuteAsync("alter table t reset (autovacuum_enabled)", Token);
        Assert.True((await look.ReadAsync(connection, [], Token)).Vacuum!.Autovacuum);
    }

    [Theory]
    [InlineData(0.5)]
    [InlineData(0.01)]
    [InlineData(-1)]
    public async Task One_that_would_wait_for_an_autovacuum_that_waits_for_it_is_refused(double lag)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, PostgresClusters.RequestedMajors.Max(), Table);
        MigrationException refused = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(Request(None with { VacuumLag = lag })));
        Assert.Equal(("MaxVacuumLagInvalid", MigrationErrorKind.InvalidInput), (refused.ErrorId, refused.Kind));
        Assert.Equal(1, (await bench.PlanAsync(Request(None with { VacuumLag = 1 }))).Request.Throttle.VacuumLag);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_a_role_cannot_see_is_said_once(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        string role = "r" + Guid.NewGuid().ToString("N")[..12];
        await bench.Database.ExecuteAsync($"create role {role} login; grant all on t to {role}; grant create on database {bench.Database.Name} to {role}", Token);
        try
        {
            EngineSession session = await bench.SessionAsync(db => new NpgsqlConnectionStringBuilder(db.ConnectionString) { Username = role }.ConnectionString);
            await using NpgsqlConnection other = await bench.Database.OpenAsync(Token);
            BackfillResult result = await bench.RunAsync(Request(ThrottleLimits.Default with { ActiveSessions = 1000, WalRate = 1L << 40, VacuumLag = 100, RowsPerSecond = 2000 }), session: session);
            Assert.Equal(3000, result.Rows);
            string warning = Assert.Single(bench.Sink.Warnings, message => message.Contains("pg_monitor", StringComparison.Ordinal));
            Assert.Contains($"GRANT pg_monitor TO {role}", warning, StringComparison.Ordinal);
            Assert.Contains("-MaxActiveSession", warning, StringComparison.Ordinal);
        }
        finally
        {
            await bench.Database.ExecuteAsync($"drop owned by {role} cascade; drop role {role}", Token);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Commits_that_it_cannot_see_hang_and_vacuums_of_others_are_told_as_they_are(int major)
    {
        // A server of its own, for the setting.
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, Table + "create role app login; grant all on t to app");
        await bench.RunAsync(Request(None));
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'running'; grant usage on schema migration_safety to app; grant all on all tables in schema migration_safety to app; grant all on all sequences in schema migration_safety to app", Token);
        string name = (await bench.ScalarAsync<string>("select name from migration_safety.backfill"))!;
        EngineSession session = await bench.SessionAsync(db => new NpgsqlConnectionStringBuilder(db.ConnectionString) { Username = "app" }.ConnectionString);
        bool[] told = [];
        try
        {
            foreach (string standbys in (string[])["", "gone"])
            {
                await bench.Database.ExecuteAsync($"alter system set synchronous_standby_names = '{standbys}'", Token);
                await bench.Database.ExecuteAsync("select pg_reload_conf()", Token);
                await Wait.UntilAsync(async () => await bench.ScalarAsync<string>("show synchronous_standby_names") == standbys, "the setting", cancellationToken: Token);
                RecordingSink sink = new();
                List<string?> shown = [];
                await using NpgsqlConnection other = await bench.Database.OpenAsync(Token);
                await using ThrottleWatch watch = await ThrottleWatch.StartAsync(
                    new ThrottleOwner(session, name, Guid.NewGuid(), new ThrottleGate(), 1, () => [], () => 0, [], TimeSpan.FromMinutes(1), shown.Add), None with { Slowdown = 1.1 }, sink, Token);
                // Once, however often it looks.
                await Wait.UntilAsync(() => shown.Count >= 3, "three looks", cancellationToken: Token);
                told = [.. told, sink.Warnings.Count(message => message.Contains("synchronous_standby_names", StringComparison.Ordinal) && message.Contains("GRANT pg_monitor TO app", StringComparison.Ordinal)) == 1];
                Assert.InRange(sink.Warnings.Count, 0, 1);
            }
        }
        finally
        {
            // Or the database could never be dropped.
            await bench.Database.ExecuteAsync("alter system reset synchronous_standby_names", CancellationToken.None);
            await bench.Database.ExecuteAsync("select pg_reload_conf()", CancellationToken.None);
        }

        Assert.Equal([false, true], told);

        // A slow vacuum of somebody else.
        await bench.Database.ExecuteAsync("create table other as select 1 as id; alter table t set (autovacuum_enabled = off); delete from t", Token);
        await using NpgsqlConnection vacuum = await bench.Database.OpenAsync(Token);
        await vacuum.ExecuteAsync("set vacuum_cost_delay = '100ms'; set vacuum_cost_limit = 1", Token);
        using CancellationTokenSource enough = CancellationTokenSource.CreateLinkedTokenSource(Token);
        await using NpgsqlCommand slow = new("vacuum t", vacuum);
        Task<int> vacuuming = slow.ExecuteNonQueryAsync(enough.Token);
        try
        {
            await Wait.UntilAsync(async () => vacuuming.IsCompleted || await bench.ScalarAsync<long>("select count(*) from pg_stat_progress_vacuum where relid = 't'::regclass") > 0, "the vacuum", cancellationToken: Token);
            await using NpgsqlConnection app = await session.OpenAsync("throttle", bench.Sink, Token);
            foreach (string table in (string[])["t", "other"])
            {
                ThrottleLook look = new(None with { VacuumLag = 1 }, "x", [(uint)(await bench.ScalarAsync<object>($"select '{table}'::regclass::oid"))!]);
                VacuumSample seen = (await look.ReadAsync(app, [], Token)).Vacuum!;
                Assert.Equal(($"public.{table}", table == "t"), (seen.Name, seen.Vacuumed));
            }

            Assert.False(vacuuming.IsCompleted);
        }
        finally
        {
            // A connection cannot be closed under its statement.
            await enough.CancelAsync();
            await Task.WhenAny(vacuuming);
        }
    }

    [Theory, EachMajor]
    public async Task Rows_a_second_are_kept_to_by_all_workers_together(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        BackfillResult result = await bench.RunAsync(Request(None with { RowsPerSecond = 2000 }) with { Workers = 3 });
        Assert.Equal(3000, result.Rows);
        // The last batch of each worker is not waited for.
        Assert.True(result.Duration > TimeSpan.FromSeconds(0.9), $"{result.Duration}");
    }

    // On one major: what is lost and found again is the connection, which none of them treats in its own way.
    [Fact]
    public async Task A_server_that_comes_back_is_looked_at_again_and_one_that_does_not_ends_it()
    {
        await using PostgresServer server = await PostgresServer.StartAsync(PostgresClusters.RequestedMajors.Max(), cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, Table);
        Task<BackfillResult> run = bench.RunAsync(Request(None with { RowsPerSecond = 500 }));
        await bench.UntilBatchesAsync(1, run);
        await server.CrashAsync(Token);
        await server.StartAgainAsync(Token);
        bench.Database.DataSource.Clear();
        Assert.Equal((BackfillOutcome.Completed, 3000), ((await run).Outcome, (await run).TotalRows));

        await bench.Database.ExecuteAsync("update t set v = null", Token);
        run = bench.RunAsync(Request(None with { HealthQuery = "select false" }) with { Options = new() { RetryFor = TimeSpan.FromSeconds(2) } });
        await bench.ReasonAsync(run);
        await server.StopAsync(StopMode.Immediate, Token);
        MigrationException gone = await Assert.ThrowsAsync<MigrationException>(() => run);
        Assert.Equal(MigrationErrorKind.Connection, gone.Kind);
    }

    // On one major, as above.
    [Fact]
    public async Task A_line_that_went_dead_in_the_pool_does_not_keep_it_from_looking_again()
    {
        PostgresServer server = await servers.Clusters.GetAsync(PostgresClusters.RequestedMajors.Max());
        await using TcpProxy proxy = TcpProxy.Start(server);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, Table, proxy.ConnectionString);
        await bench.RunAsync(Request(None));
        string name = (await bench.ScalarAsync<string>("select name from migration_safety.backfill"))!;
        NpgsqlConnection[] pooled = [await bench.Session.OpenAsync("test", bench.Sink, Token), await bench.Session.OpenAsync("test", bench.Sink, Token), await bench.Session.OpenAsync("test", bench.Sink, Token)];
        foreach (NpgsqlConnection connection in pooled)
        {
            await connection.DisposeAsync();
        }

        proxy.Freeze();
        ThrottleGate gate = new();
        ThrottleOwner owner = new(bench.Session, name, Guid.NewGuid(), gate, 1, () => [], () => 0, [], TimeSpan.FromMinutes(1), _ => { }) { PatienceToOpen = TimeSpan.FromMilliseconds(200) };
        await using ThrottleWatch watch = await ThrottleWatch.StartAsync(owner, None, bench.Sink, Token).WaitAsync(TimeSpan.FromSeconds(20), Token);
        await Wait.UntilAsync(() => bench.Sink.VerboseMessages.Count(message => message.Contains("Looks again", StringComparison.Ordinal)) >= 2, "blind looks", cancellationToken: Token);
        Assert.False(await LetsThroughAsync(gate));
        // New lines are alive: those that are frozen stay so.
        proxy.DropAll();
        proxy.Thaw();
        await Wait.UntilAsync(() => LetsThroughAsync(gate), "a look", cancellationToken: Token);
    }

    private static BackfillRequest Request(ThrottleLimits limits) => BackfillBench.Request("t", "v", "1") with { Throttle = limits };

    private static async Task<bool> LetsThroughAsync(ThrottleGate gate)
    {
        using CancellationTokenSource leave = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task waiting = gate.WaitAsync(TimeSpan.Zero, false, 0, () => { }, leave.Token);
        if (waiting.IsCompleted)
        {
            await waiting;
            return true;
        }

        await leave.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting);
        return false;
    }
}
