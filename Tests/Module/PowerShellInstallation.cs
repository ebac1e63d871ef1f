using System.ComponentModel;
using System.Diagnostics;

namespace MigrationSafety.Tests.Module;

/// <summary>Whether this machine has what the Pester suite needs.</summary>
internal static class PowerShellInstallation
{
    private static readonly Lazy<string?> s_missing = new(Look);

    /// <summary>What is missing, as the reason of a skip; null where nothing is.</summary>
    internal static string? Missing => s_missing.Value;

    private static string? Look()
    {
        ProcessStartInfo start = new("pwsh")
        {
            ArgumentList =
            {
                "-NoProfile", "-NonInteractive", "-Command",
                "if ($PSVersionTable.PSVersion -lt '7.4') { 'PowerShell' } elseif (-not (Get-Module -ListAvailable Pester | Where-Object Version -ge '5.5')) { 'Pester' } else { 'nothing' }",
            },
            RedirectStandardOutput = true,
        };
        try
        {
            using Process process = Process.Start(start)!;
            string output = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            return output.Trim() switch
            {
                "nothing" => null,
                "PowerShell" => "The pwsh on PATH is older than PowerShell 7.4.",
                "Pester" => "pwsh has no Pester 5.5 or newer: Install-Module Pester.",
                _ => $"pwsh does not run: exit code {process.ExitCode}.",
            };
        }
        catch (Win32Exception)
        {
            return "There is no pwsh on PATH: install PowerShell 7.4 or newer, and Pester.";
        }
    }
}
