using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What the log of operations teaches about the phases of an index build.</summary>
public sealed class ProgressLearningTests(Servers servers)
{
    private const string Scan = "building index: scanning table";

    private const string Tables = """
        create table orders (id int, tier text, note text);
        create table others (id int);
        insert into orders select i, md5(i::text), '' from generate_series(1, 1000) i
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task A_build_learns_from_its_own_index_then_from_its_kind_of_keys(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tables);
        await BuildAsync(bench, "orders_tier", "tier");
        await BuildAsync(bench, "orders_id", "id");
        // A rebuild works under another name.
        await LogAsync(bench, "orders_tier", "REINDEX CONCURRENTLY", "_ccnew", (Scan, 30, 0), ("building index: loading tuples in tree", 10, 0));
        await LogAsync(bench, "orders_id", "CREATE INDEX CONCURRENTLY", "", (Scan, 9, 5), ("waiting for old snapshots", 100, 100), ("index validation: scanning table", 6, 0));
        LearntPhases learnt = await ReadAsync(bench);

        Assert.Equal([("building index: loading tuples in tree", 10), (Scan, 30)], Sorted(learnt.Of("public.orders", "public.orders_tier")));
        Assert.Equal([("building index: loading tuples in tree", 10), (Scan, 30)], Sorted(learnt.Of("public.orders", "public.orders_tier_ccnew1")));
        // Waiting is left out; another index, on this table or another, goes by its keys.
        Assert.Equal([(Scan, 4), ("index validation: scanning table", 6)], Sorted(learnt.Of("public.orders", "public.orders_id")));
        Assert.Null(learnt.Of("public.orders", "public.new"));
        Assert.Null(learnt.Of("public.orders", null));
        Assert.Equal(30, Assert.Single(learnt.Related("public.orders", slowKey: true)).Seconds[Scan]);
        (IndexSize size, IReadOnlyDictionary<string, double> seconds) = Assert.Single(learnt.Related("public.others", slowKey: false));
        Assert.Equal((4, 1000), (seconds[Scan], size.Rows));
    }

    [Theory, EachMajor]
    public async Task Several_builds_of_an_index_count_by_their_mean_and_those_without_a_phase_too(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tables);
        await BuildAsync(bench, "orders_tier", "tier");
        await LogAsync(bench, "orders_tier", "CREATE INDEX CONCURRENTLY", "", (Scan, 10, 0), ("index validation: scanning table", 4, 0));
        // One of two, in which the last phase was over between two looks.
        await bench.Database.ExecuteAsync("insert into migration_safety.operation (operation, action, target, table_schema, table_name, state, phases) select operation, action, target, table_schema, table_name, state, replace(phases::text, '10', '20')::jsonb - 1 from migration_safety.operation", Token);
        Assert.Equal([(Scan, 15), ("index validation: scanning table", 2)], Sorted((await ReadAsync(bench)).Of("public.orders", "public.orders_tier")));
        await bench.Database.ExecuteAsync("update migration_safety.operation set state = 'failed'", Token);
        Assert.Null((await ReadAsync(bench)).Of("public.orders", "public.orders_tier"));
    }

    [Theory, EachMajor]
    public async Task A_build_at_work_says_that_its_percent_rests_on_what_was_learnt(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tables);
        await BuildAsync(bench, "orders_tier", "tier");
        // Also who watches since before the build that teaches.
        await using ProgressReader progress = new(bench.Session, new() { Table = "orders" });
        Assert.Empty(await progress.ReadAsync(bench.Sink, Token));
        await LogAsync(bench, "orders_tier", "CREATE INDEX CONCURRENTLY", "", (Scan, 30, 0), ("index validation: scanning table", 10, 0));
        await bench.Database.ExecuteAsync("drop index orders_tier", Token);
        await using LockHolder writer = await LockHolder.HoldAsync(bench.Database, "update orders set id = 0 where id = 1");
        Task<int> build = bench.Database.ExecuteAsync("create index concurrently orders_tier on orders (tier)", Token);
        await bench.UntilPhaseAsync("waiting for writers before build");
        MigrationProgress said = Assert.Single(await progress.ReadAsync(bench.Sink, Token));
        Assert.Equal(("public.orders", "waiting for writers before build", writer.Connection.ProcessID), (said.Target, said.Phase, Assert.Single(said.BlockedBy)));
        Assert.Equal((0, ProgressConfidence.Learnt), (said.Percent, said.Confidence));

        await writer.DisposeAsync();
        await build;
    }

    [Theory, EachMajor]
    public async Task A_plain_build_whose_index_is_not_to_be_seen_yet_goes_by_the_keys_in_its_statement(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Tables);
        await bench.Database.ExecuteAsync("create function gate(i int) returns int immutable language plpgsql as 'begin if i = 500 then perform pg_catalog.pg_advisory_xact_lock_shared(42); end if; return i; end'", Token);
        await BuildAsync(bench, "orders_tier", "tier");
        await LogAsync(bench, "orders_tier", "CREATE INDEX CONCURRENTLY", "", (Scan, 30, 0), ("building index: loading tuples in tree", 10, 0));
        foreach ((string keys, ProgressConfidence confidence) in new[] { ("lower(tier), gate(id)", ProgressConfidence.Learnt), ("note, gate(id)", ProgressConfidence.Learnt), ("gate(id), tier", ProgressConfidence.Assumed), ("tier collate \"C\", gate(id)", ProgressConfidence.Assumed), ("tier text_pattern_ops, gate(id)", ProgressConfidence.Assumed) })
        {
            await using LockHolder gate = await LockHolder.HoldAsync(bench.Database, "select pg_advisory_xact_lock(42)");
            Task<int> build = bench.Database.ExecuteAsync($"create index on orders ({keys})", Token);
            await using ProgressReader progress = new(bench.Session, new() { Table = "orders" });
            MigrationProgress? said = null;
            await Wait.UntilAsync(async () => (said = (await progress.ReadAsync(bench.Sink, Token)).SingleOrDefault())?.BlockedBy.Length > 0, "the build to stand at the gate", cancellationToken: Token);
            Assert.Equal(("CREATE INDEX", confidence), (said!.Operation, said.Confidence));
            await gate.CommitAsync(Token);
            await build;
        }
    }

    private static async Task BuildAsync(IndexBench bench, string name, string column)
    {
        IndexBuildPlan plan = await IndexBuilder.PlanAsync(bench.Session, new() { Table = "orders", Name = name, Column = [column] }, bench.Sink, Token);
        await OperationLog.RunAsync(plan, bench.Sink, sink => IndexBuilder.RunAsync(plan, sink, Token), Token);
    }

    /// <summary>Gives the logged build of an index the phases that a larger table would have given it: seconds, and how many of them it waited.</summary>
    private static async Task LogAsync(IndexBench bench, string index, string command, string suffix, params (string Name, int Duration, int Waited)[] phases)
    {
        string[] names = [.. phases.Select(phase => phase.Name)];
        await using NpgsqlCommand update = bench.Database.DataSource.CreateCommand("""
            update migration_safety.operation
            set phases = (select jsonb_agg(jsonb_build_object('command', $2, 'target', 'public.' || $1 || $3, 'name', name, 'duration', duration, 'wait_time', waited))
                          from unnest($4::text[], $5::int[], $6::int[]) as p (name, duration, waited))
            where action like '%' || $1
            """);
        foreach (object value in (object[])[index, command, suffix, names, phases.Select(phase => phase.Duration).ToArray(), phases.Select(phase => phase.Waited).ToArray()])
        {
            update.Parameters.Add(new() { Value = value });
        }

        Assert.Equal(1, await update.ExecuteNonQueryAsync(Token));
    }

    private static async Task<LearntPhases> ReadAsync(IndexBench bench)
    {
        await using NpgsqlConnection connection = await bench.Database.DataSource.OpenConnectionAsync(Token);
        return await LearntPhases.ReadAsync(connection, Token);
    }

    private static (string, double)[] Sorted(IReadOnlyDictionary<string, double>? phases) => [.. phases!.OrderBy(phase => phase.Key, StringComparer.Ordinal).Select(phase => (phase.Key, phase.Value))];
}
