using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

public sealed class IndexRebuildTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int primary key, tier text, note text);
        insert into orders select i, 'tier ' || i % 7, 'note ' || i from generate_series(1, 1000) i;
        create index ix on orders (tier);
        analyze orders
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task An_index_is_written_anew_under_its_name_with_all_that_hangs_on_it(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            Orders + "; create table items (order_id int references orders); alter table orders replica identity using index orders_pkey; comment on index orders_pkey is 'ours'; alter table orders cluster on orders_pkey");
        const string State = "select pg_get_indexdef(c.oid) || obj_description(c.oid, 'pg_class') || indisprimary || indisreplident || indisclustered || (select count(*) from pg_constraint where conindid = c.oid) from pg_class c join pg_index on indexrelid = c.oid where relname = 'orders_pkey'";
        string before = (await bench.Database.ScalarAsync<string>(State, Token))!;
        uint oid = await bench.Database.ScalarAsync<uint>("select 'orders_pkey'::regclass::oid", Token);
        IndexRebuildRequest request = new() { Name = "orders_pkey", MaintenanceWorkMem = "8MB", ParallelWorkers = 0 };
        IndexRebuildTarget target = Assert.Single(await IndexRebuilder.FindAsync(bench.Session, request, bench.Sink, Token));
        IndexRebuildPlan plan = await IndexRebuilder.PlanAsync(bench.Session, request, target, bench.Sink, Token);
        MigrationStep step = Assert.Single(plan.Steps);
        Assert.Equal(("REINDEX INDEX CONCURRENTLY public.orders_pkey", TableLockMode.ShareUpdateExclusive, false, Reversibility.NotNeeded), (step.Sql, step.LockMode, step.Transactional, step.Reversibility));

        IndexRebuildResult result = await IndexRebuilder.RunAsync(plan, bench.Sink, Token);
        Assert.Equal((IndexRebuildOutcome.Rebuilt, "public", "orders", "orders_pkey", 1, null), (result.Outcome, result.Schema, result.Table, result.Name, result.Attempts, result.Reason));
        Assert.True(result.SizeBytes > 0 && result.SizeBytesBefore > 0);
        Assert.Equal(StepState.Done, Assert.Single(result.Steps).State);
        Assert.NotEqual(oid, await bench.Database.ScalarAsync<uint>("select 'orders_pkey'::regclass::oid", Token));
        Assert.Equal(before, await bench.Database.ScalarAsync<string>(State, Token));
        await bench.AssertNothingHeldAsync();
        await NothingIsLeftAsync(bench);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task One_that_is_dropped_while_it_is_read_is_not_there(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        // The size of the table is waited for; the definition is read after that, of an index that only the snapshot still has.
        await using LockHolder drop = await LockHolder.HoldAsync(bench.Database, "drop index ix");
        Task<IReadOnlyList<IndexRebuildTarget>> find = IndexRebuilder.FindAsync(bench.Session, new() { Name = "ix" }, bench.Sink, Token);
        await Wait.UntilAsync(
            () => bench.Database.ScalarAsync<bool>($"select exists (select from pg_stat_activity where {drop.Pid} = any (pg_blocking_pids(pid)))", Token), "the question to wait", cancellationToken: Token);
        await drop.CommitAsync(Token);
        Assert.Equal("IndexNotFound", (await Assert.ThrowsAsync<MigrationException>(() => find)).ErrorId);
    }

    [Theory, EachMajor]
    public async Task A_table_and_a_schema_mean_their_indexes_toast_included_and_partitions_one_by_one(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            Orders + """
            ; create schema own; create table own.parts (a int, b text) partition by range (a);
            create table own.part1 partition of own.parts for values from (0) to (10); create table own.part2 partition of own.parts for values from (10) to (20) partition by list (a);
            create table own.part21 partition of own.part2 for values in (11); create index parent on own.parts (b)
            """);
        IReadOnlyList<IndexRebuildResult> table = await RebuildAsync(bench, new() { Table = "orders" });
        Assert.Equal(["ix", "orders_pkey"], table.Take(2).Select(result => result.Name));
        Assert.Equal(("pg_toast", IndexRebuildOutcome.Rebuilt), (table[2].Schema, table[2].Outcome));
        Assert.Equal(3, table.Count);

        // Both tables' toast indexes too.
        Assert.Equal(["part1_b_idx", "part21_b_idx"], (await RebuildAsync(bench, new() { Table = "own.parts" })).Where(result => result.Schema == "own").Select(result => result.Name));
        Assert.Equal(["part1_b_idx", "part21_b_idx"], (await RebuildAsync(bench, new() { Name = "own.parent" })).Select(result => result.Name));
        IReadOnlyList<IndexRebuildResult> schema = await RebuildAsync(bench, new() { Schema = "own" });
        Assert.Equal(4, schema.Count);
        Assert.All(schema, result => Assert.Equal(IndexRebuildOutcome.Rebuilt, result.Outcome));
        Assert.True(await bench.Database.ScalarAsync<bool>("select bool_and(indisvalid) from pg_index", Token));
    }

    [Theory, EachMajor]
    public async Task What_earlier_rebuilds_left_is_removed_with_the_rebuild_and_by_its_own_name(int major)
    {
        string name = new('n', 60);
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + $"; create index {name} on orders (note); create index other_ccnew on orders (id, note)");
        await bench.LeaveInvalidAsync("reindex table concurrently orders");
        await bench.LeaveInvalidAsync("reindex table concurrently orders");
        await bench.LeaveInvalidAsync($"reindex index concurrently {name}", "lock table orders in access share mode");
        // A successful run leaves them all in place.
        await bench.Database.ExecuteAsync("reindex table concurrently orders", Token);
        Assert.Equal(11, (await InvalidIndexReader.ReadAsync(bench.Session, null, null, bench.Sink, Token)).Count);

        IndexRebuildResult copy = Assert.Single(await RebuildAsync(bench, new() { Name = "ix_ccnew1" }));
        Assert.Equal((IndexRebuildOutcome.LeftoverRemoved, "ix_ccnew1", 0L, 0), (copy.Outcome, copy.Name, copy.SizeBytes, copy.Attempts));
        IndexRebuildResult one = Assert.Single(await RebuildAsync(bench, new() { Name = "ix" }));
        Assert.Equal((IndexRebuildOutcome.Rebuilt, 2), (one.Outcome, one.Steps.Length));
        Assert.Equal("DROP INDEX CONCURRENTLY IF EXISTS public.ix_ccnew", one.Steps[0].Sql);

        IReadOnlyList<IndexRebuildResult> all = await RebuildAsync(bench, new() { Table = "orders", MinimumBloatPercent = 100 });
        Assert.Equal(["ix", name, "orders_pkey", "other_ccnew"], all.Where(result => result.Schema == "public").Select(result => result.Name));
        Assert.Equal(
            [IndexRebuildOutcome.Skipped, IndexRebuildOutcome.LeftoverRemoved, IndexRebuildOutcome.LeftoverRemoved, IndexRebuildOutcome.LeftoverRemoved],
            all.Where(result => result.Schema == "public").Select(result => result.Outcome));
        Assert.Equal(IndexRebuildOutcome.LeftoverRemoved, Assert.Single(all, result => result.Schema == "pg_toast").Outcome);
        await NothingIsLeftAsync(bench);
        Assert.Equal([$"{name}:valid", "ix:valid", "orders_pkey:valid", "other_ccnew:valid"], (await bench.IndexesAsync("ix", name, "orders_pkey", "other_ccnew")).Order(StringComparer.Ordinal).OrderBy(text => text[0] == 'n' ? 0 : 1));
    }

    [Theory, EachMajor]
    public async Task An_invalid_index_is_repaired_and_duplicates_are_told(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("create index concurrently late on orders (note)");
        await Assert.ThrowsAsync<PostgresException>(() => bench.Database.ExecuteAsync("create unique index concurrently failed on orders (tier)", Token));
        Assert.Equal(IndexRebuildOutcome.Repaired, Assert.Single(await RebuildAsync(bench, new() { Name = "late" })).Outcome);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => RebuildAsync(bench, new() { Name = "failed" }));
        Assert.Equal("DuplicateKey", e.ErrorId);
        Assert.Contains("Nothing is left of it", e.Message, StringComparison.Ordinal);
        await bench.Database.ExecuteAsync("update orders set tier = id::text", Token);
        Assert.Equal(IndexRebuildOutcome.Repaired, Assert.Single(await RebuildAsync(bench, new() { Name = "failed" })).Outcome);
        await NothingIsLeftAsync(bench);
    }

    [Theory, EachMajor]
    public async Task A_half_dropped_index_comes_back_only_when_it_is_named(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using (NpgsqlConnection connection = new(bench.Database.ConnectionString + ";Pooling=false"))
        {
            await connection.OpenAsync(Token);
            await connection.ExecuteAsync("set enable_seqscan = off; select count(*) from orders where tier = 'tier 1'", Token);
        }

        await Wait.UntilAsync(async () => await bench.Database.ScalarAsync<long>("select pg_stat_get_numscans('ix'::regclass)", Token) > 0, "the scan to be counted", cancellationToken: Token);
        await bench.LeaveInvalidAsync("drop index concurrently ix", "lock table orders in access share mode");
        IndexRebuildResult skipped = Assert.Single(await RebuildAsync(bench, new() { Table = "orders" }), result => result.Name == "ix");
        Assert.Equal(IndexRebuildOutcome.Skipped, skipped.Outcome);
        Assert.Contains("Invoke-SafeIndexDrop finishes it", skipped.Reason, StringComparison.Ordinal);
        Assert.Equal(IndexRebuildOutcome.Repaired, Assert.Single(await RebuildAsync(bench, new() { Name = "ix" })).Outcome);
    }

    [Theory, EachMajor]
    public async Task Bloat_is_estimated_and_decides(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            """
            create table big (id int primary key, few int, txt text, opt text, pair numeric) with (autovacuum_enabled = off);
            insert into big select i, i % 50, md5(i::text), case when i % 3 = 0 then md5(i::text) end, i from generate_series(1, 60000) i;
            create index few on big (few); create index txt on big (txt) include (few); create index opt on big (opt); create index pair on big (pair, few); create index expr on big (lower(txt)); create index part on big (txt) where id % 2 = 0;
            create index grown on big using gin (to_tsvector('simple', txt));
            vacuum analyze big
            """.Replace("\nvacuum analyze big", "\nselect 1", StringComparison.Ordinal));
        await VacuumAsync();
        string[] names = ["big_pkey", "few", "txt", "opt", "pair", "expr", "part"];
        foreach (string name in names)
        {
            double fresh = (await PlanAsync(name)).EstimatedBloatPercent ?? -1;
            Assert.True(fresh is >= 0 and < 20, $"{name}, just built: {fresh}%");
        }

        await bench.Database.ExecuteAsync("delete from big where id % 10 <> 0", Token);
        await VacuumAsync();
        foreach (string name in names)
        {
            double bloated = (await PlanAsync(name)).EstimatedBloatPercent ?? -1;
            Assert.True(bloated > 60, $"{name}, nine of ten rows deleted: {bloated}%");
        }

        IReadOnlyList<IndexRebuildResult> results = await RebuildAsync(bench, new() { Table = "big", MinimumBloatPercent = 40 });
        Assert.Equal(names.Order(StringComparer.Ordinal), results.Where(result => result.Outcome == IndexRebuildOutcome.Rebuilt).Select(result => result.Name).Order(StringComparer.Ordinal));
        Assert.All(results.Where(result => result.Outcome == IndexRebuildOutcome.Rebuilt), result => Assert.True(result.SizeBytes < result.SizeBytesBefore / 2, $"{result.Name}: {result.SizeBytesBefore} to {result.SizeBytes}"));
        Assert.Contains("gin index is empty cannot be estimated", Assert.Single(results, result => result.Name == "grown").Reason, StringComparison.Ordinal);

        // The same again finds nothing to do.
        IReadOnlyList<IndexRebuildResult> again = await RebuildAsync(bench, new() { Table = "big", MinimumBloatPercent = 40 });
        Assert.All(again, result => Assert.Equal(IndexRebuildOutcome.Skipped, result.Outcome));
        Assert.Contains("by estimate: less than 40%", again[0].Reason, StringComparison.Ordinal);

        async Task<IndexRebuildPlan> PlanAsync(string name)
        {
            IndexRebuildRequest request = new() { Name = name };
            return await IndexRebuilder.PlanAsync(bench.Session, request, (await IndexRebuilder.FindAsync(bench.Session, request, bench.Sink, Token))[0], bench.Sink, Token);
        }

        async Task VacuumAsync() => await bench.Database.ExecuteAsync("vacuum analyze big", Token);
    }

    [Theory, EachMajor]
    public async Task What_cannot_be_rebuilt_is_refused_by_name_and_passed_over_in_a_table(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; create table stays (id int primary key, period int4range, exclude using gist (period with &&))");
        await RefusedAsync("IndexKindNotSupported", "exclusion constraint", new() { Name = "stays_period_excl" });
        await RefusedAsync("IndexKindNotSupported", "system catalog", new() { Name = "pg_catalog.pg_class_oid_index" });
        await RefusedAsync("IndexNotFound", "no index nothing", new() { Name = "nothing" });
        await RefusedAsync("TableNotFound", "no table", new() { Table = "nothing" });
        await RefusedAsync("SchemaNotFound", "no schema", new() { Schema = "nowhere" });
        await RefusedAsync("NothingNamed", "Nothing", new());
        await RefusedAsync("NotAnIndex", "no index", new() { Name = "orders" });
        IReadOnlyList<IndexRebuildResult> table = await RebuildAsync(bench, new() { Table = "stays" });
        Assert.Equal([IndexRebuildOutcome.Skipped, IndexRebuildOutcome.Rebuilt], table.Where(result => result.Schema == "public").OrderBy(result => result.Name, StringComparer.Ordinal).Select(result => result.Outcome));
        Assert.Contains("exclusion constraint", table.Single(result => result.Name == "stays_period_excl").Reason, StringComparison.Ordinal);

        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));
        IndexRebuildRequest request = new() { Name = "public.ix" };
        IndexRebuildTarget ix = Assert.Single(await IndexRebuilder.FindAsync(session, request, bench.Sink, Token));
        Assert.Equal("InsufficientPrivilege", (await Assert.ThrowsAsync<MigrationException>(() => IndexRebuilder.PlanAsync(session, request, ix, bench.Sink, Token))).ErrorId);
        if (major >= 17)
        {
            await bench.Database.ExecuteAsync($"grant maintain on orders to {stranger.Name}", Token);
            IndexRebuildPlan plan = await IndexRebuilder.PlanAsync(session, request, ix, bench.Sink, Token);
            Assert.Equal(IndexRebuildOutcome.Rebuilt, (await IndexRebuilder.RunAsync(plan, bench.Sink, Token)).Outcome);
        }

        async Task RefusedAsync(string id, string words, IndexRebuildRequest refused)
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => RebuildAsync(bench, refused));
            Assert.Equal(id, e.ErrorId);
            Assert.Contains(words, e.Message, StringComparison.Ordinal);
        }
    }

    [Theory, EachMajor]
    public async Task No_writer_waits_while_a_partition_is_rebuilt_behind_a_long_transaction(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers, major, "create table parts (a int, b int) partition by range (a); create table part1 partition of parts for values from (0) to (10); create index parent on parts (b)");
        await using LockHolder writer = await LockHolder.HoldAsync(bench.Database, "insert into parts values (1, 1)");
        Task<IReadOnlyList<IndexRebuildResult>> rebuild = RebuildAsync(bench, new() { Table = "parts" });
        await bench.UntilPhaseAsync("waiting for writers before build");
        await using (NpgsqlConnection connection = await bench.Database.OpenAsync(Token))
        {
            await connection.ExecuteAsync("set lock_timeout = '500ms'", Token);
            await connection.ExecuteAsync("insert into parts values (2, 2)", Token);
            await connection.ExecuteAsync("reset lock_timeout", Token);
        }

        await Wait.UntilAsync(
            () => bench.Sink.ProgressRecords.Any(progress => progress.Activity == "Rebuilding index public.part1_b_idx" && progress.CurrentOperation?.Contains($"pid {writer.Pid} ", StringComparison.Ordinal) == true),
            "the wait to be told",
            cancellationToken: Token);
        Assert.False(rebuild.IsCompleted);
        await writer.CommitAsync(Token);
        Assert.Equal(IndexRebuildOutcome.Rebuilt, Assert.Single(await rebuild).Outcome);
    }

    internal static async Task<IReadOnlyList<IndexRebuildResult>> RebuildAsync(IndexBench bench, IndexRebuildRequest request, EngineSession? session = null, CancellationToken? cancellationToken = null)
    {
        session ??= bench.Session;
        List<IndexRebuildResult> results = [];
        foreach (IndexRebuildTarget target in await IndexRebuilder.FindAsync(session, request, bench.Sink, Token))
        {
            results.Add(await IndexRebuilder.RunAsync(await IndexRebuilder.PlanAsync(session, request, target, bench.Sink, Token), bench.Sink, cancellationToken ?? Token));
        }

        return results;
    }

    internal static async Task NothingIsLeftAsync(IndexBench bench) =>
        Assert.Empty(await bench.Database.QueryAsync("select indexrelid::regclass from pg_index where not (indisvalid and indisready and indislive)", Token));
}
