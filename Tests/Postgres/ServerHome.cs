using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace MigrationSafety.Tests.Postgres;

/// <summary>
/// The folder of one server, which goes away together with the server whatever happens to this process. On Unix a small shell waits for
/// the end of a pipe that this process holds: disposing, exiting and being killed all close it; then the shell stops the server
/// and removes the folder. What escapes even that (Windows, the shell killed too) is swept up by the next process that starts a server.
/// </summary>
internal sealed class ServerHome : IAsyncDisposable
{
    private const string Watch = """
        exec >/dev/null 2>&1
        trap '' INT TERM HUP
        while read -r _; do :; done
        pidfile=$1/data/postmaster.pid
        if read -r pid < "$pidfile"; then
            kill -QUIT "$pid"
            tries=0
            while [ -e "$pidfile" ] && kill -0 "$pid" && [ $tries -lt 200 ]; do sleep 0.05; tries=$((tries + 1)); done
            if [ -e "$pidfile" ]; then kill -KILL "$pid"; fi
        fi
        rm -rf "$1" || { sleep 1; rm -rf "$1"; }
        rm -f "$1.lock"
        """;

    private static readonly Lazy<Task> s_sweep = new(SweepAsync);
    private readonly FileLock _lock;
    private Process? _watcher;
    private GCHandle _alive;

    private ServerHome(string directory, FileLock mine)
    {
        Path = directory;
        _lock = mine;
    }

    /// <summary>The folder: the Unix socket, the log and the certificates are in it.</summary>
    public string Path { get; }

    public string DataDirectory => System.IO.Path.Combine(Path, "data");

    public string LogPath => System.IO.Path.Combine(Path, "log");

    public static async Task<ServerHome> CreateAsync(CancellationToken cancellationToken)
    {
        await s_sweep.Value.ConfigureAwait(false);
        ServerAccount account = await ServerAccount.GetAsync().ConfigureAwait(false);
        string root = await ServerFolders.RootAsync().ConfigureAwait(false);
        FileLock? mine;
        string path;
        do
        {
            path = System.IO.Path.Combine(root, RandomNumberGenerator.GetHexString(8, lowercase: true));
            // Null if a process that sweeps was faster to lock the new file: then another name.
            mine = FileLock.TryAcquire(path + ".lock");
        }
        while (mine is null);

        ServerHome home = new(path, mine);
        try
        {
            DirectoryCopy.CreatePrivate(path);
            await account.TakeOwnershipAsync(path, cancellationToken).ConfigureAwait(false);
            home.StartWatching(account);
            return home;
        }
        catch
        {
            await home.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (OperatingSystem.IsWindows())
            AppDomain.CurrentDomain.ProcessExit -= OnProcessExit;

        if (_watcher is { } watcher)
        {
            _watcher = null;
            try
            {
                watcher.StandardInput.Close();
                await watcher.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(20)).ConfigureAwait(false);
            }
            catch (Exception e) when (e is IOException or TimeoutException)
            {
                // The shell was killed or hangs: EndByForce does its work.
            }

            watcher.Dispose();
        }

        EndByForce(Path);
        _lock.Dispose();
        File.Delete(Path + ".lock");
        if (_alive.IsAllocated)
            _alive.Free();
    }

    private void StartWatching(ServerAccount account)
    {
        // A pipe that the garbage collector closes would end a server whose connection string is still in use.
        _alive = GCHandle.Alloc(this);
        if (OperatingSystem.IsWindows())
        {
            AppDomain.CurrentDomain.ProcessExit += OnProcessExit;
            return;
        }

        // In a session of its own the shell outlives a kill of this process's whole group.
        string[] shell = ["sh", "-c", Watch, "sh", Path];
        ProcessStartInfo info = ServerAccount.OnPath("setsid") is { } setsid ? account.StartInfo(setsid, shell) : account.StartInfo("sh", shell[1..]);
        info.RedirectStandardInput = true;
        _watcher = Process.Start(info);
    }

    private void OnProcessExit(object? sender, EventArgs e) => EndByForce(Path);

    /// <summary>Ends the folders of processes that are gone.</summary>
    private static async Task SweepAsync()
    {
        ServerAccount account = await ServerAccount.GetAsync().ConfigureAwait(false);
        foreach (string path in Directory.EnumerateFiles(await ServerFolders.RootAsync().ConfigureAwait(false), "*.lock"))
        {
            try
            {
                using FileLock? mine = FileLock.TryAcquire(path, FileMode.Open);
                if (mine is null)
                    continue;

                string folder = path[..^".lock".Length];
                if (OperatingSystem.IsWindows())
                    EndByForce(folder);
                else
                    await account.RunAsync("sh", ["-c", Watch, "sh", folder]).ConfigureAwait(false);
            }
            catch (FileNotFoundException)
            {
                // Its shell was just about to do the same.
                continue;
            }

            File.Delete(path);
        }
    }

    private static void EndByForce(string folder)
    {
        if (!Directory.Exists(folder))
            return;

        if (ProcessTree.ReadPid(System.IO.Path.Combine(folder, "data")) is { } pid)
        {
            try
            {
                using Process postmaster = Process.GetProcessById(pid);
                if (postmaster.ProcessName.StartsWith("postgres", StringComparison.Ordinal))
                    postmaster.Kill(entireProcessTree: true);
            }
            catch (Exception e) when (e is ArgumentException or InvalidOperationException)
            {
                // It has ended already.
            }
        }

        for (int attempt = 1; ; attempt++)
        {
            try
            {
                Directory.Delete(folder, recursive: true);
                return;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException && attempt < 20)
            {
                // Windows keeps the files of a process for a moment after its end. There is no condition to wait for.
                Thread.Sleep(50);
            }
        }
    }
}
