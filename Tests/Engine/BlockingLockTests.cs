using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

public sealed class BlockingLockTests(Servers servers)
{
    private readonly RecordingSink _sink = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Nobody_waits_nothing_comes(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "update orders set total = 1 where id = 1");
        Assert.Empty(await ReadAsync(db));
    }

    [Theory, EachMajor]
    public async Task A_reader_behind_a_waiting_alter_stands_under_it(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "update orders set total = 1 where id = 1");
        await using Waiter alter = await Waiter.StartAsync(db, "alter table orders add column x int");
        await using Waiter reader = await Waiter.StartAsync(db, "select * from orders");
        IReadOnlyList<BlockingLock> rows = await ReadAsync(db);

        Assert.Equal([(holder.Pid, 0), (alter.Pid, 1), (reader.Pid, 2)], rows.Select(row => (row.Pid, row.Depth)));
        Assert.Equal([true, false, false], rows.Select(row => row.IsRoot));
        Assert.Equal([2, 1, 0], rows.Select(row => row.BlockedCount));
        Assert.All(rows, row => Assert.Equal(holder.Pid, row.RootPid));
        Assert.Equal([[], [holder.Pid], [alter.Pid]], rows.Select(row => row.BlockingPid));

        BlockingLock root = rows[0];
        Assert.Equal(("RowExclusiveLock", "idle in transaction", "lock-holder", "postgres", db.Name), (root.HeldMode, root.State, root.Application, root.User, root.Database));
        Assert.Null(root.WaitTime);
        Assert.NotNull(root.IdleTime);
        Assert.NotNull(root.BackendStart);
        BlockingLock waiting = rows[1];
        Assert.Equal(("relation", "AccessExclusiveLock", "public.orders"), (waiting.LockType, waiting.RequestedMode, waiting.Relation));
        Assert.True(waiting.WaitTime > TimeSpan.Zero);
        Assert.Equal("AccessShareLock", rows[2].RequestedMode);
        Assert.Contains("alter table orders", waiting.Query, StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task A_queue_for_a_row_names_its_table(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "update orders set total = 1 where id = 1");
        await using Waiter first = await Waiter.StartAsync(db, "update orders set total = 2 where id = 1");
        await using Waiter second = await Waiter.StartAsync(db, "update orders set total = 3 where id = 1");
        IReadOnlyList<BlockingLock> rows = await ReadAsync(db);
        Assert.Equal([(holder.Pid, 0), (first.Pid, 1), (second.Pid, 2)], rows.Select(row => (row.Pid, row.Depth)));
        Assert.Equal([null, "transactionid", "tuple"], rows.Select(row => row.LockType));
        Assert.All(rows.Skip(1), row => Assert.Equal("public.orders", row.Relation));
        Assert.Equal(2, rows[0].BlockedCount);
    }

    [Theory, EachMajor]
    public async Task Advisory_locks_and_virtual_transactions_are_seen(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "set transaction isolation level repeatable read", "select pg_advisory_xact_lock(42)");
        await using Waiter advisory = await Waiter.StartAsync(db, "select pg_advisory_xact_lock(42)");
        await using Waiter build = await Waiter.StartAsync(db, "create index concurrently on orders (total)");
        IReadOnlyList<BlockingLock> rows = await ReadAsync(db);
        Assert.Equal("advisory", rows.Single(row => row.Pid == advisory.Pid).LockType);
        Assert.Equal("virtualxid", rows.Single(row => row.Pid == build.Pid).LockType);
        Assert.Equal(2, rows.Single(row => row.IsRoot && row.Pid == holder.Pid).BlockedCount);
    }

    [Theory, EachMajor]
    public async Task A_prepared_transaction_is_a_root_with_its_gid(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        string gid = $"forgotten_{db.Name}";
        await db.ExecuteAsync("begin; update orders set total = 9 where id = 1; prepare transaction '" + gid + "'", Token);
        try
        {
            await using Waiter alter = await Waiter.StartAsync(db, "alter table orders add column x int");
            await using Waiter row = await Waiter.StartAsync(db, "update orders set total = 2 where id = 1");
            IReadOnlyList<BlockingLock> rows = await ReadAsync(db);
            BlockingLock root = rows[0];
            Assert.Equal((0, true, "prepared", gid, 2), (root.Pid, root.IsRoot, root.State, root.Query, root.BlockedCount));
            Assert.NotNull(root.TransactionAge);
            Assert.Equal("RowExclusiveLock", root.HeldMode);
            Assert.Equal([0], rows.Single(waiting => waiting.Pid == alter.Pid).BlockingPid);
        }
        finally
        {
            await db.ExecuteAsync($"rollback prepared '{gid}'", CancellationToken.None);
        }
    }

    [Theory, EachMajor]
    public async Task A_waiter_with_two_blockers_stands_once(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder first = await LockHolder.HoldAsync(db, "select * from orders");
        await using LockHolder second = await LockHolder.HoldAsync(db, "select * from orders");
        await using Waiter alter = await Waiter.StartAsync(db, "alter table orders add column x int");
        IReadOnlyList<BlockingLock> rows = await ReadAsync(db);
        Assert.Equal(3, rows.Count);
        Assert.Equal(new[] { first.Pid, second.Pid }.Order(), rows.Single(row => row.Pid == alter.Pid).BlockingPid.Order());
        Assert.Equal(2, rows.Count(row => row.IsRoot && row.BlockedCount == 1));
    }

    [Theory, EachMajor]
    public async Task A_circle_is_shown_before_the_server_breaks_it(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder first = await LockHolder.HoldAsync(db, "set local deadlock_timeout = '1min'", "select pg_advisory_xact_lock(1)");
        await using LockHolder second = await LockHolder.HoldAsync(db, "set local deadlock_timeout = '1min'", "select pg_advisory_xact_lock(2)");
        await using NpgsqlCommand one = new("select pg_advisory_xact_lock(2)", first.Connection);
        await using NpgsqlCommand two = new("select pg_advisory_xact_lock(1)", second.Connection);
        Task[] tasks = [one.ExecuteNonQueryAsync(Token), two.ExecuteNonQueryAsync(Token)];
        await Wait.UntilAsync(async () => await WaitingAsync(db) == 2, "both wait", cancellationToken: Token);
        IReadOnlyList<BlockingLock> rows = await ReadAsync(db);
        Assert.Equal(new[] { first.Pid, second.Pid }.Order(), rows.Select(row => row.Pid).Order());
        Assert.DoesNotContain(rows, row => row.IsRoot);
        Assert.All(rows, row => Assert.Equal(1, row.BlockedCount));
        await db.ExecuteAsync($"select pg_terminate_backend({first.Pid})", Token);
        await Assert.ThrowsAnyAsync<NpgsqlException>(() => tasks[0]);
        await tasks[1];
    }

    [Theory, EachMajor]
    public async Task Without_the_privilege_gaps_are_marked_and_the_grant_is_named(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        string role = "nobody_" + db.Name;
        await db.ExecuteAsync($"create role {role} login", Token);
        try
        {
            await using LockHolder holder = await LockHolder.HoldAsync(db, "lock table orders");
            await using Waiter reader = await Waiter.StartAsync(db, "select * from orders");
            EngineSession session = EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = db.Server.ConnectionString(db.Name, role) }, _sink, Token));
            IReadOnlyList<BlockingLock> rows = [.. (await BlockingLockReader.ReadAsync(session, new(), _sink, Token)).Where(row => row.Database == db.Name)];
            await SessionFactory.DisconnectAsync(session.Info);
            Assert.Equal([holder.Pid, reader.Pid], rows.Select(row => row.Pid));
            Assert.All(rows, row => Assert.Null(row.Query));
            Assert.Contains($"GRANT pg_read_all_stats TO {role}", Assert.Single(_sink.Warnings), StringComparison.Ordinal);
        }
        finally
        {
            await db.ExecuteAsync($"drop role {role}", CancellationToken.None);
        }
    }

    private static async Task<long> WaitingAsync(TestDatabase db) => await db.ScalarAsync<long>(
        "select count(*) from pg_locks l join pg_stat_activity a using (pid) where not l.granted and a.datname = current_database()", Token);

    private async Task<TestDatabase> NewDatabaseAsync(int major)
    {
        TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await db.ExecuteAsync("create table orders (id bigint primary key, total int); insert into orders select g, g from generate_series(1, 100) g", Token);
        return db;
    }

    /// <summary>The tree of this database; other tests run on the same server.</summary>
    private async Task<IReadOnlyList<BlockingLock>> ReadAsync(TestDatabase db) => [.. (await Tree.ReadAsync(db, sink: _sink)).Where(row => row.Database == db.Name)];
}
