using MigrationSafety.Engine.Progress;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;
using static MigrationSafety.Tests.Engine.Support.ProgressLooks;

namespace MigrationSafety.Tests.Engine;

/// <summary>Each kind of operation, held at a known moment by a lock, a throttle or its client, and looked at there.</summary>
public sealed class ProgressKindTests(Servers servers)
{
    private const int Rows = 20_000;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor(OnEach = true)]
    public async Task A_table_that_is_rewritten_is_as_far_as_its_new_file(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using ProgressReader reader = new(bench.Session, new() { Table = "things" });
        Task<int> alter = bench.Database.ExecuteAsync("alter table things alter column id type bigint using gate(id)", Token);
        MigrationProgress half = await UntilAsync(reader, bench, p => p.BlockedBy.Length > 0 && p.Done > 0);
        Assert.Equal(("ALTER TABLE", "public.things", "rewriting table", "bytes"), (half.Operation, half.Target, half.Phase, half.Unit));
        Assert.Equal((1, 2), (half.PhaseNumber, half.PhaseCount));
        Assert.Equal(await bench.Database.ScalarAsync<long>("select relpages * 8192::int8 from pg_class where relname = 'things'", Token), half.Total!.Value, half.Total.Value * 0.02);
        Assert.Equal(50, half.PhasePercent!.Value, 10.0);
        Assert.InRange(half.Percent!.Value, 30, 60);
        Assert.Equal($"lock of pid {gate.Pid}", half.WaitingFor);
        Assert.Null(half.Remaining);
        await gate.CommitAsync(Token);
        await alter;
        Assert.Empty(await reader.ReadAsync(bench.Sink, Token));
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task A_rewrite_counts_the_indexes_it_has_rebuilt(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await bench.Database.ExecuteAsync("create index things_gate on things (gate_always(id))", Token);
        await bench.Database.ExecuteAsync("vacuum analyze things", Token);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using ProgressReader reader = new(bench.Session, new() { Table = "things" });
        Task<int> alter = bench.Database.ExecuteAsync("alter table things add column at float8 default random()", Token);
        MigrationProgress index = await UntilAsync(reader, bench, p => p.BlockedBy.Length > 0 && p.Phase == "rebuilding indexes");
        // The primary key is done, the other one stands at the gate.
        Assert.Equal((1L, 2L, "indexes", 2), (index.Done, index.Total, index.Unit, index.PhaseNumber));
        Assert.InRange(index.Percent!.Value, 80, 99.99);
        await gate.CommitAsync(Token);
        await alter;
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task An_alter_that_scans_or_waits_says_no_more_than_can_be_seen(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await using ProgressReader reader = new(bench.Session, new() { Operations = ["alter*"] });
        LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using (gate)
        {
            Task<int> scan = bench.Database.ExecuteAsync("alter table things add constraint positive check (gate(id) > 0)", Token);
            MigrationProgress scanning = await UntilAsync(reader, bench, p => p.BlockedBy.Length > 0);
            Assert.Equal(("public.things", ProgressConfidence.Unknown), (scanning.Target, scanning.Confidence));
            Assert.Null(scanning.Percent);
            Assert.Null(scanning.Done);
            await gate.CommitAsync(Token);
            await scan;
        }

        await using LockHolder reading = await LockHolder.HoldAsync(bench.Database, "lock table things in access share mode");
        Task<int> queued = bench.Database.ExecuteAsync("alter table things drop constraint positive", Token);
        MigrationProgress waiting = await UntilAsync(reader, bench, p => p.Phase == "waiting for a lock");
        Assert.Equal([reading.Pid], waiting.BlockedBy);
        await reading.CommitAsync(Token);
        await queued;
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task A_role_that_may_not_see_files_is_told_which_grant_it_lacks(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        await bench.Database.ExecuteAsync($"grant pg_read_all_stats to {role.Name}", Token);
        await using ProgressReader reader = new(await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, role.Name)), new() { Table = "things" });
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        Task<int> alter = bench.Database.ExecuteAsync("alter table things alter column id type bigint using gate(id)", Token);
        MigrationProgress blind = await UntilAsync(reader, bench, p => p.Phase == "rewriting table" && p.BlockedBy.Length > 0);
        Assert.Null(blind.Done);
        Assert.Null(blind.Percent);
        Assert.Contains(bench.Sink.Warnings, warning => warning.Contains("GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean)", StringComparison.Ordinal));
        await gate.CommitAsync(Token);
        await alter;
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task New_tables_and_materialized_views_grow(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await bench.Database.ExecuteAsync("create materialized view seen as select gate(id) as id, v from things", Token);
        await bench.Database.ExecuteAsync("vacuum analyze seen", Token);
        await using ProgressReader reader = new(bench.Session, new() { Operations = ["create table*", "refresh*", "select into"] });
        LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using (gate)
        {
            Task<int> copy = bench.Database.ExecuteAsync("create table copied as select gate(id) as id, v from things order by ctid", Token);
            MigrationProgress growing = await UntilAsync(reader, bench, p => p.BlockedBy.Length > 0);
            Assert.Equal(("CREATE TABLE AS", "copied", "writing a new table", "bytes"), (growing.Operation, growing.Target, growing.Phase, growing.Unit));
            Assert.True(growing.Done > 0, growing.ToString());
            Assert.Null(growing.Total);
            Task<int> into = bench.Database.ExecuteAsync("select gate(id) as id, v into chosen from things order by ctid", Token);
            MigrationProgress chosen = await UntilAsync(reader, bench, p => p.Operation == "SELECT INTO" && p.BlockedBy.Length > 0);
            Assert.Equal(("writing a new table", "bytes", true), (chosen.Phase, chosen.Unit, chosen.Done > 0));
            await gate.CommitAsync(Token);
            await copy;
            await into;
        }

        await using LockHolder again = await LockHolder.HoldAsync(bench.Database, Close);
        Task<int> refresh = bench.Database.ExecuteAsync("refresh materialized view seen", Token);
        MigrationProgress refreshing = await UntilAsync(reader, bench, p => p.BlockedBy.Length > 0);
        Assert.Equal(("REFRESH MATERIALIZED VIEW", "public.seen"), (refreshing.Operation, refreshing.Target));
        Assert.Equal(50, refreshing.PhasePercent!.Value, 10.0);
        await again.CommitAsync(Token);
        await refresh;
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task A_vacuum_counts_blocks_and_names_its_throttle(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        // An autovacuum would take the dead rows away, and the snapshot of an ANALYZE would keep them: no index would be vacuumed.
        await bench.Database.ExecuteAsync("alter table things set (autovacuum_enabled = off)", Token);
        await bench.Database.ExecuteAsync("create index on things (md5(id::text)); delete from things where id % 2 = 0", Token);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await connection.ExecuteAsync("set vacuum_cost_delay = '5ms'; set vacuum_cost_limit = 25", Token);
        await using ProgressReader reader = new(bench.Session, new() { Table = "things", Operations = ["VACUUM"] });
        List<MigrationProgress> seen = await WatchAsync(reader, bench, () => connection.ExecuteAsync("vacuum things", Token));
        MigrationProgress scanning = Seen(seen, p => p is { Phase: "scanning heap", Done: > 0 });
        Assert.Equal((2, 7, "blocks"), (scanning.PhaseNumber, scanning.PhaseCount, scanning.Unit));
        Assert.Equal(await bench.Database.ScalarAsync<long>("select pg_relation_size('things') / 8192", Token), scanning.Total);
        Assert.Contains(seen, p => p.WaitingFor == "throttle: vacuum_cost_delay");
        // Before 17 no counter tells how far it is in the indexes: the time does.
        MigrationProgress[] indexes = [.. seen.Where(p => p.Phase == "vacuuming indexes")];
        Assert.True(indexes.Length > 0, $"{seen.Count} looks: {string.Join(", ", seen.GroupBy(p => p.Phase).Select(phase => $"{phase.Key} {phase.Count()}"))}");
        Assert.True(indexes[^1].Percent > indexes[0].Percent, $"{indexes.Length} looks, {indexes[0].Percent} to {indexes[^1].Percent} %");
        Assert.Contains(seen, p => p.Rate > 0 && p.Remaining > TimeSpan.Zero);
        AssertMonotonic(seen);
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task An_analyze_counts_the_blocks_of_its_sample(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await connection.ExecuteAsync("set vacuum_cost_delay = '5ms'; set vacuum_cost_limit = 25", Token);
        await using ProgressReader reader = new(bench.Session, new() { Table = "things" });
        List<MigrationProgress> seen = await WatchAsync(reader, bench, () => connection.ExecuteAsync("analyze things", Token));
        MigrationProgress sampling = Seen(seen, p => p is { Operation: "ANALYZE", Phase: "acquiring sample rows", Done: > 0 });
        // Its 30,000 rows are on all of them.
        Assert.Equal(await bench.Database.ScalarAsync<long>("select pg_relation_size('things') / 8192", Token), sampling.Total);
        AssertMonotonic(seen);
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task Cluster_and_vacuum_full_count_indexes(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await bench.Database.ExecuteAsync("create index things_gate on things (gate_always(id))", Token);
        await bench.Database.ExecuteAsync("vacuum analyze things", Token);
        await using ProgressReader reader = new(bench.Session, new() { Table = "public.things" });
        foreach ((string sql, string operation) in ((string, string)[])[("vacuum full things", "VACUUM FULL"), ("cluster things using things_pkey", "CLUSTER")])
        {
            await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
            Task<int> work = bench.Database.ExecuteAsync(sql, Token);
            MigrationProgress index = await UntilAsync(reader, bench, p => p.BlockedBy.Length > 0 && p.Phase == "rebuilding index");
            Assert.Equal((operation, "public.things", 7, 8), (index.Operation, index.Target, index.PhaseNumber, index.PhaseCount));
            Assert.Equal((1L, 2L, "indexes"), (index.Done, index.Total, index.Unit));
            Assert.InRange(index.Percent!.Value, 50, 99.999);
            await gate.CommitAsync(Token);
            await work;
        }
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task A_copy_is_counted_by_bytes_of_its_file_or_rows_of_its_table(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        Assert.SkipWhen(bench.Database.Server.IsExternal, "Its files are not the tests' own.");
        await using ProgressReader reader = new(bench.Session, new() { Operations = ["COPY*"] });
        string file = $"'{bench.Database.Server.DataDirectory.Replace('\\', '/')}/{bench.Database.Name}.txt'";
        await bench.Database.ExecuteAsync(
            $"""
            copy things to {file};
            create table copied (id int, v text);
            create function wait_at_gate() returns trigger language plpgsql as 'begin perform gate(new.id); return new; end';
            create trigger gate before insert on copied for each row execute function wait_at_gate()
            """,
            Token);
        LockHolder gate = await LockHolder.HoldAsync(bench.Database, Close);
        await using (gate)
        {
            Task<int> from = bench.Database.ExecuteAsync($"copy copied from {file}", Token);
            await UntilAsync(reader, bench, p => p.BlockedBy.Length > 0);
            // The first look that sees it stand may have read its counters a moment before, two rows from the gate; those of the next are final.
            MigrationProgress half = await UntilAsync(reader, bench, p => p.BlockedBy.Length > 0);
            Assert.Equal(("COPY FROM", "public.copied", "bytes"), (half.Operation, half.Target, half.Unit));
            Assert.Equal(50, half.Percent!.Value, 2.0);
            Assert.Equal(9999L, half.Counters["tuples_processed"]);
            await gate.CommitAsync(Token);
            await from;
        }

        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await using (NpgsqlBinaryImporter import = await connection.BeginBinaryImportAsync("copy copied (id, v) from stdin (format binary)", Token))
        {
            // More than the driver keeps back.
            for (int i = 1; i <= 300; i++)
            {
                await import.StartRowAsync(Token);
                await import.WriteAsync(-i, Token);
                await import.WriteAsync(new string('y', 1000), Token);
            }

            MigrationProgress client = await UntilAsync(reader, bench, p => p is { Done: > 0, WaitingFor: "the client, which sends the rows" });
            Assert.Equal("tuples", client.Unit);
            Assert.InRange(client.Done!.Value, 1, 300);
            Assert.Null(client.Total);
            Assert.Null(client.Percent);
        }

        using (TextReader export = await connection.BeginTextExportAsync("copy things to stdout", Token))
        {
            MigrationProgress stalled = await UntilAsync(reader, bench, p => p is { Operation: "COPY TO", WaitingFor: "the client, which takes the rows" });
            Assert.Equal(((long)Rows, "tuples"), (stalled.Total, stalled.Unit));
            Assert.InRange(stalled.Done!.Value, 1, Rows - 1);
            await export.ReadToEndAsync(Token);
        }
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task A_base_backup_counts_bytes(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        Assert.SkipWhen(bench.Database.Server.IsExternal, "It may ask for a password.");
        await using ProgressReader reader = new(bench.Session, new() { Operations = ["BASE BACKUP"] });
        using BaseBackup backup = await BaseBackup.StartAsync(bench.Database.Server, Token);
        MigrationProgress streaming = await UntilAsync(reader, bench, p => p is { Phase: "streaming database files", Done: > 0 } && p.Pid == backup.Pid);
        Assert.Equal(("bytes", 4, 6), (streaming.Unit, streaming.PhaseNumber, streaming.PhaseCount));
        Assert.True(streaming.Total >= streaming.Done, streaming.ToString());
        // All databases of the server.
        Assert.True(streaming.Total > await bench.Database.ScalarAsync<long>("select pg_database_size(current_database())", Token), streaming.ToString());
        Assert.Equal(100.0 * streaming.Done!.Value / streaming.Total!.Value, streaming.PhasePercent!.Value, 1e-6);
        Assert.Null(streaming.Database);

        // Its client goes away, as it does when it has all: no server tells which it was.
        List<ProgressResult> ended = [];
        RecordingSink sink = new();
        Task waiting = ProgressWait.RunAsync(bench.Session, new() { Pid = backup.Pid }, TimeSpan.FromMilliseconds(100), ended.Add, sink, null, Token);
        await Wait.UntilAsync(() => waiting.IsCompleted || sink.ProgressRecords.Count > 0, "progress", cancellationToken: Token);
        backup.Dispose();
        await waiting;
        Assert.Equal(ProgressOutcome.Ended, Assert.Single(ended).Outcome);
        Assert.Contains("Last seen: streaming database files, ", ended[0].Detail, StringComparison.Ordinal);
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task Logical_replication_copies_then_streams(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, new() { Settings = new Dictionary<string, string> { ["wal_level"] = "logical" } }, Token);
        await using IndexBench publisher = await IndexBench.CreateAsync(server, Things);
        await using IndexBench subscriber = await IndexBench.CreateAsync(server, Things);
        await publisher.Database.ExecuteAsync("create publication pub for table things", Token);
        await publisher.Database.ExecuteAsync("select pg_create_logical_replication_slot('sub', 'pgoutput')", Token);
        await subscriber.Database.ExecuteAsync(
            """
            truncate things;
            create function wait_at_gate() returns trigger language plpgsql as 'begin perform public.gate(new.id); return new; end';
            create trigger gate before insert on things for each row execute function wait_at_gate();
            alter table things enable always trigger gate
            """,
            Token);
        await using ProgressReader here = new(subscriber.Session, new());
        await using ProgressReader there = new(publisher.Session, new() { Operations = ["LOGICAL REPLICATION"] });
        LockHolder gate = await LockHolder.HoldAsync(subscriber.Database, Close);
        await using (gate)
        {
            await subscriber.Database.ExecuteAsync(
                $"create subscription sub connection 'host={server.Host} port={server.Port} user=postgres dbname={publisher.Database.Name}' publication pub with (create_slot = false, slot_name = 'sub')", Token);
            MigrationProgress copy = await UntilAsync(here, subscriber, p => p.Operation == "LOGICAL REPLICATION COPY" && p.BlockedBy.Length > 0);
            Assert.Equal(("public.things", 9999L, "tuples"), (copy.Target, copy.Done, copy.Unit));
            MigrationProgress initial = await UntilAsync(here, subscriber, p => p.Operation == "LOGICAL REPLICATION");
            Assert.Equal(("sub", "initial copy", 0L, 1L, "tables"), (initial.Target, initial.Phase, initial.Done, initial.Total, initial.Unit));
            Assert.True(ProgressReader.Ends(initial));
            await gate.CommitAsync(Token);
        }

        MigrationProgress stream = await UntilAsync(here, subscriber, p => p is { Operation: "LOGICAL REPLICATION", Phase: "streaming" });
        Assert.False(ProgressReader.Ends(stream));
        await publisher.Database.ExecuteAsync("update things set v = 'z' where id <= 100", Token);
        MigrationProgress sender = await UntilAsync(there, publisher, p => p is { Phase: "streaming", Done: > 0 });
        Assert.Equal(("sub", "bytes"), (sender.Target, sender.Unit));
        Assert.Equal(sender.Done, sender.Total);
        await subscriber.Database.ExecuteAsync("alter subscription sub disable; alter subscription sub set (slot_name = none); drop subscription sub", Token);
    }

    [Theory, EachMajor(OnEach = true)]
    public async Task A_view_of_a_newer_server_is_read_by_its_names(int major)
    {
        await using IndexBench bench = await GatedAsync(servers, major);
        await using LockHolder worker = await LockHolder.HoldAsync(bench.Database, "select 1");
        // What a newer server brings stands in for itself: the view is in this database alone.
        await bench.Database.ExecuteAsync(
            $"""
            set allow_system_table_mods = on;
            create view pg_catalog.pg_stat_progress_move_rows as
                select pid, datid, datname, 'things'::regclass::oid as relid, 'moving'::text as phase, 200::int8 as pieces_total, 50::int8 as pieces_moved
                from pg_stat_activity where pid = {worker.Pid}
            """,
            Token);
        await using ProgressReader reader = new(bench.Session, new() { Table = "things" });
        MigrationProgress unknown = await UntilAsync(reader, bench, p => p.Pid == worker.Pid);
        Assert.Equal(("MOVE ROWS", "public.things", "moving", "pieces"), (unknown.Operation, unknown.Target, unknown.Phase, unknown.Unit));
        Assert.Equal((50L, 200L, 25.0), (unknown.Done, unknown.Total, unknown.PhasePercent));
        Assert.Null(unknown.Percent);
        Assert.Equal(50L, unknown.Counters["pieces_moved"]);
    }

    private static MigrationProgress Seen(List<MigrationProgress> all, Predicate<MigrationProgress> condition)
    {
        MigrationProgress? found = all.Find(condition);
        Assert.True(found is not null, $"Never seen among {all.Count}: {string.Join("; ", all.Take(5))}");
        return found;
    }

    private static void AssertMonotonic(List<MigrationProgress> seen)
    {
        // A table's TOAST table comes after it, as an operation of its own.
        object table = seen[0].Counters["relid"];
        double[] percents = [.. seen.Where(p => p.Percent is not null && p.Counters["relid"].Equals(table)).Select(p => p.Percent!.Value)];
        Assert.NotEmpty(percents);
        Assert.Equal(percents.Order(), percents);
        Assert.All(percents, percent => Assert.InRange(percent, 0, 100));
    }

    private static async Task<List<MigrationProgress>> WatchAsync(ProgressReader reader, IndexBench bench, Func<Task> begin)
    {
        // The first look takes its time.
        List<MigrationProgress> seen = [.. await reader.ReadAsync(bench.Sink, Token)];
        Task work = begin();
        while (!work.IsCompleted)
        {
            seen.AddRange(await reader.ReadAsync(bench.Sink, Token));
        }

        await work;
        return seen;
    }
}
