using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Indexes over the partitions of a table, of any depth.</summary>
public sealed class PartitionedIndexTests(Servers servers)
{
    // p1 has its columns in another order and a hole, p2 is partitioned itself, pd is the default.
    private const string Tree = """
        create table p (a int, b text, c int) partition by list (a);
        create table p1 (c int, hole int, b text, a int); alter table p1 drop column hole; alter table p attach partition p1 for values in (1);
        create table p2 partition of p for values in (2) partition by range (c);
        create table p2x partition of p2 for values from (0) to (10);
        create table p2y partition of p2 for values from (10) to (20);
        create table pd partition of p default;
        insert into p select i % 3, 'v' || i, i % 20 from generate_series(1, 1000) i
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static IndexBuildRequest Request => new() { Table = "p", Column = ["lower(b)", "c desc"], Name = "pix" };

    [Theory, EachMajor]
    public async Task Every_partition_gets_its_part_and_the_whole_is_valid(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tree);
        IndexBuildPlan plan = await bench.PlanAsync(Request);
        Assert.Equal("CREATE INDEX pix ON ONLY public.p (lower(b), c DESC)", plan.Steps[0].Sql);
        Assert.Equal(2 + 4 + 5, plan.Steps.Count);
        Assert.Equal(0L, await CountAsync(bench));

        IndexBuildResult result = await IndexBuilder.RunAsync(plan, bench.Sink, Token);
        Assert.Equal((IndexBuildOutcome.Built, "pix", 1), (result.Outcome, result.Name, result.Attempts));
        Assert.Equal(plan.Steps.Select(step => step.Sql).Order(), result.Steps.Select(step => step.Sql).Order());
        Assert.True(result.SizeBytes > 0);
        await AssertWholeAsync(bench);
        Assert.Equal(6L, await CountAsync(bench));
        await bench.AssertNothingHeldAsync();

        IndexBuildResult again = await bench.BuildAsync(Request);
        Assert.Equal(IndexBuildOutcome.AlreadyValid, again.Outcome);

        // The way back takes all of it.
        foreach (MigrationStep step in RollbackGenerator.ToSteps(RollbackGenerator.FromSteps("test", result.Steps)))
        {
            await bench.Database.ExecuteAsync(step.Sql, Token);
        }

        Assert.Equal(0L, await CountAsync(bench));
    }

    [Theory, EachMajor]
    public async Task Matching_indexes_are_attached_instead_of_built(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tree + """
            ; create index mine on p1 (lower(b), c desc); create index theirs on p2x (lower(b), c desc); create index other on p2y (lower(b), c); create index on pd (lower(b), c desc);
            create index y on p2y (lower(b), c desc)
            """);
        IndexBuildPlan plan = await bench.PlanAsync(Request);
        IndexBuildResult result = await IndexBuilder.RunAsync(plan, bench.Sink, Token);
        Assert.Equal(IndexBuildOutcome.Attached, result.Outcome);
        Assert.Equal(plan.Steps.Select(step => step.Sql).Order(), result.Steps.Select(step => step.Sql).Order());
        Assert.DoesNotContain(result.Steps, step => step.Cost == StepCost.BuildsIndex);
        await AssertWholeAsync(bench);
        // The two parents, and those that were there.
        Assert.Equal(7L, await CountAsync(bench));

        // The way back takes the new ones, and those that were there are there again.
        foreach (MigrationStep step in RollbackGenerator.ToSteps(RollbackGenerator.FromSteps("test", result.Steps)))
        {
            await bench.Database.ExecuteAsync(step.Sql, Token);
        }

        Assert.Equal(["mine:valid", "other:valid", "pd_lower_c_idx:valid", "theirs:valid", "y:valid"], await bench.IndexesAsync("mine", "theirs", "other", "pd_lower_c_idx", "y", "pix"));
        Assert.Equal(5L, await CountAsync(bench));
    }

    [Theory, EachMajor]
    public async Task An_invalid_part_is_told_before_anything(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tree + "; create index pix on only p (lower(b), c desc)");
        await bench.LeaveInvalidAsync("create index concurrently part on p1 (lower(b), c desc)");
        await bench.Database.ExecuteAsync("alter index pix attach partition part", Token);
        foreach (IndexBuildRequest request in new[] { Request, Request with { Table = "p1", Name = "part" } })
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(request));
            Assert.Equal("IndexNotValid", e.ErrorId);
            Assert.Contains("Invoke-SafeIndexRebuild -Name public.part", e.RecommendedAction, StringComparison.Ordinal);
        }

        Assert.Equal(2L, await CountAsync(bench));
        await bench.Database.ExecuteAsync("reindex index concurrently part", Token);
        Assert.Equal(IndexBuildOutcome.Built, (await bench.BuildAsync(Request)).Outcome);
        await AssertWholeAsync(bench);
    }

    [Theory, EachMajor]
    public async Task What_only_a_new_whole_can_mend_is_told_with_what_it_costs(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table p (a int, b text) partition by list (a); create table p1 partition of p for values in (1); create index pix on only p (b)");
        await bench.LeaveInvalidAsync("create index concurrently part on p1 (b)");
        await bench.Database.ExecuteAsync("alter index pix attach partition part", Token);
        await bench.Database.ExecuteAsync("reindex index concurrently part", Token);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.BuildAsync(new() { Table = "p", Column = ["b"], Name = "pix" }));
        Assert.Equal("IndexNotValid", e.ErrorId);
        Assert.Contains("takes all its parts along", e.RecommendedAction, StringComparison.Ordinal);
        Assert.Equal(["part:valid", "pix:invalid"], await bench.IndexesAsync("part", "pix"));
    }

    [Theory, EachMajor]
    public async Task A_part_that_is_attached_goes_before_a_twin_that_is_not(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tree + """
            ; create index pix on only p (lower(b), c desc); create index half on only p2 (lower(b), c desc); alter index pix attach partition half;
            create index whole on p2 (lower(b), c desc)
            """);
        Assert.Equal(IndexBuildOutcome.Built, (await bench.BuildAsync(Request)).Outcome);
        await AssertWholeAsync(bench);
    }

    [Theory, EachMajor]
    public async Task It_goes_on_where_it_stopped_and_replaces_an_invalid_leftover(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tree);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.BuildAsync(Request with { Options = new() { WaitFor = TimeSpan.FromSeconds(0.5) } }));
        Assert.Equal("WaitedTooLong", e.ErrorId);
        Assert.Contains("goes on from there", e.RecommendedAction, StringComparison.Ordinal);
        await bench.LeaveInvalidAsync("create index concurrently p1_lower_c_idx on p1 (lower(b), c desc)");
        await old.CommitAsync(Token);
        uint oid = await bench.Database.ScalarAsync<uint>("select 'pix'::regclass::oid", Token);
        IndexBuildResult result = await bench.BuildAsync(Request);
        Assert.Equal(IndexBuildOutcome.Rebuilt, result.Outcome);
        Assert.Equal(oid, await bench.Database.ScalarAsync<uint>("select 'pix'::regclass::oid", Token));
        await AssertWholeAsync(bench);
        Assert.Equal(6L, await CountAsync(bench));
    }

    [Theory, EachMajor]
    public async Task Partitions_that_come_meanwhile_are_included(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table p (a int, b text) partition by list (a); create table p1 partition of p for values in (1); create table p9 (a int, b text)");
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        Task<IndexBuildResult> build = bench.BuildAsync(new() { Table = "p", Column = ["b"] });
        await bench.UntilPhaseAsync("waiting for old snapshots");
        await bench.Database.ExecuteAsync("create table p2 partition of p for values in (2); alter table p attach partition p9 for values in (9); insert into p values (2, 'x')", Token);
        await old.CommitAsync(Token);
        Assert.Equal(IndexBuildOutcome.Built, (await build).Outcome);
        await AssertWholeAsync(bench, "p_b_idx");
    }

    [Theory, EachMajor]
    public async Task A_unique_one_must_hold_the_partition_key(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tree + "; create table e (a int, b int) partition by list ((a + b))");
        foreach (string[] columns in new[] { new[] { "b" }, ["a", "b"], ["c", "b"] })
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(new() { Table = "p", Column = columns, Unique = true }));
            Assert.Equal("PartitionKeyNotUnique", e.ErrorId);
        }

        Assert.Contains("expression", (await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(new() { Table = "e", Column = ["a", "b"], Unique = true }))).Message, StringComparison.Ordinal);
        MigrationException duplicate = await Assert.ThrowsAsync<MigrationException>(() => bench.BuildAsync(new() { Table = "p", Column = ["a", "c"], Unique = true }));
        Assert.Equal("DuplicateKey", duplicate.ErrorId);
        Assert.Equal(0L, await CountAsync(bench));
        Assert.Equal(IndexBuildOutcome.Built, (await bench.BuildAsync(new() { Table = "p", Column = ["a", "c", "b"], Unique = true })).Outcome);
        await AssertWholeAsync(bench, "p_a_c_b_idx");
    }

    [Theory, EachMajor]
    public async Task A_foreign_partition_is_told_before_anything(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tree + "; create foreign data wrapper nowhere; create server s foreign data wrapper nowhere; create foreign table pf partition of p for values in (7) server s");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(Request));
        Assert.Equal("ForeignPartition", e.ErrorId);
        Assert.Contains("public.pf", e.Message, StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task A_table_without_partitions_is_done_at_once(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table p (a int, b text) partition by list (a)");
        Assert.Equal(IndexBuildOutcome.Built, (await bench.BuildAsync(new() { Table = "p", Column = ["b"] })).Outcome);
        await AssertWholeAsync(bench, "p_b_idx");
    }

    [Theory, EachMajor]
    public async Task Several_partitions_are_built_at_once_and_the_bar_never_goes_back(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tree);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        using SemaphoreSlim places = new(3);
        Task<IndexBuildResult> build = bench.BuildAsync(new() { Table = "p", Column = ["b"], Places = places });
        await Wait.UntilAsync(
            async () => await bench.Database.ScalarAsync<long>("select count(*) from pg_stat_progress_create_index where datname = current_database() and phase = 'waiting for old snapshots'", Token) == 3,
            "three builds at once",
            cancellationToken: Token);
        await old.CommitAsync(Token);
        await build;
        await AssertWholeAsync(bench, "p_b_idx");
        double[] percents = [.. bench.Sink.ProgressRecords.Select(progress => progress.Percent!.Value)];
        Assert.Equal(percents.Order(), percents);
        Assert.True(bench.Sink.ProgressRecords.Last().Completed);
        Assert.Single(bench.Sink.ProgressRecords.Select(progress => progress.Activity).Distinct());
    }

    [Theory, EachMajor]
    public async Task Nobody_waits_for_the_attachment(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table p (a int, b text) partition by list (a); create table p1 partition of p for values in (1); create index part on p1 (b)");
        // Holds the part that is to be attached, as each statement on the partition does.
        await using LockHolder reader = await LockHolder.HoldAsync(bench.Database, "select * from p1 where b = 'x'");
        Task<IndexBuildResult> build = bench.BuildAsync(new() { Table = "p", Column = ["b"] });
        TimeSpan worst = TimeSpan.Zero;
        await Wait.UntilAsync(
            async () =>
            {
                long start = System.Diagnostics.Stopwatch.GetTimestamp();
                await bench.Database.ExecuteAsync("insert into p values (1, 'y'); select * from p where b = 'y'", Token);
                worst = System.Diagnostics.Stopwatch.GetElapsedTime(start) > worst ? System.Diagnostics.Stopwatch.GetElapsedTime(start) : worst;
                return bench.Sink.VerboseMessages.Any(message => message.Contains("did not get its lock", StringComparison.Ordinal));
            },
            "an attempt in vain",
            cancellationToken: Token);
        await reader.CommitAsync(Token);
        Assert.Equal(IndexBuildOutcome.Attached, (await build).Outcome);
        Assert.True(worst < TimeSpan.FromMilliseconds(900), $"a statement took {worst}");
    }

    /// <summary>The index is valid, and each table of the tree has a valid part of it.</summary>
    private static async Task AssertWholeAsync(IndexBench bench, string name = "pix")
    {
        Assert.True(await bench.Database.ScalarAsync<bool>($"select bool_and(indisvalid and indisready and indislive) from pg_index where indexrelid in (select relid from pg_partition_tree('{name}'))", Token));
        Assert.Equal(
            await bench.Database.ScalarAsync<long>("select count(*) from pg_partition_tree('p')", Token),
            await bench.Database.ScalarAsync<long>($"select count(*) from pg_partition_tree('{name}')", Token));
    }

    private static Task<long> CountAsync(IndexBench bench) =>
        bench.Database.ScalarAsync<long>("select count(*) from pg_index where indrelid in (select relid from pg_partition_tree('p'))", Token);
}
