using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Rebuilds indexes concurrently: one, those of a table, or those of a schema.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "SafeIndexRebuild", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium)]
[OutputType(typeof(IndexRebuildResult), typeof(MigrationJob))]
public sealed class InvokeSafeIndexRebuildCommand : IndexCmdlet<IndexRebuildPlan, IndexRebuildResult>
{
    // No parameter sets: what Get-InvalidIndex returns has a name, a table and a schema, a row of a file may have one of them. The narrowest counts.
    /// <summary>Name of one index, as in SQL, with or without schema; of a partitioned one, its partitions' indexes are meant.</summary>
    [Parameter(Position = 0, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(IndexNameCompleter))]
    public string? Name { get; set; }

    /// <summary>Table whose indexes are rebuilt, where no name is given.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string? Table { get; set; }

    /// <summary>Schema of the index or the table; alone, all of its tables' indexes are rebuilt.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SchemaNameCompleter))]
    public string? Schema { get; set; }

    /// <summary>Rebuilds only where at least as many percent are estimated to be empty.</summary>
    [Parameter]
    [ValidateRange(0.0, 100.0)]
    public double? MinimumBloatPercent { get; set; }

    private IndexRebuildRequest Request => new()
    {
        Name = Name,
        Table = Name is null ? Table : null,
        Schema = Schema,
        MinimumBloatPercent = MinimumBloatPercent,
        MaintenanceWorkMem = MaintenanceWorkMem,
        ParallelWorkers = ParallelWorkers,
        Force = Force,
        Options = Options,
    };

    private protected override IEnumerable<Func<EngineSession, IOperationSink, CancellationToken, Task<IndexRebuildPlan>>> Plans(EngineSession session)
    {
        IndexRebuildRequest request = Request;
        try
        {
            return Runner.Wait((sink, token) => IndexRebuilder.FindAsync(session, request, sink, token))
                .Select<IndexRebuildTarget, Func<EngineSession, IOperationSink, CancellationToken, Task<IndexRebuildPlan>>>(
                    target => (same, sink, token) => IndexRebuilder.PlanAsync(same, request, target, sink, token));
        }
        catch (MigrationException e)
        {
            WriteError(ErrorRecords.Of(e));
            return [];
        }
    }

    private protected override Task<IndexRebuildResult> RunPlanAsync(IndexRebuildPlan plan, IOperationSink sink, CancellationToken cancellationToken) =>
        IndexRebuilder.RunAsync(plan, sink, cancellationToken);
}
