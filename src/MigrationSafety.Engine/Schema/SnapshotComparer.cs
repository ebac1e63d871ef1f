namespace MigrationSafety.Engine.Schema;

/// <summary>Compares two snapshots, object by object and property by property.</summary>
public static class SnapshotComparer
{
    /// <summary>What makes the difference.</summary>
    /// <param name="reference">Reference side.</param>
    /// <param name="difference">Difference side.</param>
    /// <param name="excludedProperties">Properties that do not count, such as <c>Owner</c>.</param>
    /// <returns>The differences, ordered by kind and object; none where the schemas are equal. Of an object that is on one side alone, its parts are not told one by one.</returns>
    public static IReadOnlyList<SchemaDifference> Compare(SchemaSnapshot reference, SchemaSnapshot difference, IReadOnlyCollection<string> excludedProperties)
    {
        ArgumentNullException.ThrowIfNull(reference);
        ArgumentNullException.ThrowIfNull(difference);
        HashSet<string> excluded = new(excludedProperties, StringComparer.OrdinalIgnoreCase);
        Dictionary<(string Kind, string Identity), SchemaObject> before = ByName(reference);
        Dictionary<(string Kind, string Identity), SchemaObject> after = ByName(difference);
        HashSet<string> relationsBefore = Relations(reference);
        HashSet<string> relationsAfter = Relations(difference);
        List<SchemaDifference> found = [];
        foreach ((string Kind, string Identity) name in before.Keys.Union(after.Keys).OrderBy(n => n.Kind, StringComparer.Ordinal).ThenBy(n => n.Identity, StringComparer.Ordinal))
        {
            SchemaObject? old = before.GetValueOrDefault(name);
            SchemaObject? @new = after.GetValueOrDefault(name);
            if (old is null || @new is null)
            {
                SchemaObject only = (old ?? @new)!;
                if (only.Parent is null || (old is null ? relationsBefore : relationsAfter).Contains(only.Parent))
                {
                    found.Add(Of(difference, only, old is null ? SchemaChange.Added : SchemaChange.Removed, null, old is null ? null : Summary(old), @new is null ? null : Summary(@new)));
                }

                continue;
            }

            Dictionary<string, string> olds = old.Properties.ToDictionary(p => p.Name, p => p.Value, StringComparer.Ordinal);
            Dictionary<string, string> news = @new.Properties.ToDictionary(p => p.Name, p => p.Value, StringComparer.Ordinal);
            found.AddRange(
                from property in olds.Keys.Union(news.Keys).Order(StringComparer.Ordinal)
                where !excluded.Contains(property) && olds.GetValueOrDefault(property) != news.GetValueOrDefault(property)
                select Of(difference, old, SchemaChange.Changed, property, olds.GetValueOrDefault(property), news.GetValueOrDefault(property)));
        }

        return found;
    }

    // An overloaded identity (a not-null constraint that a partition has twice, say) is one object for a person too.
    private static Dictionary<(string Kind, string Identity), SchemaObject> ByName(SchemaSnapshot snapshot) =>
        snapshot.Objects.GroupBy(o => (o.Kind, o.Identity)).ToDictionary(same => same.Key, same => same.First());

    private static HashSet<string> Relations(SchemaSnapshot snapshot) => [.. snapshot.Objects.Where(o => o.Parent is null).Select(o => o.Identity)];

    private static SchemaDifference Of(SchemaSnapshot side, SchemaObject about, SchemaChange change, string? property, string? reference, string? difference) => new()
    {
        Change = change,
        Kind = about.Kind,
        Identity = about.Identity,
        Property = property,
        Reference = reference,
        Difference = difference,
        Server = side.Server,
        Port = side.Port,
        Database = side.Database,
    };

    private static string Summary(SchemaObject about) =>
        about.Properties.FirstOrDefault(p => p.Name == "Definition")?.Value ?? string.Join(", ", about.Properties.Where(p => p.Name is not ("Position" or "Owner" or "Privileges")).Select(p => $"{p.Name} {p.Value}"));
}
