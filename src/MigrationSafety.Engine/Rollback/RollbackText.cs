using System.Globalization;
using System.Text;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>
/// Writes a rollback for psql. Each statement is a transaction of its own: locks do not pile up, a time-out costs one statement, and since each
/// may be repeated, running the script again finishes it.
/// </summary>
internal static class RollbackText
{
    private static readonly Reversibility[] s_bestToWorst =
    [
        Reversibility.NotNeeded, Reversibility.Reversible, Reversibility.ReversibleWithDataLoss, Reversibility.Unknown, Reversibility.Irreversible,
    ];

    /// <summary>Whether the script runs the reversal, not only shows it.</summary>
    internal static bool Runs(RollbackStatement statement) =>
        statement is { Reversal: not null, Reversibility: Reversibility.Reversible or Reversibility.ReversibleWithDataLoss };

    /// <summary>What all of a rollback is, where one statement of it is worse than another.</summary>
    internal static Reversibility Worst(IEnumerable<RollbackStatement> statements) =>
        statements.Select(s => s.Reversibility).DefaultIfEmpty(Reversibility.NotNeeded).MaxBy(r => Array.IndexOf(s_bestToWorst, r));

    /// <summary>Puts a rollback together.</summary>
    /// <param name="source">What it takes back.</param>
    /// <param name="statements">Statements, last forward statement first.</param>
    /// <param name="catalog">The database that was asked; null where none was.</param>
    /// <param name="file">The migration's file; null where it is none.</param>
    internal static RollbackScript Compose(string source, IReadOnlyList<RollbackStatement> statements, string? catalog, MigrationFile? file = null)
    {
        if (file?.Format == MigrationFormat.EntityFramework)
        {
            statements = [.. statements.Select(EntityFrameworkTool.WithHistory)];
        }

        Reversibility worst = Worst(statements);
        RollbackDifference[] differences = file is { HasRollback: true } ? RollbackComparison.Compare(file.Rollback, statements.Where(Runs).Select(s => s.Reversal!), statements.Where(s => s.Reversibility == Reversibility.NotNeeded).Select(s => s.Statement)) : [];
        string[] header = [.. RollbackHeader.Lines(source, statements, worst, catalog, file, differences)];
        StringBuilder text = new();
        foreach (string line in header)
        {
            Comment(text, line);
        }

        Comment(text, "");
        Comment(text, "Each statement is a transaction of its own, and each may run twice: after a lock time-out run the script again.");
        Comment(text, "Do not run it with --single-transaction. A name without schema is found by the search_path of who runs it.");
        text.AppendLf();
        WriteStatements(text, statements);
        return new RollbackScript
        {
            Source = source,
            Text = text.ToString(),
            Reversibility = worst,
            Statements = [.. statements],
            InputFormat = file?.Format ?? MigrationFormat.Plain,
            ExistingPath = file is { HasRollback: true } ? file.Down?.Path : null,
            Differences = differences,
            Warnings = [.. file?.Warnings ?? []],
            Header = header,
        };
    }

    /// <summary>The script to run before the migration, so that the rollback finds what it brings back.</summary>
    /// <param name="source">The migration.</param>
    /// <param name="statements">What keeps data, in the order of the migration.</param>
    internal static string Before(string source, IReadOnlyList<RollbackStatement> statements)
    {
        StringBuilder text = new();
        Comment(text, $"Run this BEFORE the migration {OneLine(source, 500)}: it keeps what the migration loses, in the schema migration_safety.");
        Comment(text, "Its rollback brings that back. What is written between this script and the migration is not kept: run them one right after the other.");
        Comment(text, "Each table is read once, while reads and writes go on. It may run twice: what is kept already stays.");
        Comment(text, "When the migration is not going to be taken back any more, drop the tables that it makes.");
        text.AppendLf().AppendLf(@"\set ON_ERROR_STOP on");
        foreach (RollbackStatement statement in statements)
        {
            text.AppendLf();
            Comment(text, $"For {(statement.Line is { } line ? string.Create(CultureInfo.InvariantCulture, $"line {line}: ") : "")}{OneLine(statement.Statement, 200)}");
            Comment(text, statement.Note);
            text.Append(statement.Reversal).AppendLf(";");
        }

        return text.ToString();
    }

    /// <summary>A text on one line, cut to a length.</summary>
    internal static string OneLine(string text, int length)
    {
        string line = string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
        return line.Length <= length ? line : string.Concat(line.AsSpan(0, char.IsHighSurrogate(line[length - 4]) ? length - 4 : length - 3), "...");
    }

