using System.Management.Automation;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Module.Commands;

/// <summary>Base of the cmdlets that run CREATE, DROP or REINDEX ... CONCURRENTLY: whom they wait for, how long, and what is done about that.</summary>
/// <typeparam name="TPlan">Plan.</typeparam>
/// <typeparam name="TResult">Output type.</typeparam>
public abstract class ConcurrentCmdlet<TPlan, TResult> : ChangeCmdlet<TPlan, TResult>
    where TPlan : OperationPlan
    where TResult : class
{
    /// <summary>How long it may wait for old transactions; without it as long as they last.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration? WaitFor { get; set; }

    /// <summary>What is done about sessions that it has waited for too long.</summary>
    [Parameter]
    public BlockerAction BlockerAction { get; set; }

    /// <summary>How long it waits for a session before <see cref="BlockerAction"/> is taken.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration BlockerGracePeriod { get; set; } = new(TimeSpan.FromSeconds(30));

    private protected override ExecutionOptions Options => base.Options with
    {
        WaitFor = WaitFor?.Value,
        BlockerAction = BlockerAction,
        BlockerGracePeriod = BlockerGracePeriod.Value,
    };
}
