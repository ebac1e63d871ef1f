using System.Globalization;
using System.Text;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>
/// The names that PostgreSQL gives to what a script leaves unnamed (makeObjectName and ChooseIndexName in indexcmds.c, ChooseConstraintName in
/// pg_constraint.c), in the order of the script, so that a second one of the same kind gets its number.
/// </summary>
internal sealed class NameChooser
{
    private const int MaxBytes = 63;

    private readonly HashSet<(string? Schema, string Name)> _relations = [];
    private readonly HashSet<(string? Schema, string Name)> _constraints = [];
    private readonly CatalogFacts? _catalog;

    internal NameChooser(CatalogFacts? catalog) => _catalog = catalog;

    /// <summary>Marks a name as taken by a table or an index.</summary>
    internal void TakeRelation(string? schema, string name) => _relations.Add((schema, name));

    /// <summary>Marks a name as taken by a constraint.</summary>
    internal void TakeConstraint(string? schema, string name) => _constraints.Add((schema, name));

    /// <summary>Chooses and takes the name of an index: orders_total_idx.</summary>
    internal string Index(QualifiedName table, IEnumerable<string> elements)
    {
        string name = Choose(table, Addition(Distinct(elements)), "idx", candidate => RelationTaken(table.Schema, candidate));
        TakeRelation(table.Schema, name);
        return name;
    }

    /// <summary>Chooses and takes the name of a constraint with an index: orders_pkey, orders_code_key, room_during_excl.</summary>
    internal string IndexConstraint(QualifiedName table, IEnumerable<string> elements, string label)
    {
        string? addition = label == "pkey" ? null : Addition(Distinct(elements));
        string name = Choose(table, addition, label, candidate => RelationTaken(table.Schema, candidate) || ConstraintTaken(table.Schema, candidate));
        TakeRelation(table.Schema, name);
        TakeConstraint(table.Schema, name);
        return name;
    }

    /// <summary>Chooses and takes the name of another constraint: orders_total_check, orders_customer_id_fkey.</summary>
    internal string Constraint(QualifiedName table, IReadOnlyList<string> columns, string label)
    {
        string name = Choose(table, columns.Count == 0 ? null : Addition(columns), label, candidate => ConstraintTaken(table.Schema, candidate));
        TakeConstraint(table.Schema, name);
        return name;
    }

    /// <summary>Two names and a label with underscores, cut to 63 bytes, the longer name first.</summary>
    internal static string Make(string first, string? second, string label)
    {
        int available = MaxBytes - label.Length - 1 - (second is null ? 0 : 1);
        int firstBytes = Encoding.UTF8.GetByteCount(first);
        int secondBytes = second is null ? 0 : Encoding.UTF8.GetByteCount(second);
        while (firstBytes + secondBytes > available)
        {
            if (firstBytes > secondBytes)
            {
                firstBytes--;
            }
            else
            {
                secondBytes--;
            }
        }

        string middle = second is null ? "" : "_" + SqlReader.CutToBytes(second, secondBytes);
        return SqlReader.CutToBytes(first, firstBytes) + middle + "_" + label;
    }

    private static string Choose(QualifiedName table, string? addition, string label, Func<string, bool> taken)
    {
        string name = Make(table.Name, addition, label);
        for (int number = 1; taken(name); number++)
        {
            name = Make(table.Name, addition, label + number.ToString(CultureInfo.InvariantCulture));
        }

        return name;
    }

    /// <summary>Column names with underscores, up to where PostgreSQL stops adding them.</summary>
    private static string Addition(IEnumerable<string> columns)
    {
        StringBuilder text = new();
        foreach (string column in columns)
        {
            text.Append(text.Length == 0 ? "" : "_").Append(column);
            if (Encoding.UTF8.GetByteCount(text.ToString()) > MaxBytes)
            {
                break;
            }
        }

        return text.ToString();
    }

    /// <summary>Elements of one name are numbered: a, a1, a2.</summary>
    private static List<string> Distinct(IEnumerable<string> elements)
    {
        List<string> names = [];
        foreach (string element in elements)
        {
            string name = element;
            for (int number = 1; names.Contains(name); number++)
            {
                string digits = number.ToString(CultureInfo.InvariantCulture);
                name = SqlReader.CutToBytes(element, MaxBytes - digits.Length) + digits;
            }

            names.Add(name);
        }

        return names;
    }

    private bool RelationTaken(string? schema, string name) => _relations.Contains((schema, name)) || (schema is not null && _catalog?.HasRelation(schema, name) == true);

    private bool ConstraintTaken(string? schema, string name) => _constraints.Contains((schema, name)) || (schema is not null && _catalog?.HasConstraint(schema, name) == true);
}
