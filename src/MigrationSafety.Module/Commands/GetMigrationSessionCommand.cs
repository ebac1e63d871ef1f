using System.Management.Automation;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>The open sessions of this runspace, or the current one.</summary>
[Cmdlet(VerbsCommon.Get, "MigrationSession", DefaultParameterSetName = "All")]
[OutputType(typeof(MigrationSession))]
public sealed class GetMigrationSessionCommand : PSCmdlet
{
    /// <summary>Ids of sessions.</summary>
    [Parameter(Position = 0, ParameterSetName = "Id", ValueFromPipelineByPropertyName = true)]
    public int[]? Id { get; set; }

    /// <summary>The current session alone.</summary>
    [Parameter(ParameterSetName = "Current")]
    public SwitchParameter Current { get; set; }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        RunspaceSessions sessions = RunspaceSessions.Here;
        if (Current)
        {
            if (sessions.Current is { } current)
            {
                WriteObject(current);
            }

            return;
        }

        if (Id is null)
        {
            WriteObject(sessions.All.ToArray(), enumerateCollection: true);
            return;
        }

        foreach (int id in Id)
        {
            if (sessions.All.FirstOrDefault(session => session.Id == id) is { } session)
            {
                WriteObject(session);
            }
            else
            {
                WriteError(ErrorRecords.Of(new MigrationException(
                    "SessionNotFound",
                    MigrationErrorKind.NotFound,
                    $"This runspace has no session {id}.",
                    "Get-MigrationSession lists those it has.")
                {
                    Target = id.ToString(System.Globalization.CultureInfo.InvariantCulture),
                }));
            }
        }
    }
}
