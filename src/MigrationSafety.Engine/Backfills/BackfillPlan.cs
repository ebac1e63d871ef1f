using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What a backfill is going to do.</summary>
public sealed record BackfillPlan : OperationPlan
{
    /// <summary>Name under which it is recorded.</summary>
    public required string Name { get; init; }

    /// <summary>Rows that match, estimated from a sample of the table's blocks; exact for a small table.</summary>
    public long EstimatedRows { get; init; }

    /// <summary>Rows in the table, as the server's planner estimates them.</summary>
    public long EstimatedTableRows { get; init; }

    /// <summary>Whether an interrupted run is recorded, which this one resumes.</summary>
    public bool Resumes { get; init; }

    internal BackfillRequest Request { get; init; } = null!;

    internal BackfillDefinition Definition { get; init; } = null!;
}
