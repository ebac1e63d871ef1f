using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What a backfill is going to do.</summary>
public sealed record BackfillPlan : OperationPlan
{
    /// <summary>Name under which it is recorded.</summary>
    public required string Name { get; init; }

    /// <summary>Rows that match, estimated from a sample of the table's blocks; exact for a small table.</summary>
    public long EstimatedRows { get; init; }

    /// <summary>How it walks through the table.</summary>
    public BackfillStrategy Strategy { get; init; }

    /// <summary>Why it walks so, in words.</summary>
    public string Reason { get; init; } = "";

    /// <summary>The server's plan of a batch, as lines of EXPLAIN.</summary>
    public string BatchPlan { get; init; } = "";

    /// <summary>Rows in the table, estimated from the same sample.</summary>
    public long EstimatedTableRows { get; init; }

    /// <summary>How long it will take; assumed, or measured where <see cref="BackfillRequest.SampleBatch"/> asked for it.</summary>
    public TimeSpan EstimatedTime { get; init; }

    /// <summary>WAL that it will write, in bytes; from the catalog or measured.</summary>
    public long EstimatedWalBytes { get; init; }

    /// <summary>Whether an interrupted run is recorded, which this one resumes.</summary>
    public bool Resumes { get; init; }

    internal BackfillRequest Request { get; init; } = null!;

    internal BackfillDefinition Definition { get; init; } = null!;

    /// <summary>What <see cref="Resumes"/> means; null where nothing is.</summary>
    internal BackfillRecord? Resumed { get; init; }

    internal BackfillSample Sample { get; init; } = null!;
}
