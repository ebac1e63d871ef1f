namespace MigrationSafety;

/// <summary>What a backfill is doing.</summary>
public enum BackfillState
{
    /// <summary>Somebody works on it; on a standby, which does not see who works on the primary: it is neither stopped nor at its end.</summary>
    Running,

    /// <summary>It was stopped, and whoever works on it has not ended the last batch yet.</summary>
    Pausing,

    /// <summary>It was stopped; <c>Resume-Backfill</c> goes on.</summary>
    Paused,

    /// <summary>Nobody works on it, although nobody stopped it: its client ended or was lost. <c>Resume-Backfill</c> goes on.</summary>
    Interrupted,

    /// <summary>Every row that existed when it began is done.</summary>
    Completed,

    /// <summary>Every row that existed when it began is done, but for those that the server refused. Mend them, then <c>Resume-Backfill</c> tries them again.</summary>
    CompletedWithErrors,
}

/// <summary>A backfill as its server has it, from <c>Get-Backfill</c>: whoever started it, and from wherever.</summary>
public sealed record BackfillStatus
{
    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>TCP port of the server, or the suffix of its Unix socket.</summary>
    public int Port { get; init; }

    /// <summary>Database.</summary>
    public required string Database { get; init; }

    /// <summary>Its name.</summary>
    public required string Name { get; init; }

    /// <summary>Schema of its table, as SQL writes it.</summary>
    public required string Schema { get; init; }

    /// <summary>Its table, as SQL writes it.</summary>
    public required string Table { get; init; }

    /// <summary>What it does, as SQL: <c>tier = 'standard'</c>.</summary>
    public required string Action { get; init; }

    /// <summary>The condition of the rows that it does.</summary>
    public required string Where { get; init; }

    /// <summary>The table that keeps what it overwrites or deletes; null where nothing is kept, or the table is gone.</summary>
    public string? Archive { get; init; }

    /// <summary>How it walks through the table.</summary>
    public BackfillStrategy Strategy { get; init; }

    /// <summary>What it is doing.</summary>
    public BackfillState State { get; init; }

    /// <summary>0 while it passes through its ranges, then the number of the sweep over rows that were locked, moved or new.</summary>
    public int Sweep { get; init; }

    /// <summary>How much of the table it has passed, from 0 to 100; null where the table's size was not known.</summary>
    public double? Percent { get; init; }

    /// <summary>Rows that it has changed, in all runs.</summary>
    public long Done { get; init; }

    /// <summary>Rows that are still to be changed, estimated from those that matched when it began or was last taken up; <c>Test-Backfill</c> counts them.</summary>
    public long Remaining { get; init; }

    /// <summary>Rows a second of those who work on it now; null where nobody does.</summary>
    public double? RowsPerSecond { get; init; }

    /// <summary>How long it will take at that rate; null where that cannot be told, as while it is paused or sweeps.</summary>
    public TimeSpan? RemainingTime { get; init; }

    /// <summary>Why it is slow or paused by itself; null where it is not.</summary>
    public string? WaitingFor { get; init; }

    /// <summary>Since when.</summary>
    public DateTimeOffset? WaitingSince { get; init; }

    /// <summary>Rows that the server refused, which are to be mended.</summary>
    public long Errors { get; init; }

    /// <summary>Those rows, with <c>-IncludeError</c>.</summary>
    public BackfillError[] ErrorRows { get; init; } = [];

    /// <summary>What ended it last, or why the latest row was refused; null where nothing did.</summary>
    public string? LastError { get; init; }

    /// <summary>Those who work on it now; a standby sees none.</summary>
    public BackfillWorkerStatus[] Workers { get; init; } = [];

    /// <summary>How many workers a client was asked for last.</summary>
    public int WorkersWanted { get; init; }

    /// <summary>How long a batch should take.</summary>
    public TimeSpan TargetBatchTime { get; init; }

    /// <summary>How many rows the server may refuse.</summary>
    public long MaxErrors { get; init; }

    /// <summary>When it slows down and pauses by itself, in words.</summary>
    public string Throttle { get; init; } = "";

    /// <summary>The search_path with which its expressions are read, whoever takes it up: as it worked out for the role that began it.</summary>
    public string SearchPath { get; init; } = "";

    /// <summary>The TimeZone with which its expressions are read, whoever takes it up.</summary>
    public string TimeZone { get; init; } = "";

    /// <summary>Role that began it.</summary>
    public string? User { get; init; }

    /// <summary>When it began.</summary>
    public DateTimeOffset StartedAt { get; init; }

    /// <summary>When it was last worked on.</summary>
    public DateTimeOffset UpdatedAt { get; init; }

    /// <summary>When it was completed; null where it was not.</summary>
    public DateTimeOffset? FinishedAt { get; init; }

    /// <summary>The session it was read in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}

/// <summary>A connection that works on a backfill.</summary>
public sealed record BackfillWorkerStatus
{
    /// <summary>Number among those of its client.</summary>
    public int Number { get; init; }

    /// <summary>Process id of its backend.</summary>
    public int Pid { get; init; }

    /// <summary>Its application_name.</summary>
    public string? Application { get; init; }

    /// <summary>Address of its client; null on a Unix socket.</summary>
    public string? ClientAddress { get; init; }

    /// <summary>Its role.</summary>
    public string? User { get; init; }

    /// <summary>Rows that it has changed.</summary>
    public long Rows { get; init; }

    /// <summary>Batches that it has committed.</summary>
    public long Batches { get; init; }

    /// <summary>When it began.</summary>
    public DateTimeOffset StartedAt { get; init; }

    /// <summary>When it was last heard of.</summary>
    public DateTimeOffset Heartbeat { get; init; }

    /// <inheritdoc />
    public override string ToString() => $"pid {Pid}{(User is null ? "" : $", {User}")}{(ClientAddress is null ? "" : $" from {ClientAddress}")}";
}

/// <summary>A row that the server refused to change.</summary>
public sealed record BackfillError
{
    /// <summary>Table that holds it, a partition where the backfill's table has them.</summary>
    public required string Table { get; init; }

    /// <summary>Columns of its key; none where the table has no unique key.</summary>
    public string[] KeyColumn { get; init; } = [];

    /// <summary>Its key, as texts; none where the table has no unique key.</summary>
    public string[] Key { get; init; } = [];

    /// <summary>Where it lay (<c>ctid</c>).</summary>
    public required string Place { get; init; }

    /// <summary>SQLSTATE.</summary>
    public required string SqlState { get; init; }

    /// <summary>What the server said.</summary>
    public required string Message { get; init; }

    /// <summary>When.</summary>
    public DateTimeOffset FailedAt { get; init; }

    /// <summary>Whether it is to be tried again by those who work on it.</summary>
    public bool Again { get; init; }

    /// <inheritdoc />
    public override string ToString() => $"{Table} {(Key.Length > 0 ? $"({string.Join(", ", KeyColumn)}) = ({string.Join(", ", Key)})" : $"ctid {Place}")}: {Message}";
}
