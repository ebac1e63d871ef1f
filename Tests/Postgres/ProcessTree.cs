using System.Diagnostics;
using System.Globalization;

namespace MigrationSafety.Tests.Postgres;

/// <summary>A postmaster and its children, seen and killed from outside.</summary>
internal static class ProcessTree
{
    private sealed record Entry(int Pid, int Parent, bool Zombie);

    /// <summary>The first line of postmaster.pid; null when there is no such file.</summary>
    public static int? ReadPid(string dataDirectory)
    {
        string path = Path.Combine(dataDirectory, "postmaster.pid");
        return File.Exists(path) && int.TryParse(File.ReadLines(path).FirstOrDefault(), CultureInfo.InvariantCulture, out int pid) ? pid : null;
    }

    /// <summary>Kills a process as kill -9 does, its children right after it, and waits until all are gone.</summary>
    public static async Task KillAsync(int pid, CancellationToken cancellationToken)
    {
        if (OperatingSystem.IsWindows())
        {
            using Process process = Process.GetProcessById(pid);
            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
            return;
        }

        int[] children = [.. (await ListAsync().ConfigureAwait(false)).Where(e => e.Parent == pid).Select(e => e.Pid)];
        Kill(pid);
        foreach (int child in children)
            Kill(child);

        // A zombie is gone: it holds no memory and no lock; in a container nobody may ever reap it.
        await Wait.UntilAsync(
            async () => !(await ListAsync().ConfigureAwait(false)).Any(e => !e.Zombie && (e.Pid == pid || e.Parent == pid || children.Contains(e.Pid))),
            $"the processes of postmaster {pid} to be gone", cancellationToken: cancellationToken).ConfigureAwait(false);
    }

    private static void Kill(int pid)
    {
        try
        {
            using Process process = Process.GetProcessById(pid);
            process.Kill();
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException)
        {
            // It has ended already: children leave by themselves when the postmaster dies.
        }
    }

    private static async Task<IReadOnlyList<Entry>> ListAsync()
    {
        if (OperatingSystem.IsLinux())
            return [.. Directory.EnumerateDirectories("/proc").Select(FromProc).OfType<Entry>()];

        CommandResult ps = await ServerAccount.RunAsync(
            new ProcessStartInfo("ps", ["-A", "-o", "pid=,ppid=,state="]), true, CancellationToken.None).ConfigureAwait(false);
        return [.. from line in ps.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries)
                   let f = line.Split(' ', StringSplitOptions.RemoveEmptyEntries)
                   select new Entry(Number(f[0]), Number(f[1]), f[2].StartsWith('Z'))];
    }

    /// <summary>proc(5): pid (comm) state ppid ...; comm may hold spaces and parentheses.</summary>
    private static Entry? FromProc(string directory)
    {
        if (!int.TryParse(Path.GetFileName(directory), CultureInfo.InvariantCulture, out int pid))
            return null;

        try
        {
            string stat = File.ReadAllText(Path.Combine(directory, "stat"));
            string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return new Entry(pid, Number(fields[1]), fields[0] == "Z");
        }
        catch (IOException)
        {
            // The process ended between the listing and the reading.
            return null;
        }
    }

    private static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);
}
