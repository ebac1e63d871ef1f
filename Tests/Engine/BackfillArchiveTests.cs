using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What a backfill overwrites or deletes is kept with its batch, and comes back where nobody has written since.</summary>
public sealed class BackfillArchiveTests(Servers servers)
{
    private const int Rows = 8000;

    private static readonly string s_orders = $"""
        create table orders (id bigint, region int not null, tier text, n int not null default 0, primary key (region, id));
        insert into orders select i, i % 3, case when i % 4 > 0 then 'old ' || i end from generate_series(1, {Rows}) i;
        create table before as select * from orders;
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static BackfillRequest Keeping(BackfillStrategy strategy = BackfillStrategy.Auto, int workers = 1) => new()
    {
        Table = "orders",
        Set = [new("tier", "'new'"), new("n", "n + 1")],
        Where = "n = 0",
        KeepOldValues = true,
        BatchSize = 300,
        Strategy = strategy,
        Workers = workers,
        Name = "keeping",
    };

    private static BackfillRequest Deleting(BackfillStrategy strategy = BackfillStrategy.Auto, int workers = 1) =>
        Keeping(strategy, workers) with { Set = [], Delete = true, Where = "id > 1000" };

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task Old_values_come_back(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);

        // A row that stays locked for a while is caught by a sweep, and its old value is kept too.
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 5 for update");
        Task<BackfillResult> run = bench.RunAsync(Keeping(strategy, workers));
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("were locked or changed", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);
        Assert.False(run.IsCompleted);
        await holder.RollbackAsync(Token);
        BackfillResult result = await run;

        Assert.Equal((BackfillOutcome.Completed, (long)Rows, 0L), (result.Outcome, result.Rows, result.Remaining));
        await AssertKeptAsync(bench, result);
        Assert.Equal(result.Archive, (await BackfillControl.FindAsync(bench.Session, "keeping", bench.Sink, Token)).Archive);

        Assert.Equal(Reversibility.Reversible, result.Steps[^1].Reversibility);
        await bench.AssertRecordedAsync(result);
        await bench.RollBackAsync(result);
        await AssertBeforeAsync(bench);
        Assert.False(await bench.ScalarAsync<bool>($"select to_regclass('{result.Archive}') is not null"));
        Assert.Null((await BackfillControl.FindAsync(bench.Session, "keeping", bench.Sink, Token)).Archive);

        // All is as before, and so it can be done again.
        BackfillResult again = await bench.RunAsync(Keeping(strategy, workers));
        Assert.Equal(Rows, again.Rows);
        await AssertKeptAsync(bench, again);
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachWalk]
    public async Task Deleted_rows_come_back(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table orders (id bigint primary key, \"Odd %s Name\" jsonb, n bigint generated always as identity, twice bigint generated always as (id * 2) stored, kept_id int);"
            + $"insert into orders (id, \"Odd %s Name\", kept_id) select i, '{{}}', i from generate_series(1, {Rows}) i; create table before as select * from orders");

        BackfillResult result = await bench.RunAsync(Deleting(strategy, workers));
        Assert.Equal((Rows - 1000L, 1000L), (result.Rows, await bench.ScalarAsync<long>("select count(*) from orders")));
        Assert.Equal(Reversibility.Reversible, result.Steps[^1].Reversibility);
        // What the application has inserted since stays.
        await bench.Database.ExecuteAsync("insert into orders (id) values (2000)", Token);
        await bench.AssertRecordedAsync(result);
        List<string> notices = await bench.RollBackAsync(result);

        Assert.Equal(Rows - 1L, await bench.ScalarAsync<long>("select count(*) from orders join before using (id, n, twice, kept_id) where orders.\"Odd %s Name\"::text = before.\"Odd %s Name\"::text"));
        Assert.Equal(1, await bench.ScalarAsync<long>("select count(*) from orders where \"Odd %s Name\" is null"));
        Assert.Contains(notices, notice => notice.StartsWith("1 deleted row is not put back", StringComparison.Ordinal));
        Assert.Equal(1, await bench.ScalarAsync<long>($"select count(*) from {result.Archive} where id = 2000"));
    }

    [Theory, EachMajor]
    public async Task What_the_application_wrote_since_stays(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        BackfillResult result = await bench.RunAsync(Keeping());
        await bench.Database.ExecuteAsync("update orders set tier = 'mine' where id = 10; delete from orders where id = 11; update orders set tier = 'NEW' where id = 12", Token);
        // Written back to what matches, and done again by a second run: what it had before that run is the application's.
        await bench.Database.ExecuteAsync("update orders set tier = 'theirs', n = 0 where id = 13", Token);
        Assert.Equal(1, (await bench.RunAsync(Keeping())).Rows);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 20 for update");

        await bench.AssertRecordedAsync(result);
        List<string> notices = await bench.RollBackAsync(result);

        Assert.Equal("mine,NEW,theirs,new", await bench.ScalarAsync<string>("select string_agg(tier, ',' order by id) from orders where id in (10, 11, 12, 13, 20)"));
        Assert.Contains(notices, notice => notice.StartsWith("5 old values are not put back", StringComparison.Ordinal));
        Assert.Equal("10,11,12,13,20", await bench.ScalarAsync<string>($"select string_agg(id::text, ',' order by id) from {result.Archive}"));
        Assert.Equal(5, await bench.ScalarAsync<long>("select count(*) from before b left join orders o using (region, id) where (o.tier, o.n) is distinct from (b.tier, b.n)"));
        await holder.RollbackAsync(Token);
        await bench.RollBackAsync(result);
        Assert.Equal("10,11,12,13", await bench.ScalarAsync<string>($"select string_agg(id::text, ',' order by id) from {result.Archive}"));
    }

    [Theory, EachMajor]
    public async Task A_row_that_is_changed_twice_ends_as_it_was(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table orders (id int primary key, v numeric, n int not null default 0); insert into orders select i, i from generate_series(1, 50) i");
        BackfillRequest request = new() { Table = "orders", Set = [new("v", "v * 2"), new("n", "n + 1")], Where = "n = 0", KeepOldValues = true };
        BackfillResult result = await bench.RunAsync(request);
        await bench.RunAsync(request with { Set = [new("v", "v * 2"), new("n", "n + 1")], Where = "n = 1", Name = "other" });
        Assert.Equal(50, await bench.ScalarAsync<long>("select count(*) from orders where v = id * 4"));
        // Into one archive, as if the second run had been one of the first.
        string other = await bench.ScalarAsync<string>("select 'migration_safety.' || archive from migration_safety.backfill where name = 'other'") ?? "";
        await bench.Database.ExecuteAsync($"insert into {result.Archive} (kept_from, id, v, n, new_v, new_n) select kept_from, id, v, n, new_v, new_n from {other}", Token);

        await bench.AssertRecordedAsync(result);
        await bench.RollBackAsync(result);
        Assert.Equal(50, await bench.ScalarAsync<long>("select count(*) from orders where v = id and n = 0"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task No_row_is_deleted_whose_new_column_the_archive_lacks(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        BackfillRequest request = Deleting(workers: 2);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 3000 for update");
        Task<BackfillResult> run = bench.RunAsync(request);
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("were locked or changed", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);
        BackfillPlan late = await bench.PlanAsync(request with { Name = "late", Where = "id <= 1000" });

        // By who holds the row, which is free and has the column from one moment to the next.
        await using (NpgsqlCommand add = new("alter table orders add column since text default 'since'", holder.Connection))
        {
            await add.ExecuteNonQueryAsync(Token);
        }

        await holder.CommitAsync(Token);

        foreach (Func<Task> failing in (Func<Task>[])[() => run, () => Backfill.RunAsync(late, bench.Sink, Token)])
        {
            MigrationException e = await Assert.ThrowsAsync<MigrationException>(failing);
            Assert.Equal("ArchiveDiffers", e.ErrorId);
            Assert.Contains("A column was added to public.orders while the backfill ran", e.Message, StringComparison.Ordinal);
        }

        Assert.Equal(1001, await bench.ScalarAsync<long>("select count(*) from orders where since = 'since'"));
        BackfillResult other = await bench.RunAsync(request with { Name = "other" });
        Assert.Equal(1, other.Rows);
        Assert.Equal("since", await bench.ScalarAsync<string>($"select since from {other.Archive} where id = 3000"));
    }

    [Theory, EachMajor]
    public async Task No_key_is_rounded_to_the_archives_type(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table orders (id numeric(10,2) primary key, v int); insert into orders select i, 1 from generate_series(1, 50) i");
        BackfillRequest request = new() { Table = "orders", Set = [new("v", "0")], Where = "v > 0", KeepOldValues = true, Name = "keeping" };
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 30 for update");
        Task<BackfillResult> run = bench.RunAsync(request);
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("were locked or changed", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);
        await using (NpgsqlCommand retype = new("alter table orders alter column id type numeric(14,4); update orders set id = 30.0049 where id = 30", holder.Connection))
        {
            await retype.ExecuteNonQueryAsync(Token);
        }

        await holder.CommitAsync(Token);

        Assert.Equal("ArchiveDiffers", (await Assert.ThrowsAsync<MigrationException>(() => run)).ErrorId);
        Assert.Equal(1, await bench.ScalarAsync<int>("select v from orders where id = 30.0049"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task No_value_is_rounded_to_the_archives_type(int major)
    {
        foreach (bool deletes in (bool[])[true, false])
        {
            await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table orders (id int primary key, amount numeric(10,2), note text); insert into orders select i, 1, 'n' from generate_series(1, 50) i");
            BackfillRequest request = new() { Table = "orders", Set = deletes ? [] : [new("amount", "0")], Delete = deletes, Where = "amount > 0", KeepOldValues = true, Name = "keeping" };
            await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 30 for update");
            Task<BackfillResult> run = bench.RunAsync(request);
            await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("were locked or changed", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);
            await using (NpgsqlCommand retype = new("alter table orders alter column amount type numeric(14,4), alter column note type varchar(100); update orders set amount = 1.2345 where id = 30", holder.Connection))
            {
                await retype.ExecuteNonQueryAsync(Token);
            }

            await holder.CommitAsync(Token);

            MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => run);
            Assert.Equal("ArchiveDiffers", e.ErrorId);
            Assert.Contains("another type", e.Message, StringComparison.Ordinal);
            Assert.Equal("1.2345", await bench.ScalarAsync<string>("select amount::text from orders where id = 30"));
            BackfillResult other = await bench.RunAsync(request with { Name = "other" });
            Assert.Equal("1.2345", await bench.ScalarAsync<string>($"select amount::text from {other.Archive}"));
        }
    }

    [Theory, EachMajor]
    public async Task What_is_kept_while_all_else_is_put_back_stays(int major) => await KeptMeanwhileAsync(major, null);

    // A snapshot from before the lock on the archive would not show it.
    [Theory, EachMajor]
    public async Task So_it_does_for_a_role_whose_transactions_keep_their_snapshot(int major) => await KeptMeanwhileAsync(major, "-c default_transaction_isolation=serializable");

    private async Task KeptMeanwhileAsync(int major, string? options)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table orders (id int primary key, v int); insert into orders select i from generate_series(1, 50) i");
        BackfillResult result = await bench.RunAsync(new() { Table = "orders", Set = [new("v", "id")], KeepOldValues = true });
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, $"insert into {result.Archive} (kept_from, id, new_v) values ('orders', 51, 51)");

        Task<List<string>> back = bench.RollBackAsync(result, options);
        await Wait.UntilAsync(
            async () => back.IsCompleted || await bench.ScalarAsync<bool>($"select exists (select from pg_locks where relation = '{result.Archive}'::regclass and mode = 'AccessExclusiveLock' and not granted)"),
            "the end to ask for the archive", cancellationToken: Token);
        await holder.CommitAsync(Token);

        Assert.StartsWith("1 old value is not put back", (await back)[^1], StringComparison.Ordinal);
        Assert.Equal(51, await bench.ScalarAsync<int>($"select id from {result.Archive}"));
        Assert.Equal(50, await bench.ScalarAsync<long>("select count(*) from orders where v is null"));
    }

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task Partitions_share_an_archive(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, $"""
            create table orders (id bigint, region int not null, tier text, n int not null default 0, primary key (region, id)) partition by list (region);
            create table orders_0 partition of orders for values in (0);
            create table orders_1 (n int not null default 0, gone int, tier text, region int not null, id bigint not null);
            alter table orders_1 drop column gone;
            alter table orders attach partition orders_1 for values in (1, 2);
            insert into orders select i, i % 3, case when i % 4 > 0 then 'old ' || i end from generate_series(1, {Rows}) i;
            create table before as select * from orders;
            """);

        BackfillResult result = await bench.RunAsync(Keeping(strategy, workers));
        await AssertKeptAsync(bench, result);
        await bench.RollBackAsync(result);
        await AssertBeforeAsync(bench);

        result = await bench.RunAsync(Deleting(strategy, workers) with { Name = "deleting" });
        Assert.Equal(Rows - 1000, result.Rows);
        await bench.RollBackAsync(result);
        await AssertBeforeAsync(bench);
    }

    [Theory, EachWalk]
    public async Task Killed_again_and_again_it_keeps_each_old_value_once(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + "alter table orders add constraint odd check (id <> 77 or tier <> 'new');");
        BackfillRequest request = Keeping(strategy, workers) with { BatchSize = 60, MaxErrors = 1 };
        Task<BackfillResult> run = bench.RunAsync(request);
        for (int kills = 0; kills < 3 && !run.IsCompleted; kills++)
        {
            await bench.UntilBatchesAsync((kills + 1) * 8, run);
            await bench.Database.ExecuteAsync(
                "select pg_terminate_backend(a.pid) from pg_stat_activity a join migration_safety.backfill_worker b on (b.pid, b.backend_start) = (a.pid, a.backend_start)", Token);
            // At any moment, the archive holds what the rows have lost.
            Assert.Equal(0, await bench.ScalarAsync<long>($"""
                select count(*) from orders o full join migration_safety.{await bench.ScalarAsync<string>("select archive from migration_safety.backfill")} k using (region, id)
                where (o.n = 1) is distinct from (k.kept_id is not null)
                """));
        }

        BackfillResult result = await run;
        Assert.Equal((BackfillOutcome.CompletedWithErrors, Rows - 1L, 1L), (result.Outcome, result.Rows, result.Errors));
        await bench.Database.ExecuteAsync("alter table orders drop constraint odd", Token);
        BackfillRequest recorded = await BackfillControl.RequestAsync(bench.Session, "keeping", bench.Sink, Token);
        Assert.True(recorded.KeepOldValues);
        Assert.Equal(1, (await bench.RunAsync(recorded)).Rows);

        await AssertKeptAsync(bench, result);
        await bench.RollBackAsync(result);
        await AssertBeforeAsync(bench);
    }

    [Theory, EachMajor]
    public async Task A_rollback_that_is_killed_goes_on(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        BackfillResult result = await bench.RunAsync(Keeping());
        await bench.Database.ExecuteAsync("create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.0005); return new; end $$; create trigger slow before update on orders for each row execute function slow()", Token);

        Task<List<string>> rollback = bench.RollBackAsync(result);
        await Wait.UntilAsync(async () => await bench.ScalarAsync<long>("select count(*) from orders where n = 0") > 0, "a batch to be put back", cancellationToken: Token);
        await bench.Database.ExecuteAsync("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like 'do $msb$%' and pid <> pg_backend_pid()", Token);
        await Assert.ThrowsAnyAsync<NpgsqlException>(() => rollback);
        Assert.Equal(Rows, await bench.ScalarAsync<long>($"select (select count(*) from {result.Archive}) + (select count(*) from orders where n = 0)"));

        await bench.Database.ExecuteAsync("drop trigger slow on orders", Token);
        await bench.RollBackAsync(result);
        await AssertBeforeAsync(bench);
    }

    [Theory, EachMajor]
    public async Task What_cannot_be_kept_is_said_beforehand(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table keyless (id int, tier text); insert into keyless values (1);
            create table orders (id int primary key, tier text, n int not null default 0); insert into orders select i from generate_series(1, 100) i;
            create table parts (id int primary key, order_id int references orders on delete cascade);
            create table logs (at date not null, id int, n int default 0) partition by range (at);
            create table logs_1 partition of logs (primary key (id)) for values from ('2020-01-01') to ('2021-01-01');
            create table logs_2 partition of logs (primary key (at, id)) for values from ('2021-01-01') to ('2022-01-01');
            create table tree (id int primary key); create table branch (primary key (id), more text) inherits (tree);
            """);
        MigrationException keyless = await bench.FailsAsync(Keeping() with { Table = "keyless", Set = [new("tier", "'a'")], Where = null });
        Assert.Equal("UniqueIndexMissing", keyless.ErrorId);
        Assert.Contains("Invoke-SafeIndexBuild -Unique", keyless.RecommendedAction, StringComparison.Ordinal);
        Assert.Equal("UniqueIndexMissing", (await bench.FailsAsync(Keeping() with { Set = [new("id", "id + 1000")], Where = "id < 1000" })).ErrorId);
        Assert.Equal("KeysDiffer", (await bench.FailsAsync(Keeping() with { Table = "logs", Set = [new("n", "1")], Where = "n = 0" })).ErrorId);
        // Deleted from the parent, the child's rows would lose what the parent does not have.
        MigrationException inherits = await bench.FailsAsync(Deleting() with { Table = "tree", Where = "id > 0" });
        Assert.Equal(("ColumnsDiffer", "public.branch"), (inherits.ErrorId, inherits.Target));
        Assert.Contains("(more)", inherits.Message, StringComparison.Ordinal);
        Assert.False(await bench.StateExistsAsync());

        BackfillPlan plan = await bench.PlanAsync(Keeping());
        Assert.Contains(plan.Notes, note => note.StartsWith("old values are kept in migration_safety.kept_", StringComparison.Ordinal) && note.Contains("MB", StringComparison.Ordinal));
        Assert.Contains(plan.Steps, step => step.Sql.StartsWith("create table migration_safety.kept_", StringComparison.Ordinal));
        // What goes along is not kept, and that is said.
        BackfillPlan deletion = await bench.PlanAsync(Deleting());
        Assert.Contains(deletion.Notes, note => note.Contains("public.parts", StringComparison.Ordinal));
        Assert.Equal(Reversibility.ReversibleWithDataLoss, deletion.Steps[^1].Reversibility);

        BackfillResult result = await bench.RunAsync(Keeping());
        MigrationException differs = await bench.FailsAsync(Keeping() with { KeepOldValues = false });
        Assert.Equal("DefinitionDiffers", differs.ErrorId);
        Assert.Contains("keeping no old values", differs.Message, StringComparison.Ordinal);
        await bench.Database.ExecuteAsync($"alter table {result.Archive} alter column new_n type bigint; update orders set n = 0", Token);
        Assert.Equal("ArchiveDiffers", (await bench.FailsAsync(Keeping())).ErrorId);
    }

    [Theory, EachMajor]
    public async Task Only_its_owner_may_read_the_archive(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + "alter default privileges grant select on tables to public; alter default privileges grant all on tables to pg_monitor");
        BackfillResult result = await bench.RunAsync(Keeping());

        Assert.Equal("true", await bench.ScalarAsync<string>($"select coalesce(bool_and(a.grantee = c.relowner), true)::text from pg_class c left join lateral aclexplode(c.relacl) a on true where c.oid = '{result.Archive}'::regclass"));
        Assert.False(await bench.ScalarAsync<bool>($"select has_table_privilege('pg_monitor', '{result.Archive}', 'select')"));
    }

    [Theory, EachMajor]
    public async Task Removing_a_backfill_leaves_the_archive_unless_told(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        BackfillResult result = await bench.RunAsync(Keeping());
        await BackfillControl.RemoveAsync(bench.Session, "keeping", force: false, dropArchive: false, TimeSpan.Zero, bench.Sink, Token);
        Assert.Contains(bench.Sink.Warnings, warning => warning.Contains($"drop table {result.Archive};", StringComparison.Ordinal));
        Assert.Equal(Rows, await bench.ScalarAsync<long>($"select count(*) from {result.Archive}"));

        await bench.RunAsync(Keeping());
        await BackfillControl.RemoveAsync(bench.Session, "keeping", force: false, dropArchive: true, TimeSpan.Zero, bench.Sink, Token);
        Assert.False(await bench.ScalarAsync<bool>($"select to_regclass('{result.Archive}') is not null"));
    }

    private static async Task AssertKeptAsync(BackfillBench bench, BackfillResult result)
    {
        Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(*) from orders where tier = 'new' and n = 1"));
        Assert.Equal(Rows, await bench.ScalarAsync<long>($"select count(*) from {result.Archive}"));
        Assert.Equal(Rows, await bench.ScalarAsync<long>(
            $"select count(*) from {result.Archive} k join before b using (region, id) where k.tier is not distinct from b.tier and k.n = 0 and k.new_tier = 'new' and k.new_n = 1"));
    }

    private static async Task AssertBeforeAsync(BackfillBench bench) =>
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from ((table before except select id, region, tier, n from orders) union all (select id, region, tier, n from orders except table before)) as d"));
}
