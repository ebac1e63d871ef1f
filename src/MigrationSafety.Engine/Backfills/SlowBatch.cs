using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What is said of a batch that takes too long although it cannot be smaller.</summary>
internal static class SlowBatch
{
    /// <summary>Its one row does.</summary>
    internal static MigrationException Of(BackfillDefinition definition, TimeSpan limit, Exception e) => new(
        "BatchTooSlow",
        MigrationErrorKind.Timeout,
        $"The update of a single row of {definition.Table.Display} takes longer than {Durations.Text(limit)}, for which it would keep others waiting.",
        "Compute what the expression needs beforehand (a table with an index to look it up in), look for slow triggers, or allow a longer -TargetBatchTime.",
        e)
    {
        SqlState = SqlStates.QueryCanceled,
        Target = definition.Table.Display,
    };

    /// <summary>Nothing leads it to its row any more.</summary>
    internal static MigrationException WithoutIndex(BackfillLeaf leaf, Exception e) => new(
        "IndexGone",
        MigrationErrorKind.InvalidState,
        $"The unique index on ({leaf.KeyText}) of {leaf.Table.Display}, along which this backfill goes, was dropped or became invalid while it ran: each batch would have to sort what is left of the table.",
        "Run the command again, without -Strategy Key: it chooses another way through the table, and passes over the rows that are done.",
        e)
    {
        SqlState = SqlStates.QueryCanceled,
        Target = leaf.Table.Display,
    };
}