    private static void WriteStatements(StringBuilder text, IReadOnlyList<RollbackStatement> statements)
    {
        text.AppendLf(@"\set ON_ERROR_STOP on").AppendLf(@"\set AUTOCOMMIT on").AppendLf("set lock_timeout = '500ms';");
        if (statements.Any(s => Runs(s) && !s.Transactional))
        {
            // A role's own bound would cut off what works for long: a block that goes through a table, or CONCURRENTLY, which leaves an invalid index then.
            text.AppendLf("set statement_timeout = 0;").AppendLf("do $$ begin if current_setting('server_version_num')::int >= 170000 then set transaction_timeout = 0; end if; end $$;");
        }

        int number = 0;
        foreach (RollbackStatement statement in statements)
        {
            text.AppendLf();
            bool runs = Runs(statement);
            foreach (string? comment in CommentsOf(statement, runs ? ++number : null))
            {
                Comment(text, comment);
            }

            if (!runs)
            {
                continue;
            }

            if (!statement.Transactional)
            {
                // A time-out in the middle would leave an index invalid, and while it waits it stops no read and no write.
                text.AppendLf("set lock_timeout = 0;");
            }

            // Several statements belong together: nobody sees the state between them.
            bool several = statement.Transactional && SqlScript.Parse(statement.Reversal!, psql: false).Statements.Count > 1;
            text.Append(several ? "begin;\n" : "").Append(statement.Reversal).AppendLf(several ? ";\ncommit;" : ";");
            if (!statement.Transactional)
            {
                text.AppendLf("set lock_timeout = '500ms';");
            }
        }
    }

    /// <summary>What is said of a statement in the script.</summary>
    /// <param name="statement">Statement.</param>
    /// <param name="number">Its number among those that are run; null where it is not run.</param>
    internal static IEnumerable<string?> CommentsOf(RollbackStatement statement, int? number)
    {
        string line = statement.Line is { } at ? string.Create(CultureInfo.InvariantCulture, $"line {at}: ") : "";
        string forward = line + OneLine(statement.Forward, 200);
        if (number is not null)
        {
            yield return string.Create(CultureInfo.InvariantCulture, $"{number}. Takes back {forward}");
            yield return (statement.Reversibility == Reversibility.ReversibleWithDataLoss ? "DATA LOSS. " : "") + $"Lock: {Locks(statement)}.";
            yield return statement.Note;
            yield break;
        }

        yield return statement.Reversibility == Reversibility.NotNeeded ? $"Nothing to take back: {forward}" : $"NOT REVERSED ({InWords(statement.Reversibility)}): {forward}";
        yield return statement.Note;
        if (statement.Reversal is not null && statement.Reversibility != Reversibility.NotNeeded)
        {
            yield return "  " + statement.Reversal + ";";
        }
    }

    internal static string Locks(RollbackStatement statement)
    {
        string effect = statement.LockMode.StopsTraffic() ? statement.LockMode == TableLockMode.AccessExclusive ? "stops reads and writes" : "stops writes" : "stops no read and no write";
        string objects = statement.Objects.Length == 0 ? "" : " on " + string.Join(", ", statement.Objects);
        return $"{statement.LockMode.SqlText()}{objects} ({effect})";
    }

    internal static string InWords(Reversibility reversibility) => reversibility switch
    {
        Reversibility.Reversible => "reversible",
        Reversibility.ReversibleWithDataLoss => "reversible with data loss",
        Reversibility.Irreversible => "irreversible",
        Reversibility.NotNeeded => "nothing to take back",
        _ => "unknown",
    };

    internal static string Count(int count, string what) => string.Create(CultureInfo.InvariantCulture, $"{count} {what}{(count == 1 ? "" : "s")}");

    /// <summary>Writes a comment; every kind of line end begins a new comment line, so that no text of a migration gets out of it.</summary>
    internal static void Comment(StringBuilder text, string? comment)
    {
        if (comment is null)
        {
            return;
        }

        foreach (string line in comment.ReplaceLineEndings("\n").Split('\n', '\r'))
        {
            text.AppendLf(("-- " + line).TrimEnd());
        }
    }

    // The script is the same on every system.
    internal static StringBuilder AppendLf(this StringBuilder text, string line = "") => text.Append(line).Append('\n');
}
