using System.Management.Automation;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Module.Commands;

/// <summary>Connection parameters as the engine takes them; a credential's password never appears anywhere else.</summary>
internal static class ConnectRequests
{
    internal static ConnectRequest Of(string? text, PSCredential? credential) => new()
    {
        Text = text,
        User = string.IsNullOrEmpty(credential?.UserName) ? null : credential.UserName,
        Password = credential?.GetNetworkCredential().Password,
    };
}
