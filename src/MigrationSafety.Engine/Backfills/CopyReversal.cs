namespace MigrationSafety.Engine.Backfills;

/// <summary>Empties a table that was empty before a backfill copied rows into it.</summary>
internal static class CopyReversal
{
    /// <summary>What must be known about it.</summary>
    internal static string Note(BackfillTarget into) =>
        $"Deletes every row of {into.Table.Display}, which was empty before: those that were copied, and those that the application or a trigger has written there since. In small batches that commit one by one and pass over rows that are locked or that the server refuses to delete, so that it may run again; a warning says how many rows are left, and why. TRUNCATE does the same at once, with an ACCESS EXCLUSIVE lock.";

    /// <summary>The block.</summary>
    internal static string Sql(BackfillTarget into) => BlockReversal.Sql(
        into.Table.Sql,
        into.Table.Display,
        tree: into.Table.Kind == 'p',
        "true",
        "for update",
        "delete from only %1$s where ctid = any ($1) returning false as msb_still",
        "rows are locked or new, or a trigger keeps them (run this again)");
}
