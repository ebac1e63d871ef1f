using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;
using static MigrationSafety.Tests.Engine.Support.ProgressLooks;

namespace MigrationSafety.Tests.Engine;

/// <summary>What is told of statements by their text and their locks: whose they are, that they wait, and which files are theirs.</summary>
public sealed class ProgressDdlTests(Servers servers)
{
    // gate() stands still at a row while somebody holds an advisory lock.
    private const string Things = """
        create table things (id int, v text);
        insert into things select i, repeat('x', 1000) from generate_series(1, 20000) i;
        create function gate(i int, place int, key int) returns int immutable language plpgsql as
            'begin if i = place then perform pg_catalog.pg_advisory_xact_lock_shared(key); end if; return i; end'
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task An_alter_is_of_the_table_that_it_names_first(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            """
            create table invoice (id int primary key);
            create table t (id int primary key);
            create table invoice_item (invoice int);
            create table "Odd (item)" (t int);
            create schema sales; create table sales.sales (id int primary key); create table sales.items (s int)
            """);
        foreach ((string sql, string parent, string target) in ((string, string, string)[])
        [
            ("ALTER TABLE INVOICE_ITEM ADD FOREIGN KEY (invoice) REFERENCES invoice (id)", "invoice", "public.invoice_item"),
            ("alter table \"Odd (item)\" add foreign key (t) references t (id)", "t", "public.\"Odd (item)\""),
            ("alter table sales.items add foreign key (s) references sales.sales (id)", "sales.sales", "sales.items"),
        ])
        {
            await using LockHolder writer = await LockHolder.HoldAsync(bench.Database, $"lock table {parent} in row exclusive mode");
            await using ProgressReader reader = new(bench.Session, new());
            Task<int> alter = bench.Database.ExecuteAsync(sql, Token);
            MigrationProgress queued = await UntilAsync(reader, bench, p => p.BlockedBy.Contains(writer.Pid));
            Assert.Equal(("ALTER TABLE", target, "waiting for a lock"), (queued.Operation, queued.Target, queued.Phase));
            // Who asks about the other table, for which it waits, is shown it too.
            await using ProgressReader other = new(bench.Session, new() { Table = parent });
            Assert.Equal(target, Assert.Single(await other.ReadAsync(bench.Sink, Token)).Target);
            await writer.CommitAsync(Token);
            await alter;
        }
    }

    [Theory, EachMajor]
    public async Task What_is_queued_for_its_lock_is_seen_before_its_view_shows_it(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers, major, "create table orders (id int, tier text); create index orders_tier on orders (tier); create function f() returns trigger language plpgsql as 'begin return new; end'");
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "lock table orders in share update exclusive mode");
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await using ProgressReader reader = new(bench.Session, new() { Table = "orders" });
        foreach ((string sql, string operation) in ((string, string)[])
        [
            ("create unique index on orders (id)", "CREATE INDEX"),
            ("create index concurrently on orders (id)", "CREATE INDEX CONCURRENTLY"),
            ("reindex index orders_tier", "REINDEX"),
            ("reindex (verbose, concurrently) table orders", "REINDEX CONCURRENTLY"),
            ("vacuum orders", "VACUUM"),
            ("vacuum (full, analyze) orders", "VACUUM FULL"),
            ("cluster orders using orders_tier", "CLUSTER"),
            ("analyze orders", "ANALYZE"),
            ("truncate orders", "TRUNCATE"),
            ("drop table orders", "DROP TABLE"),
            ("-- no longer asked for\ndrop index orders_tier", "DROP INDEX"),
            ("/* V7 */ create or replace trigger f before insert on orders for each row execute function f()", "CREATE TRIGGER"),
            ("create table more (n int generated always as identity) inherits (orders)", "CREATE TABLE"),
        ])
        {
            Task work = connection.ExecuteAsync(sql, Token);
            MigrationProgress queued = await UntilAsync(reader, bench, p => p.Pid == connection.ProcessID && p.BlockedBy.Contains(holder.Pid));
            Assert.Equal((operation, "public.orders", "waiting for a lock", $"lock of pid {holder.Pid}"), (queued.Operation, queued.Target, queued.Phase, queued.WaitingFor));
            Assert.Null(queued.Percent);
            Assert.True(ProgressFilter.IsKnown(queued.Operation), queued.Operation);
            await bench.Database.ExecuteAsync($"select pg_cancel_backend({connection.ProcessID})", Token);
            await Assert.ThrowsAsync<PostgresException>(() => work);
        }

        // Who merely writes rows is none of these, whatever the text says.
        await using LockHolder row = await LockHolder.HoldAsync(bench.Database, "create table log (id int primary key, what text)", "insert into log values (1)");
        await row.CommitAsync(Token);
        await using LockHolder again = await LockHolder.HoldAsync(bench.Database, "update log set what = ''");
        Task<int> update = bench.Database.ExecuteAsync("update log set what = 'x;\n drop table log'", Token);
        await Wait.UntilAsync(
            async () => await bench.Database.ScalarAsync<bool>($"select exists (select from pg_stat_activity where {again.Pid} = any (pg_blocking_pids(pid)))", Token), "the update to wait", cancellationToken: Token);
        await using ProgressReader all = new(bench.Session, new());
        Assert.DoesNotContain(await all.ReadAsync(bench.Sink, Token), p => p.Database == bench.Database.Name);
        await again.CommitAsync(Token);
        await update;
    }

    [Theory, EachMajor]
    public async Task What_cannot_even_look_its_table_up_is_seen_too(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table orders (id int, tier text)");
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "lock table orders in access exclusive mode");
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        await using ProgressReader reader = new(bench.Session, new() { Table = "orders" });
        foreach ((string sql, string operation) in ((string, string)[])
        [
            ("vacuum orders", "VACUUM"),
            ("/* nightly */ vacuum (full, analyze) orders", "VACUUM FULL"),
            ("-- statistics\nanalyze orders", "ANALYZE"),
            ("copy orders (id, tier) from stdin", "COPY FROM"),
            ("copy public.orders to stdout", "COPY TO"),
            ("copy (select id from orders) to stdout", "COPY TO"),
        ])
        {
            Task work = connection.ExecuteAsync(sql, Token);
            MigrationProgress queued = await UntilAsync(reader, bench, p => p.Pid == connection.ProcessID && p.BlockedBy.Contains(holder.Pid));
            Assert.Equal((operation, "public.orders", "waiting for a lock", $"lock of pid {holder.Pid}"), (queued.Operation, queued.Target, queued.Phase, queued.WaitingFor));
            await bench.Database.ExecuteAsync($"select pg_cancel_backend({connection.ProcessID})", Token);
            await Assert.ThrowsAsync<PostgresException>(() => work);
        }

        // Who merely reads or writes rows is none of these, whatever the text says.
        foreach (string sql in (string[])["select 'x;\n vacuum orders', 'alter table' from orders", "insert into orders values (1, ';\n copy orders from stdin')"])
        {
            Task work = connection.ExecuteAsync(sql, Token);
            await Wait.UntilAsync(
                async () => await bench.Database.ScalarAsync<bool>($"select {holder.Pid} = any (pg_blocking_pids({connection.ProcessID}))", Token), "the statement to wait", cancellationToken: Token);
            Assert.Empty(await reader.ReadAsync(bench.Sink, Token));
            await bench.Database.ExecuteAsync($"select pg_cancel_backend({connection.ProcessID})", Token);
            await Assert.ThrowsAsync<PostgresException>(() => work);
        }
    }

    [Theory, EachMajor]
    public async Task What_works_on_all_partitions_is_found_by_each_of_them(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            Things + """
            ; create table part (id int) partition by range (id);
            create table part_0 partition of part for values from (0) to (100);
            create table part_1 partition of part for values from (100) to (200) partition by range (id);
            create table part_1_0 partition of part_1 for values from (100) to (200);
            insert into part values (1), (150)
            """);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, "select pg_advisory_xact_lock(1)");
        Task<int> build = bench.Database.ExecuteAsync("create index on part (gate(id, 150, 1))", Token);
        foreach (string table in (string[])["part", "part_0", "part_1_0"])
        {
            await using ProgressReader reader = new(bench.Session, new() { Table = table });
            MigrationProgress seen = await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
            Assert.Equal(("CREATE INDEX", "public.part"), (seen.Operation, seen.Target));
            // By its view: its lock is granted.
            Assert.StartsWith("building index", seen.Phase, StringComparison.Ordinal);
        }

        await using ProgressReader other = new(bench.Session, new() { Table = "things" });
        Assert.Empty(await other.ReadAsync(bench.Sink, Token));
        await gate.CommitAsync(Token);
        await build;

        // What works on the parent alone, or on another partition, is none of it.
        await using LockHolder again = await LockHolder.HoldAsync(bench.Database, "select pg_advisory_xact_lock(1)");
        Task<int> elsewhere = bench.Database.ExecuteAsync("create index on part_1 (gate(id, 150, 1), id)", Token);
        await using ProgressReader first = new(bench.Session, new() { Table = "part_1_0" });
        await UntilAsync(first, bench, p => p.BlockedBy.Contains(again.Pid));
        await using ProgressReader none = new(bench.Session, new() { Table = "part_0" });
        Assert.Empty(await none.ReadAsync(bench.Sink, Token));
        await again.CommitAsync(Token);
        await elsewhere;
    }

    [Theory, EachMajor]
    public async Task Work_on_the_toast_table_is_work_on_its_table(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table big (id int primary key, v text)");
        await using LockHolder writer = await LockHolder.HoldAsync(bench.Database, "insert into big values (1, 'x')");
        Task<int> reindex = bench.Database.ExecuteAsync("reindex table concurrently big", Token);
        await bench.UntilPhaseAsync("waiting for writers before build");
        Assert.Equal("t", await bench.Database.ScalarAsync<string>("select c.relkind::text from pg_stat_progress_create_index p join pg_class c on c.oid = p.relid where p.datname = current_database()", Token));
        await using ProgressReader reader = new(bench.Session, new() { Table = "big" });
        MigrationProgress seen = Assert.Single(await reader.ReadAsync(bench.Sink, Token));
        Assert.Equal(("REINDEX CONCURRENTLY", "public.big", "waiting for writers before build"), (seen.Operation, seen.Target, seen.Phase));
        Assert.Equal([writer.Pid], seen.BlockedBy);
        await writer.CommitAsync(Token);
        await reindex;
    }

    [Theory, EachMajor]
    public async Task Files_that_its_transaction_made_before_are_not_of_a_rewrite(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things + "; create table other as select * from things");
        await using LockHolder transaction = await LockHolder.HoldAsync(bench.Database, "alter table other add column n int", "create table made as select * from things");
        await using ProgressReader reader = new(bench.Session, new() { Pid = transaction.Pid });
        LockHolder gate = await LockHolder.HoldAsync(bench.Database, "select pg_advisory_xact_lock(1)");
        Task scan = transaction.Connection.ExecuteAsync("alter table things add check (gate(id, 10000, 1) > 0)", Token);
        try
        {
            await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
            MigrationProgress scanning = Assert.Single(await reader.ReadAsync(bench.Sink, Token));
            Assert.Equal(("ALTER TABLE", "public.things", "waiting for a lock"), (scanning.Operation, scanning.Target, scanning.Phase));
            Assert.Equal((null, null, null), (scanning.Done, scanning.Total, scanning.Percent));
        }
        finally
        {
            await gate.DisposeAsync();
            await scan;
        }

        LockHolder first = await LockHolder.HoldAsync(bench.Database, "select pg_advisory_xact_lock(2)");
        LockHolder second = await LockHolder.HoldAsync(bench.Database, "select pg_advisory_xact_lock(3)");
        Task rewrite = transaction.Connection.ExecuteAsync("alter table things alter column v type varchar using left(v, 1000 + 0 * gate(gate(id, 5000, 2), 10000, 3))", Token);
        try
        {
            await UntilAsync(reader, bench, p => p.BlockedBy.Contains(first.Pid));
            await first.CommitAsync(Token);
            // Its file has grown since.
            MigrationProgress half = await UntilAsync(reader, bench, p => p.BlockedBy.Contains(second.Pid));
            Assert.Equal(("public.things", "rewriting table", "bytes"), (half.Target, half.Phase, half.Unit));
            Assert.Equal(50, half.PhasePercent!.Value, 10.0);
        }
        finally
        {
            await first.DisposeAsync();
            await second.DisposeAsync();
            await rewrite;
        }
    }

    [Theory, EachMajor]
    public async Task New_files_prove_that_a_rebuild_is_done(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Things + "; create index things_gate on things (gate(id, 10000, 1)); create index things_v on things (v)");
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        foreach (string sql in (string[])["vacuum full things", "reindex index things_gate", "reindex table things"])
        {
            await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, "select pg_advisory_xact_lock(1)");
            Task work = connection.ExecuteAsync(sql, Token);
            await using (ProgressReader reader = new(bench.Session, new() { Pid = connection.ProcessID }))
            {
                await UntilAsync(reader, bench, p => p.BlockedBy.Contains(gate.Pid));
            }

            List<ProgressResult> ended = [];
            RecordingSink sink = new();
            Task waiting = ProgressWait.RunAsync(bench.Session, new() { Pid = connection.ProcessID }, TimeSpan.FromMilliseconds(20), ended.Add, sink, null, Token);
            await Wait.UntilAsync(() => sink.ProgressRecords.Count > 0, "progress", cancellationToken: Token);
            await gate.CommitAsync(Token);
            await work;
            await waiting;
            Assert.DoesNotContain(ended, result => result.Outcome == ProgressOutcome.Failed);
            Assert.Equal((sql, ProgressOutcome.Finished, "It has new files."), (sql, ended[^1].Outcome, ended[^1].Detail));
        }
    }

    [Theory, EachMajor]
    public async Task Who_locks_the_log_holds_no_look_up(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table orders (id int, tier text); create index ix on orders (tier)");
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "lock table orders in access share mode");
        await Wait.UntilAsync(
            async () => await bench.Database.ScalarAsync<bool>($"select clock_timestamp() - xact_start > interval '1 s' from pg_stat_activity where pid = {old.Pid}", Token), "an old transaction", cancellationToken: Token);
        IndexDropPlan drop = await IndexDropper.PlanAsync(bench.Session, new() { Name = "ix" }, bench.Sink, Token);
        Task<IndexDropResult> dropping = OperationLog.RunAsync(drop, bench.Sink, recorder => IndexDropper.RunAsync(drop, recorder, Token), Token);
        await using ProgressReader reader = new(bench.Session, new() { Table = "orders" });
        await UntilAsync(reader, bench, p => p.Operation == "INDEX DROP");
        List<ProgressResult> ended = [];
        RecordingSink sink = new();
        Task waiting = ProgressWait.RunAsync(bench.Session, new() { Table = "orders" }, TimeSpan.FromMilliseconds(50), ended.Add, sink, null, Token);
        await Wait.UntilAsync(() => sink.ProgressRecords.Count > 0, "progress", cancellationToken: Token);

        await using (LockHolder locked = await LockHolder.HoldAsync(bench.Database, "lock table migration_safety.operation in access exclusive mode"))
        {
            // One that looked before, and one that begins.
            await using ProgressReader another = new(bench.Session, new() { Table = "orders" });
            foreach (ProgressReader one in (ProgressReader[])[reader, another])
            {
                RecordingSink told = new();
                using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(Token);
                limit.CancelAfter(TimeSpan.FromSeconds(20));
                // What was seen before is shown as it was then.
                Assert.Equal(one == reader ? ["INDEX DROP"] : [], (await one.ReadAsync(told, limit.Token)).Select(p => p.Operation));
                Assert.Contains("somebody locks", Assert.Single(told.Warnings), StringComparison.Ordinal);
            }

            await Wait.UntilAsync(() => sink.Warnings.Count > 0, "the wait to say so", cancellationToken: Token);
            await locked.RollbackAsync(Token);
        }

        // What could not be seen for a while was not taken for ended.
        Assert.Equal("INDEX DROP", Assert.Single(await reader.ReadAsync(bench.Sink, Token)).Operation);
        Assert.Empty(ended);
        await old.CommitAsync(Token);
        await dropping;
        await waiting;
        Assert.Equal((ProgressOutcome.Finished, "It is recorded as done."), (Assert.Single(ended).Outcome, ended[0].Detail));
        Assert.Single(sink.Warnings);
    }

    [Theory, EachMajor]
    public async Task A_prepared_transaction_is_named_as_what_a_drop_waits_for(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table orders (id int, tier text); create index ix on orders (tier)");
        await bench.Database.ExecuteAsync($"begin; insert into orders values (1); prepare transaction '{bench.Database.Name}'", Token);
        await Wait.UntilAsync(
            async () => await bench.Database.ScalarAsync<bool>($"select clock_timestamp() - prepared > interval '1 s' from pg_prepared_xacts where gid = '{bench.Database.Name}'", Token), "an old transaction", cancellationToken: Token);
        IndexDropPlan drop = await IndexDropper.PlanAsync(bench.Session, new() { Name = "ix" }, bench.Sink, Token);
        Task<IndexDropResult> dropping = OperationLog.RunAsync(drop, bench.Sink, recorder => IndexDropper.RunAsync(drop, recorder, Token), Token);
        try
        {
            await using ProgressReader reader = new(bench.Session, new() { Table = "orders" });
            MigrationProgress waiting = await UntilAsync(reader, bench, p => p.Phase == "waiting for old transactions");
            Assert.Equal(("INDEX DROP", 0, "a prepared transaction"), (waiting.Operation, Assert.Single(waiting.BlockedBy), waiting.WaitingFor));
        }
        finally
        {
            await bench.Database.ExecuteAsync($"rollback prepared '{bench.Database.Name}'", CancellationToken.None);
        }

        await dropping;
    }

    [Theory, EachMajor]
    public async Task A_subscription_is_one_row_without_a_lag_that_its_publisher_alone_knows(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(
            major, new() { Settings = new Dictionary<string, string> { ["wal_level"] = "logical", ["logical_decoding_work_mem"] = "64kB" } }, Token);
        await using IndexBench publisher = await IndexBench.CreateAsync(server, "create table things (id int primary key, v text); create publication pub for table things");
        await using IndexBench subscriber = await IndexBench.CreateAsync(server, "create table things (id int primary key, v text)");
        await publisher.Database.ExecuteAsync("select pg_create_logical_replication_slot('sub', 'pgoutput')", Token);
        await subscriber.Database.ExecuteAsync(
            $"""
            create subscription sub connection 'host={server.Host} port={server.Port} user=postgres dbname={publisher.Database.Name}' publication pub
                with (create_slot = false, slot_name = 'sub', copy_data = false{(major >= 16 ? ", streaming = parallel" : "")})
            """,
            Token);
        await using ProgressReader here = new(subscriber.Session, new() { Operations = ["LOGICAL REPLICATION"] });
        await using ProgressReader there = new(publisher.Session, new() { Operations = ["LOGICAL REPLICATION"] });

        try
        {
            await publisher.Database.ExecuteAsync("insert into things select i, repeat('x', 100) from generate_series(1, 20000) i", Token);
            await Wait.UntilAsync(async () => await subscriber.Database.ScalarAsync<long>("select count(*) from things", Token) == 20000, "the rows", cancellationToken: Token);
            if (major >= 16)
            {
                // The worker that applied them stays.
                Assert.Equal(2L, await subscriber.Database.ScalarAsync<long>("select count(*) from pg_stat_subscription where pid is not null", Token));
            }

            await UntilAsync(here, subscriber, p => p.Phase == "streaming");
            MigrationProgress idle = Assert.Single(await here.ReadAsync(subscriber.Sink, Token), p => p.Database == subscriber.Database.Name);
            Assert.Equal(("sub", await subscriber.Database.ScalarAsync<int>("select pid from pg_stat_subscription where received_lsn is not null", Token)), (idle.Target, idle.Pid));

            await using LockHolder reading = await LockHolder.HoldAsync(subscriber.Database, "lock table things in share mode");
            await publisher.Database.ExecuteAsync("update things set v = 'z' where id <= 10", Token);
            MigrationProgress stuck = await UntilAsync(here, subscriber, p => p.BlockedBy.Contains(reading.Pid));
            Assert.Equal(("applying; its publisher knows how far behind it is", null, null, null), (stuck.Phase, stuck.Total, stuck.Remaining, stuck.PhasePercent));
            Assert.DoesNotContain("lag_bytes", stuck.Counters.Keys);
            MigrationProgress behind = await UntilAsync(there, publisher, p => p.Phase == "catching up");
            Assert.True(behind.Total > behind.Done, behind.ToString());
            await reading.CommitAsync(Token);
            await UntilAsync(there, publisher, p => p.Phase == "streaming");
        }
        finally
        {
            await subscriber.Database.ExecuteAsync("alter subscription sub disable; alter subscription sub set (slot_name = none); drop subscription sub", CancellationToken.None);
        }
    }
}
