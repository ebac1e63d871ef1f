namespace MigrationSafety;

/// <summary>An operation that is running on the server, as the server's progress views and this module's checkpoints tell it.</summary>
public sealed record MigrationProgress
{
    /// <summary>Process id of the backend that does the work; 0 for a backfill that nobody is running.</summary>
    public int Pid { get; init; }

    /// <summary>Operation: CREATE INDEX CONCURRENTLY, REINDEX ..., BACKFILL.</summary>
    public required string Operation { get; init; }

    /// <summary>Table as schema.name; of another database its oid.</summary>
    public string? Target { get; init; }

    /// <summary>The index that is being built, as schema.name; null where there is none yet, or where it is in another database.</summary>
    public string? Index { get; init; }

    /// <summary>Phase by PostgreSQL's name; of a backfill its state.</summary>
    public string? Phase { get; init; }

    /// <summary>Number of the phase, from 1; null where the operation has none.</summary>
    public int? PhaseNumber { get; init; }

    /// <summary>How many phases the operation has; null where it has none.</summary>
    public int? PhaseCount { get; init; }

    /// <summary>Work done in this phase, in <see cref="Unit"/>.</summary>
    public long? Done { get; init; }

    /// <summary>Work of this phase in all, in <see cref="Unit"/>.</summary>
    public long? Total { get; init; }

    /// <summary>What <see cref="Done"/> counts: blocks, tuples, transactions, rows.</summary>
    public string? Unit { get; init; }

    /// <summary>Percent of this phase.</summary>
    public double? PhasePercent { get; init; }

    /// <summary>How long the operation has run.</summary>
    public TimeSpan? Elapsed { get; init; }

    /// <summary>What it waits for right now: a lock, an old transaction, I/O; null while it works.</summary>
    public string? WaitingFor { get; init; }

    /// <summary>Process ids of those it waits for.</summary>
    public int[] BlockedBy { get; init; } = [];

    /// <summary>Query; null where this role may not see it.</summary>
    public string? Query { get; init; }

    /// <summary>Role.</summary>
    public string? User { get; init; }

    /// <summary>application_name.</summary>
    public string? Application { get; init; }

    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Database.</summary>
    public string? Database { get; init; }
}
