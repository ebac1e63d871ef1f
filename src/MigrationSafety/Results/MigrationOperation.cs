namespace MigrationSafety;

/// <summary>What became of an operation.</summary>
public enum OperationOutcome
{
    /// <summary>It is at work.</summary>
    Running,

    /// <summary>It reached its end.</summary>
    Succeeded,

    /// <summary>It ended with an error.</summary>
    Failed,

    /// <summary>Its user stopped it, or somebody stopped the backfill (<c>Stop-Backfill</c>).</summary>
    Cancelled,

    /// <summary>Its client went away before its end: killed, cut off, crashed. Derived: nobody wrote an end, and the session that recorded it is gone.</summary>
    Interrupted,
}

/// <summary>A phase of an operation, as a progress view of the server named it, sampled; or a wait for its turn. Workers side by side are in phases of their own at the same time.</summary>
public sealed record OperationPhase
{
    /// <summary>Command by the server's name, such as <c>CREATE INDEX CONCURRENTLY</c>; null of a wait that no view tells.</summary>
    public string? Command { get; init; }

    /// <summary>What it was about, such as an index as <c>schema.name</c>; null where that cannot be seen.</summary>
    public string? Target { get; init; }

    /// <summary>Phase by the server's name, such as <c>building index: scanning table</c>; or what was waited for: another operation on the table, a free place, old transactions.</summary>
    public required string Name { get; init; }

    /// <summary>When it was first seen.</summary>
    public DateTimeOffset StartedAt { get; init; }

    /// <summary>From the first sight of it to the first of the next one.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>Time of it in which others were in the way.</summary>
    public TimeSpan WaitTime { get; init; }

    /// <summary>Work that was counted in it (blocks, tuples, transactions); null where nothing is counted.</summary>
    public long? Total { get; init; }
}

/// <summary>A stretch of an operation: what was done in it, and how far the standbys were behind. A long operation has longer ones.</summary>
public sealed record OperationSample
{
    /// <summary>The end of the stretch.</summary>
    public DateTimeOffset Time { get; init; }

    /// <summary>How long it was.</summary>
    public TimeSpan Interval { get; init; }

    /// <summary>Rows changed in it.</summary>
    public long Rows { get; init; }

    /// <summary>Batches committed in it.</summary>
    public long Batches { get; init; }

    /// <summary>Time that its batches took on the server, on average; null where there was none.</summary>
    public TimeSpan? BatchTime { get; init; }

    /// <summary>Time that its longest batch took on the server; null where there was none.</summary>
    public TimeSpan? LongestBatch { get; init; }

    /// <summary>How far the slowest standby was behind (<c>pg_stat_replication.replay_lag</c>), the worst seen; null where there is no standby or this role may not see it.</summary>
    public TimeSpan? Lag { get; init; }

    /// <summary>WAL in bytes that the slowest standby had still to replay, the worst seen; null as <see cref="Lag"/>.</summary>
    public long? LagBytes { get; init; }
}

/// <summary>An operation from the log in the database, <c>migration_safety.operation</c>: what <c>Get-MigrationHistory</c> returns.</summary>
public sealed record MigrationOperation : IOperationResult
{
    /// <summary>Number in the log of its database.</summary>
    public long Id { get; init; }

    /// <summary>Kind of operation: <c>IndexBuild</c>, <c>Backfill</c> ...</summary>
    public required string Operation { get; init; }

    /// <summary>What it worked on, mostly a table as <c>schema.name</c>.</summary>
    public required string Target { get; init; }

    /// <summary>Schema of the table, as SQL writes it; null where it was not about a table.</summary>
    public string? Schema { get; init; }

    /// <summary>Table, as SQL writes it; null where it was not about a table.</summary>
    public string? Table { get; init; }

    /// <summary>What it was asked to do, in words.</summary>
    public required string Action { get; init; }

    /// <summary>What became of it.</summary>
    public OperationOutcome Outcome { get; init; }

    /// <summary>When it began, by the server's clock.</summary>
    public DateTimeOffset StartedAt { get; init; }

    /// <summary>When it ended, by the server's clock; null where nobody recorded an end.</summary>
    public DateTimeOffset? FinishedAt { get; init; }

    /// <summary>How long it took; up to now for one that runs, up to its last sign of life for one that was interrupted.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>Time of it in which others were in the way of its steps, or had the turn; what overlaps counts once.</summary>
    public TimeSpan WaitTime { get; init; }

    /// <summary>How often a step or a batch had to be tried again.</summary>
    public long Retries { get; init; }

    /// <summary>Rows changed; null where it counted none.</summary>
    public long? Rows { get; init; }

    /// <summary>The worst of its steps that ran.</summary>
    public Reversibility Reversibility { get; init; }

    /// <summary>Stable id of the error that ended it, or of what it left undone: <c>BackfillStopped</c>, <c>RowsRefused</c>; null where there is none.</summary>
    public string? ErrorId { get; init; }

    /// <summary>SQLSTATE of that error; null where it was not the server's.</summary>
    public string? SqlState { get; init; }

    /// <summary>Message of that error, or what is left undone.</summary>
    public string? Message { get; init; }

    /// <summary>What was advised.</summary>
    public string? RecommendedAction { get; init; }

    /// <summary>Role that ran it.</summary>
    public string? User { get; init; }

    /// <summary>Address of the client as the server saw it; null for a Unix socket.</summary>
    public string? ClientAddress { get; init; }

    /// <summary>Account of the operating system on the client.</summary>
    public string? SystemUser { get; init; }

    /// <summary>Name of the client's machine.</summary>
    public string? ComputerName { get; init; }

    /// <summary>Program and version of this module that ran it.</summary>
    public string? Application { get; init; }

    /// <summary>Process id of the backend that recorded it.</summary>
    public int? Pid { get; init; }

    /// <summary>When that backend started.</summary>
    public DateTimeOffset? BackendStart { get; init; }

    /// <summary>The steps with their outcome, SQL, lock waits and reversals; pipe the object to <c>New-RollbackScript</c>.</summary>
    public MigrationStep[] Steps { get; init; } = [];

    /// <summary>The phases that the server's progress views named, and the waits for a turn, in the order in which they began.</summary>
    public OperationPhase[] Phases { get; init; } = [];

    /// <summary>Throughput, batch time and lag over time; at most a few hundred.</summary>
    public OperationSample[] Samples { get; init; } = [];

    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Port.</summary>
    public int Port { get; init; }

    /// <summary>Database.</summary>
    public required string Database { get; init; }

    /// <summary>The session in which it was read, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }

    /// <inheritdoc />
    public override string ToString() => $"{Id}: {Action} on {Target}, {Outcome}";
}
