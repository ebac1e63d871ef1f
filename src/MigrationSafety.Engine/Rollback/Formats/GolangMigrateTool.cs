using System.Text.RegularExpressions;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// golang-migrate: <c>1_name.up.sql</c> and <c>1_name.down.sql</c>, paired by the version alone. A file is sent whole and in no transaction of the tool;
/// with x-multi-statement it is cut at each semicolon (source/parse.go, database/postgres).
/// </summary>
internal sealed partial class GolangMigrateTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.GolangMigrate;

    internal override string OptOut => "give the statement a file of its own: golang-migrate sends a file whole, and several statements are a transaction unless x-multi-statement is on";

    internal override bool Recognises(MigrationSource source) => FileName().Match(source.Name) is { Success: true } name
        && (name.Groups["way"].Value == "up" || Other(source, name, "up") is not null || source.Beside($"{name.Groups["version"].Value}_{name.Groups["title"].Value}.{name.Groups["kind"].Value}") is null);

    internal override MigrationFile Read(MigrationSource source)
    {
        Match name = FileName().Match(source.Name);
        MigrationSection whole = MigrationSection.Whole(source, RunnerMode.OneMessage);
        if (name.Groups["way"].Value == "down")
        {
            return new MigrationFile(Format, source, whole) { RollbackOf = Other(source, name, "up") };
        }

        string? down = name.Success ? Other(source, name, "down") : null;
        return new MigrationFile(Format, source, whole) { Down = down is null ? null : MigrationSection.Whole(MigrationSource.Read(down), RunnerMode.OneMessage) };
    }

    private static string? Other(MigrationSource source, Match name, string way) => source.Beside(
        $"{name.Groups["version"].Value}_*.{way}.{name.Groups["kind"].Value}",
        file => FileName().Match(file) is { Success: true } other && other.Groups["version"].Value == name.Groups["version"].Value && other.Groups["way"].Value == way);

    [GeneratedRegex(@"^(?<version>[0-9]+)_(?<title>.*)\.(?<way>up|down)\.(?<kind>.*)$")]
    private static partial Regex FileName();
}
