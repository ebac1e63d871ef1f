using System.Management.Automation;
using System.Reflection;

namespace MigrationSafety.Module.Pipeline;

/// <summary>Whether what a cmdlet writes is read by a person at a terminal, or goes to a pipe, a variable or a file.</summary>
internal static class OutputTarget
{
    private const BindingFlags Members = BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic;

    /// <summary>
    /// Whether the output goes straight to the host's formatter, and that writes to a terminal which understands cursor movements.
    /// </summary>
    internal static bool IsTerminal(PSCmdlet cmdlet) =>
        cmdlet.Host.UI is { SupportsVirtualTerminal: true }
        && !Console.IsOutputRedirected
        && NextCommand(cmdlet) == "Out-Default";

    // The length of the pipeline does not tell: it is 1 for an assignment, a redirection and a call inside a function that is piped on as well. Only the pipe
    // itself knows, and it is internal to PowerShell. Should it change one day, objects are written, which is right everywhere.
    private static string? NextCommand(PSCmdlet cmdlet)
    {
        object? processor = Read(Read(cmdlet.CommandRuntime, "OutputPipe"), "DownstreamCmdlet");
        return (Read(processor, "CommandInfo") as CommandInfo)?.Name;
    }

    private static object? Read(object? instance, string property) => instance?.GetType().GetProperty(property, Members)?.GetValue(instance);
}
