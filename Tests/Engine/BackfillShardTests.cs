using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>
/// Tables that Citus distributes are backfilled shard by shard. The extension is not part of the test servers: its metadata tables are made by hand, with one node that holds all shards, and say
/// where our side looks. What Citus itself does to a shard's statements they cannot show; that was tried by hand.
/// </summary>
public sealed class BackfillShardTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private const string Metadata = """
        set allow_system_table_mods = on;
        create table pg_catalog.pg_dist_partition (logicalrelid regclass not null);
        create table pg_catalog.pg_dist_shard (logicalrelid regclass not null, shardid bigint not null);
        create table pg_catalog.pg_dist_placement (shardid bigint, shardstate int, groupid int);
        create table pg_catalog.pg_dist_node (nodeid int, groupid int, nodename text, nodeport int, noderole text, isactive bool);
        create table pg_catalog.pg_dist_local_group (groupid int);
        create function pg_catalog.shard_name(regclass, bigint) returns text language sql as $$ select pg_catalog.quote_ident(pg_catalog.btrim($1::text, '"') || '_' || $2) $$;
        reset allow_system_table_mods;
        create table "Orders" (id int primary key, tier text);
        create table "Orders_102008" (id int primary key, tier text); insert into "Orders_102008" select i from generate_series(1, 500) i;
        create table "Orders_102009" (id int primary key, tier text); insert into "Orders_102009" select i from generate_series(501, 700) i;
        create table plain (id int primary key, tier text); insert into plain values (1);
        insert into pg_dist_local_group values (7);
        insert into pg_dist_node values (1, 7, 'nowhere.invalid', 1, 'primary', true), (2, 8, 'nowhere.invalid', 1, 'secondary', true);
        insert into pg_dist_partition values ('"Orders"');
        insert into pg_dist_shard values ('"Orders"', 102008), ('"Orders"', 102009);
        insert into pg_dist_placement values (102008, 1, 7), (102009, 1, 7);
        alter function pg_catalog.shard_name(regclass, bigint) set search_path = public;
        """;

    [Theory, EachMajor]
    public async Task Each_shard_is_changed_and_found_where_it_lies(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Metadata);
        Assert.Equal("TableDistributed", (await bench.FailsAsync(Setting("\"Orders\""))).ErrorId);
        Assert.Empty(await DistributedTable.ShardsAsync(bench.Session, "plain", null, joins: true, bench.Sink, Token));

        IReadOnlyList<TableShard> shards = await DistributedTable.ShardsAsync(bench.Session, "\"Orders\"", null, joins: false, bench.Sink, Token);
        Assert.Equal(["\"Orders_102008\"", "\"Orders_102009\""], shards.Select(shard => shard.Table));
        Assert.NotSame(bench.Session, shards[0].Session);
        Assert.Same(shards[0].Session, shards[1].Session);

        // Expressions know it by the name of the table.
        List<BackfillResult> results = [];
        foreach (TableShard shard in shards)
        {
            BackfillPlan plan = await Backfill.PlanAsync(shard.Session, Setting(shard.Table), bench.Sink, Token);
            Assert.Contains(plan.Notes, note => note.StartsWith("a shard of Orders", StringComparison.Ordinal));
            results.Add(await Backfill.RunAsync(plan, bench.Sink, Token));
        }

        Assert.Equal([500L, 200L], results.Select(result => result.Rows));
        Assert.Equal(700, await bench.ScalarAsync<long>("""select count(*) from (table "Orders_102008" union all table "Orders_102009") o where tier = 't' || id"""));

        // From any node, by name, and with what a shard needs.
        Assert.Equal(2, (await BackfillReader.ReadAsync(bench.Session, new BackfillFilter(), bench.Sink, Token)).Count);
        Assert.Same(shards[0].Session, await DistributedTable.HolderAsync(bench.Session, results[1].Name, bench.Sink, Token));
        Assert.Same(bench.Session, await DistributedTable.HolderAsync(bench.Session, "nosuch", bench.Sink, Token));
        BackfillTestResult test = await BackfillProof.TestAsync(bench.Session, new() { Name = results[0].Name, Comparison = BackfillComparison.All }, bench.Sink, Token);
        Assert.Equal((true, 500L, 0L), (test.Passed, test.Compared, test.Different));

        // Moved away while it ran: what is left here is no proof.
        await bench.Database.ExecuteAsync("update pg_dist_placement set groupid = 8 where shardid = 102009; update \"Orders_102009\" set tier = null", Token);
        BackfillPlan moved = await Backfill.PlanAsync(shards[1].Session, Setting(shards[1].Table), bench.Sink, Token);
        Assert.Equal("ShardMoved", (await Assert.ThrowsAsync<MigrationException>(() => Backfill.RunAsync(moved, bench.Sink, Token))).ErrorId);

        await SessionFactory.DisconnectAsync(bench.Session.Info);
        Assert.Equal(SessionState.Closed, shards[0].Session.Info.State);
    }

    [Theory, EachMajor]
    public async Task What_cannot_go_shard_by_shard_is_refused(int major)
    {
        await using BackfillBench bench = await BackfillBench.CreateAsync(servers, major, Metadata + """
            insert into pg_dist_node values (3, 9, '127.0.0.1', 1, 'primary', true);
            create table gone (id int primary key); insert into pg_dist_partition values ('gone'); insert into pg_dist_shard values ('gone', 102010); insert into pg_dist_placement values (102010, 1, 9);
            create table ref (id int primary key); insert into pg_dist_partition values ('ref'); insert into pg_dist_shard values ('ref', 102011); insert into pg_dist_placement values (102011, 1, 7), (102011, 1, 9);
            """);
        async Task<MigrationException> FailsAsync(string table, bool joins) =>
            await Assert.ThrowsAsync<MigrationException>(() => DistributedTable.ShardsAsync(bench.Session, table, null, joins, bench.Sink, Token));

        Assert.Equal("TableDistributed", (await FailsAsync("\"Orders\"", joins: true)).ErrorId);
        Assert.Contains("on several nodes", (await FailsAsync("ref", joins: false)).Message, StringComparison.Ordinal);
        MigrationException unreachable = await FailsAsync("gone", joins: false);
        Assert.Equal((MigrationErrorKind.Connection, "ConnectionRefused"), (unreachable.Kind, unreachable.ErrorId));
        Assert.Equal("TableDistributed", (await bench.FailsAsync(new BackfillRequest { Table = "plain", InsertInto = "\"Orders\"" })).ErrorId);

        // A node that does not answer hides what the others have from nobody.
        Assert.Empty(await BackfillReader.ReadAsync(bench.Session, new BackfillFilter(), bench.Sink, Token));
        Assert.Contains(bench.Sink.Warnings, warning => warning.StartsWith("What is recorded on 127.0.0.1:1", StringComparison.Ordinal));
    }

    private static BackfillRequest Setting(string table) => new() { Table = table, Set = [new("tier", "'t' || \"Orders\".id")] };
}
