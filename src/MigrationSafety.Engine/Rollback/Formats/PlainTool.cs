namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>A script for psql.</summary>
internal sealed class PlainTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.Plain;

    internal override string OptOut => "do not write BEGIN before it";

    internal override bool Recognises(MigrationSource source) => true;

    internal override MigrationFile Read(MigrationSource source)
    {
        MigrationSection whole = MigrationSection.Whole(source, RunnerMode.EachStatement, psql: true);
        string stem = Path.GetFileNameWithoutExtension(source.Name);
        string kind = Path.GetExtension(source.Name);
        if (stem.EndsWith(".down", StringComparison.OrdinalIgnoreCase))
        {
            return new MigrationFile(Format, source, whole) { RollbackOf = source.Beside(stem[..^5] + kind) ?? source.Beside(stem[..^5] + ".up" + kind) };
        }

        string name = stem.EndsWith(".up", StringComparison.OrdinalIgnoreCase) ? stem[..^3] : stem;
        string? down = source.Beside($"{name}.down{kind}");
        return new MigrationFile(Format, source, whole) { Down = down is null ? null : MigrationSection.Whole(MigrationSource.Read(down), RunnerMode.EachStatement, psql: true) };
    }
}
