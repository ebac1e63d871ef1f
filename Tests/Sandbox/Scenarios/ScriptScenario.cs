using System.ComponentModel;
using System.Diagnostics;

namespace MigrationSafety.Sandbox.Scenarios;

/// <summary>The runbook as users write it: runbook.ps1 with the cmdlets, in a pwsh without a terminal.</summary>
internal sealed class ScriptScenario : Scenario
{
    internal override string Name => "script";

    internal override string Summary => "the same by Tests/Sandbox/runbook.ps1, in a pwsh of its own, without the way back";

    internal override async Task RunAsync(Bench bench, SandboxOptions options, CancellationToken cancellationToken)
    {
        await bench.MeasureBaselineAsync(options.Seconds, cancellationToken);
        await bench.MeasureAsync(
            "Add column",
            async () =>
            {
                await Migration.ApplyAsync(bench.Shop, bench.Screen, cancellationToken);
                return null;
            },
            cancellationToken);
        bench.Traffic.WritesTier = true;

        DirectoryInfo folder = Directory.CreateTempSubdirectory("migrationsafety-sandbox-");
        try
        {
            await bench.MeasureAsync("runbook.ps1", () => RunAsync(bench, folder.FullName, cancellationToken), cancellationToken);
            if (!folder.EnumerateFiles("*.sql").Any(file => file.Length > 0))
            {
                bench.Broken.Add("Everything can be undone: runbook.ps1 wrote no rollback.");
            }

            if (!folder.EnumerateFiles("*.html").Any(file => file.Length > 0))
            {
                bench.Broken.Add("What it says is what the server did: runbook.ps1 wrote no report.");
            }
        }
        finally
        {
            folder.Delete(recursive: true);
        }

        FillProof proof = await FillProof.ReadAsync(bench.Shop, cancellationToken);
        bench.Screen.Say($"Proof: {proof}");
        bench.Broken.AddRange(proof.Broken(claimed: null));
        if (!await bench.Shop.ScalarAsync<bool>("select exists (select from pg_index where indexrelid = to_regclass('orders_tier_idx') and indisvalid)", cancellationToken))
        {
            bench.Broken.Add("Nothing is lost: runbook.ps1 left no valid index orders_tier_idx.");
        }

        bench.Broken.AddRange((await SchemaState.LeftoversAtRestAsync(bench.Shop, cancellationToken)).Select(leftover => $"Nothing is lost: {leftover}."));
    }

    private static async Task<long?> RunAsync(Bench bench, string folder, CancellationToken cancellationToken)
    {
        string script = Path.Combine(HandOver.RepositoryRoot, "Tests", "Sandbox", "runbook.ps1");
        ProcessStartInfo info = new("pwsh", ["-NoProfile", "-NonInteractive", "-File", script, bench.Shop.Uri, "-RollbackFolder", folder])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
            UseShellExecute = false,
        };
        info.Environment["NO_COLOR"] = "1";
        Process started;
        try
        {
            started = Process.Start(info)!;
        }
        catch (Win32Exception e)
        {
            throw new InvalidOperationException("The scenario 'script' needs pwsh on PATH: install PowerShell 7.4 or later.", e);
        }

        using Process process = started;
        process.StandardInput.Close();
        DataReceivedEventHandler say = (_, e) =>
        {
            if (!string.IsNullOrWhiteSpace(e.Data))
            {
                bench.Screen.Verbose(e.Data);
            }
        };
        process.OutputDataReceived += say;
        process.ErrorDataReceived += say;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        try
        {
            await process.WaitForExitAsync(cancellationToken);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }

        if (process.ExitCode != 0)
        {
            bench.Broken.Add($"runbook.ps1 ended with exit code {process.ExitCode}.");
        }

        return bench.Shop.Rows;
    }
}
