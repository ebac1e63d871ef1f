using System.Runtime.CompilerServices;
using MigrationSafety.Engine.Progress;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What is said of moments that no test can hold a server at.</summary>
public sealed class ProgressModelTests
{
    private static readonly DateTime s_start = new(2026, 1, 1, 0, 0, 0, DateTimeKind.Utc);

    // Names of the server alone are taken from it.
    private static readonly MigrationSession s_session = (MigrationSession)RuntimeHelpers.GetUninitializedObject(typeof(MigrationSession));

    [Theory]
    [InlineData("scanning heap", 99)]
    [InlineData("scanning heap", 100)]
    [InlineData("vacuuming indexes", 100)]
    [InlineData("vacuuming heap", 200)]
    public void A_vacuum_may_go_through_its_indexes_any_number_of_times(string phase, long rounds)
    {
        ProgressSample vacuum = Sample("vacuum", 60, ("phase", phase), ("heap_blks_total", 100_000L), ("heap_blks_scanned", 50_000L), ("heap_blks_vacuumed", 49_000L), ("index_vacuum_count", rounds), ("num_dead_tuples", 10L), ("max_dead_tuples", 1000L));
        MigrationProgress said = new OperationTrack(LearntPhases.None).Add(vacuum, s_start, s_session, 1000);
        Assert.InRange(said.Percent!.Value, 30, 70);
    }

    [Fact]
    public void A_table_of_a_long_vacuum_is_as_old_as_its_own_work()
    {
        OperationTrack track = new(LearntPhases.None, began: s_start);
        MigrationProgress At(double second, long blocks) => track.Add(
            Sample("vacuum", 36_000 + second, ("phase", "scanning heap"), ("heap_blks_total", 1000L), ("heap_blks_scanned", blocks), ("index_vacuum_count", 0L)) with { WaitEvent = "VacuumDelay" },
            s_start + TimeSpan.FromSeconds(second), s_session, 1000);
        At(2, 400);
        MigrationProgress said = At(3, 600);
        Assert.InRange(said.Remaining!.Value.TotalSeconds, 1, 4);
        Assert.InRange(said.Percent!.Value, 40, 80);
        Assert.Equal(TimeSpan.FromSeconds(36_003), said.Elapsed);
    }

    [Fact]
    public void A_rate_is_that_of_the_partition_in_work()
    {
        OperationTrack track = new(LearntPhases.None);
        MigrationProgress At(double second, long partition, long blocks) => track.Add(
            Sample("create_index", second, ("command", "CREATE INDEX"), ("phase", "building index: scanning table"), ("blocks_total", 10_000L), ("blocks_done", blocks), ("partitions_total", 4L), ("partitions_done", partition)),
            s_start + TimeSpan.FromSeconds(second), s_session, 1000);
        At(1, 0, 7000);
        At(2, 0, 9000);
        Assert.Null(At(3, 1, 1000).Rate);
        Assert.Equal(2000, At(4, 1, 3000).Rate!.Value, 1e-6);
        // One that ended, and one that began, between two looks.
        Assert.Null(At(5, 3, 100).Rate);
    }

    [Fact]
    public void A_rate_is_that_of_the_index_in_work()
    {
        OperationTrack track = new(LearntPhases.None);
        MigrationProgress At(double second, long tuples) => track.Add(
            Sample("create_index", second, ("command", "CREATE INDEX"), ("phase", "building index: loading tuples in tree"), ("tuples_total", 10_000L), ("tuples_done", tuples)),
            s_start + TimeSpan.FromSeconds(second), s_session, 1000);
        At(1, 7000);
        At(2, 9000);
        At(3, 500);
        Assert.Equal(1000, At(4, 1500).Rate!.Value, 1e-6);
    }

    [Fact]
    public void Half_of_an_interval_in_which_a_wait_begins_or_ends_is_work()
    {
        OperationTrack track = new(LearntPhases.None);
        MigrationProgress At(double second, long blocks, bool waits) => track.Add(
            Sample("create_index", second, ("command", "CREATE INDEX"), ("phase", "building index: scanning table"), ("blocks_total", 10_000L), ("blocks_done", blocks)) with { BlockedBy = waits ? [2] : [] },
            s_start + TimeSpan.FromSeconds(second), s_session, 1000);
        At(10, 1000, waits: false);
        Assert.Equal(200, At(20, 2000, waits: true).Rate!.Value, 1e-6);
        Assert.Equal(200, At(80, 2000, waits: true).Rate!.Value, 1e-6);
        Assert.Equal(200, At(90, 3000, waits: false).Rate!.Value, 1e-6);
        Assert.Equal(150, At(100, 4000, waits: false).Rate!.Value, 1e-6);
    }

