using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What an index can be: the server's own view of it decides what is the same.</summary>
public sealed class IndexDefinitionTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int primary key, dropped int, mail text, "Total Sum" numeric, created_at timestamptz, place point);
        alter table orders drop column dropped;
        insert into orders select i, 'Mail' || i, i, now(), point(i, i) from generate_series(1, 100) i
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>Requests, and what a person would write for them.</summary>
    private static IEnumerable<(IndexBuildRequest Request, string Sql)> Cases(int major)
    {
        static IndexBuildRequest On(params string[] columns) => new() { Table = "orders", Column = columns };
        yield return (On("lower(mail)"), "(lower(mail))");
        yield return (On("lower(mail)", "lower(mail)"), "(lower(mail), lower(mail))");
        yield return (On("created_at DESC NULLS LAST", "id"), "(created_at desc nulls last, id)");
        yield return (On("created_at desc nulls last, id"), "(created_at desc nulls last, id)");
        yield return (On("(id + 1)", "(mail || 'x')"), "((id + 1), (mail || 'x'))");
        yield return (On("mail text_pattern_ops"), "(mail text_pattern_ops)");
        yield return (On("mail collate \"C\""), "(mail collate \"C\")");
        yield return (On("(orders.mail)"), "(mail)");
        yield return (On("date_trunc('day', created_at at time zone 'UTC')"), "(date_trunc('day', created_at at time zone 'UTC'))");
        yield return (On("mail") with { Where = "orders.id > 3 and mail <> 'x;y'" }, "(mail) where id > 3 and mail <> 'x;y'");
        yield return (On("mail") with { Include = ["id", "Total Sum"], Unique = true }, "(mail) include (id, \"Total Sum\")");
        yield return (On("mail") with { Method = "hash" }, "using hash (mail)");
        yield return (On("place") with { Method = "GIST" }, "using gist (place)");
        yield return (On("created_at") with { Method = "brin", With = "pages_per_range = 32" }, "using brin (created_at) with (pages_per_range = 32)");
        yield return (On("mail") with { With = "fillfactor = 70, deduplicate_items = off", Tablespace = "pg_default" }, "(mail) with (fillfactor = 70, deduplicate_items = off) tablespace pg_default");
        if (major >= 15)
        {
            yield return (On("mail") with { Unique = true, NullsNotDistinct = true }, "(mail) nulls not distinct");
        }
    }

    [Theory, EachMajor]
    public async Task It_is_what_was_asked_for_under_the_name_that_the_server_would_choose(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        foreach ((IndexBuildRequest request, string sql) in Cases(major))
        {
            await bench.Database.ExecuteAsync($"create {(request.Unique ? "unique " : "")}index on orders {sql}", Token);
            string name = (await bench.Database.ScalarAsync<string>("select relname::text from pg_class where relkind = 'i' order by oid desc limit 1", Token))!;
            string definition = (await bench.Database.ScalarAsync<string>($"select pg_get_indexdef('\"{name}\"'::regclass)", Token))!;

            // Found as it is there, whoever made it ...
            Assert.Empty((await bench.PlanAsync(request)).Steps);
            await bench.Database.ExecuteAsync($"drop index \"{name}\"", Token);

            // ... and made as it was there.
            IndexBuildResult result = await bench.BuildAsync(request);
            Assert.Equal((IndexBuildOutcome.Built, definition), (result.Outcome, result.Definition));
            Assert.Equal([$"{name}:valid"], await bench.IndexesAsync(name));
            Assert.Equal(IndexBuildOutcome.AlreadyValid, (await bench.BuildAsync(request)).Outcome);
            await bench.Database.ExecuteAsync($"drop index \"{name}\"", Token);
        }

        Assert.Equal(0L, await bench.Database.ScalarAsync<long>("select count(*) from pg_class where relpersistence = 't'", Token));
    }

    [Theory, EachMajor]
    public async Task Any_difference_that_counts_makes_it_another_one(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        List<(IndexBuildRequest Request, string Sql)> cases = [.. Cases(major).Where(c => c.Request.With is null).DistinctBy(c => c.Sql)];
        foreach ((_, string sql) in cases)
        {
            bool unique = sql.Contains("include", StringComparison.Ordinal) || sql.Contains("nulls not", StringComparison.Ordinal);
            await bench.Database.ExecuteAsync($"create {(unique ? "unique " : "")}index ix on orders {sql}", Token);
            foreach ((IndexBuildRequest request, string wanted) in cases)
            {
                Exception? e = await Record.ExceptionAsync(() => bench.PlanAsync(request with { Name = "ix" }));
                Assert.True((wanted == sql) == (e is null), $"there: {sql}, wanted: {wanted}: {e?.Message}");
                Assert.True(e is null or MigrationException { ErrorId: "IndexNameTaken" }, e?.ToString());
            }

            await bench.Database.ExecuteAsync("drop index ix", Token);
        }
    }

    [Theory, EachMajor]
    public async Task Other_storage_parameters_make_no_other_index_and_are_told(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; create index ix on orders (mail) with (fillfactor = 90)");
        IndexBuildRequest request = new() { Table = "orders", Column = ["mail"], Name = "ix", With = "fillfactor = 70" };
        Assert.Equal(IndexBuildOutcome.AlreadyValid, (await bench.BuildAsync(request)).Outcome);
        Assert.Contains("ALTER INDEX public.ix SET (fillfactor='70')", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);
        await bench.BuildAsync(request with { With = "fillfactor = 90" });
        Assert.Single(bench.Sink.Warnings);
    }

    [Theory, EachMajor]
    public async Task A_materialized_view_can_have_one(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; create materialized view totals as select id, mail from orders");
        Assert.Equal(IndexBuildOutcome.Built, (await bench.BuildAsync(new() { Table = "totals", Column = ["upper(mail)"], Unique = true })).Outcome);
    }

    [Theory, EachMajor]
    public async Task Duplicates_are_shown_before_anything_is_built(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, """
            create table t (a int, b text);
            insert into t select i % 12, 'x' from generate_series(1, 24) i; insert into t values (null, 'x'), (null, 'x'), (100, 'A'), (101, 'a')
            """);
        MigrationException many = await RefusedAsync(new() { Table = "t", Column = ["a", "b"] });
        Assert.Contains("t holds duplicates of (a, b): (", many.Message, StringComparison.Ordinal);
        Assert.Contains("and more", many.Message, StringComparison.Ordinal);
        Assert.Equal(10, many.Message.Split(" in 2 rows").Length - 1);
        Assert.DoesNotContain("NULL", many.Message, StringComparison.Ordinal);
        Assert.Contains("(a) in 2 rows", (await RefusedAsync(new() { Table = "t", Column = ["lower(b)"], Where = "a >= 100" })).Message, StringComparison.Ordinal);
        if (major >= 15)
        {
            Assert.Contains("(NULL, x) in 2 rows", (await RefusedAsync(new() { Table = "t", Column = ["a", "b"], Where = "a is null", NullsNotDistinct = true })).Message, StringComparison.Ordinal);
        }
        else
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(new() { Table = "t", Column = ["a"], Unique = true, NullsNotDistinct = true }));
            Assert.Contains("PostgreSQL 15", e.Message, StringComparison.Ordinal);
        }

        Assert.Equal(IndexBuildOutcome.Built, (await bench.BuildAsync(new() { Table = "t", Column = ["a", "b"], Where = "a >= 100 or a is null", Unique = true })).Outcome);
        Assert.Empty(bench.Sink.Warnings);

        async Task<MigrationException> RefusedAsync(IndexBuildRequest request)
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.BuildAsync(request with { Unique = true }));
            Assert.Equal(("DuplicateKey", MigrationErrorKind.InvalidData), (e.ErrorId, e.Kind));
            Assert.Equal(0L, await bench.Database.ScalarAsync<long>("select count(*) from pg_index where indrelid = 't'::regclass", Token));
            return e;
        }
    }

    [Theory, EachMajor]
    public async Task Duplicates_are_what_the_collation_of_the_index_calls_equal(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, """
            create collation anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
            create table t (loose text collate anycase, strict text); insert into t values ('a', 'a'), ('A', 'A')
            """);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.BuildAsync(new() { Table = "t", Column = ["strict collate anycase", "length(strict)"], Unique = true }));
        Assert.Equal("DuplicateKey", e.ErrorId);
        Assert.Contains("Nothing was built", e.Message, StringComparison.Ordinal);
        Assert.Contains("Nothing was built", (await Assert.ThrowsAsync<MigrationException>(() => bench.BuildAsync(new() { Table = "t", Column = ["loose"], Unique = true }))).Message, StringComparison.Ordinal);
        Assert.Equal(IndexBuildOutcome.Built, (await bench.BuildAsync(new() { Table = "t", Column = ["loose collate \"C\"", "strict text_pattern_ops"], Unique = true })).Outcome);
        Assert.Empty(bench.Sink.Warnings);
    }

    [Theory, EachMajor]
    public async Task Duplicates_by_another_equality_than_the_index_has_are_only_warned_of(int major)
    {
        // 1.0 and 1.00 are equal, and differ byte by byte.
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create type pair as (n numeric); create table t (r pair); insert into t values (row(1.0)), (row(1.00))");
        Assert.Equal(IndexBuildOutcome.Built, (await bench.BuildAsync(new() { Table = "t", Column = ["r record_image_ops"], Unique = true })).Outcome);
        Assert.Contains("equality of its own", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);
        Assert.Equal("DuplicateKey", (await Assert.ThrowsAsync<MigrationException>(() => bench.BuildAsync(new() { Table = "t", Column = ["r"], Unique = true }))).ErrorId);
    }

    [Theory, EachMajor]
    public async Task A_plan_says_about_how_large_and_whom_it_would_wait_for(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table t (id int, v text); insert into t select i, md5(i::text) from generate_series(1, 50000) i; analyze t; create table other (a int)");
        await using LockHolder writer = await LockHolder.HoldAsync(bench.Database, "insert into t values (0, 'x')");
        await using LockHolder snapshot = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        await using LockHolder harmless = await LockHolder.HoldAsync(bench.Database, "insert into other values (1)");
        IndexBuildPlan plan = await bench.PlanAsync(new() { Table = "t", Column = ["v"] });
        Assert.Equal(new[] { writer.Pid, snapshot.Pid }.Order(), plan.WaitsFor.Select(blocker => blocker.Pid).Order());
        Assert.Equal("RowExclusiveLock", plan.WaitsFor.Single(blocker => blocker.Pid == writer.Pid).Mode);
        Assert.Contains(plan.Notes, note => note.StartsWith("Estimate: ", StringComparison.Ordinal));
        Assert.Contains(plan.Notes, note => note.Contains($"pid {writer.Pid} ", StringComparison.Ordinal) && note.EndsWith("likely to end soon.", StringComparison.Ordinal));
        await writer.CommitAsync(Token);
        await snapshot.CommitAsync(Token);
        IndexBuildResult result = await IndexBuilder.RunAsync(plan, bench.Sink, Token);
        Assert.InRange(plan.EstimatedSizeBytes!.Value, result.SizeBytes * 0.7, result.SizeBytes * 1.4);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_plan_does_not_wait_for_ever_behind_an_access_exclusive_lock(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder alter = await LockHolder.HoldAsync(bench.Database, "lock table orders");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(new() { Table = "orders", Column = ["mail"] }));
        Assert.Equal(("LockNotAvailable", MigrationErrorKind.Busy), (e.ErrorId, e.Kind));
        Assert.Contains(e.Blockers, blocker => blocker.Pid == alter.Pid);
    }

    [Theory, EachMajor]
    public async Task Settings_hold_for_the_build_alone(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + """
            ; create function noted(v text) returns text immutable language plpgsql as $$
            begin raise notice 'seen % %', current_setting('maintenance_work_mem'), current_setting('max_parallel_maintenance_workers'); return v; end $$
            """);
        await bench.BuildAsync(new() { Table = "orders", Column = ["noted(mail)"], MaintenanceWorkMem = "77MB", ParallelWorkers = 0 });
        Assert.Equal("NOTICE: seen 77MB 0", Assert.Single(bench.Sink.VerboseMessages.Where(message => message.Contains("seen", StringComparison.Ordinal)).Distinct()));
    }

    [Theory, EachMajor]
    public async Task Whoever_is_in_the_way_for_too_long_is_dealt_with_as_asked(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        IndexBuildRequest request = new() { Table = "orders", Column = ["mail"], Options = new() { BlockerAction = BlockerAction.Cancel, BlockerGracePeriod = TimeSpan.FromSeconds(0.5) } };
        await using LockHolder running = await LockHolder.HoldAsync(bench.Database, "insert into orders values (0)");
        Task sleep = running.Connection.ExecuteAsync("select pg_sleep(60)", Token);
        Assert.Equal(IndexBuildOutcome.Built, (await bench.BuildAsync(request)).Outcome);
        Assert.Equal("57014", (await Assert.ThrowsAsync<Npgsql.PostgresException>(() => sleep)).SqlState);
        Assert.Contains(bench.Sink.Warnings, warning => warning.Contains($"asked the server to cancel the statement of pid {running.Pid} ", StringComparison.Ordinal));

        await using LockHolder idle = await LockHolder.HoldAsync(bench.Database, "insert into orders values (-1)");
        Task<IndexBuildResult> build = bench.BuildAsync(request with { Column = ["id"] });
        await Wait.UntilAsync(() => bench.Sink.Warnings.Any(warning => warning.Contains($"pid {idle.Pid} ", StringComparison.Ordinal) && warning.Contains("left alone: it runs nothing", StringComparison.Ordinal)), "the idle one to be left alone", cancellationToken: Token);
        await idle.CommitAsync(Token);
        IndexBuildResult result = await build;
        Assert.True(result.WriterWaitTime > TimeSpan.Zero && result.SnapshotWaitTime == TimeSpan.Zero && result.QueueWaitTime == TimeSpan.Zero && result.WaitTime >= result.WriterWaitTime, result.ToString());

        await using LockHolder ended = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        result = await bench.BuildAsync(request with { Column = ["created_at"], Options = request.Options with { BlockerAction = BlockerAction.Terminate } });
        Assert.Equal(IndexBuildOutcome.Built, result.Outcome);
        Assert.True(result.SnapshotWaitTime > TimeSpan.Zero, result.ToString());
        Assert.Contains(bench.Sink.Warnings, warning => warning.Contains($"asked the server to end pid {ended.Pid} ", StringComparison.Ordinal));
    }

    [Theory, EachMajor]
    public async Task Sessions_of_this_module_are_never_ended(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using Npgsql.NpgsqlConnection own = await bench.Session.OpenAsync("other", bench.Sink, Token);
        await using Npgsql.NpgsqlTransaction transaction = await own.BeginTransactionAsync(Token);
        await own.ExecuteAsync("insert into orders values (0)", Token);
        Task<IndexBuildResult> build = bench.BuildAsync(new() { Table = "orders", Column = ["mail"], Options = new() { BlockerAction = BlockerAction.Terminate, BlockerGracePeriod = TimeSpan.FromSeconds(0.3) } });
        await Wait.UntilAsync(() => bench.Sink.Warnings.Any(warning => warning.Contains("left alone: it is a session of this module", StringComparison.Ordinal)), "it to be left alone", cancellationToken: Token);
        await transaction.CommitAsync(Token);
        Assert.Equal(IndexBuildOutcome.Built, (await build).Outcome);
    }
}
