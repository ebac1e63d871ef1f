using MigrationSafety.Engine.Sql.Statements;
using Npgsql;

namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>What depends on what, by <c>pg_depend</c>: what goes with what, and in which order things have to be made.</summary>
internal sealed class DependencyGraph
{
    // What is part of a thing that one definition makes stands for that thing.
    private const string Aliases = """
        select 'pg_rewrite'::regclass::oid, oid, 'pg_class'::regclass::oid, ev_class, 0 from pg_rewrite where rulename = '_RETURN'
        union all
        select 'pg_type'::regclass::oid, reltype, 'pg_class'::regclass::oid, oid, 0 from pg_class where reltype <> 0 and relkind <> 'c'
        union all
        select 'pg_class'::regclass::oid, c.oid, 'pg_type'::regclass::oid, c.reltype, 0 from pg_class c where c.relkind = 'c'
        union all
        select 'pg_type'::regclass::oid, typarray, 'pg_type'::regclass::oid, oid, 0 from pg_type where typarray >= 16384
        union all
        select 'pg_type'::regclass::oid, rngmultitypid, 'pg_type'::regclass::oid, rngtypid, 0 from pg_range where rngmultitypid >= 16384
        union all
        select 'pg_class'::regclass::oid, conindid, 'pg_constraint'::regclass::oid, oid, 0 from pg_constraint where contype in ('p', 'u', 'x')
        union all
        select 'pg_constraint'::regclass::oid, k.oid, 'pg_constraint'::regclass::oid, k.conparentid, 0
        from pg_constraint k join pg_constraint p on p.oid = k.conparentid
        where k.contype = 'f' and (k.conname = p.conname or k.conrelid = p.conrelid)
        union all
        select 'pg_trigger'::regclass::oid, t.oid, 'pg_constraint'::regclass::oid, t.tgconstraint, 0 from pg_trigger t where t.tgisinternal and t.tgconstraint <> 0
        union all
        select classid, objid, refclassid, refobjid, 0 from pg_depend where classid in ('pg_proc'::regclass, 'pg_cast'::regclass) and refclassid = 'pg_type'::regclass and deptype = 'i'
        union all
        select 'pg_class'::regclass::oid, reltoastrelid, 'pg_class'::regclass::oid, oid, 0 from pg_class where reltoastrelid <> 0
        union all
        select case d.classid when 'pg_amop'::regclass then 'pg_amop'::regclass else 'pg_amproc'::regclass end::oid, d.objid, d.refclassid, d.refobjid, 0
        from pg_depend d
        where d.classid in ('pg_amop'::regclass, 'pg_amproc'::regclass) and d.refclassid in ('pg_opclass'::regclass, 'pg_opfamily'::regclass)
          and (d.refclassid = 'pg_opclass'::regclass or not exists (select from pg_depend c where c.classid = d.classid and c.objid = d.objid and c.refclassid = 'pg_opclass'::regclass))
        union all
        select classid, objid, refclassid, refobjid, 0 from pg_depend where deptype = 'e'
        """;

    // A default stands for itself, unless its column is generated: that cannot be without it.
    private const string Defaults = """
        select d.oid, d.adrelid, d.adnum::int4, a.attgenerated <> ''
        from pg_attrdef d
        join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
        where d.oid >= 16384
        """;

    private const string Edges = """
        select classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype from pg_depend where objid >= 16384 and deptype in ('n', 'a', 'i', 'P', 'S', 'e')
        union all
        select 'pg_class'::regclass::oid, inhrelid, 0, 'pg_class'::regclass::oid, inhparent, 0, 'I' from pg_inherits
        """;

    private readonly Dictionary<CatalogAddress, CatalogAddress> _aliases = [];
    private readonly Dictionary<uint, (CatalogAddress Column, bool Generated)> _defaults = [];
    private readonly List<(CatalogAddress From, CatalogAddress To, char Type)> _edges = [];
    private readonly HashSet<CatalogAddress> _internal;
    private readonly ILookup<(uint ClassId, uint ObjectId), (CatalogAddress From, int ToSubId, char Type)> _dependents;

