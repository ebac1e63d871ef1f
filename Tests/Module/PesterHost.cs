using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text.Json;
using MigrationSafety.Tests.Postgres;

namespace MigrationSafety.Tests.Module;

/// <summary>A test case as Pester reports it.</summary>
public sealed record PesterResult(int Line, string Name, string Result, string? Error);

/// <summary>What became of a file.</summary>
public sealed record PesterFileRun(PesterResult[] Tests, string[] FailedBlocks)
{
    /// <summary>What pwsh wrote.</summary>
    public string Output { get; init; } = "";
}

/// <summary>Runs each Pester file once, in a pwsh of its own, against one server; the results are read by test.</summary>
public sealed class PesterHost : IAsyncDisposable
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(10);

    // Passwords are asked for: so it is seen that they work, and that they show nowhere.
    private readonly PostgresClusters _clusters = new(new PostgresServerOptions { Authentication = PostgresAuthentication.Scram });
    private readonly ConcurrentDictionary<string, Lazy<Task<PesterFileRun>>> _runs = new();
    private readonly SemaphoreSlim _one = new(1);
    private SqlBridge? _bridge;

    internal Task<PesterFileRun> RunAsync(string file) =>
        _runs.GetOrAdd(file, name => new Lazy<Task<PesterFileRun>>(() => RunOnceAsync(name))).Value;

    public async ValueTask DisposeAsync()
    {
        if (_bridge is not null)
        {
            await _bridge.DisposeAsync();
        }

        await _clusters.DisposeAsync();
        _one.Dispose();
    }

    private async Task<PesterFileRun> RunOnceAsync(string file)
    {
        await _one.WaitAsync();
        try
        {
            PostgresServer server = await _clusters.GetAsync(PostgresClusters.RequestedMajors[^1]);
            _bridge ??= SqlBridge.Start(server);
            string results = Path.GetTempFileName();
            try
            {
                ProcessStartInfo start = new("pwsh")
                {
                    ArgumentList =
                    {
                        "-NoProfile", "-NonInteractive", "-File", Path.Combine(PesterCatalog.Directory, "Invoke-Tests.ps1"),
                        "-Path", Path.Combine(PesterCatalog.Directory, file), "-ResultPath", results,
                    },
                    RedirectStandardOutput = true,
                    RedirectStandardError = true,
                    WorkingDirectory = PesterCatalog.RepositoryRoot,
                    Environment =
                    {
                        ["MIGRATIONSAFETY_TEST_SQL"] = _bridge.Address,
                        ["MIGRATIONSAFETY_TEST_URI"] = server.Uri("{0}"),
                        ["MIGRATIONSAFETY_TEST_OLDER_LOGGING"] = Path.Combine(AppContext.BaseDirectory, "older", "Microsoft.Extensions.Logging.Abstractions.dll"),
                        ["NO_COLOR"] = "1",
                    },
                };
                // A developer's own libpq settings are not part of a test.
                foreach (string name in start.Environment.Keys.Where(name => name.StartsWith("PG", StringComparison.Ordinal)).ToArray())
                {
                    start.Environment.Remove(name);
                }

                using Process process = Process.Start(start)!;
                Task<string> output = process.StandardOutput.ReadToEndAsync();
                Task<string> error = process.StandardError.ReadToEndAsync();
                using CancellationTokenSource limit = new(s_limit);
                bool inTime = true;
                try
                {
                    await process.WaitForExitAsync(limit.Token);
                }
                catch (OperationCanceledException)
                {
                    inTime = false;
                    process.Kill(entireProcessTree: true);
                }

                string said = await output + await error;
                if (!inTime)
                {
                    throw new TimeoutException($"{file} was not done after {s_limit.TotalMinutes:0} minutes:{Environment.NewLine}{said}");
                }

                string json = await File.ReadAllTextAsync(results);
                return json.Length == 0
                    ? throw new InvalidOperationException($"{file} did not run:{Environment.NewLine}{said}")
                    : JsonSerializer.Deserialize<PesterFileRun>(json)! with { Output = said };
            }
            finally
            {
                File.Delete(results);
            }
        }
        finally
        {
            _one.Release();
        }
    }
}
