using MigrationSafety.Engine.Progress;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>What is told of statements by their text and their locks: whose they are, that they wait, and which files are theirs.</summary>
public sealed class ProgressDdlTests(Servers servers)
{
    // gate() stands still at a row while somebody holds an advisory lock.
    private const string Things = """
        create table things (id int, v text);
        insert into things select i, repeat('x', 1000) from generate_series(1, 20000) i;
        create function gate(i int, place int, key int) returns int immutable language plpgsql as
            'begin if i = place then perform pg_catalog.pg_advisory_xact_lock_shared(key); end if; return i; end'
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task An_alter_is_of_the_table_that_it_names_first(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(
            servers,
            major,
            """
            create table invoice (id int primary key);
            create table t (id int primary key);
            create table invoice_item (invoice int);
            create table "Odd (item)" (t int)
            """);
        foreach ((string sql, string parent, string target) in ((string, string, string)[])
        [
            ("ALTER TABLE INVOICE_ITEM ADD FOREIGN KEY (invoice) REFERENCES invoice (id)", "invoice", "public.invoice_item"),
            ("alter table \"Odd (item)\" add foreign key (t) references t (id)", "t", "public.\"Odd (item)\""),
        ])
        {
            await using LockHolder writer = await LockHolder.HoldAsync(bench.Database, $"lock table {parent} in row exclusive mode");
            await using ProgressReader reader = new(bench.Session, new());
            Task<int> alter = bench.Database.ExecuteAsync(sql, Token);
            MigrationProgress queued = await UntilAsync(reader, bench, p => p.BlockedBy.Contains(writer.Pid));
            Assert.Equal(("ALTER TABLE", target, "waiting for a lock"), (queued.Operation, queued.Target, queued.Phase));
            await writer.CommitAsync(Token);
            await alter;
        }
    }

    private static async Task<MigrationProgress> UntilAsync(ProgressReader reader, IndexBench bench, Func<MigrationProgress, bool> condition)
    {
        MigrationProgress? found = null;
        IReadOnlyList<MigrationProgress> last = [];
        try
        {
            await Wait.UntilAsync(
                async () => (found = (last = await reader.ReadAsync(bench.Sink, Token)).FirstOrDefault(condition)) is not null, "the operation to get there", cancellationToken: Token);
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"{e.Message} Last seen: {string.Join("; ", last)}", e);
        }

        return found!;
    }
}
