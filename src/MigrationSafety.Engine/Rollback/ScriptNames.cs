using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>A name of a script, found out as far as text and catalog tell.</summary>
/// <param name="Name">The name, with its schema where that is known.</param>
/// <param name="Known">Whether the name means one thing: false where the script's own search_path leaves several.</param>
/// <param name="Relation">What the catalog has of that relation before the migration; null where it has none or was not asked.</param>
internal sealed record ResolvedName(QualifiedName Name, bool Known, CatalogRelation? Relation);

/// <summary>
/// What names mean at a statement of a script: what the script has made, renamed and dropped before it. The script is walked twice, so that at an object's
/// creation it is known what becomes of it.
/// </summary>
internal sealed class ScriptNames
{
    private readonly Dictionary<(ObjectKind Kind, string Key), ScriptObject> _now = [];
    private readonly HashSet<(ObjectKind Kind, string Key)> _away = [];
    private readonly Dictionary<string, string?> _schemas = [];
    private readonly HashSet<CatalogAddress> _gone = [];
    private readonly HashSet<string> _goneNames = [];
    private readonly List<ScriptObject> _fates;
    private readonly List<ScriptObject> _made = [];

    /// <param name="catalog">The catalog; null without a session.</param>
    /// <param name="earlier">The first walk over the same script; null in the first.</param>
    internal ScriptNames(CatalogFacts? catalog, ScriptNames? earlier)
    {
        Catalog = catalog;
        _fates = earlier?._made ?? [];
    }

    /// <summary>The catalog; null without a session.</summary>
    internal CatalogFacts? Catalog { get; }

    /// <summary>Whether a name is one of something that the script has made or renamed.</summary>
    internal bool MakesOrRenames(string name) => _now.Values.SelectMany(o => o.Parts.Values.Append(o)).Any(o => o.Name.Name == name && o.Before != o.Name);

    /// <summary>Whether a name is, or was, one of something that the script has made, renamed or dropped, so that the catalog answers otherwise than it will then.</summary>
    internal bool Changes(string name) => MakesOrRenames(name) || _goneNames.Contains(name)
        || _now.Values.SelectMany(o => o.Parts.Values.Append(o)).Any(o => o.Before is { } before && before.Name == name && before != o.Name);

    /// <summary>What can be taken back only when every name is as it was.</summary>
    internal List<RollbackStatement> AtTheEnd { get; } = [];

    /// <summary>Objects of the catalog that have another name now.</summary>
    internal IEnumerable<ScriptObject> Renamed => _now.Values.Where(o => o.Before is { } before && before != o.Name);

    /// <summary>Schemas of the catalog that have another name now: the name before, and now.</summary>
    internal IEnumerable<(string Before, string Now)> RenamedSchemas => _schemas.Where(s => s.Value is not null).Select(s => (s.Value!, s.Key));

    /// <summary>Identities of what comes back only at the end, because of the names in its query.</summary>
    internal HashSet<string> Waiting { get; } = [];

    /// <summary>Partitions that the script has detached, by their names before it.</summary>
    internal HashSet<string> Detached { get; } = [];

    /// <summary>Columns of the catalog that have another name now: their names before, with that of their table.</summary>
    internal IEnumerable<(QualifiedName Table, string Column)> RenamedColumns =>
        from o in _now.Values
        where o.Before is not null && o.Kind.IsRelation()
        from part in o.Parts.Values
        where part is { Kind: ObjectKind.Column, Before: not null } && part.Before != part.Name
        select (o.Before, part.Before!.Name);

    /// <summary>Whether the script has dropped it, or with something else.</summary>
    internal bool IsGone(CatalogAddress address) => _gone.Contains(address);

    /// <summary>Notes that an object of the catalog goes.</summary>
    internal void Go(CatalogAddress address, string name)
    {
        _gone.Add(address);
        _goneNames.Add(name);
    }

