using System.Text.RegularExpressions;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// Prisma: <c>20240101000000_name/migration.sql</c>. The file is sent whole, without BEGIN; newer versions cut out what CONCURRENTLY needs alone.
/// It has no rollback of its own: its manual has people keep a <c>down.sql</c> beside it, which <c>prisma db execute</c> runs.
/// </summary>
internal sealed partial class PrismaTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.Prisma;

    internal override string OptOut => "give the statement a migration of its own: Prisma before 7.4 sends the file whole, and several statements are a transaction";

    internal override bool Recognises(MigrationSource source) => source.Name is "migration.sql" or "down.sql" && FolderName().IsMatch(source.FolderName);

    internal override MigrationFile Read(MigrationSource source)
    {
        MigrationSection whole = MigrationSection.Whole(source, RunnerMode.OneMessage);
        if (source.Name == "down.sql")
        {
            return new MigrationFile(Format, source, whole) { RollbackOf = source.Beside("migration.sql") };
        }

        string? down = source.Beside("down.sql");
        return new MigrationFile(Format, source, whole) { Down = down is null ? null : MigrationSection.Whole(MigrationSource.Read(down), RunnerMode.OneMessage) };
    }

    [GeneratedRegex(@"^\d+_")]
    private static partial Regex FolderName();
}
