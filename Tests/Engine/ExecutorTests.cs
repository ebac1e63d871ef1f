using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

public sealed class ExecutorTests(Servers servers)
{
    private static readonly ExecutionOptions s_impatient = new()
    {
        LockTimeout = TimeSpan.FromMilliseconds(100),
        LookFor = TimeSpan.FromMilliseconds(200),
        RetryFor = TimeSpan.FromSeconds(60),
    };

    private readonly RecordingSink _sink = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static MigrationStep AddColumn => new()
    {
        Sql = "alter table public.orders add column tier text",
        Purpose = "Add the column",
        LockMode = TableLockMode.AccessExclusive,
        Objects = ["public.orders"],
    };

    private static MigrationStep Build => new()
    {
        Sql = "create index concurrently orders_total_idx on orders (total)",
        Purpose = "Build the index",
        LockMode = TableLockMode.ShareUpdateExclusive,
        Objects = ["public.orders"],
        Transactional = false,
        Cost = StepCost.BuildsIndex,
    };

    /// <summary>Each way in which an application, or the server itself, can be in the way of an ACCESS EXCLUSIVE lock.</summary>
    public static TheoryData<string, string[], string> Conflicts => new()
    {
        { "a reader", ["select * from orders"], "AccessShareLock" },
        { "a writer", ["insert into orders (id) values (1000)"], "RowExclusiveLock" },
        { "a row lock", ["select * from orders where id = 1 for update"], "RowShareLock" },
        { "an explicit lock", ["lock table orders in share mode"], "ShareLock" },
        { "an open cursor", ["declare c cursor for select * from orders", "fetch 1 from c"], "AccessShareLock" },
        { "a repeatable read snapshot on the table", ["set transaction isolation level repeatable read", "select * from orders"], "AccessShareLock" },
    };

    [Theory, EachMajor]
    public async Task A_clear_way_takes_one_attempt(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        MigrationStep step = await RunAsync(db, AddColumn, new ExecutionOptions());
        Assert.Equal((StepState.Done, 1), (step.State, step.Attempts));
        Assert.Empty(step.LockWaits);
        Assert.True(await HasTierAsync(db));
        Assert.Contains(AddColumn.Sql, _sink.DebugMessages);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task It_does_not_queue_while_somebody_is_in_the_way(int major)
    {
        foreach (TheoryDataRow<string, string[], string> conflict in Conflicts)
        {
            (string what, string[] sql, string mode) = conflict.Data;
            await using TestDatabase db = await NewDatabaseAsync(major);
            await using LockHolder holder = await HoldForLongAsync(db, sql);
            Task<MigrationStep> running = RunAsync(db, AddColumn, new ExecutionOptions { LookFor = TimeSpan.FromMinutes(5) });
            await Wait.UntilAsync(() => _sink.VerboseMessages.Any(message => message.Contains($"pid {holder.Pid} (", StringComparison.Ordinal)), $"{what} is seen", cancellationToken: Token);

            // A reader that queues behind us would time out at once.
            for (int i = 0; i < 20; i++)
            {
                await db.ExecuteAsync("set lock_timeout = '1ms'; select * from orders limit 1; reset lock_timeout", Token);
            }

            await holder.RollbackAsync(Token);
            MigrationStep step = await running;
            Assert.Equal((StepState.Done, 1), (step.State, step.Attempts));
            LockWait wait = Assert.Single(step.LockWaits);
            Assert.False(wait.Queued);
            LockBlocker blocker = Assert.Single(wait.Blockers);
            Assert.Equal((holder.Pid, "postgres", "lock-holder", "idle in transaction", "public.orders"), (blocker.Pid, blocker.User, blocker.Application, blocker.State, Qualified(blocker.Relation)));
            Assert.Contains(mode, new[] { blocker.Mode }.Concat(AllModes(wait)));
            Assert.True(blocker.Granted);
        }
    }

    [Theory, EachMajor]
    public async Task It_queues_for_the_lock_timeout_and_tries_again(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "select * from orders");
        Task<MigrationStep> running = RunAsync(db, AddColumn, s_impatient);
        await Wait.UntilAsync(() => _sink.VerboseMessages.Any(message => message.Contains("attempt 2 did not", StringComparison.Ordinal)), "a second attempt", cancellationToken: Token);

        // Whoever queues behind us is let through within the lock timeout: without it this waits for ever.
        await db.ExecuteAsync("set lock_timeout = '10s'; select * from orders; reset lock_timeout", Token);
        await holder.CommitAsync(Token);
        MigrationStep step = await running;
        Assert.Equal(StepState.Done, step.State);
        Assert.True(step.Attempts >= 3, $"{step.Attempts} attempts");
        Assert.Contains(step.LockWaits, wait => wait.Queued && wait.Blockers.Single().Pid == holder.Pid);
        Assert.True(await HasTierAsync(db));
    }

