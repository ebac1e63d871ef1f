namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// Evolve: Flyway's names, options in the first line (<c>evolve-tx-off</c>, <c>evolve-repeat-always</c>), no undo. On PostgreSQL a file is one command
/// (Migration/MigrationScript.cs, Dialect/SimpleSqlStatementBuilder.cs).
/// </summary>
internal sealed class EvolveTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.Evolve;

    internal override string OptOut => "write evolve-tx-off into a comment in the first line and give the statement a file of its own: Evolve sends a file whole";

    internal override bool Recognises(MigrationSource source) => FlywayTool.NameOf(source.Name).Success && (Says(source, "evolve-tx-off") || Says(source, "evolve-repeat-always"));

    internal override MigrationFile Read(MigrationSource source)
    {
        MigrationFile file = new(Format, source, MigrationSection.Whole(source, Says(source, "evolve-tx-off") ? RunnerMode.OneMessage : RunnerMode.Wrapped));
        return file.Warn(FlywayTool.NameOf(source.Name).Groups["prefix"].Value == "R" ? ["Evolve runs a repeatable migration again whenever its file changes: the former version of the file takes it back best."] : []);
    }

    private static bool Says(MigrationSource source, string option) => source.Lines.Count > 0 && source.Lines[0].Text.Contains(option, StringComparison.OrdinalIgnoreCase);
}
