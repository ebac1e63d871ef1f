using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Sandbox;

/// <summary>The hidden verb <c>build-client</c>: builds the indexes that its input names, a URI, a tab and a statement a line, all at once. Tests kill it.</summary>
internal static class BuildClient
{
    internal const string Verb = "build-client";

    internal static async Task<int> RunAsync(CancellationToken cancellationToken)
    {
        List<Task> builds = [];
        while (await Console.In.ReadLineAsync(cancellationToken) is { } line)
        {
            string[] parts = line.Split('\t');
            builds.Add(BuildAsync(parts[0], parts[1], cancellationToken));
        }

        await Task.WhenAll(builds);
        return 0;
    }

    private static async Task BuildAsync(string uri, string statement, CancellationToken cancellationToken)
    {
        SilentSink sink = new();
        EngineSession session = EngineSession.Of(await SessionFactory.ConnectAsync(new ConnectRequest { Text = uri }, sink, cancellationToken));
        foreach (IndexBuildRequest request in IndexStatements.Read(statement, null))
        {
            IndexBuildPlan plan = await IndexBuilder.PlanAsync(session, request with { SkipDuplicateCheck = true }, sink, cancellationToken);
            await IndexBuilder.RunAsync(plan, sink, cancellationToken);
        }
    }
}
