using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

public sealed class HistoryTests(Servers servers)
{
    private const string Orders = "create table orders (id int primary key, tier text, n int); insert into orders select i from generate_series(1, 5000) i";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task An_index_build_is_recorded_with_who_what_and_how_long(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        IndexBuildResult result = await BuildAsync(bench, new() { Table = "orders", Column = ["tier"] });

        MigrationOperation entry = Assert.Single(await ReadAsync(bench.Session));
        Assert.Equal((1, "IndexBuild", "Build index orders_tier_idx", "public.orders"), (entry.Id, entry.Operation, entry.Action, entry.Target));
        Assert.Equal(("public", "orders", OperationOutcome.Succeeded), (entry.Schema, entry.Table, entry.Outcome));
        Assert.Equal((bench.Session.Info.User, Environment.UserName, Environment.MachineName), (entry.User, entry.SystemUser, entry.ComputerName));
        Assert.StartsWith("MigrationSafety ", entry.Application, StringComparison.Ordinal);
        Assert.Equal(entry.FinishedAt - entry.StartedAt, entry.Duration);
        Assert.InRange(entry.Duration, result.Duration, result.Duration + TimeSpan.FromSeconds(30));
        Assert.Equal((bench.Session.Info.Server, bench.Session.Info.Port, bench.Database.Name), (entry.Server, entry.Port, entry.Database));
        Assert.Null(entry.Message);
        // All that a step holds comes back, its reversal among it.
        MigrationStep ran = Assert.Single(result.Steps);
        MigrationStep read = Assert.Single(entry.Steps);
        Assert.Equal(ran with { Objects = read.Objects, LockWaits = read.LockWaits, StartedAt = read.StartedAt, Duration = read.Duration }, read);
        Assert.Equal(ran.Objects, read.Objects);
        Assert.InRange((ran.Duration - read.Duration).Duration(), TimeSpan.Zero, TimeSpan.FromMicroseconds(1));
        Assert.InRange(read.StartedAt!.Value, entry.StartedAt, entry.FinishedAt!.Value);
        Assert.Equal(RollbackGenerator.FromSteps("x", result.Steps).Text, RollbackGenerator.FromSteps("x", entry.Steps).Text);
        Assert.Equal(Reversibility.Reversible, entry.Reversibility);
        await bench.AssertNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task Phases_and_lock_waits_are_recorded(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        LockHolder writer = await LockHolder.HoldAsync(bench.Database, "update orders set n = 1 where id = 1");
        int pid = writer.Connection.ProcessID;
        Task<IndexBuildResult> building = BuildAsync(bench, new() { Table = "orders", Column = ["tier"] });
        await bench.UntilPhaseAsync("waiting for writers before build");
        await Wait.UntilAsync(() => bench.Sink.VerboseMessages.Any(message => message.Contains($"pid {pid}", StringComparison.Ordinal)), "the blocker to be seen", cancellationToken: Token);
        // While it runs, it says so: also to another session, and with the step that is at work.
        MigrationOperation running = Assert.Single(await ReadAsync(await bench.SessionAsync(db => db.ConnectionString)));
        Assert.Equal((OperationOutcome.Running, null), (running.Outcome, running.FinishedAt));
        Assert.Equal(await bench.Database.ScalarAsync<DateTime>($"select backend_start from pg_stat_activity where pid = {running.Pid}", Token), running.BackendStart!.Value.UtcDateTime);
        await Wait.UntilAsync(
            async () => (await ReadAsync(bench.Session))[0] is { Phases: [.., { Name: "waiting for writers before build" }], Steps: [{ StartedAt: not null }] }, "the phase to be written", cancellationToken: Token);
        await writer.DisposeAsync();
        await building;

        MigrationOperation entry = Assert.Single(await ReadAsync(bench.Session));
        OperationPhase phase = entry.Phases.Single(phase => phase.Name == "waiting for writers before build");
        Assert.Equal("CREATE INDEX CONCURRENTLY", phase.Command);
        Assert.True(phase.Duration > TimeSpan.Zero);
        Assert.True(phase.WaitTime > TimeSpan.Zero);
        LockWait wait = entry.Steps[0].LockWaits[0];
        // The end of his transaction is waited for, which is no lock of a mode.
        Assert.Equal((pid, null), (Assert.Single(wait.Blockers).Pid, wait.Blockers[0].Mode));
        Assert.True(wait.WaitTime > TimeSpan.Zero);
        Assert.InRange(wait.Start, entry.StartedAt, entry.FinishedAt!.Value);
        Assert.Equal(entry.Steps[0].LockWaits.Sum(w => w.WaitTime.TotalSeconds), entry.WaitTime.TotalSeconds, 0.001);
    }

    [Theory, EachMajor]
    public async Task A_backfill_is_recorded_with_its_samples(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders);
        BackfillResult result = await FillAsync(bench, BackfillBench.Request("orders", "tier", "'a'", batchSize: 100));

        MigrationOperation entry = Assert.Single(await ReadAsync(bench.Session));
        Assert.Equal(("Backfill", OperationOutcome.Succeeded, 5000L), (entry.Operation, entry.Outcome, entry.Rows));
        Assert.Equal(5000, entry.Samples.Sum(sample => sample.Rows));
        Assert.Equal(result.Batches, entry.Samples.Sum(sample => sample.Batches));
        Assert.All(entry.Samples, sample => Assert.True(sample.Interval > TimeSpan.Zero && (sample.Batches == 0 || sample.LongestBatch >= sample.BatchTime)));
        Assert.InRange(entry.Samples[^1].Time, entry.StartedAt, entry.FinishedAt!.Value);
        Assert.Equal(Reversibility.ReversibleWithDataLoss, entry.Reversibility);
        Assert.Equal(0, entry.Retries);
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task A_failure_is_recorded_with_its_error_and_a_stop_as_cancelled(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders + "; update orders set n = 7");
        MigrationException error = await Assert.ThrowsAsync<MigrationException>(() => BuildAsync(bench, new() { Table = "orders", Column = ["n"], Unique = true, SkipDuplicateCheck = true }));
        await using (await LockHolder.HoldAsync(bench.Database, "update orders set n = 1 where id = 1"))
        {
            using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(Token);
            Task<IndexBuildResult> building = BuildAsync(bench, new() { Table = "orders", Column = ["tier"] }, cancel.Token);
            await bench.UntilPhaseAsync("waiting for writers before build");
            await cancel.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => building);
        }

