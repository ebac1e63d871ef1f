using System.Collections.Concurrent;
using System.Diagnostics;

namespace MigrationSafety.Sandbox;

/// <summary>The client as a child process, to be killed as kill -9 does.</summary>
internal sealed class ClientProcess : IDisposable
{
    private readonly Process _process;
    private readonly ConcurrentQueue<string> _lines = new();

    private ClientProcess(Process process, Action<string> say)
    {
        _process = process;
        void Take(object _, DataReceivedEventArgs e)
        {
            if (!string.IsNullOrWhiteSpace(e.Data))
            {
                _lines.Enqueue(e.Data);
                say(e.Data);
            }
        }

        process.OutputDataReceived += Take;
        process.ErrorDataReceived += Take;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    internal bool HasExited => _process.HasExited;

    /// <summary>What it has said so far.</summary>
    internal IReadOnlyCollection<string> Lines => _lines;

    internal static ClientProcess Start(Shop shop, Action<string> say)
    {
        // Started by "dotnet x.dll" or by its own executable, whatever this process was.
        string program = Environment.ProcessPath!;
        string[] arguments = Path.GetFileNameWithoutExtension(program) == "dotnet" ? [typeof(ClientProcess).Assembly.Location, Client.Verb] : [Client.Verb];
        ProcessStartInfo info = new(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        info.Environment[Client.UriVariable] = shop.Uri;
        return new ClientProcess(Process.Start(info)!, say);
    }

    /// <summary>Kills it without a word of warning.</summary>
    /// <returns>False where it had ended by itself.</returns>
    internal async Task<bool> KillAsync()
    {
        bool running = !_process.HasExited;
        // SIGKILL on Unix, TerminateProcess on Windows. One that ends right now is no error either.
        _process.Kill();
        await _process.WaitForExitAsync(CancellationToken.None);
        return running;
    }

    internal async Task<int> ExitCodeAsync(CancellationToken cancellationToken)
    {
        await _process.WaitForExitAsync(cancellationToken);
        return _process.ExitCode;
    }

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
        }

        _process.Dispose();
    }
}
