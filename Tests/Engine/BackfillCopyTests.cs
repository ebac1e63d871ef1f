using MigrationSafety.Engine.Backfills;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Rows are copied into another table, each once, by the unique key of that table.</summary>
public sealed class BackfillCopyTests(Servers servers)
{
    private const int Rows = 9000;

    private static readonly string s_orders = $"""
        create table orders (id bigint primary key, price int not null, quantity int not null, note text);
        insert into orders select i, i, i % 7, 'n' || i from generate_series(1, {Rows}) i;
        create table orders_new (note varchar(20), id bigint primary key generated always as identity, total numeric not null, made text default 'by default', twice bigint generated always as (id * 2) stored);
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static BackfillRequest Copying(BackfillStrategy strategy = BackfillStrategy.Auto, int workers = 1) => new()
    {
        Table = "orders",
        InsertInto = "orders_new",
        Select = [new("total", "price * quantity")],
        BatchSize = 300,
        Strategy = strategy,
        Workers = workers,
    };

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task Every_row_is_copied_once(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);

        // A row that is being changed is caught by a sweep, as it is then.
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "update orders set price = 1000 where id = 5");
        Task<BackfillResult> run = bench.RunAsync(Copying(strategy, workers));
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("were locked or changed", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);
        Assert.False(run.IsCompleted);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;

        Assert.Equal((BackfillOutcome.Completed, (long)Rows, 0L, "public.orders.into.orders_new"), (result.Outcome, result.Rows, result.Remaining, result.Name));
        await AssertCopiedAsync(bench);
        Assert.Contains(bench.Sink.Warnings, warning => warning.Contains("setval('public.orders_new_id_seq'", StringComparison.Ordinal));
        Assert.StartsWith("insert into public.orders_new (note, id, total) SELECT note, id, price * quantity", (await BackfillControl.FindAsync(bench.Session, result.Name, bench.Sink, Token)).Action, StringComparison.Ordinal);

        // Run again, taken up from its record, tested.
        Assert.Equal(BackfillOutcome.AlreadyCompleted, (await bench.RunAsync(Copying(strategy, workers))).Outcome);
        BackfillRequest recorded = await BackfillControl.RequestAsync(bench.Session, result.Name, bench.Sink, Token);
        Assert.Equal(BackfillOutcome.AlreadyCompleted, (await bench.RunAsync(recorded)).Outcome);
        BackfillTestResult test = await BackfillProof.TestAsync(bench.Session, new() { Name = result.Name, Comparison = BackfillComparison.All }, bench.Sink, Token);
        Assert.Equal((true, 0L, (long)Rows, 0L), (test.Passed, test.Matching, test.Compared, test.Different));
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachMajor]
    public async Task Clients_for_which_the_target_was_and_was_not_empty_do_not_share_a_copy(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        BackfillPlan empty = await bench.PlanAsync(Copying());
        await bench.Database.ExecuteAsync("insert into orders_new (total) values (1)", Token);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from orders where id = 5 for update");
        Task<BackfillResult> run = bench.RunAsync(Copying());
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.Contains("were locked or changed", StringComparison.Ordinal)), "the sweep to leave a row", cancellationToken: Token);

        MigrationException e = await Assert.ThrowsAsync<MigrationException>(() => Backfill.RunAsync(empty, bench.Sink, Token));

        Assert.Equal("BegunMeanwhile", e.ErrorId);
        Assert.Contains("public.orders_new was no longer empty; by the plan of this one it was still so", e.Message, StringComparison.Ordinal);
        await holder.CommitAsync(Token);
        BackfillResult result = await run;
        Assert.Equal((BackfillOutcome.Completed, Rows - 1L, 0L), (result.Outcome, result.Rows, result.Remaining));
        await bench.AssertRecordedAsync(result);
        await bench.RollBackAsync(result);
        Assert.Equal(1, await bench.ScalarAsync<long>("select count(*) from orders_new"));
    }

    [Theory, EachMajor]
    public async Task What_came_since_is_counted_and_copied_by_the_next_run(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        await bench.RunAsync(Copying());
        await bench.Database.ExecuteAsync("insert into orders values (20001, 3, 4, 'new'), (20002, 3, 4, 'new'); update orders set price = 7777 where id = 10; update orders_new set made = 'changed' where id = 11", Token);

        BackfillTestResult test = await BackfillProof.TestAsync(bench.Session, new() { Name = "public.orders.into.orders_new", Comparison = BackfillComparison.All }, bench.Sink, Token);
        Assert.Equal((false, 2L, 1L), (test.Passed, test.Matching, test.Different));
        Assert.Equal("(id) = (10)", Assert.Single(test.DifferentRow));
        Assert.Contains(test.Detail, detail => detail.Contains("2 rows are missing in public.orders_new", StringComparison.Ordinal));

        long before = await bench.ScalarAsync<long>("select pg_current_xact_id()::text::int8");
        BackfillResult result = await bench.RunAsync(Copying());
        Assert.Equal((2L, 0L), (result.Rows, result.Remaining));
        // With little left, little is locked: a few rows of the trial besides.
        Assert.InRange(await bench.ScalarAsync<long>($"select count(*) from orders where xmax::text::int8 > {before}"), 2, 102);
        // What is there is left as it is.
        Assert.Equal("changed", await bench.ScalarAsync<string>("select made from orders_new where id = 11"));
        Assert.Equal(10L * 3, await bench.ScalarAsync<long>("select total::int8 from orders_new where id = 10"));

        // The table was not empty any more: the way back takes these two alone.
        Assert.StartsWith("migration_safety.kept_", result.Archive, StringComparison.Ordinal);
        await bench.AssertRecordedAsync(result);
        await bench.RollBackAsync(result);
        Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(*) from orders_new"));
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from orders_new where id > 20000"));
        Assert.False(await bench.ScalarAsync<bool>($"select to_regclass('{result.Archive}') is not null"));

        // Nobody can tell which side it is that changed.
        await bench.Database.ExecuteAsync("delete from orders where id > 20000; delete from orders_new where id = 12", Token);
        test = await BackfillProof.TestAsync(bench.Session, new() { Name = "public.orders.into.orders_new" }, bench.Sink, Token);
        Assert.Contains(test.Detail, detail => detail.StartsWith("1 row is missing in public.orders_new; it was inserted since, or deleted there:", StringComparison.Ordinal));
        await bench.Database.ExecuteAsync("delete from orders_new where id = 13", Token);
        test = await BackfillProof.TestAsync(bench.Session, new() { Name = "public.orders.into.orders_new" }, bench.Sink, Token);
        Assert.Contains(test.Detail, detail => detail.StartsWith("2 rows are missing in public.orders_new; they were inserted since, or deleted there:", StringComparison.Ordinal));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_was_empty_when_it_was_planned_and_is_not_is_told_from_what_is_copied(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + "create table older (id bigint primary key, total numeric not null); insert into older select i, i from generate_series(20001, 20003) i");
        BackfillRequest older = new() { Table = "older", InsertInto = "orders_new" };
        BackfillPlan first = await bench.PlanAsync(Copying());
        BackfillPlan second = await bench.PlanAsync(older);
        await Backfill.RunAsync(first, bench.Sink, Token);

        BackfillResult result = await Backfill.RunAsync(second, bench.Sink, Token);

        Assert.Equal(3, result.Rows);
        await bench.AssertRecordedAsync(result);
        await bench.RollBackAsync(result);
        Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(*) from orders_new"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Of_two_that_begin_at_once_only_one_takes_back_all_that_is_there(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + "create table older (id bigint primary key, total numeric not null); insert into older select i, i from generate_series(20001, 21000) i");
        await bench.RunAsync(BackfillBench.Request("older", "total", "total + 1000", "total < 20003"));
        BackfillPlan first = await bench.PlanAsync(Copying());
        BackfillPlan second = await bench.PlanAsync(new() { Table = "older", InsertInto = "orders_new" });
        BackfillResult[] results = await Task.WhenAll(Backfill.RunAsync(first, bench.Sink, Token), Backfill.RunAsync(second, bench.Sink, Token));

        Assert.Equal([Rows, 1000L], results.Select(result => result.Rows));
        BackfillResult keeping = Assert.Single(results, result => result.Archive is not null);
        await bench.AssertRecordedAsync(keeping);
        await bench.RollBackAsync(keeping);
        Assert.Equal(results.Single(result => result != keeping).Rows, await bench.ScalarAsync<long>("select count(*) from orders_new"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_key_without_overlaps_is_passed_over(int major)
    {
        Assert.SkipWhen(major < 18, "WITHOUT OVERLAPS came with PostgreSQL 18.");
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table stays (id int4range not null, during daterange not null, number int not null);
            insert into stays select int4range(i, i + 1), '[2024-01-01,2024-02-01)', i from generate_series(1, 300) i;
            create table stays_new (id int4range, during daterange, number int not null unique, primary key (id, during without overlaps));
            """);

        Assert.Equal(300, (await bench.RunAsync(new() { Table = "stays", InsertInto = "stays_new" })).Rows);

        await bench.Database.ExecuteAsync("alter table stays_new drop constraint stays_new_number_key", Token);
        Assert.Equal("UniqueIndexMissing", (await bench.FailsAsync(new() { Table = "stays", InsertInto = "stays_new", Name = "again" })).ErrorId);
    }

    [Theory, EachMajor]
    public async Task What_was_empty_is_empty_again(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        BackfillResult result = await bench.RunAsync(Copying());
        Assert.Equal(Reversibility.ReversibleWithDataLoss, result.Steps[^1].Reversibility);
        Assert.Null(result.Archive);

        List<string> notices;
        await using (LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from orders_new where id = 77 for update"))
        {
            notices = await bench.RollBackAsync(result);
            Assert.Contains(notices, notice => notice.StartsWith("1 row of public.orders_new is left: rows are locked or new", StringComparison.Ordinal));
            await holder.RollbackAsync(Token);
        }

        await bench.RollBackAsync(result);
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from orders_new"));
    }

    [Theory, EachWalk]
    public async Task Killed_again_and_again_each_row_is_there_once(int major, BackfillStrategy strategy, int workers)
    {
        // Without the key a second copy of a row would be let in by the table, but not by the counter.
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + """
            create table copies (id bigint);
            create function copied() returns trigger language plpgsql as $$ begin insert into copies values (new.id); return null; end $$;
            create trigger copied after insert on orders_new for each row execute function copied();
            alter table orders_new add constraint odd check (id <> 77);
            """);
        BackfillRequest request = Copying(strategy, workers) with { BatchSize = 60, MaxErrors = 1 };
        Task<BackfillResult> run = bench.RunAsync(request);
        for (int kills = 0; kills < 3 && !run.IsCompleted; kills++)
        {
            await bench.UntilBatchesAsync((kills + 1) * 8, run);
            await bench.Database.ExecuteAsync(
                "select pg_terminate_backend(a.pid) from pg_stat_activity a join migration_safety.backfill_worker b on (b.pid, b.backend_start) = (a.pid, a.backend_start)", Token);
            // Counted with the copy, or not at all.
            Assert.True(await bench.ScalarAsync<bool>("select (select sum(rows_done) from migration_safety.backfill_worker) = (select count(*) from orders_new)"));
        }

        BackfillResult result = await run;
        Assert.Equal((BackfillOutcome.CompletedWithErrors, Rows - 1L, 1L), (result.Outcome, result.Rows, result.Errors));
        await bench.Database.ExecuteAsync("alter table orders_new drop constraint odd", Token);
        Assert.Equal(1, (await bench.RunAsync(request)).Rows);

        await AssertCopiedAsync(bench);
        Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(distinct id) from copies"));
        Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(*) from copies"));
    }

    [Theory, EachMajor]
    public async Task A_trigger_that_passes_changes_on_misses_none(int major)
    {
        // The trigger changes and deletes only what is there: what the application writes while a batch has read it but not committed must wait for the batch.
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + """
            create function pass_on() returns trigger language plpgsql as $$ begin
                if tg_op = 'DELETE' then delete from orders_new where id = old.id; else update orders_new set total = new.price * new.quantity where id = new.id; end if; return null; end $$;
            create trigger pass_on after update or delete on orders for each row execute function pass_on();
            create function slow() returns trigger language plpgsql as $$ begin if new.id % 50 = 0 then perform pg_sleep(0.002); end if; return new; end $$;
            create trigger slow before insert on orders_new for each row execute function slow();
            """);
        Task<BackfillResult> run = bench.RunAsync(Copying(workers: 2));
        await bench.UntilBatchesAsync(1, run);
        for (int i = 0; i < 200 && !run.IsCompleted; i++)
        {
            int id = (i * 37 % Rows) + 1;
            await bench.Database.ExecuteAsync(i % 3 == 0 ? $"delete from orders where id = {id}" : $"update orders set price = price + 100000 where id = {id}", Token);
        }

        await run;
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from orders o full join orders_new n using (id) where o.price * o.quantity is distinct from n.total"));
    }

    [Theory, EachMajor]
    public async Task What_a_trigger_keeps_out_is_refused_or_recorded(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + """
            create function gate() returns trigger language plpgsql as $$ begin return null; end $$;
            create trigger gate before insert on orders_new for each row execute function gate();
            create table named (id uuid primary key default gen_random_uuid(), price int not null);
            """);
        MigrationException kept = await bench.FailsAsync(Copying());
        Assert.Equal("TriggerKeepsRow", kept.ErrorId);
        Assert.Contains("gate, which calls gate", kept.Message, StringComparison.Ordinal);
        // It would be copied again by each run.
        MigrationException another = await bench.FailsAsync(Copying() with { InsertInto = "named", Select = [new("id", "gen_random_uuid()")] });
        Assert.Equal("TriggerKeepsRow", another.ErrorId);
        Assert.Contains("another value each time", another.Message, StringComparison.Ordinal);

        await bench.Database.ExecuteAsync("create or replace function gate() returns trigger language plpgsql as $$ begin return case when new.id % 1000 <> 1 then new end; end $$", Token);
        BackfillResult result = await bench.RunAsync(Copying(workers: 2) with { MaxErrors = 20 });
        Assert.Equal((BackfillOutcome.CompletedWithErrors, Rows - 9L, 9L), (result.Outcome, result.Rows, result.Errors));
        await bench.Database.ExecuteAsync("drop trigger gate on orders_new", Token);
        Assert.Equal(9, (await bench.RunAsync(Copying() with { MaxErrors = 20 })).Rows);
        await AssertCopiedAsync(bench);
    }

    [Theory, EachMajor]
    public async Task Partitions_are_copied_into_partitions(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, $"""
            create table orders (id bigint, region int not null, primary key (region, id)) partition by list (region);
            create table orders_0 partition of orders for values in (0);
            create table orders_1 partition of orders for values in (1, 2);
            insert into orders select i, i % 3 from generate_series(1, {Rows}) i;
            create table orders_new ("Region" int not null, id bigint not null, primary key (id)) partition by range (id);
            create table orders_new_0 partition of orders_new for values from (0) to (4000);
            create table orders_new_1 partition of orders_new for values from (4000) to (100000);
            insert into orders_new values (99, 1), (99, 5000);
            """);
        BackfillRequest request = new() { Table = "orders", InsertInto = "orders_new", Select = [new("\"Region\"", "orders.region")], Where = "id % 2 = 1", BatchSize = 200 };
        MigrationException homeless = await Assert.ThrowsAsync<MigrationException>(() => bench.RunAsync(request with { Name = "too far", Select = [.. request.Select, new("id", "id + 100000")] }));
        Assert.Equal(("PartitionMissing", "23514"), (homeless.ErrorId, homeless.SqlState));
        Assert.Contains("DEFAULT partition", homeless.RecommendedAction, StringComparison.Ordinal);

        BackfillResult result = await bench.RunAsync(request);

        Assert.Equal(((Rows / 2) - 1L, 0L), (result.Rows, result.Remaining));
        Assert.Equal((Rows / 2) - 1L, await bench.ScalarAsync<long>("select count(*) from orders join orders_new using (id) where region = \"Region\""));
        await bench.RollBackAsync(result);
        Assert.Equal("1:99,5000:99", await bench.ScalarAsync<string>("select string_agg(id || ':' || \"Region\", ',' order by id) from orders_new"));
    }

    [Theory, EachMajor]
    public async Task Keys_of_a_fixed_length_are_compared_in_full(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table rates (currency char(3), mask bit(4), rate int);
            insert into rates values ('EUR', '1010', 1), ('EGP', '1011', 2), ('CHF', '0001', 3);
            create table rates_new (currency char(3), mask bit(4), rate int, primary key (currency, mask));
            insert into rates_new values ('CHF', '0001', 30);
            """);
        BackfillRequest request = new() { Table = "rates", InsertInto = "rates_new", Options = new() { RetryFor = TimeSpan.FromSeconds(30) } };

        BackfillResult result = await bench.RunAsync(request);

        Assert.Equal((2L, 0L), (result.Rows, result.Remaining));
        await bench.RollBackAsync(result);
        Assert.Equal("CHF 30", await bench.ScalarAsync<string>("select string_agg(currency || ' ' || rate, ',') from rates_new"));
    }

    [Theory, EachMajor]
    public async Task A_proof_looks_at_the_rows_that_were_to_be_copied(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        foreach ((string where, long rows) in new[] { ("price > 100000", 0L), ("id % 1000 = 1", 9L) })
        {
            await bench.RunAsync(Copying() with { Where = where, Name = where });
            foreach (BackfillComparison comparison in (BackfillComparison[])[BackfillComparison.All, BackfillComparison.Sample])
            {
                BackfillTestResult test = await BackfillProof.TestAsync(bench.Session, new() { Name = where, Comparison = comparison, SampleSize = 1000 }, bench.Sink, Token);
                Assert.Equal((where, true, rows, Rows), (where, test.Passed, test.Compared, (int)test.Rows));
            }
        }
    }

    [Theory, EachMajor]
    public async Task What_is_wrong_with_a_copy_is_said_beforehand(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + """
            create table keyless (id bigint not null, price int);
            create unique index on keyless (id) where price > 0;
            create table nullable (id bigint unique, price int);
            create table other (x int primary key);
            create view seen as select * from orders;
            create table totals (quantity int primary key, note text);
            """);
        Assert.Equal("UniqueIndexMissing", (await bench.FailsAsync(Copying() with { InsertInto = "keyless", Select = [] })).ErrorId);
        Assert.Equal("UniqueIndexMissing", (await bench.FailsAsync(Copying() with { InsertInto = "nullable", Select = [] })).ErrorId);
        MigrationException unknown = await bench.FailsAsync(Copying() with { Select = [new("totall", "price")] });
        Assert.Equal("ColumnNotFound", unknown.ErrorId);
        Assert.Equal("ColumnMissing", (await bench.FailsAsync(Copying() with { Select = [] })).ErrorId);
        Assert.Equal("ColumnGenerated", (await bench.FailsAsync(Copying() with { Select = [new("twice", "1")] })).ErrorId);
        Assert.Equal("SelectMissing", (await bench.FailsAsync(Copying() with { InsertInto = "other", Select = [] })).ErrorId);
        Assert.Equal("SameTable", (await bench.FailsAsync(Copying() with { InsertInto = "orders" })).ErrorId);
        Assert.Equal("TableKindNotSupported", (await bench.FailsAsync(Copying() with { InsertInto = "seen" })).ErrorId);
        Assert.Equal("TableNotFound", (await bench.FailsAsync(Copying() with { InsertInto = "nowhere" })).ErrorId);
        Assert.Equal("InsertAndMore", (await bench.FailsAsync(Copying() with { Delete = true })).ErrorId);
        Assert.Equal("SyntaxError", (await bench.FailsAsync(Copying() with { Select = [new("total", "1); drop table orders; --")] })).ErrorId);
        Assert.Equal("42703", (await bench.FailsAsync(Copying() with { Select = [new("total", "prise")] })).SqlState);
        Assert.False(await bench.StateExistsAsync());

        BackfillPlan plan = await bench.PlanAsync(Copying() with { SampleBatch = 2 });
        Assert.Equal(Rows, plan.EstimatedRows);
        Assert.StartsWith("insert into \"public\".\"orders_new\" (\"note\", \"id\", \"total\") overriding system value", plan.Steps[^1].Sql, StringComparison.Ordinal);
        Assert.Contains(plan.Notes, note => note.StartsWith("the sequence public.orders_new_id_seq", StringComparison.Ordinal));
        Assert.Contains(plan.Notes, note => note.StartsWith("measured by 2 batches", StringComparison.Ordinal));
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from orders_new"));
        // A column may be left to its default, and a key of fewer rows takes the first of each.
        await bench.RunAsync(Copying() with { Select = [new("total", "1"), new("note", null)] });
        Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(*) from orders_new where note is null and made = 'by default'"));
        plan = await bench.PlanAsync(Copying() with { InsertInto = "totals", Select = [] });
        Assert.Contains(plan.Notes, note => note.Contains("the first one is copied", StringComparison.Ordinal));
        Assert.Equal((7L, 0L), ((await bench.RunAsync(Copying() with { InsertInto = "totals", Select = [] })).Rows, await bench.ScalarAsync<long>("select count(*) from totals where note is null")));
    }

    private static async Task AssertCopiedAsync(BackfillBench bench)
    {
        Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(*) from orders o join orders_new n using (id, note) where n.total = o.price * o.quantity and made = 'by default' and twice = id * 2"));
        Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(*) from orders_new"));
    }
}
