using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Sandbox;

/// <summary>The migration of the sandbox's runbook: a column that is added by a file, as migration tools have them.</summary>
internal static class Migration
{
    internal const string FileName = "001_add_tier.sql";

    internal static string Path => System.IO.Path.Combine(HandOver.RepositoryRoot, "Tests", "Sandbox", FileName);

    /// <summary>What each row's new column is to hold.</summary>
    internal const string TierExpression = "case when amount >= 900 then 'gold' when amount >= 500 then 'silver' else 'basic' end";

    /// <summary>The index on the column.</summary>
    internal static IndexBuildRequest Index { get; } = new() { Table = "orders", Column = ["tier"] };

    /// <summary>
    /// Fills the column. The counter makes it visible when a row is written twice: an update that may run again and again would hide it.
    /// </summary>
    internal static BackfillRequest Backfill { get; } = new()
    {
        Table = "orders",
        Set = [new("tier", TierExpression), new("revision", "revision + 1")],
        Where = "tier is null",
    };

    /// <summary>The file's statement as a step, with the reversal that the engine makes for it.</summary>
    internal static async Task<MigrationStep> AddColumnAsync(EngineSession engine, IOperationSink sink, CancellationToken cancellationToken)
    {
        RollbackScript rollback = await RollbackGenerator.FromFileAsync(engine, MigrationFile.Read(Path, MigrationFormat.Plain), false, sink, cancellationToken);
        RollbackStatement statement = rollback.Statements.Single();
        return new MigrationStep
        {
            Sql = statement.Statement,
            Purpose = "Add column tier",
            LockMode = TableLockMode.AccessExclusive,
            Objects = ["public.orders"],
            Cost = StepCost.Instant,
            Reversal = statement.Reversal,
            ReversalNote = statement.Note,
            Reversibility = statement.Reversibility,
        };
    }

    /// <summary>Adds another column, at once, under the locks that a busy table allows.</summary>
    internal static async Task AddColumnAsync(EngineSession engine, string name, Screen screen, CancellationToken cancellationToken)
    {
        await using StepExecutor executor = await StepExecutor.OpenAsync(engine, new ExecutionOptions(), screen, cancellationToken);
        await executor.RunAsync(
            [new MigrationStep { Sql = $"alter table orders add column {name} text", Purpose = $"Add column {name}", LockMode = TableLockMode.AccessExclusive, Objects = ["public.orders"], Cost = StepCost.Instant }],
            "add-column",
            cancellationToken);
    }

    /// <summary>Runs the file's statement, as a migration tool would, but through the executor.</summary>
    internal static async Task ApplyAsync(Shop shop, Screen screen, CancellationToken cancellationToken)
    {
        MigrationSession session = await SessionFactory.ConnectAsync(new ConnectRequest { Text = shop.Uri }, screen, cancellationToken);
        try
        {
            EngineSession engine = EngineSession.Of(session);
            await using StepExecutor executor = await StepExecutor.OpenAsync(engine, new ExecutionOptions(), screen, cancellationToken);
            await executor.RunAsync([await AddColumnAsync(engine, screen, cancellationToken)], "add-column", cancellationToken);
        }
        finally
        {
            await SessionFactory.DisconnectAsync(session);
        }
    }
}
