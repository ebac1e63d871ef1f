using MigrationSafety.Engine.Rollback.Writing;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>Versions that were added for the way back of another, because their tool cannot have it all in one file. They say whose they are.</summary>
internal static class RollbackParts
{
    private const string Mark = "-- Nothing: it is here for its way back, which is part of that of ";

    /// <summary>The comment that says whose it is.</summary>
    internal static string Says(string migration) => $"{Mark[3..]}{migration}.";

    /// <summary>The migration whose way back a file is part of; null where it is none.</summary>
    internal static string? WholeOf(MigrationFile file)
    {
        string? name = file.Source.Lines.Where(line => line.Text.StartsWith(Mark, StringComparison.Ordinal)).Select(line => line.Text.TrimEnd()[Mark.Length..^1]).FirstOrDefault();
        return name is null || name == file.Name || file.Up.Script.Statements.Count > 0 ? null : file.Source.Beside(name);
    }

    /// <summary>The rollbacks of the versions that are part of a migration's way back, first version first.</summary>
    internal static IEnumerable<MigrationSection> Of(MigrationFile file)
    {
        if (file.Format is not (MigrationFormat.Dbmate or MigrationFormat.Goose or MigrationFormat.GolangMigrate) || !MigrationName.Of(file).Version.All(char.IsAsciiDigit))
        {
            yield break;
        }

        for (int step = 1; ; step++)
        {
            MigrationName name = MigrationName.Of(file).Later(step);
            if (file.Source.Beside($"{name.Version}_{name.Title}{(file.Format == MigrationFormat.GolangMigrate ? ".up" : "")}.sql") is not { } path)
            {
                yield break;
            }

            MigrationFile part = MigrationTool.Of(file.Format).Read(MigrationSource.Read(path));
            if (WholeOf(part) != file.Source.Beside(file.Name) || part.Down is not { } down)
            {
                yield break;
            }

            yield return down;
        }
    }
}
