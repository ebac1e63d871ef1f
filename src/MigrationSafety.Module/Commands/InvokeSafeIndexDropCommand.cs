using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module.Commands;

/// <summary>Drops an index concurrently, and keeps what builds it again.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "SafeIndexDrop", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(IndexDropResult), typeof(Pipeline.MigrationJob))]
public sealed class InvokeSafeIndexDropCommand : ChangeCmdlet<IndexDropPlan, IndexDropResult>
{
    /// <summary>Name of the index, as in SQL, with or without schema.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(IndexNameCompleter))]
    public string Name { get; set; } = "";

    /// <summary>Schema of the index, where <see cref="Name"/> does not name it.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SchemaNameCompleter))]
    public string? Schema { get; set; }

    /// <summary>How long the drop may wait for transactions that use the table; without it as long as they last.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration? WaitFor { get; set; }

    /// <summary>What is done about sessions that the drop has waited for too long.</summary>
    [Parameter]
    public BlockerAction BlockerAction { get; set; }

    /// <summary>How long the drop waits for a session before <see cref="BlockerAction"/> is taken.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration BlockerGracePeriod { get; set; } = new(TimeSpan.FromSeconds(30));

    private protected override ExecutionOptions Options => base.Options with
    {
        WaitFor = WaitFor?.Value,
        BlockerAction = BlockerAction,
        BlockerGracePeriod = BlockerGracePeriod.Value,
    };

    private protected override Task<IndexDropPlan> PlanAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        IndexDropper.PlanAsync(session, new IndexDropRequest { Name = Name, Schema = Schema, Options = Options }, sink, cancellationToken);

    private protected override Task<IndexDropResult> RunPlanAsync(IndexDropPlan plan, IOperationSink sink, CancellationToken cancellationToken) =>
        IndexDropper.RunAsync(plan, sink, cancellationToken);
}
