using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Ranges and workers, sweeps, parts of tables, rows that the server refuses.</summary>
public sealed class BackfillRangeTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static BackfillRequest Counted(string table, BackfillStrategy strategy, int workers, int? batchSize = null) =>
        BackfillBench.Request(table, "v", "1", "v is null", batchSize) with { Set = [new("v", "1"), new("n", "n + 1")], Strategy = strategy, Workers = workers };

    [Theory, EachMajor]
    public async Task A_claim_takes_one_range_and_leaves_the_others_to_the_others(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int) with (fillfactor = 10); insert into t select i from generate_series(1, 50000) i");
        BackfillRequest request = BackfillBench.Request("t", "v", "1") with { Workers = 2, Throttle = new() { RowsPerSecond = 20 } };
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        Task<BackfillResult> run = bench.RunAsync(request, stop.Token);
        await bench.UntilBatchesAsync(1, run);
        Assert.InRange(await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill_range where run is not null"), 1, 2);
        Assert.InRange(await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill_range"), 4, 10_000);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
    }

    [Theory, EachMajor]
    public async Task The_strategy_is_chosen_and_the_reason_given(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (a int, b int not null, c text not null, v int);
            insert into t select i, i, i::text, null from generate_series(1, 1000) i;
            create unique index on t (a); create unique index on t (c) where v is null; create unique index on t (lower(c)); create unique index t_two on t (b desc, c desc); create unique index t_mixed on t (b desc, c);
            """);

        BackfillPlan block = await bench.PlanAsync(BackfillBench.Request("t", "v", "1"));
        Assert.Equal(BackfillStrategy.Block, block.Strategy);
        Assert.Contains("heap", block.Reason, StringComparison.Ordinal);
        Assert.Contains("Tid Range Scan", block.BatchPlan, StringComparison.Ordinal);
        Assert.StartsWith("update only \"public\".\"t\"", block.Steps[^1].Sql, StringComparison.Ordinal);
        Assert.Contains(block.Notes, note => note.Contains("1,000 of 1,000 rows", StringComparison.Ordinal));

        // Of the unique ones that only, which holds every row, in one direction, by columns that cannot be NULL.
        BackfillPlan key = await bench.PlanAsync(BackfillBench.Request("t", "v", "1") with { Strategy = BackfillStrategy.Key });
        Assert.Equal(BackfillStrategy.Key, key.Strategy);
        Assert.Contains(key.Notes, note => note.Contains("t_two (b, c)", StringComparison.Ordinal));
        Assert.Contains("Index Scan", key.BatchPlan, StringComparison.Ordinal);
        Assert.Equal(1000, (await bench.RunAsync(BackfillBench.Request("t", "v", "1", batchSize: 100) with { Strategy = BackfillStrategy.Key, Workers = 2 })).Rows);
    }

    [Theory, EachWalk]
    public async Task Partitions_and_children_are_filled_part_by_part(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table p (id int not null, at int not null, v int, n int not null default 0, primary key (id, at)) partition by range (at);
            create table p_1 partition of p for values from (0) to (10);
            create table p_2 (v int, at int not null, n int not null default 0, extra int, id int not null, primary key (id, at)); alter table p_2 drop column extra; alter table p attach partition p_2 for values from (10) to (20);
            create table p_3 partition of p for values from (20) to (30) partition by hash (id);
            create table p_31 partition of p_3 for values with (modulus 2, remainder 0); create table "P 32" partition of p_3 for values with (modulus 2, remainder 1);
            create table p_4 partition of p for values from (30) to (40);
            insert into p select i, i % 30 from generate_series(1, 9000) i;
            create table tree (id int primary key, v int, n int not null default 0); create table branch (primary key (id), more text) inherits (tree);
            insert into tree select i from generate_series(1, 500) i; insert into branch select i from generate_series(501, 900) i;
            """);

        BackfillResult parted = await bench.RunAsync(Counted("p", strategy, workers, 300) with { Set = [new("v", "p.id"), new("n", "p.n + 1")] });
        BackfillResult tree = await bench.RunAsync(Counted("tree", strategy, workers, 100));

        Assert.Equal((9000, 0, strategy), (parted.Rows, parted.Remaining, parted.Strategy));
        Assert.Equal(9000, await bench.ScalarAsync<long>("select count(*) from p where v = id and n = 1"));
        Assert.Equal(900, tree.Rows);
        Assert.Equal(900, await bench.ScalarAsync<long>("select count(*) from tree where v = 1 and n = 1"));
        await bench.Database.ExecuteAsync(parted.Steps[^1].Reversal ?? "select", Token);
    }

    [Theory, EachWalk]
    public async Task Rows_that_move_before_the_walk_are_caught(int major, BackfillStrategy strategy, int workers)
    {
        // Changed all the time and so moved to other blocks, and, by their key, to places that were passed already.
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, note text, v int, n int not null default 0);
            insert into t select i, repeat('x', 100) from generate_series(1, 20000) i;
            """);
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task application = Task.Run(
            async () =>
            {
                await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
                Random random = new(major);
                while (!stop.IsCancellationRequested)
                {
                    int id = random.Next(1, 20000);
                    await connection.ExecuteAsync($"update t set note = repeat('y', 100), id = -id where abs(id) between {id} and {id + 20}", Token);
                }
            },
            Token);

        BackfillResult result = await bench.RunAsync(Counted("t", strategy, workers, 200));
        await stop.CancelAsync();
        await application;

        Assert.Equal(BackfillOutcome.Completed, result.Outcome);
        Assert.Equal(20000, result.Rows);
        Assert.Equal(20000, await bench.ScalarAsync<long>("select count(*) from t where v = 1 and n = 1"));
    }

    [Theory, EachWalk]
    public async Task Rows_that_the_server_refuses_are_recorded_and_tried_again(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, raw text, v int, n int not null default 0);
            insert into t select i, case when i % 1000 = 7 then 'none' else i::text end from generate_series(1, 5000) i;
            """);
        BackfillRequest request = BackfillBench.Request("t", "v", "1", "v is null", batchSize: 400) with { Set = [new("v", "raw::int"), new("n", "n + 1")], Strategy = strategy, Workers = workers };

        MigrationException first = await bench.FailsAsync(request);
        Assert.Equal("InvalidData", first.ErrorId);
        Assert.Equal(MigrationErrorKind.InvalidData, first.Kind);
        if (await bench.StateExistsAsync())
        {
            Assert.Matches(@"\(id\) = \(\d*007\)|\(id\) = \(7\)", first.Message);
        }

        BackfillResult passed = await bench.RunAsync(request with { MaxErrors = 5 });
        Assert.Equal((BackfillOutcome.CompletedWithErrors, 5, 5), (passed.Outcome, passed.Errors, passed.Remaining));
        Assert.Equal(4995, await bench.ScalarAsync<long>("select count(*) from t where v = id and n = 1"));
        Assert.Equal("7,1007,2007,3007,4007", await bench.ScalarAsync<string>("select string_agg(key[1], ',' order by key[1]::int) from migration_safety.backfill_error where key_columns = '{id}' and sqlstate = '22P02'"));
        Assert.Contains(bench.Sink.Warnings, w => w.Contains("refused 5 rows", StringComparison.Ordinal));

        await bench.Database.ExecuteAsync("update t set raw = id::text where id in (7, 1007)", Token);
        BackfillResult again = await bench.RunAsync(request with { MaxErrors = 5 });
        Assert.Equal((BackfillOutcome.CompletedWithErrors, 2, 3), (again.Outcome, again.Rows, again.Errors));

        MigrationException tooMany = await bench.FailsAsync(request with { MaxErrors = 2 });
        Assert.Equal("InvalidData", tooMany.ErrorId);

        await bench.Database.ExecuteAsync("update t set raw = id::text where raw = 'none'", Token);
        BackfillResult mended = await bench.RunAsync(request);
        Assert.Equal((BackfillOutcome.Completed, 3, 0, 5000), (mended.Outcome, mended.Rows, mended.Errors, mended.TotalRows));
        Assert.Equal(5000, await bench.ScalarAsync<long>("select count(*) from t where v = id and n = 1"));
        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from migration_safety.backfill_error"));
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task It_pauses_where_its_record_says_so_and_goes_on(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int, n int not null default 0); insert into t select i from generate_series(1, 30000) i;
            create function slow() returns trigger language plpgsql as $$ begin perform sum(i) from generate_series(1, 300) i; return new; end $$;
            create trigger slow before update on t for each row execute function slow();
            """);
        Task<BackfillResult> run = bench.RunAsync(Counted("t", strategy, workers, 200));
        await bench.UntilBatchesAsync(5, run);

        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'paused'", Token);
        BackfillResult paused = await run;

        Assert.Equal(BackfillOutcome.Paused, paused.Outcome);
        Assert.InRange(paused.Rows, 1, 29999);
        Assert.Equal(paused.Rows, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
        Assert.Equal(30000 - paused.Rows, paused.Remaining);
        BackfillResult rest = await bench.RunAsync(Counted("t", strategy, workers));
        Assert.True(rest.Resumed);
        Assert.Equal(30000, rest.TotalRows);
        Assert.Equal(30000, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Blocks_in_turns_keep_most_rows_where_they_are(int major)
    {
        // Rows stay where old versions may go: a slot that is made on the same server, for whatever database, keeps them all for a while.
        await using PostgresServer server = await PostgresServer.StartAsync(major, cancellationToken: Token);
        await using BackfillBench bench = await BackfillBench.CreateAsync(server, """
            create table t (id int primary key, note text, a int, b int) with (autovacuum_enabled = false);
            insert into t select i, 'n' || i from generate_series(1, 100000) i;
            create index on t (note);
            create index on t (b) where b > 5;
            """);
        await bench.Database.ExecuteAsync("vacuum analyze t", Token);
        long before = await bench.ScalarAsync<long>("select pg_relation_size('t')");

        BackfillResult kept = await bench.RunAsync(BackfillBench.Request("t", "a", "id", batchSize: 5000));

        Assert.Equal((BackfillOutcome.Completed, 100_000L), (kept.Outcome, kept.Rows));
        Assert.Equal(4, await bench.ScalarAsync<int>("select max(slices) from migration_safety.backfill_range"));
        Assert.Equal(100_000, await bench.ScalarAsync<long>("select count(*) from t where a = id"));
        long after = await bench.ScalarAsync<long>("select pg_relation_size('t')");
        // All at once, the table doubles.
        Assert.InRange((double)after / before, 1.0, 1.75);

        // An index on what is set has to be written in any case; so turns would only cost.
        await bench.RunAsync(BackfillBench.Request("t", "b", "id"));
        Assert.Equal(1, await bench.ScalarAsync<int>("select max(slices) from migration_safety.backfill_range where backfill = 'public.t.b'"));
        await bench.Database.ExecuteAsync("alter table t add c int", Token);
        await bench.Database.ExecuteAsync("update t set c = id where id % 10 > 0", Token);
        // The share is the planner's estimate.
        await bench.Database.ExecuteAsync("analyze t", Token);
        await bench.RunAsync(BackfillBench.Request("t", "c", "id"));
        Assert.Equal(1, await bench.ScalarAsync<int>("select max(slices) from migration_safety.backfill_range where backfill = 'public.t.c'"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Blocks_too_slow_for_a_batch_are_done_row_by_row(int major)
    {
        // Some 4 ms a row and 200 rows a block: a block takes longer than a batch may.
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int, v int, n int not null default 0); insert into t select i from generate_series(1, 500) i;
            create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.004); return new; end $$;
            create trigger slow before update on t for each row execute function slow();
            """);

        BackfillResult result = await bench.RunAsync(Counted("t", BackfillStrategy.Block, 1));

        Assert.Equal(500, result.Rows);
        Assert.Equal(500, await bench.ScalarAsync<long>("select count(*) from t where v = 1 and n = 1"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_condition_that_takes_longer_over_a_block_than_a_batch_may_only_takes_its_time(int major)
    {
        // Some 10 ms a row and one block: to look for rows in the pass, for those that were locked, and for those that were refused takes longer than a batch may each time.
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, raw text, v int); insert into t select i, case when i > 12 then i::text else 'x' end from generate_series(1, 24) i;
            create function due(v int) returns bool language plpgsql as $$ begin perform pg_sleep(0.01); return v is null; end $$;
            """);
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "select from t where id > 12 for update");
        BackfillRequest request = BackfillBench.Request("t", "v", "raw::int", "due(v)", batchSize: 12) with
        {
            MaxErrors = 12,
            TargetBatchTime = TimeSpan.FromMilliseconds(50),
            Options = new ExecutionOptions { LockTimeout = TimeSpan.FromMilliseconds(100), RetryFor = TimeSpan.FromSeconds(10) },
        };

        Task<BackfillResult> run = bench.RunAsync(request);
        await Wait.UntilAsync(() => run.IsCompleted || bench.Sink.VerboseMessages.Any(m => m.StartsWith("Sweep 1 ", StringComparison.Ordinal)), "the sweep to leave what is locked", cancellationToken: Token);
        await holder.RollbackAsync(Token);
        BackfillResult result = await run;

        Assert.Equal((12, 12, BackfillOutcome.CompletedWithErrors), (result.Rows, result.Errors, result.Outcome));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task A_row_that_is_refused_costs_no_look_at_all_the_others(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, raw text, v int); insert into t select i, case when i > 120 then i::text else 'x' end from generate_series(1, 240) i");

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "raw::int") with { MaxErrors = 100_000 });

        Assert.Equal((120, 120, BackfillOutcome.CompletedWithErrors), (result.Rows, result.Errors, result.Outcome));
        // Looked at each time they would be 120 * 120 / 2, twice; the record's own counts of them are some thousand. A session tells what it read at the latest when it ends.
        await bench.Database.ExecuteAsync("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name like 'MigrationSafety/%'", Token);
        await Wait.UntilAsync(async () => await bench.ScalarAsync<long>("select n_tup_ins from pg_stat_all_tables where relid = 'migration_safety.backfill_error'::regclass") == 120, "the statistics", cancellationToken: Token);
        Assert.InRange(await bench.ScalarAsync<long>("select sum(idx_tup_read)::int8 from pg_stat_all_indexes where relid = 'migration_safety.backfill_error'::regclass"), 0, 8000);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_was_refused_is_taken_up_again_however_long_that_takes(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, raw text, v int); insert into t select i, case when i > 1 then i::text else 'x' end from generate_series(1, 50) i");
        BackfillRequest request = BackfillBench.Request("t", "v", "raw::int", retryFor: TimeSpan.FromSeconds(5)) with { MaxErrors = 1 };
        Assert.Equal(1, (await bench.RunAsync(request)).Errors);
        // To mark some hundred thousand, and to forget them, takes longer than a batch may.
        await bench.Database.ExecuteAsync("""
            create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.7); return null; end $$;
            create trigger slow before update or delete on migration_safety.backfill_error for each statement execute function slow();
            update t set raw = '1' where id = 1;
            """, Token);

        BackfillResult result = await bench.RunAsync(request);

        Assert.Equal((BackfillOutcome.Completed, 1, 0), (result.Outcome, result.Rows, result.Errors));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_is_recorded_and_kept_lies_in_heaps_whatever_is_the_default(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t values (1, 1); create access method columns type table handler heap_tableam_handler");
        EngineSession session = await bench.SessionAsync(db => db.ConnectionString + ";Options=-c default_table_access_method=columns");

        await bench.RunAsync(BackfillBench.Request("t", "v", "2", "v = 1") with { KeepOldValues = true }, session: session);

        Assert.Equal(0, await bench.ScalarAsync<long>("select count(*) from pg_class c join pg_am a on a.oid = c.relam and a.amname = 'columns'"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Estimates_of_a_vast_table_do_not_overflow(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int); insert into t select i from generate_series(1, 200) i");
        BackfillPlan plan = await bench.PlanAsync(BackfillBench.Request("t", "v", "1"));
        // The product of rows and blocks is what counts: that of 200 rows here is that of ten billion in 64 TB.
        BackfillDefinition vast = plan.Definition with { Leaves = [plan.Definition.Leaves[0] with { Blocks = 400_000_000_000_000_000, Slices = 1 }] };

        await using NpgsqlConnection connection = await bench.Session.OpenAsync("backfill", bench.Sink, Token);
        IReadOnlyList<BackfillRange> ranges = await BackfillRanges.CutAsync(connection, vast, 1, plan.Sample, bench.Sink, Token);

        Assert.All(ranges, range => Assert.InRange(range.Rows, 0, 200));
        Assert.InRange(ranges.Sum(range => range.Rows), 199, 200);
    }

    [Theory, EachMajor]
    public async Task Tables_of_another_shape_are_refused_with_what_to_do(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(
            servers, major, "create table t (id int primary key, v int); insert into t values (1); create schema migration_safety; create table migration_safety.backfill (name text primary key, last_key text[])");

        MigrationException e = await bench.FailsAsync(BackfillBench.Request("t", "v", "1"));

        Assert.Equal("StateSchemaUnknown", e.ErrorId);
        await bench.Database.ExecuteAsync(e.RecommendedAction[e.RecommendedAction.IndexOf("drop table", StringComparison.Ordinal)..], Token);
        Assert.Equal(1, (await bench.RunAsync(BackfillBench.Request("t", "v", "1"))).Rows);
    }

    [Theory, EachMajor]
    public async Task Another_strategy_or_another_key_begins_anew_and_does_no_row_twice(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create table t (id int primary key, v int, n int not null default 0); insert into t select i from generate_series(1, 20000) i");
        using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(Token);
        Task<BackfillResult> run = bench.RunAsync(Counted("t", BackfillStrategy.Key, 1, 100), cancel.Token);
        await bench.UntilBatchesAsync(5, run);
        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);

        Assert.True((await bench.PlanAsync(Counted("t", BackfillStrategy.Auto, 1))).Resumes);
        Assert.False((await bench.PlanAsync(Counted("t", BackfillStrategy.Block, 1))).Resumes);
        BackfillResult rest = await bench.RunAsync(Counted("t", BackfillStrategy.Block, 2));

        Assert.False(rest.Resumed);
        Assert.Equal(20000, rest.TotalRows);
        Assert.Equal(20000, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
    }
}
