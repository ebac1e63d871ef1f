using System.Globalization;
using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>The tree is made without pg_blocking_pids(); it must say what that says.</summary>
public sealed class LockGraphTests(Servers servers)
{
    private static readonly string[] s_modes =
        ["access share", "row share", "row exclusive", "share update exclusive", "share", "share row exclusive", "exclusive", "access exclusive"];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Queues_of_all_modes_are_read_as_the_server_reads_them(int major)
    {
        int seed = Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {seed}");
        Random random = new(seed);
        await using TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await db.ExecuteAsync("create table a (id int primary key, n int); create table b (id int primary key, n int); insert into a select g, g from generate_series(1, 5) g", Token);
        List<NpgsqlConnection> connections = [];
        List<Task> running = [];
        try
        {
            for (int i = 0; i < 30; i++)
            {
                NpgsqlConnection connection = new(new NpgsqlConnectionStringBuilder(db.ConnectionString) { Pooling = false }.ConnectionString);
                connections.Add(connection);
                await connection.OpenAsync(Token);
                // Some hold a weak lock already: these are let in before others. Nobody may be cancelled as a deadlock meanwhile.
                string held = random.Next(3) == 0 ? $"lock table {(random.Next(2) == 0 ? "a" : "b")} in {s_modes[random.Next(3)]} mode;" : "";
                string wanted = random.Next(4) switch
                {
                    0 => string.Create(CultureInfo.InvariantCulture, $"update a set n = n + 1 where id = {random.Next(1, 3)}"),
                    1 => string.Create(CultureInfo.InvariantCulture, $"select pg_advisory_xact_lock{(random.Next(2) == 0 ? "_shared" : "")}({random.Next(2)})"),
                    _ => $"lock table {(random.Next(2) == 0 ? "a" : "b")} in {s_modes[random.Next(8)]} mode",
                };
                await connection.ExecuteAsync("begin; set local deadlock_timeout = '10min'", Token);
                running.Add(connection.ExecuteAsync(held + wanted, Token));
                // Each joins its queue before the next: in one instant the order would be anybody's.
                await Wait.UntilAsync(
                    async () => running[^1].IsCompleted || await db.ScalarAsync<bool>($"select exists (select from pg_locks where pid = {connection.ProcessID} and not granted and waitstart is not null)", Token),
                    "it runs or waits",
                    cancellationToken: Token);
            }

            Dictionary<int, int[]> expected = (await db.QueryAsync(
                """
                select l.pid, (select array_agg(distinct b order by b) from unnest(pg_blocking_pids(l.pid)) b)
                from (select distinct pid from pg_locks where not granted) l join pg_stat_activity a using (pid) where a.datname = current_database()
                """,
                Token)).ToDictionary(row => (int)row[0]!, row => (int[])row[1]!);
            EngineSession session = EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = db.ConnectionString }, new RecordingSink(), Token));
            IReadOnlyList<BlockingLock> rows = [.. (await BlockingLockReader.ReadAsync(session, new(), new RecordingSink(), Token)).Where(row => row.Database == db.Name)];
            await SessionFactory.DisconnectAsync(session.Info);

            Assert.True(expected.Count > 10, $"{expected.Count} wait");
            Assert.Equal(expected.Keys.Order(), rows.Where(row => row.BlockingPid.Length > 0).Select(row => row.Pid).Order());
            Assert.All(rows.Where(row => row.BlockingPid.Length > 0), row => Assert.Equal(expected[row.Pid], row.BlockingPid.Order()));
            AssertTree(rows);
        }
        finally
        {
            foreach (NpgsqlConnection connection in connections)
            {
                await db.ExecuteAsync($"select pg_terminate_backend({connection.ProcessID})", CancellationToken.None);
            }

            foreach (Task task in running)
            {
                await task.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
            }

            foreach (NpgsqlConnection connection in connections)
            {
                await connection.DisposeAsync();
            }
        }
    }

    /// <summary>Each stands once, and under one that it waits for; the counts are those of a plain walk through the blockers.</summary>
    internal static void AssertTree(IReadOnlyList<BlockingLock> rows)
    {
        Assert.Equal(rows.Count, rows.Select(row => (row.Pid, row.Gid)).Distinct().Count());
        Stack<BlockingLock> path = new();
        foreach (BlockingLock row in rows)
        {
            while (path.Count > row.Depth)
            {
                path.Pop();
            }

            Assert.Equal(row.Depth, path.Count);
            if (row.Depth > 0)
            {
                Assert.Contains(path.Peek().Pid, row.BlockingPid);
                Assert.Equal(path.Last().Pid, row.RootPid);
            }

            path.Push(row);
        }

        foreach (BlockingLock row in rows.Where(row => row.Pid != 0))
        {
            HashSet<int> held = [];
            Stack<int> next = new([row.Pid]);
            while (next.TryPop(out int pid))
            {
                foreach (BlockingLock waiter in rows.Where(waiter => waiter.BlockingPid.Contains(pid) && held.Add(waiter.Pid)))
                {
                    next.Push(waiter.Pid);
                }
            }

            Assert.Equal(held.Remove(row.Pid), row.IsDeadlock);
            Assert.Equal(held.Count, row.BlockedCount);
        }
    }
}
