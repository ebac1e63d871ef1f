namespace MigrationSafety;

/// <summary>What <see cref="MigrationProgress.Percent"/> and <see cref="MigrationProgress.Remaining"/> rest on, weakest first.</summary>
public enum ProgressConfidence
{
    /// <summary>Nothing can be told: the server counts nothing, or nothing moves.</summary>
    Unknown,

    /// <summary>How long its phases take beside each other is assumed.</summary>
    Assumed,

    /// <summary>Rests on the server's estimates (rows of a table), or on a rate that was seen for a moment only.</summary>
    Estimated,

    /// <summary>How long its phases take beside each other was learnt from finished operations in the log.</summary>
    Learnt,

    /// <summary>All that is left is counted by the server, and its rate was seen.</summary>
    Measured,
}

/// <summary>
/// An operation that is running on the server, as the server's progress views, its locks, and this module's checkpoints tell it. Null is what cannot be told or seen.
/// </summary>
public sealed record MigrationProgress
{
    /// <summary>Process id of the backend that does the work; 0 where none does: an interrupted backfill, a subscription without a worker.</summary>
    public int Pid { get; init; }

    /// <summary>Operation: CREATE INDEX CONCURRENTLY, VACUUM, ALTER TABLE, BACKFILL; INDEX DROP and the like of an operation of this module while no view shows what it is at; of a view that is not known here its name.</summary>
    public required string Operation { get; init; }

    /// <summary>Table as schema.name, of another database its oid; the subscription, slot or backup where there is no table.</summary>
    public string? Target { get; init; }

    /// <summary>The index that is worked on, as schema.name; null where there is none yet, or where it is in another database.</summary>
    public string? Index { get; init; }

    /// <summary>Name of a backfill, for Stop-Backfill and its kin; null for other operations.</summary>
    public string? Name { get; init; }

    /// <summary>Phase by PostgreSQL's name where it has one; of an operation of this module that no view shows, what its log has it at.</summary>
    public string? Phase { get; init; }

    /// <summary>Number of the phase, from 1; null where the operation has none.</summary>
    public int? PhaseNumber { get; init; }

    /// <summary>How many phases the operation has; null where it has none.</summary>
    public int? PhaseCount { get; init; }

    /// <summary>Work done in this phase, in <see cref="Unit"/>.</summary>
    public long? Done { get; init; }

    /// <summary>Work of this phase in all, in <see cref="Unit"/>.</summary>
    public long? Total { get; init; }

    /// <summary>What <see cref="Done"/> counts: blocks, tuples, transactions, rows, bytes, indexes, tables.</summary>
    public string? Unit { get; init; }

    /// <summary>Percent of this phase.</summary>
    public double? PhasePercent { get; init; }

    /// <summary>Percent of the whole operation, over all its phases. Never less than it was for the same operation while it is watched.</summary>
    public double? Percent { get; init; }

    /// <summary><see cref="Unit"/> per second, over the last while; waiting does not count.</summary>
    public double? Rate { get; init; }

    /// <summary>How long the operation has run, waiting included; of a backfill that was resumed, this run of it.</summary>
    public TimeSpan? Elapsed { get; init; }

    /// <summary>Estimated time to its end; null while it waits for others, since nobody can tell how long they stay.</summary>
    public TimeSpan? Remaining { get; init; }

    /// <summary>When it will have ended, by the server's clock.</summary>
    public DateTimeOffset? EstimatedEnd { get; init; }

    /// <summary>What <see cref="Percent"/> and <see cref="Remaining"/> rest on.</summary>
    public ProgressConfidence Confidence { get; init; }

    /// <summary>What it waits for right now: a lock, an old transaction, I/O, a throttle; null while it works.</summary>
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

    /// <summary>Port.</summary>
    public int Port { get; init; }

    /// <summary>Database; null for an operation on the whole server.</summary>
    public string? Database { get; init; }

    /// <summary>What the server counts, by the names of its columns: numbers, texts and booleans.</summary>
    public Dictionary<string, object> Counters { get; init; } = [];

    /// <summary>When it was seen so, by the server's clock.</summary>
    public required DateTimeOffset Timestamp { get; init; }

    /// <summary>The session that it was read in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}
