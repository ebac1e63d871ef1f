using System.ComponentModel;
using System.Diagnostics;
using System.Reflection;

namespace MigrationSafety.Sandbox;

/// <summary>Leaves the server to the user, application included: to look at by hand, or in a PowerShell of its own.</summary>
internal static class HandOver
{
    internal static string RepositoryRoot { get; } =
        typeof(HandOver).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(attribute => attribute.Key == "RepositoryRoot").Value!;

    /// <summary>Prints how to connect and waits for Enter or Ctrl-C.</summary>
    internal static async Task KeepAsync(Shop shop, Screen screen, CancellationToken cancellationToken)
    {
        screen.Show("");
        screen.Show($"PostgreSQL {shop.Version} stays up, and the application goes on:");
        screen.Show($"  {shop.Uri}");
        screen.Show($"  psql {shop.Uri}");
        screen.Show($"  Connect-MigrationDatabase {shop.Uri}");
        screen.Show("orders has a column tier that is not filled yet: Tests/Sandbox/runbook.ps1 takes it from there.");
        screen.Show(Console.IsInputRedirected ? "Ctrl-C ends it." : "Enter or Ctrl-C ends it.");
        Task stopped = Task.Delay(Timeout.Infinite, cancellationToken);
        // Input that is not a keyboard may be at its end already: that is nobody pressing Enter.
        Task enter = Console.IsInputRedirected ? stopped : Task.Run(Console.ReadLine, CancellationToken.None);
        await Task.WhenAny(stopped, enter);
    }

    /// <summary>Opens a PowerShell with the module imported and connected, and waits for its end.</summary>
    internal static async Task ShellAsync(Shop shop, Screen screen, CancellationToken cancellationToken)
    {
        screen.Show("");
        screen.Show("A PowerShell with the module; the application goes on. orders has a column tier that is not filled yet; 'exit' ends the server.");
        string command = $"Import-Module {Quote(Path.Combine(RepositoryRoot, "MigrationSafety.psd1"))}; Connect-MigrationDatabase {Quote(shop.Uri)}";
        // Ctrl-C in there is for what runs in the shell, however often it is pressed; it is the shell's end that counts.
        ConsoleCancelEventHandler goOn = (_, e) => e.Cancel = true;
        Console.CancelKeyPress += goOn;
        try
        {
            using Process shell = Process.Start(new ProcessStartInfo("pwsh", ["-NoLogo", "-NoExit", "-Command", command]) { WorkingDirectory = RepositoryRoot })!;
            await shell.WaitForExitAsync(CancellationToken.None);
        }
        catch (Win32Exception)
        {
            screen.Show("There is no pwsh on PATH: install PowerShell 7.4 or later.", "yellow");
            await KeepAsync(shop, screen, cancellationToken);
        }
        finally
        {
            Console.CancelKeyPress -= goOn;
        }
    }

    internal static string Quote(string text) => "'" + text.Replace("'", "''", StringComparison.Ordinal) + "'";
}
