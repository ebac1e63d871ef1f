using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What other sessions, triggers and constraints do to a backfill: it takes no harm, and does none.</summary>
public sealed class BackfillHazardTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Another_connections_loss_costs_the_healthy_one_nothing(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int);
            insert into t select i from generate_series(1, 300) i;
            create table slow (on_time bool);
            insert into slow values (true);
            create function matches(v int) returns bool language plpgsql as $$
            begin
                if current_setting('application_name') = 'MigrationSafety/backfill' and (select on_time from slow) then perform pg_sleep(30); end if;
                return v is null;
            end $$;
            """);
        const string Holder = "select l.pid from pg_locks l join pg_database d on d.oid = l.database where d.datname = current_database() and l.locktype = 'advisory' limit 1";
        BackfillPlan plan = await PlanQuicklyAsync(bench, BackfillBench.Request("t", "v", "1", "matches(v)"));

        Task<BackfillResult> run = Backfill.RunAsync(plan, bench.Sink, Token);
        // The worker holds the table's lock and waits; rows to try are looked for on another connection.
        int healthy = 0;
        int looking = 0;
        await Wait.UntilAsync(
            async () =>
            {
                healthy = await bench.ScalarAsync<int?>(Holder) ?? 0;
                looking = await bench.ScalarAsync<int?>("select pid from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'") ?? 0;
                return run.IsCompleted || (healthy > 0 && looking > 0);
            },
            "the sample to be looked for",
            cancellationToken: Token);
        Assert.NotEqual(healthy, looking);
        await bench.Database.ExecuteAsync($"update slow set on_time = false; select pg_terminate_backend({looking})", Token);
        BackfillResult result = await run;

        Assert.Equal(300, result.Rows);
        Assert.Contains(bench.Sink.VerboseMessages, m => m.Contains("connection was lost", StringComparison.Ordinal));
        Assert.Equal(healthy, await bench.ScalarAsync<int>("select pid from migration_safety.backfill_worker"));
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task A_not_null_that_is_not_valid_yet_may_be_backfilled(int major)
    {
        Assert.SkipWhen(major < 18, "NOT NULL ... NOT VALID came with PostgreSQL 18.");
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int);
            insert into t select i from generate_series(1, 300) i;
            alter table t add constraint v_there not null v not valid;
            """);

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "id"));

        Assert.Equal(300, result.Rows);
        await bench.Database.ExecuteAsync("alter table t validate constraint v_there", Token);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_walk_whose_index_is_dropped_says_so(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int);
            insert into t select i from generate_series(1, 2000) i;
            create table slow (now bool);
            insert into slow values (false);
            create function one() returns int language plpgsql as $$ begin if (select now from slow) then perform pg_sleep(1); end if; return 1; end $$;
            """);
        Task<BackfillResult> run = bench.RunAsync(BackfillBench.Request("t", "v", "one()", batchSize: 1) with { Strategy = BackfillStrategy.Key });
        await bench.UntilBatchesAsync(1, run);

        // As slow as sorting what is left of a large table.
        await bench.Database.ExecuteAsync("alter table t drop constraint t_pkey; update slow set now = true", Token);

        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => run);
        Assert.Equal("IndexGone", e.ErrorId);
        await bench.Database.ExecuteAsync("update slow set now = false", Token);
        BackfillResult again = await bench.RunAsync(BackfillBench.Request("t", "v", "one()"));
        Assert.Equal((BackfillOutcome.Completed, BackfillStrategy.Block), (again.Outcome, again.Strategy));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_waits_for_rows_and_what_changes_them_have_one_bound(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders);
        BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("orders", "tier", "'x'"));
        await using BackfillConnection connection = await BackfillConnection.OpenAsync(bench.Session, plan.Definition, plan.Request, predecessor: null, bench.Sink, Token);

        PostgresException e = await Assert.ThrowsAsync<PostgresException>(
            () => connection.ExecuteAsync("select pg_sleep(0.4)::text", [], reader => reader.GetString(0), watch: null, Token, first: "select pg_sleep(0.4)"));

        Assert.Equal(("57014", TimeSpan.FromMilliseconds(500)), (e.SqlState, connection.HoldLimit));
        Assert.Equal("x", await connection.ExecuteAsync("select 'x'", [], reader => reader.GetString(0), watch: null, Token, first: "select 1"));
    }

    [Theory, EachMajor]
    public async Task A_key_that_may_still_hold_null_is_none(int major)
    {
        Assert.SkipWhen(major < 18, "NOT NULL ... NOT VALID came with PostgreSQL 18.");
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (k int unique, v int);
            insert into t select nullif(i, 7) from generate_series(1, 300) i;
            alter table t add constraint k_there not null k not valid;
            """);

        MigrationException e = await bench.FailsAsync(BackfillBench.Request("t", "v", "1") with { Strategy = BackfillStrategy.Key });

        Assert.Equal("UniqueIndexMissing", e.ErrorId);
    }

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task A_lock_on_another_tables_row_holds_up_only_the_rows_that_need_it(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table parent (id int primary key);
            insert into parent select i from generate_series(1, 10) i;
            create table t (id int primary key, wanted int, v int references parent);
            insert into t select i, case when i in (300, 301, 2500) then 7 else 1 + i % 6 end from generate_series(1, 3000) i;
            """);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from parent where id = 7 for update");
        BackfillRequest request = BackfillBench.Request("t", "v", "wanted", batchSize: 200) with { Strategy = strategy, Workers = workers };

        Task<BackfillResult> run = bench.RunAsync(request);
        await Wait.UntilAsync(async () => run.IsCompleted || await bench.ScalarAsync<long>("select count(*) from t where v is null") == 3, "all rows that nothing keeps", cancellationToken: Token);
        Assert.False(run.IsCompleted);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        Assert.Equal(3000, result.Rows);
        Assert.Equal(0, result.Remaining);
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_lock_that_rows_of_the_trial_need_keeps_the_others_from_nothing(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table parent (id int primary key);
            insert into parent select i from generate_series(1, 10) i;
            create table t (id int primary key, wanted int, v int references parent);
            insert into t select i, case when i % 4 = 0 then 1 else 7 end from generate_series(1, 400) i;
            """);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from parent where id = 7 for update");

        Task<BackfillResult> run = bench.RunAsync(BackfillBench.Request("t", "v", "wanted", batchSize: 50));
        await Wait.UntilAsync(async () => run.IsCompleted || await bench.ScalarAsync<bool>("select exists (select from t where v = 1)"), "a row that nothing keeps", cancellationToken: Token);
        Assert.False(run.IsCompleted);
        await holder.CommitAsync(Token);

        BackfillResult result = await run;
        Assert.Equal((BackfillOutcome.Completed, 400L, 0L), (result.Outcome, result.Rows, result.Remaining));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_condition_that_answers_otherwise_each_time_is_no_triggers_fault(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t select i from generate_series(1, 3000) i;");

        MigrationException e = await bench.FailsAsync(BackfillBench.Request("t", "v", "1", "v is null and random() < 0.5"));

        Assert.Equal("PredicateUnstable", e.ErrorId);
        Assert.DoesNotContain("trigger", e.Message, StringComparison.Ordinal);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_lock_on_the_table_itself_passes_no_row_over(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t select i from generate_series(1, 30000) i;");
        // Slow enough to be still at it when the table is locked.
        Task<BackfillResult> run = bench.RunAsync(BackfillBench.Request("t", "v", "id", batchSize: 30) with { Strategy = BackfillStrategy.Key, Throttle = new() { RowsPerSecond = 6000 } });
        await bench.UntilBatchesAsync(3, run);

        // As CREATE INDEX does: it lets rows be read, but not be changed.
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "lock table t in share mode");
        await Wait.UntilAsync(
            () => run.IsCompleted || bench.Sink.VerboseMessages.Count(m => m.Contains("tries again", StringComparison.Ordinal)) >= 5, "the batches to be taken back", cancellationToken: Token);
        Assert.StartsWith($"waits for pid {holder.Pid} ", await bench.ReasonAsync(run, "waits for"), StringComparison.Ordinal);
        Assert.Equal(0, await bench.ScalarAsync<int>("select sweep from migration_safety.backfill"));
        await holder.CommitAsync(Token);

        Assert.Equal(30_000, (await run).Rows);
        Assert.Equal(1, await bench.ScalarAsync<int>("select sweep from migration_safety.backfill"));
    }

    [Theory, EachMajor]
    public async Task A_row_that_a_trigger_refuses_with_a_state_of_its_own_is_recorded(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int);
            insert into t select i from generate_series(1, 300) i;
            create function refuse() returns trigger language plpgsql as $$
            begin
                if new.id = 77 then raise 'not this one' using errcode = 'ZX001'; end if;
                if new.id = 78 then raise 'nor this one' using errcode = 'program_limit_exceeded'; end if;
                return new;
            end $$;
            create trigger refuse before update on t for each row execute function refuse();
            """);

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "id") with { MaxErrors = 5 });

        Assert.Equal(BackfillOutcome.CompletedWithErrors, result.Outcome);
        Assert.Equal(298, result.Rows);
        Assert.Equal("54000,ZX001", await bench.ScalarAsync<string>("select string_agg(sqlstate, ',' order by sqlstate) from migration_safety.backfill_error"));
    }

    [Theory, EachMajor]
    public async Task A_stop_waits_for_no_count(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, LockedWhen("paused"));
        Task<BackfillResult> run = bench.RunAsync(BackfillBench.Request("t", "v", "id", "matches(v)") with { Throttle = new() { RowsPerSecond = 200 } });
        await bench.UntilBatchesAsync(2, run);

        BackfillStatus stopped = await BackfillControl.StopAsync(bench.Session, "public.t.v", TimeSpan.FromSeconds(30), bench.Sink, Token);
        BackfillResult result = await run;

        Assert.Equal((BackfillState.Paused, BackfillOutcome.Paused), (stopped.State, result.Outcome));
        Assert.InRange(result.Remaining, 1, 5000);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_is_completed_does_not_fail_on_its_count(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, LockedWhen("completed"));

        // One row is refused, so that it is counted how many are left.
        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "case when id < 5000 then id end", "matches(v)", retryFor: TimeSpan.FromSeconds(2)) with { MaxErrors = 1 });

        Assert.Equal((BackfillOutcome.CompletedWithErrors, 4999L, 1L), (result.Outcome, result.Rows, result.Remaining));
        Assert.Contains(bench.Sink.Warnings, m => m.Contains("could not be counted", StringComparison.Ordinal));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_is_completed_needs_no_new_connection_for_its_count(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t select i from generate_series(1, 2000) i");
        string role = "r" + Guid.NewGuid().ToString("N")[..12];
        await bench.Database.ExecuteAsync($"create role {role} login; grant all on t to {role}; grant create on database {bench.Database.Name} to {role}", Token);
        try
        {
            EngineSession session = await bench.SessionAsync(db => new NpgsqlConnectionStringBuilder(db.ConnectionString) { Username = role }.ConnectionString);
            BackfillRequest request = BackfillBench.Request("t", "v", "case when id < 2000 then id end", "v is null") with { MaxErrors = 1 };
            await bench.RunAsync(request with { Where = "id = 0", Name = "first" }, session: session);
            // As when its password is another by then.
            await bench.Database.ExecuteAsync($"""
                create function leave() returns trigger language plpgsql security definer as $$
                begin
                    execute 'alter role {role} nologin';
                    perform pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}' and pid <> pg_backend_pid();
                    return new;
                end $$;
                create trigger leave before update on migration_safety.backfill for each row when (new.state = 'completed') execute function leave()
                """, Token);

            BackfillResult result = await bench.RunAsync(request, session: session);

            Assert.Equal((BackfillOutcome.CompletedWithErrors, 1999L, 1L), (result.Outcome, result.Rows, result.Remaining));
            Assert.DoesNotContain(bench.Sink.Warnings, m => m.Contains("could not be counted", StringComparison.Ordinal));
        }
        finally
        {
            await bench.Database.ExecuteAsync($"drop owned by {role} cascade; drop role {role}", Token);
        }
    }

    /// <summary>A table whose condition meets a lock once the backfill is in a state.</summary>
    private static string LockedWhen(string state) => $"""
        create table t (id int primary key, v int);
        insert into t select i from generate_series(1, 5000) i;
        create function matches(v int) returns bool language plpgsql as $$
        begin
            if to_regclass('migration_safety.backfill') is not null then
                if exists (select from migration_safety.backfill where state = '{state}') then raise 'locked' using errcode = 'lock_not_available'; end if;
            end if;
            return v is null;
        end $$;
        """;

    /// <summary>A plan whose estimate does not wait.</summary>
    private static async Task<BackfillPlan> PlanQuicklyAsync(BackfillBench bench, BackfillRequest request)
    {
        await bench.Database.ExecuteAsync("update slow set on_time = false", Token);
        BackfillPlan plan = await bench.PlanAsync(request);
        await bench.Database.ExecuteAsync("update slow set on_time = true", Token);
        return plan;
    }
}
