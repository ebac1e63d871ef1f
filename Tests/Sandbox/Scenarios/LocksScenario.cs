using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Spectre.Console;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>Each way in which sessions can wait for one another, its tree, and what the tree costs beside what a user would ask instead.</summary>
internal sealed class LocksScenario : Scenario
{
    private const int Rounds = 9;
    private const double MostTimes = 1.5;
    private static readonly int[] s_waiters = [300, 600, 1200];

    private const string BlockingPids = "select pid, pg_blocking_pids(pid) from pg_stat_activity where wait_event_type = 'Lock'";

    // The query that is passed around: whoever has a lock on the same object is in the way.
    private const string SelfJoin = """
        select blocked.pid, blocking.pid
        from pg_locks blocked
        join pg_locks blocking on blocking.locktype = blocked.locktype and blocking.database is not distinct from blocked.database
            and blocking.relation is not distinct from blocked.relation and blocking.page is not distinct from blocked.page
            and blocking.tuple is not distinct from blocked.tuple and blocking.virtualxid is not distinct from blocked.virtualxid
            and blocking.transactionid is not distinct from blocked.transactionid and blocking.classid is not distinct from blocked.classid
            and blocking.objid is not distinct from blocked.objid and blocking.objsubid is not distinct from blocked.objsubid and blocking.pid <> blocked.pid
        where not blocked.granted
        """;

    internal override string Name => "locks";

    internal override string Summary => "each way to wait and its tree, and what the tree costs at 300, 600 and 1,200 waiters; on servers of its own";

    internal override async Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(
            options.Postgres, new PostgresServerOptions { MaxConnections = 1400, Settings = new Dictionary<string, string> { ["deadlock_timeout"] = "1min" } }, cancellationToken);
        await using (TestDatabase db = await NewAsync(server, cancellationToken))
        {
            await CasesAsync(bench, db, cancellationToken);
        }