    [Theory, EachMajor]
    public async Task Given_up_it_names_who_was_in_the_way_and_changed_nothing(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "update orders set total = 7 where id = 1");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => RunAsync(db, AddColumn, s_impatient with { RetryFor = TimeSpan.FromSeconds(1) }));
        Assert.Equal(("LockNotAvailable", MigrationErrorKind.Busy, "55P03"), (e.ErrorId, e.Kind, e.SqlState));
        LockBlocker blocker = Assert.Single(e.Blockers);
        Assert.Equal((holder.Pid, "lock-holder", "idle in transaction"), (blocker.Pid, blocker.Application, blocker.State));
        Assert.True(blocker.TransactionAge > TimeSpan.Zero);
        foreach (string expected in new[] { $"pid {holder.Pid}", "user postgres", "lock-holder", "idle in transaction", "transaction open for", "update orders set total = 7" })
        {
            Assert.Contains(expected, e.Message, StringComparison.Ordinal);
        }

        Assert.Equal(StepState.Failed, Assert.Single(e.Steps).State);
        Assert.False(await HasTierAsync(db));
    }

    [Theory, EachMajor]
    public async Task It_sees_a_session_that_queues_before_it(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await HoldForLongAsync(db, "select * from orders");
        await using NpgsqlConnection waiter = await db.OpenAsync(Token);
        await using NpgsqlCommand waiting = new("lock table orders in access exclusive mode", waiter);
        await using NpgsqlTransaction transaction = await waiter.BeginTransactionAsync(Token);
        Task queued = waiting.ExecuteNonQueryAsync(Token);
        await Wait.UntilAsync(async () => await db.ScalarAsync<long>("select count(*) from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())") == 1, "the waiter queues", cancellationToken: Token);
        await Wait.UntilAsync(async () => await db.ScalarAsync<bool>($"select clock_timestamp() - xact_start > interval '300 ms' from pg_stat_activity where pid = {waiter.ProcessID}"), "the waiter is no longer young", cancellationToken: Token);
        Task<MigrationStep> running = RunAsync(db, AddColumn, new ExecutionOptions { LookFor = TimeSpan.FromMinutes(5) });
        await Wait.UntilAsync(() => _sink.VerboseMessages.Any(message => message.Contains($"pid {waiter.ProcessID} (", StringComparison.Ordinal) && message.Contains("awaits AccessExclusiveLock", StringComparison.Ordinal)), "the waiter is seen", cancellationToken: Token);
        await holder.CommitAsync(Token);
        await queued;
        await transaction.RollbackAsync(Token);
        Assert.Equal(StepState.Done, (await running).State);
    }

    [Theory, EachMajor]
    public async Task It_sees_a_prepared_transaction(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await db.ExecuteAsync($"begin; insert into orders (id) values (1000); prepare transaction 'forgotten_{db.Name}'", Token);
        try
        {
            MigrationException looked = await Assert.ThrowsAsync<MigrationException>(() => RunAsync(db, AddColumn, s_impatient with { RetryFor = TimeSpan.FromSeconds(1) }));
            LockBlocker blocker = Assert.Single(looked.Blockers);
            Assert.Equal((0, "prepared", $"forgotten_{db.Name}"), (blocker.Pid, blocker.State, blocker.Query));
            Assert.Contains("prepared transaction", looked.Message, StringComparison.Ordinal);
        }
        finally
        {
            await db.ExecuteAsync($"rollback prepared 'forgotten_{db.Name}'", CancellationToken.None);
        }
    }

    [Theory, EachMajor]
    public async Task It_looks_at_partitions_and_at_the_parent_of_a_foreign_key(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await db.ExecuteAsync(
            """
            create table parted (id int, v int) partition by range (id);
            create table parted_1 partition of parted for values from (0) to (100);
            create table customers (id int primary key);
            alter table orders add column customer_id int constraint orders_customer references customers;
            """,
            Token);
        (string Holds, MigrationStep Step)[] cases =
        [
            ("select * from parted_1", AddColumn with { Sql = "alter table parted add column w int", Objects = ["public.parted"] }),
            ("select * from customers", AddColumn with { Sql = "alter table orders drop constraint orders_customer" }),
        ];
        foreach ((string holds, MigrationStep step) in cases)
        {
            await using LockHolder holder = await HoldForLongAsync(db, holds);
            Task<MigrationStep> running = RunAsync(db, step, new ExecutionOptions { LookFor = TimeSpan.FromMinutes(5) });
            await Wait.UntilAsync(() => _sink.VerboseMessages.Any(message => message.Contains($"in the way: pid {holder.Pid} (", StringComparison.Ordinal)), holds, cancellationToken: Token);
            await holder.CommitAsync(Token);
            Assert.Equal((StepState.Done, 1), ((await running).State, (await running).Attempts));
        }
    }

    [Theory, EachMajor]
    public async Task A_statement_with_several_locks_does_not_add_their_waits_up(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await db.ExecuteAsync("create table customers (id int primary key); alter table orders add column customer_id int", Token);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "insert into customers values (1)");
        MigrationStep step = new()
        {
            Sql = "alter table orders add constraint orders_customer foreign key (customer_id) references customers not valid",
            Purpose = "Add the foreign key",
            LockMode = TableLockMode.ShareRowExclusive,
            Objects = ["public.orders"],
        };
        Task<MigrationStep> running = RunAsync(db, step, s_impatient);
        await Wait.UntilAsync(() => _sink.VerboseMessages.Any(message => message.Contains("attempt 1 did not", StringComparison.Ordinal)), "a first attempt", cancellationToken: Token);

        // It holds orders while it queues for customers: a writer of orders gets through all the same.
        await db.ExecuteAsync("set lock_timeout = '10s'; insert into orders (id) values (2000); reset lock_timeout", Token);
        await holder.CommitAsync(Token);
        Assert.Equal(StepState.Done, (await running).State);
    }

    [Theory, EachMajor]
    public async Task A_statement_that_is_not_instant_is_cancelled_and_rolled_back(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        MigrationStep rewrite = AddColumn with { Sql = "alter table orders alter column total type text using (total::text || coalesce(pg_sleep(0.05)::text, ''))" };
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => RunAsync(db, rewrite, new ExecutionOptions { MaxHold = TimeSpan.FromMilliseconds(200) }));
        Assert.Equal("HeldTooLong", e.ErrorId);
        Assert.Contains("not an instant one", e.Message, StringComparison.Ordinal);
        Assert.Equal("integer", await db.ScalarAsync<string>("select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'orders'::regclass and attname = 'total'", Token));
    }

    [Theory, EachMajor]
    public async Task The_server_bounds_a_hold_even_if_the_client_is_frozen(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using TcpProxy proxy = TcpProxy.Start(db.Server);
        MigrationStep rewrite = AddColumn with { Sql = "alter table orders alter column total type text using (total::text || coalesce(pg_sleep(1)::text, ''))" };
        using CancellationTokenSource abandon = new();
        Task running = RunAsync(db, rewrite, new ExecutionOptions { MaxHold = TimeSpan.FromMilliseconds(200) }, proxy.ConnectionString(db), abandon.Token);
        await Wait.UntilAsync(async () => await db.ScalarAsync<long>("select count(*) from pg_locks where mode = 'AccessExclusiveLock' and relation = 'orders'::regclass") > 0, "the rewrite runs", cancellationToken: Token);
        proxy.Freeze();
        await Wait.UntilAsync(async () => await db.ScalarAsync<long>("select count(*) from pg_locks where mode = 'AccessExclusiveLock' and relation = 'orders'::regclass") == 0, "the server ends it", cancellationToken: Token);
        proxy.DropAll();
        await Assert.ThrowsAnyAsync<Exception>(() => running);
    }

    [Theory, EachMajor]
    public async Task Cancelling_ends_the_statement_on_the_server(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "select * from orders");
        using CancellationTokenSource stop = new();
        Task running = RunAsync(db, AddColumn, new ExecutionOptions { LockTimeout = TimeSpan.FromMinutes(5), LookFor = TimeSpan.Zero }, null, stop.Token);
        await Wait.UntilAsync(async () => await db.ScalarAsync<long>("select count(*) from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())") > 0, "the step queues", cancellationToken: Token);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running);
        await Wait.UntilAsync(async () => await db.ScalarAsync<long>("select count(*) from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())") == 0, "the queue is empty", TimeSpan.FromSeconds(2), Token);
    }

    [Theory, EachMajor]
    public async Task A_concurrent_build_waits_without_lock_timeout_and_WaitFor_bounds_it(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "set transaction isolation level repeatable read", "select 1");
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => RunAsync(db, Build, s_impatient with { WaitFor = TimeSpan.FromSeconds(1) }));
        Assert.Equal("WaitedTooLong", e.ErrorId);
        Assert.Equal(holder.Pid, Assert.Single(e.Blockers).Pid);

        await db.ExecuteAsync("drop index if exists orders_total_idx", Token);
        Task<MigrationStep> running = RunAsync(db, Build, s_impatient);
        await Wait.UntilAsync(() => _sink.VerboseMessages.Count(message => message.Contains($"waits for pid {holder.Pid} (", StringComparison.Ordinal)) >= 2, "it waits again", cancellationToken: Token);
        await holder.CommitAsync(Token);
        MigrationStep step = await running;
        Assert.Equal((StepState.Done, 1), (step.State, step.Attempts));
        Assert.True(step.LockWaits.Single(wait => wait.Queued).WaitTime > TimeSpan.Zero);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task WaitFor_holds_although_the_observer_is_ended(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using TestRole role = await TestRole.CreateAsync(db);
        await db.ExecuteAsync($"alter table orders owner to {role.Name}; grant create on schema public to {role.Name}; grant pg_read_all_stats to {role.Name}", Token);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "set transaction isolation level repeatable read", "select 1");
        // Once another observer may come, once the role has no connection left for one.
        foreach (bool refused in new[] { false, true })
        {
            RecordingSink sink = new();
            EngineSession session = await SessionAsync(db.Server.ConnectionString(db.Name, role.Name));
            await using (StepExecutor executor = await StepExecutor.OpenAsync(session, s_impatient with { WaitFor = TimeSpan.FromSeconds(4) }, sink, Token))
            {
                Task running = executor.RunAsync([Build], "test", Token);
                await Wait.UntilAsync(() => sink.VerboseMessages.Any(message => message.Contains($"waits for pid {holder.Pid} (", StringComparison.Ordinal)), "it waits", cancellationToken: Token);
                if (refused)
                {
                    await db.ExecuteAsync($"alter role {role.Name} connection limit 1", Token);
                }

                await db.ExecuteAsync("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'MigrationSafety/observer' and datname = current_database()", Token);
                MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => running);
                Assert.Equal(("WaitedTooLong", holder.Pid), (e.ErrorId, Assert.Single(e.Blockers).Pid));
            }

            Assert.Contains(sink.VerboseMessages, message => message.Contains("cannot be watched", StringComparison.Ordinal));
            Assert.Equal(refused, sink.Warnings.Any(message => message.Contains("cannot be watched", StringComparison.Ordinal)));
            await SessionFactory.DisconnectAsync(session.Info);
            await db.ExecuteAsync("drop index if exists orders_total_idx", Token);
        }
    }

    [Theory, EachMajor]
    public async Task Whoever_cannot_be_seen_is_left_alone_and_that_is_said(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using TestRole owner = await TestRole.CreateAsync(db);
        await using TestRole other = await TestRole.CreateAsync(db);
        await db.ExecuteAsync($"alter table orders owner to {owner.Name}; grant create on schema public to {owner.Name}; grant pg_signal_backend to {owner.Name}", Token);
        string text = db.Server.ConnectionString(db.Name, owner.Name);
        await using NpgsqlConnection hidden = new(db.Server.ConnectionString(db.Name, other.Name) + ";Pooling=false");
        await hidden.OpenAsync(Token);
        await using (NpgsqlTransaction transaction = await hidden.BeginTransactionAsync(System.Data.IsolationLevel.RepeatableRead, Token))
        {
            await hidden.ExecuteAsync("select 1", Token);
            Task<MigrationStep> running = RunAsync(db, Build, s_impatient with { BlockerAction = BlockerAction.Terminate, BlockerGracePeriod = TimeSpan.FromMilliseconds(200) }, text);
            await Wait.UntilAsync(
                () => _sink.Warnings.Any(message => message.Contains($"pid {hidden.ProcessID} ", StringComparison.Ordinal) && message.Contains("GRANT pg_read_all_stats", StringComparison.Ordinal)),
                "it to be left alone",
                cancellationToken: Token);
            await transaction.CommitAsync(Token);
            Assert.Equal(StepState.Done, (await running).State);
        }

        await using NpgsqlConnection ender = new(text + ";Pooling=false");
        await ender.OpenAsync(Token);
        SessionEnd end = await SessionEnder.EndAsync(ender, hidden.ProcessID, null, terminate: true, force: false, Token);
        Assert.False(end.Signalled);
        Assert.Contains("pg_read_all_stats", end.Why, StringComparison.Ordinal);
        await hidden.ExecuteAsync("select 1", Token);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_build_is_not_given_up_because_its_watcher_is_refused(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using TestRole role = await TestRole.CreateAsync(db);
        EngineSession session = await SessionAsync(db.Server.ConnectionString(db.Name, role.Name));
        await using NpgsqlConnection work = await session.OpenAsync("work", _sink, Token);
        await db.ExecuteAsync($"alter role {role.Name} connection limit 1; select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role.Name}' and pid <> {work.ProcessID}", Token);
        TimeSpan silence = TimeSpan.FromSeconds(2);
        await using (IndexBuildWatcher watcher = IndexBuildWatcher.Start(session, _sink, "Building", work.ProcessID, silence, Token))
        {
            await Task.WhenAny(watcher.Lost, Task.Delay(silence + TimeSpan.FromSeconds(1), Token));
            Assert.False(watcher.Lost.IsCompleted);
        }

        Assert.Equal("TooManyConnections", (await Assert.ThrowsAsync<MigrationException>(() => session.OpenAsync("more", _sink, Token))).ErrorId);
    }

    [Theory, EachMajor]
    public async Task A_plan_that_fails_says_how_far_it_came(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        EngineSession session = await SessionAsync(db.ConnectionString);
        await using StepExecutor executor = await StepExecutor.OpenAsync(session, s_impatient, _sink, Token);
        MigrationStep bad = AddColumn with { Sql = "alter table public.orders add column bad nosuchtype" };
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => executor.RunAsync([AddColumn, bad, AddColumn], "test", Token));
        Assert.Equal([StepState.Done, StepState.Failed, StepState.Planned], e.Steps.Select(step => step.State));
        Assert.Equal("42704", e.SqlState);
    }

    [Theory, EachMajor]
    public async Task One_operation_per_table_and_the_second_is_told_whose(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        EngineSession session = await SessionAsync(db.ConnectionString);
        await using NpgsqlConnection first = await session.OpenAsync("first", _sink, Token);
        await using NpgsqlConnection second = await session.OpenAsync("second", _sink, Token);
        TableReference table = await TableReference.FindAsync(first, "orders", null, Token);
        await TableOperationLock.TakeAsync(first, table, TimeSpan.Zero, _sink, Token);
        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => TableOperationLock.TakeAsync(second, table, TimeSpan.Zero, _sink, Token));
        Assert.Equal(("TableBusy", first.ProcessID, "MigrationSafety/first"), (e.ErrorId, e.Blockers.Single().Pid, e.Blockers.Single().Application));

        Task waiting = TableOperationLock.TakeAsync(second, table, TimeSpan.FromMinutes(5), _sink, Token);
        await Wait.UntilAsync(() => _sink.Warnings.Any(message => message.Contains($"pid {first.ProcessID} (", StringComparison.Ordinal)), "the holder is named", cancellationToken: Token);
        await TableOperationLock.ReleaseAsync(first, table);
        await waiting;
    }

    [Theory]
    [EachMajor]
    public async Task A_table_is_found_as_SQL_would_and_a_wrong_name_gets_a_hint(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await db.ExecuteAsync("""create schema sales; create table sales.invoices (id int); create table "Order" (id int); create view v as select 1; create temp table t (id int)""", Token);
        await using NpgsqlConnection connection = await db.OpenAsync(Token);
        Assert.Equal("public.orders", (await TableReference.FindAsync(connection, "Orders", null, Token)).Display);
        Assert.Equal("public.\"Order\"", (await TableReference.FindAsync(connection, "\"Order\"", null, Token)).Display);
        Assert.Equal("public.\"Order\"", (await TableReference.FindAsync(connection, "Order", null, Token)).Display);
        Assert.Equal("sales.invoices", (await TableReference.FindAsync(connection, "invoices", "sales", Token)).Display);
        MigrationException missing = await Assert.ThrowsAsync<MigrationException>(() => TableReference.FindAsync(connection, "invoices", null, Token));
        Assert.Equal("TableNotFound", missing.ErrorId);
        Assert.Contains("sales.invoices", missing.RecommendedAction, StringComparison.Ordinal);
        Assert.Equal("TableKindNotSupported", (await Assert.ThrowsAsync<MigrationException>(() => TableReference.FindAsync(connection, "v", null, Token))).ErrorId);
        Assert.Equal("SchemaContradicts", (await Assert.ThrowsAsync<MigrationException>(() => TableReference.FindAsync(connection, "sales.invoices", "public", Token))).ErrorId);
    }

    /// <summary>A transaction that is old enough to count as in the way: a young one is expected to end while we queue.</summary>
    private static async Task<LockHolder> HoldForLongAsync(TestDatabase db, params string[] sql)
    {
        LockHolder holder = await LockHolder.HoldAsync(db, sql);
        await Wait.UntilAsync(
            async () => await db.ScalarAsync<bool>($"select clock_timestamp() - xact_start > interval '300 ms' from pg_stat_activity where pid = {holder.Pid}"),
            "the transaction is no longer young",
            cancellationToken: Token);
        return holder;
    }

    private static string? Qualified(string? relation) => relation is null || relation.Contains('.', StringComparison.Ordinal) ? relation : "public." + relation;

    private static IEnumerable<string?> AllModes(LockWait wait) => wait.Blockers.Select(blocker => blocker.Mode);

    private static Task<bool> HasTierAsync(TestDatabase db) =>
        db.ScalarAsync<bool>("select exists (select from pg_attribute where attrelid = 'orders'::regclass and attname = 'tier' and not attisdropped)", Token)!;

    private async Task<TestDatabase> NewDatabaseAsync(int major)
    {
        TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await db.ExecuteAsync("create table orders (id bigint primary key, total int); insert into orders select g, g from generate_series(1, 100) g", Token);
        await db.ExecuteAsync("vacuum analyze orders", Token);
        return db;
    }

    private async Task<EngineSession> SessionAsync(string text) =>
        EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = text }, _sink, Token));

    private async Task<MigrationStep> RunAsync(TestDatabase db, MigrationStep step, ExecutionOptions options, string? text = null, CancellationToken? cancellationToken = null)
    {
        EngineSession session = await SessionAsync(text ?? db.ConnectionString);
        await using StepExecutor executor = await StepExecutor.OpenAsync(session, options, _sink, Token);
        return (await executor.RunAsync([step], "test", cancellationToken ?? Token)).Single();
    }
}
