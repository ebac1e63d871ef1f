namespace MigrationSafety.Engine.Locks;

/// <summary>What part of the tree is wanted. A row that is wanted comes with all those it waits for, so that the culprit is always there.</summary>
public sealed record BlockingLockFilter
{
    /// <summary>Waits for this table alone, its partitions, indexes and toast included; as in SQL.</summary>
    public string? Table { get; init; }

    /// <summary>Waits of these sessions, and those who wait for them.</summary>
    public IReadOnlyList<int> Pids { get; init; } = [];

    /// <summary>Waits that have lasted as long.</summary>
    public TimeSpan MinimumWait { get; init; }

    /// <summary>Only those who wait for nobody, or stand first in a circle.</summary>
    public bool RootOnly { get; init; }

    /// <summary>Most characters of a query; 0 for none.</summary>
    public int QueryLength { get; init; } = 1000;
}
