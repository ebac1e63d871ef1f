using MigrationSafety.Engine.Backfills;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What comes after the pass: it ends, whatever the application does, and leaves no row behind.</summary>
public sealed class BackfillSweepTests(Servers servers)
{
    private const string Counted = "create table t (id int primary key, note text, v int, n int not null default 0); insert into t select i from generate_series(1, 2000) i;";

    // The end of its transaction is what fills the cursor of a sweep: there it stays while the gate is closed, and so does the count of a proof.
    private const string Gated = Counted + """
        create function gate() returns boolean volatile language plpgsql as $$
        begin
            while current_query() ~* '^(commit|select pg_catalog.count...,)' and not pg_try_advisory_xact_lock_shared(42) loop
                perform pg_sleep(0.02);
            end loop;
            return true;
        end $$;
        """;

    private const string CloseGate = "select pg_advisory_xact_lock(42)";
    private const string Looking = "from pg_stat_activity where datname = current_database() and state = 'active' and query ~* '^(commit|select pg_catalog.count...,)'";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static BackfillRequest Once(TimeSpan? retryFor = null) =>
        BackfillBench.Request("t", "v", "1", "v is null", retryFor: retryFor) with { Set = [new("v", "1"), new("n", "n + 1")] };

    private static BackfillRequest OnceGated(TimeSpan? retryFor = null) => Once(retryFor) with { Where = "case when gate() then v is null end" };

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_row_that_stays_locked_ends_it_although_the_application_inserts(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Counted);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 600 for update");
        await using Traffic inserts = Traffic.Start(bench, 1, i => $"insert into t values ({10_000 + i})");

        MigrationException e = await bench.FailsAsync(Once(TimeSpan.FromSeconds(2)));

