using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>
/// Liquibase's file: the migration kept, each changeset with the rollback of its own statements. runInTransaction holds for both directions, so that it is switched
/// off only where the changeset has one statement; else what can be in no transaction goes to a changeset of its own behind it, which is taken back before it.
/// </summary>
internal static partial class LiquibaseLayout
{
    private const string NotRequired = "not required";

    // Alone in its line. A word: marks have a meaning of their own to one Liquibase or another.
    private const string Delimiter = "GO";

    /// <summary>How Liquibase sends a rollback.</summary>
    private enum Sending
    {
        /// <summary>Cut at the semicolons.</summary>
        Split,

        /// <summary>As it is.</summary>
        Whole,

        /// <summary>Cut at the delimiter.</summary>
        Delimited,
    }

    internal static RollbackLayout Of(LayoutRequest request)
    {
        StringBuilder text = new();
        if (!request.IsOwn)
        {
            text.Append("--liquibase formatted sql\n\n");
            List<ForwardSegment> forward = request.Forward;
            string title = Regex.Replace(request.Name.Title.Length == 0 ? request.Name.Version : $"{request.Name.Version}-{request.Name.Title}", @"\s+", "_");
            List<List<RollbackSegment>> shared = request.ByVersion(Math.Max(forward.Count, 1), together => forward.Count <= 1 || together.All(s => s.Transactional) || together.TrueForAll(s => !s.Transactional));
            for (int i = 0; i < shared.Count; i++)
            {
                bool transactional = shared[i].All(s => s.Transactional) && (i >= forward.Count || forward[i].Transactional);
                string id = i == 0 ? title : string.Create(CultureInfo.InvariantCulture, $"{title}-{i + 1}");
                text.Append(WithSending($"--changeset MigrationSafety:{id}", false, How(shared[i], transactional))).Append(transactional ? "\n" : " runInTransaction:false\n");
                text.Append(i < forward.Count ? forward[i].Text : request.Told(request.Name.Title) + "select 1;\n");
                text.Append(Lines((i == shared.Count - 1 ? request.Head.TrimEnd('\n') + "\n" : "") + Body(shared[i], transactional))).Append('\n');
            }

            return new RollbackLayout([new OutputFile($"{request.Name.Version}_{request.Name.Title}.sql", text.ToString())], []);
        }

        MigrationFile file = request.File!;
        IReadOnlyList<LiquibaseChangeset> sets = LiquibaseTool.Changesets(file.Source);
        int at = 0;
        NumberedStatement[] numbered = NumberedStatement.Of(request.Script);
        List<string> warnings = [];
        LiquibaseChangeset? last = sets.LastOrDefault(set => set.Runs);
        foreach (LiquibaseChangeset set in sets)
        {
            int first = set.Line.Number;
            int end = sets.Where(other => other.Line.Number > first).Select(other => other.Line.Number).DefaultIfEmpty(int.MaxValue).Min();
            NumberedStatement[] mine = [.. numbered.Where(s => s.Statement.Line >= first && s.Statement.Line < end)];
            text.Append(file.Source.Text[at..set.Line.Start]);
            at = set.Line.Start;
            if (!set.Runs)
            {
                continue;
            }

            List<RollbackSegment> segments = RollbackSegment.Cut(mine);
            bool outside = segments.Exists(s => !s.Transactional);
            int statements = file.Up.Script.Statements.Count(s => s.Line >= first && s.Line < end);
            string line = set.Line.Text;
            List<RollbackSegment> behind = [];
            if (outside && set.InTransaction && statements <= 1)
            {
                line = RunInTransaction().Replace(line, "").TrimEnd() + " runInTransaction:false";
            }
            else if (outside && set.InTransaction)
            {
                // Its last statements stay with it where they share its transaction; what comes before them goes to a changeset behind.
                int stays = segments[^1].Transactional ? segments.Count - 1 : segments.Count;
                behind = segments[..stays];
                segments = segments[stays..];
                warnings.Add($"{file.Name}: the rollback of changeset {set.Id} needs statements outside of the transaction that the changeset runs in; they are in a changeset {set.Id}-rollback behind it, which must be rolled back with it.");
            }

            bool transactional = set.InTransaction && !(outside && behind.Count == 0);
            text.Append(WithSending(line, set.Splits, How(segments, transactional)));
            at = set.Line.End;
            int stop = Math.Max(at, Math.Min(set.End, file.Source.Text.Length));
            text.Append(Without(file.Source.Text, at, stop, set).TrimEnd()).Append('\n');
            at = stop;
            if (mine.Any(s => s.Statement.Reversibility is Reversibility.Irreversible or Reversibility.Unknown) && mine.All(s => s.Number is null))
            {
                warnings.Add($"{file.Name}: changeset {set.Id} gets no rollback, because nothing of it is taken back; Liquibase will refuse to roll it back.");
            }

            string head = ReferenceEquals(set, last) ? request.Head.TrimEnd('\n') + "\n" : "";
            text.Append(Lines((behind.Count == 0 ? head : "") + Body(segments, transactional)));
            if (behind.Count > 0)
            {
                text.Append(WithSending($"\n--changeset {set.Id}-rollback", true, How(behind, false))).Append(" runInTransaction:false\nselect 1;\n").Append(Lines(head + Body(behind, false)));
            }

            text.Append('\n');
            at = SkipEmpty(file.Source.Text, at);
        }

        text.Append(file.Source.Text[at..]);
        return new RollbackLayout([new OutputFile(file.Name, text.ToString().TrimEnd() + "\n")], warnings);
    }

