using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>While others are at work on the server, a backfill tries how much longer their commits take because of it, and pauses within its batches so that they do not.</summary>
public sealed class SlowdownTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public void Who_else_is_at_work_is_counted_without_what_is_ours()
    {
        DateTimeOffset start = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
        OtherWork alone = new();
        OtherWork application = new();
        OtherWork fleet = new();
        OtherWork many = new();
        for (int second = 0; second < 30; second++)
        {
            // Our 20 transactions a second reach the statistics a second late, and 150 from before the first look; an application has 200 besides until it ends.
            alone.Add(start.AddSeconds(second), 7_000_000 + (20 * Math.Max(0, second - 1)) + Math.Min(150, 75 * second), 20 * second, mine: 1, workers: 0, probes: 0, live: 1, hidden: 0);
            // Two more backfills on the same server, one of which tries commits.
            fleet.Add(start.AddSeconds(second), 3000 + (150 * second), 20 * second, mine: 1, workers: 2, probes: 1, live: 1, hidden: 0);
            // Sixteen workers, which all took their turn at the gate.
            many.Add(start.AddSeconds(second), 5000 + (320 * Math.Max(0, second - 1)) + (16 * Math.Min(95, 48 * second)), 320 * second, mine: 16, workers: 0, probes: 0, live: 1, hidden: 0);
            application.Add(start.AddSeconds(second), 9_000_000 + (20 * second) + (200 * Math.Min(second, 12)), 20 * second, mine: 1, workers: 0, probes: 0, live: 1, hidden: 0);
            Assert.False(alone.IsThere, $"alone, second {second}: {alone.PerSecond}");
            Assert.False(fleet.IsThere, $"fleet, second {second}: {fleet.PerSecond}");
            Assert.False(many.IsThere, $"many, second {second}: {many.PerSecond}");
            Assert.True(second is < 2 or > 12 || application.IsThere, $"application, second {second}: {application.PerSecond}");
        }

        // In the first seconds, before transactions are counted, it shows by its sessions, or may be among those that are hidden; later on a count tells more.
        Assert.Equal((true, true, false), (Begins(live: 2, hidden: 0, looks: 1), Begins(live: 2, hidden: 0, looks: 10), Begins(live: 2, hidden: 0, looks: 20)));
        Assert.Equal((true, true, false), (Begins(live: 0, hidden: 5, looks: 1), Begins(live: 0, hidden: 5, looks: 3), Begins(live: 0, hidden: 5, looks: 4)));
        Assert.False(Begins(live: 1, hidden: 1, looks: 1));

        bool Begins(int live, int hidden, int looks)
        {
            OtherWork work = new();
            for (int look = 0; look < looks; look++)
            {
                work.Add(start.AddSeconds(look), 1000, 0, mine: 1, workers: 0, probes: 0, live, hidden);
            }

            return work.IsThere;
        }

        Assert.False(application.IsThere);
        application.Add(start.AddSeconds(30), 9_100_000, 600, mine: 1, workers: 0, probes: 0, live: 1, hidden: 0);
        Assert.True(application.IsThere);
        // The statistics were reset.
        application.Add(start.AddSeconds(31), 5, 620, mine: 1, workers: 0, probes: 0, live: 1, hidden: 0);
        Assert.False(application.IsThere);
    }

    [Fact]
    public void The_speed_follows_from_how_much_longer_commits_take()
    {
        CommitTimes times = new();
        void Decide(double limit = 1.1, int clients = 1) => times.Decide(limit, clients, workers: 1);
        Decide();
        Assert.Equal((CommitTimes.FirstSpeed, false), (times.Speed, times.IsKnown));
        Assert.Contains("measured first", times.Reason, StringComparison.Ordinal);

        // At a tenth of the time, commits that take 1 ms take 1.2 ms on average: half of that is allowed.
        void Add()
        {
            for (int i = 0; i < 200; i++)
            {
                times.Add(TimeSpan.FromMilliseconds(i % 4 == 0 ? 1 : 1.0 + (0.2 * 4 / 3)), resting: i % 4 == 0, speed: 0.1);
            }
        }

        Add();
        Decide();
        Assert.True(times.IsKnown);
        Assert.Equal(0.05, times.Speed, 3);
        Assert.Equal("commits of others take 1.20 times as long because of it, 1.2 ms instead of 1.0 ms (limit 1.1 times)", times.Reason);

        // A stall of the disk in the midst of them says little about the backfill: more is allowed, and step by step it gets faster.
        times.Add(TimeSpan.FromSeconds(3), resting: false, speed: 0.1);
        Add();
        Decide(limit: 1.4);
        Assert.InRange(times.Speed, 0.055, 0.06);
        for (int i = 0; i < 20; i++)
        {
            Decide(limit: 1.4);
        }

        Assert.InRange(times.Speed, 0.11, 0.17);

        // Where it does no harm, the more of that is seen the faster, up to as fast as it can.
        CommitTimes harmless = new();
        List<double> speeds = [];
        List<string?> said = [];
        for (int second = 0; second < 60; second++)
        {
            for (int i = 0; i < 40; i++)
            {
                harmless.Add(TimeSpan.FromMilliseconds(1 + ((i + second) % 7 * 0.1)), resting: i % 8 == 0, harmless.Speed);
            }

            harmless.Decide(1.1, 1, 1);
            speeds.Add(harmless.Speed);
            said.Add(harmless.Reason);
        }

        Assert.Equal((1.0, null), (harmless.Speed, harmless.Reason));
        Assert.Contains(said, reason => reason?.StartsWith("it gets faster step by step; commits of others take no longer because of it so far, 1.3", StringComparison.Ordinal) == true);
        int known = speeds.FindIndex(speed => speed > CommitTimes.FirstSpeed);
        Assert.All(speeds[known..].Zip(speeds[(known + 1)..]), pair => Assert.InRange(pair.Second, pair.First, (pair.First * 1.15) + 0.01));

        // A tenth longer with it; but for a minute the disk is slow, and batches hardly get on.
        CommitTimes storm = new();
        for (int second = 0; second < 60; second++)
        {
            bool slow = second is >= 20 and < 40;
            for (int i = 0; i < 40; i++)
            {
                bool resting = slow ? i % 10 != 0 : i % 10 == 0;
                storm.Add(TimeSpan.FromMilliseconds((slow ? 8 : 1) * (resting ? 1 : 1.1)), resting, speed: 0.1);
            }
        }

        storm.Decide(1.05, clients: 1, workers: 1);
        Assert.InRange(storm.Speed, 0.05, 0.1);
        Assert.Contains("take 1.0", storm.Reason, StringComparison.Ordinal);

        // Two clients do half of the harm each.
        CommitTimes shared = new();
        for (int i = 0; i < 200; i++)
        {
            shared.Add(TimeSpan.FromMilliseconds(i % 2 == 0 ? 1 : 1.2), resting: i % 2 == 0, speed: 0.1);
        }

        shared.Decide(1.1, clients: 2, workers: 1);
        Assert.Equal(0.05, shared.Speed, 3);

        // Four workers take turns where little may be done: together they have the least speed of one.
        CommitTimes four = new();
        four.Decide(1.01, clients: 1, workers: 4);
        Assert.Equal(CommitTimes.FirstSpeed / 4, four.Speed);
        for (int i = 0; i < 200; i++)
        {
            four.Add(TimeSpan.FromMilliseconds(i % 2 == 0 ? 1 : 1.2), resting: i % 2 == 0, speed: 0.025);
        }

        four.Decide(1.01, clients: 1, workers: 4);
        Assert.Equal(ThrottleController.LeastSpeed / 4, four.Speed);
    }

    [Theory]
    [InlineData(17)]
    [InlineData(40)]
    [InlineData(64)]
    public void Many_workers_get_faster_too(int workers)
    {
        CommitTimes times = new();
        // A time of much harm, then one of none.
        for (int second = 0; second < 400; second++)
        {
            for (int i = 0; i < 40; i++)
            {
                times.Add(TimeSpan.FromMilliseconds(second < 20 && i % 8 != 0 ? 3 : 1), resting: i % 8 == 0, times.Speed);
            }

            times.Decide(1.1, clients: 1, workers);
            Assert.True(second is < 10 or > 20 || times.Speed < FirstOf(workers), $"second {second}: {times.Speed}");
        }

        Assert.Equal(1, times.Speed);
        Assert.Equal("at 0.25 % speed: commits", new ThrottleDecision(0.0025, "commits", default).Words);

        static double FirstOf(int workers) => CommitTimes.FirstSpeed / workers;
    }

    [Fact]
    public void What_is_known_stays_known_with_few_commits_without_batches()
    {
        // Long batches leave one commit in a hundred without one.
        CommitTimes times = new();
        List<bool> known = [];
        for (int i = 0; i < 6000; i++)
        {
            times.Add(TimeSpan.FromMilliseconds(1), resting: i < 100 || i % 100 == 0, speed: 0.5);
            times.Decide(1.1, 1, 1);
            known.Add(times.IsKnown);
        }

        Assert.DoesNotContain(false, known[60..]);
        Assert.Equal(1, times.Speed);
        // Of none at all nothing can be said.
        for (int i = 0; i < 4000; i++)
        {
            times.Add(TimeSpan.FromMilliseconds(1), resting: false, speed: 0.5);
        }

        times.Decide(1.1, 1, 1);
        Assert.Equal((CommitTimes.FirstSpeed, false), (times.Speed, times.IsKnown));
    }

    [Fact]
    public void What_slows_everybody_down_for_a_while_is_not_held_against_the_pauses()
    {
        // A twentieth of the commits meets a batch and takes five times as long; for ten seconds something else is on the disk.
        CommitTimes times = new();
        List<double> speeds = [];
        for (int second = 0; second < 300; second++)
        {
            double milliseconds = second is >= 90 and < 100 ? 4 : 1;
            for (int i = 0; i < 40; i++)
            {
                // Held back for 0.6 s of each 5.6 s.
                int moment = ((second * 40) + i) % 224;
                times.Add(TimeSpan.FromMilliseconds(milliseconds * (moment >= 24 && moment % 20 == 0 ? 5 : 1)), resting: moment < 20, speed: 0.05);
            }

            times.Decide(1.2, 1, 1);
            speeds.Add(times.Speed);
        }

        Assert.All(speeds[60..], speed => Assert.InRange(speed, 0.03, 0.075));
    }

    [Theory]
    [InlineData(100, 20, null)]
    [InlineData(100, 400, "commits of others take 5.00 times as long because of it, 0.5 ms instead of 0.1 ms (limit 1.1 times, or 0.05 ms)")]
    [InlineData(520, 20, null)]
    [InlineData(460, 80, "commits of others take 1.17 times as long because of it, 0.54 ms instead of 0.46 ms (limit 1.1 times, or 0.05 ms)")]
    [InlineData(1020, 140, "commits of others take 1.14 times as long because of it, 1.2 ms instead of 1.0 ms (limit 1.1 times)")]
    public void What_no_application_feels_does_not_count_and_figures_are_told_apart(int alone, int longer, string? reason)
    {
        CommitTimes times = new();
        for (int look = 0; look < 80; look++)
        {
            for (int i = 0; i < 100; i++)
            {
                times.Add(TimeSpan.FromMicroseconds(alone), resting: true, speed: times.Speed);
                times.Add(TimeSpan.FromMicroseconds(alone + (2 * longer)), resting: false, speed: times.Speed);
            }

            times.Decide(1.1, 1, 1);
        }

        Assert.Equal(reason, times.Reason);
    }

    [Theory]
    [InlineData(0.05, 10)]
    [InlineData(0.1, 10)]
    [InlineData(0.3, 10)]
    [InlineData(0.8, 10)]
    [InlineData(0.1, 5000)]
    [InlineData(0.5, 2)]
    public void Pauses_leave_the_share_of_the_time_that_is_asked_for(double speed, int microseconds)
    {
        TimeSpan ofRow = TimeSpan.FromMicroseconds(microseconds);
        BatchPace pace = BatchPace.Of(speed, ofRow);
        Assert.InRange(pace.Chance, 1e-6, 1);
        TimeSpan work = 100_000 * ofRow;
        Assert.InRange(work / (work + pace.Pauses(100_000)), speed * 0.75, speed * 1.35);
        Assert.Equal(BatchPace.None, BatchPace.Of(1, ofRow));
    }

    [Fact]
    public void What_a_row_takes_does_not_count_what_a_statement_takes()
    {
        RowCost cost = new();
        for (int i = 0; i < 100; i++)
        {
            cost.Took(TimeSpan.FromMilliseconds(2.2), 20);
        }

        Assert.InRange(cost.OfRow.TotalMicroseconds, 9.9, 10.1);
        cost.Took(TimeSpan.FromMilliseconds(252), 50_000);
        Assert.InRange(cost.OfRow.TotalMicroseconds, 5, 6);
    }

    [Fact]
    public async Task What_paused_within_its_batch_does_not_wait_again_after_it()
    {
        ThrottleGate gate = new();
        gate.Set(0.1, null, workers: 1, pace: 0.1);
        long now = System.Diagnostics.Stopwatch.GetTimestamp();
        await gate.WaitAsync(TimeSpan.FromMinutes(1), true, now, () => { }, Token).WaitAsync(TimeSpan.FromMilliseconds(1), Token);
        Task unpaced = gate.WaitAsync(TimeSpan.FromMinutes(1), false, now, () => { }, Token);
        Assert.False(unpaced.IsCompleted);
        gate.Set(1, null, workers: 1);
        await unpaced;

        gate.Hold(true);
        Task held = gate.WaitAsync(TimeSpan.Zero, false, 0, () => { }, Token);
        Assert.False(held.IsCompleted);
        gate.Hold(false);
        await held;
    }

    [Fact]
    public async Task Where_little_may_be_done_workers_take_turns()
    {
        ThrottleGate gate = new();
        gate.Set(0.2, null, workers: 2, pace: 0.2);
        Assert.Equal(0.4, gate.Pace);
        await BatchAsync();
        Task second = BatchAsync();
        Assert.False(second.IsCompleted);
        gate.EndBatch();
        await second;

        // One that hangs does not keep the others for ever; nor does what is over.
        await BatchAsync(patience: TimeSpan.Zero);
        Task third = BatchAsync();
        Assert.False(third.IsCompleted);
        gate.Set(1, null, workers: 2);
        await third;
        Assert.Equal(3, gate.Now.Running);

        // With more to do there is a turn for each.
        gate.Set(0.6, null, workers: 2, pace: 0.6);
        Assert.Equal(0.6, gate.Pace);

        // Moments without any are kept by those who wait for their turn too.
        gate.Hold(true);
        Task held = BatchAsync();
        Assert.False(held.IsCompleted);
        gate.Hold(false);
        await held;

        Task BatchAsync(TimeSpan? patience = null) => gate.BeginBatchAsync(patience ?? TimeSpan.FromMinutes(1), Token);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task An_application_is_noticed_and_each_row_is_done_once_all_the_same(int major)
    {
        // A server of its own: whatever runs beside on another would be an application too.
        await using PostgresServer server = await PostgresServer.StartAsync(major, new() { Durable = true }, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, Filled(150_000));
        BackfillRequest request = new() { Table = "t", Set = [new("v", "id"), new("n", "n + 1")], Where = "v is null", Workers = 2 };

        // Nobody else is there: nothing keeps it back.
        Assert.Equal(150_000, (await bench.RunAsync(request with { Name = "alone" })).Rows);
        Assert.DoesNotContain(bench.Sink.VerboseMessages, message => message.Contains("speed", StringComparison.Ordinal));

        await bench.Database.ExecuteAsync("update t set v = null, n = 0", Token);
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task application = Task.WhenAll(Enumerable.Range(0, 3).Select(_ => Task.Run(() => ApplicationAsync(bench.Database, stop.Token), Token)));
        // Its commits are in the statistics before it begins.
        await Wait.UntilAsync(async () => await bench.ScalarAsync<long>("select sum(n) from hot") > 50, "the application", cancellationToken: Token);
        Task<BackfillResult> run = bench.RunAsync(request with { Name = "beside", Throttle = request.Throttle with { RowsPerSecond = 20_000 } });
        bool paused = false;
        string? reason = null;
        await Wait.UntilAsync(
            async () =>
            {
                reason = await bench.ScalarAsync<string>("select waiting_for from migration_safety.backfill where name = 'beside'") ?? reason;
                paused |= await bench.ScalarAsync<bool>("select exists (select from pg_stat_activity where application_name = 'MigrationSafety/backfill' and wait_event = 'PgSleep')");
                return run.IsCompleted || (paused && reason is not null);
            },
            "pauses within a batch, and why",
            cancellationToken: Token);
        Assert.False(run.IsCompleted, "The backfill was over before it noticed the application.");
        Assert.Matches("at \\d+ % speed.*commits", reason!);

        // When the application is gone, it is as fast as it can.
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => application);
        BackfillResult result = await run;
        Assert.Equal((BackfillOutcome.Completed, 150_000, 0), (result.Outcome, result.Rows, result.Remaining));
        Assert.Equal(150_000, await bench.ScalarAsync<long>("select count(*) from t where n = 1 and v = id"));
    }

    [Theory, EachMajor]
    public async Task Checkpoints_of_a_version_that_tried_no_commits_are_gone_on_with(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Filled(100));
        await bench.RunAsync(BackfillBench.Request("t", "v", "1", "v is null"));
        await bench.Database.ExecuteAsync("drop sequence migration_safety.backfill_probe; update t set v = null", Token);
        Assert.Equal(100, (await bench.RunAsync(BackfillBench.Request("t", "v", "1", "v is null"))).Rows);
        Assert.True(await bench.ScalarAsync<bool>("select to_regclass('migration_safety.backfill_probe') is not null"));
    }

    [Fact]
    public async Task A_role_that_may_not_try_commits_is_told_once_how_it_may()
    {
        await using PostgresServer server = await PostgresServer.StartAsync(PostgresClusters.RequestedMajors.Max(), cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, Filled(20_000));
        await bench.RunAsync(BackfillBench.Request("t", "n", "1", "n = 0"));
        await bench.Database.ExecuteAsync("create role app login; grant all on t, migration_safety.backfill, migration_safety.backfill_range, migration_safety.backfill_worker, migration_safety.backfill_error to app; grant usage on schema migration_safety to app", Token);
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task application = Task.Run(() => ApplicationAsync(bench.Database, stop.Token), Token);
        var session = await bench.SessionAsync(db => new NpgsqlConnectionStringBuilder(db.ConnectionString) { Username = "app" }.ConnectionString);
        bool Told() => bench.Sink.Warnings.Any(message => message.Contains("-MaxSlowdown", StringComparison.Ordinal));
        using CancellationTokenSource enough = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task<BackfillResult> run = bench.RunAsync(new() { Table = "t", Set = [new("v", "1")], Throttle = ThrottleLimits.Default with { RowsPerSecond = 200 } }, enough.Token, session);
        await Wait.UntilAsync(() => Task.FromResult(run.IsCompleted || Told()), "the warning", cancellationToken: Token);
        // It goes on without, and says it once.
        long done = await bench.ScalarAsync<long>("select count(*) from t where v = 1");
        await Wait.UntilAsync(async () => run.IsCompleted || await bench.ScalarAsync<long>("select count(*) from t where v = 1") > done, "the next batches", cancellationToken: Token);
        Assert.False(run.IsCompleted);
        await enough.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => application);
        string warning = Assert.Single(bench.Sink.Warnings, message => message.Contains("-MaxSlowdown", StringComparison.Ordinal));
        Assert.Contains("GRANT UPDATE ON SEQUENCE migration_safety.backfill_probe TO app;", warning, StringComparison.Ordinal);
    }

    private static string Filled(int rows) =>
        $"create table t (id int primary key, v int, n int not null default 0, x text); insert into t (id, x) select i, repeat('x', 100) from generate_series(1, {rows}) i;"
        + " create table hot (id int primary key, n int not null); insert into hot select i, 0 from generate_series(1, 100) i";

    private static async Task ApplicationAsync(TestDatabase database, CancellationToken cancellationToken)
    {
        await using NpgsqlConnection connection = await database.OpenAsync(cancellationToken);
        while (true)
        {
            await using NpgsqlCommand command = new($"update hot set n = n + 1 where id = {1 + Random.Shared.Next(100)}", connection);
            await command.ExecuteNonQueryAsync(CancellationToken.None);
            await Task.Delay(1, cancellationToken);
        }
    }
}
