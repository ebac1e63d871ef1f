using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Indexes;

/// <summary>The index that is wanted: a btree over plain columns of one ordinary table.</summary>
public sealed record IndexBuildRequest
{
    /// <summary>Table, as in SQL, with or without schema.</summary>
    public required string Table { get; init; }

    /// <summary>Schema, as in SQL; null for the one in <see cref="Table"/> or the search_path.</summary>
    public string? Schema { get; init; }

    /// <summary>Columns, as in SQL, in the order of the index.</summary>
    public required string[] Column { get; init; }

    /// <summary>Whether the index forbids duplicates.</summary>
    public bool Unique { get; init; }

    /// <summary>Name of the index, as in SQL; null for the one that PostgreSQL would choose.</summary>
    public string? Name { get; init; }

    /// <summary>Bounds under which it is built.</summary>
    public ExecutionOptions Options { get; init; } = new();

    /// <summary>How long the server may say nothing on any connection before the network counts as lost.</summary>
    internal TimeSpan Silence { get; init; } = TimeSpan.FromSeconds(15);
}
