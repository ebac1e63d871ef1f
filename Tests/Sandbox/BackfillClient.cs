using System.Globalization;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Sandbox;

/// <summary>
/// The hidden verb <c>backfill-client</c>: fills <c>t.v</c> and counts in <c>t.n</c> in each database that its input names, a URI, a strategy, the workers and the batch size
/// a line with tabs between, all at once. Tests kill it.
/// </summary>
internal static class BackfillClient
{
    internal const string Verb = "backfill-client";

    internal static async Task<int> RunAsync(CancellationToken cancellationToken)
    {
        List<Task> backfills = [];
        while (await Console.In.ReadLineAsync(cancellationToken) is { } line)
        {
            backfills.Add(FillAsync(line.Split('\t'), cancellationToken));
        }

        await Task.WhenAll(backfills);
        return 0;
    }

    private static async Task FillAsync(string[] parts, CancellationToken cancellationToken)
    {
        SilentSink sink = new();
        EngineSession session = EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = parts[0] }, sink, cancellationToken));
        BackfillRequest request = new()
        {
            Table = "t",
            Set = [new("v", "1"), new("n", "n + 1")],
            Where = "v is null",
            Strategy = Enum.Parse<BackfillStrategy>(parts[1]),
            Workers = int.Parse(parts[2], CultureInfo.InvariantCulture),
            BatchSize = int.Parse(parts[3], CultureInfo.InvariantCulture),
        };
        await Backfill.RunAsync(await Backfill.PlanAsync(session, request, sink, cancellationToken), sink, cancellationToken);
    }
}
