namespace MigrationSafety.Engine.Progress;

/// <summary>Which operations are asked for.</summary>
public sealed record ProgressFilter
{
    /// <summary>Table of the session's database, as in SQL, with or without schema, and its partitions; null for all tables of all databases.</summary>
    public string? Table { get; init; }

    /// <summary>Process id of the backend; null for all.</summary>
    public int? Pid { get; init; }

    /// <summary>Operations by name, such as <c>CREATE INDEX*</c>; case does not matter; empty for all.</summary>
    public IReadOnlyList<string> Operations { get; init; } = [];

    /// <summary>Only what the server has a view for: all that a watcher of one statement needs, at a fraction of the cost.</summary>
    internal bool ViewsOnly { get; init; }

    /// <summary>Whether an operation of this name is asked for.</summary>
    /// <param name="operation">Operation.</param>
    /// <returns>True where it is.</returns>
    internal bool Wants(string operation) =>
        Operations.Count == 0 || Operations.Any(pattern => System.IO.Enumeration.FileSystemName.MatchesSimpleExpression(pattern, operation, ignoreCase: true));
}
