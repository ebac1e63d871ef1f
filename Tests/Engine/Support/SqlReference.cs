using System.Diagnostics;
using System.Reflection;
using System.Text.Json;
using MigrationSafety.Tests.Postgres;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>A statement as PostgreSQL's own parser sees it.</summary>
/// <param name="Start">Where it begins, white space and comments before it included.</param>
/// <param name="End">Index after it.</param>
/// <param name="Tag">Its command tag.</param>
/// <param name="Targets">What it is about.</param>
internal sealed record ReferenceStatement(int Start, int End, string Tag, string[] Targets);

/// <summary>What PostgreSQL's own parser answers: statements, or the error.</summary>
internal sealed record ReferenceAnswer(ReferenceStatement[]? Statements, string? Error);

/// <summary>PostgreSQL's own parser (npm package libpg-query, PostgreSQL 18), in a process of node: Tests/Engine/Reference.</summary>
internal sealed class SqlReference : IDisposable
{
    private static readonly JsonSerializerOptions s_json = new(JsonSerializerDefaults.Web);
    private readonly Process _process;

    private SqlReference(Process process) => _process = process;

    /// <summary>Installs the package if need be and starts node; null, and why, where either is not to be had.</summary>
    internal static async Task<(SqlReference? Reference, string? Why)> StartAsync(CancellationToken cancellationToken)
    {
        string folder = Path.Combine(ProjectFolder, "Reference");
        bool windows = OperatingSystem.IsWindows();
        if (ServerAccount.OnPath(windows ? "node.exe" : "node") is not { } node || ServerAccount.OnPath(windows ? "npm.cmd" : "npm") is not { } npm)
        {
            return (null, "node and npm are not on PATH");
        }

        using (FileLock mine = await FileLock.AcquireAsync(Path.Combine(Directory.CreateDirectory(Path.Combine(ProjectFolder, "obj")).FullName, "reference.lock"), cancellationToken))
        {
            if (!File.Exists(Path.Combine(folder, "node_modules", ".package-lock.json")))
            {
                ProcessStartInfo install = new(npm, ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]) { WorkingDirectory = folder };
                CommandResult result = await ServerAccount.RunAsync(install, true, cancellationToken);
                if (result.ExitCode != 0)
                {
                    return (null, "npm ci failed: " + result.Text.ReplaceLineEndings(" "));
                }
            }
        }

        ProcessStartInfo info = new(node, ["reference.js"])
        {
            WorkingDirectory = folder,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            StandardInputEncoding = new System.Text.UTF8Encoding(false),
            StandardOutputEncoding = System.Text.Encoding.UTF8,
        };
        return (new SqlReference(Process.Start(info)!), null);
    }

    /// <summary>The folder of this test project, from which it was built.</summary>
    internal static string ProjectFolder { get; } =
        typeof(SqlReference).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().First(a => a.Key == "EngineTests").Value!;

    /// <summary>Parses one text.</summary>
    internal async Task<ReferenceAnswer> ParseAsync(string sql) => (await ParseAsync([sql]))[0];

    /// <summary>Parses texts, one answer each.</summary>
    internal async Task<ReferenceAnswer[]> ParseAsync(IReadOnlyList<string> texts)
    {
        // Writing and reading at once: neither side's pipe may fill up while the other waits.
        Task write = Task.Run(async () =>
        {
            foreach (string sql in texts)
            {
                await _process.StandardInput.WriteLineAsync(JsonSerializer.Serialize(new { sql }));
            }

            await _process.StandardInput.FlushAsync();
        });
        ReferenceAnswer[] answers = new ReferenceAnswer[texts.Count];
        for (int i = 0; i < answers.Length; i++)
        {
            string line = await _process.StandardOutput.ReadLineAsync() ?? throw new InvalidOperationException($"node ended with {_process.ExitCode} at: {texts[i]}");
            answers[i] = JsonSerializer.Deserialize<ReferenceAnswer>(line, s_json)!;
        }

        await write;
        return answers;
    }

    public void Dispose()
    {
        _process.StandardInput.Close();
        if (!_process.WaitForExit(10_000))
        {
            _process.Kill();
        }

        _process.Dispose();
    }
}
