using System.Diagnostics;

namespace MigrationSafety.Tests.Postgres;

/// <summary>What a command wrote and how it ended.</summary>
internal sealed record CommandResult(int ExitCode, string Output, string Error)
{
    public string Text => string.Join('\n', new[] { Error.Trim(), Output.Trim() }.Where(t => t.Length > 0));
}

/// <summary>
/// The user that PostgreSQL's programs run as: the caller itself, unless that is root, whom PostgreSQL refuses; then an existing
/// unprivileged user.
/// </summary>
internal sealed class ServerAccount
{
    private static readonly Lazy<Task<ServerAccount>> s_current = new(FindAsync);
    private readonly string? _user;
    private readonly string[] _prefix;

    private ServerAccount(string? user, string[] prefix)
    {
        _user = user;
        _prefix = prefix;
    }

    public static Task<ServerAccount> GetAsync() => s_current.Value;

    /// <summary>Whether files that the caller makes have to be handed over.</summary>
    public bool IsOther => _user is not null;

    /// <summary>Runs a program as this user and returns when it has ended.</summary>
    /// <param name="program">A path or a name on PATH.</param>
    /// <param name="arguments">Its arguments, unquoted.</param>
    /// <param name="directory">Its working directory, one that the user may enter.</param>
    /// <param name="capture">
    /// False for a program that leaves a child behind (pg_ctl start): on Windows the child inherits the pipes and they never end.
    /// </param>
    /// <param name="cancellationToken">Kills the program.</param>
    public Task<CommandResult> RunAsync(
        string program, IEnumerable<string> arguments, string? directory = null, bool capture = true, CancellationToken cancellationToken = default) =>
        RunAsync(StartInfo(program, arguments, directory), capture, cancellationToken);

    public ProcessStartInfo StartInfo(string program, IEnumerable<string> arguments, string? directory = null)
    {
        string[] line = [.. _prefix, program, .. arguments];
        ProcessStartInfo info = new(line[0], line[1..])
        {
            UseShellExecute = false,
            CreateNoWindow = true,
            // The caller's own directory may be one that the user may not enter.
            WorkingDirectory = directory ?? (OperatingSystem.IsWindows() ? "" : "/"),
        };
        // The caller's PGDATA, PGPORT and the like are meant for another server.
        foreach (string name in info.Environment.Keys.Where(n => n.StartsWith("PG", StringComparison.Ordinal)).ToArray())
            info.Environment.Remove(name);

        return info;
    }

    /// <summary>Makes a path this user's own, and everything below it unless told otherwise.</summary>
    public async Task TakeOwnershipAsync(string path, CancellationToken cancellationToken, bool recursive = true)
    {
        if (_user is null)
            return;

        CommandResult result = await RunAsync(new ProcessStartInfo("chown", [.. recursive ? new[] { "-R" } : [], $"{_user}:", path]), true, cancellationToken).ConfigureAwait(false);
        if (result.ExitCode != 0)
            throw new InvalidOperationException($"Could not hand '{path}' over to user {_user}: {result.Text}");
    }

    public static async Task<CommandResult> RunAsync(ProcessStartInfo info, bool capture, CancellationToken cancellationToken)
    {
        info.UseShellExecute = false;
        info.RedirectStandardInput = true;
        info.RedirectStandardOutput = info.RedirectStandardError = capture;
        using Process process = Process.Start(info)!;
        process.StandardInput.Close();
        try
        {
            Task<string> output = capture ? process.StandardOutput.ReadToEndAsync(cancellationToken) : Task.FromResult("");
            Task<string> error = capture ? process.StandardError.ReadToEndAsync(cancellationToken) : Task.FromResult("");
            CommandResult result = new(0, await output.ConfigureAwait(false), await error.ConfigureAwait(false));
            await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
            return result with { ExitCode = process.ExitCode };
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }
    }

    /// <summary>The first of the names that is a program on PATH, with its directory; null when there is none.</summary>
    public static string? OnPath(params string[] names) => (
        from name in names
        from directory in (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)
        where Path.IsPathRooted(directory)
        let path = Path.Combine(directory, name)
        where File.Exists(path)
        select path).FirstOrDefault();

    private static async Task<ServerAccount> FindAsync()
    {
        // On Windows pg_ctl itself gives up an administrator's rights.
        if (OperatingSystem.IsWindows() || !Environment.IsPrivilegedProcess)
            return new ServerAccount(null, []);

        foreach (string user in new[] { "postgres", "nobody" })
        {
            CommandResult group = await RunAsync(new ProcessStartInfo("id", ["-g", user]), true, CancellationToken.None).ConfigureAwait(false);
            if (group.ExitCode != 0)
                continue;

            if (OnPath("setpriv") is { } setpriv)
                return new ServerAccount(user, [setpriv, $"--reuid={user}", $"--regid={group.Output.Trim()}", "--clear-groups", "--"]);
            if (OnPath("runuser") is { } runuser)
                return new ServerAccount(user, [runuser, "-u", user, "--"]);
            if (OnPath("sudo") is { } sudo)
                return new ServerAccount(user, [sudo, "-n", "-u", user, "--"]);
        }

        throw new PostgresUnavailableException(
            "PostgreSQL does not run as root: run the tests as another user, or have a user 'postgres' or 'nobody' and one of setpriv, runuser and sudo.");
    }
}
