using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module.Commands;

/// <summary>Drops an index concurrently, and keeps what builds it again.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "SafeIndexDrop", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(IndexDropResult), typeof(Pipeline.MigrationJob))]
public sealed class InvokeSafeIndexDropCommand : ConcurrentCmdlet<IndexDropPlan, IndexDropResult>
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

    private protected override Task<IndexDropPlan> PlanAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        IndexDropper.PlanAsync(session, new IndexDropRequest { Name = Name, Schema = Schema, Options = Options }, sink, cancellationToken);

    private protected override Task<IndexDropResult> RunPlanAsync(IndexDropPlan plan, IOperationSink sink, CancellationToken cancellationToken) =>
        IndexDropper.RunAsync(plan, sink, cancellationToken);
}
