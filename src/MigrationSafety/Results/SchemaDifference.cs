namespace MigrationSafety;

/// <summary>How two snapshots differ in an object.</summary>
public enum SchemaChange
{
    /// <summary>Only the difference side has the object.</summary>
    Added,

    /// <summary>Only the reference side has the object.</summary>
    Removed,

    /// <summary>Both have the object, and a property differs.</summary>
    Changed,
}

/// <summary>One difference between two snapshots of a schema.</summary>
public sealed record SchemaDifference
{
    /// <summary>What is different.</summary>
    public SchemaChange Change { get; init; }

    /// <summary>Kind of the object, as in <see cref="SchemaObject.Kind"/>.</summary>
    public required string Kind { get; init; }

    /// <summary>The object, as in <see cref="SchemaObject.Identity"/>.</summary>
    public required string Identity { get; init; }

    /// <summary>The property that differs; null where the whole object is added or removed.</summary>
    public string? Property { get; init; }

    /// <summary>Its value on the reference side; of a removed object its definition. Null where the property is not set.</summary>
    public string? Reference { get; init; }

    /// <summary>Its value on the difference side; of an added object its definition. Null where the property is not set.</summary>
    public string? Difference { get; init; }

    /// <summary>Server of the difference side.</summary>
    public required string Server { get; init; }

    /// <summary>Port of the difference side.</summary>
    public int Port { get; init; }

    /// <summary>Database of the difference side.</summary>
    public required string Database { get; init; }

    /// <inheritdoc />
    public override string ToString()
    {
        static string Short(string? value) => value is null ? "(none)" : string.Join(' ', value.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
        return $"{Change} {Kind} {Identity}{(Property is null ? "" : $" {Property}: {Short(Reference)} -> {Short(Difference)}")}";
    }
}
