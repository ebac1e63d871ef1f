using MigrationSafety.Engine.Backfills;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>By what the rows of each block are parted into turns.</summary>
public sealed class BackfillTurnTests(Servers servers)
{
    /// <summary>In turns by k, and slow enough that something can happen meanwhile.</summary>
    private const string SlowInTurns = """
        create table t (id int primary key, k int, v int, n int not null default 0);
        insert into t select i, i * 7919 % 30000 from generate_series(1, 30000) i;
        create index on t (k);
        analyze t;
        create function slow() returns trigger language plpgsql as $$ begin perform sum(i) from generate_series(1, 300) i; return new; end $$;
        create trigger slow before update of v on t for each row execute function slow();
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Turns_go_by_ranges_of_what_an_index_scatters(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, "create domain code as text");
        foreach ((string type, string value, bool fits) in new[]
        {
            ("uuid", "gen_random_uuid()", true),
            ("text", """md5(i::text) || '''"{,}\ä'""", true),
            ("varchar(20)", "md5(i::text)::varchar(20)", true),
            ("timestamptz", "now() - i * 7919 % 20000 * interval '1 second'", true),
            ("numeric(12, 3)", "i * 7919 % 20000 / 7.0", true),
            ("char(12)", "'ORD-' || lpad((i * 7919 % 20000)::text, 6, '0')", true),
            // Arrays of such types are nothing that bounds can be.
            ("code", "md5(i::text)", false),
            ("int[]", "array[i * 7919 % 20000]", false),
        })
        {
            await bench.Database.ExecuteAsync(
                $"""
                drop table if exists t;
                create table t (id int primary key, "the ""Key" {type}, v int, n int not null default 0) with (autovacuum_enabled = false);
                insert into t select i, case when i % 50 > 0 then {value} end from generate_series(1, 20000) i;
                create index on t ("the ""Key");
                analyze t
                """,
                Token);

            BackfillResult result = await bench.RunAsync(Counted with { Name = type });

            Assert.Equal((type, 20_000L, 0L), (type, result.Rows, result.Remaining));
            Assert.Equal(20_000, await bench.ScalarAsync<long>("select count(*) from t where v = id and n = 1"));
            string ranges = $"from migration_safety.backfill_range where backfill = '{type}' and slices = 4";
            Assert.Equal((type, fits ? "the \"Key" : null), (type, await bench.ScalarAsync<string>($"select max(slice_column) {ranges}")));
            if (fits)
            {
                string bounds = await bench.ScalarAsync<string>($"select max(slice_bounds) {ranges}") ?? "";
                double[] shares = await bench.ScalarAsync<double[]>(
                    $"""
                    select array_agg(rows / 20000.0::float8)
                    from (select count(*) as rows from t group by coalesce(width_bucket("the ""Key", '{bounds.Replace("'", "''", StringComparison.Ordinal)}'::{await bench.ScalarAsync<string>($"select max(slice_type) {ranges}")}[]), 0)) as turns
                    """) ?? [];
                Assert.Equal(4, shares.Length);
                Assert.All(shares, share => Assert.InRange(share, 0.2, 0.3));
            }
        }
    }

    [Theory, EachMajor]
    public async Task Turns_go_by_place_where_values_lie_together(int major)
    {
        // In no order, but each block holds few values: it would be done in one turn, and nothing would stay in it.
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, tenant int, v int, n int not null default 0) with (autovacuum_enabled = false);
            insert into t select i, i / 300 * 7919 % 1000 from generate_series(1, 40000) i;
            create index on t (tenant);
            analyze t
            """);
        Assert.InRange(await bench.ScalarAsync<double>("select abs(correlation)::float8 from pg_stats where tablename = 't' and attname = 'tenant'"), 0, 0.5);

        BackfillResult result = await bench.RunAsync(Counted);

        Assert.Equal(40_000, result.Rows);
        Assert.Equal(40_000, await bench.ScalarAsync<long>("select count(*) from t where v = id and n = 1"));
        Assert.Equal((4, null), (await bench.ScalarAsync<int>("select max(slices) from migration_safety.backfill_range"), await bench.ScalarAsync<string>("select max(slice_column) from migration_safety.backfill_range")));
    }

    [Theory, EachMajor]
    public async Task Blocks_go_in_turns_where_rows_are_left_and_once_where_they_are_done(int major)
    {
        // The first three quarters as an earlier run, or an application, left them; then a partition that is done beside one that is not.
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, """
            create table t (id int primary key, note text, v int, n int not null default 0) with (autovacuum_enabled = false);
            insert into t select i, repeat('x', 300), case when i <= 30000 then i end, case when i <= 30000 then 1 else 0 end from generate_series(1, 40000) i;
            create table p (id int primary key, note text, v int, n int not null default 0) partition by range (id);
            create table p1 partition of p for values from (0) to (20001);
            create table p2 partition of p for values from (20001) to (40001);
            insert into p select id, note, case when id <= 20000 then v end, case when id <= 20000 then 1 else 0 end from t
            """);
        await bench.Database.ExecuteAsync("vacuum analyze t, p", Token);

        Assert.Equal(10_000, (await bench.RunAsync(Counted)).Rows);
        Assert.Equal(20_000, (await bench.RunAsync(Counted with { Table = "p", Name = "p" })).Rows);

        Assert.Equal(80_000, await bench.ScalarAsync<long>("select count(*) from (select * from t union all select * from p) as all_rows where v = id and n = 1"));
        long blocks = await bench.ScalarAsync<long>("select max((ctid::text::point)[0])::int8 from t where id = 30000");
        const string Ranges = "from migration_safety.backfill_range";
        Assert.Equal("1 4", await bench.ScalarAsync<string>($"select max(slices) filter (where upper[1]::int8 <= {blocks}) || ' ' || min(slices) filter (where lower[1]::int8 >= {blocks}) {Ranges} where relation = 't'::regclass"));
        Assert.Equal("1 4", await bench.ScalarAsync<string>($"select max(slices) filter (where relation = 'p1'::regclass) || ' ' || min(slices) filter (where relation = 'p2'::regclass) {Ranges}"));
    }

    [Theory, EachMajor(OnlyEdges = true)]
    public async Task Rows_that_go_to_another_turn_and_a_column_that_goes_leave_nothing_undone(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, SlowInTurns);
        Task<BackfillResult> run = bench.RunAsync(Counted with { BatchSize = 300 });
        await bench.UntilBatchesAsync(10, run);
        // From the last turn to the first, which is done in part.
        await bench.Database.ExecuteAsync("update t set k = 0 where v is null and id % 7 = 0", Token);
        await bench.Database.ExecuteAsync("update migration_safety.backfill set state = 'paused'", Token);
        Assert.Equal(BackfillOutcome.Paused, (await run).Outcome);
        await bench.Database.ExecuteAsync("alter table t drop column k", Token);

        BackfillResult rest = await bench.RunAsync(Counted);

        Assert.Equal((true, 30_000L, 0L), (rest.Resumed, rest.TotalRows, rest.Remaining));
        Assert.Equal(30_000, await bench.ScalarAsync<long>("select count(*) from t where v = id and n = 1"));
    }

    [Theory, EachMajor]
    public async Task A_column_that_goes_while_turns_go_by_it_ends_nothing(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, SlowInTurns);
        Task<BackfillResult> run = bench.RunAsync(Counted with { BatchSize = 300 });
        await bench.UntilBatchesAsync(5, run);
        await bench.Database.ExecuteAsync("alter table t drop column k", Token);

        BackfillResult result = await run;

        Assert.Equal((30_000L, 0L), (result.Rows, result.Remaining));
        Assert.Equal(30_000, await bench.ScalarAsync<long>("select count(*) from t where v = id and n = 1"));
    }

    private static BackfillRequest Counted => BackfillBench.Request("t", "v", "id", "v is null") with { Set = [new("v", "id"), new("n", "n + 1")] };
}
