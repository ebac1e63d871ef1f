using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Every way to leave an index behind that is not valid, made for real, and what is said of it.</summary>
public sealed class InvalidIndexTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int primary key, tier text, note text);
        insert into orders select i, 'tier ' || i % 7, 'note ' || i from generate_series(1, 1000) i;
        create index ix on orders (tier);
        analyze orders
        """;

    // Holds a lock on the table and no snapshot: only what waits for all users of the table waits for it.
    private const string Reader = "lock table orders in access share mode";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Where_all_are_valid_there_is_nothing(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        Assert.Empty(await ReadAsync(bench));
    }

    [Theory, EachMajor]
    public async Task An_interrupted_build_is_told_by_what_writes_pay(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("create index concurrently late on orders (note)");
        await bench.LeaveInvalidAsync("create index concurrently early on orders (note, id)", "insert into orders values (0, '', '')");
        IReadOnlyList<InvalidIndex> found = await ReadAsync(bench);
        Assert.Equal(["early", "late"], found.Select(index => index.Name));
        Assert.All(found, index => Assert.Equal((InvalidIndexReason.InterruptedBuild, InvalidIndexRepair.Rebuild, "public", "orders", false), (index.Reason, index.Repair, index.Schema, index.Table, index.Unique)));
        Assert.Equal([false, true], found.Select(index => index.PaidByWrites));
        Assert.DoesNotContain("pays", found[0].Detail, StringComparison.Ordinal);
        Assert.Contains("Every write to the table pays for it", found[1].Detail, StringComparison.Ordinal);
        Assert.Equal("Invoke-SafeIndexRebuild -Schema public -Name late where the index is wanted, otherwise Invoke-SafeIndexDrop -Schema public -Name late", found[1].Advice);
        Assert.Equal("CREATE INDEX late ON public.orders USING btree (note)", found[1].Definition);
        Assert.True(found[1].SizeBytes > 0);
        Assert.Equal((bench.Session.Info.Server, bench.Session.Info.Port, bench.Database.Name), (found[1].Server, found[1].Port, found[1].Database));
    }

    [Theory, EachMajor]
    public async Task A_failed_unique_build_is_told_from_one_that_still_rejects_duplicates(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await Assert.ThrowsAsync<PostgresException>(() => bench.Database.ExecuteAsync("create unique index concurrently failed on orders (tier)", Token));
        await bench.LeaveInvalidAsync("create unique index concurrently late on orders (note)");
        IReadOnlyList<InvalidIndex> found = await ReadAsync(bench);
        Assert.Equal([InvalidIndexReason.FailedUniqueBuild, InvalidIndexReason.InterruptedBuild], found.Select(index => index.Reason));
        Assert.Contains("new duplicates are accepted", found[0].Detail, StringComparison.Ordinal);
        Assert.Contains("it rejects new duplicates", found[1].Detail, StringComparison.Ordinal);
        // What is said is so.
        await bench.Database.ExecuteAsync("insert into orders values (1001, 'tier 1', 'new')", Token);
        PostgresException e = await Assert.ThrowsAsync<PostgresException>(() => bench.Database.ExecuteAsync("insert into orders values (1002, 'tier 1', 'new')", Token));
        Assert.Equal("late", e.ConstraintName);
    }

    [Theory, EachMajor]
    public async Task What_a_rebuild_leaves_is_told_apart_also_numbered_cut_and_after_a_second_run(int major)
    {
        string name = new('n', 60);
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + $"; create index {name} on orders (note)");
        await bench.LeaveInvalidAsync("reindex index concurrently ix");
        await bench.LeaveInvalidAsync("reindex index concurrently ix");
        await bench.LeaveInvalidAsync($"reindex index concurrently {name}");
        await bench.LeaveInvalidAsync($"reindex index concurrently {name}", Reader);
        await bench.Database.ExecuteAsync("reindex index concurrently ix", Token);
        IReadOnlyList<InvalidIndex> found = await ReadAsync(bench);
        Assert.Equal(
            [("ix_ccnew", InvalidIndexReason.RebuildCopy, "ix"), ("ix_ccnew1", InvalidIndexReason.RebuildCopy, "ix"), (name[..57] + "_ccnew", InvalidIndexReason.RebuildCopy, name), (name[..57] + "_ccold", InvalidIndexReason.RebuildOriginal, name)],
            found.Select(index => (index.Name, index.Reason, index.Original!)));
        Assert.All(found, index => Assert.Equal(InvalidIndexRepair.Drop, index.Repair));
    }

    [Theory, EachMajor]
    public async Task The_name_alone_proves_nothing(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("create index concurrently ix_ccnew on orders (note)");
        InvalidIndex found = Assert.Single(await ReadAsync(bench));
        Assert.Equal((InvalidIndexReason.InterruptedBuild, null), (found.Reason, found.Original));
    }

    [Theory, EachMajor]
    public async Task A_toast_tables_leftovers_are_found_by_its_table(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("reindex table concurrently orders");
        IReadOnlyList<InvalidIndex> all = await ReadAsync(bench);
        InvalidIndex toast = Assert.Single(all, index => index.Schema == "pg_toast");
        Assert.Equal(InvalidIndexReason.RebuildCopy, toast.Reason);
        Assert.Contains("toast table of public.orders", toast.Detail, StringComparison.Ordinal);
        Assert.Equal(3, all.Count);
        Assert.Equal(all.Select(index => index.Name), (await ReadAsync(bench, table: "orders")).Select(index => index.Name));
        Assert.Equal(all.Select(index => index.Name), (await ReadAsync(bench, schema: "public")).Select(index => index.Name));
        Assert.Equal("SchemaNotFound", (await Assert.ThrowsAsync<MigrationException>(() => ReadAsync(bench, schema: "nowhere"))).ErrorId);
        Assert.Equal("TableNotFound", (await Assert.ThrowsAsync<MigrationException>(() => ReadAsync(bench, table: "nothing"))).ErrorId);
    }

    [Theory, EachMajor]
    public async Task An_interrupted_drop_is_told_by_its_scans_or_by_its_end(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; create index iy on orders (note)");
        await using (NpgsqlConnection connection = new(bench.Database.ConnectionString + ";Pooling=false"))
        {
            // What ends its session reports its statistics.
            await connection.OpenAsync(Token);
            await connection.ExecuteAsync("set enable_seqscan = off; select count(*) from orders where tier = 'tier 1'", Token);
        }

        await Wait.UntilAsync(async () => await bench.Database.ScalarAsync<long>("select pg_stat_get_numscans('ix'::regclass)", Token) > 0, "the scan to be counted", cancellationToken: Token);
        await bench.LeaveInvalidAsync("drop index concurrently ix", Reader);
        await LeaveDeadAsync(bench, "drop index concurrently iy");
        IReadOnlyList<InvalidIndex> found = await ReadAsync(bench);
        Assert.Equal([("ix", InvalidIndexReason.InterruptedDrop, true), ("iy", InvalidIndexReason.InterruptedDrop, false)], found.Select(index => (index.Name, index.Reason, index.PaidByWrites)));
        Assert.All(found, index => Assert.Equal(InvalidIndexRepair.Drop, index.Repair));
    }

    [Theory, EachMajor]
    public async Task What_a_rebuild_could_not_drop_is_known_in_each_state(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await LeaveDeadAsync(bench, "reindex index concurrently ix");
        InvalidIndex found = Assert.Single(await ReadAsync(bench));
        Assert.Equal(("ix_ccold", InvalidIndexReason.RebuildOriginal, "ix", false), (found.Name, found.Reason, found.Original, found.PaidByWrites));
    }

    [Theory, EachMajor]
    public async Task Who_is_at_work_is_named_and_what_is_worked_on_is_no_leftover(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; create table other (a int); create index iy on other (a); create index iz on other (a) where a > 0");
        await bench.LeaveInvalidAsync("create index concurrently left_over on orders (note)");
        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        EngineSession blind = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));
        foreach ((string statement, string hold, string doing) in new[]
        {
            ("create index concurrently built on other (a desc)", "insert into other values (1)", "being built"),
            ("reindex index concurrently iy", "insert into other values (1)", "part of a rebuild"),
            ("reindex index concurrently iy", "lock table other in access share mode", "part of a rebuild"),
            ("drop index concurrently iz", "lock table other in access share mode", "being dropped"),
        })
        {
            await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, hold);
            await using NpgsqlConnection worker = await bench.Database.OpenAsync(Token);
            Task work = worker.ExecuteAsync(statement, Token);
            IReadOnlyList<InvalidIndex> found = [];
            await Wait.UntilAsync(async () => (found = await ReadAsync(bench)).Count == 2, $"{statement} to leave its mark", cancellationToken: Token);
            InvalidIndex busy = Assert.Single(found, index => index.Table == "other");
            Assert.Equal((InvalidIndexReason.InProgress, InvalidIndexRepair.Wait, (int?)worker.ProcessID), (busy.Reason, busy.Repair, busy.Pid));
            Assert.Contains($"It is {doing} by pid {worker.ProcessID} ", busy.Detail, StringComparison.Ordinal);
            Assert.Equal(InvalidIndexReason.InterruptedBuild, Assert.Single(found, index => index.Table == "orders").Reason);
            // A role that sees nothing of other sessions takes nothing for a leftover that is none.
            InvalidIndex unseen = Assert.Single(await InvalidIndexReader.ReadAsync(blind, "public.other", null, bench.Sink, Token));
            Assert.Equal((InvalidIndexReason.InProgress, (int?)worker.ProcessID), (unseen.Reason, unseen.Pid));
            await holder.CommitAsync(Token);
            await work;
        }
    }

    [Theory, EachMajor]
    public async Task A_partitioned_index_names_the_partitions_that_lack_it(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            """
            create table parts (a int, b int) partition by range (a);
            create table "Part 1" partition of parts for values from (0) to (10);
            create table part2 partition of parts for values from (10) to (20);
            create table part3 partition of parts for values from (20) to (30) partition by list (a);
            create table part31 partition of part3 for values in (21);
            create index parent on only parts (b);
            create index one on "Part 1" (b);
            alter index parent attach partition one;
            create index sub on only part3 (b);
            alter index parent attach partition sub
            """);
        IReadOnlyList<InvalidIndex> found = await ReadAsync(bench);
        Assert.Equal(["sub", "parent"], found.Select(index => index.Name));
        Assert.All(found, index => Assert.Equal((InvalidIndexReason.IncompletePartitioned, InvalidIndexRepair.Build, false), (index.Reason, index.Repair, index.PaidByWrites)));
        Assert.Equal(["public.part31"], found[0].MissingPartition);
        Assert.Equal(["public.part2", "public.part3"], found[1].MissingPartition);
        Assert.Contains("1 partition has no index attached: public.part2. Attached, but not valid: public.sub.", found[1].Detail, StringComparison.Ordinal);
        Assert.Equal(2, (await ReadAsync(bench, table: "parts")).Count);
        long one = await bench.Database.ScalarAsync<long>("select pg_relation_size('one')", Token);
        Assert.Equal(one, found[1].SizeBytes);

        await bench.LeaveInvalidAsync("alter table parts detach partition part2 concurrently", "lock table parts in access share mode");
        InvalidIndex detaching = Assert.Single(await ReadAsync(bench), index => index.Name == "parent");
        Assert.Equal(["public.part3"], detaching.MissingPartition);
        Assert.Contains("Half detached, waiting for FINALIZE: public.part2.", detaching.Detail, StringComparison.Ordinal);
        Assert.Equal("Finish the detach first: ALTER TABLE public.parts DETACH PARTITION public.part2 FINALIZE", detaching.Advice);
        await bench.Database.ExecuteAsync(detaching.Advice[(detaching.Advice.IndexOf(':', StringComparison.Ordinal) + 1)..], Token);
    }

    private static Task<IReadOnlyList<InvalidIndex>> ReadAsync(IndexBench bench, string? table = null, string? schema = null) =>
        InvalidIndexReader.ReadAsync(bench.Session, table, schema, bench.Sink, Token);

    /// <summary>Interrupts a statement in its last wait, when the index is marked dead already.</summary>
    private static async Task LeaveDeadAsync(IndexBench bench, string statement)
    {
        await using LockHolder first = await LockHolder.HoldAsync(bench.Database, Reader);
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        int pid = connection.ProcessID;
        Task work = connection.ExecuteAsync(statement, Token);
        await UntilBlockedByAsync(bench, pid, first.Pid);
        // It comes after the first wait has begun, and is met by the second.
        await using LockHolder second = await LockHolder.HoldAsync(bench.Database, Reader);
        await first.CommitAsync(Token);
        await UntilBlockedByAsync(bench, pid, second.Pid);
        await bench.Database.ExecuteAsync($"select pg_cancel_backend({pid})", Token);
        await Assert.ThrowsAsync<PostgresException>(() => work);
    }

    private static Task UntilBlockedByAsync(IndexBench bench, int pid, int blocker) => Wait.UntilAsync(
        async () => await bench.Database.ScalarAsync<bool>($"select {blocker} = any (pg_blocking_pids({pid}))", Token), $"pid {pid} to wait for pid {blocker}", cancellationToken: Token);
}
