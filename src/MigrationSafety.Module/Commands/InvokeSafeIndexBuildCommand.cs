using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module.Commands;

/// <summary>Builds an index concurrently, and proves that it is valid.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "SafeIndexBuild", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(IndexBuildResult), typeof(Pipeline.MigrationJob))]
public sealed class InvokeSafeIndexBuildCommand : ChangeCmdlet<IndexBuildPlan, IndexBuildResult>
{
    /// <summary>Table, as in SQL.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string Table { get; set; } = "";

    /// <summary>Columns, in the order of the index.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(ColumnNameCompleter))]
    public string[] Column { get; set; } = [];

    /// <summary>Schema of the table, where <see cref="Table"/> does not name it.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SchemaNameCompleter))]
    public string? Schema { get; set; }

    // Not from the pipeline: the Name of another cmdlet's result names something else.
    /// <summary>Name of the index; PostgreSQL's rule makes one where none is given.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Name { get; set; }

    /// <summary>A unique index.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public SwitchParameter Unique { get; set; }

    /// <summary>How long the build may wait for old transactions; without it as long as they last.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration? WaitFor { get; set; }

    private protected override ExecutionOptions Options => base.Options with { WaitFor = WaitFor?.Value };

    private protected override Task<IndexBuildPlan> PlanAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) => IndexBuilder.PlanAsync(
        session,
        new IndexBuildRequest { Table = Table, Schema = Schema, Column = Column, Unique = Unique, Name = Name, Options = Options },
        sink,
        cancellationToken);

    private protected override Task<IndexBuildResult> RunPlanAsync(IndexBuildPlan plan, IOperationSink sink, CancellationToken cancellationToken) =>
        IndexBuilder.RunAsync(plan, sink, cancellationToken);
}
