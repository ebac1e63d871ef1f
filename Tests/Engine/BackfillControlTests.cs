using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Backfills seen, stopped, taken up and removed from another session than the one that runs them.</summary>
public sealed class BackfillControlTests(Servers servers)
{
    private const string Table = "create table t (id int primary key, v int, n int not null default 0); insert into t select i from generate_series(1, 20000) i;";

    // Slow enough to be met on its way, whatever the machine.
    private static readonly ThrottleLimits s_slow = new() { RowsPerSecond = 200 };

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task It_is_stopped_from_another_session_and_taken_up_from_a_third(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        Assert.Empty(await ListAsync(bench));
        Assert.Equal("BackfillNotFound", (await Assert.ThrowsAsync<MigrationException>(() => StopAsync(bench, "nothing"))).ErrorId);
        BackfillRequest request = Request() with { Workers = 2, MaxErrors = 7, TargetBatchTime = TimeSpan.FromMilliseconds(100), Throttle = s_slow, Strategy = BackfillStrategy.Key };
        Task<BackfillResult> run = bench.RunAsync(request);
        await bench.UntilBatchesAsync(2, run);

        BackfillStatus running = Assert.Single(await ListAsync(bench));
        Assert.Equal((BackfillState.Running, "public.t.v,n", "public", "t"), (running.State, running.Name, running.Schema, running.Table));
        Assert.Equal(("v = 1, n = n + 1", "v is null", BackfillStrategy.Key), (running.Action, running.Where, running.Strategy));
        Assert.Equal([1, 2], running.Workers.Select(worker => worker.Number).Order());
        Assert.All(running.Workers, worker => Assert.Equal(("MigrationSafety/backfill", "postgres"), (worker.Application, worker.User)));
        Assert.InRange(running.Done, 1, 19_000);
        Assert.InRange(running.Remaining, 1_000, 19_999);
        Assert.True(running is { RowsPerSecond: > 0, RemainingTime: not null, Percent: > 0 and < 100, MaxErrors: 7, WorkersWanted: 2 });
        Assert.Contains("at most 200 rows/s", running.Throttle, StringComparison.Ordinal);
        Assert.Equal("BackfillRunning", (await Assert.ThrowsAsync<MigrationException>(() => BackfillControl.RemoveAsync(bench.Session, running.Name, force: false, dropArchive: false, TimeSpan.FromSeconds(30), bench.Sink, Token))).ErrorId);

        EngineSession other = await bench.SessionAsync(db => db.ConnectionString + ";Application Name=other");
        BackfillStatus stopped = await StopAsync(bench, running.Name, other);
        BackfillResult result = await run;
        Assert.Equal((BackfillState.Paused, BackfillOutcome.Paused), (stopped.State, result.Outcome));
        Assert.Equal((0, result.TotalRows, result.Remaining), (stopped.Workers.Length, stopped.Done, stopped.Remaining));
        // From the record alone, what has been done so far and what takes it back.
        MigrationStep part = await BackfillControl.StepAsync(other, running.Name, bench.Sink, Token);
        Assert.Equal((StepState.Cancelled, Reversibility.Irreversible, result.Steps[^1].Sql), (part.State, part.Reversibility, part.Sql));
        // Stopped once more: nothing else happens.
        Assert.Equal(BackfillState.Paused, (await StopAsync(bench, running.Name, other)).State);
        Assert.Equal("BackfillUnfinished", (await Assert.ThrowsAsync<MigrationException>(() => BackfillControl.RemoveAsync(other, running.Name, force: false, dropArchive: false, TimeSpan.Zero, bench.Sink, Token))).ErrorId);
        await bench.UntilNothingHeldAsync();

        EngineSession third = await bench.SessionAsync(db => db.ConnectionString + ";Application Name=third");
        BackfillRequest recorded = await BackfillControl.RequestAsync(third, running.Name, bench.Sink, Token);
        Assert.Equal((2, 7L, TimeSpan.FromMilliseconds(100), BackfillStrategy.Key, s_slow), (recorded.Workers, recorded.MaxErrors, recorded.TargetBatchTime, recorded.Strategy, recorded.Throttle));
        // It goes on with what is estimated to be left then.
        long high = await bench.ScalarAsync<long>("select count(*) from t where id > 15000 and v is not null");
        await bench.Database.ExecuteAsync("update t set v = 1, n = 1 where id > 15000", Token);
        Task<BackfillResult> slow = bench.RunAsync(recorded with { Throttle = s_slow }, session: third);
        await Wait.UntilAsync(async () => slow.IsCompleted || (await ListAsync(bench))[0] is { State: BackfillState.Running, Remaining: < 15_001 }, "the new estimate", cancellationToken: Token);
        await StopAsync(bench, running.Name);
        BackfillResult again = await slow;
        Assert.Equal((BackfillOutcome.Paused, 15_000 + high - again.TotalRows), (again.Outcome, again.Remaining));
        BackfillResult rest = await bench.RunAsync(recorded with { Throttle = new() }, session: third);
        Assert.Equal((BackfillOutcome.Completed, true, 15_000 + high), (rest.Outcome, rest.Resumed, rest.TotalRows));
        Assert.Equal(20000, await bench.ScalarAsync<long>("select count(*) from t where v = 1 and n = 1"));

        BackfillStatus completed = Assert.Single(await ListAsync(bench));
        Assert.Equal((BackfillState.Completed, 100.0, 0, 15_000 + high), (completed.State, completed.Percent, completed.Remaining, completed.Done));
        Assert.NotNull(completed.FinishedAt);
        Assert.Equal(BackfillState.Completed, (await StopAsync(bench, running.Name)).State);
        await BackfillControl.RemoveAsync(bench.Session, running.Name, force: false, dropArchive: false, TimeSpan.Zero, bench.Sink, Token);
        Assert.Empty(await ListAsync(bench));
        Assert.Equal(0, await bench.ScalarAsync<long>("select (select count(*) from migration_safety.backfill_range) + (select count(*) from migration_safety.backfill_worker)"));
    }

