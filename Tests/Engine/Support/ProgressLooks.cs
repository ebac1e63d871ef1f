using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>Looks at what runs until it is as it should be.</summary>
internal static class ProgressLooks
{
    // Some 2,900 pages. gate() stands still at the row in the middle while somebody holds the advisory lock.
    internal const string Things = """
        create table things (id int primary key, v text);
        insert into things select i, repeat('x', 1000) from generate_series(1, 20000) i;
        create function gate(i int) returns int volatile language plpgsql as
            'begin if i = 10000 then perform pg_catalog.pg_advisory_xact_lock_shared(42); end if; return i; end';
        create function gate_always(i int) returns int immutable language plpgsql as
            'begin if i = 10000 then perform pg_catalog.pg_advisory_xact_lock_shared(42); end if; return i; end';
        """;

    internal const string Close = "select pg_advisory_xact_lock(42)";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    internal static async Task<MigrationProgress> UntilAsync(ProgressReader reader, IndexBench bench, Func<MigrationProgress, bool> condition)
    {
        MigrationProgress? found = null;
        IReadOnlyList<MigrationProgress> last = [];
        try
        {
            await Wait.UntilAsync(async () => (found = (last = await reader.ReadAsync(bench.Sink, Token)).FirstOrDefault(condition)) is not null, "the operation to get there", cancellationToken: Token);
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"{e.Message} Last seen: {string.Join("; ", last)}", e);
        }

        return found!;
    }

    internal static Task<IReadOnlyList<MigrationProgress>> ReadAsync(IndexBench bench, ProgressFilter filter) => ReadAsync(bench.Session, filter, bench.Sink);

    internal static async Task<IReadOnlyList<MigrationProgress>> ReadAsync(EngineSession session, ProgressFilter filter, RecordingSink sink)
    {
        await using ProgressReader reader = new(session, filter);
        return await reader.ReadAsync(sink, Token);
    }

    internal static async Task<MigrationProgress> UntilAsync(IndexBench bench, string phase)
    {
        MigrationProgress? found = null;
        await Wait.UntilAsync(
            async () =>
            {
                found = (await ReadAsync(bench, new() { Table = "orders" })).FirstOrDefault(p => p.Phase?.StartsWith(phase, StringComparison.Ordinal) == true && (p.BlockedBy.Length > 0 || !phase.StartsWith("waiting", StringComparison.Ordinal)));
                return found is not null;
            },
            phase,
            cancellationToken: Token);
        return found!;
    }

    /// <summary>A bench with the gated table.</summary>
    internal static async Task<IndexBench> GatedAsync(Servers servers, int major)
    {
        IndexBench bench = await IndexBench.CreateAsync(servers, major, Things);
        await bench.Database.ExecuteAsync("vacuum analyze things", Token);
        return bench;
    }
}
