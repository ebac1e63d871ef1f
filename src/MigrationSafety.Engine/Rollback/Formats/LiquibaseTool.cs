using System.Text.RegularExpressions;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// Liquibase's formatted SQL: changesets, each with its attributes, its SQL and its rollback lines (AbstractFormattedChangeLogParser). A changeset runs in
/// a transaction unless it says runInTransaction:false, which holds for its rollback too.
/// </summary>
internal sealed partial class LiquibaseTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.Liquibase;

    internal override string OptOut => "write runInTransaction:false behind --changeset, which holds for its rollback too";

    internal override bool Recognises(MigrationSource source) => source.Lines.FirstOrDefault(line => line.Text.Trim().Length > 0) is { Text: { } first } && Header().IsMatch(first);

    /// <summary>The changesets of a file.</summary>
    internal static IReadOnlyList<LiquibaseChangeset> Changesets(MigrationSource source) => new LiquibaseReader(source).Changesets;

    internal override MigrationFile Read(MigrationSource source)
    {
        if (!Recognises(source))
        {
            throw NotMine(source, "its first line is not --liquibase formatted sql");
        }

        LiquibaseReader reader = new(source);
        TextMask up = new(source.Text);
        TextMask down = new(source.Text);
        List<MigrationPart> parts = [];
        List<MigrationPart> downParts = [];
        List<string> warnings = [.. reader.Warnings];
        foreach (LiquibaseChangeset set in reader.Changesets)
        {
            up.Separate(set.Line.Start);
            down.Separate(set.Line.Start);
            parts.Add(new MigrationPart(set.Line.Start, set.End, Mode(set, set.Splits), set.Id));
            downParts.Add(new MigrationPart(set.Line.Start, set.End, Mode(set, set.RollbackSplits), set.Id));
            if (!set.Runs)
            {
                warnings.Add($"Changeset {set.Id} does not run on PostgreSQL ({set.WhyNot}); it is not read.");
                continue;
            }

            up.Show(set.Line.End, set.End);
            set.Hidden.ForEach(range => up.Hide(range.Start, range.End));
            EndStatements(source, up, set, set.Splits, set.EndDelimiter);
            set.Rollback.ForEach(range => down.Show(range.Start, range.End));
            if (set.Rollback.Count > 0)
            {
                EndStatements(source, down, set, set.RollbackSplits, set.RollbackEndDelimiter);
            }

            set.Rollback.Where(range => range.NotNeeded).ToList().ForEach(range => down.Hide(range.Start, range.End));
        }

        if (reader.Changesets.Count == 0)
        {
            warnings.Add("Liquibase finds no changeset in this file.");
        }

        MigrationSection section = new(source.Path, SqlScript.Parse(up.ToString(), psql: false), parts);
        MigrationSection rollback = new(source.Path, SqlScript.Parse(down.ToString(), psql: false), downParts) { LastFirst = true };
        warnings.AddRange(reader.Changesets.SelectMany(set => section.Script.Statements.Where(s => set.Splits && set.EndDelimiter is null && s.Tokens[0].Start > set.Line.Start && s.Tokens[0].Start < set.End && CutInside(s))
            .Select(s => $"Line {s.Line}: Liquibase knows no dollar quotes and cuts this statement at a semicolon inside it: the changeset needs splitStatements:false or an endDelimiter.")));
        string[] authors = [.. reader.Changesets.Select(set => set.Author).Distinct()];
        return new MigrationFile(Format, source, section)
        {
            Down = reader.Changesets.Any(set => set.Rollback.Count > 0) ? rollback : null,
            Author = authors.Length == 0 ? null : string.Join(", ", authors),
        }.Warn(warnings);
    }

    private static RunnerMode Mode(LiquibaseChangeset set, bool splits) => set.InTransaction ? RunnerMode.Wrapped : splits ? RunnerMode.EachStatement : RunnerMode.OneMessage;

    /// <summary>Puts a semicolon where the changeset's own delimiter ends a statement: alone in its line, or at the end of one.</summary>
    private static void EndStatements(MigrationSource source, TextMask mask, LiquibaseChangeset set, bool splits, string? endDelimiter)
    {
        string? delimiter = endDelimiter?.Replace("\\n", "", StringComparison.Ordinal).Replace("\\s*", "", StringComparison.Ordinal).TrimEnd('$');
        foreach (SourceLine line in source.Lines.Where(line => line.Start > set.Line.Start && line.End <= set.End))
        {
            string text = line.Text.TrimEnd();

            // Without a delimiter of the changeset's own, / and GO end a statement too where they stand alone.
            bool ends = delimiter is { Length: > 0 } and not ";" ? text.EndsWith(delimiter, StringComparison.OrdinalIgnoreCase) && !(char.IsLetter(delimiter[0]) && text.Length > delimiter.Length && (char.IsLetterOrDigit(text[^(delimiter.Length + 1)]) || text[^(delimiter.Length + 1)] == '_'))
                : delimiter is null && splits && (text.Trim() == "/" || text.Trim().Equals("go", StringComparison.OrdinalIgnoreCase));
            if (ends)
            {
                int length = delimiter is { Length: > 0 } ? delimiter.Length : text.Trim().Length;
                mask.Hide(line.Start + text.Length - length, line.Start + text.Length);
                mask.Separate(line.Start + text.Length - length);
            }
        }
    }

    /// <summary>Whether Liquibase ends the statement at a semicolon inside a dollar quote: it looks only at whether more BEGIN than END stand before it.</summary>
    private static bool CutInside(SqlStatement statement)
    {
        int open = 0;
        foreach (Match word in Words().Matches(statement.Text))
        {
            if (word.Value == ";" && open == 0)
            {
                return statement.Tokens.Any(t => t.Kind == SqlTokenKind.DollarString && word.Index + statement.Tokens[0].Start > t.Start && word.Index + statement.Tokens[0].Start < t.EndIndex);
            }

            open += word.Value.Equals("begin", StringComparison.OrdinalIgnoreCase) ? 1 : word.Value.Equals("end", StringComparison.OrdinalIgnoreCase) && open > 0 ? -1 : 0;
        }

        return false;
    }

    [GeneratedRegex(@"^\s*--\s*liquibase\s*formatted.*", RegexOptions.IgnoreCase)]
    private static partial Regex Header();

    [GeneratedRegex(@"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/|;|[A-Za-z_]\w*", RegexOptions.Singleline)]
    private static partial Regex Words();
}
