using System.Globalization;
using System.Text.RegularExpressions;
using MigrationSafety.Engine.Rollback.Formats;

namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>A migration's name, in parts.</summary>
/// <param name="Version">Its version; digits, and dots with Flyway.</param>
/// <param name="Title">What stands behind.</param>
internal sealed partial record MigrationName(string Version, string Title)
{
    /// <summary>The name of a migration's file.</summary>
    internal static MigrationName Of(MigrationFile file)
    {
        string stem = file.Format == MigrationFormat.Prisma ? file.Source.FolderName
            : file.Format == MigrationFormat.Sqitch && SqitchTool.Change(file.Source) is { } change ? change.Name
            : Path.GetFileNameWithoutExtension(file.Name);
        stem = stem.EndsWith(".up", StringComparison.OrdinalIgnoreCase) ? stem[..^3] : stem;
        return FlywayTool.NameOf(file.Name) is { Success: true } flyway && flyway.Groups["version"].Length > 0 ? new MigrationName(flyway.Groups["version"].Value.Replace('_', '.'), flyway.Groups["title"].Value)
            : Numbered().Match(stem) is { Success: true } numbered ? new MigrationName(numbered.Groups["version"].Value, numbered.Groups["title"].Value)
            : new MigrationName(Now(), stem);
    }

    /// <summary>A name for what was done without a file.</summary>
    internal static MigrationName Of(string source) => new(Now(), string.Concat(source.Select(c => char.IsLetterOrDigit(c) || c == '-' ? c : '_')));

    /// <summary>The same with a version of digits alone.</summary>
    internal MigrationName WithDigits() => Version.All(char.IsAsciiDigit) ? this : this with { Version = Now() };

    /// <summary>The name of what is taken back before this: a version later.</summary>
    /// <param name="step">How many versions later.</param>
    internal MigrationName Later(int step) => new(
        (System.Numerics.BigInteger.Parse(Version, CultureInfo.InvariantCulture) + step).ToString(CultureInfo.InvariantCulture).PadLeft(Version.Length, '0'),
        string.Create(CultureInfo.InvariantCulture, $"{Title}_part_{step + 1}"));

    private static string Now() => DateTimeOffset.UtcNow.ToString("yyyyMMddHHmmss", CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^(?<version>\d+)[_.-]?(?<title>.*)$")]
    private static partial Regex Numbered();
}
