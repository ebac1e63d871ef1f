using System.Text.RegularExpressions;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// dbmate: sections that begin with <c>-- migrate:up</c> and <c>-- migrate:down</c> at the start of a line, with options behind. A section is sent whole;
/// it runs in a transaction unless it says <c>transaction:false</c> (pkg/dbmate/migration.go, db.go).
/// </summary>
internal sealed partial class DbmateTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.Dbmate;

    internal override string OptOut => "write \"transaction:false\" behind its -- migrate: mark, and nothing else into the section: dbmate sends a section whole, and several statements are a transaction again";

    internal override bool Recognises(MigrationSource source) => source.Lines.Any(line => Mark().Match(line.Text) is { Success: true } mark && mark.Groups["way"].Value == "up");

    internal override MigrationFile Read(MigrationSource source)
    {
        List<(SourceLine Line, bool Up, RunnerMode Mode)> marks = [];
        foreach (SourceLine line in source.Lines)
        {
            if (Mark().Match(line.Text) is { Success: true } mark)
            {
                string[] options = mark.Groups["options"].Value.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
                marks.Add((line, mark.Groups["way"].Value == "up", options.LastOrDefault(o => o.StartsWith("transaction:", StringComparison.Ordinal)) == "transaction:false" ? RunnerMode.OneMessage : RunnerMode.Wrapped));
            }
        }

        List<string> warnings = [];
        if (!marks.Exists(m => m.Up))
        {
            throw NotMine(source, "it has no line that begins with -- migrate:up");
        }

        if (!marks.Exists(m => !m.Up))
        {
            warnings.Add("dbmate refuses a file without a line -- migrate:down.");
        }

        if (source.Lines.TakeWhile(line => line.Start < marks[0].Line.Start).Any(line => line.Text.Trim() is { Length: > 0 } text && !text.StartsWith("--", StringComparison.Ordinal)))
        {
            warnings.Add("dbmate refuses a file with statements before its first -- migrate: mark; they are not read.");
        }

        if (marks.Count(m => m.Up) > 1)
        {
            warnings.Add("dbmate writes the version's row once for each up section, and fails at the second one on PostgreSQL (seen with 2.36).");
        }

        for (int i = 0; i < marks.Count; i++)
        {
            if (!marks[i].Up && (i == 0 || !marks[i - 1].Up))
            {
                warnings.Add($"Line {marks[i].Line.Number}: dbmate refuses a -- migrate:down that no -- migrate:up stands before.");
            }
        }

        return new MigrationFile(Format, source, Section(source, marks, true)!) { Down = Section(source, marks, false) }.Warn(warnings);
    }

    private static MigrationSection? Section(MigrationSource source, List<(SourceLine Line, bool Up, RunnerMode Mode)> marks, bool up)
    {
        TextMask mask = new(source.Text);
        List<MigrationPart> parts = [];
        for (int i = 0; i < marks.Count; i++)
        {
            int end = i + 1 < marks.Count ? marks[i + 1].Line.Start : source.Text.Length;
            if (marks[i].Up == up)
            {
                mask.Show(marks[i].Line.End, end);
                mask.Separate(marks[i].Line.Start);
                parts.Add(new MigrationPart(marks[i].Line.Start, end, marks[i].Mode));
            }
        }

        return parts.Count == 0 ? null : new MigrationSection(source.Path, SqlScript.Parse(mask.ToString(), psql: false), parts);
    }

    [GeneratedRegex(@"^--\s*migrate:(?<way>up|down)(?<options>\s*|\s+\S.*)$")]
    private static partial Regex Mark();
}
