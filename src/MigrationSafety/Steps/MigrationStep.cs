namespace MigrationSafety;

/// <summary>What a step costs the server.</summary>
public enum StepCost
{
    /// <summary>Catalog only: its time does not depend on the size of the table.</summary>
    Instant,

    /// <summary>Reads the whole table.</summary>
    ScansTable,

    /// <summary>Writes the whole table anew.</summary>
    RewritesTable,

    /// <summary>Builds an index: reads the table, writes an index.</summary>
    BuildsIndex,

    /// <summary>Writes rows in batches, each in a transaction of its own.</summary>
    UpdatesRows,
}

/// <summary>What became of a step.</summary>
public enum StepState
{
    /// <summary>Not run yet.</summary>
    Planned,

    /// <summary>The server committed it.</summary>
    Done,

    /// <summary>Not needed: the server was already in the state that the step leads to.</summary>
    Skipped,

    /// <summary>The server refused it or it was given up.</summary>
    Failed,

    /// <summary>It was under way when its user stopped the operation.</summary>
    Cancelled,
}

/// <summary>Whether and how well something can be taken back.</summary>
public enum Reversibility
{
    /// <summary>The reversal restores the state before, data included.</summary>
    Reversible,

    /// <summary>The reversal restores the schema; data is lost on the way. The note says which.</summary>
    ReversibleWithDataLoss,

    /// <summary>No reversal exists; the note says why.</summary>
    Irreversible,

    /// <summary>Nothing needs to be taken back.</summary>
    NotNeeded,

    /// <summary>What a reversal would have to be cannot be told from what is known; the note says what is missing.</summary>
    Unknown,
}

/// <summary>
/// One step of a plan, and after execution its outcome: the common currency of everything that changes a database.
/// </summary>
public sealed record MigrationStep
{
    /// <summary>The statement, exactly as it is sent.</summary>
    public required string Sql { get; init; }

    /// <summary>Why the step is there, in a few words.</summary>
    public required string Purpose { get; init; }

    /// <summary>The strongest table lock that the statement takes on <see cref="Objects"/>.</summary>
    public TableLockMode LockMode { get; init; }

    /// <summary>Every relation that the statement locks in <see cref="LockMode"/>, as quoted <c>schema.name</c>.</summary>
    public string[] Objects { get; init; } = [];

    /// <summary>False for statements that PostgreSQL refuses inside a transaction block (CREATE INDEX CONCURRENTLY and its kin).</summary>
    public bool Transactional { get; init; } = true;

    /// <summary>What it costs the server.</summary>
    public StepCost Cost { get; init; }

    /// <summary>The statement that takes the step back; null where there is none.</summary>
    public string? Reversal { get; init; }

    /// <summary>What must be known about the reversal: data loss, limits, reasons. Null where nothing must be.</summary>
    public string? ReversalNote { get; init; }

    /// <summary>Whether the step can be taken back.</summary>
    public Reversibility Reversibility { get; init; }

    /// <summary>What became of it.</summary>
    public StepState State { get; init; }

    /// <summary>How often it was sent; more than once where a lock could not be had in time.</summary>
    public int Attempts { get; init; }

    /// <summary>When it began, by this client's clock; null where it has not.</summary>
    public DateTimeOffset? StartedAt { get; init; }

    /// <summary>From the first attempt to the end, waiting included.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>Who was in the way, in the order in which it was seen.</summary>
    public LockWait[] LockWaits { get; init; } = [];

    /// <summary>Whether it makes what this module keeps its own records in, which touches no table of the application.</summary>
    internal bool IsHousekeeping { get; init; }

    /// <summary>Its purpose: a list of steps stays short where PowerShell shows it.</summary>
    /// <returns><see cref="Purpose"/>.</returns>
    public override string ToString() => Purpose;
}
