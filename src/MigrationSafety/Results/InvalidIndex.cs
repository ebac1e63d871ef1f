namespace MigrationSafety;

/// <summary>Why an index is not valid.</summary>
public enum InvalidIndexReason
{
    /// <summary>A session is building, rebuilding or dropping it right now.</summary>
    InProgress,

    /// <summary>A concurrent build did not come to its end (or a drop that had only begun: both can leave the same).</summary>
    InterruptedBuild,

    /// <summary>A unique index whose build failed or was interrupted early: it takes no rows, so that new duplicates are accepted.</summary>
    FailedUniqueBuild,

    /// <summary>The new copy (<c>_ccnew</c>) of a REINDEX CONCURRENTLY that was interrupted before it took over; the original serves on.</summary>
    RebuildCopy,

    /// <summary>The old index (<c>_ccold</c>) that a REINDEX CONCURRENTLY replaced and could not drop any more; the new one serves.</summary>
    RebuildOriginal,

    /// <summary>A DROP INDEX CONCURRENTLY was interrupted.</summary>
    InterruptedDrop,

    /// <summary>An index of a partitioned table to which not every partition has a valid index attached.</summary>
    IncompletePartitioned,
}

/// <summary>What repairs an index that is not valid.</summary>
public enum InvalidIndexRepair
{
    /// <summary>Nothing: somebody is at work on it.</summary>
    Wait,

    /// <summary><c>Invoke-SafeIndexRebuild</c> makes it valid.</summary>
    Rebuild,

    /// <summary><c>Invoke-SafeIndexDrop</c> removes it; nothing is lost with it.</summary>
    Drop,

    /// <summary><c>Invoke-SafeIndexBuild</c> builds and attaches what is missing.</summary>
    Build,
}

/// <summary>
/// An index that queries cannot use, and why. From <c>pg_index</c>, <c>pg_stat_progress_create_index</c>, <c>pg_locks</c> and <c>pg_stat_all_indexes</c>; its name
/// binds to <c>Invoke-SafeIndexRebuild</c> and <c>Invoke-SafeIndexDrop</c>.
/// </summary>
public sealed record InvalidIndex
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

    /// <summary>Why it is not valid.</summary>
    public InvalidIndexReason Reason { get; init; }

    /// <summary>What repairs it.</summary>
    public InvalidIndexRepair Repair { get; init; }

    /// <summary>Why, in words: who is at work on it, what it was left by, what it costs, which partitions lack an index.</summary>
    public required string Detail { get; init; }

    /// <summary>What to run, in words.</summary>
    public required string Advice { get; init; }

    /// <summary>Whether each write to the table pays for it although no query uses it (<c>pg_index.indisready</c>).</summary>
    public bool PaidByWrites { get; init; }

    /// <summary>Whether it is a unique index.</summary>
    public bool Unique { get; init; }

    /// <summary>Size in bytes (<c>pg_relation_size</c>; of a partitioned index, of all that are attached to it).</summary>
    public long SizeBytes { get; init; }

    /// <summary>The index as the server describes it (<c>pg_get_indexdef</c>).</summary>
    public required string Definition { get; init; }

    /// <summary>Process id of the session that is at work on it; null where there is none.</summary>
    public int? Pid { get; init; }

    /// <summary>The index of the same definition beside which it was left by a rebuild, as SQL writes its name; null for other reasons.</summary>
    public string? Original { get; init; }

    /// <summary>Partitions that have no valid index attached, as schema.name; empty for other reasons.</summary>
    public string[] MissingPartition { get; init; } = [];

    /// <summary>The session it was read in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}