    [Theory]
    [InlineData((1UL << 32) + 500, "501", (1UL << 32) + 501)]
    [InlineData((1UL << 32) + 500, "499", (1UL << 32) + 499)]
    [InlineData((1UL << 32) + 500, "4294967290", 4294967290UL)]
    [InlineData((2UL << 32) - 3, "5", (2UL << 32) + 5)]
    [InlineData(1000UL, "1001", 1001UL)]
    public void A_transaction_may_be_younger_than_those_that_have_ended(ulong next, string xid, ulong whole)
    {
        OperationTrack track = new(LearntPhases.None);
        track.Add(Sample("cluster", 1) with { Xid = xid }, s_start, s_session, next);
        Assert.Equal(whole, track.Transaction);
    }

    [Theory]
    [InlineData(900, 90.0)]
    [InlineData(1000, null)]
    [InlineData(1500, null)]
    public void What_passes_its_estimate_is_not_said_to_be_done(long done, double? percent)
    {
        ProgressSample copy = Sample("copy", 10, ("command", "COPY TO"), ("tuples_processed", done)) with { Facts = new() { ["tuples"] = 1000L } };
        ProgressSample backup = Sample("basebackup", 10, ("phase", "streaming database files"), ("backup_total", 1000L), ("backup_streamed", done));
        foreach (ProgressSample sample in new[] { copy, backup })
        {
            MigrationProgress said = new OperationTrack(LearntPhases.None).Add(sample, s_start, s_session, 1000);
            Assert.Equal((done, percent, percent), (said.Done!.Value, said.Percent, said.PhasePercent));
            Assert.Equal(percent is null, said.Remaining is null);
            Assert.Equal(percent is null ? null : 1000L, said.Total);
        }

        ProgressSample cluster = Sample("cluster", 10, ("command", "CLUSTER"), ("phase", "index scanning heap"), ("cluster_index_relid", 1L), ("heap_tuples_scanned", done)) with { Facts = new() { ["tuples"] = 1000L, ["pages"] = 100L, ["index_pages"] = 100L } };
        OperationTrack clusters = new(LearntPhases.None);
        MigrationProgress scanning = clusters.Add(cluster, s_start, s_session, 1000);
        Assert.Equal((done, percent), (scanning.Done!.Value, scanning.PhasePercent));
        Assert.Equal(percent is null, clusters.State.Within is null);
    }

    [Theory]
    [InlineData(900, 90.0)]
    [InlineData(1500, null)]
    public void What_goes_on_past_the_size_of_its_table_is_not_nearly_done(long done, double? percent)
    {
        ProgressSample rewrite = Sample("ddl", 10, ("new_files", 1L), ("new_bytes", done), ("old_bytes", 1000L)) with { Query = "alter table t alter c type bigint" };
        foreach (ProgressSample sample in new[] { Backfill(10, done), rewrite })
        {
            MigrationProgress said = new OperationTrack(LearntPhases.None).Add(sample, s_start, s_session, 1000);
            Assert.Equal((done, percent, percent is null ? null : 1000L), (said.Done!.Value, said.PhasePercent, said.Total));
            Assert.Equal((percent is null, percent is null), (said.Percent is null, said.Remaining is null));
        }
    }