    /// <summary>A relation that already exists.</summary>
    internal ResolvedName Existing(QualifiedName name, ScriptPath? path) => Resolve(ObjectKind.Table, name, "", path);

    /// <summary>Something that already exists.</summary>
    /// <param name="kind">Kind.</param>
    /// <param name="name">Name.</param>
    /// <param name="detail">Arguments of a routine and their like, in one way of writing them.</param>
    /// <param name="path">The path that the script has set.</param>
    internal ResolvedName Resolve(ObjectKind kind, QualifiedName name, string detail, ScriptPath? path)
    {
        if (name.Schema is not null || !kind.HasSchema())
        {
            return Found(kind, name);
        }

        IReadOnlyList<string>? schemas = path?.Schemas ?? Catalog?.SearchPath;
        foreach (string schema in schemas ?? [])
        {
            QualifiedName qualified = name with { Schema = schema };
            if (_now.ContainsKey(Key(kind, qualified, detail)) || InCatalog(kind, qualified))
            {
                return Found(kind, qualified);
            }
        }

        return path is null ? Found(kind, name)
            : path.Schemas.Count == 1 ? Found(kind, name with { Schema = path.Schemas[0] })
            : new ResolvedName(name, false, null);
    }

    /// <summary>A name that a statement gives to something that it makes.</summary>
    internal ResolvedName New(ObjectKind kind, QualifiedName name, ScriptPath? path)
    {
        if (name.Schema is not null || !kind.HasSchema())
        {
            return Found(kind, name);
        }

        return path is null ? Found(kind, name with { Schema = Catalog?.CreationSchema })
            : path.Schemas.Count > 0 ? Found(kind, name with { Schema = path.Schemas[0] })
            : new ResolvedName(name, false, null);
    }

    /// <summary>The object under a name; null where the script has not touched it.</summary>
    internal ScriptObject? Find(ObjectKind kind, QualifiedName name, string detail = "") => _now.GetValueOrDefault(Key(kind, name, detail));

    /// <summary>The table of the script under a name; null where the script does not make it for certain.</summary>
    internal ScriptObject? Made(QualifiedName name) => Find(ObjectKind.Table, name) is { Made: true } table ? table : null;

    /// <summary>The object under a name; noted where it was not yet.</summary>
    internal ScriptObject Touch(ObjectKind kind, QualifiedName name, string detail = "")
    {
        (ObjectKind, string) key = Key(kind, name, detail);
        if (!_now.TryGetValue(key, out ScriptObject? known))
        {
            _now[key] = known = new ScriptObject { Kind = kind, Name = name, Before = BeforeScript(name) };
            known.Fate = known;
        }

        return known;
    }

    /// <summary>Notes what a statement makes.</summary>
    /// <param name="kind">Kind.</param>
    /// <param name="name">Name.</param>
    /// <param name="certain">Whether it is made for certain.</param>
    /// <param name="detail">Arguments of a routine and their like.</param>
    internal ScriptObject Make(ObjectKind kind, QualifiedName name, bool certain, string detail = "")
    {
        ScriptObject made = New(kind, name, certain);
        _now[Key(kind, name, detail)] = made;
        return made;
    }

    /// <summary>Notes a column, constraint, trigger, rule or policy that a statement makes.</summary>
    internal ScriptObject MakePart(ScriptObject whole, ObjectKind kind, string name, bool certain = true)
    {
        ScriptObject made = New(kind, new QualifiedName(null, name), certain);
        whole.Parts[(kind, name)] = made;
        return made;
    }

    /// <summary>Notes a drop.</summary>
    internal void Drop(ObjectKind kind, QualifiedName name, string detail = "")
    {
        Leave(kind, name, detail).Dropped = true;
        if (kind == ObjectKind.Schema)
        {
            _schemas[name.Name] = null;
        }
    }

