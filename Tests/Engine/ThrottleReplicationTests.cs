using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Npgsql.Replication;
using NpgsqlTypes;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>A backfill waits for standbys, for slots and for the archiver, and says why.</summary>
public sealed class ThrottleReplicationTests
{
    private const string Table = "create table t (id int primary key, v int); insert into t select i from generate_series(1, 3000) i;";

    // A megabyte of WAL that is none of the backfill's.
    private const string Wal = "create table filler as select repeat('x', 100) as x from generate_series(1, 20000)";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static ThrottleLimits None { get; } = new();

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_standby_that_falls_behind_pauses_it_until_it_has_caught_up(int major)
    {
        await using PostgresServer primary = await PostgresServer.StartAsync(major, new() { Settings = new Dictionary<string, string> { ["archive_mode"] = "on", ["archive_command"] = "false" } }, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(primary, Table);
        await using PostgresServer standby = await primary.StartStandbyAsync(primary.Options with { Settings = new Dictionary<string, string>() }, Token);
        await using NpgsqlConnection replay = new(standby.ConnectionString("postgres"));
        await replay.OpenAsync(Token);

        // By amount.
        await replay.ExecuteAsync("select pg_wal_replay_pause()", Token);
        await bench.Database.ExecuteAsync(Wal, Token);
        await UntilBehindAsync(bench, 1 << 20);
        ThrottleLimits bytes = None with { ReplicationLagBytes = 256 << 10 };
        Task<BackfillResult> run = bench.RunAsync(Request(bytes));
        string reason = await bench.ReasonAsync(run);
        Assert.StartsWith("paused: standby standby", reason, StringComparison.Ordinal);
        Assert.Contains("(limit 256 kB)", reason, StringComparison.Ordinal);
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from t where v is not null"));
        await using ProgressReader reader = new(bench.Session, new() { Table = "t" });
        MigrationProgress progress = Assert.Single(await reader.ReadAsync(bench.Sink, Token));
        Assert.Equal("throttle: " + reason, progress.WaitingFor);
        await replay.ExecuteAsync("select pg_wal_replay_resume()", Token);
        Assert.Equal((BackfillOutcome.Completed, 3000), ((await run).Outcome, (await run).Rows));
        Assert.Null(await bench.ScalarAsync<string>("select waiting_for from migration_safety.backfill"));
        Assert.Contains(bench.Sink.VerboseMessages, message => message.Contains(": at 5 % speed and rising, after: standby standby", StringComparison.Ordinal));

        // By time: the server's own measure stands still while nothing is replayed.
        await replay.ExecuteAsync("select pg_wal_replay_pause()", Token);
        await bench.Database.ExecuteAsync("update t set v = null", Token);
        run = bench.RunAsync(Request(None with { ReplicationLagTime = TimeSpan.FromSeconds(1), RowsPerSecond = 200 }));
        Assert.Matches("standby standby.* is .* s behind \\(limit 1.0 s\\)", await bench.ReasonAsync(run, "standby"));

        // A standby that is late on purpose is nobody's concern.
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'paused'", Token);
        Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);
        BackfillResult rest = await bench.RunAsync(Request(bytes with { ReplicationLagTime = TimeSpan.FromSeconds(1), ExcludedStandbys = [PostgresServer.StandbyName] }));
        Assert.Equal((BackfillOutcome.Completed, 0, true), (rest.Outcome, rest.Remaining, rest.Resumed));

        // Each file that is complete waits, and none goes.
        await bench.Database.ExecuteAsync("update t set v = null; select pg_switch_wal(); create table more as select 1; select pg_switch_wal()", Token);
        run = bench.RunAsync(Request(None with { ArchiveLag = 1 << 20 }));
        reason = await bench.ReasonAsync(run);
        Assert.Matches("^(paused|at 50 % speed): .* MB of WAL wait to be archived \\(limit 1 MB\\)", reason);
        await Wait.UntilAsync(async () => (await bench.ScalarAsync<string>("select waiting_for from migration_safety.backfill"))!.Contains("fails", StringComparison.Ordinal), "the failure to be named", cancellationToken: Token);
        await bench.Database.ExecuteAsync("alter system set archive_command = 'true'", Token);
        await bench.Database.ExecuteAsync("select pg_reload_conf()", Token);
        Assert.Equal(BackfillOutcome.Completed, (await run).Outcome);
    }

    [Theory, EachMajor]
    public async Task A_receiver_that_replays_nothing_counts_as_far_as_it_has_written(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, Table);
        // As pg_receivewal: nothing is replayed, and flushed is what lies before the file that it fills.
        await using PhysicalReplicationConnection receiver = new(server.ConnectionString("postgres")) { WalReceiverStatusInterval = TimeSpan.FromMilliseconds(200) };
        await receiver.Open(Token);
        NpgsqlLogSequenceNumber start = (await receiver.IdentifySystem(Token)).XLogPos;
        receiver.LastFlushedLsn = start;
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task receiving = ReceiveAsync(receiver, start, stop.Token);
        await bench.Database.ExecuteAsync(Wal, Token);
        await Wait.UntilAsync(async () => receiving.IsCompleted || await bench.ScalarAsync<bool>("select coalesce(bool_or(write_lsn > flush_lsn and replay_lsn is null), false) from pg_stat_replication"), "the receiver", cancellationToken: Token);
        Assert.False(receiving.IsCompleted);

