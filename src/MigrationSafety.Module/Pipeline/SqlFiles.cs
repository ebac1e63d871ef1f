namespace MigrationSafety.Module.Pipeline;

/// <summary>Files with SQL.</summary>
internal static class SqlFiles
{
    /// <summary>The text of a file.</summary>
    /// <exception cref="MigrationException"><c>FileNotFound</c>, <c>FileNotRead</c>.</exception>
    internal static string Read(string file)
    {
        try
        {
            return File.Exists(file) ? File.ReadAllText(file) : throw FilePaths.NotFound(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new MigrationException("FileNotRead", MigrationErrorKind.Resource, $"{file} could not be read: {e.Message}", "Check the file and its permissions.", e)
            {
                Target = file,
            };
        }
    }
}
