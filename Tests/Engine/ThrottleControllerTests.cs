using MigrationSafety.Engine.Backfills.Throttling;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What the throttle makes of what it sees: rules, controller and gate, without a server.</summary>
public sealed class ThrottleControllerTests
{
    private static readonly DateTimeOffset s_start = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);

    [Fact]
    public void Over_a_limit_it_is_halved_and_comes_back_step_by_step()
    {
        ThrottleController controller = new();
        List<double> speeds = [];
        void Look(double ratio) => speeds.Add(controller.Decide([new($"ratio {ratio}", ratio)], s_start.AddSeconds(speeds.Count)).Speed);

        Look(0.5);
        Look(1.2);
        // A cut is seen a look later: not twice for one cause.
        Look(1.2);
        Look(1.2);
        // Neither over nor calm: it stays.
        Look(0.9);
        Look(1.0);
        Assert.Equal([1, 0.5, 0.5, 0.25, 0.25, 0.25], speeds);
        Assert.Equal(("at 25 % speed: ratio 1, too near to go faster", s_start.AddSeconds(1)), (controller.Current.Words, controller.Current.Since));

        for (int i = 0; i < 8; i++)
        {
            Look(0.1);
        }

        Assert.Equal([0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1], speeds[6..]);
        Assert.Null(controller.Current.Reason);
    }

    [Fact]
    public void Far_over_it_pauses_and_goes_on_after_two_calm_looks_slowly()
    {
        ThrottleController controller = new();
        ThrottleDecision Look(double ratio, int second) => controller.Decide([new("lag", ratio)], s_start.AddSeconds(second));

        Assert.True(Look(2.5, 0).Paused);
        Assert.True(Look(1.5, 1).Paused);
        Assert.True(Look(0.9, 2).Paused);
        Assert.True(Look(0.7, 3).Paused);
        // Over again between two calm looks: from the start.
        Assert.True(Look(0.95, 4).Paused);
        Assert.True(Look(0.7, 5).Paused);
        ThrottleDecision on = Look(0.7, 6);
        Assert.Equal((ThrottleController.LeastSpeed, "lag", s_start.AddSeconds(6)), (on.Speed, on.Reason, on.Since));
        Assert.Equal("at 5 % speed and rising, after: lag", on.Words);
        Assert.Equal(ThrottleController.LeastSpeed + ThrottleController.Step, Look(0.1, 7).Speed, 6);
    }

    [Fact]
    public void Near_a_limit_a_pause_ends_all_the_same_and_its_reason_is_the_present_one()
    {
        ThrottleController controller = new();
        int second = 0;
        ThrottleDecision Look(params ThrottlePressure[] pressures) => controller.Decide(pressures, s_start.AddSeconds(second++));
        ThrottlePressure slot = new("slot keeps 9 GB (limit 10 GB)", 0.9);

        Assert.Equal("paused: window", Look(new("window", double.PositiveInfinity, Stops: true), slot).Words);
        for (int i = 0; i < 4; i++)
        {
            Assert.Equal("paused: slot keeps 9 GB (limit 10 GB), too near to go faster", Look(slot).Words);
        }

        Assert.Equal("at 5 % speed: slot keeps 9 GB (limit 10 GB), too near to go faster", Look(slot).Words);
        // No faster; and paused again where that was too much.
        Assert.Equal(ThrottleController.LeastSpeed, Look(slot).Speed);
        for (int i = 0; i < 5; i++)
        {
            Look(new ThrottlePressure("slot keeps 11 GB (limit 10 GB)", 1.1));
        }

        Assert.Equal("paused: slot keeps 11 GB (limit 10 GB)", controller.Current.Words);
        // Over again between: from the start.
        for (int look = 0; look < 8; look++)
        {
            Assert.True(Look(look == 3 ? slot with { Ratio = 1.1 } : slot).Paused, $"look {look}");
        }

        Assert.False(Look(slot).Paused);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void As_many_sessions_as_the_limit_says_do_not_keep_it_slow(int limit)
    {
        ThrottleRules rules = new(new ThrottleLimits { ActiveSessions = limit, WaitingSessions = limit });
        ThrottleController controller = new();
        ThrottleDecision Look(int second, int sessions) => controller.Decide(
            rules.Assess(new ThrottleSample { Time = s_start.AddSeconds(second), ActiveSessions = sessions, Waiters = new(sessions, 4711, 0.1) }), s_start.AddSeconds(second));

        Assert.Equal(1, Look(0, limit).Speed);
        Assert.True(Look(1, (3 * limit) + 1).Paused);
        for (int second = 2; second < 15; second++)
        {
            Look(second, limit);
        }

        Assert.Equal(1, controller.Current.Speed);
        Assert.True(Look(15, limit + 1).Speed < 1);
    }

    [Fact]
    public void Where_the_least_speed_does_not_help_it_pauses()
    {
        ThrottleController controller = new();
        int looks = 0;
        while (!controller.Current.Paused && looks < 100)
        {
            controller.Decide([new("WAL", 1.3)], s_start.AddSeconds(looks++));
        }

        // Five cuts, every second look, then five looks at the least speed.
        Assert.InRange(looks, 10, 20);
        Assert.Equal("WAL", controller.Current.Reason);
    }

    [Fact]
    public void What_stops_it_stops_it_at_once()
    {
        ThrottleController controller = new();
        Assert.Equal(1, controller.Decide([], s_start).Speed);
        ThrottleDecision stopped = controller.Decide([new("window", double.PositiveInfinity, Stops: true), new("lag", 1.5)], s_start.AddSeconds(1));
        Assert.Equal((0, "window", s_start.AddSeconds(1)), (stopped.Speed, stopped.Reason, stopped.Since));
        controller.Decide([], s_start.AddSeconds(2));
        Assert.False(controller.Decide([], s_start.AddSeconds(3)).Paused);
    }

    [Fact]
    public void The_lag_of_a_standby_that_replays_nothing_grows()
    {
        ThrottleRules rules = new(new ThrottleLimits { ReplicationLagTime = TimeSpan.FromSeconds(10) });
        double Look(int second, long wal, long replayed, double? told) => rules.Assess(new ThrottleSample
        {
            Time = s_start.AddSeconds(second),
            Wal = wal,
            Standbys = [new StandbySample("s", replayed, told)],
        })[0].Ratio;

        Assert.Equal(0, Look(0, 1000, 1000, null));
        Assert.Equal(0, Look(1, 2000, 1000, null));
        // It is where the primary was before the look at second 1.
        Assert.Equal(0.4, Look(5, 6000, 1000, 0.2), 6);
        Assert.Equal(2.9, Look(30, 9000, 1000, 0.2), 6);
        // The server measures more than was seen here.
        Assert.Equal(6, Look(31, 9000, 1000, 60), 6);
        // It has caught up, and the server's measure is old.
        Assert.Equal(0, Look(32, 9000, 9000, 60));
    }

    [Fact]
    public void Bytes_slots_archive_sessions_and_rates_are_held_against_their_limits()
    {
        ThrottleRules rules = new(new ThrottleLimits
        {
            ReplicationLagBytes = 1 << 20,
            SlotLag = 1 << 30,
            ArchiveLag = 64 << 20,
            WaitingSessions = 2,
            ActiveSessions = 10,
            WalRate = 1 << 20,
            VacuumLag = 2,
        });
        ThrottleSample sample = new()
        {
            Time = s_start,
            Wal = 100 << 20,
            Standbys = [new("replica1 (10.0.0.7)", (100 << 20) - (2 << 20), null)],
            Slots = [new("lost one", false, 512 << 20, "extended", null, null)],
            Archiver = new(96 << 20, "000000010000000000000002"),
            Waiters = new(3, 4711, 0.25),
            ActiveSessions = 5,
            Vacuum = new("public.orders", 4000, 1000, Vacuumed: false, Autovacuum: true),
        };
        rules.Assess(sample);
        IReadOnlyList<ThrottlePressure> found = rules.Assess(sample with { Time = s_start.AddSeconds(2), Wal = 106 << 20 });

        Assert.Equal([8, 3, 2, 1.5, 1.5, 0.5, 0.454545], found.Select(pressure => Math.Round(pressure.Ratio, 6)));
        Assert.Equal("standby replica1 (10.0.0.7) is 8 MB behind (limit 1 MB)", found[0].Reason);
        Assert.Equal("the server writes 3 MB of WAL a second (limit 1 MB)", found[1].Reason);
        Assert.Equal("public.orders has 4,000 dead rows, 4.0 times those at which autovacuum comes (limit 2); no vacuum is at it yet", found[2].Reason);
        Assert.Contains(found, pressure => pressure.Reason == "96 MB of WAL wait to be archived (limit 64 MB); archiving 000000010000000000000002 fails, see the server's log");
        Assert.Contains(found, pressure => pressure.Reason == "3 sessions wait for rows of this backfill (limit 2), the longest, pid 4711, for 250 ms");
        Assert.Contains(found, pressure => pressure.Reason == "5 sessions are active (limit 10)");
        Assert.Contains(found, pressure => pressure.Reason == "replication slot \"lost one\" keeps 512 MB of WAL (limit 1 GB) and nobody reads it");
    }

    [Theory]
    [InlineData(true, true, "a vacuum is at it")]
    [InlineData(true, false, "a vacuum is at it")]
    [InlineData(false, true, "no vacuum is at it yet")]
    [InlineData(false, false, "autovacuum is off for it: run VACUUM")]
    public void What_is_said_of_dead_rows_is_who_takes_them_away(bool vacuumed, bool autovacuum, string end)
    {
        ThrottleRules rules = new(new ThrottleLimits { VacuumLag = 1 });
        ThrottlePressure found = Assert.Single(rules.Assess(new ThrottleSample { Time = s_start, Vacuum = new("public.t", 1500, 1000, vacuumed, autovacuum) }));
        Assert.Equal(("public.t has 1,500 dead rows, 1.5 times those at which autovacuum comes (limit 1); " + end, 1.5), (found.Reason, found.Ratio));
    }

    [Fact]
    public void A_slot_that_is_about_to_lose_WAL_stops_it_whatever_the_limit()
    {
        ThrottleRules rules = new(new ThrottleLimits { SlotLag = long.MaxValue });
        ThrottlePressure worst = rules.Assess(new ThrottleSample { Time = s_start, Slots = [new("s", true, 950, "extended", 50, 1000)] })[0];
        Assert.True(worst.Stops);
        Assert.Equal("replication slot s is about to lose WAL that its reader still needs: 50 bytes are left of max_slot_wal_keep_size", worst.Reason);
        Assert.False(rules.Assess(new ThrottleSample { Time = s_start, Slots = [new("s", true, 500, "reserved", 500, 1000)] })[0].Stops);
    }

    [Theory]
    [InlineData("22:00-05:00", "21:59", false, "00:01")]
    [InlineData("22:00-05:00", "22:00", true, "00:00")]
    [InlineData("22:00-05:00", "00:30", true, "00:00")]
    [InlineData("22:00-05:00", "05:00", false, "17:00")]
    [InlineData("9:00-17:30", "08:00", false, "01:00")]
    [InlineData("9:00-17:30", "12:00", true, "00:00")]
    [InlineData("20:00-24:00", "23:59", true, "00:00")]
    public void A_window_may_go_over_midnight(string window, string time, bool open, string opensIn)
    {
        DailyWindow daily = new(window + " Europe/Berlin");
        TimeOnly now = TimeOnly.Parse(time, System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal((open, TimeSpan.Parse(opensIn, System.Globalization.CultureInfo.InvariantCulture)), (daily.IsOpen(now), daily.OpensIn(now)));
        Assert.Equal("Europe/Berlin", daily.TimeZone);
        Assert.Equal(daily.ToString(), new DailyWindow(daily.ToString()).ToString());
    }

    [Theory]
    [InlineData("22-05")]
    [InlineData("22:00")]
    [InlineData("25:00-05:00")]
    [InlineData("05:00-05:00")]
    [InlineData("")]
    public void What_is_no_window_is_refused(string text) => Assert.Throws<FormatException>(() => new DailyWindow(text));

    [Theory]
    [InlineData("10s", 10.0, null)]
    [InlineData("64MB", null, 64L << 20)]
    [InlineData("10s, 64MB", 10.0, 64L << 20)]
    [InlineData("67108864", null, 64L << 20)]
    [InlineData("0", null, null)]
    [InlineData("0s", null, null)]
    [InlineData("00:01:00", 60.0, null)]
    public void A_lag_is_a_time_an_amount_or_both(string text, double? seconds, long? bytes)
    {
        LagLimit limit = new(text);
        Assert.Equal((seconds, bytes), (limit.Time?.TotalSeconds, limit.Bytes));
    }

    [Theory]
    [InlineData("10")]
    [InlineData("ten seconds")]
    [InlineData("1.5 GiB")]
    [InlineData("10s, 20s")]
    [InlineData("64MB, 10")]
    [InlineData("-5s")]
    [InlineData("")]
    public void What_is_no_lag_is_refused(string text) => Assert.Throws<FormatException>(() => new LagLimit(text));

    [Fact]
    public void Limits_come_back_from_the_server_as_they_went()
    {
        ThrottleLimits limits = new()
        {
            ReplicationLagTime = TimeSpan.FromSeconds(2.5),
            ExcludedStandbys = ["delayed"],
            SlotLag = 5,
            HealthQuery = "select 1 < 2",
            Window = new DailyWindow("22:00-05:00 Europe/Berlin"),
            RowsPerSecond = 1000,
        };
        Assert.Equal(limits, ThrottleLimits.FromJson(limits.ToJson()));
        Assert.NotEqual(limits, ThrottleLimits.FromJson(ThrottleLimits.Default.ToJson()));
        Assert.Equal(ThrottleLimits.Default, ThrottleLimits.FromJson(null));
    }

    [Fact]
    public async Task The_gate_is_closed_until_it_is_told_and_opens_when_the_speed_changes()
    {
        ThrottleGate gate = new();
        int waited = 0;
        Task first = gate.WaitAsync(TimeSpan.Zero, false, 0, () => waited++, TestContext.Current.CancellationToken);
        Assert.False(first.IsCompleted);
        gate.Set(1, null, workers: 1);
        await first;
        Assert.True(waited > 0);

        gate.Set(0, null, workers: 1);
        Task paused = gate.WaitAsync(TimeSpan.Zero, false, 0, () => { }, TestContext.Current.CancellationToken);
        Assert.False(paused.IsCompleted);
        gate.Open();
        await paused;

        ThrottleGate cancelled = new();
        using CancellationTokenSource stop = new();
        Task waiting = cancelled.WaitAsync(TimeSpan.Zero, false, 0, () => { }, stop.Token);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting);
    }

    [Fact]
    public async Task Rows_a_second_are_kept_to_and_shared_by_the_workers()
    {
        ThrottleGate gate = new();
        gate.Set(1, rowsPerSecond: 10_000, workers: 4);
        Assert.Equal(1250, gate.MostRows);
        long start = System.Diagnostics.Stopwatch.GetTimestamp();
        gate.Did(3000);
        await gate.WaitAsync(TimeSpan.Zero, false, 0, () => { }, TestContext.Current.CancellationToken);
        // At least as long as they are due; how much longer, a busy machine decides.
        Assert.True(System.Diagnostics.Stopwatch.GetElapsedTime(start) > TimeSpan.FromMilliseconds(280));
    }

    [Fact]
    public async Task A_throttle_that_fails_lets_nobody_work_on_unwatched()
    {
        ThrottleGate gate = new();
        gate.Open(new InvalidCastException("a bug"));
        InvalidOperationException e = await Assert.ThrowsAsync<InvalidOperationException>(() => gate.WaitAsync(TimeSpan.Zero, false, 0, () => { }, TestContext.Current.CancellationToken));
        Assert.Contains("a bug", e.Message, StringComparison.Ordinal);
    }
}