    private static int SkipEmpty(string text, int at)
    {
        while (at < text.Length && char.IsWhiteSpace(text[at]))
        {
            at++;
        }

        return at;
    }

    /// <summary>The lines of a changeset without those of the rollback that it has.</summary>
    private static string Without(string text, int start, int end, LiquibaseChangeset set)
    {
        StringBuilder kept = new();
        foreach ((int from, int to) in set.Rollback.Select(r => r.Lines))
        {
            kept.Append(text[start..from]);
            start = Math.Min(to + (to < text.Length && text[to] == '\r' ? 2 : 1), end);
        }

        return kept.Append(text[Math.Min(start, end)..end]).ToString();
    }

    private static string Body(List<RollbackSegment> segments, bool transactional)
    {
        if (!segments.Exists(s => s.Runs))
        {
            return segments.TrueForAll(s => s.Statements.All(n => n.Statement.Reversibility == Reversibility.NotNeeded)) ? NotRequired : "";
        }

        Sending how = How(segments, transactional);
        return transactional ? string.Concat(segments.Select(RollbackBody.InTransaction)) : RollbackBody.OneByOne(segments, how == Sending.Delimited ? $";\n{Delimiter}" : ";");
    }

    /// <summary>How a rollback has to be sent so that what is in its dollar quotes stays together: Liquibase does not know these, and cuts at each semicolon.</summary>
    private static Sending How(List<RollbackSegment> segments, bool transactional)
    {
        string[] reversals = [.. segments.SelectMany(s => s.Statements).Where(s => s.Number is not null).Select(s => s.Statement.Reversal!)];
        if (!Array.Exists(reversals, sql => SqlLexer.Tokens(sql, psql: false).Exists(t => t.Kind == SqlTokenKind.DollarString && t.Span(sql).Contains(';'))))
        {
            return Sending.Split;
        }

        // In one message a transaction takes them all; outside of one each has to come alone.
        return transactional ? Sending.Whole
            : Array.Find(reversals, sql => DelimiterWord().IsMatch(sql)) is not { } cut ? Sending.Delimited
            : throw new MigrationException(
                "FormatCannotHold",
                MigrationErrorKind.NotSupported,
                $"A rollback line of Liquibase cannot hold \"{RollbackText.OneLine(cut, 60)}\": the word {Delimiter}, which would end its statements, is in it.",
                "Write the rollback as -Format Plain, and have the changeset point to it.");
    }

    /// <summary>A changeset's line that says how its rollback is sent. The rollback's splitStatements comes first, since Liquibase takes the last of the line for the migration.</summary>
    private static string WithSending(string line, bool splits, Sending how)
    {
        string plain = RollbackAttributes().Replace(line, "");
        bool said = SplitStatements().IsMatch(plain);
        if (how == Sending.Whole || (!splits && !said))
        {
            plain = SplitStatements().Replace(plain, "") + (how == Sending.Whole ? " rollbackSplitStatements:false" : "") + $" splitStatements:{(splits ? "true" : "false")}";
        }

        return plain + (how == Sending.Delimited ? $" rollbackEndDelimiter:{Delimiter}" : "");
    }

    /// <summary>A text as rollback lines; none for comments alone, which Liquibase would take for a rollback.</summary>
    private static string Lines(string text)
    {
        string[] lines = text.TrimEnd('\n').Split('\n');
        return Array.Exists(lines, l => l == NotRequired) ? $"--rollback {NotRequired}\n"
            : Array.TrueForAll(lines, l => l.StartsWith("--", StringComparison.Ordinal) || l.Length == 0) ? ""
            : string.Concat(lines.Select(l => $"--rollback {l}\n"));
    }

    [GeneratedRegex(@"\bgo\b", RegexOptions.IgnoreCase)]
    private static partial Regex DelimiterWord();

    [GeneratedRegex(@"\s+(rollbackSplitStatements:\w+|rollbackEndDelimiter:\S+)", RegexOptions.IgnoreCase)]
    private static partial Regex RollbackAttributes();

    [GeneratedRegex(@"\s+splitStatements:\w+", RegexOptions.IgnoreCase)]
    private static partial Regex SplitStatements();

    [GeneratedRegex(@"\s+runInTransaction:\w+", RegexOptions.IgnoreCase)]
    private static partial Regex RunInTransaction();
}
