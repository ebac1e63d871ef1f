using System.Diagnostics;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What a backfill does about each trouble; that each row is done once meanwhile, <c>n = n + 1</c> counts. Random moments: <see cref="BackfillFaultMatrixTests"/>.</summary>
public sealed class BackfillFaultTests(Servers servers)
{
    private const int Rows = 40_000;

    // A connection that lies in the pool is closed after 30 s, and its locks with it.
    private static readonly TimeSpan s_beforeIdle = TimeSpan.FromSeconds(15);

    private static readonly string s_counted =
        $"create table t (id bigint primary key, note text, v int, n int not null default 0); insert into t select i * 3, 'n' || i from generate_series(1, {Rows}) i; create index on t (v)";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static BackfillRequest Counted(BackfillStrategy strategy, int workers, int batchSize = 400, TimeSpan? retryFor = null) =>
        BackfillBench.Request("t", "v", "1", "v is null", batchSize, retryFor) with { Set = [new("v", "1"), new("n", "n + 1")], Strategy = strategy, Workers = workers };

    [Theory, EachWalk]
    public async Task A_cancelled_run_ends_at_once_and_is_resumed(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_counted);
        using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task<BackfillResult> run = bench.RunAsync(Counted(strategy, workers), cancel.Token);
        await bench.UntilBatchesAsync(5, run);

        long start = Stopwatch.GetTimestamp();
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        Assert.InRange(Stopwatch.GetElapsedTime(start), TimeSpan.Zero, TimeSpan.FromSeconds(5));

        await bench.UntilNothingHeldAsync();
        long done = await bench.ScalarAsync<long>("select sum(rows_done)::int8 from migration_safety.backfill_worker join migration_safety.backfill on name = backfill where state = 'running'");
        Assert.InRange(done, 1, Rows - 1);
        Assert.Equal(done, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
        Assert.True((await bench.PlanAsync(Counted(strategy, workers))).Resumes);

        BackfillResult result = await bench.RunAsync(Counted(strategy, workers));
        Assert.True(result.Resumed);
        Assert.Equal(Rows - done, result.Rows);
        Assert.Equal(Rows, result.TotalRows);
        await AssertOnceAsync(bench);
    }

