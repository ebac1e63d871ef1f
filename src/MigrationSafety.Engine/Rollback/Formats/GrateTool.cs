namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// grate, and RoundhousE before it: folders of fixed names beside each other. Scripts are cut into statements, which run one by one unless it is called with
/// --transaction. Those in up run once; in others whenever they change, or every time (docs/ConfigurationOptions/FolderConfiguration.md).
/// </summary>
internal sealed class GrateTool : MigrationTool
{
    private static readonly string[] s_once = ["up", "down"];
    private static readonly string[] s_whenChanged =
    [
        "alterDatabase", "runAfterCreateDatabase", "runBeforeUp", "runFirstAfterUp", "functions", "views", "sprocs", "triggers", "indexes", "runAfterOtherAnyTimeScripts",
    ];

    private static readonly string[] s_always = ["beforeMigration", "permissions", "afterMigration"];

    internal override MigrationFormat Format => MigrationFormat.Grate;

    internal override string OptOut => "call grate without --transaction, which is the default";

    internal override bool Recognises(MigrationSource source)
    {
        string? root = System.IO.Path.GetDirectoryName(source.Folder);
        string folder = source.FolderName;
        return root is not null && Known(folder) && Directory.Exists(root)
            && Directory.EnumerateDirectories(root).Select(System.IO.Path.GetFileName).Any(other => Known(other) && !Same(other, folder));
    }

    internal override MigrationFile Read(MigrationSource source)
    {
        MigrationSection whole = MigrationSection.Whole(source, RunnerMode.EachStatement);
        if (Same(source.FolderName, "down"))
        {
            return new MigrationFile(Format, source, whole) { RollbackOf = source.Beside("..", "up", source.Name) };
        }

        string? down = Same(source.FolderName, "up") ? source.Beside("..", "down", source.Name) : null;
        List<string> warnings = [];
        if (s_whenChanged.Any(f => Same(f, source.FolderName)) || s_always.Any(f => Same(f, source.FolderName)))
        {
            string when = s_always.Any(f => Same(f, source.FolderName)) ? "every time" : "again whenever its file changes";
            warnings.Add($"grate runs a script in {source.FolderName} {when}: the former version of the file takes it back best.");
        }

        if (source.Name.Contains(".env.", StringComparison.OrdinalIgnoreCase))
        {
            warnings.Add("grate runs this script in the environments of its name alone.");
        }

        return new MigrationFile(Format, source, whole) { Down = down is null ? null : MigrationSection.Whole(MigrationSource.Read(down), RunnerMode.EachStatement) }.Warn(warnings);
    }

    private static bool Known(string? folder) => s_once.Concat(s_whenChanged).Concat(s_always).Any(known => Same(known, folder));

    private static bool Same(string? a, string? b) => string.Equals(a, b, StringComparison.OrdinalIgnoreCase);
}