    [Theory, EachMajor]
    public async Task It_is_stopped_also_where_somebody_takes_it_up_just_then(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        BackfillPlan plan = await bench.PlanAsync(Request());
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 9 for update");
        Task<BackfillResult> run = Backfill.RunAsync(plan, bench.Sink, Token);
        await bench.UntilBatchesAsync(1, run);
        // A worker that cannot end: the record is held against it.
        await using LockHolder record = await LockHolder.HoldAsync(bench.Database, "select from migration_safety.backfill_worker for update");
        Task<BackfillStatus> stopping = StopAsync(bench, plan.Name);
        await Wait.UntilAsync(() => bench.ScalarAsync<bool>("select state = 'paused' from migration_safety.backfill"), "it to be stopped", cancellationToken: Token);

        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'running'", Token);
        await Wait.UntilAsync(async () => stopping.IsCompleted || await bench.ScalarAsync<bool>("select state = 'paused' from migration_safety.backfill"), "it to be stopped again", cancellationToken: Token);
        await record.RollbackAsync(Token);

        BackfillStatus stopped = await stopping;
        Assert.Equal((BackfillState.Paused, 0), (stopped.State, stopped.Workers.Length));
        Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);
        await holder.RollbackAsync(Token);
        // Whoever repeats the command is told whose wish that is against.
        await bench.RunAsync(Request());
        Assert.Contains(bench.Sink.Warnings, w => w == $"{plan.Name} was stopped (Stop-Backfill): this command takes it up again.");
    }

    [Theory, EachMajor]
    public async Task Who_does_not_let_go_is_named_when_the_wait_is_over(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        await InterruptAsync(bench);
        await bench.UntilNothingHeldAsync();
        const string Name = "public.t.v,n";
        await using LockHolder other = await LockHolder.HoldAsync(bench.Database, $"select pg_advisory_xact_lock_shared({0x4D69534E}, hashtext('{Name}'))");

        await BackfillControl.StopAsync(bench.Session, Name, TimeSpan.FromMilliseconds(300), bench.Sink, Token);

        Assert.Contains(bench.Sink.Warnings, w => w.StartsWith($"{Name} is stopped, but pid {other.Pid}, about to work on it, has not ended", StringComparison.Ordinal));
    }

    [Theory, EachMajor]
    public async Task One_whose_table_has_another_name_now_says_which(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        await InterruptAsync(bench);
        const string Name = "public.t.v,n";

        // Also where another table has taken the old name: its rows are not meant.
        foreach (string sql in new[] { "alter table t rename to \"Old\"", "create table t (id int primary key, v int, n int)" })
        {
            await bench.Database.ExecuteAsync(sql, Token);
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => BackfillControl.RequestAsync(bench.Session, Name, bench.Sink, Token));
            Assert.Equal(("TableRenamed", "public.t"), (e.ErrorId, e.Target));
            Assert.Contains("public.\"Old\" now", e.Message, StringComparison.Ordinal);
            MigrationException back = await Assert.ThrowsAsync<MigrationException>(() => BackfillControl.StepAsync(bench.Session, Name, bench.Sink, Token));
            Assert.Equal("TableRenamed", back.ErrorId);
            Assert.StartsWith("Get-MigrationHistory", back.RecommendedAction, StringComparison.Ordinal);
        }

        await bench.Database.ExecuteAsync("drop table t; alter table \"Old\" rename to t", Token);
        Assert.Equal(20_000, (await bench.RunAsync(await BackfillControl.RequestAsync(bench.Session, Name, bench.Sink, Token) with { Throttle = new() })).TotalRows);
        Assert.Equal(StepState.Done, (await BackfillControl.StepAsync(bench.Session, Name, bench.Sink, Token)).State);
        await bench.Database.ExecuteAsync("drop table t; create table t (id int primary key, v int, n int)", Token);
        Assert.Equal("TableDropped", (await Assert.ThrowsAsync<MigrationException>(() => BackfillControl.StepAsync(bench.Session, Name, bench.Sink, Token))).ErrorId);
    }

    [Theory, EachMajor]
    public async Task One_whose_client_is_gone_is_interrupted_and_its_last_error_stays(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table + "insert into t values (20001, null, 0); create table spare (id int primary key, v int); insert into spare values (1)");
        await InterruptAsync(bench);
        BackfillStatus interrupted = Assert.Single(await ListAsync(bench));
        Assert.Equal((BackfillState.Interrupted, 0, null, null), (interrupted.State, interrupted.Workers.Length, interrupted.WaitingFor, interrupted.RowsPerSecond));
        // The condition is checked when it goes on, and what ended it is there for who looks.
        MigrationException failure = await bench.FailsAsync(BackfillBench.Request("spare", "v", "1 / (id - 1)"));
        Assert.Equal("InvalidData", failure.ErrorId);
        await bench.RunAsync(BackfillBench.Request("spare", "v", "1"));

        await bench.Database.ExecuteAsync("alter table t add check (id <> 20001) not valid", Token);
        Assert.Equal("CheckViolated", (await bench.FailsAsync(Request())).ErrorId);
        BackfillStatus failed = Assert.Single(await ListAsync(bench), status => status.Table == "t");
        Assert.Equal(BackfillState.Interrupted, failed.State);
        Assert.Contains("check", failed.LastError, StringComparison.OrdinalIgnoreCase);

        // Completed, then begun again: what was done before does not count.
        await bench.Database.ExecuteAsync("delete from t where id = 20001", Token);
        Assert.Equal(BackfillOutcome.Completed, (await bench.RunAsync(Request())).Outcome);
        await bench.Database.ExecuteAsync("update t set v = null", Token);
        // Small again, so that its rows are counted rather than estimated.
        await bench.Database.ExecuteAsync("vacuum full t", Token);
        Task<BackfillResult> run = bench.RunAsync(Request() with { Throttle = s_slow });
        BackfillStatus? again = null;
        await Wait.UntilAsync(
            // The rate is read of the workers, a moment before or after what is done.
            async () => (again = (await ListAsync(bench)).Single(status => status.Table == "t")) is { Done: > 20_001, State: BackfillState.Running, RemainingTime: not null }, "it to run", cancellationToken: Token);
        Assert.InRange(again!.Remaining, 1_000, 19_999);

        // Removed by force, running: it is stopped first.
        await BackfillControl.RemoveAsync(bench.Session, failed.Name, force: true, dropArchive: false, TimeSpan.FromSeconds(30), bench.Sink, Token);
        Assert.DoesNotContain(await ListAsync(bench), status => status.Table == "t");
        // It ended before its record went, or met that.
        Task ended = await Task.WhenAny(run, Task.Delay(TimeSpan.FromSeconds(20), Token));
        Assert.Same(run, ended);
    }

    [Theory, EachMajor]
    public async Task Rows_that_were_refused_are_listed_and_tried_again_alone(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table + "alter table t add check (v <> -1) not valid");
        // Up to 14 a collector makes the statistics of a new database, late on a busy machine, and says that they were reset then.
        await Wait.UntilAsync(
            async () => major > 14 || await bench.ScalarAsync<bool>("select pg_stat_get_db_stat_reset_time(oid) is not null from pg_database where datname = current_database()"), "the statistics to be there", cancellationToken: Token);
        BackfillRequest request = Request() with { Set = [new("v", "case when id % 10000 = 1 then -1 else id end"), new("n", "n + 1")], MaxErrors = 5 };
        Assert.Equal(BackfillOutcome.CompletedWithErrors, (await bench.RunAsync(request)).Outcome);

        BackfillStatus status = Assert.Single(await ListAsync(bench, withErrors: true));
        Assert.Equal((BackfillState.CompletedWithErrors, 2, 2), (status.State, status.Errors, status.Remaining));
        Assert.Equal([["1"], ["10001"]], status.ErrorRows.Select(error => error.Key).OrderBy(key => int.Parse(key[0], System.Globalization.CultureInfo.InvariantCulture)));
        Assert.All(status.ErrorRows, error => Assert.Equal(("public.t", "id", "23514"), (error.Table, Assert.Single(error.KeyColumn), error.SqlState)));
        Assert.Contains("check", status.LastError, StringComparison.OrdinalIgnoreCase);
        Assert.Empty(Assert.Single(await ListAsync(bench)).ErrorRows);
        BackfillTestResult test = await TestAsync(bench, status.Name);
        Assert.Equal((false, 2, 2), (test.Passed, test.Matching, test.Errors));
        // Nobody else is to be blamed.
        Assert.EndsWith("lists them).", Assert.Single(test.Detail), StringComparison.Ordinal);

        await bench.Database.ExecuteAsync("alter table t drop constraint t_v_check", Token);
        BackfillResult again = await bench.RunAsync(await BackfillControl.RequestAsync(bench.Session, status.Name, bench.Sink, Token));
        Assert.Equal((BackfillOutcome.Completed, 2, 0), (again.Outcome, again.Rows, again.Remaining));
        Assert.Equal(20000, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
        Assert.Equal((BackfillState.Completed, 0, null), (Assert.Single(await ListAsync(bench)).State, Assert.Single(await ListAsync(bench)).Errors, Assert.Single(await ListAsync(bench)).LastError));
    }

    [Theory, EachMajor]
    public async Task The_proof_counts_matches_missing_rows_and_values_that_differ(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table + "alter table t add code varchar(8), add price numeric(8, 2)");
        await Wait.UntilAsync(async () => await bench.ScalarAsync<long>("select pg_stat_get_tuples_inserted('t'::regclass)") == 20_000, "the statistics to have its rows", cancellationToken: Token);
        BackfillRequest request = BackfillBench.Request("t", "code", "'c' || id", "code is null") with { Set = [new("code", "'c' || id"), new("price", "id / 3.0")] };
        await bench.RunAsync(request);
        string name = Assert.Single(await ListAsync(bench)).Name;

        BackfillTestResult good = await TestAsync(bench, name, BackfillComparison.All);
        Assert.Equal((true, 0, 20000, 20000, 0), (good.Passed, good.Matching, good.Rows, good.Compared, good.Different));
        Assert.Empty(good.Detail);
        BackfillTestResult sample = await BackfillProof.TestAsync(bench.Session, new() { Name = name, Comparison = BackfillComparison.Sample, SampleSize = 5000 }, bench.Sink, Token);
        Assert.InRange(sample.Compared, 1, 19_999);
        // Fewer rows than a block holds: some are compared all the same.
        for (int i = 0; i < 5; i++)
        {
            sample = await BackfillProof.TestAsync(bench.Session, new() { Name = name, Comparison = BackfillComparison.Sample, SampleSize = 10 }, bench.Sink, Token);
            Assert.InRange(sample.Compared, 1, 19_999);
        }

        // The application goes on: what it inserts and deletes is counted out.
        await bench.Database.ExecuteAsync("insert into t (id, code, price) values (30000, 'c30000', 10000); delete from t where id <= 10; update t set price = 0 where id in (100, 200)", Token);
        BackfillTestResult changed = await TestAsync(bench, name, BackfillComparison.All);
        Assert.Equal((false, 0, 2), (changed.Passed, changed.Matching, changed.Different));
        Assert.Equal(["(id) = (100)", "(id) = (200)"], changed.DifferentRow.Order());
        Assert.Equal(19_991, changed.Rows);

        await bench.Database.ExecuteAsync("update t set price = id / 3.0, code = null where id in (100, 200)", Token);
        BackfillTestResult matching = await TestAsync(bench, name);
        Assert.Equal((false, 2, 0), (matching.Passed, matching.Matching, matching.Compared));
        Assert.Contains("2 rows match", matching.Detail[0], StringComparison.Ordinal);

        // The server counts what was rolled back like the rest, TRUNCATE not at all: its balance is an estimate, and fails no test.
        await bench.Database.ExecuteAsync("update t set code = 'c' || id where code is null", Token);
        await bench.Database.ExecuteAsync("begin; insert into t (id, code, price) select i, 'x', 0 from generate_series(50001, 60000) i; rollback", Token);
        // Up to 14 an idle session may keep its counters to itself until it ends.
        bench.Database.DataSource.Clear();
        await Wait.UntilAsync(async () => (await TestAsync(bench, name)).RowsExpected > 29_000, "the statistics to have what was rolled back", cancellationToken: Token);
        BackfillTestResult fewer = await TestAsync(bench, name);
        Assert.Equal((true, 19_991), (fewer.Passed, fewer.Rows));
        string detail = Assert.Single(fewer.Detail);
        Assert.Contains("about 10,000 rows fewer", detail, StringComparison.Ordinal);
        Assert.Contains("estimate", detail, StringComparison.Ordinal);

        MigrationException impossible = await Assert.ThrowsAsync<MigrationException>(async () =>
        {
            await bench.RunAsync(Request());
            await TestAsync(bench, "public.t.v,n", BackfillComparison.All);
        });
        Assert.Equal("ComparisonImpossible", impossible.ErrorId);
        MigrationException late = await Assert.ThrowsAsync<MigrationException>(() => BackfillProof.TestAsync(bench.Session, new() { Name = name, StatementTimeout = TimeSpan.FromMilliseconds(1), Comparison = BackfillComparison.All }, bench.Sink, Token));
        Assert.Equal("TestTimedOut", late.ErrorId);
    }

    [Theory, EachMajor]
    public async Task What_was_done_stays_provable_when_its_column_is_made_not_null(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        BackfillRequest request = BackfillBench.Request("t", "v", "1");
        BackfillResult result = await bench.RunAsync(request);
        await bench.Database.ExecuteAsync("alter table t alter v set not null", Token);

        Assert.True((await TestAsync(bench, result.Name, BackfillComparison.All)).Passed);
        Assert.Equal(BackfillOutcome.AlreadyCompleted, (await bench.RunAsync(request)).Outcome);
        Assert.Equal(BackfillOutcome.AlreadyCompleted, (await bench.RunAsync(await BackfillControl.RequestAsync(bench.Session, result.Name, bench.Sink, Token))).Outcome);
        Assert.Equal("WhereMissing", (await bench.FailsAsync(request with { Name = "another" })).ErrorId);
    }

    [Theory, EachMajor]
    public async Task It_is_stopped_while_a_standby_does_not_answer(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, Table);
        Task<BackfillResult> run = bench.RunAsync(Request() with { Throttle = s_slow });
        await bench.UntilBatchesAsync(1, run);
        await bench.Database.ExecuteAsync("alter system set synchronous_standby_names = 'nobody'", Token);
        await bench.Database.ExecuteAsync("select pg_reload_conf()", Token);
        try
        {
            await Wait.UntilAsync(async () => await bench.ScalarAsync<string>("show synchronous_standby_names") == "nobody", "the setting", cancellationToken: Token);
            BackfillStatus stopped = await StopAsync(bench, "public.t.v,n").WaitAsync(TimeSpan.FromSeconds(60), Token);
            Assert.Equal((BackfillState.Paused, 0), (stopped.State, stopped.Workers.Length));
            Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);
        }
        finally
        {
            // Else nothing of the test's own would ever commit.
            await bench.Database.ExecuteAsync("alter system reset synchronous_standby_names", Token);
            await bench.Database.ExecuteAsync("select pg_reload_conf()", Token);
        }
    }

    [Theory, EachMajor]
    public async Task One_that_is_about_to_begin_is_not_removed_under_it(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        await InterruptAsync(bench);
        await bench.UntilNothingHeldAsync();
        // As a client at its trial: it is no worker yet.
        await using LockHolder other = await LockHolder.HoldAsync(bench.Database, $"select pg_advisory_xact_lock_shared({0x4D69534E}, hashtext('public.t.v,n'))");

        MigrationException busy = await Assert.ThrowsAsync<MigrationException>(
            () => BackfillControl.RemoveAsync(bench.Session, "public.t.v,n", force: true, dropArchive: false, TimeSpan.FromMilliseconds(300), bench.Sink, Token));
        Assert.Equal("BackfillRunning", busy.ErrorId);
        Assert.Single(await ListAsync(bench));
        await other.RollbackAsync(Token);
        await BackfillControl.RemoveAsync(bench.Session, "public.t.v,n", force: true, dropArchive: false, TimeSpan.FromSeconds(30), bench.Sink, Token);
        Assert.Empty(await ListAsync(bench));
    }

    [Theory, EachMajor]
    public async Task A_worker_is_told_from_who_had_its_pid_before(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Table);
        Task<BackfillResult> run = bench.RunAsync(Request() with { Throttle = s_slow });
        await bench.UntilBatchesAsync(1, run);
        // A client that began later, on a backend that is gone: before a restart of the server it had the pid.
        await bench.Database.ExecuteAsync("""
            insert into migration_safety.backfill_worker (backfill, run, number, pid, backend_start, started_at, heartbeat)
            select backfill, gen_random_uuid(), 1, pid, backend_start - interval '1 h', started_at + interval '1 s', heartbeat from migration_safety.backfill_worker
            """, Token);

        BackfillStatus status = Assert.Single(await ListAsync(bench));
        Assert.Equal(BackfillState.Running, status.State);
        Assert.NotNull(Assert.Single(status.Workers).Application);
        await StopAsync(bench, status.Name);
        await run;
    }

    [Theory, EachMajor]
    public async Task A_standby_proves_it_too(int major)
    {
        await using PostgresServer primary = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(primary, Table);
        await using PostgresServer standby = await primary.StartStandbyAsync(cancellationToken: Token);
        await bench.RunAsync(BackfillBench.Request("t", "v", "id"));
        string name = Assert.Single(await ListAsync(bench)).Name;
        EngineSession session = await bench.SessionAsync(db => standby.ConnectionString(db.Name));
        BackfillTestResult? test = null;
        await Wait.UntilAsync(
            async () => (await BackfillReader.ReadAsync(session, new(), bench.Sink, Token)).Any(status => status.State == BackfillState.Completed)
                && (test = await BackfillProof.TestAsync(session, new() { Name = name, Comparison = BackfillComparison.All }, bench.Sink, Token)).Passed,
            "the standby to have replayed it",
            cancellationToken: Token);
        Assert.Equal((20000, 20000, null), (test!.Rows, test.Compared, test.RowsExpected));
        Assert.Contains("on a standby", Assert.Single(test.Detail), StringComparison.Ordinal);

        // What is to be stopped or removed is refused before anything of it is recorded, which cannot be done there.
        Assert.Equal("PrimaryRequired", (await Assert.ThrowsAsync<MigrationException>(() => BackfillControl.FindOnPrimaryAsync(session, name, bench.Sink, Token))).ErrorId);

        // Who works on it is not to be seen there; that it is interrupted nobody can tell.
        Task<BackfillResult> run = bench.RunAsync(BackfillBench.Request("t", "n", "1", "n = 0") with { Throttle = s_slow });
        await Wait.UntilAsync(async () => (await BackfillReader.ReadAsync(session, new() { States = [BackfillState.Running] }, bench.Sink, Token)).Any(status => status.Name != name), "the standby to see it run", cancellationToken: Token);
        BackfillStatus seen = Assert.Single(await BackfillReader.ReadAsync(session, new(), bench.Sink, Token), status => status.Name != name);
        Assert.Equal((BackfillState.Running, 0, null), (seen.State, seen.Workers.Length, seen.RowsPerSecond));
        await using (ProgressReader progress = new(session, new() { Table = "t" }))
        {
            IReadOnlyList<MigrationProgress> found = await progress.ReadAsync(bench.Sink, Token);
            Assert.True(found is [{ Phase: { } phase }] && phase.StartsWith("running", StringComparison.Ordinal), $"Found {found.Count}: {string.Join("; ", found)}; warned: {string.Join("; ", bench.Sink.Warnings)}");
        }

        await StopAsync(bench, seen.Name);
        await run;
        Assert.Equal("PrimaryRequired", (await Assert.ThrowsAsync<MigrationException>(() => BackfillControl.StopAsync(session, name, TimeSpan.Zero, bench.Sink, Token))).ErrorId);

        // A crash takes the statistics with it.
        await primary.CrashAsync(Token);
        await primary.StartAgainAsync(Token);
        bench.Database.DataSource.Clear();
        BackfillTestResult after = await TestAsync(bench, name);
        Assert.Equal((true, null), (after.Passed, after.RowsExpected));
        Assert.Contains("reset", Assert.Single(after.Detail), StringComparison.Ordinal);
    }

    /// <summary>Begins one and ends it with Ctrl-C.</summary>
    private static async Task InterruptAsync(BackfillBench bench)
    {
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task<BackfillResult> run = bench.RunAsync(Request() with { Throttle = s_slow }, stop.Token);
        await bench.UntilBatchesAsync(1, run);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        Assert.Contains(bench.Sink.Warnings, w => w == "This run of public.t.v,n was interrupted. What is done stays; the same command, or Resume-Backfill, goes on with it.");
    }

    private static BackfillRequest Request() => BackfillBench.Request("t", "v", "1") with { Set = [new("v", "1"), new("n", "n + 1")], Where = "v is null", Throttle = new() };

    private static Task<IReadOnlyList<BackfillStatus>> ListAsync(BackfillBench bench, bool withErrors = false) =>
        BackfillReader.ReadAsync(bench.Session, new() { IncludeErrors = withErrors }, bench.Sink, Token);

    private static Task<BackfillStatus> StopAsync(BackfillBench bench, string name, EngineSession? session = null) =>
        BackfillControl.StopAsync(session ?? bench.Session, name, TimeSpan.FromSeconds(30), bench.Sink, Token);

    private static Task<BackfillTestResult> TestAsync(BackfillBench bench, string name, BackfillComparison comparison = BackfillComparison.None) =>
        BackfillProof.TestAsync(bench.Session, new() { Name = name, Comparison = comparison }, bench.Sink, Token);
}