        Task<BackfillResult> run = bench.RunAsync(Request(None with { ReplicationLagTime = TimeSpan.FromSeconds(10), ReplicationLagBytes = 256 << 10 }));
        Assert.Equal((BackfillOutcome.Completed, 3000), ((await run.WaitAsync(TimeSpan.FromSeconds(60), Token)).Outcome, (await run).Rows));
        await using NpgsqlConnection watch = await bench.Database.OpenAsync(Token);
        StandbySample seen = Assert.Single((await new ThrottleLook(None with { ReplicationLagBytes = 1 }, "x", []).ReadAsync(watch, [], Token)).Standbys);
        Assert.InRange(seen.Replayed, (long)(ulong)start + 1, long.MaxValue);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => receiving);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_slot_that_nobody_reads_pauses_it(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, Table);
        await bench.Database.ExecuteAsync("select pg_create_physical_replication_slot('lonely', true)", Token);
        await bench.Database.ExecuteAsync(Wal, Token);

        Task<BackfillResult> run = bench.RunAsync(Request(None with { SlotLag = 256 << 10 }));
        Assert.Matches("^paused: replication slot lonely keeps .* of WAL \\(limit 256 kB\\) and nobody reads it$", await bench.ReasonAsync(run));
        await bench.Database.ExecuteAsync("select pg_drop_replication_slot('lonely')", Token);
        Assert.Equal(BackfillOutcome.Completed, (await run).Outcome);

        // About to lose what it keeps: whatever the limit.
        await bench.Database.ExecuteAsync("alter system set max_slot_wal_keep_size = '1MB'; ", Token);
        await bench.Database.ExecuteAsync("select pg_reload_conf(); update t set v = null; select pg_create_physical_replication_slot('short', true)", Token);
        await Wait.UntilAsync(async () => await bench.ScalarAsync<string>("show max_slot_wal_keep_size") == "1MB", "the setting", cancellationToken: Token);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        ThrottleLook look = new(None with { SlotLag = long.MaxValue }, "x", []);
        SlotSample slot = Assert.Single((await look.ReadAsync(connection, [], Token)).Slots);
        Assert.Equal(("short", false, 1L << 20), (slot.Name, slot.Active, slot.Bound));
        Assert.NotNull(slot.Safe);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Commits_that_wait_for_a_standby_that_is_gone_pause_it(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, Table);
        Task<BackfillResult> run = bench.RunAsync(Request(None with { Slowdown = 1.15, RowsPerSecond = 50 }));
        await bench.UntilBatchesAsync(1, run);

        await bench.Database.ExecuteAsync("alter system set synchronous_standby_names = 'gone'", Token);
        await bench.Database.ExecuteAsync("select pg_reload_conf()", Token);
        await Wait.UntilAsync(async () => await bench.ScalarAsync<string>("show synchronous_standby_names") == "gone", "the setting", cancellationToken: Token);
        // Commits wait from when the checkpointer has taken the setting over, which a checkpoint under way delays.
        await bench.Database.ExecuteAsync("checkpoint", Token);
        await using NpgsqlConnection application = await bench.Database.OpenAsync(Token);
        Task commits = application.ExecuteAsync("do $$ begin create table beside (); commit; create table another (); commit; end $$", Token);
        try
        {
            Assert.Matches(@"^paused: \d+ commits? waits? for a synchronous standby that does not answer \(synchronous_standby_names\)$", await bench.ReasonAsync(run, "synchronous"));
            Assert.False(commits.IsCompleted);

            // One statement that commits many times does not hang as long as its commits end.
            await using NpgsqlConnection watch = await bench.Database.OpenAsync(Token);
            ThrottleLook look = new(None with { Slowdown = 1.15 }, "x", []);
            string first = Assert.Single((await look.ReadAsync(watch, [], Token)).StandbyWaits);
            await watch.ExecuteAsync($"select pg_cancel_backend({application.ProcessID})", Token);
            await Wait.UntilAsync(async () => (await look.ReadAsync(watch, [], Token)).StandbyWaits is [var next] && next != first, "its next commit", cancellationToken: Token);
        }
        finally
        {
            // Or the database could never be dropped.
            await bench.Database.ExecuteAsync("alter system reset synchronous_standby_names", CancellationToken.None);
            await bench.Database.ExecuteAsync("select pg_reload_conf()", CancellationToken.None);
        }

        await commits;
        await Wait.UntilAsync(
            async () => await bench.ScalarAsync<string>("select coalesce(waiting_for, '') from migration_safety.backfill") is { } words && !words.StartsWith("paused", StringComparison.Ordinal), "it to go on", cancellationToken: Token);
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'paused'", Token);
        Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);
    }

    private static BackfillRequest Request(ThrottleLimits limits) => BackfillBench.Request("t", "v", "1") with { Throttle = limits };

    private static async Task ReceiveAsync(PhysicalReplicationConnection receiver, NpgsqlLogSequenceNumber start, CancellationToken cancellationToken)
    {
        await foreach (XLogDataMessage message in receiver.StartReplication(start, cancellationToken))
        {
            Assert.True(message.WalEnd >= start);
        }
    }

    private static Task UntilBehindAsync(BackfillBench bench, long bytes) => Wait.UntilAsync(
        async () => await bench.ScalarAsync<long>("select coalesce(max(pg_current_wal_lsn() - replay_lsn), 0)::int8 from pg_stat_replication") > bytes,
        "the standby to fall behind",
        cancellationToken: Token);
}
