using System.Diagnostics;
using MigrationSafety.Tests.Postgres;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>The psql of this machine, for scripts that are made for it.</summary>
internal static class Psql
{
    private static readonly string? s_path = (Environment.GetEnvironmentVariable("PATH") ?? "")
        .Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
        .Select(directory => Path.Combine(directory, OperatingSystem.IsWindows() ? "psql.exe" : "psql"))
        .FirstOrDefault(File.Exists);

    /// <summary>Why a test that needs psql cannot run; null where it can.</summary>
    internal static string? Missing => s_path is null ? "There is no psql on PATH." : null;

    /// <summary>Runs a script.</summary>
    /// <returns>Exit code and everything that it wrote.</returns>
    internal static async Task<(int ExitCode, string Output)> RunAsync(TestDatabase database, string script, string? options, CancellationToken cancellationToken)
    {
        string file = Path.GetTempFileName();
        try
        {
            await File.WriteAllTextAsync(file, script, cancellationToken);
            ProcessStartInfo start = new(s_path!, ["-X", "-q", "-d", database.Server.Uri(database.Name), "-f", file])
            {
                RedirectStandardError = true,
                RedirectStandardOutput = true,
            };
            start.Environment["PGOPTIONS"] = options ?? "";
            start.Environment["PGCLIENTENCODING"] = "UTF8";
            using Process process = Process.Start(start)!;
            Task<string> output = process.StandardOutput.ReadToEndAsync(cancellationToken);
            Task<string> error = process.StandardError.ReadToEndAsync(cancellationToken);
            await process.WaitForExitAsync(cancellationToken);
            return (process.ExitCode, await output + await error);
        }
        finally
        {
            File.Delete(file);
        }
    }
}
