using System.Text.RegularExpressions;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>A part of a line that says how to take a changeset back.</summary>
/// <param name="Start">Index of its first character.</param>
/// <param name="End">Index after its last.</param>
/// <param name="Lines">The lines that it is written in, as indexes: all that would have to go.</param>
/// <param name="NotNeeded">It says that nothing is to be taken back, or points to another changeset.</param>
internal sealed record LiquibaseRollback(int Start, int End, (int Start, int End) Lines, bool NotNeeded);

/// <summary>A changeset.</summary>
internal sealed class LiquibaseChangeset
{
    /// <summary>Its line.</summary>
    internal required SourceLine Line { get; init; }

    /// <summary>Author and id.</summary>
    internal required string Id { get; init; }

    /// <summary>Author.</summary>
    internal required string Author { get; init; }

    /// <summary>Index after its last character.</summary>
    internal int End { get; set; }

    /// <summary>runInTransaction.</summary>
    internal bool InTransaction { get; init; } = true;

    /// <summary>splitStatements.</summary>
    internal bool Splits { get; init; } = true;

    /// <summary>endDelimiter; null where the changeset sets none.</summary>
    internal string? EndDelimiter { get; init; }

    /// <summary>rollbackSplitStatements.</summary>
    internal bool RollbackSplits { get; init; } = true;

    /// <summary>rollbackEndDelimiter; null where the changeset sets none.</summary>
    internal string? RollbackEndDelimiter { get; init; }

    /// <summary>Why it does not run on PostgreSQL; null where it does.</summary>
    internal string? WhyNot { get; init; }

    /// <summary>Whether it runs on PostgreSQL.</summary>
    internal bool Runs => WhyNot is null;

    /// <summary>Its rollback, in the order of the file.</summary>
    internal List<LiquibaseRollback> Rollback { get; } = [];

    /// <summary>What ignoreLines leaves out.</summary>
    internal List<(int Start, int End)> Hidden { get; } = [];
}

/// <summary>Reads the lines of formatted SQL.</summary>
internal sealed partial class LiquibaseReader
{
    private readonly MigrationSource _source;
    private readonly List<LiquibaseChangeset> _changesets = [];
    private readonly List<string> _warnings = [];

    internal LiquibaseReader(MigrationSource source)
    {
        _source = source;
        for (int i = 0; i < source.Lines.Count; i++)
        {
            SourceLine line = source.Lines[i];
            if (IgnoreLines().Match(line.Text) is { Success: true } ignore)
            {
                int last = ignore.Groups["what"].Value.Equals("start", StringComparison.Ordinal)
                    ? IndexFrom(i + 1, l => IgnoreLines().Match(l) is { Success: true } end && end.Groups["what"].Value == "end")
                    : int.TryParse(ignore.Groups["what"].Value, out int count) ? Math.Min(i + count, source.Lines.Count - 1) : i;
                Current?.Hidden.Add((line.Start, source.Lines[last].End));
                i = last;
            }
            else if (ChangesetLine().Match(line.Text) is { Success: true } start)
            {
                Begin(line, start);
            }
            else if (Current is { } set)
            {
                set.End = line.End;
                if (RollbackLine().Match(line.Text) is { Success: true } rollback)
                {
                    Group text = rollback.Groups["text"];
                    Add(set, line.Start + text.Index, line.End, (line.Start, line.End));
                }
                else if (RollbackBlock().IsMatch(line.Text))
                {
                    i = Block(set, i);
                }
            }
        }
    }

    /// <summary>Changesets.</summary>
    internal IReadOnlyList<LiquibaseChangeset> Changesets => _changesets;

    /// <summary>What must be known.</summary>
    internal IReadOnlyList<string> Warnings => _warnings;

    private LiquibaseChangeset? Current => _changesets.LastOrDefault();

    private static string? Attribute(string line, string name) =>
        Regex.Match(line, $@".*\b{name}:(""[^""]*""|\S*)", RegexOptions.IgnoreCase) is { Success: true } found ? found.Groups[1].Value.Trim('"') : null;

    private static bool IsFalse(string? value) => value is not null && !value.Equals("true", StringComparison.OrdinalIgnoreCase);

