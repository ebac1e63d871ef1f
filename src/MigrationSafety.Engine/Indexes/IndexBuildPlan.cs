using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Indexes;

/// <summary>What <see cref="IndexBuilder"/> is going to do. No steps: the index is there and valid.</summary>
public sealed record IndexBuildPlan : OperationPlan
{
    /// <summary>What was asked for.</summary>
    public required IndexBuildRequest Request { get; init; }

    /// <summary>Name of the index, as in the catalog.</summary>
    public required string Name { get; init; }

    /// <summary>Rows of the table at its last ANALYZE or VACUUM; null where there was none.</summary>
    public double? EstimatedRows { get; init; }
}
