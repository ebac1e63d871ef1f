using System.Text.RegularExpressions;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// DbUp: scripts without marks. Its PostgreSQL provider cuts them into statements (older ones only at a line with nothing but a semicolon) and
/// opens no transaction unless the program asks for one.
/// </summary>
internal sealed partial class DbUpTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.DbUp;

    internal override string OptOut => "run it without WithTransaction and WithTransactionPerScript, which is the default";

    internal override bool Recognises(MigrationSource source) => false;

    internal override MigrationFile Read(MigrationSource source)
    {
        MigrationFile file = new(Format, source, MigrationSection.Whole(source, RunnerMode.EachStatement));
        return file.Warn(Variable().Matches(source.Text).Select(m => m.Value).Distinct().Where(v => source.Text.IndexOf(v, StringComparison.Ordinal) == source.Text.LastIndexOf(v, StringComparison.Ordinal))
            .Select(v => $"{v} is a variable for DbUp, whose value is not known here."));
    }

    // A dollar quote stands twice, a variable mostly once.
    [GeneratedRegex(@"\$[A-Za-z0-9_-]+\$")]
    private static partial Regex Variable();
}