    private DependencyGraph(
        Dictionary<CatalogAddress, CatalogAddress> aliases,
        Dictionary<uint, (CatalogAddress Column, bool Generated)> defaults,
        List<(CatalogAddress From, CatalogAddress To, char Type)> edges)
    {
        (_aliases, _defaults, _edges) = (aliases, defaults, edges);
        _internal = [.. edges.Where(e => e.Type == 'i' && e.From.ClassId == CatalogAddress.Constraints && e.To.ClassId == CatalogAddress.Constraints).Select(e => e.From)];
        _dependents = edges.Where(e => e.Type != 'I').ToLookup(e => (e.To.ClassId, e.To.ObjectId), e => (e.From, e.To.SubId, e.Type));
    }

    internal static async Task<DependencyGraph> ReadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        Dictionary<CatalogAddress, CatalogAddress> aliases = [];
        Dictionary<uint, (CatalogAddress Column, bool Generated)> defaults = [];
        List<(CatalogAddress From, CatalogAddress To, char Type)> edges = [];
        await ForEachAsync(connection, Aliases, reader => aliases[Address(reader, 0, null)] = Address(reader, 2, 4), cancellationToken).ConfigureAwait(false);
        await ForEachAsync(
            connection,
            Defaults,
            reader => defaults[reader.GetFieldValue<uint>(0)] = (new(CatalogAddress.Relations, reader.GetFieldValue<uint>(1), reader.GetInt32(2)), reader.GetBoolean(3)),
            cancellationToken).ConfigureAwait(false);
        await ForEachAsync(connection, Edges, reader => edges.Add((Address(reader, 0, 2), Address(reader, 3, 5), reader.GetChar(6))), cancellationToken).ConfigureAwait(false);
        return new DependencyGraph(aliases, defaults, edges);
    }

    /// <summary>The column of a default; null where it is no default.</summary>
    internal CatalogAddress? ColumnOf(CatalogAddress address) =>
        address.ClassId == CatalogAddress.AttributeDefaults && _defaults.TryGetValue(address.ObjectId, out var found) ? found.Column : null;

    /// <summary>What is made by the definition of something else, by the address of that.</summary>
    internal CatalogAddress Canonical(CatalogAddress address)
    {
        if (address.ClassId == CatalogAddress.AttributeDefaults && _defaults.TryGetValue(address.ObjectId, out var found) && found.Generated)
        {
            address = found.Column;
        }

        // A chain is short: an array of a multirange of a range.
        for (int i = 0; i < 4 && _aliases.TryGetValue(address.Whole, out CatalogAddress better); i++)
        {
            address = better;
        }

        return address;
    }

    /// <summary>What DROP ... CASCADE of objects takes, and whether it needs the CASCADE for it.</summary>
    internal Dictionary<CatalogAddress, bool> Closure(IEnumerable<CatalogAddress> addresses)
    {
        Dictionary<CatalogAddress, bool> raw = [];
        Dictionary<CatalogAddress, bool> found = [];
        Queue<CatalogAddress> queue = [];
        void Reach(CatalogAddress address, bool needsCascade)
        {
            if (!raw.TryGetValue(address, out bool before) || (before && !needsCascade))
            {
                raw[address] = needsCascade;
                queue.Enqueue(address);
            }

            CatalogAddress canonical = Canonical(address);
            if (canonical.ClassId == CatalogAddress.Constraints && canonical != address && (address.ClassId is CatalogAddress.Constraints or CatalogAddress.Triggers) && !_internal.Contains(address))
            {
                // A partition goes without its table's foreign key, of which it has a part; but not without the one that points to its table.
                return;
            }

            if (!found.TryGetValue(canonical, out before) || (before && !needsCascade))
            {
                found[canonical] = needsCascade;
                if (canonical != address)
                {
                    Reach(canonical, needsCascade);
                }
            }
        }

        foreach (CatalogAddress address in addresses)
        {
            Reach(address, false);
        }

        while (queue.TryDequeue(out CatalogAddress address))
        {
            foreach ((CatalogAddress from, int toSubId, char type) in _dependents[(address.ClassId, address.ObjectId)])
            {
                if (address.SubId == 0 || address.SubId == toSubId)
                {
                    Reach(from, raw[address] || type == 'n');
                }
            }
        }

        // What is part of another thing that goes is made with it.
        foreach (CatalogAddress part in found.Keys.Where(a => (a.SubId != 0 && found.ContainsKey(a.Whole)) || (ColumnOf(a) is { } column && (found.ContainsKey(column) || found.ContainsKey(column.Whole)))).ToArray())
        {
            found.Remove(part);
        }

        return found;
    }

    /// <summary>
    /// What is tied to a parent that is made too, partitions, children and attached indexes, as soon as it is made. Where the topmost table is tied to one that is there already,
    /// and so at the end, all below it are tied then.
    /// </summary>
    internal HashSet<CatalogAddress> TiedAtOnce(IReadOnlyCollection<ObjectDefinition> definitions)
    {
        HashSet<CatalogAddress> made = [.. definitions.Select(d => d.Address)];
        ILookup<CatalogAddress, CatalogAddress> parents = _edges.Where(e => e.Type == 'I').ToLookup(e => Canonical(e.From), e => Canonical(e.To));
        bool AtOnce(CatalogAddress child) => parents[child].All(parent => made.Contains(parent) && AtOnce(parent));
        return
        [
            .. from definition in definitions
               where parents[definition.Address].Any() && parents[definition.Address].All(made.Contains)
               let table = definition.GoesWith ?? definition.Address
               where !made.Contains(table) || AtOnce(table)
               select definition.Address,
        ];
    }

    /// <summary>Puts definitions into an order in which they can be made; where nothing else decides, by kind and name.</summary>
    internal IReadOnlyList<ObjectDefinition> Order(IReadOnlyCollection<ObjectDefinition> definitions)
    {
        Dictionary<CatalogAddress, ObjectDefinition> nodes = definitions.ToDictionary(d => d.Address);
        CatalogAddress? NodeOf(CatalogAddress address)
        {
            CatalogAddress canonical = Canonical(address);
            return nodes.ContainsKey(canonical) ? canonical
                : nodes.ContainsKey(canonical.Whole) ? canonical.Whole
                : ColumnOf(canonical) is { } column ? nodes.ContainsKey(column) ? column : nodes.ContainsKey(column.Whole) ? column.Whole : null
                : null;
        }

        Dictionary<CatalogAddress, HashSet<CatalogAddress>> needs = definitions.ToDictionary(d => d.Address, _ => new HashSet<CatalogAddress>());
        foreach ((CatalogAddress from, CatalogAddress to, char type) in _edges)
        {
            if (NodeOf(from) is { } maker && NodeOf(to) is { } made && maker != made && !IsTiedLater(nodes[maker], from, nodes[made], type))
            {
                needs[maker].Add(made);
            }
        }

        // A foreign key of a partition that stands for itself is there before the parent's, which takes it over.
        foreach ((CatalogAddress from, CatalogAddress to, char type) in _edges.Where(e => e.Type == 'P' && e.From.ClassId == CatalogAddress.Constraints && e.To.ClassId == CatalogAddress.Constraints))
        {
            if (needs.TryGetValue(from, out HashSet<CatalogAddress>? child) && needs.TryGetValue(to, out HashSet<CatalogAddress>? parent) && nodes[from].Statements.All(s => s.Property != DefinitionProperty.Partition))
            {
                child.Remove(to);
                parent.Add(from);
            }
        }

        NameBeforeMaking(nodes, needs);
        return Sort(nodes, needs);
    }

    /// <summary>A type and the functions that it is made with need each other: it is named first, in a definition of its own, then come the functions.</summary>
    private static void NameBeforeMaking(Dictionary<CatalogAddress, ObjectDefinition> nodes, Dictionary<CatalogAddress, HashSet<CatalogAddress>> needs)
    {
        foreach (ObjectDefinition type in nodes.Values.Where(d => d[DefinitionProperty.Shell] is not null).ToArray())
        {
            CatalogAddress name = type.Address with { SubId = -1 };
            nodes[name] = type with { Address = name, Statements = [type[DefinitionProperty.Shell]!] };
            nodes[type.Address] = type with { Statements = [.. type.Statements.Where(s => s.Property != DefinitionProperty.Shell)] };
            needs[name] = [.. needs[type.Address].Where(need => nodes[need].Kind == ObjectKind.Schema)];
            foreach (CatalogAddress function in needs[type.Address].Where(need => needs[need].Remove(type.Address)))
            {
                needs[function].Add(name);
            }

            needs[type.Address].Add(name);
        }
    }

    private static List<ObjectDefinition> Sort(Dictionary<CatalogAddress, ObjectDefinition> nodes, Dictionary<CatalogAddress, HashSet<CatalogAddress>> needs)
    {
        // A foreign key needs the key of a partitioned table to be whole: all its parts attached.
        static (int, string) Rank(ObjectDefinition d) => ((2 * Array.IndexOf(s_ranks, d.Kind)) + (d.IsForeignKey ? 1 : 0), d.Identity);
        Dictionary<CatalogAddress, List<CatalogAddress>> neededBy = [];
        foreach ((CatalogAddress maker, HashSet<CatalogAddress> mades) in needs)
        {
            foreach (CatalogAddress made in mades)
            {
                (neededBy.TryGetValue(made, out List<CatalogAddress>? list) ? list : neededBy[made] = []).Add(maker);
            }
        }

        Comparer<(int, string)> byRank = Comparer<(int Rank, string Name)>.Create((a, b) => a.Rank != b.Rank ? a.Rank.CompareTo(b.Rank) : string.CompareOrdinal(a.Name, b.Name));
        PriorityQueue<ObjectDefinition, (int, string)> ready = new(nodes.Values.Where(d => needs[d.Address].Count == 0).Select(d => (d, Rank(d))), byRank);
        List<ObjectDefinition> ordered = [];
        HashSet<CatalogAddress> done = [];
        while (ordered.Count < nodes.Count)
        {
            if (!ready.TryDequeue(out ObjectDefinition? next, out _))
            {
                // A circle: the one that the kind puts first goes first.
                next = nodes.Values.Where(d => !done.Contains(d.Address)).OrderBy(Rank, byRank).First();
            }

            if (!done.Add(next.Address))
            {
                continue;
            }

            ordered.Add(next);
            foreach (CatalogAddress maker in neededBy.GetValueOrDefault(next.Address, []))
            {
                if (needs[maker].Remove(next.Address) && needs[maker].Count == 0)
                {
                    ready.Enqueue(nodes[maker], Rank(nodes[maker]));
                }
            }
        }

        return ordered;
    }

    // In which order the kinds come where no dependency decides.
    private static readonly ObjectKind[] s_ranks =
    [
        ObjectKind.Schema, ObjectKind.Language, ObjectKind.Extension, ObjectKind.Collation, ObjectKind.AccessMethod, ObjectKind.Type, ObjectKind.Domain, ObjectKind.Function, ObjectKind.Procedure, ObjectKind.Aggregate,
        ObjectKind.Cast, ObjectKind.Transform, ObjectKind.OperatorFamily, ObjectKind.Operator, ObjectKind.OperatorClass, ObjectKind.Conversion,
        ObjectKind.TextSearchParser, ObjectKind.TextSearchTemplate, ObjectKind.TextSearchDictionary, ObjectKind.TextSearchConfiguration,
        ObjectKind.ForeignDataWrapper, ObjectKind.Server, ObjectKind.UserMapping,
        ObjectKind.Sequence, ObjectKind.Table, ObjectKind.ForeignTable, ObjectKind.Column, ObjectKind.Index, ObjectKind.Constraint, ObjectKind.View, ObjectKind.MaterializedView, ObjectKind.Statistics,
        ObjectKind.Trigger, ObjectKind.Rule, ObjectKind.Policy, ObjectKind.Publication, ObjectKind.Subscription, ObjectKind.EventTrigger,
    ];

    /// <summary>Whether the tie between two things is made when both are there: OWNED BY, and the default of a column that CREATE TABLE leaves out.</summary>
    private bool IsTiedLater(ObjectDefinition maker, CatalogAddress from, ObjectDefinition made, char type) =>
        (maker.Kind == ObjectKind.Sequence && type == 'a')
        || (from.ClassId == CatalogAddress.AttributeDefaults && maker.Address.SubId == 0 && maker.Address.ClassId == CatalogAddress.Relations
            && _defaults.TryGetValue(from.ObjectId, out var found) && !found.Generated
            && made.Kind is not (ObjectKind.Type or ObjectKind.Domain or ObjectKind.Collation or ObjectKind.Extension));

    private static CatalogAddress Address(NpgsqlDataReader reader, int first, int? subId) =>
        new(reader.GetFieldValue<uint>(first), reader.GetFieldValue<uint>(first + 1), subId is { } column ? reader.GetInt32(column) : 0);

    private static async Task ForEachAsync(NpgsqlConnection connection, string sql, Action<NpgsqlDataReader> take, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(sql, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            take(reader);
        }
    }
}
