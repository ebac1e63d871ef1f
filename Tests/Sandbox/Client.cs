using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Sandbox;

/// <summary>The hidden verb <c>client</c>: index build and backfill in a process of its own, which the faults scenario kills.</summary>
internal static class Client
{
    internal const string Verb = "client";

    /// <summary>The environment variable with the database's URI.</summary>
    internal const string UriVariable = "MIGRATIONSAFETY_SANDBOX_URI";

    internal static async Task<int> RunAsync(CancellationToken cancellationToken)
    {
        Lines sink = new();
        try
        {
            string uri = Environment.GetEnvironmentVariable(UriVariable) ?? throw new InvalidOperationException($"{UriVariable} is not set.");
            MigrationSession session = await SessionFactory.ConnectAsync(new ConnectRequest { Text = uri }, sink, cancellationToken);
            EngineSession engine = EngineSession.Of(session);
            IndexBuildPlan index = await IndexBuilder.PlanAsync(engine, Migration.Index, sink, cancellationToken);
            IndexBuildResult built = await IndexBuilder.RunAsync(index, sink, cancellationToken);
            Lines.Write($"index {built.Outcome}");
            BackfillPlan backfill = await Backfill.PlanAsync(engine, Migration.Backfill, sink, cancellationToken);
            BackfillResult filled = await Backfill.RunAsync(backfill, sink, cancellationToken);
            Lines.Write($"backfill {filled.Outcome}, {(filled.Resumed ? "resumed, " : "")}{filled.Rows} rows, {filled.TotalRows} in all, {filled.Remaining} left");
            await SessionFactory.DisconnectAsync(session);
            return 0;
        }
        catch (MigrationException e)
        {
            Lines.Write($"{e.ErrorId}: {e.Message} {e.RecommendedAction}");
            return 1;
        }
    }

    /// <summary>What it reports, line by line.</summary>
    private sealed class Lines : IOperationSink
    {
        public void Verbose(string message) => Write(message);

        public void Debug(string message)
        {
            // The bench shows what the client did, not how.
        }

        public void Warning(string message) => Write("WARNING: " + message);

        public void Progress(OperationProgress progress)
        {
            // The bench asks the server how far it is.
        }

        internal static void Write(string line)
        {
            Console.WriteLine(line.ReplaceLineEndings(" "));
            Console.Out.Flush();
        }
    }
}
