using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Indexes;

/// <summary>The index that is not wanted any more.</summary>
public sealed record IndexDropRequest
{
    /// <summary>Name of the index, as in SQL, with or without schema.</summary>
    public required string Name { get; init; }

    /// <summary>Schema, as in SQL; null for the one in <see cref="Name"/> or the search_path.</summary>
    public string? Schema { get; init; }

    /// <summary>Bounds under which it is dropped.</summary>
    public ExecutionOptions Options { get; init; } = new();

    /// <summary>How long the server may say nothing on any connection before the network counts as lost.</summary>
    internal TimeSpan Silence { get; init; } = TimeSpan.FromSeconds(15);
}

/// <summary>What <see cref="IndexDropper"/> is going to do. No steps: there is no such index.</summary>
public sealed record IndexDropPlan : OperationPlan
{
    /// <summary>What was asked for.</summary>
    public required IndexDropRequest Request { get; init; }

    /// <summary>The index; null where there is none.</summary>
    internal IndexDetails? Index { get; init; }
}