    private void Begin(SourceLine line, Match start)
    {
        string attributes = line.Text[(start.Groups["id"].Index + start.Groups["id"].Length)..];
        string? dbms = Attribute(attributes, "dbms");
        string[] systems = [.. (dbms ?? "").Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)];
        bool elsewhere = systems.Length > 0 && (systems.Contains("!postgresql", StringComparer.OrdinalIgnoreCase) || systems.Contains("none", StringComparer.OrdinalIgnoreCase)
            || (systems.Any(s => s[0] != '!') && !systems.Any(s => s.Equals("postgresql", StringComparison.OrdinalIgnoreCase) || s.Equals("all", StringComparison.OrdinalIgnoreCase))));
        string author = start.Groups["author"].Value.Trim('"').Trim();
        _changesets.Add(new LiquibaseChangeset
        {
            Line = line,
            Author = author,
            Id = $"{author}:{start.Groups["id"].Value.Trim('"')}",
            End = line.End,
            InTransaction = !IsFalse(Attribute(attributes, "runInTransaction")),
            // Liquibase takes the last of them on the line, that of the rollback too (AbstractFormattedChangeLogParser.SPLIT_STATEMENTS_REGEX).
            Splits = !IsFalse(SplitStatements().Match(attributes) is { Success: true } splits ? splits.Groups["value"].Value : null),
            EndDelimiter = Attribute(attributes, "endDelimiter"),
            RollbackSplits = !IsFalse(Attribute(attributes, "rollbackSplitStatements")),
            RollbackEndDelimiter = Attribute(attributes, "rollbackEndDelimiter"),
            WhyNot = elsewhere ? "dbms:" + dbms : Attribute(attributes, "ignore") is "true" ? "ignore:true" : null,
        });
        foreach (string filter in new[] { "context", "contextFilter", "labels" })
        {
            if (Attribute(attributes, filter) is { Length: > 0 } value)
            {
                _warnings.Add($"Changeset {Current!.Id} runs only where {filter} {value} holds; it is read as if it did.");
            }
        }
    }

    private void Add(LiquibaseChangeset set, int start, int end, (int Start, int End) lines)
    {
        string text = _source.Text[start..end].Trim();
        bool refers = text.Contains("changesetid", StringComparison.OrdinalIgnoreCase);
        if (refers)
        {
            _warnings.Add($"Changeset {set.Id} is taken back by another changeset ({text}), which is not read here.");
        }

        bool nothing = text.StartsWith("not required", StringComparison.OrdinalIgnoreCase) || text.StartsWith("empty", StringComparison.OrdinalIgnoreCase);
        set.Rollback.Add(new LiquibaseRollback(start, end, lines, refers || nothing));
    }

    /// <summary>The block from a line with <c>/* liquibase rollback</c> to the line that closes it.</summary>
    private int Block(LiquibaseChangeset set, int first)
    {
        int last = IndexFrom(first + 1, l => l.TrimEnd().EndsWith("*/", StringComparison.Ordinal));
        SourceLine end = _source.Lines[last];
        if (!end.Text.TrimEnd().EndsWith("*/", StringComparison.Ordinal) || last == first)
        {
            _warnings.Add($"Line {_source.Lines[first].Number}: Liquibase refuses a rollback comment that is not closed.");
            return last;
        }

        int start = Math.Min(_source.Lines[first].End + 1, end.Start);
        int stop = end.Start + end.Text.TrimEnd().Length - 2;
        set.End = end.End;
        Add(set, start, Math.Max(start, stop), (_source.Lines[first].Start, end.End));
        if (_source.Lines.Skip(first + 1).Take(last - first - 1).Any(l => l.Text.Contains("--", StringComparison.Ordinal)))
        {
            _warnings.Add($"Line {_source.Lines[first].Number}: Liquibase joins the lines of a rollback comment into one, so that a -- in it hides all that follows.");
        }

        return last;
    }

    private int IndexFrom(int first, Func<string, bool> ends)
    {
        int i = Math.Min(first, _source.Lines.Count - 1);
        while (i < _source.Lines.Count - 1 && !ends(_source.Lines[i].Text))
        {
            i++;
        }

        return i;
    }

    [GeneratedRegex("""^\s*--\s*changeset\s+(?<author>"[^"]+"|[^:]+):\s*(?<id>"[^"]+"|\S+).*$""", RegexOptions.IgnoreCase)]
    private static partial Regex ChangesetLine();

    [GeneratedRegex(@"^\s*--\s*rollback (?<text>.*)$", RegexOptions.IgnoreCase)]
    private static partial Regex RollbackLine();

    [GeneratedRegex(@"^\s*/\*\s*liquibase\s*rollback\s*$", RegexOptions.IgnoreCase)]
    private static partial Regex RollbackBlock();

    [GeneratedRegex(@".*splitStatements:(?<value>\w+)", RegexOptions.IgnoreCase)]
    private static partial Regex SplitStatements();

    [GeneratedRegex(@"^--\s*ignoreLines:(?<what>\w+)", RegexOptions.IgnoreCase)]
    private static partial Regex IgnoreLines();
}
