using System.Management.Automation;

namespace MigrationSafety.Module.Commands;

/// <summary>Base of the cmdlets that work on many databases: sessions come from the pipeline, several are worked on at once.</summary>
public abstract class FleetCmdlet : SessionCmdlet
{
    /// <inheritdoc />
    [Parameter(ValueFromPipeline = true)]
    [ValidateNotNullOrEmpty]
    public override SessionArgument[]? Session { get; set; }

    /// <summary>How many sessions are worked on at the same time.</summary>
    [Parameter]
    [ValidateRange(1, 1000)]
    public int ThrottleLimit { get; set; } = 8;
}
