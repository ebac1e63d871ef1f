using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

public sealed class BackfillTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Every_row_is_set_once(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders + "update orders set tier = 'gold' where id % 10 = 0;");

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("orders", "tier", "'standard'", batchSize: 700));

        Assert.Equal(BackfillOutcome.Completed, result.Outcome);
        Assert.Equal("public.orders.tier", result.Name);
        Assert.Equal(4500, result.Rows);
        Assert.Equal(4500, result.TotalRows);
        Assert.Equal(0, result.Remaining);
        Assert.False(result.Resumed);
        Assert.InRange(result.Batches, 8, 20);
        Assert.True(result.RowsPerSecond > 0);
        Assert.Equal(500, await bench.ScalarAsync<long>("select count(*) from orders where tier = 'gold'"));
        Assert.Equal(4500, await bench.ScalarAsync<long>("select count(*) from orders where tier = 'standard'"));
        Assert.Equal("completed", await bench.ScalarAsync<string>("select state from migration_safety.backfill"));
        MigrationStep step = result.Steps[^1];
        Assert.Equal(StepState.Done, step.State);
        Assert.Equal(Reversibility.ReversibleWithDataLoss, step.Reversibility);
        Assert.Equal(["Create the schema for checkpoints", "Create the tables of checkpoints"], result.Steps[..^1].Select(s => s.Purpose));
        await bench.UntilNothingHeldAsync();

        // A rollback must not take the checkpoints of other backfills along.
        Assert.All(result.Steps[..^1], s => Assert.Equal((null, Reversibility.NotNeeded), (s.Reversal, s.Reversibility)));
        await bench.Database.ExecuteAsync(step.Reversal!, Token);
        Assert.Equal(5000, await bench.ScalarAsync<long>("select count(*) from orders where tier is null"));
    }

    [Theory, EachMajor]
    public async Task Keys_of_any_type_are_walked(int major)
    {
        const string Tables = """"
            create type mood as enum ('sad', 'ok', 'happy');
            create domain code as varchar(12);
            create table k_text (k text primary key, v int);
            insert into k_text select chr(33 + i % 90) || E'\\''\n"{,}' || i from generate_series(1, 900) i union all select '';
            create table k_collate (k text collate "C" primary key, v int);
            insert into k_collate select md5(i::text) from generate_series(1, 500) i;
            create table k_uuid (k uuid primary key, v int);
            insert into k_uuid select gen_random_uuid() from generate_series(1, 900);
            create table k_char (k character(8) primary key, v int);
            insert into k_char select i::text from generate_series(1, 500) i;
            create table k_numeric (k numeric(20, 6) primary key, v int);
            insert into k_numeric select (i - 300) / 7.0 from generate_series(1, 600) i;
            create table k_float (k double precision primary key, v int);
            insert into k_float select (i - 300) / 7.0::float8 from generate_series(1, 600) i union all values ('NaN'::float8), ('Infinity'), ('-Infinity');
            create table k_time (k timestamptz primary key, v int);
            insert into k_time select now() + i * interval '1.000001 s' from generate_series(-300, 300) i union all values ('infinity'::timestamptz), ('-infinity');
            create table k_bytea (k bytea primary key, v int);
            insert into k_bytea select decode(md5(i::text), 'hex') from generate_series(1, 500) i;
            create table k_domain (k code primary key, v int);
            insert into k_domain select 'c' || i from generate_series(1, 500) i;
            create table k_pair (b mood, a bigint, "C" text, v int, primary key (a, b, "C"));
            insert into k_pair select (enum_range(null::mood))[1 + i % 3], i / 50, i::text from generate_series(1, 900) i;
            create table k_quoted ("My ""Id""" int primary key, v int);
            insert into k_quoted select i * i from generate_series(-1, 300) i where i <> 1;
            create table k_include (k int, extra int, v int, primary key (k) include (extra));
            insert into k_include select i, 5 from generate_series(1, 300) i;
            create table k_interval (k interval primary key, v int);
            insert into k_interval select i * interval '1 mon 3.5 s' from generate_series(-200, 200) i;
            """";
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Tables);
        // What a role may have set must not spoil the checkpoints.
        await bench.Database.ExecuteAsync($"alter database {bench.Database.Name} set extra_float_digits = 0", Token);
        await bench.Database.ExecuteAsync($"alter database {bench.Database.Name} set intervalstyle = 'sql_standard'", Token);
        await bench.Database.ExecuteAsync($"alter database {bench.Database.Name} set default_transaction_isolation = 'serializable'", Token);
        EngineSession session = await bench.SessionAsync(db => db.ConnectionString + ";Application Name=fresh");

        foreach (string table in (string[])["k_text", "k_collate", "k_uuid", "k_char", "k_numeric", "k_float", "k_time", "k_bytea", "k_domain", "k_pair", "k_quoted", "k_include", "k_interval"])
        {
            await bench.Database.ExecuteAsync($"alter table {table} add column n int not null default 0", Token);
            await bench.Database.ExecuteAsync($"update {table} set v = null", Token);
            long rows = await bench.ScalarAsync<long>($"select count(*) from {table}");
            BackfillRequest request = BackfillBench.Request(table, "v", "7", batchSize: 37) with { Set = [new("v", "7"), new("n", "n + 1")], Where = "v is null", Strategy = BackfillStrategy.Key, Workers = 2 };

            BackfillResult result = await bench.RunAsync(request, session: session);

            Assert.True(result.Rows == rows, $"{table}: {result.Rows} of {rows}");
            Assert.True(result.Batches >= rows / 37, $"{table}: {result.Batches} batches");
            Assert.Equal(rows, await bench.ScalarAsync<long>($"select count(*) from {table} where v = 7 and n = 1"));
        }
    }

    [Theory, EachMajor]
    public async Task Quoted_names_and_comments_in_expressions(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, """create schema "My Schema"; create table "My Schema"."Order" ("Id" int primary key, "Tier Name" text, "select" int); insert into "My Schema"."Order" select i from generate_series(1, 100) i;""");

        BackfillResult result = await bench.RunAsync(new BackfillRequest
        {
            Table = "\"Order\"",
            Schema = "\"My Schema\"",
            Set = [new("\"Tier Name\"", "'it''s' -- a comment"), new("select", "\"Order\".\"Id\" /* of this row */")],
            Where = "\"Tier Name\" is null -- to be set",
        });

        Assert.Equal("\"My Schema\".\"Order\".\"Tier Name\",\"select\"", result.Name);
        Assert.Equal(100, await bench.ScalarAsync<long>("""select count(*) from "My Schema"."Order" where "Tier Name" = 'it''s' and "select" = "Id" """));
    }

    [Theory, EachMajor]
    public async Task Gaps_and_skew_do_not_matter(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id bigint primary key, v int);
            insert into t select i from generate_series(1, 1000) i;
            insert into t select 1000000000000 + i from generate_series(1, 3000) i;
            insert into t values (-9223372036854775808), (9223372036854775807);
            """);

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "1", batchSize: 500) with { Strategy = BackfillStrategy.Key });

        Assert.Equal(4002, result.Rows);
        Assert.InRange(result.Batches, 9, 12);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task The_order_is_that_of_the_primary_key_whatever_indexes_there_are(int major)
    {
        Assert.SkipWhen(major < 15, "The statistics of PostgreSQL 14 travel by UDP and get lost under load.");
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table t (id int primary key, v int); insert into t select i from generate_series(1, 60000) i; create index on t (v); create index on t (id) where v is null;");

        await bench.RunAsync(BackfillBench.Request("t", "v", "id", batchSize: 2000) with { Strategy = BackfillStrategy.Key });

        // Counted without a WHERE, or this query would be the one that reads another index.
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) filter (where v is null) from t"));
        await Wait.UntilAsync(
            async () => await bench.ScalarAsync<long>("select sum(idx_scan)::int8 from pg_stat_user_indexes where relname = 't' and indexrelname = 't_pkey'") >= 30,
            "the primary key's statistics",
            cancellationToken: Token);
        // The planner itself looks up the ends of an index.
        Assert.InRange(await bench.ScalarAsync<long>("select sum(idx_tup_read)::int8 from pg_stat_user_indexes where relname = 't' and indexrelname <> 't_pkey'"), 0, 100);
    }

    [Theory, EachMajor]
    public async Task A_plan_writes_nothing_and_says_what_will_be_done(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders + "analyze orders;");
        const string State = "select md5(string_agg(c.xmin::text || c.relname || c.relfilenode, ',' order by c.oid)) || (select md5(string_agg(xmin::text || xmax::text || ctid::text, ',' order by id)) from orders) from pg_class c where relname not like 'pg\\_%'";
        string? before = await bench.ScalarAsync<string>(State);

        BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("orders", "tier", "upper(note)"));

        Assert.Equal(before, await bench.ScalarAsync<string>(State));
        Assert.Equal(5000, plan.EstimatedRows);
        Assert.Equal("public.orders", plan.Target);
        Assert.Equal("public.orders.tier", plan.Name);
        Assert.False(plan.Resumes);
        Assert.Equal(3, plan.Steps.Count);
        MigrationStep batch = plan.Steps[^1];
        Assert.Equal(TableLockMode.RowExclusive, batch.LockMode);
        Assert.Equal(StepCost.UpdatesRows, batch.Cost);
        Assert.Contains("upper(note)", batch.Sql, StringComparison.Ordinal);
        Assert.All(plan.Steps, step => Assert.NotNull(step.ReversalNote));
    }

    [Theory, EachMajor]
    public async Task The_estimate_of_a_large_table_is_near(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table t (id int primary key, pad text, v int); insert into t select i, repeat('x', 200), case when i % 4 = 0 then 1 end from generate_series(1, 100000) i; alter table t add column w int");

        Assert.InRange((await bench.PlanAsync(BackfillBench.Request("t", "v", "1"))).EstimatedRows, 67_500, 82_500);
        Assert.InRange((await bench.PlanAsync(BackfillBench.Request("t", "w", "1"))).EstimatedRows, 90_000, 110_000);

        // Most of its blocks hold no row any more.
        await bench.Database.ExecuteAsync("delete from t where id <= 90000", Token);
        Assert.InRange((await bench.PlanAsync(BackfillBench.Request("t", "w", "1"))).EstimatedRows, 1_000, 25_000);
    }

    [Theory, EachMajor]
    public async Task Run_again_it_says_completed_or_takes_what_came_since(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders);
        BackfillRequest request = BackfillBench.Request("orders", "tier", "'standard'");
        await bench.RunAsync(request);

        BackfillResult again = await bench.RunAsync(request);
        Assert.Equal(BackfillOutcome.AlreadyCompleted, again.Outcome);
        Assert.Equal(0, again.Rows);
        Assert.Equal(5000, again.TotalRows);
        Assert.Equal(StepState.Skipped, Assert.Single(again.Steps).State);

        await bench.Database.ExecuteAsync("insert into orders (note) values ('late'), ('later')", Token);
        BackfillResult more = await bench.RunAsync(request);
        Assert.Equal(BackfillOutcome.Completed, more.Outcome);
        Assert.Equal(2, more.Rows);
        Assert.Equal(5002, more.TotalRows);
        Assert.False(more.Resumed);

        await bench.Database.ExecuteAsync("drop table orders;" + BackfillBench.Orders, Token);
        Assert.Equal(5000, (await bench.RunAsync(request)).Rows);
    }

    [Theory, EachMajor]
    public async Task A_definition_that_changed_no_row_gives_its_name_to_another(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders + "create table spare (id int primary key, tier text); insert into spare values (1)");
        BackfillRequest right = BackfillBench.Request("orders", "tier", "'basic'") with { Name = "fix" };
        foreach (BackfillRequest wrong in new[] { right with { Where = "note = 'nothing'", KeepOldValues = true }, right with { Table = "spare", Where = "id = 7" } })
        {
            Assert.Equal(0, (await bench.RunAsync(wrong)).TotalRows);
        }

        string warning = Assert.Single(bench.Sink.Warnings, w => w.Contains("takes its place", StringComparison.Ordinal));
        Assert.Contains("public.orders SET tier = 'basic' WHERE note = 'nothing'", warning, StringComparison.Ordinal);
        Assert.Contains("public.spare SET tier = 'basic' WHERE id = 7", warning, StringComparison.Ordinal);
        Assert.Contains("drop table migration_safety.kept_", warning, StringComparison.Ordinal);

        // Begun, without a row that it could have: whoever works on it loses nothing either.
        BackfillRequest held = right with { Table = "spare", Where = "id = 1" };
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        BackfillPlan plan = await bench.PlanAsync(held);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from spare for update");
        Task<BackfillResult> run = Backfill.RunAsync(plan, bench.Sink, stop.Token);
        await Wait.UntilAsync(async () => run.IsCompleted || await bench.ScalarAsync<bool>("select predicate = 'id = 1' and sweep > 0 from migration_safety.backfill"), "it to sweep", cancellationToken: Token);
        MigrationException taken = await bench.FailsAsync(right);
        Assert.Equal("DefinitionDiffers", taken.ErrorId);
        Assert.Contains("not finished", taken.Message, StringComparison.Ordinal);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        await bench.UntilNothingHeldAsync();

        BackfillResult result = await bench.RunAsync(right);
        Assert.Equal((BackfillOutcome.Completed, false, 5000L, 5000L), (result.Outcome, result.Resumed, result.Rows, result.TotalRows));
        // Now there is something to lose.
        Assert.Equal("DefinitionDiffers", (await bench.FailsAsync(held)).ErrorId);
        Assert.Equal(1, await bench.ScalarAsync<long>("select count(*) from spare where tier is null"));
        Assert.Equal(BackfillOutcome.AlreadyCompleted, (await bench.RunAsync(right)).Outcome);
    }

    [Theory, EachMajor]
    public async Task A_condition_that_fits_no_row_is_not_passed_over_in_silence(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders);
        BackfillRequest request = BackfillBench.Request("orders", "tier", "'standard'", "tier = null");
        Assert.Equal(BackfillOutcome.Completed, (await bench.RunAsync(request)).Outcome);
        Assert.Contains(bench.Sink.Warnings, warning => warning.Contains("no row of public.orders matched (tier = null)", StringComparison.Ordinal));

        // Nor is it said where there is nothing that could match, or where it was done before.
        int said = bench.Sink.Warnings.Count;
        await bench.RunAsync(request);
        await bench.Database.ExecuteAsync("truncate orders", Token);
        await bench.RunAsync(request with { Name = "of an empty table" });
        Assert.Equal(said, bench.Sink.Warnings.Count);
    }

    [Theory, EachMajor]
    public async Task Several_columns_and_none_where_any_is_null(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table t (id int primary key, a int, b int); insert into t select i, nullif(i % 2, 0), nullif(i % 3, 0) from generate_series(1, 600) i; create table empty (id int primary key, v int)");

        BackfillResult result = await bench.RunAsync(new BackfillRequest { Table = "t", Set = [new("a", "1"), new("b", "2")] });
        Assert.Equal(400, result.Rows);
        Assert.Equal(0, result.Remaining);

        BackfillResult empty = await bench.RunAsync(BackfillBench.Request("empty", "v", "1"));
        Assert.Equal(BackfillOutcome.Completed, empty.Outcome);
        Assert.Equal(0, empty.Rows);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task It_ends_while_the_application_inserts_and_counts_what_came(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table t (id uuid primary key default gen_random_uuid(), v int); insert into t (v) select null from generate_series(1, 20000)");
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task<long> application = Task.Run(
            async () =>
            {
                long inserted = 0;
                while (!stop.IsCancellationRequested)
                {
                    inserted += await bench.Database.ExecuteAsync("insert into t (v) select null from generate_series(1, 20)", Token);
                }

                return inserted;
            },
            Token);

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "1", batchSize: 400));
        await stop.CancelAsync();
        long inserted = await application;

        Assert.Equal(BackfillOutcome.Completed, result.Outcome);
        Assert.InRange(result.Rows, 20000, 20000 + inserted);
        Assert.InRange(result.Remaining, 1, inserted);
        Assert.Contains(bench.Sink.Warnings, w => w.Contains("rows match", StringComparison.Ordinal));
        Assert.True((await bench.RunAsync(BackfillBench.Request("t", "v", "1", batchSize: 400))).Remaining == 0);
    }

    [Theory, EachMajor]
    public async Task It_reports_its_progress(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, BackfillBench.Orders + "analyze orders");

        await bench.RunAsync(BackfillBench.Request("orders", "tier", "'x'", batchSize: 1000));

        OperationProgress[] seen = [.. bench.Sink.ProgressRecords];
        Assert.True(seen.Length >= 4);
        Assert.True(seen[^1].Completed);
        double[] percents = [.. seen.Where(p => p.Percent is not null).Select(p => p.Percent!.Value)];
        Assert.Equal(percents.Order(), percents);
        Assert.InRange(percents[^1], 90, 100);
        Assert.Contains(bench.Sink.DebugMessages, sql => sql.Contains("for update", StringComparison.Ordinal));
    }

    // On one major: what is reckoned from its own figures depends on none of them.
    [Fact]
    public async Task What_an_earlier_run_did_makes_the_rest_no_faster()
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, PostgresClusters.RequestedMajors.Max(), "create table t (id int primary key, v int); insert into t select i from generate_series(1, 20000) i; analyze t");
        BackfillRequest request = BackfillBench.Request("t", "v", "id", batchSize: 100);
        Task<BackfillResult> stopped = bench.RunAsync(request with { Throttle = new() { RowsPerSecond = 4000, HealthQuery = "select count(*) < 10000 from t where v is not null" } });
        await Wait.UntilAsync(async () => stopped.IsCompleted || (await bench.StateExistsAsync() && await bench.ScalarAsync<bool>("select exists (select from migration_safety.backfill where waiting_for like 'paused%')")), "half of it", cancellationToken: Token);
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'paused' where state = 'running'", Token);
        long left = 20_000 - (await stopped).Rows;
        Assert.InRange(left, 1000, 10_000);

        int before = bench.Sink.ProgressRecords.Count;
        BackfillRequest limited = request with { Throttle = new() { RowsPerSecond = 2000 } };
        Assert.InRange((await bench.PlanAsync(limited)).EstimatedTime.TotalSeconds, 0.9 * left / 2000, 1 + (1.1 * left / 2000));
        BackfillResult rest = await bench.RunAsync(limited);

        double took = rest.Rows / rest.RowsPerSecond;
        Assert.InRange(bench.Sink.ProgressRecords.Skip(before).Max(p => p.Remaining?.TotalSeconds ?? 0), 0.4 * took, 100 * took);
    }
}
