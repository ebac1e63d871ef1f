namespace MigrationSafety.Engine.History;

/// <summary>Which operations are asked for.</summary>
public sealed record HistoryFilter
{
    /// <summary>Numbers; empty for all.</summary>
    public IReadOnlyList<long> Id { get; init; } = [];

    /// <summary>Table as in SQL, with or without schema; null for all. It need not be there any more.</summary>
    public string? Table { get; init; }

    /// <summary>Kinds of operation, with <c>*</c> and <c>?</c>; empty for all. Capitals do not count.</summary>
    public IReadOnlyList<string> Operation { get; init; } = [];

    /// <summary>Outcomes; empty for all.</summary>
    public IReadOnlyList<OperationOutcome> Outcome { get; init; } = [];

    /// <summary>Those that began then or later; null for all.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>Those that began then or before; null for all.</summary>
    public DateTimeOffset? Until { get; init; }

    /// <summary>The latest of those that remain; null for all.</summary>
    public int? Last { get; init; }
}
