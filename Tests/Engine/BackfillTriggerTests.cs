using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What triggers and constraints of the table add to a batch: it is part of the batch, in time and in outcome.</summary>
public sealed class BackfillTriggerTests(Servers servers)
{
    // Notes for how long a transaction had lasted when it ran.
    private const string Slow = """
        create table held (for_how_long interval);
        create function slow() returns trigger language plpgsql as $$
        begin
            perform pg_sleep(0.025);
            insert into held values (clock_timestamp() - transaction_timestamp());
            return null;
        end $$;
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task The_time_of_triggers_is_part_of_the_batch(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int);
            insert into t select i from generate_series(1, 3000) i;
            create function slow() returns trigger language plpgsql as $$ begin if new.id % 20 = 0 then perform pg_sleep(0.01); end if; return null; end $$;
            create trigger slow after update on t for each row execute function slow();
            """);

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "id") with { Strategy = strategy, Workers = workers });

        Assert.Equal(3000, result.Rows);
        // Half a millisecond a row: a size that doubles for as long as the statement alone is quick is taken back again and again.
        Assert.InRange(bench.Sink.VerboseMessages.Count(m => m.Contains("was taken back", StringComparison.Ordinal)), 0, workers);
        BatchEvent[] full = [.. bench.Sink.Events.OfType<BatchEvent>().Where(batch => batch.Rows > 100)];
        // Of all together: which rows of a block are in a turn is chance, and so is how many of them are slow.
        Assert.InRange(full.Sum(batch => batch.Time.TotalMilliseconds), 0.25 * full.Sum(batch => batch.Rows), 1e6);
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_a_trigger_says_of_each_row_is_shown_of_the_trial_alone(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, v int);
            insert into t select i from generate_series(1, 1000) i;
            create function say() returns trigger language plpgsql as $$ begin raise notice 'row % is changed', new.id; return null; end $$;
            create trigger say after update on t for each row execute function say();
            """);

        Assert.Equal(1000, (await bench.RunAsync(BackfillBench.Request("t", "v", "id"))).Rows);

        Assert.InRange(bench.Sink.VerboseMessages.Count(m => m.Contains("is changed", StringComparison.Ordinal)), 1, 200);
    }

    [Theory, EachWalk(OnlyEdges = true)]
    public async Task What_is_deferred_to_the_commit_is_bounded_too(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Slow + """
            create table t (id int primary key, v int, n int not null default 0);
            insert into t select i from generate_series(1, 120) i;
            create constraint trigger slow after update on t deferrable initially deferred for each row execute function slow();
            """);

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "id", "v is null") with { Set = [new("v", "1"), new("n", "n + 1")], Strategy = strategy, Workers = workers });

        Assert.Equal(120, result.Rows);
        Assert.Equal(120, await bench.ScalarAsync<long>("select count(*) from t where n = 1"));
        Assert.Equal(120, await bench.ScalarAsync<long>("select count(*) from held"));
        // All at once would take three seconds.
        Assert.InRange(await bench.ScalarAsync<TimeSpan>("select max(for_how_long) from held"), TimeSpan.Zero, TimeSpan.FromSeconds(1.5));
        await bench.UntilNothingHeldAsync();
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task What_a_copy_defers_in_its_target_is_bounded_too(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Slow + """
            create table t (id int primary key);
            insert into t select generate_series(1, 120);
            create table copy (id int primary key) partition by range (id);
            create table copy_1 partition of copy for values from (1) to (1000);
            create constraint trigger slow after insert on copy_1 deferrable initially deferred for each row execute function slow();
            """);

        BackfillResult result = await bench.RunAsync(new() { Table = "t", InsertInto = "copy" });

        Assert.Equal((120L, 120L), (result.Rows, await bench.ScalarAsync<long>("select count(*) from copy")));
        // All at once would take three seconds, in which nobody could change their originals.
        Assert.InRange(await bench.ScalarAsync<TimeSpan>("select max(for_how_long) from held"), TimeSpan.Zero, TimeSpan.FromSeconds(1.5));
    }

    [Theory, EachMajor]
    public async Task A_deferred_constraint_refuses_the_row_and_no_other(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table parent (id int primary key);
            insert into parent select i from generate_series(1, 10) i;
            create table t (id int primary key, wanted int, v int references parent deferrable initially deferred);
            insert into t select i, case when i = 77 then 11 else 1 + i % 10 end from generate_series(1, 500) i;
            """);

        BackfillResult result = await bench.RunAsync(BackfillBench.Request("t", "v", "wanted") with { MaxErrors = 5 });

        Assert.Equal((BackfillOutcome.CompletedWithErrors, 499L, 1L), (result.Outcome, result.Rows, result.Errors));
        Assert.Equal("23503 {77}", await bench.ScalarAsync<string>("select sqlstate || ' ' || key::text from migration_safety.backfill_error"));
    }

    private const string Kept = """
        create table t (id int primary key, v int);
        insert into t select i from generate_series(1, 3000) i;
        create function keep() returns trigger language plpgsql as $$ begin if new.id % 1000 = 0 then return null; end if; return new; end $$;
        create function keep_all() returns trigger language plpgsql as $$ begin return null; end $$;
        """;

    [Theory, EachMajor]
    public async Task A_trigger_that_keeps_the_rows_is_named_before_anything_changes(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Kept + "create trigger \"Not me\" before update on t for each row execute function keep_all()");

        MigrationException e = await bench.FailsAsync(BackfillBench.Request("t", "v", "id"));

        Assert.Equal("TriggerKeepsRow", e.ErrorId);
        Assert.Contains("100 of 100 rows", e.Message, StringComparison.Ordinal);
        Assert.Contains("\"Not me\", which calls keep_all", e.Message, StringComparison.Ordinal);
        Assert.False(await bench.StateExistsAsync());
    }

    [Theory, EachWalk]
    public async Task Rows_that_a_trigger_keeps_are_recorded_as_refused(int major, BackfillStrategy strategy, int workers)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Kept + "create trigger keep before update on t for each row execute function keep()");
        BackfillRequest request = BackfillBench.Request("t", "v", "id") with { Strategy = strategy, Workers = workers };

        MigrationException e = await bench.FailsAsync(request);
        Assert.Equal("TriggerKeepsRow", e.ErrorId);
        // Met by the run, or by one of the rows that it tries before.
        Assert.Matches(@"\(id\) = \(\d000\)|^\d of 100 rows", e.Message);

        BackfillResult result = await bench.RunAsync(request with { MaxErrors = 5 });

        Assert.Equal((BackfillOutcome.CompletedWithErrors, 3L, 3L), (result.Outcome, result.Errors, result.Remaining));
        Assert.Equal(2997, result.TotalRows);
        Assert.Equal("09000 1000 2000 3000", await bench.ScalarAsync<string>("select min(sqlstate) || ' ' || string_agg(key[1], ' ' order by key[1]::int) from migration_safety.backfill_error"));

        await bench.Database.ExecuteAsync("drop trigger keep on t", Token);
        Assert.Equal((BackfillOutcome.Completed, 3L), ((result = await bench.RunAsync(request)).Outcome, result.Rows));
    }

    [Theory, EachMajor]
    public async Task Rows_that_a_trigger_keeps_from_deletion_are_recorded(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Kept.Replace("new", "old", StringComparison.Ordinal) + "create trigger keep before delete on t for each row execute function keep()");

        BackfillResult result = await bench.RunAsync(new BackfillRequest { Table = "t", Delete = true, Where = "id > 100", MaxErrors = 5 });

        Assert.Equal((BackfillOutcome.CompletedWithErrors, 2897L, 3L), (result.Outcome, result.Rows, result.Errors));
    }
}
