using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>Holds a migration's own rollback against the one that was made.</summary>
internal static class RollbackComparison
{
    /// <summary>The differences, in the order of the rollback that was made; what the existing one has besides comes last.</summary>
    /// <param name="existing">The statements of the existing rollback, in the order in which they run.</param>
    /// <param name="made">The statements that were made, in the order in which they run.</param>
    /// <param name="settled">Statements of the migration that need nothing to be taken back.</param>
    internal static RollbackDifference[] Compare(IEnumerable<SqlStatement> existing, IEnumerable<string> made, IEnumerable<string> settled)
    {
        HashSet<string> going = [.. settled.SelectMany(sql => SqlScript.Parse(sql, psql: false).Statements).Select(StatementParser.Parse).OfType<CreateIndex>().Select(c => c.Name).OfType<string>()];
        List<Side> theirs = [.. existing.SelectMany(s => Guard.Inside(s).SelectMany(StatementShape.Of).Select(shape => new Side(shape, s.Text, s.Line)))];
        List<Side> ours = [.. made.SelectMany(sql => SqlScript.Parse(sql, psql: false).Statements).SelectMany(Guard.Inside).SelectMany(s => StatementShape.Of(s).Select(shape => new Side(shape, s.Text, 0)))];
        List<RollbackDifference> differences = [];
        List<(int Ours, int Theirs)> pairs = Pair(ours, theirs);
        for (int i = 0; i < ours.Count; i++)
        {
            int other = pairs.FindIndex(p => p.Ours == i);
            if (other < 0)
            {
                differences.Add(new RollbackDifference { Kind = RollbackDifferenceKind.Missing, Generated = ours[i].Text });
            }
            else if (!ours[i].Shape.Same(theirs[pairs[other].Theirs].Shape))
            {
                Side their = theirs[pairs[other].Theirs];
                differences.Add(Of(RollbackDifferenceKind.Different, ours[i], their, How(ours[i].Shape, their.Shape)));
            }
        }

        differences.AddRange(OutOfOrder(ours, theirs, pairs));
        differences.AddRange(theirs.Where((their, i) => !pairs.Exists(p => p.Theirs == i) && !GoesAnyway(their, pairs.Exists(p => p.Theirs > i))).Select(t => new RollbackDifference { Kind = RollbackDifferenceKind.Additional, Existing = t.Text, Line = t.Line }));
        return [.. differences];

        // An index that goes with its table or column may be dropped before that, too.
        bool GoesAnyway(Side their, bool before) => their.Shape.Parsed is DropObjects { Kind: ObjectKind.Index } drop && (before || drop.IfExists) && drop.Objects.All(o => going.Contains(o.Name.Name));
    }

    /// <summary>Pairs first what is the same, then what differs in how it is done, then what is about the same thing.</summary>
    private static List<(int Ours, int Theirs)> Pair(List<Side> ours, List<Side> theirs)
    {
        List<(int Ours, int Theirs)> pairs = [];
        bool[] paired = new bool[ours.Count];
        bool[] taken = new bool[theirs.Count];
        foreach (Func<StatementShape, StatementShape, bool> alike in new Func<StatementShape, StatementShape, bool>[]
        {
            (a, b) => a.Same(b),
            (a, b) => a.Loose == b.Loose && a.SameSchemas(b),
            (a, b) => a.About == b.About,
        })
        {
            for (int i = 0; i < ours.Count; i++)
            {
                int at = paired[i] ? -1 : Enumerable.Range(0, theirs.Count).FirstOrDefault(t => !taken[t] && alike(ours[i].Shape, theirs[t].Shape), -1);
                if (at >= 0)
                {
                    pairs.Add((i, at));
                    (paired[i], taken[at]) = (true, true);
                }
            }
        }

        return pairs;
    }

    /// <summary>Where two statements about one table stand the other way round.</summary>
    private static IEnumerable<RollbackDifference> OutOfOrder(List<Side> ours, List<Side> theirs, List<(int Ours, int Theirs)> pairs)
    {
        (int Ours, int Theirs)[] inTheirs = [.. pairs.OrderBy(p => p.Theirs)];
        for (int i = 0; i < inTheirs.Length; i++)
        {
            (int Ours, int Theirs) later = inTheirs[i];
            int earlier = Array.FindIndex(inTheirs, 0, i, p => p.Ours > later.Ours && ours[p.Ours].Shape.Table == ours[later.Ours].Shape.Table);
            if (earlier >= 0)
            {
                yield return Of(RollbackDifferenceKind.Order, ours[later.Ours], theirs[later.Theirs], $"It comes after line {theirs[inTheirs[earlier].Theirs].Line}, which this rollback runs later.");
            }
        }
    }

    private static RollbackDifference Of(RollbackDifferenceKind kind, Side ours, Side theirs, string note) =>
        new() { Kind = kind, Generated = ours.Text, Existing = theirs.Text, Line = theirs.Line, Note = note };

    private static string How(StatementShape ours, StatementShape theirs)
    {
        List<string> notes = [];
        switch (ours.Parsed, theirs.Parsed)
        {
            case (DropObjects { Concurrently: true }, DropObjects { Concurrently: false }):
                notes.Add("Without CONCURRENTLY it stops reads and writes of the index's table.");
                break;
            case (CreateIndex { Concurrently: true }, CreateIndex { Concurrently: false }):
                notes.Add("Without CONCURRENTLY it stops writes to the table while it builds the index.");
                break;
        }

        if (theirs.Parsed is DropObjects { Cascade: true } or AlterTable { Actions: [DropColumn { Cascade: true } or DropConstraint { Cascade: true }] })
        {
            notes.Add("With CASCADE it drops whatever depends on it.");
        }

        if (!ours.SameSchemas(theirs))
        {
            notes.Add("It is in another schema.");
        }

        return notes.Count == 0 ? "It says something else of the same thing." : string.Join(' ', notes);
    }

    private sealed record Side(StatementShape Shape, string Text, int Line);
}
