using System.Text.RegularExpressions;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// Sqitch: <c>deploy/name.sql</c>, <c>revert/name.sql</c> and <c>verify/name.sql</c>, in the order of sqitch.plan. psql runs them, without a transaction of its own:
/// the scripts say BEGIN and COMMIT themselves (App::Sqitch::Engine::pg).
/// </summary>
internal sealed class SqitchTool : MigrationTool
{
    internal override MigrationFormat Format => MigrationFormat.Sqitch;

    internal override string OptOut => "leave it outside of BEGIN and COMMIT";

    internal override bool Recognises(MigrationSource source) => Change(source) is { } change && (File.Exists(System.IO.Path.Combine(change.Root, "sqitch.plan"))
        || (Directory.Exists(System.IO.Path.Combine(change.Root, "deploy")) && Directory.Exists(System.IO.Path.Combine(change.Root, "revert"))));

    /// <summary>The change that a file belongs to: the folder above deploy and revert, which of them it is in, and its name. Null where it is in neither.</summary>
    internal static (string Root, string Way, string Name)? Change(MigrationSource source)
    {
        List<string> names = [System.IO.Path.GetFileNameWithoutExtension(source.Name)];
        for (string? folder = source.Folder; folder is not null; folder = System.IO.Path.GetDirectoryName(folder))
        {
            string name = System.IO.Path.GetFileName(folder);
            if (name is "deploy" or "revert" or "verify" && System.IO.Path.GetDirectoryName(folder) is { } root)
            {
                return (root, name, string.Join('/', names));
            }

            names.Insert(0, name);
        }

        return null;
    }

    internal override MigrationFile Read(MigrationSource source)
    {
        MigrationSection whole = MigrationSection.Whole(source, RunnerMode.EachStatement, psql: true);
        if (Change(source) is not { } change)
        {
            return new MigrationFile(Format, source, whole);
        }

        string file = change.Name.Replace('/', System.IO.Path.DirectorySeparatorChar) + System.IO.Path.GetExtension(source.Name);
        if (change.Way != "deploy")
        {
            string deploy = System.IO.Path.Combine(change.Root, "deploy", file);
            return new MigrationFile(Format, source, whole) { RollbackOf = File.Exists(deploy) ? deploy : null };
        }

        string revert = System.IO.Path.Combine(change.Root, "revert", file);
        return new MigrationFile(Format, source, whole)
        {
            Down = File.Exists(revert) ? MigrationSection.Whole(MigrationSource.Read(revert), RunnerMode.EachStatement, psql: true) : null,
            Author = Planner(change.Root, change.Name),
        };
    }

    /// <summary>Who added a change: a line of the plan is name, what it needs in brackets, time, planner.</summary>
    private static string? Planner(string root, string change)
    {
        string plan = System.IO.Path.Combine(root, "sqitch.plan");
        string name = change.Split('@')[0];
        return !File.Exists(plan) ? null : MigrationSource.Read(plan).Lines
            .Select(line => Regex.Match(line.Text, @"^\s*\+?(?<name>[^\s\[]+)\s+(?:\[[^\]]*\]\s*)?\d{4}-\d\d-\d\dT\S+\s+(?<planner>[^<]+<[^>]*>)"))
            .LastOrDefault(line => line.Success && line.Groups["name"].Value == name)?.Groups["planner"].Value;
    }
}
