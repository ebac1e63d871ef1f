using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>The cases that want a server of their own, or more than two sessions.</summary>
public sealed class BlockingLockCaseTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task A_long_queue_for_a_row_is_a_list_under_the_first(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(await servers.Clusters.GetAsync(major));
        await using LockHolder holder = await LockHolder.HoldAsync(db, "update orders set total = 1 where id = 1");
        List<Waiter> queue = [];
        try
        {
            for (int i = 0; i < 8; i++)
            {
                queue.Add(await Waiter.StartAsync(db, "update orders set total = 2 where id = 1"));
            }

            IReadOnlyList<BlockingLock> rows = [.. (await Tree.ReadAsync(db)).Where(row => row.Database == db.Name)];
            Assert.Equal([holder.Pid, .. queue.Select(waiter => waiter.Pid)], rows.Select(row => row.Pid));
            Assert.Equal([0, 1, 2, 2, 2, 2, 2, 2, 2], rows.Select(row => row.Depth));
            Assert.Equal([8, 7, 6, 5, 4, 3, 2, 1, 0], rows.Select(row => row.BlockedCount));
            Assert.Equal(queue.Take(7).Select(waiter => waiter.Pid), rows[8].BlockingPid);
            Assert.All(rows, row => Assert.Equal("public.orders", row.Relation));
            Assert.Equal("RowExclusiveLock", rows[0].HeldMode);
            LockGraphTests.AssertTree(rows);
        }
        finally
        {
            foreach (Waiter waiter in queue)
            {
                await waiter.DisposeAsync();
            }
        }
    }

    [Theory, EachMajor]
    public async Task A_filter_keeps_the_way_to_the_root(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(await servers.Clusters.GetAsync(major));
        await db.ExecuteAsync(
            "create table parts (id int) partition by range (id); create table part1 partition of parts for values from (0) to (10); create table other (id int)", Token);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "lock table orders, part1 in access exclusive mode");
        await using LockHolder elsewhere = await LockHolder.HoldAsync(db, "lock table other");
        await using Waiter reader = await Waiter.StartAsync(db, "select * from orders");
        await using Waiter part = await Waiter.StartAsync(db, "select * from part1");
        await using Waiter other = await Waiter.StartAsync(db, "select * from other");
        async Task<int[]> PidsAsync(BlockingLockFilter filter) => [.. (await Tree.ReadAsync(db, filter)).Where(row => row.Database == db.Name).Select(row => row.Pid)];

        Assert.Equal([holder.Pid, reader.Pid, part.Pid, elsewhere.Pid, other.Pid], await PidsAsync(new()));
        Assert.Equal([holder.Pid, reader.Pid], await PidsAsync(new() { Table = "orders" }));
        Assert.Equal([holder.Pid, part.Pid], await PidsAsync(new() { Table = "public.parts" }));
        Assert.Equal([holder.Pid, part.Pid], await PidsAsync(new() { Pids = [part.Pid] }));
        Assert.Equal([elsewhere.Pid, other.Pid], await PidsAsync(new() { Pids = [elsewhere.Pid] }));
        Assert.Equal([holder.Pid, elsewhere.Pid], await PidsAsync(new() { RootOnly = true }));
        Assert.Equal([elsewhere.Pid], await PidsAsync(new() { Table = "other", RootOnly = true }));
        Assert.Empty(await PidsAsync(new() { MinimumWait = TimeSpan.FromHours(1) }));
        Assert.Equal(5, (await PidsAsync(new() { MinimumWait = TimeSpan.FromTicks(1) })).Length);
        IReadOnlyList<BlockingLock> cut = await Tree.ReadAsync(db, new() { Pids = [reader.Pid], QueryLength = 8 });
        Assert.Equal("select *", cut.Single(row => row.Pid == reader.Pid).Query);
        Assert.Null((await Tree.ReadAsync(db, new() { Pids = [reader.Pid], QueryLength = 0 })).Single(row => row.Pid == reader.Pid).Query);
        MigrationException missing = await Assert.ThrowsAsync<MigrationException>(() => Tree.ReadAsync(db, new() { Table = "nowhere" }));
        Assert.Equal("TableNotFound", missing.ErrorId);
    }

    [Theory, EachMajor]
    public async Task Parallel_workers_stand_under_their_leader(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(await servers.Clusters.GetAsync(major));
        await db.ExecuteAsync(
            """
            insert into orders select g, g from generate_series(101, 50000) g;
            create table rates (id int);
            create function rate(n int) returns int language plpgsql parallel safe as $$ begin return (select count(*) from rates) + n; end $$;
            analyze orders;
            """,
            Token);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "lock table rates");
        await using NpgsqlConnection leader = await db.OpenAsync(Token);
        await leader.ExecuteAsync("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; set max_parallel_workers_per_gather = 2", Token);
        Task query = leader.ExecuteAsync("select sum(rate(total)) from orders", Token);
        await Wait.UntilAsync(
            async () => await db.ScalarAsync<long>($"select count(*) from pg_locks l join pg_stat_activity a using (pid) where not l.granted and a.leader_pid = {leader.ProcessID}") > 0,
            "a worker waits",
            cancellationToken: Token);
        IReadOnlyList<BlockingLock> rows = [.. (await Tree.ReadAsync(db)).Where(row => row.Database == db.Name)];
        await holder.RollbackAsync(Token);
        await query;

        BlockingLock[] workers = [.. rows.Where(row => row.BackendType == "parallel worker")];
        Assert.NotEmpty(workers);
        Assert.Equal([holder.Pid, leader.ProcessID, .. workers.Select(row => row.Pid)], rows.Select(row => row.Pid));
        Assert.Equal([0, 1], rows.Take(2).Select(row => row.Depth));
        Assert.All(workers, row => Assert.Equal((2, holder.Pid), (row.Depth, Assert.Single(row.BlockingPid))));
        Assert.Equal(1, rows[0].BlockedCount);
        Assert.Equal([holder.Pid], rows[1].BlockingPid);
        Assert.Equal(("public.rates", "AccessShareLock"), (rows[1].Relation, rows[1].RequestedMode));
    }

    [Theory, EachMajor]
    public async Task A_prepared_transaction_outlives_its_server(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using TestDatabase db = await NewDatabaseAsync(server);
        await db.ExecuteAsync("begin; update orders set total = 9 where id = 1; prepare transaction 'one'", Token);
        await db.ExecuteAsync("begin; lock table orders in row share mode; prepare transaction 'two'", Token);
        await server.StopAsync(StopMode.Fast, Token);
        await server.StartAgainAsync(Token);
        db.DataSource.Clear();
        IReadOnlyList<BlockingLock> rows;
        int alterPid;
        await using (Waiter alter = await Waiter.StartAsync(db, "alter table orders add column x int"))
        await using (Waiter row = await Waiter.StartAsync(db, "update orders set total = 2 where id = 1"))
        {
            rows = await Tree.ReadAsync(db);
            alterPid = alter.Pid;
        }

        await db.ExecuteAsync("rollback prepared 'one'", Token);
        await db.ExecuteAsync("rollback prepared 'two'", Token);
        Assert.Equal(["one", "two"], rows.Where(root => root.IsRoot).Select(root => root.Gid).Order());
        Assert.All(rows.Where(root => root.IsRoot), root => Assert.Equal(("prepared", 0, 2, "public.orders"), (root.State, root.Pid, root.BlockedCount, root.Relation)));
        Assert.Equal("RowExclusiveLock", rows.Single(root => root.Gid == "one").HeldMode);
        Assert.NotNull(rows[0].TransactionAge);
        Assert.Equal([0, 0], rows.Single(waiting => waiting.Pid == alterPid).BlockingPid);
    }

    [Theory, EachMajor]
    public async Task An_autovacuum_that_prevents_wraparound_is_named_also_where_its_query_is_hidden(int major)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(
            major,
            new PostgresServerOptions { Settings = new Dictionary<string, string> { ["autovacuum_naptime"] = "1s", ["autovacuum_freeze_max_age"] = "100000" } },
            Token);
        await using TestDatabase db = await NewDatabaseAsync(server);
        await db.ExecuteAsync(
            """
            alter table orders set (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_enabled = false);
            insert into orders select g, g from generate_series(101, 100000) g;
            create role app login;
            alter table orders owner to app;
            """,
            Token);
        await db.ExecuteAsync("do $$ begin for i in 1..101000 loop perform pg_current_xact_id(); commit; end loop; end $$", Token);
        await Wait.UntilAsync(
            async () => await db.ScalarAsync<bool>("select exists (select from pg_locks l join pg_stat_activity a using (pid) where a.query like '%orders (to prevent wraparound)' and l.relation = 'orders'::regclass and l.granted)"),
            "a vacuum prevents wraparound",
            TimeSpan.FromSeconds(90),
            Token);
        await using Waiter alter = await Waiter.StartAsync(db, "alter table orders add column x int");
        foreach (string user in new[] { "postgres", "app" })
        {
            IReadOnlyList<BlockingLock> rows = await Tree.ReadAsync(db, user: user);
            Assert.Equal(("autovacuum worker", true, true, "ShareUpdateExclusiveLock"), (rows[0].BackendType, rows[0].PreventsWraparound, rows[0].IsRoot, rows[0].HeldMode));
            Assert.Equal(user == "app", rows[0].Query is null);

            // The record of an operation says the same of it.
            EngineSession session = EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = server.ConnectionString(db.Name, user) }, new RecordingSink(), Token));
            await using (LockObserver observer = await LockObserver.OpenAsync(session, new RecordingSink(), Token))
            {
                LockBlocker queued = Assert.Single(await observer.BlockersOfAsync(alter.Pid, Token));
                uint table = await db.ScalarAsync<uint>("select 'orders'::regclass::oid", Token);
                LockBlocker seen = (await observer.InTheWayAsync([table], TableLockMode.AccessExclusive, alter.Pid, Token)).Single(blocker => blocker.IsAutovacuum);
                Assert.All([queued, seen], blocker => Assert.True(blocker.PreventsWraparound, blocker.ToString()));
                Assert.Equal(queued.ToString(), (seen with { TransactionAge = queued.TransactionAge }).ToString().Replace("on orders", "on public.orders", StringComparison.Ordinal));
            }

            await SessionFactory.DisconnectAsync(session.Info);
        }
    }

    [Theory, EachMajor]
    public async Task Waits_in_other_databases_are_told_by_oid_and_database(int major)
    {
        PostgresServer server = await servers.Clusters.GetAsync(major);
        await using TestDatabase db = await NewDatabaseAsync(server);
        await using TestDatabase other = await NewDatabaseAsync(server);
        await using LockHolder holder = await LockHolder.HoldAsync(other, "lock table orders");
        await using Waiter reader = await Waiter.StartAsync(other, "select * from orders");
        BlockingLock row = (await Tree.ReadAsync(db)).Single(row => row.Pid == reader.Pid);
        Assert.Equal($"{await other.ScalarAsync<uint>("select 'orders'::regclass::oid", Token)} in {other.Name}", row.Relation);
        Assert.Equal([holder.Pid], row.BlockingPid);
    }

    [Theory, EachMajor]
    public async Task Replay_on_a_standby_waits_for_sessions_there(int major)
    {
        await using PostgresServer primary = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using TestDatabase db = await NewDatabaseAsync(primary);
        await using PostgresServer standby = await primary.StartStandbyAsync(
            new PostgresServerOptions { Settings = new Dictionary<string, string> { ["max_standby_streaming_delay"] = "-1" } }, Token);
        await using NpgsqlDataSource source = NpgsqlDataSource.Create(standby.ConnectionString(db.Name));
        async Task<IReadOnlyList<BlockingLock>> ReadAsync()
        {
            EngineSession session = EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = standby.ConnectionString(db.Name) }, new RecordingSink(), Token));
            IReadOnlyList<BlockingLock> rows = await BlockingLockReader.ReadAsync(session, new(), new RecordingSink(), Token);
            await SessionFactory.DisconnectAsync(session.Info);
            return rows;
        }

        // A lock that the primary took and a reader of the standby is in the way of; who comes later waits for the replay.
        await using NpgsqlConnection reader = await source.OpenConnectionAsync(Token);
        await reader.ExecuteAsync("begin; select * from orders", Token);
        await db.ExecuteAsync("alter table orders add column x int", Token);
        IReadOnlyList<BlockingLock> rows = [];
        await Wait.UntilAsync(async () => (rows = await ReadAsync()).Count > 0, "the replay waits for the reader", cancellationToken: Token);
        Assert.Equal([reader.ProcessID], rows.Where(row => row.IsRoot).Select(row => row.Pid));
        BlockingLock replay = rows[1];
        Assert.Equal(("startup", "relation", "AccessExclusiveLock", "public.orders"), (replay.BackendType, replay.LockType, replay.RequestedMode, replay.Relation));
        await reader.ExecuteAsync("rollback", Token);
        await Wait.UntilAsync(async () => (await ReadAsync()).Count == 0, "the replay goes on", cancellationToken: Token);

        // An old snapshot: no lock is awaited then.
        await reader.ExecuteAsync("begin isolation level repeatable read; select 1", Token);
        await reader.ExecuteAsync("select count(*) from orders", Token);
        await db.ExecuteAsync("delete from orders where id > 50", Token);
        await db.ExecuteAsync("vacuum orders", Token);
        await Wait.UntilAsync(async () => (rows = await ReadAsync()).Count > 0, "the replay waits for the snapshot", cancellationToken: Token);
        Assert.Equal([reader.ProcessID], rows.Where(row => row.IsRoot).Select(row => row.Pid));
        Assert.Equal(("startup", "recovery conflict"), (rows[1].BackendType, rows[1].LockType));
        await reader.ExecuteAsync("rollback", Token);
    }

    private static async Task<TestDatabase> NewDatabaseAsync(PostgresServer server)
    {
        TestDatabase db = await TestDatabase.CreateAsync(server, cancellationToken: Token);
        await db.ExecuteAsync("create table orders (id bigint primary key, total int); insert into orders select g, g from generate_series(1, 100) g", Token);
        return db;
    }
}
