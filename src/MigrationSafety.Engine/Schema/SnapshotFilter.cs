using System.IO.Enumeration;

namespace MigrationSafety.Engine.Schema;

/// <summary>Which part of a snapshot counts.</summary>
public sealed record SnapshotFilter
{
    /// <summary>Schemas, with <c>*</c> and <c>?</c> as wildcards; empty for all, and for what is in no schema.</summary>
    public IReadOnlyList<string> Include { get; init; } = [];

    /// <summary>Schemas that are left out, with the same wildcards.</summary>
    public IReadOnlyList<string> Exclude { get; init; } = [];

    /// <summary>The part of a snapshot that counts.</summary>
    /// <param name="snapshot">Snapshot.</param>
    /// <returns>A snapshot with these objects alone.</returns>
    public SchemaSnapshot Of(SchemaSnapshot snapshot)
    {
        ArgumentNullException.ThrowIfNull(snapshot);
        return snapshot with { Objects = [.. snapshot.Objects.Where(o => (Include.Count == 0 || Matches(Include, o.Schema)) && !Matches(Exclude, o.Schema))] };
    }

    private static bool Matches(IReadOnlyList<string> patterns, string? schema) =>
        schema is not null && patterns.Any(pattern => FileSystemName.MatchesSimpleExpression(pattern, schema, ignoreCase: false));
}
