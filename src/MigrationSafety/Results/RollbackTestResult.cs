namespace MigrationSafety;

/// <summary>A part of the test of a rollback.</summary>
public enum RollbackTestStage
{
    /// <summary>The scratch database is made, with the schema of the target and sample rows.</summary>
    Copy,

    /// <summary>The migration runs.</summary>
    Up,

    /// <summary>The rollback runs.</summary>
    Down,

    /// <summary>The migration runs again.</summary>
    UpAgain,
}

/// <summary>How a part of the test ended.</summary>
public enum RollbackTestOutcome
{
    /// <summary>It was not begun, since one before it failed.</summary>
    NotRun,

    /// <summary>All its statements ran.</summary>
    Succeeded,

    /// <summary>A statement failed.</summary>
    Failed,
}

/// <summary>A part of the test of a rollback, and how it went.</summary>
public sealed record RollbackTestPhase
{
    /// <summary>Which part.</summary>
    public RollbackTestStage Stage { get; init; }

    /// <summary>How it ended.</summary>
    public RollbackTestOutcome Outcome { get; init; }

    /// <summary>Statements that ran; the one that failed is not among them.</summary>
    public int Statements { get; init; }

    /// <summary>How long it took.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>File of the statement that failed; null where none did.</summary>
    public string? File { get; init; }

    /// <summary>Line of the statement that failed, from 1; null where none did.</summary>
    public int? Line { get; init; }

    /// <summary>The statement that failed; null where none did.</summary>
    public string? Statement { get; init; }

    /// <summary>SQLSTATE of the failure; null where there is none.</summary>
    public string? SqlState { get; init; }

    /// <summary>What the server said; null where nothing failed.</summary>
    public string? Message { get; init; }

    /// <inheritdoc />
    public override string ToString() => Outcome == RollbackTestOutcome.Failed ? $"{Stage} failed at {File}:{Line}: {Message}" : $"{Stage} {Outcome}";
}

/// <summary>Sample values that were there before the migration and are not after the rollback.</summary>
public sealed record LostValue
{
    /// <summary>The table, as <c>schema.name</c>, quoted where SQL needs it.</summary>
    public required string Table { get; init; }

    /// <summary>The column; null where rows are missing, or others are there.</summary>
    public string? Column { get; init; }

    /// <summary>In how many of the sampled rows.</summary>
    public long Rows { get; init; }

    /// <summary>How many rows of the table were sampled.</summary>
    public long Sampled { get; init; }

    /// <inheritdoc />
    public override string ToString() => Column is null ? $"{Table}: {Rows} of {Sampled} rows" : $"{Table}.{Column}: {Rows} of {Sampled} values";
}

/// <summary>The outcome of <c>Test-RollbackScript</c>.</summary>
public sealed record RollbackTestResult
{
    /// <summary>Server of the scratch database.</summary>
    public required string Server { get; init; }

    /// <summary>Port.</summary>
    public int Port { get; init; }

    /// <summary>The scratch database; it is gone when the test is over.</summary>
    public required string Database { get; init; }

    /// <summary>The database whose schema was copied, or the template that was used.</summary>
    public required string CopyOf { get; init; }

    /// <summary>The migration's file.</summary>
    public required string Path { get; init; }

    /// <summary>Where the rollback is from: a file, the migration's own part, or <c>New-RollbackScript</c>.</summary>
    public required string Rollback { get; init; }

    /// <summary>
    /// Whether all ran, the rollback left the schema exactly as it was before the migration, the migration ran again with the same effect, and all sample values came back.
    /// </summary>
    public bool Proved { get; init; }

    /// <summary>The parts of the test.</summary>
    public RollbackTestPhase[] Phases { get; init; } = [];

    /// <summary>How the schema after the rollback differs from that before the migration; none where the rollback is exact.</summary>
    public SchemaDifference[] Differences { get; init; } = [];

    /// <summary>How the schema after the second migration differs from that after the first.</summary>
    public SchemaDifference[] RepeatDifferences { get; init; } = [];

    /// <summary>Sample values that did not come back; none where none were asked for.</summary>
    public LostValue[] LostValues { get; init; } = [];

    /// <summary>How many rows were sampled; null where none were asked for.</summary>
    public long? SampledRows { get; init; }

    /// <summary>What else is to be known: what of the target the scratch database lacks, and why.</summary>
    public string[] Notes { get; init; } = [];

    /// <summary>From the beginning to the end, the making of the scratch database included.</summary>
    public TimeSpan Duration { get; init; }
}
