using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Why a row cannot be changed.</summary>
/// <param name="SqlState">SQLSTATE.</param>
/// <param name="Words">The reason, as it is recorded.</param>
/// <param name="Error">The error that ends the run, by the row in words.</param>
internal sealed record RowRefusal(string SqlState, string Words, Func<string, MigrationException> Error)
{
    internal const string KeptId = "TriggerKeepsRow";
    internal const string KeptAdvice = "Have the trigger return the row, give it a WHEN condition that lets this change through, or leave such rows out with -Where.";

    internal const string MaxErrorsAdvice = "Or pass over such rows with -MaxErrors: they are recorded, and Get-Backfill -IncludeError lists them.";

    internal const string StaysTrueId = "PredicateStaysTrue";
    internal const string StaysTrueAdvice = "Give a -Where that the update makes untrue. Where an expression yields NULL for some rows, leave them out with -Where or give them a value with coalesce().";

    internal const string NotThereAdvice = "Have the trigger return the row and leave its key alone, copy a key that stays the same (a random or serial value is another one each time), or leave such rows out with -Where.";

    /// <summary>The server's own word, or that the row would still match.</summary>
    internal static RowRefusal Of(PostgresException e, BackfillLeaf leaf, BackfillDefinition definition) => e.MessageText.Contains(BackfillStatements.StaysTrue, StringComparison.Ordinal)
        ? new(
            SqlStates.DataException,
            $"The condition ({definition.Where}) is still true after the update.",
            row => new MigrationException(StaysTrueId, MigrationErrorKind.InvalidInput, $"The condition ({definition.Where}) is still true after the update of the row of {leaf.Table.Display} with {row}, which was taken back.", StaysTrueAdvice)
            {
                Target = leaf.Table.Display,
            })
        : new(e.SqlState, ServerErrors.Words(e), row => Translated(e, leaf, definition, row));

    /// <summary>The server says nothing: the row was locked, and then not changed, or not copied.</summary>
    /// <param name="leaf">Its table.</param>
    /// <param name="into">Where it should be; null where it is changed in place.</param>
    internal static RowRefusal Kept(BackfillLeaf leaf, BackfillTarget? into) => into is { } target ? NotThere(leaf, target) : !leaf.HasTriggers ? Unstable(leaf) : new(
        SqlStates.TriggeredActionException,
        "A BEFORE trigger keeps the row as it is: it returned NULL.",
        row => new MigrationException(KeptId, MigrationErrorKind.InvalidState, $"A BEFORE trigger of {leaf.Table.Display} keeps the row with {row} as it is: it returned NULL.", KeptAdvice)
        {
            Target = leaf.Table.Display,
        });

    private static MigrationException Translated(PostgresException e, BackfillLeaf leaf, BackfillDefinition definition, string row)
    {
        MigrationException error = ServerErrors.Translate(e, $"Backfilling the row of {leaf.Table.Display} with {row}", leaf.Table.Display);
        // A trigger may write to other tables, which have columns of that name too.
        bool own = e.SqlState == SqlStates.NotNullViolation && (definition.Into is { } into ? into.Table.Name == e.TableName : definition.Leaves.Any(part => part.Table.Name == e.TableName));
        return !own || definition.Set.FirstOrDefault(column => column.Name == e.ColumnName) is not { } filled
            ? error
            : new MigrationException(
                error.ErrorId,
                error.Kind,
                error.Message,
                $"The expression for {SqlName.QuoteIfNeeded(filled.Name)} gives NULL for this row, or a trigger does: give it a value with coalesce(), or leave such rows out with -Where.",
                e)
            {
                SqlState = error.SqlState,
                Target = error.Target,
            };
    }

    private static RowRefusal Unstable(BackfillLeaf leaf)
    {
        const string Reason = "was locked because it matches, and then did not match: the condition gives another answer each time";
        return new(
            SqlStates.DataException,
            $"The row {Reason}.",
            row => new MigrationException(
                "PredicateUnstable",
                MigrationErrorKind.InvalidInput,
                $"The row of {leaf.Table.Display} with {row} {Reason}.",
                "Give a -Where whose answer for a row stays the same until the row is changed: without random(), clock_timestamp() and the like.")
            {
                Target = leaf.Table.Display,
            });
    }

    private static RowRefusal NotThere(BackfillLeaf leaf, BackfillTarget into)
    {
        string reason = $"is not in {into.Table.Display} by ({into.KeyText}) after it was copied: a BEFORE trigger there returned NULL or changed the key, or the key's expression gives another value each time";
        return new(
            SqlStates.TriggeredActionException,
            $"The row {reason}.",
            row => new MigrationException(KeptId, MigrationErrorKind.InvalidState, $"The row of {leaf.Table.Display} with {row} {reason}.", NotThereAdvice) { Target = into.Table.Display });
    }
}
