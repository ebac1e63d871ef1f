using System.Security.Cryptography;
using System.Text;

namespace MigrationSafety.Tests.Postgres;

/// <summary>The folder below the temp folder that servers and templates live in: one a user, owned by the user of the servers.</summary>
internal static class ServerFolders
{
    /// <summary>A path of a Unix socket has room for some 100 characters (sun_path in sockaddr_un).</summary>
    private const int LongestRoot = 70;

    private static readonly Lazy<Task<string>> s_root = new(CreateRootAsync);

    public static Task<string> RootAsync() => s_root.Value;

    private static async Task<string> CreateRootAsync()
    {
        ServerAccount account = await ServerAccount.GetAsync().ConfigureAwait(false);
        string name = "mspg-" + string.Concat(Environment.UserName.Where(char.IsAsciiLetterOrDigit));
        string[] places = OperatingSystem.IsWindows() ? [Path.GetTempPath()] : [Path.GetTempPath(), "/tmp"];
        string why = "the paths are too long";
        foreach (string root in places.Select(p => Path.Combine(p, name)).Where(p => OperatingSystem.IsWindows() || p.Length <= LongestRoot))
        {
            DirectoryCopy.CreatePrivate(root);
            // What is below belongs to other runs, and goes away while they end.
            await account.TakeOwnershipAsync(root, CancellationToken.None, recursive: false).ConfigureAwait(false);
            if (!account.IsOther)
                return root;

            // Root's own temp folder may be closed to others.
            CommandResult probe = await account.RunAsync("sh", ["-c", "cd \"$1\"", "sh", root]).ConfigureAwait(false);
            if (probe.ExitCode == 0)
                return root;
            why = probe.Text;
        }

        throw new InvalidOperationException($"No temp folder that the servers' user can use: {why}");
    }
}

/// <summary>What is costly to make and may be shared by processes: data directories fresh from initdb, copies of packages.</summary>
internal static class ServerCache
{
    /// <summary>
    /// Makes an entry or finds it made by whatever process. Entries last a day, because systems clean their temp folder file by
    /// file, and half a template would be worse than none.
    /// </summary>
    /// <param name="name">What it is, version included.</param>
    /// <param name="make">Makes the directory whose path it gets; that path does not exist yet.</param>
    /// <param name="cancellationToken">Ends the waiting for another process that makes it.</param>
    public static async Task<string> GetAsync(string name, Func<string, Task> make, CancellationToken cancellationToken)
    {
        ServerAccount account = await ServerAccount.GetAsync().ConfigureAwait(false);
        string cache = Path.Combine(await ServerFolders.RootAsync().ConfigureAwait(false), "cache");
        if (!Directory.Exists(cache))
        {
            DirectoryCopy.CreatePrivate(cache);
            await account.TakeOwnershipAsync(cache, cancellationToken).ConfigureAwait(false);
        }

        string entry = Path.Combine(cache, $"{name}-{DateTime.UtcNow:yyyyMMdd}");
        using FileLock mine = await FileLock.AcquireAsync(Path.Combine(cache, name + ".lock"), cancellationToken).ConfigureAwait(false);
        if (Directory.Exists(entry))
            return entry;

        foreach (string old in Directory.EnumerateDirectories(cache, name + "-*").Where(d => Directory.GetLastWriteTimeUtc(d) < DateTime.UtcNow.AddDays(-2)))
            Directory.Delete(old, recursive: true);

        string unfinished = entry + ".new";
        if (Directory.Exists(unfinished))
            Directory.Delete(unfinished, recursive: true);
        await make(unfinished).ConfigureAwait(false);
        await account.TakeOwnershipAsync(unfinished, cancellationToken).ConfigureAwait(false);
        Directory.Move(unfinished, entry);
        return entry;
    }

    public static string Hash(string text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)))[..8];
}
