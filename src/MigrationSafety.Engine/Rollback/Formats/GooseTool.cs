using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// goose: annotations <c>-- +goose Up</c>, <c>Down</c>, <c>StatementBegin</c>, <c>StatementEnd</c>, <c>NO TRANSACTION</c>, <c>ENVSUB ON</c>. It ends a statement at
/// a line whose last word ends with a semicolon, and sends statements one by one; NO TRANSACTION is said of the whole file (internal/sqlparser).
/// </summary>
internal sealed class GooseTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.Goose;

    internal override string OptOut => "write -- +goose NO TRANSACTION, which holds for both directions of the file";

    /// <summary>The annotation of a line, in upper case; null where it is none.</summary>
    internal static string? Annotation(string line) => line.StartsWith("--", StringComparison.Ordinal) && line.Contains("+goose", StringComparison.Ordinal)
        ? line.Replace("--", "", StringComparison.Ordinal).Replace("+goose", "", StringComparison.Ordinal).Trim().ToUpperInvariant()
        : null;

    internal override bool Recognises(MigrationSource source) => source.Lines.Any(line => Annotation(line.Text) == "UP");

    internal override MigrationFile Read(MigrationSource source)
    {
        List<string> warnings = [];
        RunnerMode mode = source.Lines.Any(line => Annotation(line.Text) == "NO TRANSACTION") ? RunnerMode.EachStatement : RunnerMode.Wrapped;
        Chunks up = new(source, mode);
        Chunks down = new(source, mode);
        Chunks? now = null;
        bool inStatement = false;
        foreach (SourceLine line in source.Lines)
        {
            string? annotation = Annotation(line.Text);
            if (annotation is null)
            {
                if (now is null && line.Text.Trim() is { Length: > 0 } text && !text.StartsWith("--", StringComparison.Ordinal))
                {
                    warnings.Add($"Line {line.Number}: goose refuses statements before -- +goose Up; they are not read.");
                }

                now?.Add(line, inStatement);
                continue;
            }

            switch (annotation)
            {
                case "UP" or "DOWN":
                    now?.Finish(warnings);
                    now = annotation == "UP" ? up : down;
                    now.Begin(line);
                    break;
                case "STATEMENTBEGIN":
                    inStatement = true;
                    break;
                case "STATEMENTEND":
                    inStatement = false;
                    now?.Cut(line);
                    break;
                case "ENVSUB ON":
                    warnings.Add($"Line {line.Number}: goose puts environment variables into what follows; their values are not known here.");
                    break;
                case "NO TRANSACTION" or "ENVSUB OFF":
                    break;
                default:
                    warnings.Add($"Line {line.Number}: goose does not know the annotation \"{annotation}\".");
                    break;
            }
        }

        if (inStatement)
        {
            warnings.Add("goose refuses a -- +goose StatementBegin without StatementEnd.");
        }

        now?.Finish(warnings);
        return up.Section(warnings) is { } section
            ? new MigrationFile(Format, source, section) { Down = down.Section(warnings) }.Warn(warnings)
            : throw NotMine(source, "it has no line -- +goose Up");
    }

    /// <summary>The statements of one direction, as goose cuts them.</summary>
    private sealed class Chunks(MigrationSource source, RunnerMode mode)
    {
        private readonly TextMask _mask = new(source.Text);
        private readonly List<(int Start, int End)> _chunks = [];
        private MigrationPart? _part;
        private int? _open;

        internal void Begin(SourceLine line)
        {
            _part = new MigrationPart(line.Start, line.End, mode);
            _mask.Separate(line.Start);
        }

        internal void Add(SourceLine line, bool inStatement)
        {
            _mask.Show(line.Start, line.End);
            _part = _part! with { End = Math.Min(line.End + 1, source.Text.Length) };

            // Comments and empty lines before a statement are dropped.
            if (_open is null && (line.Text.Length == 0 || line.Text.TrimStart().StartsWith("--", StringComparison.Ordinal)))
            {
                return;
            }

            _open ??= line.Start;
            if (!inStatement && EndsStatement(line.Text))
            {
                Cut(line);
            }
        }

        internal void Cut(SourceLine line)
        {
            if (_open is { } start)
            {
                _chunks.Add((start, line.End));
            }

            _open = null;
        }

        internal void Finish(List<string> warnings)
        {
            if (_open is { } start && !string.IsNullOrWhiteSpace(source.Text[start.._part!.End]))
            {
                warnings.Add($"Line {LineOf(start)}: goose refuses a statement without a semicolon at the end of a line.");
            }

            _open = null;
        }

        internal MigrationSection? Section(List<string> warnings)
        {
            if (_part is null)
            {
                return null;
            }

            MigrationPart[] parts = mode == RunnerMode.Wrapped ? [_part] : [.. _chunks.Select(c => new MigrationPart(c.Start, c.End, RunnerMode.OneMessage))];
            MigrationSection section = new(source.Path, SqlScript.Parse(_mask.ToString(), psql: false), parts);
            foreach (SqlStatement statement in section.Script.Statements)
            {
                if (_chunks.Exists(c => c.End > statement.Tokens[0].Start && c.End < statement.Tokens[^1].EndIndex))
                {
                    warnings.Add($"Line {statement.Line}: goose cuts this statement at a semicolon inside it; put it between -- +goose StatementBegin and -- +goose StatementEnd.");
                }
            }

            return section;
        }

        private static bool EndsStatement(string line)
        {
            string? last = null;
            foreach (string word in line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries))
            {
                if (word.StartsWith("--", StringComparison.Ordinal))
                {
                    break;
                }

                last = word;
            }

            return last?.EndsWith(';') == true;
        }

        private int LineOf(int at) => source.Lines.Last(line => line.Start <= at).Number;
    }
}
