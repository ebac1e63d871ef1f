namespace MigrationSafety.Engine.Progress;

/// <summary>Which operations are asked for.</summary>
public sealed record ProgressFilter
{
    /// <summary>Table of the session's database, as in SQL, with or without schema; null for all tables of all databases.</summary>
    public string? Table { get; init; }

    /// <summary>Process id of the backend; null for all.</summary>
    public int? Pid { get; init; }
}