        Assert.Equal("RowsStayLocked", e.ErrorId);
        Assert.Equal(holder.Pid, Assert.Single(e.Blockers).Pid);
        // One look at the whole table, however long the row is waited for.
        Assert.Equal(1, await bench.ScalarAsync<int>("select sweep from migration_safety.backfill"));
        Assert.Equal(1999, await bench.ScalarAsync<long>("select count(*) from t where id <= 2000 and n = 1"));
    }

    [Theory, EachMajor]
    public async Task A_look_at_the_whole_table_that_is_lost_is_begun_again_however_long_it_had_lasted(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Gated);
        const string Long = $"{Looking} and clock_timestamp() - query_start > interval '1.5 s'";
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, CloseGate);
        Task<BackfillResult> run = bench.RunAsync(OnceGated(TimeSpan.FromSeconds(1)));
        await Wait.UntilAsync(async () => run.IsCompleted || await bench.ScalarAsync<bool>($"select exists (select {Long})"), "a long sweep", cancellationToken: Token);
        Assert.Equal(1, await bench.ScalarAsync<long>($"select count(pg_terminate_backend(pid)) {Long}"));
        await gate.CommitAsync(Token);

        Assert.Equal((BackfillOutcome.Completed, 2000L), ((await run).Outcome, (await run).Rows));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_look_at_the_whole_table_makes_way_for_who_wants_it_alone(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Gated);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, CloseGate);
        Task<BackfillResult> run = bench.RunAsync(OnceGated());
        await Wait.UntilAsync(async () => run.IsCompleted || await bench.ScalarAsync<bool>($"select exists (select {Looking})"), "a sweep", cancellationToken: Token);

        // The gate is closed: it would wait for ever.
        await bench.Database.ExecuteAsync("alter table t add column later int", Token);
        Assert.False(run.IsCompleted);
        await gate.CommitAsync(Token);

        Assert.Equal((BackfillOutcome.Completed, 2000L), ((await run).Outcome, (await run).Rows));
        string said = Assert.Single(bench.Sink.Warnings, warning => warning.Contains("makes way", StringComparison.Ordinal));
        Assert.Contains("alter table t add column later", said, StringComparison.Ordinal);

        await using LockHolder again = await LockHolder.HoldAsync(bench.Database, CloseGate);
        Task<BackfillTestResult> test = BackfillProof.TestAsync(bench.Session, new() { Name = (await run).Name }, bench.Sink, Token);
        await Wait.UntilAsync(async () => test.IsCompleted || await bench.ScalarAsync<bool>($"select exists (select {Looking})"), "the count", cancellationToken: Token);
        await bench.Database.ExecuteAsync("alter table t drop column later", Token);
        Assert.False(test.IsCompleted);
        await again.CommitAsync(Token);
        Assert.True((await test).Passed);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_look_for_rows_that_were_locked_makes_way_too(int major)
    {
        foreach (bool hasKey in (bool[])[true, false])
        {
            const string At = "from pg_stat_activity where datname = current_database() and state = 'active' and query ~ '^select \"public\".\"t\".ctid'";
            await using BackfillBench bench = await BackfillBench.CreateAsync(
                servers,
                major,
                Gated.Replace("^(commit|select pg_catalog.count...,)", "^select \"public\".\"t\".ctid", StringComparison.Ordinal) + (hasKey ? "" : "alter table t drop constraint t_pkey"));
            await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 600 for update");
            await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, CloseGate);
            Task<BackfillResult> run = bench.RunAsync(OnceGated());
            await Wait.UntilAsync(async () => run.IsCompleted || await bench.ScalarAsync<bool>($"select exists (select {At})"), "a look for the row", cancellationToken: Token);
            await holder.CommitAsync(Token);

            // The gate is closed: it would wait for ever.
            await bench.Database.ExecuteAsync("alter table t add column later int", Token);
            Assert.False(run.IsCompleted);
            await gate.CommitAsync(Token);

            Assert.Equal((BackfillOutcome.Completed, 2000L), ((await run).Outcome, (await run).Rows));
            Assert.Contains(bench.Sink.Warnings, warning => warning.StartsWith("A look for rows of public.t.v,n makes way", StringComparison.Ordinal));
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_look_at_the_whole_table_that_always_has_to_make_way_ends_with_their_names(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Gated);
        await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, CloseGate);
        Task<MigrationException> run = bench.FailsAsync(OnceGated(TimeSpan.FromMilliseconds(1)));
        await using Traffic changes = Traffic.Start(bench, 1, _ => $"do $$ begin if exists (select {Looking}) then lock table t; end if; end $$; select pg_sleep(0.05)");

        MigrationException e = await run;

        Assert.Equal("TableBusy", e.ErrorId);
        Assert.Contains("lock table t", Assert.Single(e.Blockers).Query, StringComparison.Ordinal);
        await changes.DisposeAsync();
        await gate.CommitAsync(Token);
        Assert.Equal(BackfillOutcome.Completed, (await bench.RunAsync(OnceGated())).Outcome);
    }

    [Theory, EachMajor]
    public async Task A_sweep_of_another_role_is_seen_at_work(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Counted);
        await using TestRole role = await TestRole.CreateAsync(bench.Database);
        BackfillDefinition definition = (await bench.PlanAsync(Once())).Definition;
        await using LockHolder sweeper = await LockHolder.HoldAsync(
            bench.Database, $"select pg_advisory_xact_lock({0x4D695353}, 't'::regclass::oid::int)", "savepoint look", "lock table t in access share mode");
        await using NpgsqlConnection other = new(bench.Database.Server.ConnectionString(bench.Database.Name, role.Name));
        await other.OpenAsync(Token);

        Assert.Equal((sweeper.Pid, "active"), ((await BackfillLock.SweeperAsync(other, definition, Token))!.Pid, (await BackfillLock.SweeperAsync(other, definition, Token))!.State));
        await sweeper.Connection.ExecuteAsync("rollback to look", Token);
        Assert.Null((await BackfillLock.SweeperAsync(other, definition, Token))!.State);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_row_that_is_always_locked_by_somebody_is_done_in_its_turn(int major)
    {
        foreach (bool keep in (bool[])[false, true])
        {
            await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Counted + "create index on t (note)");
            // Each has it for a while, with a change that moves it out of where it was found.
            await using Traffic hot = Traffic.Start(bench, 3, i => $"update t set note = 'x{i}' from pg_sleep(0.01) where id = 600; select pg_sleep(0.02)");

            BackfillResult result = await bench.RunAsync(Once() with { KeepOldValues = keep });
            await hot.DisposeAsync();

            Assert.Equal((BackfillOutcome.Completed, 2000L, 0L), (result.Outcome, result.Rows, result.Remaining));
            Assert.Equal(2000, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
            Assert.Equal(1, await bench.ScalarAsync<int>("select sweep from migration_safety.backfill"));
        }
    }

    [Theory, EachMajor]
    public async Task What_its_holder_deleted_moved_or_filled_is_found_or_waited_for_no_longer(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Counted + "create index on t (note)");
        await using LockHolder holder = await LockHolder.HoldAsync(
            bench.Database, "delete from t where id = 5", "update t set note = 'moved' where id in (6, 7)", "update t set v = 7 where id = 8", "update t set id = -9 where id = 9");

        Task<BackfillResult> run = bench.RunAsync(Once());
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("of which 5 were locked", StringComparison.Ordinal)), "the sweep to leave five rows", cancellationToken: Token);
        Assert.False(run.IsCompleted);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        // One more, for those that are not to be found by their keys any more.
        Assert.Equal(2, await bench.ScalarAsync<int>("select sweep from migration_safety.backfill"));
        Assert.Equal((1998L, 0L), (result.Rows, result.Remaining));
        Assert.Equal(1998, await bench.ScalarAsync<long>("select count(*) from t where v = 1 and n = 1"));
    }

    [Theory, EachMajor]
    public async Task It_ends_although_the_application_inserts_and_deletes_what_matches(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Counted);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 600 for update");
        // Of what a sweep finds some is always being deleted.
        await using Traffic queue = Traffic.Start(bench, 2, i => $"insert into t select {10_000 + (i * 50)} + j from generate_series(1, 50) j; commit; delete from t where id > {10_000 + (i * 50)} and id <= {10_050 + (i * 50)}; select pg_sleep(0.05)");

        Task<BackfillResult> run = bench.RunAsync(Once());
        await bench.UntilBatchesAsync(3, run);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        Assert.Equal(BackfillOutcome.Completed, result.Outcome);
        Assert.InRange(await bench.ScalarAsync<int>("select sweep from migration_safety.backfill"), 1, 3);
        Assert.Equal(2000, await bench.ScalarAsync<long>("select count(*) from t where id <= 2000 and n = 1"));
    }

    [Theory, EachMajor]
    public async Task A_row_that_left_its_place_to_another_one_is_not_taken_for_done(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Counted);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 600 for update");
        Task<BackfillResult> run = bench.RunAsync(Once());
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("of which 1 were locked", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);
        uint table = await bench.ScalarAsync<uint>("select 't'::regclass::oid");
        async Task<RowPlace> PlaceAsync(int id) =>
            new(table, (await bench.ScalarAsync<string>($"select ctid::text from t where id = {id}"))!, (await bench.ScalarAsync<string>($"select xmin::text from t where id = {id}"))!, $"{{{id}}}");

        // Two that were found one after the other: meanwhile the first moved, a vacuum gave its place away, and the second came there.
        await bench.Database.ExecuteAsync("insert into t values (3001)", Token);
        RowPlace found = await PlaceAsync(3001);
        RowPlace moved = found with { Version = await bench.ScalarAsync<string>("select xmin::text from t where id = 1") ?? "", Key = "{9}" };
        await bench.Database.ExecuteAsync("insert into t values (3002)", Token);
        RowPlace another = await PlaceAsync(3002);
        RowPlace locked = await PlaceAsync(600);

        BackfillContext context = new(await bench.PlanAsync(Once()), bench.Sink);
        context.Gate.Set(speed: 1, rowsPerSecond: null, workers: 1);
        await using BackfillWorker worker = new(context, 1);
        async Task<RowsOutcome> UpdateAsync(params RowPlace[] places) => await worker.HoldAsync(
            async () =>
            {
                await worker.AttendAsync(Token);
                return await worker.Rows.UpdateAsync(context.Definition.Leaves[0], places, isSweep: true, byKey: false, Token);
            },
            Token);
        RowsOutcome free = await UpdateAsync(moved, found);
        RowsOutcome inTheWay = await UpdateAsync(another with { Version = moved.Version }, another, locked);

        Assert.Equal(1, free.Changed);
        Assert.Equal([moved], free.Left);
        Assert.Equal(1, inTheWay.Changed);
        Assert.Equal([another with { Version = moved.Version }, locked], inTheWay.Left);
        await worker.DisposeAsync();
        await holder.CommitAsync(Token);
        Assert.Equal(0, (await run).Remaining);
    }

    [Theory, EachMajor]
    public async Task A_table_that_is_written_anew_under_a_sweep_is_swept_again(int major)
    {
        foreach (bool hasKey in (bool[])[true, false])
        {
            await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Gated + (hasKey ? "" : "alter table t drop constraint t_pkey"));
            await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id = 600 for update");
            using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(Token);
            Task<BackfillResult> run = bench.RunAsync(OnceGated(), cancel.Token);
            await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("of which 1 were locked", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);
            await cancel.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
            await holder.CommitAsync(Token);
            // One transaction makes them all: their version is the same.
            await bench.Database.ExecuteAsync("insert into t select i from generate_series(3001, 3200) i", Token);

            // While the backfill is paused it does not even look.
            RecordingSink sink = new();
            BackfillContext context = new(await bench.PlanAsync(OnceGated()), sink);
            await using BackfillWorker worker = new(context, 1);
            BackfillSweep sweep = new(context, worker);
            LockHolder gate = await LockHolder.HoldAsync(bench.Database, CloseGate);
            Task<bool> sweeps = worker.HoldAsync(() => sweep.RunAsync(Token), Token);
            await Wait.UntilAsync(
                async () => sweeps.IsCompleted || await bench.ScalarAsync<bool>("select exists (select from pg_stat_activity where datname = current_database() and state = 'idle' and query like '%sweep = sweep + 1%')"), "the sweep to begin", cancellationToken: Token);
            Assert.DoesNotContain(sink.DebugMessages, m => m.StartsWith("declare", StringComparison.Ordinal));

            // Paused again while it looks, it has found them by place and not touched them.
            context.Gate.Set(speed: 1, rowsPerSecond: null, workers: 1);
            await Wait.UntilAsync(async () => sweeps.IsCompleted || await bench.ScalarAsync<bool>($"select exists (select {Looking})"), "the sweep to look", cancellationToken: Token);
            context.Gate.Set(speed: 0, rowsPerSecond: null, workers: 1);
            await gate.DisposeAsync();
            // It has fetched them when it asks for their table.
            await Wait.UntilAsync(
                async () => sweeps.IsCompleted || (sink.DebugMessages.Any(m => m.StartsWith("declare", StringComparison.Ordinal)) && await bench.ScalarAsync<bool>(
                    "select exists (select from pg_stat_activity where datname = current_database() and application_name = 'MigrationSafety/backfill' and state = 'idle' and query like '%c.oid = b.table_oid%')")),
                "the sweep to have found its rows",
                cancellationToken: Token);
            await bench.Database.ExecuteAsync("delete from t where id in (1, 2, 3001, 3002, 3003)", Token);
            await bench.Database.ExecuteAsync("vacuum full t", Token);
            context.Gate.Set(speed: 1, rowsPerSecond: null, workers: 1);
            Assert.True(await sweeps);

            Assert.Equal("2195|2195", await bench.ScalarAsync<string>("select count(*) filter (where v = 1 and n = 1) || '|' || count(*) from t"));
            Assert.Equal("completed", await bench.ScalarAsync<string>("select state from migration_safety.backfill"));
        }
    }

    [Theory, EachMajor]
    public async Task Without_a_key_what_moved_is_found_by_another_sweep(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Counted + "alter table t drop constraint t_pkey; create index on t (note)");
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "update t set note = 'moved' where id = 6", "select from t where id = 7 for update");

        Task<BackfillResult> run = bench.RunAsync(Once());
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("of which 2 were locked", StringComparison.Ordinal)), "the sweep to leave two rows", cancellationToken: Token);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        Assert.Equal((2000L, 0L), (result.Rows, result.Remaining));
        Assert.Equal(2000, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
        Assert.Equal(2, await bench.ScalarAsync<int>("select sweep from migration_safety.backfill"));
    }

    [Theory, EachMajor]
    public async Task More_rows_are_locked_than_a_client_remembers(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Counted + "insert into t select i from generate_series(2001, 14000) i");
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id > 1000 for update");

        Task<BackfillResult> run = bench.RunAsync(Once());
        await Wait.UntilAsync(async () => run.IsCompleted || (await bench.StateExistsAsync() && await bench.ScalarAsync<int>("select max(sweep) from migration_safety.backfill") > 1), "another sweep", cancellationToken: Token);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        Assert.Equal((14_000L, 0L), (result.Rows, result.Remaining));
        Assert.Equal(14_000, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
    }

    [Theory, EachMajor]
    public async Task A_composite_key_of_any_type_leads_to_the_row(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t ("a B" text, at timestamptz, u uuid default gen_random_uuid(), f float8, note text, v int, n int not null default 0, primary key ("a B", at, u, f)) partition by list ("a B");
            create table t_1 partition of t for values in ('x "1"');
            create table t_2 partition of t default;
            insert into t select case when i % 2 = 0 then 'x "1"' else 'y, {\}' end, '2024-01-01'::timestamptz + i * interval '1.000001 s', gen_random_uuid(), i / 3.0 from generate_series(1, 500) i;
            create index on t (note);
            """);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "update t set note = 'moved' where f between 10 and 12");

        Task<BackfillResult> run = bench.RunAsync(Once());
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("were locked or changed", StringComparison.Ordinal)), "the sweep to leave rows", cancellationToken: Token);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        Assert.Equal((500L, 0L), (result.Rows, result.Remaining));
        Assert.Equal(500, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
        Assert.Equal(1, await bench.ScalarAsync<int>("select sweep from migration_safety.backfill"));
    }

    [Theory, EachMajor]
    public async Task A_refused_row_that_somebody_changes_for_ever_does_not_keep_it_from_its_end(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, note text, v int); insert into t select i, i::text from generate_series(1, 2000) i; update t set note = 'x' where id = 7");
        await using Traffic hot = Traffic.Start(bench, 2, i => $"update t set note = 'x{i}' where id = 7");

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "note::int") with { MaxErrors = 4 });
        await hot.DisposeAsync();

        Assert.Equal((BackfillOutcome.CompletedWithErrors, 1999L, 1L, 1L), (result.Outcome, result.Rows, result.Errors, result.Remaining));
    }

    /// <summary>An application that goes on and on.</summary>
    private sealed class Traffic : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        private Task[] _sessions = [];

        internal static Traffic Start(BackfillBench bench, int sessions, Func<int, string> sql)
        {
            Traffic traffic = new();
            traffic._sessions = [.. Enumerable.Range(0, sessions).Select(session => Task.Run(() => traffic.RunAsync(bench.Database.ConnectionString, i => sql((i * sessions) + session))))];
            return traffic;
        }

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await Task.WhenAll(_sessions);
        }

        private async Task RunAsync(string connectionString, Func<int, string> sql)
        {
            await using NpgsqlConnection connection = new(connectionString + ";Pooling=false;Application Name=traffic");
            await connection.OpenAsync(Token);
            for (int i = 0; !_stop.IsCancellationRequested; i++)
            {
                await using NpgsqlCommand command = new(sql(i), connection);
                await command.ExecuteNonQueryAsync(Token);
            }
        }
    }
}