    [Theory, EachMajor]
    public async Task Cancelled_while_it_looks_who_is_in_the_way_it_keeps_no_lock(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id bigint primary key, v int); insert into t select i from generate_series(1, 10) i");
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t for update");
        using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(Token);
        BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("t", "v", "1"));

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Backfill.RunAsync(plan, new CancellingSink(cancel, $"waits for pid {holder.Pid} ("), cancel.Token));

        await bench.UntilNothingHeldAsync(s_beforeIdle);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_batch_that_outlives_the_command_gives_its_locks_back(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id bigint primary key, v int); insert into t select i from generate_series(1, 10) i;
            create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(case when new.id = 10 then 2 else 0 end); return new; end $$;
            create trigger slow before update on t for each row execute function slow()
            """);
        using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task<BackfillResult> run = bench.RunAsync(BackfillBench.Request("t", "v", "1", batchSize: 1) with { TargetBatchTime = TimeSpan.FromSeconds(5), Throttle = new() }, cancel.Token);
        await bench.UntilBatchesAsync(1, run);
        await Wait.UntilAsync(
            async () => run.IsCompleted || await bench.ScalarAsync<bool>("select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep')"), "the slow row", cancellationToken: Token);

        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);

        await bench.UntilNothingHeldAsync(s_beforeIdle);
    }

    [Theory, EachWalk]
    public async Task A_killed_backend_is_replaced(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_counted);
        Task<BackfillResult> run = bench.RunAsync(Counted(strategy, workers));
        for (int kills = 0; kills < 3 && !run.IsCompleted; kills++)
        {
            await bench.UntilBatchesAsync((kills + 1) * 8, run);
            await bench.Database.ExecuteAsync(
                "select pg_terminate_backend(a.pid) from pg_stat_activity a join migration_safety.backfill_worker b on (b.pid, b.backend_start) = (a.pid, a.backend_start)", Token);
        }

        BackfillResult result = await run;

        Assert.Equal(Rows, result.Rows);
        Assert.Contains(bench.Sink.VerboseMessages, m => m.Contains("Connected again", StringComparison.Ordinal));
        await AssertOnceAsync(bench);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Workers_that_get_no_connection_leave_their_share_to_the_others(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_counted);
        string role = "r" + Guid.NewGuid().ToString("N")[..12];
        await bench.Database.ExecuteAsync($"create role {role} login connection limit 4; grant all on t to {role}; grant create on database {bench.Database.Name} to {role}", Token);
        try
        {
            EngineSession session = await bench.SessionAsync(db => new NpgsqlConnectionStringBuilder(db.ConnectionString) { Username = role }.ConnectionString);
            BackfillResult result = await bench.RunAsync(Counted(BackfillStrategy.Block, 6, 2000), session: session).WaitAsync(TimeSpan.FromSeconds(30), Token);

            Assert.Equal((BackfillOutcome.Completed, (long)Rows), (result.Outcome, result.Rows));
            Assert.Contains("of 6 workers had no connection at the end", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);

            // Nor does one end the run that is not let in again at all, as after a change of the password.
            await bench.Database.ExecuteAsync($"delete from migration_safety.backfill; update t set v = null, n = 0 where id <= 30000; alter role {role} connection limit -1", Token);
            Task<BackfillResult> run = bench.RunAsync(Counted(BackfillStrategy.Key, 2) with { Throttle = new() { RowsPerSecond = 10_000 } }, session: session);
            await Wait.UntilAsync(async () => run.IsCompleted || await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill_worker join migration_safety.backfill on name = backfill where state = 'running' and batches > 0") == 2, "both to be at work", cancellationToken: Token);
            await bench.Database.ExecuteAsync($"alter role {role} nologin", Token);
            await bench.Database.ExecuteAsync(
                $"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}' and application_name = 'MigrationSafety/backfill' and pid <> (select pid from migration_safety.backfill_worker where number = 1)", Token);

            Assert.Equal((BackfillOutcome.Completed, 10_000L), ((await run).Outcome, (await run).Rows));
            Assert.Contains(bench.Sink.VerboseMessages, m => m.Contains("gets no connection; the others go on without it", StringComparison.Ordinal));
            Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(*) from t where v = 1 and n = 1"));
        }
        finally
        {
            await bench.Database.ExecuteAsync($"drop owned by {role} cascade; drop role {role}", Token);
        }
    }

    [Theory, EachWalk]
    public async Task A_batch_that_somebody_cancels_ends_the_run(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, s_counted + "; create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.002); return new; end $$; create trigger slow before update on t for each row execute function slow()");
        Task<BackfillResult> run = bench.RunAsync(Counted(strategy, workers, 60));
        await bench.UntilBatchesAsync(2, run);

        await Wait.UntilAsync(
            async () =>
            {
                await bench.Database.ExecuteAsync("select pg_cancel_backend(pid) from migration_safety.backfill_worker", Token);
                return run.IsCompleted;
            },
            "the run to end",
            cancellationToken: Token);

        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => run);
        Assert.Equal("CancelledByOther", e.ErrorId);
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task A_frozen_connection_is_given_up_and_its_batch_decided(int major, BackfillStrategy strategy, int workers)
    {
        PostgresServer server = await servers.Clusters.GetAsync(major);
        await using TcpProxy proxy = TcpProxy.Start(server);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, s_counted, proxy.ConnectionString);
        Task<BackfillResult> run = bench.RunAsync(Counted(strategy, workers, 200));
        await bench.UntilBatchesAsync(5, run);

        proxy.Freeze();
        await Wait.UntilAsync(() => bench.Sink.VerboseMessages.Any(m => m.Contains("connection was lost", StringComparison.Ordinal)), "the frozen connection to be given up", cancellationToken: Token);
        proxy.Thaw();

        Assert.Equal(Rows, (await run).Rows);
        await AssertOnceAsync(bench);
    }

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task Cancelled_on_a_frozen_connection_it_ends_at_once(int major, BackfillStrategy strategy, int workers)
    {
        PostgresServer server = await servers.Clusters.GetAsync(major);
        await using TcpProxy proxy = TcpProxy.Start(server);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, s_counted, proxy.ConnectionString);
        using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task<BackfillResult> run = bench.RunAsync(Counted(strategy, workers, 200), cancel.Token);
        await bench.UntilBatchesAsync(5, run);

        proxy.Freeze();
        long batches = -1;
        await Wait.UntilAsync(
            async () => batches == (batches = await bench.ScalarAsync<long>("select sum(batches)::int8 from migration_safety.backfill_worker")),
            "no more batches to come",
            cancellationToken: Token);
        long start = Stopwatch.GetTimestamp();
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        // A second where the machine is at rest; with the driver's time-outs it would be 15 or more.
        Assert.InRange(Stopwatch.GetElapsedTime(start), TimeSpan.Zero, TimeSpan.FromSeconds(8));

        proxy.DropAll();
        proxy.Thaw();
        await bench.RunAsync(Counted(strategy, workers));
        await AssertOnceAsync(bench);
    }

    [Theory, EachWalk]
    public async Task Locked_rows_are_passed_over_and_caught_later(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_counted);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "update t set note = 'mine' where id in (300, 60000, 60003)", "delete from t where id = 90000");

        Task<BackfillResult> run = bench.RunAsync(Counted(strategy, workers));
        await UntilNamedAsync(bench, holder, run);
        Assert.False(run.IsCompleted);
        Assert.Equal(Rows - 4, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        Assert.Equal(Rows - 1, result.Rows);
        Assert.Equal(0, result.Remaining);
        Assert.Equal(3, await bench.ScalarAsync<long>("select count(*) from t where note = 'mine' and n = 1"));
        Assert.Contains(result.Steps[^1].LockWaits, wait => wait.Blockers.Any(b => b.Pid == holder.Pid));
        await AssertOnceAsync(bench, Rows - 1);
    }

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task A_row_that_stays_locked_is_reported_with_its_holder(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_counted);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 600 for update");

        MigrationException e = await bench.FailsAsync(Counted(strategy, workers, retryFor: TimeSpan.FromSeconds(2)));

        Assert.Equal("RowsStayLocked", e.ErrorId);
        Assert.Equal(MigrationErrorKind.Busy, e.Kind);
        Assert.Equal(holder.Pid, Assert.Single(e.Blockers).Pid);
        Assert.Contains("lock-holder", e.Message, StringComparison.Ordinal);
        Assert.Equal(StepState.Failed, e.Steps[^1].State);
        Assert.Equal(Rows - 1, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));

        await holder.RollbackAsync(Token);
        BackfillResult result = await bench.RunAsync(Counted(strategy, workers));
        Assert.True(result.Resumed);
        Assert.Equal(1, result.Rows);
        await AssertOnceAsync(bench);
    }

    [Theory, EachWalk]
    public async Task A_lock_on_the_table_is_waited_out_and_its_holder_named(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_counted);
        Task<BackfillResult> run = bench.RunAsync(Counted(strategy, workers));
        await bench.UntilBatchesAsync(3, run);

        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "lock table t in access exclusive mode");
        await UntilNamedAsync(bench, holder, run);
        await holder.RollbackAsync(Token);

        Assert.Equal(Rows, (await run).Rows);
        await AssertOnceAsync(bench);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task An_update_too_slow_for_its_neighbours_is_given_up(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_counted);

        MigrationException e = await bench.FailsAsync(BackfillBench.Request("t", "v", "(select 1 from pg_sleep(id * 0 + 2))"));

        Assert.Equal("BatchTooSlow", e.ErrorId);
        Assert.False(await bench.StateExistsAsync());
    }

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task The_application_waits_no_longer_than_a_batch(int major, BackfillStrategy strategy, int workers)
    {
        // A slow trigger makes the time per row what it is under load: batches have to find their size and to keep to it.
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_counted + """
            ; create function slow() returns trigger language plpgsql as $$ begin perform sum(i) from generate_series(1, 400) i; return new; end $$;
            create trigger slow before update of v on t for each row execute function slow();
            """);
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        long statements = 0;
        Task application = Task.Run(
            async () =>
            {
                await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
                Random random = new(1);
                for (; !stop.IsCancellationRequested; statements++)
                {
                    int id = 3 * random.Next(1001, Rows);
                    await connection.ExecuteAsync($"update t set note = 'app' where id between {id} and {id + 60}", Token);
                }
            },
            Token);
        // Not by the application's clock, which a busy machine makes slow too: how long a lock of ours was waited for, the server knows.
        Dictionary<(int Pid, DateTime Since), TimeSpan> waits = [];
        TimeSpan late = TimeSpan.Zero;
        Task watch = Task.Run(
            async () =>
            {
                await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
                await using NpgsqlCommand look = new(
                    """
                    select l.pid, l.waitstart, clock_timestamp() - l.waitstart from pg_locks l
                    where not l.granted and l.waitstart is not null
                      and exists (select from pg_stat_activity a where a.pid = any (pg_blocking_pids(l.pid)) and a.application_name = 'MigrationSafety/backfill')
                    """,
                    connection);
                for (long last = Stopwatch.GetTimestamp(); !stop.IsCancellationRequested; last = Stopwatch.GetTimestamp())
                {
                    await using (NpgsqlDataReader reader = await look.ExecuteReaderAsync(Token))
                    {
                        while (await reader.ReadAsync(Token))
                        {
                            waits[(reader.GetInt32(0), reader.GetDateTime(1))] = reader.GetTimeSpan(2);
                        }
                    }

                    await Task.Delay(5, Token);
                    TimeSpan gap = Stopwatch.GetElapsedTime(last);
                    late = gap > late ? gap : late;
                }
            },
            Token);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "update t set note = 'long' where id in (30, 300, 3000)");

        Task<BackfillResult> run = bench.RunAsync(Counted(strategy, workers) with { BatchSize = null });
        await UntilNamedAsync(bench, holder, run);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;
        await stop.CancelAsync();
        await Task.WhenAll(application, watch);

        TimeSpan hold = BackfillConnection.HoldLimitOf(Counted(strategy, workers));
        TimeSpan worst = waits.Values.DefaultIfEmpty().Max();
        TestContext.Current.TestOutputHelper?.WriteLine($"{statements} statements, {waits.Count} waits, {waits.Values.Count(wait => wait > hold)} longer than {hold.TotalMilliseconds:0} ms, the longest {worst.TotalMilliseconds:0} ms; {result.Batches} batches; a look took up to {late.TotalMilliseconds:0} ms");
        Assert.Equal(Rows, result.Rows);
        Assert.True(waits.Count > 0, "The application never met the backfill.");
        // The server ends a batch at the hold limit, and with it the wait; that a busy machine is late to do so shows in how long it takes to look.
        Assert.InRange(waits.Values.Count(wait => wait > hold), 0, waits.Count / 10);
        Assert.True(worst < (2 * hold) + (2 * late), $"A statement waited {worst.TotalMilliseconds:0} ms; a look took up to {late.TotalMilliseconds:0} ms.");
        await AssertOnceAsync(bench);
    }

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task The_application_is_never_told_of_a_deadlock(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_counted);
        Task<BackfillResult> run = bench.RunAsync(Counted(strategy, workers));
        // Against the order of the walk, held over several statements: what deadlocks with a batch that waits.
        await Task.WhenAll(Enumerable.Range(0, 4).Select(async worker =>
        {
            Random random = new(worker);
            await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
            while (!run.IsCompleted)
            {
                await using NpgsqlTransaction transaction = await connection.BeginTransactionAsync(Token);
                foreach (int id in Enumerable.Range(0, 6).Select(_ => 3 * (1 + random.Next(Rows / 4) + (worker * (Rows / 4)))).OrderDescending())
                {
                    await connection.ExecuteAsync($"update t set note = 'app' where id = {id}", Token);
                }

                await transaction.CommitAsync(Token);
            }
        }));

        Assert.Equal(Rows, (await run).Rows);
        await AssertOnceAsync(bench);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Nor_is_it_where_a_batch_may_take_longer_than_a_deadlock_to_be_found(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int, note text); insert into t values (1), (2)");
        await using LockHolder application = await LockHolder.HoldAsync(bench.Database, "set deadlock_timeout = '400ms'", "select from t where id = 2 for update");
        await bench.Database.ExecuteAsync($"alter database {bench.Database.Name} set deadlock_timeout = '400ms'", Token);
        BackfillRequest request = BackfillBench.Request("t", "v", "case id when 2 then (select 2 from pg_sleep(0.2)) else 1 end", "v is null", batchSize: 100);
        request = request with { Strategy = BackfillStrategy.Key, Options = request.Options with { LockTimeout = TimeSpan.FromSeconds(2) } };

        Task<BackfillResult> run = bench.RunAsync(request, session: await bench.SessionAsync(db => db.ConnectionString + ";Application Name=fresh"));
        // The batch holds one row and is about to want the other.
        await Wait.UntilAsync(
            async () => run.IsCompleted || await bench.ScalarAsync<bool>("select exists (select from t where v = 1) or exists (select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep')"),
            "the first row to be changed",
            cancellationToken: Token);
        await application.Connection.ExecuteAsync("update t set note = 'app' where id = 1", Token);
        await application.CommitAsync(Token);

        Assert.Equal((BackfillOutcome.Completed, 2L), ((await run).Outcome, (await run).Rows));
    }

    /// <summary>Waits until the run has said who is in its way.</summary>
    private static async Task UntilNamedAsync(BackfillBench bench, LockHolder holder, Task run)
    {
        try
        {
            await Wait.UntilAsync(
                () => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains($"pid {holder.Pid} (", StringComparison.Ordinal)),
                "the holder to be named",
                cancellationToken: Token);
        }
        catch (TimeoutException e)
        {
            Assert.Fail(e.Message + " " + string.Join('\n', bench.Sink.VerboseMessages));
        }
    }

    private static async Task AssertOnceAsync(BackfillBench bench, int rows = Rows)
    {
        Assert.Equal(rows, await bench.ScalarAsync<long>("select count(*) from t where v = 1 and n = 1"));
        Assert.Equal(rows, await bench.ScalarAsync<long>("select count(*) from t"));
        Assert.Equal(rows, await bench.ScalarAsync<long>("select sum(rows_done)::int8 from migration_safety.backfill_worker join migration_safety.backfill on name = backfill where state = 'completed'"));
        await bench.UntilNothingHeldAsync();
    }

    /// <summary>Cancels when it is told something.</summary>
    private sealed class CancellingSink(CancellationTokenSource cancel, string at) : IOperationSink
    {
        public void Verbose(string message)
        {
            if (message.Contains(at, StringComparison.Ordinal))
            {
                cancel.Cancel();
            }
        }

        public void Debug(string message)
        {
        }

        public void Warning(string message) => Verbose(message);

        public void Progress(OperationProgress progress)
        {
        }

        public void Record(OperationEvent happened)
        {
        }
    }
}
