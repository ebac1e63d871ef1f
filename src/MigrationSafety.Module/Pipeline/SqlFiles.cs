using System.Management.Automation;

namespace MigrationSafety.Module.Pipeline;

/// <summary>Files with SQL, as -Path and -LiteralPath name them.</summary>
internal static class SqlFiles
{
    /// <summary>The files that a path with or without wildcards names.</summary>
    /// <exception cref="MigrationException"><c>FileNotFound</c>.</exception>
    internal static IEnumerable<string> Resolve(PSCmdlet cmdlet, string path)
    {
        try
        {
            return cmdlet.GetResolvedProviderPathFromPSPath(path, out _);
        }
        catch (ItemNotFoundException)
        {
            throw NotFound(path);
        }
    }

    /// <summary>The text of a file.</summary>
    /// <exception cref="MigrationException"><c>FileNotFound</c>, <c>FileNotRead</c>.</exception>
    internal static string Read(string file)
    {
        try
        {
            return File.Exists(file) ? File.ReadAllText(file) : throw NotFound(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new MigrationException("FileNotRead", MigrationErrorKind.Resource, $"{file} could not be read: {e.Message}", "Check the file and its permissions.", e)
            {
                Target = file,
            };
        }
    }

    private static MigrationException NotFound(string path) => new(
        "FileNotFound",
        MigrationErrorKind.NotFound,
        $"There is no file {path}.",
        "Check the path; a path with [ or ] in it goes to -LiteralPath.")
    {
        Target = path,
    };
}