        IReadOnlyList<MigrationOperation> entries = await ReadAsync(bench.Session);
        Assert.Equal([OperationOutcome.Failed, OperationOutcome.Cancelled], entries.Select(entry => entry.Outcome));
        Assert.Equal((error.ErrorId, "23505", error.Message, error.RecommendedAction), (entries[0].ErrorId, entries[0].SqlState, entries[0].Message, entries[0].RecommendedAction));
        Assert.Contains(entries[0].Steps, step => step.State == StepState.Failed);
        Assert.Equal(StepState.Cancelled, entries[1].Steps[0].State);
        Assert.NotNull(entries[1].FinishedAt);
        await bench.AssertNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task Rows_so_far_do_not_wait_for_what_is_large_of_the_record(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders);
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("orders", "tier", "'a'", batchSize: 50) with { Throttle = new() { RowsPerSecond = 200 } });
        Task<BackfillResult> run = OperationLog.RunAsync(plan, bench.Sink, recorder => Backfill.RunAsync(plan, recorder, stop.Token), stop.Token);
        // What is large of the record follows later.
        await Wait.UntilAsync(async () => await ReadAsync(bench.Session) is [{ Rows: { } rows, Steps: [.., { StartedAt: not null }] } entry] && rows > entry.Samples.Sum(sample => sample.Rows), "a sign of life", cancellationToken: Token);
        // Of one whose client is gone the step lasted until it was last heard of.
        await bench.Database.ExecuteAsync(
            "insert into migration_safety.operation (operation, action, target, started_at, updated_at, steps) select operation, action, target, started_at, started_at + interval '20 seconds', steps from migration_safety.operation", Token);
        MigrationOperation gone = (await ReadAsync(bench.Session))[1];
        Assert.Equal((OperationOutcome.Interrupted, StepState.Failed), (gone.Outcome, gone.Steps[^1].State));
        Assert.InRange(gone.Steps[^1].Duration, TimeSpan.FromSeconds(5), TimeSpan.FromSeconds(20));
        await bench.Database.ExecuteAsync($"delete from migration_safety.operation where id = {gone.Id}", Token);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        MigrationOperation entry = Assert.Single(await ReadAsync(bench.Session));
        Assert.Equal(entry.Samples.Sum(sample => sample.Rows), entry.Rows);
        Assert.Equal((OperationOutcome.Cancelled, StepState.Cancelled), (entry.Outcome, entry.Steps[^1].State));
    }

    [Theory, EachMajor]
    public async Task Workers_side_by_side_have_phases_of_their_own_and_wait_at_the_same_time(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            """
            create table orders (id int, tier text) partition by range (id);
            create table orders_1 partition of orders for values from (0) to (100);
            create table orders_2 partition of orders for values from (100) to (200)
            """);
        LockHolder old = await LockHolder.HoldAsync(bench.Database, "insert into orders_1 values (1, 'a')", "insert into orders_2 values (101, 'b')");
        using SemaphoreSlim places = new(2);
        await places.WaitAsync(Token);
        await places.WaitAsync(Token);
        Task<IndexBuildResult> building = BuildAsync(bench, new() { Table = "orders", Column = ["tier"], Places = places });
        async Task UntilAsync(Func<MigrationOperation, bool> condition, string what) =>
            await Wait.UntilAsync(async () => await ReadAsync(bench.Session) is [{ } entry] && condition(entry), what, cancellationToken: Token);
        await UntilAsync(entry => entry.Phases.Any(phase => phase is { Name: "waiting for a free place", Command: null, Target: "public.orders" }), "the wait for a place to be noted");
        places.Release(2);
        await UntilAsync(entry => entry.Phases.Count(phase => phase.Name == "waiting for writers before build" && phase.WaitTime > TimeSpan.Zero) == 2, "both to wait");
        await old.DisposeAsync();
        await building;

        MigrationOperation entry = Assert.Single(await ReadAsync(bench.Session));
        // One each, although they were looked at in turns.
        OperationPhase[] waits = [.. entry.Phases.Where(phase => phase.Name == "waiting for writers before build")];
        Assert.Equal(2, waits.Length);
        Assert.True(waits[0].StartedAt + waits[0].Duration > waits[1].StartedAt, "They waited at the same time.");
        TimeSpan queued = entry.Phases.Single(phase => phase.Name == "waiting for a free place").WaitTime;
        LockWait[] blocked = [.. entry.Steps.SelectMany(step => step.LockWaits)];
        Assert.True(queued > TimeSpan.Zero);
        Assert.InRange(entry.WaitTime, queued + blocked.Max(wait => wait.WaitTime) - TimeSpan.FromMilliseconds(1), queued + (blocked.Max(wait => wait.Start + wait.WaitTime) - blocked.Min(wait => wait.Start)) + TimeSpan.FromMilliseconds(1));
        Assert.True(entry.WaitTime < queued + blocked.Aggregate(TimeSpan.Zero, (sum, wait) => sum + wait.WaitTime), "What overlaps counts once.");
    }

    [Theory, EachMajor]
    public async Task A_backfill_that_is_stopped_or_refuses_rows_says_what_is_left(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders + "; alter table orders add check (tier <> 'a7') not valid");
        BackfillRequest request = BackfillBench.Request("orders", "tier", "'a' || id", batchSize: 50) with { MaxErrors = 5 };
        Task<BackfillResult> run = FillAsync(bench, request with { Throttle = new() { RowsPerSecond = 200 } });
        await bench.UntilBatchesAsync(2, run);
        await BackfillControl.StopAsync(bench.Session, "public.orders.tier", TimeSpan.FromSeconds(30), bench.Sink, Token);
        await run;
        await FillAsync(bench, request);

        IReadOnlyList<MigrationOperation> entries = await ReadAsync(bench.Session);
        Assert.Equal([(OperationOutcome.Cancelled, "BackfillStopped"), (OperationOutcome.Succeeded, "RowsRefused")], entries.Select(entry => (entry.Outcome, entry.ErrorId!)));
        Assert.Contains("Resume-Backfill", entries[0].RecommendedAction, StringComparison.Ordinal);
        Assert.EndsWith("the server refused 1 row.", entries[1].Message, StringComparison.Ordinal);
        Assert.Equal(4999, entries.Sum(entry => entry.Rows));
    }

    [Theory, EachMajor]
    public async Task A_role_without_the_privilege_is_told_once_and_works_on(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        await bench.Database.ExecuteAsync($"revoke create on database {bench.Database.Name} from public; grant all on schema public to {role.Name}; alter table orders owner to {role.Name}", Token);
        EngineSession session = await bench.SessionAsync(db => new NpgsqlConnectionStringBuilder(db.ConnectionString) { Username = role.Name, Password = null }.ConnectionString);

        Assert.Equal(IndexBuildOutcome.Built, (await BuildAsync(bench, new() { Table = "orders", Column = ["tier"] }, session: session)).Outcome);
        Assert.Equal(IndexBuildOutcome.Built, (await BuildAsync(bench, new() { Table = "orders", Column = ["n"] }, session: session)).Outcome);
        Assert.Contains($"GRANT CREATE ON DATABASE {bench.Database.Name} TO {role.Name};", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);
        Assert.False(await SchemaExistsAsync(bench.Database));
        // Looking creates nothing and finds nothing.
        Assert.Empty(await ReadAsync(session));
        Assert.False(await SchemaExistsAsync(bench.Database));

        await BuildAsync(bench, new() { Table = "orders", Column = ["tier", "n"] });
        MigrationException denied = await Assert.ThrowsAsync<MigrationException>(() => ReadAsync(session));
        Assert.Equal("HistoryDenied", denied.ErrorId);
        string grant = denied.RecommendedAction[(denied.RecommendedAction.IndexOf(':', StringComparison.Ordinal) + 1)..];
        await bench.Database.ExecuteAsync(grant, Token);
        Assert.Single(await ReadAsync(session));

        // What the warning asks for is enough.
        EngineSession another = await bench.SessionAsync(db => new NpgsqlConnectionStringBuilder(db.ConnectionString) { Username = role.Name, Password = null }.ConnectionString);
        await BuildAsync(bench, new() { Table = "orders", Column = ["n", "tier"] }, session: another);
        string warning = bench.Sink.Warnings.Last();
        await bench.Database.ExecuteAsync(warning[(warning.LastIndexOf(':') + 1)..], Token);
        await BuildAsync(bench, new() { Table = "orders", Column = ["n", "id"] }, session: another);
        Assert.Equal(2, (await ReadAsync(session)).Count);
    }

    [Theory, EachMajor]
    public async Task A_table_is_found_by_its_name_as_it_stands_too(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table \"Order\" (id int)");
        await BuildAsync(bench, new() { Table = "Order", Column = ["id"] });

        foreach (string name in (string[])["Order", "public.Order", "\"Order\"", "public.\"Order\""])
        {
            Assert.Single(await ReadAsync(bench.Session, new() { Table = name }));
        }

        Assert.Empty(await ReadAsync(bench.Session, new() { Table = "order" }));

        // So is the schema.
        await bench.Database.ExecuteAsync("create schema \"Shop\"; create table \"Shop\".items (id int)", Token);
        await BuildAsync(bench, new() { Table = "\"Shop\".items", Column = ["id"] });
        foreach (string name in (string[])["Shop.items", "\"Shop\".items", "items"])
        {
            Assert.Single(await ReadAsync(bench.Session, new() { Table = name }));
        }

        Assert.Empty(await ReadAsync(bench.Session, new() { Table = "shop.items" }));
    }

    [Theory, EachMajor]
    public async Task Many_clients_make_the_log_at_the_same_time(int major)
    {
        const int Clients = 8;
        string tables = string.Concat(Enumerable.Range(0, Clients).Select(i => $"create table t{i} (a int);"));
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, tables);
        EngineSession[] sessions = await Task.WhenAll(Enumerable.Range(0, Clients).Select(_ => bench.SessionAsync(db => db.ConnectionString)));
        await Task.WhenAll(sessions.Select((session, i) => BuildAsync(bench, new() { Table = $"t{i}", Column = ["a"] }, session: session)));
        Assert.Equal(Clients, (await ReadAsync(bench.Session)).Count(entry => entry.Outcome == OperationOutcome.Succeeded));
        Assert.Empty(bench.Sink.Warnings);
    }

    [Theory, EachMajor]
    public async Task The_schema_of_an_older_version_is_upgraded_in_place(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Orders);
        // Version 0.1 without a log: the backfill makes schema and checkpoints.
        await bench.RunAsync(BackfillBench.Request("orders", "tier", "'a'"));
        Assert.Empty(await ReadAsync(bench.Session));
        await FillAsync(bench, BackfillBench.Request("orders", "n", "1"));
        Assert.Single(await ReadAsync(bench.Session));

        await bench.Database.ExecuteAsync("alter table migration_safety.operation drop column samples, drop column advice, drop column retries", Token);
        await FillAsync(bench, BackfillBench.Request("orders", "n", "2", where: "n = 1") with { Name = "another" });
        IReadOnlyList<MigrationOperation> entries = await ReadAsync(bench.Session);
        Assert.Equal(2, entries.Count);
        Assert.Empty(entries[0].Samples);
        Assert.NotEmpty(entries[1].Samples);
        Assert.Equal(3L, await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill where state = 'completed'"));
    }

    [Theory, EachMajor]
    public async Task A_log_that_cannot_be_written_never_stops_the_work(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await BuildAsync(bench, new() { Table = "orders", Column = ["tier"] });
        await using (await LockHolder.HoldAsync(bench.Database, "lock table migration_safety.operation in access exclusive mode"))
        {
            Assert.Equal(IndexBuildOutcome.Built, (await BuildAsync(bench, new() { Table = "orders", Column = ["n"] })).Outcome);
        }

        Assert.Contains("without being recorded", Assert.Single(bench.Sink.Warnings), StringComparison.Ordinal);
        Assert.Single(await ReadAsync(bench.Session));
    }

    [Theory, EachMajor]
    public async Task A_database_without_an_encoding_takes_any_letters(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "select 1");
        string name = $"{bench.Database.Name}_ascii";
        await bench.Database.ExecuteAsync($"create database {name} encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0", Token);
        try
        {
            await using (NpgsqlConnection connection = new($"{bench.Database.Server.ConnectionString(name)};Pooling=false"))
            {
                await connection.OpenAsync(Token);
                await connection.ExecuteAsync($"create schema \"größe\"; create table \"größe\".\"kürbis\" (id int primary key, v text); insert into \"größe\".\"kürbis\" values (1); alter database {name} set search_path = \"größe\"", Token);
            }

            EngineSession session = await bench.SessionAsync(db => $"{db.Server.ConnectionString(name)};Pooling=false");
            BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("\"kürbis\"", "v", "'süß'"), session);
            await OperationLog.RunAsync(plan, bench.Sink, recorder => Backfill.RunAsync(plan, recorder, Token), Token);
            MigrationOperation entry = Assert.Single(await ReadAsync(session));
            Assert.Equal((OperationOutcome.Succeeded, "größe.kürbis"), (entry.Outcome, entry.Target.Replace("\"", "", StringComparison.Ordinal)));
            Assert.Contains("'süß'", entry.Steps[^1].Sql, StringComparison.Ordinal);
            Assert.DoesNotContain(bench.Sink.Warnings, warning => warning.Contains("recorded", StringComparison.Ordinal));
        }
        finally
        {
            await bench.Database.ExecuteAsync($"drop database {name} with (force)", CancellationToken.None);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task An_entry_that_comes_too_late_is_taken_back(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await BuildAsync(bench, new() { Table = "orders", Column = ["tier"] });
        await using TcpProxy proxy = await BuildWhileTheLogIsLateAsync(bench, user: null);

        // Else it would tell for ever of a build that was broken off before its first step.
        await Wait.UntilAsync(
            () => bench.Database.ScalarAsync<bool>("select count(*) = 1 and pg_sequence_last_value(pg_get_serial_sequence('migration_safety.operation', 'id')::regclass) = 2 from migration_safety.operation", Token),
            "the late entry to be taken back",
            cancellationToken: Token);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task An_entry_that_comes_too_late_says_so_where_it_cannot_be_taken_back(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        await BuildAsync(bench, new() { Table = "orders", Column = ["tier"] });
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        await bench.Database.ExecuteAsync(
            $"alter table orders owner to {role.Name}; grant create on schema public to {role.Name}; grant usage on schema migration_safety to {role.Name}; grant select, insert, update on migration_safety.operation to {role.Name}", Token);
        await using TcpProxy proxy = await BuildWhileTheLogIsLateAsync(bench, role.Name);

        await Wait.UntilAsync(async () => (await ReadAsync(bench.Session)).Any(entry => entry.Message?.Contains("too late", StringComparison.Ordinal) == true), "the entry to say so", cancellationToken: Token);
        Assert.Empty((await ReadAsync(bench.Session)).Single(entry => entry.Message is not null).Steps);
    }

    [Theory, EachMajor]
    public async Task An_end_is_recorded_when_the_log_is_free_again(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        LockHolder writer = await LockHolder.HoldAsync(bench.Database, "update orders set n = 1 where id = 1");
        Task<IndexBuildResult> building = BuildAsync(bench, new() { Table = "orders", Column = ["tier"] });
        await bench.UntilPhaseAsync("waiting for writers before build");
        await using (LockHolder locked = await LockHolder.HoldAsync(bench.Database, "lock table migration_safety.operation in access exclusive mode"))
        {
            await writer.DisposeAsync();
            await Wait.UntilAsync(() => bench.Sink.VerboseMessages.Any(m => m.Contains("could not be recorded, tries again", StringComparison.Ordinal)), "the log to be asked in vain", cancellationToken: Token);
        }

        await building;
        Assert.Equal(OperationOutcome.Succeeded, Assert.Single(await ReadAsync(bench.Session)).Outcome);
        Assert.Empty(bench.Sink.Warnings);
    }

    [Theory, EachMajor]
    public async Task A_lost_connection_of_the_log_is_replaced(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Orders);
        LockHolder writer = await LockHolder.HoldAsync(bench.Database, "update orders set n = 1 where id = 1");
        Task<IndexBuildResult> building = BuildAsync(bench, new() { Table = "orders", Column = ["tier"] });
        await bench.UntilPhaseAsync("waiting for writers before build");
        MigrationOperation before = Assert.Single(await ReadAsync(bench.Session));
        await bench.Database.ExecuteAsync($"select pg_terminate_backend({before.Pid})", Token);
        await writer.DisposeAsync();
        await building;
        Assert.Equal(OperationOutcome.Succeeded, Assert.Single(await ReadAsync(bench.Session)).Outcome);
        Assert.Empty(bench.Sink.Warnings);
        await bench.AssertNothingHeldAsync();
    }

    private static async Task<IReadOnlyList<MigrationOperation>> ReadAsync(EngineSession session, HistoryFilter? filter = null) =>
        await HistoryReader.ReadAsync(session, filter ?? new(), new RecordingSink(), Token);

    private static async Task<bool> SchemaExistsAsync(TestDatabase database) =>
        await database.ScalarAsync<bool>("select exists (select from pg_namespace where nspname = 'migration_safety')", Token);

    private static async Task<IndexBuildResult> BuildAsync(IndexBench bench, IndexBuildRequest request, CancellationToken? cancellationToken = null, EngineSession? session = null)
    {
        CancellationToken token = cancellationToken ?? Token;
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(session ?? bench.Session, request, bench.Sink, Token);
        return await OperationLog.RunAsync(plan, bench.Sink, recorder => IndexBuilder.RunAsync(plan, recorder, token), token);
    }

    /// <summary>Builds an index of n over a network on which the log is given up, and answers then.</summary>
    /// <returns>The way to the server, which the log's late answer takes.</returns>
    private static async Task<TcpProxy> BuildWhileTheLogIsLateAsync(IndexBench bench, string? user)
    {
        TcpProxy proxy = TcpProxy.Start(bench.Database.Server);
        EngineSession session = await bench.SessionAsync(db => proxy.ConnectionString(db) + (user is null ? "" : $";Username={user}"));
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(session, new() { Table = "orders", Column = ["n"] }, bench.Sink, Token);
        proxy.Freeze();
        Task<IndexBuildResult> building = OperationLog.RunAsync(plan, bench.Sink, recorder => IndexBuilder.RunAsync(plan, recorder, Token), Token);
        await Wait.UntilAsync(() => bench.Sink.Warnings.Any(m => m.Contains("without being recorded", StringComparison.Ordinal)), "the log to be given up", cancellationToken: Token);
        proxy.Thaw();
        Assert.Equal(IndexBuildOutcome.Built, (await building).Outcome);
        return proxy;
    }

    private static async Task<BackfillResult> FillAsync(BackfillBench bench, BackfillRequest request)
    {
        BackfillPlan plan = await bench.PlanAsync(request);
        return await OperationLog.RunAsync(plan, bench.Sink, recorder => Backfill.RunAsync(plan, recorder, Token), Token);
    }
}
