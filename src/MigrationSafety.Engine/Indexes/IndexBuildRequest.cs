using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Indexes;

/// <summary>The index that is wanted, and how it is to be built. Texts are SQL, as in CREATE INDEX.</summary>
public sealed record IndexBuildRequest
{
    /// <summary>Table, with or without schema.</summary>
    public required string Table { get; init; }

    /// <summary>Schema; null for the one in <see cref="Table"/> or the search_path.</summary>
    public string? Schema { get; init; }

    /// <summary>Columns and expressions in the order of the index, with collation, operator class and order where wanted: <c>lower(mail)</c>, <c>created_at DESC NULLS LAST</c>.</summary>
    public required string[] Column { get; init; }

    /// <summary>Columns that are only carried along.</summary>
    public string[] Include { get; init; } = [];

    /// <summary>Condition of a partial index; null for all rows.</summary>
    public string? Where { get; init; }

    /// <summary>Whether the index forbids duplicates.</summary>
    public bool Unique { get; init; }

    /// <summary>Whether NULL is a value like any other to a unique index (PostgreSQL 15).</summary>
    public bool NullsNotDistinct { get; init; }

    /// <summary>Access method; null for btree.</summary>
    public string? Method { get; init; }

    /// <summary>Storage parameters, as between the parentheses of WITH: <c>fillfactor = 80</c>; null for none.</summary>
    public string? With { get; init; }

    /// <summary>Tablespace; null for the default.</summary>
    public string? Tablespace { get; init; }

    /// <summary>Name of the index; null for the one that PostgreSQL would choose.</summary>
    public string? Name { get; init; }

    /// <summary>Builds although the server (14.0 to 14.3) can corrupt the index.</summary>
    public bool Force { get; init; }

    /// <summary>Whether a unique index is built without looking for duplicates first.</summary>
    public bool SkipDuplicateCheck { get; init; }

    /// <summary>maintenance_work_mem for the build, with its unit: <c>1GB</c>; null for the server's.</summary>
    public string? MaintenanceWorkMem { get; init; }

    /// <summary>max_parallel_maintenance_workers for the build; null for the server's.</summary>
    public int? ParallelWorkers { get; init; }

    /// <summary>How many builds run at once: over the partitions of a table, and over all requests that share it. Null for one after the other.</summary>
    public SemaphoreSlim? Places { get; init; }

    /// <summary>Bounds under which it is built.</summary>
    public ExecutionOptions Options { get; init; } = new();

    /// <summary>How long the server may say nothing on any connection before the network counts as lost.</summary>
    internal TimeSpan Silence { get; init; } = TimeSpan.FromSeconds(15);
}
