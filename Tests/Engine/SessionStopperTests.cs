using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Taking sessions out of the way: what is asked of them, what comes of it, and who is left alone.</summary>
public sealed class SessionStopperTests(Servers servers)
{
    private readonly RecordingSink _sink = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Cancelling_a_statement_frees_who_waits_and_leaves_the_session(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "lock table orders");
        Task busy = await SleepAsync(db, holder);
        await using Waiter first = await Waiter.StartAsync(db, "alter table orders add column x int");
        await using Waiter second = await Waiter.StartAsync(db, "select * from orders");
        StopPlan plan = await PlanAsync(db, new StopRequest(holder.Pid, null, null), new());
        Assert.Equal((null, 2, false), (plan.Refusal, plan.WouldFree, plan.Gone));
        Assert.Matches($"^pid {holder.Pid} \\(user postgres, application 'lock-holder', active, transaction open for .*, select pg_sleep\\(600\\)\\); 2 sessions would be freed$", plan.ToString());
        BlockingSessionResult result = await StopAsync(db, new StopRequest(holder.Pid, null, null), new());
        Assert.Equal((BlockingSessionOutcome.Freed, false), (result.Outcome, result.Ended));
        Assert.Equal(new[] { first.Pid, second.Pid }.Order(), result.FreedPid.Order());
        Assert.Equal([$"select pg_catalog.pg_cancel_backend({holder.Pid})"], result.Statement);
        Assert.Equal("57014", (await Assert.ThrowsAsync<PostgresException>(() => busy)).SqlState);
        Assert.Equal(1, await CountAsync(db, holder.Pid));
    }

    [Theory, EachMajor]
    public async Task An_idle_transaction_is_not_cancelled_but_ended_where_asked(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "lock table orders");
        await using Waiter reader = await Waiter.StartAsync(db, "select * from orders");
        StopRequest request = (await RootAsync(db)) with { Gid = null };
        Assert.Equal(holder.Pid, request.Pid);
        BlockingSessionResult result = await StopAsync(db, request, new());
        Assert.Equal((BlockingSessionOutcome.NotStopped, 0, TimeSpan.Zero), (result.Outcome, result.Statement.Length, result.Duration));
        Assert.Contains("idle in transaction. -Mode Terminate", result.Note, StringComparison.Ordinal);
        Assert.Equal(1, await CountAsync(db, holder.Pid));

        // Nothing to cancel: the second half of the way at once.
        result = await StopAsync(db, request, new() { Mode = BlockingSessionMode.Escalate, GracePeriod = TimeSpan.FromSeconds(30) });
        Assert.Equal((BlockingSessionOutcome.Freed, true), (result.Outcome, result.Ended));
        Assert.Equal([reader.Pid], result.FreedPid);
        Assert.Equal([$"select pg_catalog.pg_terminate_backend({holder.Pid})"], result.Statement);
        Assert.Equal(0, await CountAsync(db, holder.Pid));
        Assert.Equal(BlockingSessionOutcome.Gone, (await StopAsync(db, request, new() { Mode = BlockingSessionMode.Terminate })).Outcome);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Escalation_ends_what_a_cancel_did_not_move(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        // A statement that survives its cancellation.
        await using LockHolder holder = await LockHolder.HoldAsync(db, "lock table orders");
        await using NpgsqlCommand stubborn = new("do $$ begin for i in 1..1000 loop begin perform pg_sleep(600); exception when query_canceled then null; end; end loop; end $$", holder.Connection) { CommandTimeout = 0 };
        Task busy = stubborn.ExecuteNonQueryAsync(Token);
        await ActiveAsync(db, holder.Pid, "do $$%");
        await using Waiter reader = await Waiter.StartAsync(db, "select * from orders");
        StopOptions options = new() { GracePeriod = TimeSpan.FromMilliseconds(500) };
        BlockingSessionResult result = await StopAsync(db, new StopRequest(holder.Pid, null, null), options);
        Assert.Equal((BlockingSessionOutcome.StillBlocking, false, 0), (result.Outcome, result.Ended, result.FreedPid.Length));
        Assert.Contains("-Mode Terminate", result.Note, StringComparison.Ordinal);
        Assert.True(result.Duration >= options.GracePeriod);
        result = await StopAsync(db, new StopRequest(holder.Pid, null, null), new() { Mode = BlockingSessionMode.Escalate, GracePeriod = TimeSpan.FromSeconds(3) });
        Assert.Equal((BlockingSessionOutcome.Freed, true), (result.Outcome, result.Ended));
        Assert.Equal([$"select pg_catalog.pg_cancel_backend({holder.Pid})", $"select pg_catalog.pg_terminate_backend({holder.Pid})"], result.Statement);
        Assert.Equal([reader.Pid], result.FreedPid);
        await Assert.ThrowsAnyAsync<NpgsqlException>(() => busy);
    }

    [Theory, EachMajor]
    public async Task Who_waits_for_another_too_is_not_freed(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder one = await LockHolder.HoldAsync(db, "select * from orders");
        await using LockHolder two = await LockHolder.HoldAsync(db, "select * from orders");
        await using Waiter alter = await Waiter.StartAsync(db, "alter table orders add column x int");
        StopOptions options = new() { Mode = BlockingSessionMode.Terminate };
        Assert.Equal(0, (await PlanAsync(db, new StopRequest(one.Pid, null, null), options)).WouldFree);
        BlockingSessionResult result = await StopAsync(db, new StopRequest(one.Pid, null, null), options);
        Assert.Equal((BlockingSessionOutcome.Freed, true, 0), (result.Outcome, result.Ended, result.FreedPid.Length));
        Assert.Equal([alter.Pid], (await StopAsync(db, new StopRequest(two.Pid, null, null), options)).FreedPid);
    }

    [Theory, EachMajor]
    public async Task Another_session_under_the_same_pid_and_the_own_one_are_left_alone(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "lock table orders");
        await using Waiter reader = await Waiter.StartAsync(db, "select * from orders");
        StopRequest request = await RootAsync(db);
        MigrationException replaced = await Assert.ThrowsAsync<MigrationException>(
            () => StopAsync(db, request with { BackendStart = request.BackendStart!.Value.AddSeconds(-5) }, new() { Mode = BlockingSessionMode.Terminate, Force = true }));
        Assert.Equal("SessionReplaced", replaced.ErrorId);

        // Between the look and the act: the statement that acts asks again.
        await using NpgsqlConnection connection = await db.OpenAsync(Token);
        Assert.Equal(EndRefusal.Gone, (await SessionEnder.EndAsync(connection, holder.Pid, request.BackendStart!.Value.AddTicks(-10), true, true, Token)).Refusal);
        DateTime own = await OwnStartAsync(connection);
        Assert.Equal(EndRefusal.Own, (await SessionEnder.EndAsync(connection, connection.ProcessID, own, true, true, Token)).Refusal);
        Assert.Equal(1, await CountAsync(db, holder.Pid));
        Assert.Equal(BlockingSessionOutcome.Freed, (await StopAsync(db, request, new() { Mode = BlockingSessionMode.Terminate })).Outcome);
    }

    [Theory, EachMajor]
    public async Task An_operation_of_this_module_and_the_servers_processes_need_force(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using LockHolder holder = await LockHolder.HoldAsync(db, "set application_name = 'MigrationSafety/index'", "lock table orders");
        await using Waiter reader = await Waiter.StartAsync(db, "select * from orders");
        StopOptions options = new() { Mode = BlockingSessionMode.Terminate };
        BlockingSessionResult result = await StopAsync(db, await RootAsync(db), options);
        Assert.Equal(BlockingSessionOutcome.NotStopped, result.Outcome);
        Assert.Equal("It is a session of this module. -Force does it all the same.", result.Note);
        Assert.Equal(1, await CountAsync(db, holder.Pid));
        result = await StopAsync(db, await RootAsync(db), options with { Force = true });
        Assert.Equal((BlockingSessionOutcome.Freed, true), (result.Outcome, result.Ended));

        int launcher = await db.ScalarAsync<int>("select pid from pg_stat_activity where backend_type = 'autovacuum launcher'", Token);
        result = await StopAsync(db, new StopRequest(launcher, null, null), options);
        Assert.Contains("process of the server (autovacuum launcher)", result.Note, StringComparison.Ordinal);
        Assert.Equal(1, await CountAsync(db, launcher));
    }

    [Theory, EachMajor]
    public async Task Replication_needs_force(int major)
    {
        await using PostgresServer primary = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using TestDatabase db = await TestDatabase.CreateAsync(primary, cancellationToken: Token);
        await using PostgresServer standby = await primary.StartStandbyAsync(cancellationToken: Token);
        await Wait.UntilAsync(async () => await db.ScalarAsync<long>("select count(*) from pg_stat_replication where state = 'streaming'") > 0, "the standby follows", cancellationToken: Token);
        int sender = await db.ScalarAsync<int>("select pid from pg_stat_replication", Token);
        BlockingSessionResult result = await StopAsync(db, new StopRequest(sender, null, null), new() { Mode = BlockingSessionMode.Terminate });
        Assert.Equal(BlockingSessionOutcome.NotStopped, result.Outcome);
        Assert.Contains("replication (walsender)", result.Note, StringComparison.Ordinal);
        Assert.Equal(1, await CountAsync(db, sender));
    }

    [Theory, EachMajor]
    public async Task A_prepared_transaction_ends_where_asked_in_its_database(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        await using TestDatabase other = await NewDatabaseAsync(major);
        string gid = $"it's {db.Name}";
        string literal = $"'it''s {db.Name}'";
        await db.ExecuteAsync($"begin; lock table orders; prepare transaction {literal}", Token);
        try
        {
            await using Waiter reader = await Waiter.StartAsync(db, "select * from orders");
            StopRequest request = new(0, gid, null);
            BlockingSessionResult result = await StopAsync(db, request, new() { Mode = BlockingSessionMode.Terminate, Force = true });
            Assert.Equal(BlockingSessionOutcome.NotStopped, result.Outcome);
            Assert.Contains($"ROLLBACK PREPARED {literal};", result.Note, StringComparison.Ordinal);
            result = await StopAsync(other, request, new() { RollbackPrepared = true });
            Assert.Equal(BlockingSessionOutcome.NotStopped, result.Outcome);
            Assert.Contains($"In {db.Name}: ROLLBACK PREPARED {literal};", result.Note, StringComparison.Ordinal);
            result = await StopAsync(db, request, new() { RollbackPrepared = true });
            Assert.Equal((BlockingSessionOutcome.Freed, true), (result.Outcome, result.Ended));
            Assert.Equal([reader.Pid], result.FreedPid);
            Assert.Equal([$"rollback prepared {literal}"], result.Statement);
            Assert.Equal(BlockingSessionOutcome.Gone, (await StopAsync(db, request, new() { RollbackPrepared = true })).Outcome);
        }
        finally
        {
            if (await db.ScalarAsync<bool>($"select exists (select from pg_prepared_xacts where gid = {literal})", CancellationToken.None))
            {
                await db.ExecuteAsync($"rollback prepared {literal}", CancellationToken.None);
            }
        }
    }

    [Theory, EachMajor]
    public async Task A_role_that_may_not_is_told_the_grant(int major)
    {
        await using TestDatabase db = await NewDatabaseAsync(major);
        string app = "app_" + db.Name;
        string dba = "dba_" + db.Name;
        await db.ExecuteAsync($"create role {app} login; create role {dba} login; grant pg_read_all_stats to {dba}", Token);
        try
        {
            await using NpgsqlConnection victim = new(new NpgsqlConnectionStringBuilder(db.Server.ConnectionString(db.Name, app)) { Pooling = false }.ConnectionString);
            await victim.OpenAsync(Token);
            StopRequest request = new(victim.ProcessID, null, null);
            StopOptions options = new() { Mode = BlockingSessionMode.Terminate };
            MigrationException denied = await Assert.ThrowsAsync<MigrationException>(() => StopAsync(db, request, options, dba));
            Assert.Equal(("InsufficientPrivilege", MigrationErrorKind.Permission), (denied.ErrorId, denied.Kind));
            Assert.Contains($"GRANT pg_signal_backend TO {dba};", denied.RecommendedAction, StringComparison.Ordinal);
            await db.ExecuteAsync($"grant pg_signal_backend to {dba}", Token);
            Assert.Equal((BlockingSessionOutcome.Freed, true), (await StopAsync(db, request, options, dba)) is { } result ? (result.Outcome, result.Ended) : default);

            await using LockHolder super = await LockHolder.HoldAsync(db, "lock table orders");
            denied = await Assert.ThrowsAsync<MigrationException>(() => StopAsync(db, new StopRequest(super.Pid, null, null), options, dba));
            Assert.Contains("only a superuser may", denied.RecommendedAction, StringComparison.Ordinal);
        }
        finally
        {
            await db.ExecuteAsync($"drop role {app}; drop role {dba}", CancellationToken.None);
        }
    }

    private static async Task<Task> SleepAsync(TestDatabase db, LockHolder holder)
    {
        NpgsqlCommand command = new("select pg_sleep(600)", holder.Connection) { CommandTimeout = 0 };
        Task busy = command.ExecuteNonQueryAsync(Token);
        await ActiveAsync(db, holder.Pid, "select pg_sleep%");
        return busy;
    }

    private static Task ActiveAsync(TestDatabase db, int pid, string query) => Wait.UntilAsync(
        async () => await db.ScalarAsync<long>($"select count(*) from pg_stat_activity where pid = {pid} and state = 'active' and query like '{query}' and wait_event = 'PgSleep'") > 0,
        "the statement runs",
        cancellationToken: Token);

    private static async Task<DateTime> OwnStartAsync(NpgsqlConnection connection)
    {
        await using NpgsqlCommand command = new("select backend_start from pg_stat_activity where pid = pg_backend_pid()", connection);
        return (DateTime)(await command.ExecuteScalarAsync(Token))!;
    }

    private static Task<long> CountAsync(TestDatabase db, int pid) => db.ScalarAsync<long>($"select count(*) from pg_stat_activity where pid = {pid}", Token);

    private static async Task<StopRequest> RootAsync(TestDatabase db)
    {
        BlockingLock root = (await Tree.ReadAsync(db)).Single(row => row.Database == db.Name && row.IsRoot);
        return new StopRequest(root.Pid, root.Gid, root.BackendStart);
    }

    private async Task<TestDatabase> NewDatabaseAsync(int major)
    {
        TestDatabase db = await servers.Clusters.CreateDatabaseAsync(major, Token);
        await db.ExecuteAsync("create table orders (id int primary key)", Token);
        return db;
    }

    private Task<StopPlan> PlanAsync(TestDatabase db, StopRequest request, StopOptions options) =>
        WithAsync(db, null, session => SessionStopper.PlanAsync(session, request, options, _sink, Token));

    private Task<BlockingSessionResult> StopAsync(TestDatabase db, StopRequest request, StopOptions options, string? user = null) =>
        WithAsync(db, user, async session => await SessionStopper.RunAsync(await SessionStopper.PlanAsync(session, request, options, _sink, Token), options, _sink, Token));

    private async Task<T> WithAsync<T>(TestDatabase db, string? user, Func<EngineSession, Task<T>> work)
    {
        string text = user is null ? db.ConnectionString : db.Server.ConnectionString(db.Name, user);
        EngineSession session = EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = text }, _sink, Token));
        try
        {
            return await work(session);
        }
        finally
        {
            await SessionFactory.DisconnectAsync(session.Info);
        }
    }
}