        await WraparoundAsync(bench, options, cancellationToken);
        await StandbyAsync(bench, options, cancellationToken);
        await CostAsync(bench, server, cancellationToken);
    }

    private static async Task CasesAsync(Bench bench, TestDatabase db, CancellationToken token)
    {
        const string Update = "update orders set total = 2 where id = 1";
        await CaseAsync(bench, db, "A queue for a row", ["update orders set total = 1 where id = 1"], [Update, Update, Update], token);
        await CaseAsync(bench, db, "Readers behind a waiting ALTER", ["select * from orders"], ["alter table orders add column x int", "select * from orders", "select * from orders"], token);
        await CaseAsync(bench, db, "An advisory lock", ["select pg_advisory_xact_lock(7)"], ["select pg_advisory_lock(7)"], token);
        await CaseAsync(bench, db, "A concurrent build waits for a snapshot", ["set transaction isolation level repeatable read; select 1"], ["create index concurrently orders_ix on orders (total)"], token);
        await db.ExecuteAsync("drop index if exists orders_ix", token);
        await CaseAsync(
            bench,
            db,
            "Parallel workers under their leader",
            ["lock table rates"],
            ["set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; set max_parallel_workers_per_gather = 2; select sum(rate(total)) from orders"],
            token);
        await db.ExecuteAsync("begin; lock table orders in row share mode; prepare transaction 'forgotten'", token);
        await CaseAsync(bench, db, "A prepared transaction", [], ["alter table orders add column x int"], token);
        await db.ExecuteAsync("rollback prepared 'forgotten'", token);

        await using (LockHolder first = await LockHolder.HoldAsync(db, "select * from orders"))
        {
            await CaseAsync(bench, db, "Two in the way of one", ["select * from orders"], ["alter table orders add column x int"], token);
        }

        await CycleAsync(bench, db, token);
        await using TestDatabase other = await NewAsync(db.Server, token);
        await CaseAsync(bench, other, "In another database", ["lock table orders"], ["select * from orders"], token, lookFrom: db);
    }

    private static async Task CaseAsync(Bench bench, TestDatabase db, string title, string[] holders, string[] waiters, CancellationToken token, TestDatabase? lookFrom = null)
    {
        // Whoever waits goes first: a holder that is gone lets them run.
        Stack<IAsyncDisposable> sessions = [];
        try
        {
            foreach (string sql in holders)
            {
                sessions.Push(await LockHolder.HoldAsync(db, sql));
            }

            foreach (string sql in waiters)
            {
                sessions.Push(await Waiting.StartAsync(await db.OpenAsync(token), sql, db, token));
            }

            await ShowAsync(bench, (lookFrom ?? db).ConnectionString, title, token);
        }
        finally
        {
            while (sessions.TryPop(out IAsyncDisposable? session))
            {
                await session.DisposeAsync();
            }
        }
    }

    private static async Task CycleAsync(Bench bench, TestDatabase db, CancellationToken token)
    {
        NpgsqlConnection left = await db.OpenAsync(token);
        NpgsqlConnection right = await db.OpenAsync(token);
        foreach ((NpgsqlConnection connection, int id) in new[] { (left, 1), (right, 2) })
        {
            await using NpgsqlCommand command = new($"begin; update orders set total = 1 where id = {id}", connection);
            await command.ExecuteNonQueryAsync(token);
        }

        await using Waiting one = await Waiting.StartAsync(left, "update orders set total = 1 where id = 2", db, token);
        await using Waiting two = await Waiting.StartAsync(right, "update orders set total = 1 where id = 1", db, token);
        await ShowAsync(bench, db.ConnectionString, "A circle before the server breaks it", token);
    }

    private static async Task WraparoundAsync(Bench bench, SandboxOptions options, CancellationToken token)
    {
        await using PostgresServer server = await PostgresServer.StartAsync(
            options.Postgres, new PostgresServerOptions { Settings = new Dictionary<string, string> { ["autovacuum_naptime"] = "1s", ["autovacuum_freeze_max_age"] = "100000" } }, token);
        await using TestDatabase db = await NewAsync(server, token);
        await db.ExecuteAsync("alter table orders set (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_enabled = false)", token);
        await db.ExecuteAsync("do $$ begin for i in 1..101000 loop perform pg_current_xact_id(); commit; end loop; end $$", token);
        await Wait.UntilAsync(
            async () => await db.ScalarAsync<bool>(
                "select exists (select from pg_locks l join pg_stat_activity a using (pid) where a.query like '%orders (to prevent wraparound)' and l.relation = 'orders'::regclass and l.granted)", token),
            "a vacuum prevents wraparound",
            TimeSpan.FromSeconds(90),
            token);
        await CaseAsync(bench, db, "An autovacuum that prevents wraparound", [], ["alter table orders add column x int"], token);
    }

    private static async Task StandbyAsync(Bench bench, SandboxOptions options, CancellationToken token)
    {
        await using PostgresServer primary = await PostgresServer.StartAsync(options.Postgres, cancellationToken: token);
        await using TestDatabase db = await NewAsync(primary, token);
        await using PostgresServer standby = await primary.StartStandbyAsync(
            new PostgresServerOptions { Settings = new Dictionary<string, string> { ["max_standby_streaming_delay"] = "-1" } }, token);
        await using NpgsqlDataSource source = NpgsqlDataSource.Create(standby.ConnectionString(db.Name));
        await using NpgsqlConnection reader = await source.OpenConnectionAsync(token);
        await using (NpgsqlCommand command = new("begin; select * from orders", reader))
        {
            await command.ExecuteNonQueryAsync(token);
        }

        await db.ExecuteAsync("alter table orders add column x int", token);
        await ShowAsync(bench, standby.ConnectionString(db.Name), "Replay on a standby waits for a reader", token);
    }

    /// <summary>Prints the tree, as soon as somebody waits.</summary>
    private static async Task ShowAsync(Bench bench, string connection, string title, CancellationToken token)
    {
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = connection }, bench.Screen, token);
        try
        {
            IReadOnlyList<BlockingLock> rows = [];
            await Wait.UntilAsync(async () => (rows = await BlockingLockReader.ReadAsync(EngineSession.Of(session), new(), bench.Screen, token)).Count > 0, title, cancellationToken: token);
            bench.Screen.Say(title);
            foreach (BlockingLock row in rows)
            {
                string name = new string(' ', 2 * row.Depth) + (row.Gid is { } gid ? $"prepared {gid}" : $"{row.Pid}");
                string on = row.Relation is { } relation ? $" on {relation}" : row.LockType is { } type ? $" on {type}" : "";
                string does = row.WaitTime is { } waited ? $"waits {Screen.Text(waited)} for {row.RequestedMode}{on}" : row.HeldMode is { } mode ? $"holds {mode}{on}" : "is in the way";
                bench.Screen.Say($"    {name,-16} {(row.BlockedCount > 0 ? $"holds up {row.BlockedCount}" : ""),-12} {does}{(row.IsDeadlock ? ", deadlock" : "")}{(row.PreventsWraparound ? ", prevents wraparound" : "")}: {row.Query}");
            }
        }
        finally
        {
            await SessionFactory.DisconnectAsync(session);
        }
    }

    private static async Task CostAsync(Bench bench, PostgresServer server, CancellationToken token)
    {
        await using TestDatabase db = await NewAsync(server, token);
        Table table = new Table()
            .Border(bench.Screen.Interactive ? TableBorder.Simple : TableBorder.Ascii)
            .Title("Sessions that wait for one row, in ms (median)")
            .AddColumns("Waiters", "pg_blocking_pids", "pg_locks joined", "its rows", "Get-BlockingLock", "times");
        await using LockHolder holder = await LockHolder.HoldAsync(db, "update orders set total = 1 where id = 1");
        await using NpgsqlDataSource source = NpgsqlDataSource.Create(new NpgsqlConnectionStringBuilder(db.ConnectionString) { MaxPoolSize = 1300 });
        MigrationSession session = await SessionFactory.ConnectAsync(new() { Text = db.ConnectionString }, bench.Screen, token);
        List<(NpgsqlConnection Connection, Task Running)> waiters = [];
        try
        {
            foreach (int number in s_waiters)
            {
                bench.Screen.Begin($"{number} waiters");
                while (waiters.Count < number)
                {
                    NpgsqlConnection connection = await source.OpenConnectionAsync(token);
                    NpgsqlCommand command = new("update orders set total = 2 where id = 1", connection) { CommandTimeout = 0 };
                    waiters.Add((connection, command.ExecuteNonQueryAsync(CancellationToken.None)));
                }

                await Wait.UntilAsync(async () => await db.ScalarAsync<long>("select count(*) from pg_stat_activity where wait_event_type = 'Lock'", token) == number, $"{number} wait", TimeSpan.FromMinutes(2), token);
                EngineSession engine = EngineSession.Of(session);
                List<double> pids = [];
                List<double> tree = [];
                List<double> joined = [];
                long rows = 0;
                for (int round = 0; round < Rounds; round++)
                {
                    pids.Add(await TimeAsync(() => db.QueryAsync(BlockingPids, token)));
                    tree.Add(await TimeAsync(() => BlockingLockReader.ReadAsync(engine, new(), bench.Screen, token)));
                    if (round % 4 == 0)
                    {
                        joined.Add(await TimeAsync(async () => rows = (await db.QueryAsync(SelfJoin, token)).Count));
                    }
                }

                double times = Median(tree) / Median(pids);
                table.AddRow(new[] { (double)number, Median(pids), Median(joined), rows, Median(tree), times }.Select((value, i) => value.ToString(i == 5 ? "0.00" : i is 0 or 3 ? "N0" : "0.0", CultureInfo.InvariantCulture)).ToArray());
                if (times > MostTimes && number <= 600)
                {
                    bench.Broken.Add(string.Create(CultureInfo.InvariantCulture, $"The tree of {number} waiters took {times:0.00} times what pg_blocking_pids over all of them takes; {MostTimes} is the bound."));
                }

                bench.Screen.End();
            }
        }
        finally
        {
            // The server goes down with them: one after the other they would each get the row.
            await SessionFactory.DisconnectAsync(session);
            await server.StopAsync(StopMode.Immediate, CancellationToken.None);
            await Task.WhenAll(waiters.Select(waiter => waiter.Running)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            foreach ((NpgsqlConnection connection, _) in waiters)
            {
                await connection.DisposeAsync();
            }

            await server.StartAgainAsync(CancellationToken.None);
        }

        bench.Drawings.Add(table);
    }

    private static async Task<double> TimeAsync(Func<Task> work)
    {
        long start = Stopwatch.GetTimestamp();
        await work();
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    }

    private static double Median(List<double> values) => values.Order().ElementAt(values.Count / 2);

    private static async Task<TestDatabase> NewAsync(PostgresServer server, CancellationToken token)
    {
        TestDatabase db = await TestDatabase.CreateAsync(server, cancellationToken: token);
        await db.ExecuteAsync(
            """
            create table orders (id bigint primary key, total int);
            insert into orders select g, g from generate_series(1, 50000) g;
            create table rates (id int);
            create function rate(n int) returns int language plpgsql parallel safe as $$ begin return (select count(*) from rates) + n; end $$;
            """,
            token);
        await db.ExecuteAsync("analyze orders", token);
        return db;
    }
}
