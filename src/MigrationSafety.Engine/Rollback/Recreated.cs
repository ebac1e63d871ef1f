using System.Globalization;
using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>
/// Tells what the script makes from what it has dropped under the same name: after a rollback that name is the old one's again, and a second run must not drop that.
/// </summary>
/// <param name="Condition">A condition that holds while the new one is there; null where nothing tells them apart.</param>
internal sealed record Recreated(string? Condition)
{
    /// <summary>What is said where nothing tells them apart.</summary>
    internal const string Once = "Run it once: the migration drops one of this name and makes another of the same shape, and nothing tells afterwards which of the two is there: a second run would drop the one that came back.";

    /// <summary>What is said where a condition does.</summary>
    internal const string Guarded = "It runs only while the migration's own is there, not the one that comes back in its place.";

    /// <summary>The note.</summary>
    internal string Note => Condition is null ? Once : Guarded;

    /// <summary>A table that is not there when the script makes it; null where none of the name was there before either.</summary>
    /// <param name="r">The statement that makes it.</param>
    /// <param name="create">The statement.</param>
    /// <param name="table">Its name.</param>
    /// <param name="fate">What becomes of it in the script.</param>
    internal static async Task<Recreated?> TableAsync(Reversing r, MakesTable create, QualifiedName table, ScriptObject fate)
    {
        if (table.Schema is null || r.Names.Catalog?.Find(table.Schema, table.Name) is not { } old)
        {
            return null;
        }

        ObjectReference now = new(ObjectKind.Table, table);
        char kind = create switch { CreateTable { PartitionBy: not null } => 'p', { Kind: ObjectKind.ForeignTable } => 'f', { Kind: ObjectKind.MaterializedView } => 'm', _ => 'r' };
        if (kind != old.Kind)
        {
            return new Recreated($"exists (select from pg_catalog.pg_class where oid = {now.Find().Oid} and relkind = '{kind}')");
        }

        // Names alone are read: what LIKE, a parent, a type or a query adds is not in the text.
        if (create is not CreateTable { Like: [], Inherits: [], OfType: null, PartitionOf: null } given)
        {
            return new Recreated((string?)null);
        }

        HashSet<string> columns = [.. fate.Parts.Values.Where(p => p.Kind == ObjectKind.Column).Select(p => p.Name.Name)];
        if (columns.FirstOrDefault(c => !old.Columns.ContainsKey(c)) is { } added)
        {
            return new Recreated(ObjectReference.OfColumn(table, added).Exists());
        }

        if (old.Columns.Keys.FirstOrDefault(c => !columns.Contains(c)) is { } gone)
        {
            return new Recreated($"{now.Exists()} and not ({ObjectReference.OfColumn(table, gone).Exists()})");
        }

        foreach (ColumnDefinition column in given.Columns.Where(c => columns.Contains(c.Name)))
        {
            if (column.Type is { } type && await OfTypeAsync(r, ObjectReference.OfColumn(table, column.Name), type).ConfigureAwait(false) is { } differs)
            {
                return new Recreated(differs);
            }
        }

        return new Recreated((string?)null);
    }

    /// <summary>A column; null where none of the name was dropped.</summary>
    /// <param name="r">The statement that adds it.</param>
    /// <param name="column">The column.</param>
    /// <param name="type">Its type.</param>
    internal static async Task<Recreated?> ColumnAsync(Reversing r, ObjectReference column, TypeName? type) =>
        column.On is not { Schema: { } schema } on || r.Names.BeforeScript(ObjectKind.Table, on) != on || r.Names.Catalog?.Find(schema, on.Name)?.Columns.ContainsKey(column.Name.Name) != true
            || r.Names.Find(ObjectKind.Table, on) is not { } table || !table.Gone.Contains((ObjectKind.Column, column.Name.Name))
            ? null
            : new Recreated(type is null ? null : await OfTypeAsync(r, column, type).ConfigureAwait(false));

    /// <summary>What must not be dropped twice because others hang on the one that comes back; null where nothing does.</summary>
    /// <param name="r">The statement that makes it.</param>
    /// <param name="made">The object.</param>
    internal static async Task<string?> DependentsAsync(Reversing r, ObjectReference made)
    {
        if (r.Catalog is not { } catalog || !ObjectNames.CanBeFound(made.Kind)
            || await catalog.FindAsync(made, r.Forward.Path, r.CancellationToken).ConfigureAwait(false) is not { } address || !r.Names.IsGone(address))
        {
            return null;
        }

        IReadOnlyList<ObjectDefinition> all = await catalog.WithDependentsAsync([address], r.CancellationToken).ConfigureAwait(false);
        return all.FirstOrDefault(o => o.NeedsCascade && o.Address != address) is not { } dependent ? null
            : $"Run it once: after it {dependent.Kind.Words()} {dependent.Identity} hangs on the {made.Kind.Words()} that came back, and a second run stops here, since it drops nothing with CASCADE.";
    }

    /// <summary>That a column has another type than the one before; null where the new one is the same, or is not told.</summary>
    private static async Task<string?> OfTypeAsync(Reversing r, ObjectReference column, TypeName type)
    {
        if (r.Catalog is not { } catalog || await catalog.FindAsync(column, r.Forward.Path, r.CancellationToken).ConfigureAwait(false) is not { } address
            || await catalog.TypeAsync(address, r.CancellationToken).ConfigureAwait(false) is not { } old
            || await catalog.ScalarAsync($"select to_regtype({SqlName.Literal($"{type.Name}{(type.ArrayDimensions > 0 ? "[]" : "")}")})::text", r.CancellationToken).ConfigureAwait(false) is not { } now
            || await catalog.ScalarAsync($"select 'same' where to_regtype({SqlName.Literal(now)}) = to_regtype({SqlName.Literal(old.Name)})", r.CancellationToken).ConfigureAwait(false) is not null)
        {
            return null;
        }

        return string.Create(CultureInfo.InvariantCulture, $"exists (select from pg_catalog.pg_attribute where attrelid = to_regclass({SqlName.Literal(column.On!.ToString())}) and attname = {SqlName.Literal(column.Name.Name)} and not attisdropped and atttypid <> to_regtype({SqlName.Literal(old.Name)}))");
    }
}
