namespace MigrationSafety.Tests.Postgres;

/// <summary>Copies directory trees.</summary>
internal static class DirectoryCopy
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    /// <summary>Makes a directory that only its owner may enter; PostgreSQL wants its data directory so.</summary>
    public static string CreatePrivate(string path) =>
        OperatingSystem.IsWindows() ? Directory.CreateDirectory(path).FullName : Directory.CreateDirectory(path, OwnerOnly).FullName;

    /// <summary>Copies a tree; links come out as what they point to.</summary>
    /// <param name="source">An existing directory.</param>
    /// <param name="target">A directory that does not exist yet.</param>
    /// <param name="skip">Tells of a path relative to the source that it is to be left out.</param>
    /// <returns>The target.</returns>
    public static string Copy(string source, string target, Func<string, bool>? skip = null)
    {
        CreatePrivate(target);
        foreach (string path in Directory.EnumerateFileSystemEntries(source, "*", SearchOption.AllDirectories))
        {
            string relative = Path.GetRelativePath(source, path);
            if (skip?.Invoke(relative) == true)
                continue;

            string copy = Path.Combine(target, relative);
            try
            {
                if (Directory.Exists(path))
                    CreatePrivate(copy);
                else
                    File.Copy(path, copy);
            }
            catch (FileNotFoundException) when (!File.Exists(path))
            {
                // A server that runs may drop a file between the listing and the copy; its write-ahead log says so too.
            }
        }

        return target;
    }
}
