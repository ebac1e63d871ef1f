using System.Diagnostics;
using MigrationSafety.Tests.Postgres;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>
/// The SQL of PostgreSQL's own tests: from Debian's source package of postgresql-15, fetched once and kept below obj/; or a folder of the developer's own.
/// </summary>
internal static class SqlCorpus
{
    /// <summary>Names a folder with .sql files to take instead.</summary>
    internal const string FolderVariable = "MIGRATIONSAFETY_TEST_SQL_CORPUS";

    private const string Package = "postgresql-15";

    /// <summary>Its folder; null, and why, where it is not to be had.</summary>
    internal static async Task<(string? Folder, string? Why)> GatherAsync(CancellationToken cancellationToken)
    {
        if (Environment.GetEnvironmentVariable(FolderVariable) is { Length: > 0 } given)
        {
            return (given, null);
        }

        string obj = Directory.CreateDirectory(Path.Combine(SqlReference.ProjectFolder, "obj")).FullName;
        string folder = Path.Combine(obj, "corpus");
        using FileLock mine = await FileLock.AcquireAsync(Path.Combine(obj, "corpus.lock"), cancellationToken);
        if (Directory.Exists(folder))
        {
            return (folder, null);
        }

        if (ServerAccount.OnPath("apt-get") is null || ServerAccount.OnPath("tar") is null || ServerAccount.OnPath("bzip2") is null)
        {
            return (null, $"the source package {Package} needs Debian's apt-get, and tar and bzip2 ({FolderVariable} names another corpus)");
        }

        DirectoryInfo work = Directory.CreateTempSubdirectory("migrationsafety-corpus-");
        try
        {
            return await FetchAsync(work.FullName, cancellationToken) is { } why ? (null, why) : (Keep(work.FullName, folder), null);
        }
        finally
        {
            work.Delete(recursive: true);
        }
    }

    /// <summary>Fetches and unpacks the source package with lists of our own, so that the system's stay as they are; returns why it failed, or null.</summary>
    private static async Task<string?> FetchAsync(string work, CancellationToken cancellationToken)
    {
        string sources = Directory.CreateDirectory(Path.Combine(work, "sources")).FullName;
        Directory.CreateDirectory(Path.Combine(work, "lists", "partial"));
        Directory.CreateDirectory(Path.Combine(work, "cache", "archives", "partial"));
        foreach (string file in SourceLists())
        {
            string[] lines = [.. (await File.ReadAllLinesAsync(file, cancellationToken)).Select(l =>
                l.StartsWith("deb ", StringComparison.Ordinal) ? "deb-src " + l[4..]
                : l.StartsWith("Types:", StringComparison.Ordinal) ? "Types: deb-src"
                : l)];
            await File.WriteAllLinesAsync(Path.Combine(sources, Path.GetFileName(file)), lines, cancellationToken);
        }

        string[] options =
        [
            "-o", "Dir::Etc::sourcelist=/dev/null", "-o", $"Dir::Etc::sourceparts={sources}", "-o", $"Dir::State::lists={work}/lists", "-o", $"Dir::Cache={work}/cache",
            "-o", "APT::Sandbox::User=",
        ];

        // A list of somebody else's that has no sources is an error that does not matter.
        await RunAsync(work, "apt-get", [.. options, "-qq", "update"], cancellationToken);
        CommandResult versions = await RunAsync(work, "apt-cache", [.. options, "showsrc", Package], cancellationToken);
        string error = $"no source list has {Package}";
        foreach (string version in versions.Output.Split('\n').Where(l => l.StartsWith("Version:", StringComparison.Ordinal)).Select(l => l[8..].Trim()).Distinct())
        {
            CommandResult source = await RunAsync(work, "apt-get", [.. options, "-qq", "source", "--download-only", $"{Package}={version}"], cancellationToken);
            if (source.ExitCode == 0)
            {
                string archive = Directory.EnumerateFiles(work, "*.orig.tar.*").Single();
                CommandResult unpacked = await RunAsync(work, "tar", ["-xf", archive, "--wildcards", "*.sql"], cancellationToken);
                return unpacked.ExitCode == 0 ? null : unpacked.Text;
            }

            error = source.Text;
        }

        return error.ReplaceLineEndings(" ");
    }

    private static IEnumerable<string> SourceLists() =>
        new[] { "/etc/apt/sources.list" }.Where(File.Exists).Concat(
            Directory.Exists("/etc/apt/sources.list.d")
                ? Directory.EnumerateFiles("/etc/apt/sources.list.d").Where(f => f.EndsWith(".list", StringComparison.Ordinal) || f.EndsWith(".sources", StringComparison.Ordinal))
                : []);

    /// <summary>Puts the .sql files into one folder, their paths in their names.</summary>
    private static string Keep(string work, string folder)
    {
        string partial = Directory.CreateDirectory(folder + ".partial").FullName;
        foreach (string file in Directory.EnumerateFiles(work, "*.sql", SearchOption.AllDirectories))
        {
            File.Copy(file, Path.Combine(partial, Path.GetRelativePath(work, file).Replace(Path.DirectorySeparatorChar, '+')), overwrite: true);
        }

        Directory.Move(partial, folder);
        return folder;
    }

    private static Task<CommandResult> RunAsync(string work, string program, string[] arguments, CancellationToken cancellationToken) =>
        ServerAccount.RunAsync(new ProcessStartInfo(program, arguments) { WorkingDirectory = work }, true, cancellationToken);
}
