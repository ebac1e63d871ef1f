using MigrationSafety.Engine.Names;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>The names that PostgreSQL gives to what a script leaves unnamed, in the order of the script, so that a second one of the same kind gets its number.</summary>
internal sealed class NameChooser
{
    private readonly HashSet<(string? Schema, string Name)> _relations = [];
    private readonly HashSet<(string? Schema, string Name)> _constraints = [];
    private readonly HashSet<(string? Schema, string Name)> _statistics = [];
    private readonly CatalogFacts? _catalog;

    internal NameChooser(CatalogFacts? catalog) => _catalog = catalog;

    private bool SingleByte => _catalog?.SingleByte == true;

    /// <summary>Marks a name as taken by a table or an index.</summary>
    internal void TakeRelation(string? schema, string name) => _relations.Add((schema, name));

    /// <summary>Marks a name as taken by a constraint.</summary>
    internal void TakeConstraint(string? schema, string name) => _constraints.Add((schema, name));

    /// <summary>Chooses and takes the name of an index: orders_total_idx.</summary>
    internal string Index(QualifiedName table, IEnumerable<string> elements)
    {
        string name = Choose(table, ChosenName.Distinct(elements, SingleByte), "idx", candidate => RelationTaken(table.Schema, candidate));
        TakeRelation(table.Schema, name);
        return name;
    }

    /// <summary>Chooses and takes the name of a constraint with an index: orders_pkey, orders_code_key, room_during_excl.</summary>
    internal string IndexConstraint(QualifiedName table, IEnumerable<string> elements, string label)
    {
        IReadOnlyList<string> columns = label == "pkey" ? [] : ChosenName.Distinct(elements, SingleByte);
        string name = Choose(table, columns, label, candidate => RelationTaken(table.Schema, candidate) || ConstraintTaken(table.Schema, candidate));
        TakeRelation(table.Schema, name);
        TakeConstraint(table.Schema, name);
        return name;
    }

    /// <summary>Chooses the name of a statistics object: orders_a_b_stat.</summary>
    internal string Statistics(QualifiedName table, IEnumerable<string> columns)
    {
        string name = Choose(table, [.. columns], "stat", candidate => _statistics.Contains((table.Schema, candidate)) || (table.Schema is { } schema && _catalog?.HasStatistics(schema, candidate) == true));
        _statistics.Add((table.Schema, name));
        return name;
    }

    /// <summary>Chooses and takes the name of another constraint: orders_total_check, orders_customer_id_fkey.</summary>
    internal string Constraint(QualifiedName table, IReadOnlyList<string> columns, string label)
    {
        string name = Choose(table, columns, label, candidate => ConstraintTaken(table.Schema, candidate));
        TakeConstraint(table.Schema, name);
        return name;
    }

    /// <summary>Chooses and takes the name of a constraint of a domain: positive_check.</summary>
    internal string DomainConstraint(QualifiedName domain, string label) => Constraint(domain, [], label);

    private string Choose(QualifiedName table, IReadOnlyList<string> columns, string label, Predicate<string> taken) =>
        ChosenName.Candidates(table.Name, columns.Count == 0 ? null : ChosenName.Addition(columns, SingleByte), label, SingleByte).First(candidate => !taken(candidate));

    private bool RelationTaken(string? schema, string name) => _relations.Contains((schema, name)) || (schema is not null && _catalog?.HasRelation(schema, name) == true);

    private bool ConstraintTaken(string? schema, string name) => _constraints.Contains((schema, name)) || (schema is not null && _catalog?.HasConstraint(schema, name) == true);
}