    [Fact]
    public void What_counts_all_of_a_part_when_it_is_first_seen_has_done_all_of_it()
    {
        ProgressSample rewrite = Sample("ddl", 10, ("new_files", 1L), ("new_bytes", 1000L), ("old_bytes", 1000L)) with { Query = "alter table t alter c type bigint", Facts = new() { ["files"] = "1 1000" } };
        ProgressSample loading = Sample("create_index", 10, ("command", "CREATE INDEX CONCURRENTLY"), ("phase", "building index: loading tuples in tree"), ("tuples_total", 1000L), ("tuples_done", 1000L));
        foreach (ProgressSample sample in new[] { Backfill(10, 1000), rewrite, loading })
        {
            OperationTrack track = new(LearntPhases.None);
            MigrationProgress said = track.Add(sample, s_start, s_session, 1000);
            Assert.Equal((1000L, 1000L, 100.0), (said.Done!.Value, said.Total!.Value, said.PhasePercent!.Value));
            Assert.NotEqual(0, track.State.Within);
        }

        // A scan that begins in the middle of the table says so of its first block.
        ProgressSample scan = Sample("create_index", 10, ("command", "CREATE INDEX"), ("phase", "building index: scanning table"), ("blocks_total", 1000L), ("blocks_done", 1000L));
        Assert.Null(new OperationTrack(LearntPhases.None).Add(scan, s_start, s_session, 1000).Done);
    }

    [Fact]
    public void What_still_runs_is_not_said_to_be_done()
    {
        ProgressSample wait = Sample("create_index", 10, ("command", "CREATE INDEX CONCURRENTLY"), ("phase", "waiting for old snapshots"), ("lockers_total", 1L));
        MigrationProgress said = new OperationTrack(LearntPhases.None).Add(wait, s_start, s_session, 1000);
        Assert.InRange(said.Percent!.Value, 99, 99.9);
    }

    [Fact]
    public void What_is_computed_before_a_first_row_is_written_is_no_progress()
    {
        OperationTrack track = new(LearntPhases.None);
        MigrationProgress At(double second, long bytes) => track.Add(
            Rewrite(second, "refresh materialized view totals", bytes, 5_857_280), s_start + TimeSpan.FromSeconds(second), s_session, 1000);
        foreach (double second in (double[])[0.5, 30, 60])
        {
            MigrationProgress computing = At(second, 8192);
            Assert.Equal((null, null, null, null), (computing.Percent, computing.Remaining, computing.Done, computing.Rate));
        }

        At(61, 2_928_640);
        MigrationProgress writing = At(62, 4_392_960);
        Assert.InRange(writing.Percent!.Value, 70, 80);
        Assert.InRange(writing.Remaining!.Value.TotalSeconds, 0.5, 2);
    }

    [Fact]
    public void A_vacuum_without_indexes_is_done_when_it_has_read_the_table()
    {
        OperationTrack track = new(LearntPhases.None);
        MigrationProgress At(double second) => track.Add(
            Sample("vacuum", second, ("phase", "scanning heap"), ("heap_blks_total", 12_194L), ("heap_blks_scanned", (long)(647 * second)), ("index_vacuum_count", 0L))
                with { Facts = new() { ["indexes"] = 0L, ["dead_tuples"] = 200_000L, ["live_tuples"] = 300_000L } },
            s_start + TimeSpan.FromSeconds(second), s_session, 1000);
        MigrationProgress[] all = [.. Enumerable.Range(1, 121).Select(look => At(0.1 * look))];
        MigrationProgress said = all[^1];
        Assert.InRange(said.Percent!.Value, 55, 65);
        Assert.InRange(said.Remaining!.Value.TotalSeconds, 5.5, 8);
    }

    [Theory]
    // Seen from its beginning: as it was read on PostgreSQL 18 with vacuum_cost_delay = 20ms.
    [InlineData(0.01, 0, 446)]
    [InlineData(0.6, 12, 446)]
    // What is all visible, or in memory, goes fast at first.
    [InlineData(2, 3700, 43)]
    [InlineData(0.5, 190, 43)]
    public void A_vacuum_that_is_slowed_down_goes_on_at_the_rate_that_is_seen(double first, long before, double rate)
    {
        OperationTrack track = new(LearntPhases.None);
        MigrationProgress At(double second) => track.Add(
            Sample("vacuum", second, ("phase", "scanning heap"), ("heap_blks_total", 30_556L), ("heap_blks_scanned", before + (long)(rate * (second - first))), ("index_vacuum_count", 0L))
                with { WaitEvent = "VacuumDelay", Facts = new() { ["indexes"] = 1L, ["index_sizes"] = "1510", ["dead_tuples"] = 55_000L, ["live_tuples"] = 495_000L } },
            s_start + TimeSpan.FromSeconds(second), s_session, 1000);
        MigrationProgress[] said = [.. Enumerable.Range(0, 12).Select(look => At(first + (0.5 * look)))];
        Assert.All(said, one => Assert.InRange(one.Percent!.Value, 0, (100.0 * one.Done!.Value / 30_556) + 0.01));
        // Its other phases come on top.
        Assert.All(said[5..], one => Assert.InRange(one.Remaining!.Value.TotalSeconds, 0.6 * (30_556 - one.Done!.Value) / rate, 3 * (30_556 - one.Done!.Value) / rate));
    }

