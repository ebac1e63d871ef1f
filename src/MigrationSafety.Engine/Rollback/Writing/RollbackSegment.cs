using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>Statements that follow each other and can share a transaction, or one that can be in none.</summary>
/// <param name="Transactional">Whether they can be in a transaction.</param>
/// <param name="Statements">Statements that are run, and between them those that are only shown.</param>
internal sealed record RollbackSegment(bool Transactional, IReadOnlyList<NumberedStatement> Statements)
{
    /// <summary>Whether a statement is run.</summary>
    internal bool Runs => Statements.Any(s => s.Number is not null);

    /// <summary>Cuts a rollback where a statement can be in no transaction.</summary>
    /// <param name="statements">Statements of the rollback.</param>
    /// <returns>Segments, first run first; at least one.</returns>
    internal static List<RollbackSegment> Cut(IEnumerable<NumberedStatement> statements)
    {
        List<RollbackSegment> segments = [];
        List<NumberedStatement> open = [];
        bool? transactional = null;
        foreach (NumberedStatement statement in statements)
        {
            bool runs = statement.Number is not null;
            if (runs && transactional is { } before && !(before && statement.Statement.Transactional))
            {
                segments.Add(new RollbackSegment(before, open));
                open = [];
                transactional = null;
            }

            transactional = runs ? statement.Statement.Transactional : transactional;
            open.Add(statement);
        }

        segments.Add(new RollbackSegment(transactional ?? true, open));
        return segments;
    }
}

/// <summary>A statement and its number among those that are run; null where it is only shown.</summary>
internal sealed record NumberedStatement(int? Number, RollbackStatement Statement)
{
    /// <summary>The statements of a rollback.</summary>
    internal static NumberedStatement[] Of(RollbackScript script)
    {
        int number = 0;
        return [.. script.Statements.Select(s => new NumberedStatement(RollbackText.Runs(s) ? ++number : null, s))];
    }
}

/// <summary>Statements of a migration that its file holds in another tool's layout.</summary>
/// <param name="Transactional">Whether they can be in a transaction.</param>
/// <param name="Text">Their text.</param>
/// <param name="Count">How many there are.</param>
internal sealed record ForwardSegment(bool Transactional, string Text, int Count)
{
    /// <summary>Cuts the statements of a file.</summary>
    /// <exception cref="MigrationException"><c>FormatCannotHold</c>.</exception>
    internal static List<ForwardSegment> Cut(Formats.MigrationFile file, RollbackFormat format)
    {
        List<(bool Transactional, List<string> Texts)> segments = [];
        foreach (SqlStatement statement in file.Up.Script.Statements)
        {
            if (statement.Kind != SqlStatementKind.Sql || statement.Control is not (TransactionControl.None or TransactionControl.Begin or TransactionControl.Commit) || statement.RolledBack)
            {
                throw new MigrationException(
                    "FormatCannotHold",
                    MigrationErrorKind.NotSupported,
                    $"{file.Name}, line {statement.Line}: \"{RollbackText.OneLine(statement.Text, 60)}\" is for psql alone; a file of {format} cannot hold it.",
                    "Write the rollback as -Format Plain or Sqitch, which psql runs.")
                {
                    Target = file.Path,
                };
            }

            if (statement.Control == TransactionControl.None)
            {
                bool transactional = SqlFacts.Of(statement.Text).Transactional || statement.Is(0, "do");
                if (segments.Count == 0 || !segments[^1].Transactional || !transactional)
                {
                    segments.Add((transactional, []));
                }

                segments[^1].Texts.Add(statement.Text + ";");
            }
        }

        return [.. segments.Select(s => new ForwardSegment(s.Transactional, string.Join("\n", s.Texts) + "\n", s.Texts.Count))];
    }
}
