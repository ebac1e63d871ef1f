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
