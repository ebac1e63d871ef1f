using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Indexes;

/// <summary>What <see cref="IndexBuilder"/> is going to do. No steps: the index is there and valid.</summary>
public sealed record IndexBuildPlan : OperationPlan
{
    /// <summary>What was asked for.</summary>
    public required IndexBuildRequest Request { get; init; }

    /// <summary>Name of the index, as in the catalog.</summary>
    public required string Name { get; init; }

    /// <summary>Rows of the table, its partitions included, at the last ANALYZE or VACUUM; null where there was none. An estimate.</summary>
    public double? EstimatedRows { get; init; }

    /// <summary>Size that the index will have, in bytes; null where nothing tells. An estimate.</summary>
    public long? EstimatedSizeBytes { get; init; }

    /// <summary>How long the build will work, waiting for others aside; null where nothing tells. An estimate.</summary>
    public TimeSpan? EstimatedDuration { get; init; }

    /// <summary>Whom a build that began now would wait for.</summary>
    public IReadOnlyList<LockBlocker> WaitsFor { get; init; } = [];

    /// <summary>The table.</summary>
    internal TableReference Table { get; init; } = null!;

    /// <summary>The index, in the server's words.</summary>
    internal IndexDefinition Definition { get; init; } = null!;
}