    /// <summary>Notes that a part of a relation is dropped.</summary>
    internal static void DropPart(ScriptObject whole, ObjectKind kind, string name)
    {
        whole.Gone.Add((kind, name));

        if (whole.Parts.Remove((kind, name), out ScriptObject? part))
        {
            part.Dropped = true;
        }
    }

    /// <summary>Notes a new name, or schema, of an object.</summary>
    internal void Rename(ObjectKind kind, QualifiedName name, QualifiedName to, string detail = "")
    {
        ScriptObject renamed = Leave(kind, name, detail);
        renamed.Name = to;
        _now[Key(kind, to, detail)] = renamed;
        if (kind != ObjectKind.Schema)
        {
            return;
        }

        _schemas[to.Name] = _schemas.GetValueOrDefault(name.Name) ?? name.Name;
        _schemas[name.Name] = null;
        foreach (((ObjectKind Kind, string Key) key, ScriptObject inside) in _now.Where(o => o.Value.Name.Schema == name.Name).ToList())
        {
            _now.Remove(key);
            inside.Name = inside.Name with { Schema = to.Name };
            string old = (inside.Name with { Schema = name.Name }).ToString();
            _now[(key.Kind, inside.Name + key.Key[old.Length..])] = inside;
        }
    }

    /// <summary>Notes a new name of a part of a relation.</summary>
    internal static void RenamePart(ScriptObject whole, ObjectKind kind, string name, string to)
    {
        if (!whole.Parts.Remove((kind, name), out ScriptObject? part))
        {
            part = new ScriptObject { Kind = kind, Name = new QualifiedName(null, name), Before = whole.Made ? null : new QualifiedName(null, name), Made = whole.Made };
            part.Fate = part;
        }

        part.Name = new QualifiedName(null, to);
        whole.Parts[(kind, to)] = part;
    }

    /// <summary>The name that an object of the catalog had before the script; null where the script makes it, or has put something else out of that place.</summary>
    internal QualifiedName? BeforeScript(ObjectKind kind, QualifiedName name, string detail = "") =>
        _now.TryGetValue(Key(kind, name, detail), out ScriptObject? known) ? known.Before
        : _away.Contains(Key(kind, name, detail)) ? null
        : BeforeScript(name);

    /// <summary>Whether something of the catalog is still there under its name when the statement runs.</summary>
    internal bool StillThere(ObjectKind kind, QualifiedName name) => !_away.Contains(Key(kind, name, ""));

    private static (ObjectKind, string) Key(ObjectKind kind, QualifiedName name, string detail) => (kind.Space(), name + detail);

    private ScriptObject New(ObjectKind kind, QualifiedName name, bool certain)
    {
        ScriptObject made = new() { Kind = kind, Name = name, Made = certain };
        made.Fate = _made.Count < _fates.Count ? _fates[_made.Count] : made;
        _made.Add(made);
        return made;
    }

    private ScriptObject Leave(ObjectKind kind, QualifiedName name, string detail)
    {
        ScriptObject left = Touch(kind, name, detail);
        _now.Remove(Key(kind, name, detail));
        if (left.Before is { } before)
        {
            _away.Add(Key(kind, before, detail));
            _away.Add(Key(kind, name, detail));
        }

        return left;
    }

    private QualifiedName? BeforeScript(QualifiedName name) =>
        name.Schema is not { } schema || !_schemas.TryGetValue(schema, out string? before) ? name
        : before is null ? null
        : name with { Schema = before };

    private bool InCatalog(ObjectKind kind, QualifiedName name) =>
        !_away.Contains(Key(kind, name, "")) && BeforeScript(name) is { Schema: { } schema } before && Catalog?.Has(kind, schema, before.Name) == true;

    private ResolvedName Found(ObjectKind kind, QualifiedName name) =>
        new(name, true, kind.Space() == ObjectKind.Table && BeforeScript(kind, name) is { Schema: { } schema } before ? Catalog?.Find(schema, before.Name) : null);
}
