using System.Management.Automation;

namespace MigrationSafety.Module.Pipeline;

/// <summary>Files and folders, as parameters name them: from PowerShell's location, by its drives.</summary>
internal static class FilePaths
{
    /// <summary>The full path of what need not be there, taken as it is written.</summary>
    /// <exception cref="MigrationException"><c>PathIsNoFile</c>: it is not in the file system.</exception>
    internal static string Full(PSCmdlet cmdlet, string path)
    {
        try
        {
            string full = cmdlet.SessionState.Path.GetUnresolvedProviderPathFromPSPath(path, out ProviderInfo provider, out _);
            return Checked(full, path, provider);
        }
        catch (SessionStateException e)
        {
            throw NoFile(path, e.Message);
        }
    }

    /// <summary>The files that a path with or without wildcards names.</summary>
    /// <exception cref="MigrationException"><c>PathIsNoFile</c>, <c>FileNotFound</c>.</exception>
    internal static IEnumerable<string> Resolve(PSCmdlet cmdlet, string path)
    {
        try
        {
            string[] files = [.. cmdlet.GetResolvedProviderPathFromPSPath(path, out ProviderInfo provider)];
            return [.. files.Select(file => Checked(file, path, provider))];
        }
        catch (ItemNotFoundException)
        {
            throw NotFound(path);
        }
        catch (SessionStateException e)
        {
            throw NoFile(path, e.Message);
        }
    }

    internal static MigrationException NotFound(string path) => new(
        "FileNotFound",
        MigrationErrorKind.NotFound,
        $"There is no file {path}.",
        "Check the path; a path with [ or ] in it goes to -LiteralPath.")
    {
        Target = path,
    };

    // What is left of env:x without its drive would be a file in the folder of the process.
    private static string Checked(string full, string path, ProviderInfo provider) =>
        provider.Name == "FileSystem" ? full : throw NoFile(path, $"{path} is in the provider {provider.Name}, not in the file system.");

    private static MigrationException NoFile(string path, string why) => new(
        "PathIsNoFile",
        MigrationErrorKind.InvalidInput,
        why,
        "Name a file or a folder, such as ./change-1234; where the location is not in the file system, with its drive or from the root.")
    {
        Target = path,
    };
}
