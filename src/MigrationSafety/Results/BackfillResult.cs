namespace MigrationSafety;

/// <summary>How a backfill walks through a table.</summary>
public enum BackfillStrategy
{
    /// <summary>Chosen from the catalog: by blocks where the table is a heap, else along a key.</summary>
    Auto,

    /// <summary>In the physical order of the table's blocks (<c>ctid</c>): needs no key, reads each block once.</summary>
    Block,

    /// <summary>Along a unique B-tree index over NOT NULL columns.</summary>
    Key,
}

/// <summary>What became of a backfill.</summary>
public enum BackfillOutcome
{
    /// <summary>Every row that existed when it began is done.</summary>
    Completed,

    /// <summary>An earlier run had finished it and no row matches; nothing was done.</summary>
    AlreadyCompleted,

    /// <summary>Every row that existed when it began is done, but for those that the server refused: <see cref="BackfillResult.Errors"/> counts them.</summary>
    CompletedWithErrors,

    /// <summary>Somebody paused it; what is done stays, and the rest is done when it goes on.</summary>
    Paused,
}

/// <summary>The outcome of <c>Start-Backfill</c>, from the checkpoints that the server committed.</summary>
public sealed record BackfillResult : IOperationResult
{
    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Port of the server.</summary>
    public int Port { get; init; }

    /// <summary>Database.</summary>
    public required string Database { get; init; }

    /// <summary>Name of the backfill in <c>migration_safety.backfill</c>.</summary>
    public required string Name { get; init; }

    /// <summary>Schema of the table, as SQL writes it: quoted where it has to be, so that the next cmdlet finds it again.</summary>
    public required string Schema { get; init; }

    /// <summary>Table, as SQL writes it.</summary>
    public required string Table { get; init; }

    /// <summary>What was done.</summary>
    public BackfillOutcome Outcome { get; init; }

    /// <summary>Whether an interrupted run was resumed.</summary>
    public bool Resumed { get; init; }

    /// <summary>Rows updated by this run.</summary>
    public long Rows { get; init; }

    /// <summary>Rows updated by all runs of this backfill.</summary>
    public long TotalRows { get; init; }

    /// <summary>Batches committed by this run.</summary>
    public long Batches { get; init; }

    /// <summary>
    /// Rows that match the predicate at the end: inserted or changed by the application since the backfill passed them. Of a paused one an estimate; where they could not be counted
    /// (a warning says so) those that are known of.
    /// </summary>
    public long Remaining { get; init; }

    /// <summary>Rows that the server refused to update (a CHECK, a cast, a trigger), recorded in <c>migration_safety.backfill_error</c>; the same command run again tries them again.</summary>
    public long Errors { get; init; }

    /// <summary>The table that keeps what it overwrote or deleted, with <c>-KeepOldValues</c>; null where nothing is kept.</summary>
    public string? Archive { get; init; }

    /// <summary>How it walked through the table.</summary>
    public BackfillStrategy Strategy { get; init; }

    /// <summary>Duration of this run.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>Rows per second of this run.</summary>
    public double RowsPerSecond { get; init; }

    /// <summary>The steps that ran, with their reversals; pipe the result to <c>New-RollbackScript</c>.</summary>
    public MigrationStep[] Steps { get; init; } = [];

    /// <summary>Number of its entry in the log of its database (<c>Get-MigrationHistory -Id</c>); null where it could not be recorded.</summary>
    public long? OperationId { get; init; }

    /// <summary>The session it was made in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}
