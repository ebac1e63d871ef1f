using MigrationSafety.Engine.Progress;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>Looks at what runs until it is as it should be.</summary>
internal static class ProgressLooks
{
    internal static async Task<MigrationProgress> UntilAsync(ProgressReader reader, IndexBench bench, Func<MigrationProgress, bool> condition)
    {
        CancellationToken token = TestContext.Current.CancellationToken;
        MigrationProgress? found = null;
        IReadOnlyList<MigrationProgress> last = [];
        try
        {
            await Wait.UntilAsync(async () => (found = (last = await reader.ReadAsync(bench.Sink, token)).FirstOrDefault(condition)) is not null, "the operation to get there", cancellationToken: token);
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"{e.Message} Last seen: {string.Join("; ", last)}", e);
        }

        return found!;
    }
}
