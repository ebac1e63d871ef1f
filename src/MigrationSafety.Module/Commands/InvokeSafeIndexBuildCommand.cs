using System.Collections;
using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Builds indexes concurrently, over partitions too, and proves that they are valid.</summary>
[Cmdlet(VerbsLifecycle.Invoke, "SafeIndexBuild", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Medium, DefaultParameterSetName = ColumnSet)]
[OutputType(typeof(IndexBuildResult), typeof(MigrationJob))]
public sealed class InvokeSafeIndexBuildCommand : IndexCmdlet<IndexBuildPlan, IndexBuildResult>
{
    private const string ColumnSet = "Column";
    private const string DefinitionSet = "Definition";
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";

    /// <summary>Makes it; one server has more use of a few builds at once than of many.</summary>
    public InvokeSafeIndexBuildCommand() => ThrottleLimit = 4;

    /// <summary>Table, as in SQL; ordinary, partitioned, or a materialized view.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true, ParameterSetName = ColumnSet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string Table { get; set; } = "";

    /// <summary>Columns and expressions, in the order of the index.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true, ParameterSetName = ColumnSet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(ColumnNameCompleter))]
    public string[] Column { get; set; } = [];

    /// <summary>Schema of the table, where <see cref="Table"/> does not name it.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true, ParameterSetName = ColumnSet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SchemaNameCompleter))]
    public string? Schema { get; set; }

    // Not from the pipeline: the Name of another cmdlet's result names something else.
    /// <summary>Name of the index; PostgreSQL's rule makes one where none is given.</summary>
    [Parameter(ParameterSetName = ColumnSet)]
    [ValidateNotNullOrEmpty]
    public string? Name { get; set; }

    /// <summary>A unique index.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true, ParameterSetName = ColumnSet)]
    public SwitchParameter Unique { get; set; }

    /// <summary>NULL is a value like any other to a unique index.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true, ParameterSetName = ColumnSet)]
    public SwitchParameter NullsNotDistinct { get; set; }

    /// <summary>Columns that are only carried along.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true, ParameterSetName = ColumnSet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(ColumnNameCompleter))]
    public string[] Include { get; set; } = [];

    /// <summary>Condition of a partial index.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true, ParameterSetName = ColumnSet)]
    [ValidateNotNullOrEmpty]
    public string? Where { get; set; }

    /// <summary>Access method; btree where none is given.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true, ParameterSetName = ColumnSet)]
    [ValidateNotNullOrEmpty]
    public string? Method { get; set; }

    /// <summary>Storage parameters: <c>@{ fillfactor = 80 }</c>.</summary>
    [Parameter(ParameterSetName = ColumnSet)]
    [ValidateNotNullOrEmpty]
    public IDictionary? With { get; set; }

    /// <summary>Tablespace of the index.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true, ParameterSetName = ColumnSet)]
    [ValidateNotNullOrEmpty]
    public string? Tablespace { get; set; }

    // Not mandatory: PowerShell would then prefer this set for everything that is piped, and CSV rows and files would fit no more.
    // Not by property name: a result's definition belongs to the database that the result is from.
    /// <summary>Whole CREATE INDEX statements, as migration tools write them.</summary>
    [Parameter(ValueFromPipeline = true, ParameterSetName = DefinitionSet)]
    [ValidateNotNull]
    public IndexStatementArgument? Definition { get; set; }

    /// <summary>Files with CREATE INDEX statements; wildcards are allowed.</summary>
    [Parameter(Mandatory = true, ParameterSetName = PathSet)]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] Path { get; set; } = [];

    /// <summary>Files with CREATE INDEX statements, taken as they are written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = LiteralPathSet)]
    [Alias("PSPath")]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <inheritdoc />
    [Parameter(ValueFromPipeline = true, ParameterSetName = ColumnSet)]
    [Parameter(ParameterSetName = DefinitionSet)]
    [Parameter(ValueFromPipeline = true, ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    [ValidateNotNullOrEmpty]
    public override SessionArgument[]? Session { get; set; }

    /// <summary>Builds a unique index without looking for duplicates first.</summary>
    [Parameter]
    public SwitchParameter SkipDuplicateCheck { get; set; }

    private protected override bool TakesPlaces => true;

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        try
        {
            base.ProcessRecord();
        }
        catch (MigrationException e)
        {
            WriteError(ErrorRecords.Of(e));
        }
    }

    private protected override IEnumerable<Func<EngineSession, IOperationSink, CancellationToken, Task<IndexBuildPlan>>> Plans(EngineSession session)
    {
        IndexBuildRequest[] requests = ParameterSetName switch
        {
            ColumnSet => [FromColumns()],
            DefinitionSet => [.. IndexStatements.Read(Definition?.Text ?? "", null)],
            PathSet => [.. Path.SelectMany(path => FilePaths.Resolve(this, path)).SelectMany(FromFile)],
            _ => [.. LiteralPath.Select(path => FilePaths.Full(this, path)).SelectMany(FromFile)],
        };
        return requests.Select(request => WithSettings(request)).Select<IndexBuildRequest, Func<EngineSession, IOperationSink, CancellationToken, Task<IndexBuildPlan>>>(
            request => (session, sink, token) => IndexBuilder.PlanAsync(session, request, sink, token));
    }

    private protected override IndexBuildResult FailedResult(IndexBuildPlan plan, MigrationException failure) =>
        IndexBuilder.Failed(plan, failure) with { OperationId = failure.OperationId };

    private protected override Task<IndexBuildPlan> PlanAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        IndexBuilder.PlanAsync(session, WithSettings(FromColumns()), sink, cancellationToken);

    private protected override Task<IndexBuildResult> RunPlanAsync(IndexBuildPlan plan, IOperationSink sink, CancellationToken cancellationToken) =>
        IndexBuilder.RunAsync(plan, sink, cancellationToken);

    private static IEnumerable<IndexBuildRequest> FromFile(string file) => IndexStatements.Read(SqlFiles.Read(file), System.IO.Path.GetFileName(file));

    private IndexBuildRequest FromColumns() => new()
    {
        Table = Table,
        Schema = Schema,
        Column = Column,
        Include = Include,
        Where = Where,
        Unique = Unique,
        NullsNotDistinct = NullsNotDistinct,
        Method = Method,
        With = With is null ? null : IndexStatements.StorageParameters(With.Cast<DictionaryEntry>().Select(entry => (entry.Key.ToString() ?? "", entry.Value?.ToString() ?? ""))),
        Tablespace = Tablespace,
        Name = Name,
    };

    private IndexBuildRequest WithSettings(IndexBuildRequest request) => request with
    {
        SkipDuplicateCheck = SkipDuplicateCheck,
        MaintenanceWorkMem = MaintenanceWorkMem,
        ParallelWorkers = ParallelWorkers,
        Force = Force,
        Places = Places,
        Options = Options,
    };
}
