using System.Globalization;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Report;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>The runbook, through the engine: forward, proved, and back.</summary>
internal sealed class RunbookScenario : Scenario
{
    internal override string Name => "runbook";

    internal override string Summary => "add a column, build an index on it, backfill it, prove it, take all of it back (default)";

    internal override async Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken)
    {
        await bench.MeasureBaselineAsync(options.Seconds, cancellationToken);
        IReadOnlyList<string> before = await SchemaState.ReadAsync(bench.Shop, cancellationToken);
        Screen screen = bench.Screen;
        MigrationSession session = await SessionFactory.ConnectAsync(new ConnectRequest { Text = bench.Shop.Uri }, screen, cancellationToken);
        try
        {
            EngineSession engine = EngineSession.Of(session);
            List<MigrationStep> done = [];
            await AddColumnAsync(bench, engine, done, cancellationToken);
            // The release that writes the new column is out before the old rows are filled, or there were always some left.
            bench.Traffic.WritesTier = true;
            await BuildIndexAsync(bench, engine, done, cancellationToken);
            BackfillResult filled = await BackfillAsync(bench, engine, done, cancellationToken);
            await ProveAsync(bench, filled, cancellationToken);
            await ReportAsync(bench, engine, options, cancellationToken);

            RollbackScript rollback = RollbackGenerator.FromSteps("the runbook", done);
            screen.Say($"Rollback: {rollback.Statements.Length} statements, {rollback.Reversibility}.");
            foreach (RollbackStatement statement in rollback.Statements)
            {
                screen.Say($"    {statement.Reversal ?? "nothing"};   -- {statement.Reversibility}: {Cut(statement.Statement, 80)}");
            }

            // Back in the other order: first the release that knows nothing of the column, then the column.
            bench.Traffic.WritesTier = false;
            await bench.SettleAsync(cancellationToken);
            await RollBackAsync(bench, engine, rollback, cancellationToken);
        }
        finally
        {
            await SessionFactory.DisconnectAsync(session);
        }

        await CompareAsync(bench, before, cancellationToken);
    }

    private static async Task AddColumnAsync(Bench bench, EngineSession engine, List<MigrationStep> done, CancellationToken cancellationToken)
    {
        MigrationStep add = await Migration.AddColumnAsync(engine, bench.Screen, cancellationToken);
        await bench.MeasureAsync(
            "Add column",
            async () =>
            {
                await using StepExecutor executor = await StepExecutor.OpenAsync(engine, new ExecutionOptions(), bench.Screen, cancellationToken);
                done.AddRange(await executor.RunAsync([add], "add-column", cancellationToken));
                return null;
            },
            cancellationToken);
    }

    private static async Task BuildIndexAsync(Bench bench, EngineSession engine, List<MigrationStep> done, CancellationToken cancellationToken) => await bench.MeasureAsync(
        "Build index",
        async () =>
        {
            IndexBuildPlan plan = await IndexBuilder.PlanAsync(engine, Migration.Index, bench.Screen, cancellationToken);
            IndexBuildResult built = await OperationLog.RunAsync(plan, bench.Screen, sink => IndexBuilder.RunAsync(plan, sink, cancellationToken), cancellationToken);
            bench.Screen.Say($"    {built.Name}: {built.Outcome}, waited {Screen.Text(built.WaitTime)} for transactions.");
            done.AddRange(built.Steps);
            return bench.Shop.Rows;
        },
        cancellationToken);

    private static async Task<BackfillResult> BackfillAsync(Bench bench, EngineSession engine, List<MigrationStep> done, CancellationToken cancellationToken)
    {
        BackfillResult? filled = null;
        await bench.MeasureAsync(
            "Backfill",
            async () =>
            {
                BackfillPlan plan = await Backfill.PlanAsync(engine, Migration.Backfill, bench.Screen, cancellationToken);
                filled = await OperationLog.RunAsync(plan, bench.Screen, sink => Backfill.RunAsync(plan, sink, cancellationToken), cancellationToken);
                bench.Screen.Say(string.Create(
                    CultureInfo.InvariantCulture, $"    {filled.Name}: {filled.Outcome}, {filled.Rows:N0} rows in {filled.Batches:N0} batches, {filled.Remaining:N0} left."));
                done.AddRange(filled.Steps);
                return filled.Rows;
            },
            cancellationToken);
        return filled!;
    }

    private static async Task ProveAsync(Bench bench, BackfillResult filled, CancellationToken cancellationToken) => await bench.MeasureAsync(
        "Prove",
        async () =>
        {
            FillProof proof = await FillProof.ReadAsync(bench.Shop, cancellationToken);
            bench.Screen.Say("    " + proof);
            bench.Broken.AddRange(proof.Broken(filled.TotalRows));
            bench.Broken.AddRange((await SchemaState.InvalidIndexesAsync(bench.Shop, cancellationToken)).Select(invalid => $"Nothing is lost: {invalid}."));
            return proof.Rows;
        },
        cancellationToken);

    /// <summary>What the log of operations says of it afterwards, and the report for the change ticket.</summary>
    private static async Task ReportAsync(Bench bench, EngineSession engine, SandboxOptions options, CancellationToken cancellationToken)
    {
        IReadOnlyList<MigrationOperation> history = await HistoryReader.ReadAsync(engine, new(), bench.Screen, cancellationToken);
        bench.Screen.Say("History:");
        foreach (MigrationOperation operation in history)
        {
            bench.Screen.Say($"    {operation.Id}. {operation.Action}, {operation.Outcome} in {Screen.Text(operation.Duration)}, waited {Screen.Text(operation.WaitTime)}, {operation.Reversibility}.");
        }

        if (history.Count != 2 || history.Any(operation => operation.Outcome != OperationOutcome.Succeeded))
        {
            bench.Broken.Add("What it says is what the server did: the log of operations does not hold the index build and the backfill as succeeded.");
        }

        if (options.Report is { } path)
        {
            await File.WriteAllTextAsync(path, MigrationReport.Write("The runbook of the sandbox", history, DateTimeOffset.Now), cancellationToken);
            bench.Screen.Say($"Report: {path}");
        }
    }

    private static async Task RollBackAsync(Bench bench, EngineSession engine, RollbackScript rollback, CancellationToken cancellationToken) => await bench.MeasureAsync(
        "Roll back",
        async () =>
        {
            await using StepExecutor executor = await StepExecutor.OpenAsync(engine, new ExecutionOptions(), bench.Screen, cancellationToken);
            await executor.RunAsync(RollbackGenerator.ToSteps(rollback), "rollback", cancellationToken);
            return null;
        },
        cancellationToken);

    private static async Task CompareAsync(Bench bench, IReadOnlyList<string> before, CancellationToken cancellationToken)
    {
        IReadOnlyList<string> after = await SchemaState.ReadAsync(bench.Shop, cancellationToken);
        string[] differences = [.. before.Except(after).Select(line => $"missing: {line}"), .. after.Except(before).Select(line => $"new: {line}")];
        if (differences.Length > 0)
        {
            bench.Broken.Add($"Everything can be undone: the schema after the rollback is another than before; {string.Join("; ", differences)}");
        }

        bench.Broken.AddRange((await SchemaState.LeftoversAtRestAsync(bench.Shop, cancellationToken)).Select(leftover => $"Nothing is lost: {leftover}."));
    }

    private static string Cut(string text, int length)
    {
        string line = text.ReplaceLineEndings(" ");
        return line.Length <= length ? line : line[..length] + "...";
    }
}
