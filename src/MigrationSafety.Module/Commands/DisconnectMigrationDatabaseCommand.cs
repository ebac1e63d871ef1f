using System.Management.Automation;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Closes sessions: those given, otherwise the current one.</summary>
[Cmdlet(VerbsCommunications.Disconnect, "MigrationDatabase")]
[OutputType(typeof(void))]
public sealed class DisconnectMigrationDatabaseCommand : MigrationCmdlet
{
    /// <summary>Sessions; without it the current one.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true)]
    [ValidateNotNullOrEmpty]
    public MigrationSession[]? Session { get; set; }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        RunspaceSessions sessions = RunspaceSessions.Here;
        if (Session is null && sessions.Current is null)
        {
            WriteError(ErrorRecords.Of(new MigrationException(
                "NoCurrentSession",
                MigrationErrorKind.InvalidState,
                "There is no current session to close.",
                "Get-MigrationSession lists the open sessions; Connect-MigrationDatabase opens one.")));
            return;
        }

        foreach (MigrationSession session in Session ?? [sessions.Current!])
        {
            sessions.Remove(session);
            Runner.Wait(async (_, _) =>
            {
                await SessionFactory.DisconnectAsync(session).ConfigureAwait(false);
                return true;
            });
        }
    }
}
