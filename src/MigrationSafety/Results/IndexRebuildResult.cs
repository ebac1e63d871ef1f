namespace MigrationSafety;

/// <summary>What became of rebuilding an index.</summary>
public enum IndexRebuildOutcome
{
    /// <summary>Rebuilt now, and valid.</summary>
    Rebuilt,

    /// <summary>It was not valid; rebuilt now, and valid.</summary>
    Repaired,

    /// <summary>Only what an earlier rebuild had left was removed.</summary>
    LeftoverRemoved,

    /// <summary>Nothing was done; <see cref="IndexRebuildResult.Reason"/> says why.</summary>
    Skipped,
}

/// <summary>The outcome of <c>Invoke-SafeIndexRebuild</c>, read back from the catalog.</summary>
public sealed record IndexRebuildResult : IOperationResult
{
    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Port.</summary>
    public int Port { get; init; }

    /// <summary>Database.</summary>
    public required string Database { get; init; }

    /// <summary>Schema of table and index, as SQL writes it: quoted where it has to be.</summary>
    public required string Schema { get; init; }

    /// <summary>Table, as SQL writes it.</summary>
    public required string Table { get; init; }

    /// <summary>Name of the index, as SQL writes it.</summary>
    public required string Name { get; init; }

    /// <summary>What was done.</summary>
    public IndexRebuildOutcome Outcome { get; init; }

    /// <summary>Why nothing was rebuilt; null where something was.</summary>
    public string? Reason { get; init; }

    /// <summary>The index as the server describes it (<c>pg_get_indexdef</c>).</summary>
    public required string Definition { get; init; }

    /// <summary>How often the rebuild was started.</summary>
    public int Attempts { get; init; }

    /// <summary>From the beginning to the verified end.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>Time of it that was spent waiting for others, as sampled.</summary>
    public TimeSpan WaitTime { get; init; }

    /// <summary>Size of the index in bytes now (<c>pg_relation_size</c>); 0 where it was a leftover that is gone.</summary>
    public long SizeBytes { get; init; }

    /// <summary>Its size in bytes before.</summary>
    public long SizeBytesBefore { get; init; }

    /// <summary>
    /// How many percent of it held nothing before: an estimate from the widths and numbers that ANALYZE found; null where there are none, and for other access methods
    /// than B-tree.
    /// </summary>
    public double? EstimatedBloatPercent { get; init; }

    /// <summary>The steps that ran.</summary>
    public MigrationStep[] Steps { get; init; } = [];

    /// <summary>Number of its entry in the log of its database (<c>Get-MigrationHistory -Id</c>); null where it could not be recorded.</summary>
    public long? OperationId { get; init; }

    /// <summary>The session it was made in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}
