using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>A name of a script, found out as far as text and catalog tell.</summary>
/// <param name="Name">The name, with its schema where that is known.</param>
/// <param name="Known">Whether the name means one thing: false where the script's own search_path leaves several.</param>
/// <param name="Relation">What the catalog has of that name before the migration; null where it has none or was not asked.</param>
internal sealed record ResolvedName(QualifiedName Name, bool Known, CatalogRelation? Relation);

/// <summary>What a script makes before the statement in question, and what its names mean.</summary>
internal sealed class ScriptNames
{
    private readonly Dictionary<QualifiedName, ScriptTable> _tables = [];
    private readonly HashSet<string> _dropped = [];

    internal ScriptNames(CatalogFacts? catalog) => Catalog = catalog;

    /// <summary>The catalog; null without a session.</summary>
    internal CatalogFacts? Catalog { get; }

    /// <summary>Indexes that the script makes.</summary>
    internal HashSet<QualifiedName> Indexes { get; } = [];

    /// <summary>A table that already exists.</summary>
    internal ResolvedName Existing(QualifiedName name, ScriptPath? path)
    {
        if (name.Schema is not null)
        {
            return Found(name);
        }

        IReadOnlyList<string>? schemas = path?.Schemas ?? Catalog?.SearchPath;
        foreach (string schema in schemas ?? [])
        {
            QualifiedName qualified = name with { Schema = schema };
            if (_tables.ContainsKey(qualified) || Catalog?.Find(schema, name.Name) is not null)
            {
                return Found(qualified);
            }
        }

        return path is null ? Found(name)
            : path.Schemas.Count == 1 ? Found(name with { Schema = path.Schemas[0] })
            : new ResolvedName(name, false, null);
    }

    /// <summary>A table that a statement makes.</summary>
    internal ResolvedName New(QualifiedName name, ScriptPath? path)
    {
        if (name.Schema is not null)
        {
            return Found(name);
        }

        return path is null ? Found(name with { Schema = Catalog?.CreationSchema })
            : path.Schemas.Count > 0 ? Found(name with { Schema = path.Schemas[0] })
            : new ResolvedName(name, false, null);
    }

    /// <summary>The table of the script under a name; null where the script does not make it for certain.</summary>
    internal ScriptTable? Made(QualifiedName name) => _tables.GetValueOrDefault(name) is { Certain: true } table ? table : null;

    /// <summary>All that the script does with a table, made on first need.</summary>
    internal ScriptTable Table(QualifiedName name)
    {
        if (!_tables.TryGetValue(name, out ScriptTable? table))
        {
            _tables[name] = table = new ScriptTable();
        }

        return table;
    }

    /// <summary>Notes the names in a statement that drops or renames, so that nothing is concluded from their being in the catalog.</summary>
    internal void NoteDropped(SqlStatement statement)
    {
        foreach (SqlToken token in statement.Tokens)
        {
            if (SqlReader.NameOf(statement.Script, token) is { } name)
            {
                _dropped.Add(name);
            }
        }
    }

    /// <summary>Whether something of the catalog is still there when the statement runs, as far as the script tells.</summary>
    internal bool StillThere(string name) => !_dropped.Contains(name);

    private ResolvedName Found(QualifiedName name) =>
        new(name, true, name.Schema is { } schema && StillThere(name.Name) ? Catalog?.Find(schema, name.Name) : null);
}

/// <summary>What a script does with a table.</summary>
internal sealed class ScriptTable
{
    /// <summary>Whether the script makes the table, and makes it for certain.</summary>
    internal bool Certain { get; set; }

    /// <summary>Columns that the script adds or makes.</summary>
    internal HashSet<string> Columns { get; } = [];

    /// <summary>Constraints that the script adds.</summary>
    internal HashSet<string> Constraints { get; } = [];

    /// <summary>Tables that its foreign keys point to, by the script, and the table whose partition it is.</summary>
    internal HashSet<QualifiedName> Parents { get; } = [];
}
