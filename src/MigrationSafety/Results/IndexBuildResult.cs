namespace MigrationSafety;

/// <summary>What became of an index build.</summary>
public enum IndexBuildOutcome
{
    /// <summary>Built now, and valid.</summary>
    Built,

    /// <summary>A valid index of the same name and definition was there; nothing was done.</summary>
    AlreadyValid,

    /// <summary>An invalid leftover was removed and the index built anew; it is valid.</summary>
    Rebuilt,

    /// <summary>The partitions had such indexes already; they were attached to the partitioned one, which is valid now.</summary>
    Attached,

    /// <summary>It could not be built; the error says why. What was done, and what takes it back, is in the steps.</summary>
    Failed,
}

/// <summary>The outcome of <c>Invoke-SafeIndexBuild</c>, read back from the catalog.</summary>
public sealed record IndexBuildResult : IOperationResult
{
    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Port.</summary>
    public int Port { get; init; }

    /// <summary>Database.</summary>
    public required string Database { get; init; }

    /// <summary>Schema of table and index, as SQL writes it: quoted where it has to be, so that the next cmdlet finds it again.</summary>
    public required string Schema { get; init; }

    /// <summary>Table, as SQL writes it.</summary>
    public required string Table { get; init; }

    /// <summary>Name of the index, as SQL writes it.</summary>
    public required string Name { get; init; }

    /// <summary>What was done.</summary>
    public IndexBuildOutcome Outcome { get; init; }

    /// <summary>The index as the server describes it (<c>pg_get_indexdef</c>); as it was wanted, where it could not be built.</summary>
    public required string Definition { get; init; }

    /// <summary>Why it failed; null where it did not.</summary>
    public string? Error { get; init; }

    /// <summary>How often the build was started; of several partitions, the one that was started most.</summary>
    public int Attempts { get; init; }

    /// <summary>From the beginning to the verified end.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>Time of it that was spent waiting for others, as sampled. Builds of several partitions at once add theirs up.</summary>
    public TimeSpan WaitTime { get; init; }

    /// <summary>The part of it for other operations on the same table.</summary>
    public TimeSpan QueueWaitTime { get; init; }

    /// <summary>The part of it for transactions that had written to the table before.</summary>
    public TimeSpan WriterWaitTime { get; init; }

    /// <summary>The part of it for transactions with a snapshot older than the index.</summary>
    public TimeSpan SnapshotWaitTime { get; init; }

    /// <summary>The part of it for locks.</summary>
    public TimeSpan LockWaitTime { get; init; }

    /// <summary>Size of the index in bytes (<c>pg_relation_size</c>), of a partitioned one that of all its parts.</summary>
    public long SizeBytes { get; init; }

    /// <summary>The steps that ran, with their reversals; pipe the result to <c>New-RollbackScript</c>.</summary>
    public MigrationStep[] Steps { get; init; } = [];

    /// <summary>Number of its entry in the log of its database (<c>Get-MigrationHistory -Id</c>); null where it could not be recorded.</summary>
    public long? OperationId { get; init; }

    /// <summary>The session it was made in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}
