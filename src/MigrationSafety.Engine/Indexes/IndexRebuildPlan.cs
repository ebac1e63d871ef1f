using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Indexes;

/// <summary>The indexes that are to be written anew: one, those of a table, or those of a schema.</summary>
public sealed record IndexRebuildRequest
{
    /// <summary>Name of one index, as in SQL, with or without schema; of a partitioned one, its partitions' indexes are meant. Null for all of the table or schema.</summary>
    public string? Name { get; init; }

    /// <summary>Table, as in SQL, with or without schema; its partitions and toast tables are included.</summary>
    public string? Table { get; init; }

    /// <summary>Schema, as in SQL: of the index or the table, or alone for all of its tables.</summary>
    public string? Schema { get; init; }

    /// <summary>Rebuilds only where at least as much is estimated to be empty, in percent; null for all.</summary>
    public double? MinimumBloatPercent { get; init; }

    /// <summary>Also on a server that can corrupt an index meanwhile (14.0 to 14.3).</summary>
    public bool Force { get; init; }

    /// <summary>maintenance_work_mem, with its unit; null for the server's.</summary>
    public string? MaintenanceWorkMem { get; init; }

    /// <summary>max_parallel_maintenance_workers; null for the server's.</summary>
    public int? ParallelWorkers { get; init; }

    /// <summary>Bounds under which it is rebuilt.</summary>
    public ExecutionOptions Options { get; init; } = new();

    /// <summary>How long the server may say nothing on any connection before the network counts as lost.</summary>
    internal TimeSpan Silence { get; init; } = TimeSpan.FromSeconds(15);
}

/// <summary>An index that a request means.</summary>
/// <param name="Oid">Oid.</param>
/// <param name="Display">Schema and name.</param>
public sealed record IndexRebuildTarget(uint Oid, string Display);

/// <summary>What <see cref="IndexRebuilder"/> is going to do with one index. No steps: <see cref="Reason"/> says why.</summary>
public sealed record IndexRebuildPlan : OperationPlan
{
    /// <summary>What was asked for.</summary>
    public required IndexRebuildRequest Request { get; init; }

    /// <summary>Why the index is not rebuilt; null where it is.</summary>
    public string? Reason { get; init; }

    /// <summary>How much of it is empty, in percent; null where that cannot be estimated.</summary>
    public double? EstimatedBloatPercent { get; init; }

    /// <summary>The index.</summary>
    internal IndexDetails Index { get; init; } = null!;

    /// <summary>It is what another index's rebuild left, and is only removed.</summary>
    internal bool Leftover { get; init; }
}
