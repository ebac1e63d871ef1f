using System.Management.Automation;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Module.Commands;

/// <summary>Base of the cmdlets that read a table to make an index of it.</summary>
/// <typeparam name="TPlan">Plan.</typeparam>
/// <typeparam name="TResult">Output type.</typeparam>
public abstract class IndexCmdlet<TPlan, TResult> : ConcurrentCmdlet<TPlan, TResult>
    where TPlan : OperationPlan
    where TResult : class
{
    /// <summary>maintenance_work_mem for the work, with its unit.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? MaintenanceWorkMem { get; set; }

    /// <summary>max_parallel_maintenance_workers for the work.</summary>
    [Parameter]
    [ValidateRange(0, 1024)]
    public int? ParallelWorkers { get; set; }

    /// <summary>Goes on although the server (14.0 to 14.3) can corrupt the index.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    // One table's indexes one after the other, those of different tables side by side.
    private protected override string Queue(TPlan plan) => plan.Target;
}