    [Fact]
    public void A_table_that_becomes_smaller_is_complete_when_its_new_file_stands_still()
    {
        OperationTrack track = new(LearntPhases.None);
        MigrationProgress At(double second) => track.Add(
            Rewrite(second, "alter table t alter column id type bigint", (long)Math.Min(253_911_040, 50_000_000 * second), 300_965_888, indexes: 4, begun: 4, pages: 8000, pagesBegun: 8000, current: 2000),
            s_start + TimeSpan.FromSeconds(second), s_session, 1000);
        MigrationProgress[] said = [.. Enumerable.Range(1, 56).Select(look => At(0.5 * look))];
        Assert.All(said[..10], one => Assert.Equal("rewriting table", one.Phase));
        Assert.All(said[18..], one => Assert.Equal(("rebuilding indexes", 2), (one.Phase, one.PhaseNumber)));
        Assert.All(said[18..], one => Assert.InRange(one.Remaining!.Value.TotalSeconds, 1, 60));
        Assert.InRange(said[^1].Percent!.Value, 50, 99.9);
        Assert.All(said, one => Assert.NotEqual(ProgressConfidence.Measured, one.Confidence));
    }

    [Fact]
    public void A_last_index_that_takes_longer_than_its_size_tells_is_not_about_to_be_done()
    {
        OperationTrack track = new(LearntPhases.None);
        MigrationProgress At(double second)
        {
            long begun = Math.Clamp((long)((second - 9) / 1.2) + 1, second < 9 ? 0 : 1, 5);
            return track.Add(
                Rewrite(second, "alter table t add column at float8 default random()", (long)Math.Min(300_965_888, 33_500_000 * second), 300_965_888, indexes: 5, begun, pages: 10_000, pagesBegun: begun == 5 ? 10_000 : 2475 * begun, current: begun == 5 ? 100 : 2475),
                s_start + TimeSpan.FromSeconds(second), s_session, 1000);
        }

        MigrationProgress[] last = [.. Enumerable.Range(1, 68).Select(look => At(0.5 * look)).Where(one => one.Done == 4)];
        Assert.All(last, one => Assert.InRange(one.Remaining!.Value.TotalSeconds, 0.15, 60));
        Assert.All(last[8..], one => Assert.InRange(one.Remaining!.Value.TotalSeconds, 0.8, 60));
        Assert.All(last, one => Assert.NotEqual(ProgressConfidence.Measured, one.Confidence));
    }

    private static ProgressSample Rewrite(double elapsed, string query, long bytes, long old, long indexes = 0, long begun = 0, long pages = 0, long pagesBegun = 0, long current = 0) =>
        Sample(
            "ddl", elapsed, ("relid", 1L), ("new_files", 1L), ("new_bytes", bytes), ("old_bytes", old),
            ("indexes", indexes), ("indexes_begun", begun), ("index_pages", pages), ("index_pages_begun", pagesBegun), ("index_pages_current", current))
            with { Query = query, Facts = new() { ["table"] = "public.t", ["files"] = $"base/1/10 {bytes}" } };

    private static ProgressSample Backfill(double elapsed, long seen) =>
        Sample("backfill", elapsed, ("state", "running"), ("rows_seen", seen), ("rows_in_table", 1000L), ("sweep", 0L), ("workers", 1L), ("runs", 1L));

    private static ProgressSample Sample(string view, double elapsed, params (string Name, object Value)[] counters) => new()
    {
        View = view,
        Pid = 1,
        User = "postgres",
        Counters = counters.ToDictionary(counter => counter.Name, counter => counter.Value, StringComparer.Ordinal),
        Facts = new(StringComparer.Ordinal),
        Elapsed = TimeSpan.FromSeconds(elapsed),
    };
}
