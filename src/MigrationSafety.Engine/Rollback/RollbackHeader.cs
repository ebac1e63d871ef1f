using System.Globalization;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>The head of a rollback, in the form of a runbook.</summary>
internal static class RollbackHeader
{
    /// <summary>Its lines, without comment marks.</summary>
    /// <param name="source">What is taken back.</param>
    /// <param name="statements">Statements, last forward statement first.</param>
    /// <param name="worst">The worst of them.</param>
    /// <param name="catalog">The database that was asked; null where none was.</param>
    /// <param name="file">The migration's file; null where it is none.</param>
    /// <param name="differences">How the rollback that the migration already has differs.</param>
    internal static IEnumerable<string> Lines(
        string source,
        IReadOnlyList<RollbackStatement> statements,
        Reversibility worst,
        string? catalog,
        MigrationFile? file,
        IReadOnlyList<RollbackDifference> differences)
    {
        string name = RollbackText.OneLine(source, 500);
        yield return $"Rollback of {name}";
        string version = typeof(RollbackHeader).Assembly.GetName().Version?.ToString(3) ?? "";
        yield return $"Written by MigrationSafety {version}{(catalog is null ? "" : $", with the catalog of {catalog} before the migration")}";
        yield return "";
        RollbackStatement[] running = [.. statements.Where(RollbackText.Runs)];
        int missing = statements.Count(s => !RollbackText.Runs(s) && s.Reversibility != Reversibility.NotNeeded);
        Losses losses = Losses.Of(statements, running);
        yield return $"Migration:          {name}{(file is null or { Format: MigrationFormat.Plain } ? "" : $" ({file.Format})")}";
        yield return $"Author:             {(file?.Author is { } author ? RollbackText.OneLine(author, 200) : "not said in the migration")}";
        yield return string.Create(CultureInfo.InvariantCulture, $"Date:               {DateTimeOffset.UtcNow:yyyy-MM-dd HH:mm} UTC");
        yield return $"Risk:               {Risk(running, losses.Any, missing)}";
        yield return $"Estimated time:     {Time(running)}";
        yield return $"Rollback:           {RollbackText.InWords(worst)}";
        yield return $"Data loss:          {losses.Said}";
        yield return $"Window:             {losses.Window}";
        yield return $"Point of no return: {losses.PointOfNoReturn}";
        if (missing > 0)
        {
            yield return $"NOT COMPLETE:       {RollbackText.Count(missing, "statement")} of the migration {(missing == 1 ? "is" : "are")} not reversed: look for NOT REVERSED";
        }

        yield return "Locks:";
        for (int i = 0; i < running.Length; i++)
        {
            yield return string.Create(CultureInfo.InvariantCulture, $"  {i + 1}. {RollbackText.Locks(running[i])}");
        }

        if (running.Length == 0)
        {
            yield return "  none: no statement is run";
        }

        if (file is { HasRollback: true, Down: { } down })
        {
            yield return $"Its own rollback:   {(down.Path == file.Path ? "in the same file" : down.NameBeside(file))}, {(differences.Count == 0 ? "says the same" : $"differs in {RollbackText.Count(differences.Count, "point")}")}";
            foreach (RollbackDifference difference in differences)
            {
                yield return "  " + RollbackText.OneLine(difference.ToString(), 300);
            }
        }

        foreach (string warning in file?.Warnings ?? [])
        {
            yield return "WARNING: " + RollbackText.OneLine(warning, 400);
        }
    }

    private static string Risk(RollbackStatement[] running, bool lossy, int missing)
    {
        int[] holding = [.. Numbers(running, s => s.LockMode.StopsTraffic() && Works(s) is not null)];
        int[] stopping = [.. Numbers(running, s => s.LockMode.StopsTraffic())];
        return missing > 0 || lossy || holding.Length > 0
            ? "high: " + string.Join("; ", new[]
            {
                missing > 0 ? "not all is taken back" : null,
                lossy ? "data is lost" : null,
                holding.Length > 0 ? $"{Listed(holding)} stop{(holding.Length == 1 ? "s" : "")} traffic while {(holding.Length == 1 ? "it works" : "they work")}" : null,
            }.Where(reason => reason is not null))
            : stopping.Length > 0 ? $"medium: {Listed(stopping)} stop{(stopping.Length == 1 ? "s" : "")} traffic for the instant that the lock is held"
            : running.Length > 0 ? "low: no statement stops reads or writes"
            : "none: no statement is run";
    }

    private static string Time(RollbackStatement[] running)
    {
        string[] working = [.. running.Select((s, i) => Works(s) is { } work ? string.Create(CultureInfo.InvariantCulture, $"{i + 1} {work}") : null).OfType<string>()];
        return running.Length == 0 ? "none"
            : working.Length == 0 ? "an instant for each statement once its lock is granted"
            : $"in proportion to the tables' size: statement {string.Join(", ", working)}{(working.Length < running.Length ? "; the rest an instant each once its lock is granted" : "")}";
    }

    /// <summary>What a reversal does that takes time; null where it only changes the catalog.</summary>
    private static string? Works(RollbackStatement statement)
    {
        SqlStatement[] statements = [.. SqlScript.Parse(statement.Reversal!, psql: false).Statements.SelectMany(Guard.Inside)];

        // What is done to a table that has just been made is done at once. Blocks that commit do so in batches.
        string[] works = Array.Exists(statements, s => StatementParser.Parse(s) is CreateTable) ? []
            : [.. statements.Select(s => StatementParser.Parse(s)).Select(p => p is DoBlock ? statement.Transactional ? null : "changes rows" : Works(p)).OfType<string>().Distinct()];
        return works.Length == 0 ? null : string.Join(" and ", works);
    }

    private static string? Works(ParsedStatement parsed) =>
        SqlFacts.Of(parsed).BuildsIndex ? "builds an index" : parsed switch
        {
            // What is deleted is named row by row: what the migration has inserted, and what a tool notes of it.
            DataStatement and not (Query or Delete) => "changes rows",
            CreateTableAs or RefreshMaterializedView => "fills a table",
            AlterTable alter when alter.Actions.Any(a => a is AlterColumnType or SetLogged or SetTablespace or SetAccessMethod) => "may rewrite a table",
            AlterTable alter when alter.Actions.Any(a => a is ValidateConstraint or SetNotNull { NotNull: true } or AddConstraint { Constraint: CheckConstraint or ForeignKeyConstraint, Constraint.Traits.NotValid: false } or AttachPartition) => "reads a table",
            _ => null,
        };

    internal static IEnumerable<int> Numbers(RollbackStatement[] running, Func<RollbackStatement, bool> which) => running.Select((s, i) => which(s) ? i + 1 : 0).Where(number => number > 0);

    internal static string Listed(int[] numbers) => $"statement{(numbers.Length == 1 ? "" : "s")} {string.Join(", ", numbers)}";
}
