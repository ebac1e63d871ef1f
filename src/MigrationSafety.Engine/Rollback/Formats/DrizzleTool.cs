using System.Text.RegularExpressions;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>Drizzle: statements between <c>--> statement-breakpoint</c>. All migrations that are due run in one transaction; there is no opting out and no rollback (migrator.ts, pg-core/dialect.ts).</summary>
internal sealed class DrizzleTool : MigrationTool
{
    private const string Breakpoint = "--> statement-breakpoint";

    internal override MigrationFormat Format => MigrationFormat.Drizzle;

    internal override string OptOut => "run it by hand, and with IF NOT EXISTS in the file: Drizzle runs all migrations that are due in one transaction and knows no opting out";

    internal override bool Recognises(MigrationSource source) =>
        source.Text.Contains(Breakpoint, StringComparison.Ordinal)
        || (source.Name.EndsWith(".sql", StringComparison.Ordinal) && source.Beside("meta", "_journal.json") is { } journal
            && Regex.IsMatch(MigrationSource.Read(journal).Text, $"\"tag\"\\s*:\\s*\"{Regex.Escape(Path.GetFileNameWithoutExtension(source.Name))}\""))
        || (source.Name == "migration.sql" && source.Beside("snapshot.json") is not null);

    internal override MigrationFile Read(MigrationSource source)
    {
        TextMask mask = new(source.Text);
        mask.Show(0, source.Text.Length);
        for (int at = source.Text.IndexOf(Breakpoint, StringComparison.Ordinal); at >= 0; at = source.Text.IndexOf(Breakpoint, at + 1, StringComparison.Ordinal))
        {
            mask.Hide(at, at + Breakpoint.Length);
            mask.Separate(at);
        }

        return new MigrationFile(Format, source, new MigrationSection(source.Path, SqlScript.Parse(mask.ToString(), psql: false), [new MigrationPart(0, source.Text.Length, RunnerMode.Wrapped)]));
    }
}
