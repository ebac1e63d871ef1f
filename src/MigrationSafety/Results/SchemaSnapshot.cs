namespace MigrationSafety;

/// <summary>A property of an object of the catalog.</summary>
public sealed record SchemaProperty
{
    /// <summary>Name, such as <c>Type</c>, <c>Default</c>, <c>Owner</c>.</summary>
    public required string Name { get; init; }

    /// <summary>Value as SQL writes it.</summary>
    public required string Value { get; init; }
}

/// <summary>An object of the catalog with everything that a migration can change about it.</summary>
public sealed record SchemaObject
{
    /// <summary>Kind by PostgreSQL's name: <c>table</c>, <c>table column</c>, <c>index</c>, <c>table constraint</c>, <c>function</c> ... (<c>pg_identify_object</c>).</summary>
    public required string Kind { get; init; }

    /// <summary>Full name, quoted where SQL needs it (<c>pg_identify_object</c>).</summary>
    public required string Identity { get; init; }

    /// <summary>Name of the schema that it is in, as in the catalog; null for what is in none, such as an extension.</summary>
    public string? Schema { get; init; }

    /// <summary>Relation that it is part of, by its <see cref="Identity"/>; null for what stands for itself.</summary>
    public string? Parent { get; init; }

    /// <summary>What is not as a new object of its kind has it, ordered by name.</summary>
    public SchemaProperty[] Properties { get; init; } = [];

    /// <inheritdoc />
    public override string ToString() => $"{Kind} {Identity}";
}

/// <summary>The schema of a database in canonical form: two databases with the same schema have the same objects with the same properties.</summary>
public sealed record SchemaSnapshot
{
    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Port.</summary>
    public int Port { get; init; }

    /// <summary>Database.</summary>
    public required string Database { get; init; }

    /// <summary>Version of the server. The same view or expression can be written differently by another major.</summary>
    public required Version ServerVersion { get; init; }

    /// <summary>When it was taken.</summary>
    public DateTimeOffset TakenAt { get; init; }

    /// <summary>The objects, ordered by kind and identity.</summary>
    public SchemaObject[] Objects { get; init; } = [];

    /// <summary>File that it was written to or read from; null where there is none.</summary>
    public string? Path { get; init; }

    /// <inheritdoc />
    public override string ToString() => Path ?? $"{Server}:{Port}/{Database}";
}
