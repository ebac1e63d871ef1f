namespace MigrationSafety;

/// <summary>A statement of a migration and what takes it back.</summary>
public sealed record RollbackStatement
{
    /// <summary>The forward statement.</summary>
    public required string Statement { get; init; }

    /// <summary>What takes it back; null where there is none.</summary>
    public string? Reversal { get; init; }

    /// <summary>Whether it can be taken back.</summary>
    public Reversibility Reversibility { get; init; }

    /// <summary>The strongest table lock that the reversal takes.</summary>
    public TableLockMode LockMode { get; init; }

    /// <summary>The relations that the reversal locks, as quoted <c>schema.name</c>.</summary>
    public string[] Objects { get; init; } = [];

    /// <summary>Whether the reversal may run inside a transaction block.</summary>
    public bool Transactional { get; init; } = true;

    /// <summary>How many rows are lost or lose values, by the planner's estimate (pg_class.reltuples); null where none are, or where the table was never analyzed.</summary>
    public long? EstimatedRows { get; init; }

    /// <summary>Data loss, limits, reasons.</summary>
    public string? Note { get; init; }

    /// <summary>Line of the forward statement in its file, from 1; null where it comes from a result.</summary>
    public int? Line { get; init; }

    /// <summary>What was done, in words, where the statement is one of many: a batch of a backfill; null where it is the whole.</summary>
    internal string? Whole { get; init; }

    /// <summary>What is taken back, for people.</summary>
    internal string Forward => Whole ?? Statement;
}

/// <summary>A rollback script: its text and, statement by statement in the order of the rollback, what it is made of.</summary>
public sealed record RollbackScript
{
    /// <summary>File or result that it takes back.</summary>
    public required string Source { get; init; }

    /// <summary>The script: ready to run with psql, or in the layout that was asked for.</summary>
    public required string Text { get; init; }

    /// <summary>The worst of its statements.</summary>
    public Reversibility Reversibility { get; init; }

    /// <summary>Statements, last forward statement first.</summary>
    public RollbackStatement[] Statements { get; init; } = [];

    /// <summary>The tool whose file the migration is.</summary>
    public MigrationFormat InputFormat { get; init; } = MigrationFormat.Plain;

    /// <summary>The file with the rollback that the migration already has; null where it has none.</summary>
    public string? ExistingPath { get; init; }

    /// <summary>How the rollback that the migration already has differs from this one; empty where it has none, or the same.</summary>
    public RollbackDifference[] Differences { get; init; } = [];

    /// <summary>What its tool will not do as the file wants it, and what is not read here.</summary>
    public string[] Warnings { get; init; } = [];

    /// <summary>The layout that its text and its files have.</summary>
    public RollbackFormat Format { get; init; }

    /// <summary>What to run before the migration, so that the rollback finds what it brings back; null without <c>-PreserveData</c>, and where nothing has to be kept.</summary>
    public string? BeforeText { get; init; }

    /// <summary>File that it was written to; null where none was asked for.</summary>
    public string? Path { get; init; }

    /// <summary>All files that were written: some tools need a script configuration, the way up, or several versions.</summary>
    public string[] Files { get; init; } = [];

    /// <summary>Its head, for the layouts of tools.</summary>
    internal string[] Header { get; init; } = [];

    /// <summary>File that <see cref="BeforeText"/> was written to; null where there is none.</summary>
    public string? BeforePath { get; init; }

    /// <inheritdoc />
    public override string ToString() => Text;
}
