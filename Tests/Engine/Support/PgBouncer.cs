using System.Diagnostics;
using System.Net.Sockets;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>A real PgBouncer in front of a test server.</summary>
internal sealed class PgBouncer : IAsyncDisposable
{
    private const string Program = "pgbouncer";
    private readonly string _directory;
    private readonly Process _process;

    private PgBouncer(string directory, Process process, int port)
    {
        _directory = directory;
        _process = process;
        Port = port;
    }

    internal int Port { get; }

    /// <summary>Starts one; skips the test where there is no PgBouncer.</summary>
    internal static async Task<PgBouncer> StartAsync(TestDatabase db, string mode, int poolSize = 10)
    {
        string? program = (Environment.GetEnvironmentVariable("PATH") ?? string.Empty).Split(Path.PathSeparator).Append("/usr/sbin")
            .Select(d => Path.Combine(d, Program)).FirstOrDefault(File.Exists);
        Assert.SkipWhen(program is null, "There is no pgbouncer on PATH (Debian: apt-get install pgbouncer).");
        string directory = Directory.CreateTempSubdirectory(Program).FullName;
        int port = FreePort();
        string users = Path.Combine(directory, "users.txt");
        string settings = Path.Combine(directory, "pgbouncer.ini");
        await File.WriteAllTextAsync(users, "\"postgres\" \"\"\n");
        await File.WriteAllTextAsync(settings, $"""
            [databases]
            {db.Name} = host={db.Server.Host} port={db.Server.Port} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {users}
            pool_mode = {mode}
            default_pool_size = {poolSize}
            ignore_startup_parameters = extra_float_digits

            """);
        string[] arguments = [settings];
        if (!OperatingSystem.IsWindows())
        {
            const UnixFileMode Readable = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
            File.SetUnixFileMode(users, Readable);
            File.SetUnixFileMode(settings, Readable);
            File.SetUnixFileMode(directory, Readable | UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute);
            if (Environment.IsPrivilegedProcess)
            {
                // It refuses to be root.
                arguments = ["-u", "nobody", settings];
            }
        }

        Process process = Process.Start(new ProcessStartInfo(program!, arguments) { RedirectStandardError = true, RedirectStandardOutput = true })!;
        process.ErrorDataReceived += (_, _) => { };
        process.OutputDataReceived += (_, _) => { };
        process.BeginErrorReadLine();
        process.BeginOutputReadLine();
        PgBouncer bouncer = new(directory, process, port);
        try
        {
            await Wait.UntilAsync(() => IsListening(port), "pgbouncer to listen");
        }
        catch
        {
            await bouncer.DisposeAsync();
            throw;
        }

        return bouncer;
    }

    public async ValueTask DisposeAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync();
        _process.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    private static bool IsListening(int port)
    {
        try
        {
            using TcpClient client = new("127.0.0.1", port);
            return true;
        }
        catch (SocketException)
        {
            // Not yet.
            return false;
        }
    }

    private static int FreePort()
    {
        using Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 0));
        return ((System.Net.IPEndPoint)socket.LocalEndPoint!).Port;
    }
}
