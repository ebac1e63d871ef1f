using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What takes a backfill back does so row by row where the server, a trigger or somebody else is in the way, and lets nobody wait.</summary>
public sealed class BackfillArchiveReversalTests(Servers servers)
{
    private const int Rows = 3000;

    private static readonly string s_orders = $"""
        create table customers (id int primary key);
        insert into customers select generate_series(1, 10);
        create table orders (id int primary key, tier text, customer int references customers);
        insert into orders select i, case when i % 4 > 0 then 'old ' || i end, i % 10 + 1 from generate_series(1, {Rows}) i;
        create table before as select * from orders;
        """;

    private static readonly string s_parts = $"""
        create table orders (id int, tier text, primary key (id)) partition by range (id);
        create table orders_1 partition of orders for values from (0) to (2000);
        create table orders_2 partition of orders default;
        insert into orders select i, case when i % 4 > 0 then 'old ' || i end from generate_series(1, {Rows}) i;
        create table before as select * from orders;
        """;

    // Notes who changes rows in which transaction and when, and takes its time.
    private const string Slow = """
        create table log (xid bigint, at timestamptz);
        create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.004); insert into log values (txid_current(), clock_timestamp()); return coalesce(new, old); end $$;
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static BackfillRequest Keeping => new() { Table = "orders", Set = [new("tier", "'new'")], Where = "tier is distinct from 'new'", KeepOldValues = true, Name = "keeping" };

    private static BackfillRequest Deleting => Keeping with { Set = [], Delete = true, Where = "id > 0" };

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Deleted_rows_come_back_where_a_constraint_is_deferrable(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, $"""
            create table orders (id int primary key deferrable, place int, day int, constraint places unique (place) deferrable initially deferred, constraint days exclude (day with =) deferrable);
            insert into orders select i, i, i from generate_series(1, {Rows}) i;
            create table before as select * from orders;
            """);
        BackfillResult result = await bench.RunAsync(Deleting);
        // Of the key, of what is unique besides.
        await bench.Database.ExecuteAsync("insert into orders values (10, 10000, 10000), (10001, 20, 10001), (10002, 10002, 30)", Token);

        List<string> notices = await bench.RollBackAsync(result);

        Assert.Equal("10,20,30", await bench.ScalarAsync<string>($"select string_agg(id::text, ',' order by id) from {result.Archive}"));
        Assert.Equal(Rows - 3, await bench.ScalarAsync<long>("select count(*) from orders join before using (id, place, day)"));
        Assert.Equal(3, await bench.ScalarAsync<long>("select count(*) from orders where greatest(place, day) >= 10000"));
        string left = Assert.Single(notices, notice => notice.StartsWith("3 deleted rows are not put back", StringComparison.Ordinal));
        Assert.Contains("keys are there again", left, StringComparison.Ordinal);
        Assert.Contains("the server refuses 2, one of them with: ", left, StringComparison.Ordinal);

        await bench.Database.ExecuteAsync("delete from orders where greatest(place, day) >= 10000", Token);
        await bench.RollBackAsync(result);
        await AssertBeforeAsync(bench, result, Rows);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_the_server_refuses_stays_and_the_rest_comes_back(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + "alter table orders add constraint tiers unique (tier)");
        BackfillResult result = await bench.RunAsync(Keeping with { Set = [new("tier", "'new ' || id")], Where = "tier not like 'new%' and id % 4 > 0" });
        await bench.Database.ExecuteAsync("""
            update orders set tier = 'old 5' where id = 4;
            alter table orders add constraint short check (tier <> 'old 1001') not valid;
            create function no() returns trigger language plpgsql as $$ begin if new.id = 2001 then raise 'not this one'; elsif new.id = 2005 then raise 'nor this one' using errcode = 'AB001'; elsif new.id = 2006 then assert false; end if; return new; end $$;
            create trigger no before update on orders for each row execute function no();
            """, Token);

        string left = Assert.Single(await bench.RollBackAsync(result));

        Assert.Contains("5 old values are not put back", left, StringComparison.Ordinal);
        Assert.Contains(": the server refuses 5, one of them with: ", left, StringComparison.Ordinal);
        Assert.Equal("5,1001,2001,2005,2006", await bench.ScalarAsync<string>($"select string_agg(id::text, ',' order by id) from {result.Archive}"));
        Assert.Equal(6, await bench.ScalarAsync<long>("select count(*) from orders o join before b using (id) where o.tier is distinct from b.tier"));

        // What is of no row ends it.
        await bench.Database.ExecuteAsync("create or replace function no() returns trigger language plpgsql as $$ begin perform missing(); return new; end $$", Token);
        Assert.Equal("42883", (await Assert.ThrowsAsync<PostgresException>(() => bench.RollBackAsync(result))).SqlState);

        await bench.Database.ExecuteAsync("drop trigger no on orders; update orders set tier = null where id = 4; alter table orders drop constraint short", Token);
        await bench.RollBackAsync(result);
        await AssertBeforeAsync(bench, result, Rows);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Rows_whose_parent_is_gone_or_locked_stay_and_the_rest_comes_back(int major)
    {
        foreach (string deferred in (string[])["", "alter table orders alter constraint orders_customer_fkey deferrable initially deferred;"])
        {
            await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + deferred + "insert into customers values (11), (12); update orders set customer = 11 where id = 1500; update orders set customer = 12 where id = 700; drop table before; create table before as select * from orders");
            BackfillResult result = await bench.RunAsync(Deleting);
            await bench.Database.ExecuteAsync("delete from customers where id = 11", Token);
            string left;
            await using (LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from customers where id = 12 for update"))
            {
                left = Assert.Single(await bench.RollBackAsync(result));
                await holder.RollbackAsync(Token);
            }

            Assert.StartsWith("2 deleted rows are not put back", left, StringComparison.Ordinal);
            Assert.Contains("rows that they refer to are locked (run this again)", left, StringComparison.Ordinal);
            Assert.Contains("the server refuses 1, one of them with: ", left, StringComparison.Ordinal);
            Assert.Equal("700,1500", await bench.ScalarAsync<string>($"select string_agg(id::text, ',' order by id) from {result.Archive}"));
            await bench.Database.ExecuteAsync("insert into customers values (11)", Token);
            await bench.RollBackAsync(result);
            await AssertBeforeAsync(bench, result, Rows);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task An_older_value_waits_for_the_newer_one(int major)
    {
        foreach (string table in (string[])[s_orders, s_parts])
        {
            await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, table);
            BackfillResult result = await bench.RunAsync(Keeping);
            // As a second run would have kept it, which wrote something else; since then the application has written on purpose what the first one wrote. And one that comes back in two steps.
            await bench.Database.ExecuteAsync($"""
                insert into {result.Archive} (kept_from, id, tier, new_tier) values ('orders', 5, 'x', 'gold'), ('orders', 6, 'new', 'gold');
                update orders set tier = 'gold' where id = 6;
                """, Token);

            string left = Assert.Single(await bench.RollBackAsync(result));

            Assert.StartsWith("2 old values are not put back", left, StringComparison.Ordinal);
            Assert.Contains("a later change of the same row is not put back", left, StringComparison.Ordinal);
            Assert.Equal("new", await bench.ScalarAsync<string>("select tier from orders where id = 5"));
            Assert.Equal("5,5", await bench.ScalarAsync<string>($"select string_agg(id::text, ',') from {result.Archive}"));
            Assert.Equal(Rows - 1, await bench.ScalarAsync<long>("select count(*) from orders o join before b using (id) where o.tier is not distinct from b.tier"));
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Keys_of_one_partition_are_not_taken_for_those_of_another(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table orders (region int, id int, tier text) partition by list (region);
            create table orders_1 partition of orders (primary key (id)) for values in (1);
            create table orders_2 partition of orders (primary key (id)) for values in (2);
            insert into orders select r, i, 'old ' || r || i from generate_series(1, 2) r, generate_series(1, 500) i;
            create table before as select * from orders;
            """);
        BackfillResult result = await bench.RunAsync(Keeping);
        // Gone in one, and the same number in the other is another row.
        await bench.Database.ExecuteAsync("delete from orders_1 where id = 7; update orders_2 set tier = 'mine' where id = 8", Token);

        await bench.RollBackAsync(result);

        Assert.Equal("orders_1:7,orders_2:8", await bench.ScalarAsync<string>($"select string_agg(kept_from || ':' || id, ',' order by id) from {result.Archive}"));
        Assert.Equal(998, await bench.ScalarAsync<long>("select count(*) from orders join before using (region, id, tier)"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Rows_are_found_in_partitions_that_were_split_since(int major)
    {
        // What was split may still be there, with its old rows.
        foreach ((BackfillRequest request, string old) in ((BackfillRequest, string)[])[(Keeping, "drop table orders_1;"), (Keeping, ""), (Deleting, "drop table orders_1;"), (Deleting, "insert into orders_1 select * from before where id < 2000;")])
        {
            await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_parts);
            BackfillResult result = await bench.RunAsync(request);
            await bench.Database.ExecuteAsync($"""
                alter table orders detach partition orders_1;
                create table orders_low partition of orders for values from (0) to (1000);
                create table orders_high partition of orders for values from (1000) to (2000);
                insert into orders select * from orders_1;
                {old}
                create table orders_3 (like orders);
                with moved as (delete from orders_2 where id < 2500 returning *) insert into orders_3 select * from moved;
                alter table orders attach partition orders_3 for values from (2000) to (2500);
                """, Token);

            Assert.Empty(await bench.RollBackAsync(result));
            await AssertBeforeAsync(bench, result, Rows);
            Assert.Equal(500, await bench.ScalarAsync<long>("select count(*) from orders_3"));
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Rows_that_are_there_again_in_another_partition_are_no_refusals(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_parts);
        BackfillResult result = await bench.RunAsync(Deleting);
        await bench.Database.ExecuteAsync("""
            alter table orders detach partition orders_1;
            create table orders_low partition of orders for values from (0) to (2000);
            insert into orders values (5, 'mine'), (6, 'mine');
            """, Token);

        string left = Assert.Single(await bench.RollBackAsync(result));

        Assert.StartsWith("2 deleted rows are not put back", left, StringComparison.Ordinal);
        Assert.Contains("rows with their keys are there again", left, StringComparison.Ordinal);
        Assert.DoesNotContain("refuses", left, StringComparison.Ordinal);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Many_rows_under_one_lock_are_passed_over_but_a_locked_table_ends_it(int major)
    {
        const int Locked = 700;
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + $"insert into customers values (12); update orders set customer = 12 where id between 1001 and {1000 + Locked}; drop table before; create table before as select * from orders");
        BackfillResult result = Hurried(await bench.RunAsync(Deleting));
        await using (LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from customers where id = 12 for update"))
        {
            Assert.StartsWith($"{Locked} deleted rows are not put back", Assert.Single(await bench.RollBackAsync(result)), StringComparison.Ordinal);
        }

        // An index is built.
        await using (LockHolder holder = await LockHolder.HoldAsync(bench.Database, "lock table orders in share mode"))
        {
            Assert.Equal("55P03", (await Assert.ThrowsAsync<PostgresException>(() => bench.RollBackAsync(result))).SqlState);
        }

        Assert.Equal(Locked, await bench.ScalarAsync<long>($"select count(*) from {result.Archive}"));
        await bench.RollBackAsync(result);
        await AssertBeforeAsync(bench, result, Rows);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_table_that_is_locked_for_a_while_or_dropped_does_not_end_the_walk(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_parts + "update orders set tier = null");
        BackfillResult result = await bench.RunAsync(BackfillBench.Request("orders", "tier", "'x'"));
        foreach (string then in (string[])["", "drop table orders_2"])
        {
            await bench.Database.ExecuteAsync("update orders set tier = 'x'", Token);
            Task<List<string>> rollback;
            await using (LockHolder holder = await LockHolder.HoldAsync(bench.Database, "lock table orders_2"))
            {
                rollback = bench.RollBackAsync(result);
                // By then it has waited several times in vain.
                HashSet<DateTime> waits = [];
                await Wait.UntilAsync(
                    async () =>
                    {
                        if (await bench.ScalarAsync<DateTime?>("select xact_start from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") is { } began)
                        {
                            waits.Add(began);
                        }

                        return rollback.IsCompleted || waits.Count >= 4;
                    },
                    "the walk to wait for the table",
                    cancellationToken: Token);
                if (then.Length > 0)
                {
                    await using NpgsqlCommand drop = new(then, holder.Connection);
                    await drop.ExecuteNonQueryAsync(Token);
                }

                await holder.CommitAsync(Token);
            }

            Assert.Empty(await rollback);
            Assert.Equal(0, await bench.ScalarAsync<long>("select count(tier) from orders"));
        }

        await using LockHolder all = await LockHolder.HoldAsync(bench.Database, "lock table orders_1");
        Assert.Equal("55P03", (await Assert.ThrowsAsync<PostgresException>(() => bench.RollBackAsync(Hurried(result)))).SqlState);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task An_archive_that_cannot_have_an_index_is_put_back_without(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        BackfillResult result = await bench.RunAsync(Keeping);
        await bench.Database.ExecuteAsync($"""
            create function no_index() returns event_trigger language plpgsql as $$ begin raise 'no index today'; end $$;
            create event trigger no_index on ddl_command_start when tag in ('CREATE INDEX') execute function no_index();
            """, Token);

        Assert.Equal($"This takes longer, without an index on the key of {result.Archive}: no index today", Assert.Single(await bench.RollBackAsync(result)));
        await AssertBeforeAsync(bench, result, Rows);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_a_trigger_undoes_is_not_put_back(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + """
            create function fill() returns trigger language plpgsql as $$ begin new.tier := coalesce(new.tier, 'basic'); return new; end $$;
            create trigger fill before insert or update on orders for each row execute function fill();
            """);
        foreach (BackfillRequest request in (BackfillRequest[])[Keeping, Deleting with { Name = "deleting" }])
        {
            BackfillResult result = await bench.RunAsync(request);
            await bench.Database.ExecuteAsync("alter table orders enable trigger fill", Token);
            string left = Assert.Single(await bench.RollBackAsync(result));
            Assert.StartsWith($"{Rows / 4} ", left, StringComparison.Ordinal);
            Assert.Contains("a trigger makes something else of", left, StringComparison.Ordinal);
            Assert.Equal(Rows / 4, await bench.ScalarAsync<long>($"select count(*) from {result.Archive} where tier is null"));
            Assert.Equal(Rows, await bench.ScalarAsync<long>("select count(*) from orders o join before b using (id) where o.tier = coalesce(b.tier, 'basic')"));
            await bench.Database.ExecuteAsync("alter table orders disable trigger fill; update orders set tier = null where tier = 'basic'", Token);
        }

        // So it is where the columns are set to NULL again, which comes to an end.
        await bench.Database.ExecuteAsync("alter table orders enable trigger fill", Token);
        BackfillResult filled = await bench.RunAsync(BackfillBench.Request("orders", "tier", "'x'"));
        Assert.StartsWith($"{Rows} rows of public.orders are left: rows are locked, were filled again meanwhile, or a trigger fills them", Assert.Single(await bench.RollBackAsync(filled)), StringComparison.Ordinal);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Nobody_waits_for_a_batch(int major)
    {
        const int Few = 700;
        foreach (BackfillRequest request in (BackfillRequest[])[Keeping, Deleting, BackfillBench.Request("orders", "note", "'x'"), new() { Table = "orders", InsertInto = "copies" }])
        {
            await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, $"""
                create table orders (id int primary key, tier text, note text);
                create table copies (id int primary key, tier text);
                insert into orders select i, 'old' from generate_series(1, {Few}) i;
                {Slow}
                """);
            BackfillResult result = await bench.RunAsync(request);
            await bench.Database.ExecuteAsync("create trigger slow before insert or update or delete on orders for each row execute function slow(); create trigger slow before delete on copies for each row execute function slow()", Token);

            Assert.Empty(await bench.RollBackAsync(result));

            Assert.Equal(Few, await bench.ScalarAsync<long>("select count(*) from log"));
            // Of 25 rows in 100 ms at most, which a batch may have twice before its size is known; and not one by one.
            Assert.InRange(await bench.ScalarAsync<long>("select max(rows) from (select count(*) as rows from log group by xid) as batches"), 5, 60);
        }
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Somebody_who_reads_the_archive_does_not_fail_the_end(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders);
        BackfillResult result = await bench.RunAsync(Keeping);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, $"select from {result.Archive}");

        Assert.Equal($"All is put back. {result.Archive} is empty, but in use: drop it later.", Assert.Single(await bench.RollBackAsync(result)));

        Assert.Equal(0, await bench.ScalarAsync<long>($"select count(*) from {result.Archive}"));
        await holder.RollbackAsync(Token);
        await bench.RollBackAsync(result);
        await AssertBeforeAsync(bench, result, Rows);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Columns_are_set_to_NULL_in_the_partitions_that_there_are_by_then(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_parts + "update orders set tier = null");
        BackfillResult result = await bench.RunAsync(BackfillBench.Request("orders", "tier", "'x'"));
        await bench.Database.ExecuteAsync("""
            drop table orders_1;
            create table orders_0 partition of orders for values from (0) to (2000);
            insert into orders select i, 'x' from generate_series(1, 100) i;
            """, Token);

        Assert.Empty(await bench.RollBackAsync(result));

        Assert.Equal((0L, 1101L), (await bench.ScalarAsync<long>("select count(tier) from orders"), await bench.ScalarAsync<long>("select count(*) from orders")));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_cannot_be_deleted_or_emptied_stays_and_the_rest_goes(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + "alter table orders add column note text; create table copies (id int primary key, tier text)");
        BackfillResult copied = await bench.RunAsync(new() { Table = "orders", InsertInto = "copies" });
        BackfillResult filled = await bench.RunAsync(BackfillBench.Request("orders", "note", "'x'"));
        await bench.Database.ExecuteAsync("""
            create table parts (id int references copies); insert into parts values (1200), (77);
            alter table orders add constraint noted check (id <> 900 or note is not null);
            """, Token);

        Assert.Contains("2 rows of public.copies are left: the server refuses 2, one of them with: ", Assert.Single(await bench.RollBackAsync(copied)), StringComparison.Ordinal);
        Assert.Contains("1 row of public.orders is left: the server refuses 1, one of them with: ", Assert.Single(await bench.RollBackAsync(filled)), StringComparison.Ordinal);

        Assert.Equal("77,1200", await bench.ScalarAsync<string>("select string_agg(id::text, ',' order by id) from copies"));
        Assert.Equal(900, await bench.ScalarAsync<int>("select id from orders where note is not null"));

        // No row may be empty: that is said at once, and not of each.
        await bench.Database.ExecuteAsync("update orders set note = 'x'; alter table orders alter column note set not null", Token);
        Assert.Equal("23502", (await Assert.ThrowsAsync<PostgresException>(() => bench.RollBackAsync(filled))).SqlState);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_bound_of_the_role_does_not_end_the_script(int major)
    {
        Assert.SkipWhen(Psql.Missing is not null, Psql.Missing ?? "");
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, s_orders + Slow);
        BackfillResult result = await bench.RunAsync(Keeping with { Where = "tier is distinct from 'new' and id <= 300" });
        await bench.Database.ExecuteAsync("create trigger slow before update on orders for each row execute function slow()", Token);
        string script = RollbackGenerator.FromSteps("test", result.Steps).Text;

        // 17 and later bound a transaction too.
        (int exit, string output) = await Psql.RunAsync(bench.Database, script, $"-c statement_timeout=500ms{(major >= 17 ? " -c transaction_timeout=900ms" : "")} -c client_min_messages=warning", Token);

        Assert.Equal((0, ""), (exit, output));
        await AssertBeforeAsync(bench, result, Rows);
    }

    // Waits in vain as often, but not as long.
    private static BackfillResult Hurried(BackfillResult result) =>
        result with { Steps = [.. result.Steps.Select(step => step with { Reversal = step.Reversal?.Replace("'100ms'", "'1ms'", StringComparison.Ordinal) })] };

    private static async Task AssertBeforeAsync(BackfillBench bench, BackfillResult result, int rows)
    {
        Assert.Equal((0L, rows), (await bench.ScalarAsync<long>("select count(*) from ((table before except all table orders) union all (table orders except all table before)) as d"), (int)await bench.ScalarAsync<long>("select count(*) from orders")));
        Assert.False(await bench.ScalarAsync<bool>($"select to_regclass('{result.Archive}') is not null"));
    }
}
