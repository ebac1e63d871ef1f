using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

public sealed class IndexTests(Servers servers)
{
    private const string Orders = """
        create table orders (id int primary key, tier text, "Total Sum" numeric, "order" int);
        insert into orders select i, 'tier ' || i % 7, i, i from generate_series(1, 1000) i;
        analyze orders
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task An_index_is_built_valid_and_described(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        IndexBuildPlan plan = await bench.PlanAsync(new() { Table = "orders", Column = ["tier"] });

        MigrationStep step = Assert.Single(plan.Steps);
        Assert.Equal("CREATE INDEX CONCURRENTLY orders_tier_idx ON public.orders (tier)", step.Sql);
        Assert.Equal("DROP INDEX CONCURRENTLY IF EXISTS public.orders_tier_idx", step.Reversal);
        Assert.Equal(Reversibility.Reversible, step.Reversibility);
        Assert.Equal(TableLockMode.ShareUpdateExclusive, step.LockMode);
        Assert.False(step.Transactional);
        Assert.Equal(StepCost.BuildsIndex, step.Cost);
        Assert.Equal(1000, plan.EstimatedRows);
        Assert.Empty(await bench.IndexesAsync("orders_tier_idx"));

        IndexBuildResult result = await IndexBuilder.RunAsync(plan, bench.Sink, Token);

        Assert.Equal(IndexBuildOutcome.Built, result.Outcome);
        Assert.Equal("orders_tier_idx", result.Name);
        Assert.Equal("public", result.Schema);
        Assert.Equal("CREATE INDEX orders_tier_idx ON public.orders USING btree (tier)", result.Definition);
        Assert.Equal(1, result.Attempts);
        Assert.True(result.SizeBytes > 0);
        Assert.Equal(StepState.Done, Assert.Single(result.Steps).State);
        Assert.Equal(["orders_tier_idx:valid"], await bench.IndexesAsync("orders_tier_idx"));
        await bench.AssertNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task The_same_again_is_already_valid_also_under_a_numbered_name(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; create table orders_tier_idx (); create index orders_tier_idx1 on orders (tier, id)");
        IndexBuildRequest request = new() { Table = "orders", Column = ["tier"] };
        Assert.Equal("orders_tier_idx2", (await bench.BuildAsync(request)).Name);

        IndexBuildPlan plan = await bench.PlanAsync(request);
        Assert.Empty(plan.Steps);
        IndexBuildResult again = await IndexBuilder.RunAsync(plan, bench.Sink, Token);
        Assert.Equal(IndexBuildOutcome.AlreadyValid, again.Outcome);
        Assert.Equal("orders_tier_idx2", again.Name);
        // What an earlier run built is still this migration's to take back, if it says so.
        MigrationStep skipped = Assert.Single(again.Steps);
        Assert.Equal((StepState.Skipped, "DROP INDEX CONCURRENTLY IF EXISTS public.orders_tier_idx2"), (skipped.State, skipped.Reversal));
        Assert.Equal(0, again.Attempts);
        Assert.Empty(bench.Sink.Warnings);
    }

    [Theory, EachMajor]
    public async Task A_result_names_its_table_so_that_the_next_command_finds_it(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, """create table "Order" ("Tier" int); create table "order" ("Tier" int)""");
        IndexBuildResult result = await bench.BuildAsync(new() { Table = "\"Order\"", Column = ["\"Tier\""] });
        Assert.Equal(("public", "\"Order\"", "\"Order_Tier_idx\""), (result.Schema, result.Table, result.Name));
        IndexBuildResult again = await bench.BuildAsync(new() { Schema = result.Schema, Table = result.Table, Name = result.Name, Column = ["\"Tier\""] });
        Assert.Equal(IndexBuildOutcome.AlreadyValid, again.Outcome);
    }

    [Theory, EachMajor]
    public async Task Names_are_chosen_as_the_server_chooses_them(int major)
    {
        const string Long = "a_table_with_a_name_that_is_nearly_as_long_as_postgres_allows_x";
        const string LongColumn = "and_a_column_that_is_just_as_long_as_its_table_to_be_cut_as_well";
        (string Table, string[] Columns)[] cases =
        [
            ("orders", ["tier"]),
            ("orders", ["tier", "Total Sum", "id"]),
            ("orders", ["tier", "tier"]),
            (Long, ["c"]),
            (Long, [LongColumn[..63]]),
            (Long, [LongColumn[..63], "c"]),
            ("t", [LongColumn[..63]]),
            ("Größenübersichtstabelle mit vielen Umläuten äöüäöüäöü", ["größenordnung äöüäöü"]),
            ("naïve", ["c"]),
        ];
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        foreach (string table in cases.Select(c => c.Table).Distinct().Where(t => t != "orders"))
        {
            string columns = string.Join(", ", cases.Where(c => c.Table == table).SelectMany(c => c.Columns).Distinct().Select(c => $"\"{c}\" int"));
            await bench.Database.ExecuteAsync($"create table \"{table}\" ({columns})", Token);
        }

        foreach ((string table, string[] columns) in cases)
        {
            IndexBuildRequest request = new() { Table = $"\"{table}\"", Column = [.. columns.Select(c => $"\"{c}\"")] };
            for (int round = 0; round < 2; round++)
            {
                string planned = (await bench.PlanAsync(request)).Name;
                string quoted = string.Join(", ", columns.Select(c => $"\"{c}\""));
                await bench.Database.ExecuteAsync($"create index on \"{table}\" ({quoted})", Token);
                string chosen = (await bench.Database.ScalarAsync<string>("select relname::text from pg_class where relkind = 'i' order by oid desc limit 1", Token))!;
                Assert.Equal(chosen, planned);
                // Under this name is now another definition: the next one is numbered.
                await bench.Database.ExecuteAsync($"drop index \"{chosen}\"; create index \"{chosen}\" on \"{table}\" ({quoted} desc)", Token);
            }
        }
    }

    [Theory, EachMajor]
    public async Task Names_that_need_quotes_get_them(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create schema \"My Schema\"; create table \"My Schema\".\"select\" (\"order\" int, \"Total \"\"Sum\"\"\" int)");
        IndexBuildResult result = await bench.BuildAsync(new() { Table = "\"select\"", Schema = "\"My Schema\"", Column = ["\"order\"", "Total \"Sum\""], Name = "\"Ix 1\"", Unique = true });
        Assert.Equal("CREATE UNIQUE INDEX CONCURRENTLY \"Ix 1\" ON \"My Schema\".\"select\" (\"order\", \"Total \"\"Sum\"\"\")", result.Steps[0].Sql);
        Assert.Equal(["Ix 1:valid"], await bench.IndexesAsync("Ix 1"));
        await bench.Database.ExecuteAsync(result.Steps[0].Reversal!, Token);
        Assert.Empty(await bench.IndexesAsync("Ix 1"));
    }

    [Theory, EachMajor]
    public async Task An_index_of_another_definition_is_never_taken_for_the_wanted_one(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        string[] others =
        [
            "create unique index ix on orders (tier, id)",
            "create index ix on orders (id, tier)",
            "create index ix on orders (tier, id) where id > 0",
            "create index ix on orders (tier desc, id)",
            "create index ix on orders (tier, id nulls first)",
            "create index ix on orders (tier text_pattern_ops, id)",
            "create index ix on orders (tier collate \"C\", id)",
            "create index ix on orders (tier) include (id)",
            "create index ix on orders (lower(tier), id)",
            "create index ix on orders using brin (tier, id)",
            "create table other (tier text, id int); create index ix on other (tier, id)",
        ];
        foreach (string other in others)
        {
            await bench.Database.ExecuteAsync(other, Token);
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(new() { Table = "orders", Column = ["tier", "id"], Name = "ix" }));
            Assert.Equal("IndexNameTaken", e.ErrorId);
            string definition = (await bench.Database.ScalarAsync<string>("select pg_get_indexdef('ix'::regclass)", Token))!;
            Assert.Contains(definition, e.Message, StringComparison.Ordinal);
            Assert.Contains("CREATE INDEX CONCURRENTLY ix ON public.orders (tier, id)", e.Message, StringComparison.Ordinal);
            await bench.Database.ExecuteAsync("drop index ix", Token);
        }

        if (major >= 15)
        {
            await bench.Database.ExecuteAsync("create unique index ix on orders (tier, id) nulls not distinct", Token);
            Assert.Equal("IndexNameTaken", (await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(new() { Table = "orders", Column = ["tier", "id"], Name = "ix", Unique = true }))).ErrorId);
            await bench.Database.ExecuteAsync("drop index ix", Token);
        }

        await bench.Database.ExecuteAsync("create view ix as select 1 as one", Token);
        MigrationException view = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(new() { Table = "orders", Column = ["tier"], Name = "ix" }));
        Assert.Equal("IndexNameTaken", view.ErrorId);
        Assert.Contains("a view", view.Message, StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task The_same_index_under_another_name_is_warned_of(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; create index by_tier on orders (tier) with (fillfactor = 80)");
        IndexBuildResult result = await bench.BuildAsync(new() { Table = "orders", Column = ["tier"] });
        Assert.Equal(IndexBuildOutcome.Built, result.Outcome);
        Assert.Contains(bench.Sink.Warnings, warning => warning.Contains("by_tier", StringComparison.Ordinal));
    }

    [Theory, EachMajor]
    public async Task An_invalid_leftover_is_removed_and_built_anew(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("create index concurrently orders_tier_idx on orders (tier)");
        IndexBuildPlan plan = await bench.PlanAsync(new() { Table = "orders", Column = ["tier"] });
        Assert.Equal("DROP INDEX CONCURRENTLY IF EXISTS public.orders_tier_idx", plan.Steps[0].Sql);
        Assert.Equal(Reversibility.NotNeeded, plan.Steps[0].Reversibility);
        Assert.Equal(2, plan.Steps.Count);

        IndexBuildResult result = await IndexBuilder.RunAsync(plan, bench.Sink, Token);
        Assert.Equal(IndexBuildOutcome.Rebuilt, result.Outcome);
        Assert.Equal([StepState.Done, StepState.Done], result.Steps.Select(step => step.State));
        Assert.Equal(["orders_tier_idx:valid"], await bench.IndexesAsync("orders_tier_idx"));
    }

    [Theory, EachMajor]
    public async Task An_invalid_leftover_of_another_definition_stays(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("create index concurrently ix on orders (id, tier)");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.BuildAsync(new() { Table = "orders", Column = ["tier"], Name = "ix" }));
        Assert.Equal("IndexNameTaken", e.ErrorId);
        Assert.Equal(["ix:invalid"], await bench.IndexesAsync("ix"));
    }

    [Theory, EachMajor]
    public async Task An_index_that_another_session_is_building_is_awaited_not_dropped(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        Task<int> theirs = bench.Database.ExecuteAsync("create index concurrently orders_tier_idx on orders (tier)", Token);
        await bench.UntilPhaseAsync("waiting for old snapshots");
        uint oid = await bench.Database.ScalarAsync<uint>("select 'orders_tier_idx'::regclass::oid", Token);

        Task<IndexBuildResult> ours = bench.BuildAsync(new() { Table = "orders", Column = ["tier"] });
        await Wait.UntilAsync(() => bench.Sink.Warnings.Any(warning => warning.Contains("being built already", StringComparison.Ordinal)), "the builder to be named", cancellationToken: Token);
        Assert.False(ours.IsCompleted);
        await old.CommitAsync(Token);
        await theirs;
        IndexBuildResult result = await ours;
        Assert.Equal(IndexBuildOutcome.AlreadyValid, result.Outcome);
        Assert.True(result.WaitTime > TimeSpan.Zero);
        Assert.Equal(oid, await bench.Database.ScalarAsync<uint>("select 'orders_tier_idx'::regclass::oid", Token));
    }

    [Theory, EachMajor]
    public async Task Waiting_for_another_builder_is_bounded(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        Task<int> theirs = bench.Database.ExecuteAsync("create index concurrently orders_tier_idx on orders (tier)", Token);
        await bench.UntilPhaseAsync("waiting for old snapshots");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(
            () => bench.BuildAsync(new() { Table = "orders", Column = ["tier"], Options = new() { WaitFor = TimeSpan.FromSeconds(0.5) } }));
        Assert.Equal("IndexBeingBuilt", e.ErrorId);
        Assert.NotEqual(0, Assert.Single(e.Blockers).Pid);
        await old.CommitAsync(Token);
        await theirs;
        Assert.Equal(["orders_tier_idx:valid"], await bench.IndexesAsync("orders_tier_idx"));
    }

    [Theory, EachMajor]
    public async Task What_cannot_be_built_is_refused_before_anything(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await RefusedAsync("ColumnNotFound", "tier", new() { Table = "orders", Column = ["teir"] });
        await RefusedAsync("ColumnNotFound", "teir", new() { Table = "orders", Column = ["lower(teir)"] });
        await RefusedAsync("ColumnNotFound", "plain column names only", new() { Table = "orders", Column = ["id"], Include = ["lower(tier)"] });
        await RefusedAsync("ColumnNotFound", "ctid", new() { Table = "orders", Column = ["ctid"] });
        await RefusedAsync("SyntaxError", "parentheses of its own", new() { Table = "orders", Column = ["id + 1"] });
        await RefusedAsync("InvalidSql", "IMMUTABLE", new() { Table = "orders", Column = ["(random())"] });
        await RefusedAsync("ObjectNotFound", "no_such_ops", new() { Table = "orders", Column = ["tier no_such_ops"] });
        await RefusedAsync("ObjectNotFound", "nonsense", new() { Table = "orders", Column = ["tier"], Method = "nonsense" });
        await RefusedAsync("NotSupported", "unique", new() { Table = "orders", Column = ["id"], Method = "brin", Unique = true });
        await RefusedAsync("InvalidExpression", "semicolon", new() { Table = "orders", Column = ["tier); drop table orders; --"] });
        await RefusedAsync("InvalidExpression", "closed", new() { Table = "orders", Column = ["tier"], Where = "tier = 'x" });
        await RefusedAsync("InvalidSetting", "maintenance_work_mem", new() { Table = "orders", Column = ["tier"], MaintenanceWorkMem = "much" });
        await RefusedAsync("ColumnCount", "1 to 32", new() { Table = "orders", Column = [] });
        await RefusedAsync("TableNotFound", "no table", new() { Table = "nothing", Column = ["tier"] });
        await RefusedAsync("InvalidName", "63 bytes", new() { Table = "orders", Column = ["tier"], Name = new string('ä', 32) });
        await RefusedAsync("SchemaContradicts", "schema", new() { Table = "orders", Column = ["tier"], Name = "pg_catalog.ix" });
        await RefusedAsync("TableKindNotSupported", "system catalog", new() { Table = "pg_catalog.pg_class", Column = ["relname"] });

        async Task RefusedAsync(string id, string words, IndexBuildRequest request)
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.PlanAsync(request));
            Assert.Equal(id, e.ErrorId);
            Assert.Contains(words, e.Message + e.RecommendedAction, StringComparison.Ordinal);
        }
    }

    [Theory, EachMajor]
    public async Task A_missing_privilege_is_told_before_anything(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        await bench.Database.ExecuteAsync($"create schema own; create table own.t (a int); alter table own.t owner to {stranger.Name}; grant usage on schema own to {stranger.Name}", Token);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));

        MigrationException notOwner = await Assert.ThrowsAsync<MigrationException>(() => IndexBuilder.PlanAsync(session, new() { Table = "public.orders", Column = ["tier"] }, bench.Sink, Token));
        Assert.Equal(("InsufficientPrivilege", MigrationErrorKind.Permission), (notOwner.ErrorId, notOwner.Kind));
        Assert.Contains("belongs to postgres", notOwner.Message, StringComparison.Ordinal);

        MigrationException noCreate = await Assert.ThrowsAsync<MigrationException>(() => IndexBuilder.PlanAsync(session, new() { Table = "own.t", Column = ["a"] }, bench.Sink, Token));
        Assert.Equal("InsufficientPrivilege", noCreate.ErrorId);
        Assert.Contains($"GRANT CREATE ON SCHEMA own TO {stranger.Name}", noCreate.RecommendedAction, StringComparison.Ordinal);

        // What the advice says is enough.
        await bench.Database.ExecuteAsync($"grant create on schema own to {stranger.Name}", Token);
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(session, new() { Table = "own.t", Column = ["a"] }, bench.Sink, Token);
        Assert.Equal(IndexBuildOutcome.Built, (await IndexBuilder.RunAsync(plan, bench.Sink, Token)).Outcome);
    }

    [Theory, EachMajor]
    public async Task A_server_that_corrupts_indexes_is_refused(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        MigrationSession real = bench.Session.Info;
        foreach ((Version version, bool refused) in new[] { (new Version(14, 0), true), (new Version(14, 3), true), (new Version(14, 4), false), (new Version(15, 0), false) })
        {
            bench.Session.Info = new MigrationSession(1, real.Server, real.Port, real.Database, real.User, version, isStandby: false, bench.Session);
            Exception? e = await Record.ExceptionAsync(() => bench.PlanAsync(new() { Table = "orders", Column = ["tier"] }));
            Assert.Equal(refused ? "ServerCorruptsIndexes" : null, (e as MigrationException)?.ErrorId);
        }

        bench.Session.Info = real;
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_standby_is_refused(int major)
    {
        await using PostgresServer primary = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using PostgresServer standby = await primary.StartStandbyAsync(cancellationToken: Token);
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = standby.ConnectionString() }, new RecordingSink(), Token);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(
            () => IndexBuilder.PlanAsync(EngineSession.Of(session), new() { Table = "orders", Column = ["tier"] }, new RecordingSink(), Token));
        Assert.Equal("PrimaryRequired", e.ErrorId);
        await SessionFactory.DisconnectAsync(session);
    }

    [Theory, EachMajor]
    public async Task A_plan_writes_nothing(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await bench.LeaveInvalidAsync("create index concurrently orders_tier_idx on orders (tier)");
        await bench.Database.ExecuteAsync($"alter database \"{bench.Database.Name}\" set default_transaction_read_only = on", Token);
        EngineSession readOnly = await bench.SessionAsync(db => db.ConnectionString);
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(readOnly, new() { Table = "orders", Column = ["tier"] }, bench.Sink, Token);
        Assert.Equal(2, plan.Steps.Count);
        Assert.Equal(["orders_tier_idx:invalid"], await bench.IndexesAsync("orders_tier_idx"));
    }

    [Theory, EachMajor]
    public async Task Progress_goes_through_the_phases_and_never_back(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            """
            create table big (id int, v text);
            insert into big select i, md5(i::text) from generate_series(1, 100000) i;
            create function gate(i int) returns int immutable language plpgsql as
                'begin if i = 50000 then perform pg_catalog.pg_advisory_xact_lock_shared(42); end if; return i; end';
            analyze big;
            """);
        await using LockHolder writer = await LockHolder.HoldAsync(bench.Database, "insert into big values (0, 'x')");
        await using LockHolder reader = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, "select pg_advisory_xact_lock(42)");
        Task<IndexBuildResult> build = bench.BuildAsync(new() { Table = "big", Column = ["v", "gate(id)"], Name = "big_v_id_idx" });
        await UntilAsync("waiting for writers before build", writer.Pid);
        await writer.CommitAsync(Token);
        await UntilAsync("building index", gate.Pid);
        await gate.CommitAsync(Token);
        await UntilAsync("waiting for old snapshots", reader.Pid);
        await reader.CommitAsync(Token);
        IndexBuildResult result = await build;

        OperationProgress[] seen = [.. bench.Sink.ProgressRecords];
        Assert.All(seen, progress => Assert.Equal("Building index public.big_v_id_idx", progress.Activity));
        double[] percents = [.. seen.Select(progress => progress.Percent).OfType<double>()];
        Assert.Equal(percents.Order(), percents);
        Assert.Equal(100, percents[^1]);
        Assert.True(seen[^1].Completed);
        Assert.Contains(seen, progress => progress.Status.Contains("building index", StringComparison.Ordinal));
        Assert.Contains(seen, progress => progress.Status.StartsWith("8/8", StringComparison.Ordinal) && progress.CurrentOperation is not null);

        LockWait[] waits = Assert.Single(result.Steps).LockWaits;
        Assert.Contains(waits, wait => wait.Queued && wait.Blockers.Any(blocker => blocker.Pid == writer.Pid));
        Assert.Contains(waits, wait => wait.Queued && wait.Blockers.Any(blocker => blocker.Pid == reader.Pid));
        Assert.True(result.WaitTime > TimeSpan.Zero && result.WaitTime < result.Duration);

        Task UntilAsync(string phase, int pid) => Wait.UntilAsync(
            () => bench.Sink.ProgressRecords.Any(p => p.Status.Contains(phase, StringComparison.Ordinal) && p.CurrentOperation?.Contains($"pid {pid} ", StringComparison.Ordinal) == true)
                && bench.Sink.VerboseMessages.Any(message => message.Contains($"waits for pid {pid} ", StringComparison.Ordinal)),
            $"{phase} for pid {pid}",
            cancellationToken: Token);
    }

    [Theory, EachMajor]
    public async Task The_wait_for_old_transactions_is_bounded_and_leaves_nothing(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(
            () => bench.BuildAsync(new() { Table = "orders", Column = ["tier"], Options = new() { WaitFor = TimeSpan.FromSeconds(1) } }));
        Assert.Equal("WaitedTooLong", e.ErrorId);
        Assert.Contains($"pid {old.Pid} ", e.Message, StringComparison.Ordinal);
        Assert.Equal(old.Pid, Assert.Single(e.Blockers).Pid);
        Assert.Equal(StepState.Failed, Assert.Single(e.Steps, step => step.Cost == StepCost.BuildsIndex).State);
        Assert.Empty(await bench.IndexesAsync("orders_tier_idx"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_leftover_that_cannot_be_removed_in_time_is_named(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        // It holds a lock on the table as well: dropping waits for that.
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select count(*) from orders");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(
            () => bench.BuildAsync(new() { Table = "orders", Column = ["tier"], Options = new() { WaitFor = TimeSpan.FromSeconds(0.5) } }));
        Assert.Equal("WaitedTooLong", e.ErrorId);
        Assert.Contains("invalid index public.orders_tier_idx is left", e.Message, StringComparison.Ordinal);
        Assert.Equal(["orders_tier_idx:invalid"], await bench.IndexesAsync("orders_tier_idx"));
        await old.CommitAsync(Token);
        Assert.Equal(IndexBuildOutcome.Rebuilt, (await bench.BuildAsync(new() { Table = "orders", Column = ["tier"] })).Outcome);
        Assert.Equal(["orders_tier_idx:valid"], await bench.IndexesAsync("orders_tier_idx"));
    }

    [Theory, EachMajor]
    public async Task Duplicates_are_told_and_leave_nothing(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => bench.BuildAsync(new() { Table = "orders", Column = ["tier"], Unique = true, SkipDuplicateCheck = true }));
        Assert.Equal(("DuplicateKey", "23505"), (e.ErrorId, e.SqlState));
        Assert.Contains("(tier)=(tier ", e.Message, StringComparison.Ordinal);
        Assert.Equal(1, Assert.Single(e.Steps, step => step.Cost == StepCost.BuildsIndex).Attempts);
        Assert.Empty(await bench.IndexesAsync("orders_tier_idx"));
        await bench.AssertNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task Two_builds_on_one_table_queue_and_both_end_valid(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "select 1");
        Task<IndexBuildResult> first = bench.BuildAsync(new() { Table = "orders", Column = ["tier"] });
        await bench.UntilPhaseAsync("waiting for old snapshots");
        Task<IndexBuildResult> second = bench.BuildAsync(new() { Table = "orders", Column = ["order", "id"] });
        await Wait.UntilAsync(() => bench.Sink.Warnings.Any(warning => warning.Contains("waiting for pid", StringComparison.Ordinal)), "the second to be told whose turn it is", cancellationToken: Token);
        await old.CommitAsync(Token);
        Assert.Equal(IndexBuildOutcome.Built, (await first).Outcome);
        Assert.Equal(IndexBuildOutcome.Built, (await second).Outcome);
        Assert.Equal(["orders_order_id_idx:valid", "orders_tier_idx:valid"], await bench.IndexesAsync("orders_tier_idx", "orders_order_id_idx"));
        await bench.AssertNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task No_writer_waits_while_a_long_transaction_is_in_the_way(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        using CancellationTokenSource stop = new();
        TimeSpan worst = TimeSpan.Zero;
        int writes = 0;
        Task probe = Task.Run(
            async () =>
            {
                while (!stop.IsCancellationRequested)
                {
                    long start = Stopwatch.GetTimestamp();
                    await bench.Database.ExecuteAsync("update orders set tier = 'other' where id = 7; insert into orders select max(id) + 1, 'new' from orders; select count(*) from orders", Token);
                    worst = Stopwatch.GetElapsedTime(start) > worst ? Stopwatch.GetElapsedTime(start) : worst;
                    writes++;
                    await Task.Delay(5, Token);
                }
            },
            Token);
        Task<IndexBuildResult> build;
        await using (LockHolder old = await LockHolder.HoldAsync(bench.Database, "set transaction isolation level repeatable read", "update orders set tier = 'x' where id = 1"))
        {
            build = bench.BuildAsync(new() { Table = "orders", Column = ["tier"] });
            await old.Connection.ExecuteAsync("select pg_sleep(3)", Token);
            await old.CommitAsync(Token);
        }

        Assert.Equal(IndexBuildOutcome.Built, (await build).Outcome);
        await stop.CancelAsync();
        await probe;
        Assert.True(writes > 50, $"only {writes} writes");
        Assert.True(worst < TimeSpan.FromMilliseconds(600), $"a writer took {worst}");
    }
}
