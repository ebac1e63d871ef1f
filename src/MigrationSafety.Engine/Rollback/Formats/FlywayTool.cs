using System.Text.RegularExpressions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// Flyway: V and version, R without, and U for the undo of a version. A file runs in a transaction unless a statement in it is one of those that Flyway knows to
/// allow none; such and others in one file it refuses (flyway.mixed). <c>executeInTransaction</c> in a file of the same name with .conf decides otherwise
/// (manual, "Script Configuration"; PostgreSQLParser, ParserSqlScript).
/// </summary>
internal sealed partial class FlywayTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.Flyway;

    internal override string OptOut => "write executeInTransaction=false into a file of the same name with .conf behind it";

    internal override bool Recognises(MigrationSource source) => FileName().IsMatch(source.Name);

    /// <summary>What a name of Flyway says; no success where it is none.</summary>
    internal static Match NameOf(string file) => FileName().Match(file);

    internal override MigrationFile Read(MigrationSource source)
    {
        Match name = NameOf(source.Name);
        (MigrationSection section, List<string> warnings) = Read(source, SettingsOf(source));
        string version = name.Groups["version"].Value;
        switch (name.Groups["prefix"].Value)
        {
            case "U":
                return new MigrationFile(Format, source, section) { RollbackOf = Other(source, version, "V") };
            case "R":
                warnings.Add("Flyway runs a repeatable migration again whenever its file changes: the former version of the file takes it back best.");
                return new MigrationFile(Format, source, section).Warn(warnings);
        }

        string? undo = version.Length == 0 ? null : Other(source, version, "U");
        MigrationSection? down = null;
        if (undo is not null)
        {
            MigrationSource other = MigrationSource.Read(undo);
            (down, List<string> more) = Read(other, SettingsOf(other));
            warnings.AddRange(more);
        }

        return new MigrationFile(Format, source, section) { Down = down }.Warn(warnings);
    }

    private static (MigrationSection Section, List<string> Warnings) Read(MigrationSource source, Dictionary<string, string> settings)
    {
        MigrationSection section = MigrationSection.Whole(source, RunnerMode.Wrapped);
        List<string> warnings = [];
        SqlStatement[] alone = [.. section.Script.Statements.Where(DetectsNonTransactional)];
        RunnerMode mode = RunnerMode.Wrapped;
        if (settings.TryGetValue("executeInTransaction", out string? wanted))
        {
            mode = wanted.Equals("true", StringComparison.OrdinalIgnoreCase) ? RunnerMode.Wrapped : RunnerMode.EachStatement;
        }
        else if (alone.Length > 0)
        {
            mode = RunnerMode.EachStatement;
            if (alone.Length < section.Script.Statements.Count)
            {
                warnings.Add($"{source.Name}, line {alone[0].Line}: Flyway refuses to mix statements that allow no transaction with others, unless flyway.mixed is on or {source.Name}.conf says executeInTransaction=false.");
            }
        }

        if (section.Script.Statements.Any(s => StatementParser.Parse(s) is CreateIndex { Concurrently: true } or DropObjects { Concurrently: true } or Reindex { Concurrently: true }))
        {
            warnings.Add($"{source.Name}: Flyway keeps its lock in an open transaction, for which CONCURRENTLY waits without end: set flyway.postgresql.transactional.lock=false.");
        }

        if (Placeholder().Match(source.Text) is { Success: true } placeholder && (!settings.TryGetValue("placeholderReplacement", out string? replaces) || !replaces.Equals("false", StringComparison.OrdinalIgnoreCase)))
        {
            warnings.Add($"{source.Name}: {placeholder.Value} is a placeholder for Flyway, whose value is not known here.");
        }

        return (section with { Parts = [section.Parts[0] with { Mode = mode }] }, warnings);
    }

    private static bool DetectsNonTransactional(SqlStatement s) =>
        ((s.Is(0, "create") || s.Is(0, "drop")) && (s.Is(1, "database") || s.Is(1, "tablespace") || s.Is(1, "subscription") || s.Is(1, "index", "concurrently") || (s.Is(1, "unique", "index") && s.Is(3, "concurrently"))))
        || s.Is(0, "alter", "system") || s.Is(0, "vacuum") || s.Is(0, "discard", "all")
        || (s.Is(0, "reindex") && (s.Is(1, "schema") || s.Is(1, "database") || s.Is(1, "system") || (s.Is(1, "verbose") && (s.Is(2, "schema") || s.Is(2, "database") || s.Is(2, "system")))));

    private static Dictionary<string, string> SettingsOf(MigrationSource source)
    {
        Dictionary<string, string> settings = [];
        if (source.Beside(source.Name + ".conf") is { } path)
        {
            foreach (string line in MigrationSource.Read(path).Lines.Select(l => l.Text.Trim()).Where(l => l.Length > 0 && l[0] != '#'))
            {
                int at = line.IndexOf('=', StringComparison.Ordinal);
                if (at > 0)
                {
                    settings[line[..at].Trim()] = line[(at + 1)..].Trim();
                }
            }
        }

        return settings;
    }

    // 1_1 and 1.1 are one version.
    private static string? Other(MigrationSource source, string version, string prefix) => source.Beside(
        prefix + "*.sql",
        file => NameOf(file) is { Success: true } other && other.Groups["prefix"].Value == prefix && other.Groups["version"].Value.Replace('_', '.') == version.Replace('_', '.'));

    [GeneratedRegex(@"^(?:(?<prefix>[VUB])(?<version>\d+(?:[._]\d+)*)|(?<prefix>R))__(?<title>.+)\.sql$")]
    private static partial Regex FileName();

    [GeneratedRegex(@"\$\{[^}\s]+\}")]
    private static partial Regex Placeholder();
}
