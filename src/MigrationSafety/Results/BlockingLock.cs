namespace MigrationSafety;

/// <summary>
/// A session that waits for a lock, or one that others wait for while it waits for nothing (a root). From <c>pg_stat_activity</c>, <c>pg_locks</c>,
/// <c>pg_prepared_xacts</c> and <c>pg_blocking_pids()</c>, in one snapshot.
/// </summary>
public sealed record BlockingLock
{
    /// <summary>Process id; 0 for a prepared transaction.</summary>
    public int Pid { get; init; }

    /// <summary>Global identifier of a prepared transaction, which only COMMIT PREPARED or ROLLBACK PREPARED ends; else null.</summary>
    public string? Gid { get; init; }

    /// <summary>Process ids of the direct blockers; of those before it in the queue the first hundred; 0 stands for a prepared transaction. Empty for a root.</summary>
    public int[] BlockingPid { get; init; } = [];

    /// <summary>Process id of the root under which this row stands.</summary>
    public int RootPid { get; init; }

    /// <summary>0 for a root, 1 for who waits for it, and so on.</summary>
    public int Depth { get; init; }

    /// <summary>Waits for nobody and holds others up.</summary>
    public bool IsRoot { get; init; }

    /// <summary>Waits in a circle: the server finds it after deadlock_timeout and cancels one of those in it.</summary>
    public bool IsDeadlock { get; init; }

    /// <summary>How many sessions wait for this one, directly or through others; parallel workers are part of their leader.</summary>
    public int BlockedCount { get; init; }

    /// <summary>How long it has waited (<c>pg_locks.waitstart</c>); null for a root.</summary>
    public TimeSpan? WaitTime { get; init; }

    /// <summary>
    /// Kind of lock waited for, as in pg_locks (<c>relation</c>, <c>transactionid</c>, <c>tuple</c>, <c>virtualxid</c>, <c>advisory</c> ...), or <c>recovery conflict</c>
    /// for the replay of a standby that waits for old snapshots (whom it names then is an estimate: the sessions with the oldest one); null for a root.
    /// </summary>
    public string? LockType { get; init; }

    /// <summary>Lock mode asked for, by PostgreSQL's name; null for a root.</summary>
    public string? RequestedMode { get; init; }

    /// <summary>Relation that is waited for as schema.name; of another database its oid and the database's name; for a row lock the row's table; of a root the relation for which the others wait.</summary>
    public string? Relation { get; init; }

    /// <summary>Strongest lock mode that it holds on a relation for which others wait, else on what they wait for; null where that cannot be told.</summary>
    public string? HeldMode { get; init; }

    /// <summary>Current or last query, cut at the length that was asked for; of a prepared transaction its gid; null where this role may not see it.</summary>
    public string? Query { get; init; }

    /// <summary>State as in pg_stat_activity, or <c>prepared</c>.</summary>
    public string? State { get; init; }

    /// <summary>Age of its transaction.</summary>
    public TimeSpan? TransactionAge { get; init; }

    /// <summary>How long it has been idle inside its transaction; null while it is active.</summary>
    public TimeSpan? IdleTime { get; init; }

    /// <summary>Role; null where this role may not see it.</summary>
    public string? User { get; init; }

    /// <summary>application_name.</summary>
    public string? Application { get; init; }

    /// <summary>Client address; null for a Unix socket and for the server's own processes.</summary>
    public string? ClientAddress { get; init; }

    /// <summary>backend_type as in pg_stat_activity.</summary>
    public string? BackendType { get; init; }

    /// <summary>An autovacuum that prevents transaction id wraparound: it never yields, and starts again when it is stopped.</summary>
    public bool PreventsWraparound { get; init; }

    /// <summary>When the backend started; with the pid it names a session for good.</summary>
    public DateTimeOffset? BackendStart { get; init; }

    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Port of the server: two servers of one host differ in it alone.</summary>
    public required int Port { get; init; }

    /// <summary>Database of the session.</summary>
    public string? Database { get; init; }

    /// <summary>When it was seen so, by the server's clock.</summary>
    public required DateTimeOffset Timestamp { get; init; }

    /// <summary>The session that it was read in: what stops it works there.</summary>
    internal MigrationSession? Origin { get; init; }
}
