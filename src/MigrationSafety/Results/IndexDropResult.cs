namespace MigrationSafety;

/// <summary>What became of dropping an index.</summary>
public enum IndexDropOutcome
{
    /// <summary>Dropped now.</summary>
    Dropped,

    /// <summary>There is no such index; nothing was done.</summary>
    AlreadyGone,
}

/// <summary>The outcome of <c>Invoke-SafeIndexDrop</c>.</summary>
public sealed record IndexDropResult : IOperationResult
{
    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Port.</summary>
    public int Port { get; init; }

    /// <summary>Database.</summary>
    public required string Database { get; init; }

    /// <summary>Schema of table and index, as SQL writes it; null where there is no such index and none was named.</summary>
    public string? Schema { get; init; }

    /// <summary>Table, as SQL writes it; null where there is no such index.</summary>
    public string? Table { get; init; }

    /// <summary>Name of the index, as SQL writes it.</summary>
    public required string Name { get; init; }

    /// <summary>What was done.</summary>
    public IndexDropOutcome Outcome { get; init; }

    /// <summary>The index as the server described it (<c>pg_get_indexdef</c>); null where there is no such index. The reversal in <see cref="Steps"/> has all that belongs to it.</summary>
    public string? Definition { get; init; }

    /// <summary>How often the drop was started.</summary>
    public int Attempts { get; init; }

    /// <summary>From the beginning to the verified end.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>Time of it that was spent waiting for others, as sampled.</summary>
    public TimeSpan WaitTime { get; init; }

    /// <summary>Size of the index in bytes before it was dropped (<c>pg_relation_size</c>).</summary>
    public long SizeBytes { get; init; }

    /// <summary>The step that ran, with the reversal that builds the index again; pipe the result to <c>New-RollbackScript</c>.</summary>
    public MigrationStep[] Steps { get; init; } = [];

    /// <summary>Number of its entry in the log of its database (<c>Get-MigrationHistory -Id</c>); null where it could not be recorded.</summary>
    public long? OperationId { get; init; }

    /// <summary>The session it was made in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}
