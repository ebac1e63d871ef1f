using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes ATTACH and DETACH PARTITION, INHERIT and NO INHERIT back.</summary>
internal static class PartitionReversal
{
    internal static async Task<List<RollbackStatement>> AttachedAsync(Reversing r, AlterTable alter, ResolvedName parent, AttachPartition attach)
    {
        ResolvedName child = r.Names.Existing(attach.Partition, r.Forward.Path);
        if (!child.Known)
        {
            return [r.SchemaUnknown(attach.Partition)];
        }

        if (alter.Kind == ObjectKind.Index)
        {
            return [r.Forward.Irreversible("An index cannot be detached from that of the partitioned table. It serves as before.")];
        }

        RollbackStatement detach = r.Forward.By(
            $"alter table {parent.Name} detach partition {child.Name}",
            "At once, and in one transaction; DETACH CONCURRENTLY lets reads and writes go on, but leaves a CHECK behind.",
            condition: Linked(child.Name, parent.Name));
        if (r.Names.Made(parent.Name) is not null && r.Names.Made(child.Name) is not null)
        {
            return [r.Forward.NotNeeded($"It goes with the table {child.Name}, which this script makes.")];
        }

        if (r.Catalog is not { } catalog)
        {
            return [detach with { Note = detach.Note + " Indexes and foreign keys that ATTACH made on it stay: connect before the migration runs to have them dropped." }];
        }

        List<RollbackStatement> result = [detach];
        if (r.Names.BeforeScript(ObjectKind.Table, parent.Name) is { } parentBefore && r.Names.BeforeScript(ObjectKind.Table, child.Name) is { } childBefore)
        {
            foreach (AttachedPart part in await AttachedPart.ReadAsync(catalog, parentBefore, childBefore, r.CancellationToken).ConfigureAwait(false))
            {
                string name = part.Name ?? Chosen(r, child.Name, part);
                result.Add(part.Constraint
                    ? r.Forward.By($"alter table if exists {child.Name} drop constraint if exists {SqlName.QuoteIfNeeded(name)}", "ATTACH made it from that of the partitioned table.")
                    : r.Forward.By($"drop index concurrently if exists {child.Name with { Name = name }}", "ATTACH made it from that of the partitioned table."));
            }
        }

        return result;
    }

    internal static async Task<List<RollbackStatement>> DetachedAsync(Reversing r, ResolvedName parent, DetachPartition detach)
    {
        ResolvedName child = r.Names.Existing(detach.Partition, r.Forward.Path);
        if (!child.Known)
        {
            return [r.SchemaUnknown(detach.Partition)];
        }

        ObjectReference table = new(ObjectKind.Table, child.Name);
        if (r.Made(table))
        {
            return [r.Forward.NotNeeded($"It goes with the table {child.Name}, which this script makes.")];
        }

        if (r.Catalog is not { } catalog)
        {
            return [r.Forward.Unknown($"Which bound the partition {child.Name} had is not in the text. {ForwardStatement.Connect}")];
        }

        ObjectDefinition? definition = await r.FindAsync(table).ConfigureAwait(false) is { } address ? await catalog.ReadAsync(address, r.CancellationToken).ConfigureAwait(false) : null;
        if (definition?[DefinitionProperty.Partition] is not { } attach)
        {
            return [r.Forward.Unknown($"{child.Name} is no partition of {parent.Name} in {catalog.Facts.Database} now.")];
        }

        string expression = await catalog.ScalarAsync($"select pg_catalog.pg_get_partition_constraintdef({definition.Address.ObjectId})", r.CancellationToken).ConfigureAwait(false) ?? "";
        string sql = NameRewriter.Now(attach.Sql, r.Names);
        string? moved = r.IfMoved(table);
        string unlinked = $"not {Linked(child.Name, parent.Name)}{(moved is null ? "" : $" and {moved}")}";
        List<RollbackStatement> result = [];
        string[] columns = [.. expression.Length == 0 ? [] : ColumnMentions.In(new SqlReader(SqlScript.Parse(expression, psql: false).Statements[0])).Where(m => !m.MayBeKeyword || child.Relation?.Columns.ContainsKey(m.Name) == true).Select(m => m.Name)];
        string check = SqlName.QuoteIfNeeded(r.Chooser.Constraint(child.Name, columns.Length == 1 ? columns : [], "check"));
        string drop = $"alter table if exists {child.Name} drop constraint if exists {check}";
        if (expression.Length > 0 && !detach.Concurrently)
        {
            result.Add(r.Forward.By($"alter table {child.Name} add constraint {check} check ({expression}) not valid", "Proves the bound, so that ATTACH does not look at every row under its lock.", condition: $"{unlinked} and {TableActionReversal.ConstraintOf(child.Name, check.Trim('"')).Exists()} is not true"));
            result.Add(r.Forward.By($"alter table {child.Name} validate constraint {check}", "It fails where rows have come since that do not belong into the partition.", condition: TableActionReversal.ConstraintOf(child.Name, check.Trim('"')).Exists()));
        }

        result.Add(r.Forward.By(sql, detach.Concurrently ? "DETACH CONCURRENTLY has left a CHECK of the bound, by which ATTACH need not look at the rows." : null, condition: unlinked));
        if (expression.Length > 0)
        {
            result.Add(r.Forward.By(drop));
        }

        return result;
    }

    internal static List<RollbackStatement> Inherited(Reversing r, ResolvedName child, SetInherit inherit)
    {
        ResolvedName parent = r.Names.Existing(inherit.Parent, r.Forward.Path);
        string linked = Linked(child.Name, parent.Name);
        return !parent.Known ? [r.SchemaUnknown(inherit.Parent)]
            : inherit.Inherit ? [r.Forward.By($"alter table {child.Name} no inherit {parent.Name}", condition: linked)]
            : child.Relation is { OwnColumns: false } ? [r.Forward.By($"alter table {child.Name} inherit {parent.Name}", "NO INHERIT has made columns the child's own that were inherited alone: dropped from the parent, they stay in the child from now on.", lossy: true, condition: $"not {linked}")]
            : [r.Forward.By($"alter table {child.Name} inherit {parent.Name}", r.Catalog is null ? "Columns that were inherited alone are the child's own from now on." : null, lossy: r.Catalog is null, condition: $"not {linked}")];
    }

    /// <summary>That a table is a partition or child of another.</summary>
    internal static string Linked(QualifiedName child, QualifiedName parent) =>
        $"exists (select from pg_catalog.pg_inherits where inhrelid = to_regclass({SqlName.Literal(child.ToString())}) and inhparent = to_regclass({SqlName.Literal(parent.ToString())}))";

    private static string Chosen(Reversing r, QualifiedName child, AttachedPart part) => StatementParser.Parse(SqlScript.Parse(part.Definition, psql: false).Statements[0]) is CreateIndex index
        ? part.Label == "idx" ? r.Chooser.Index(child, index.ElementNames) : r.Chooser.IndexConstraint(child, index.ElementNames, part.Label)
        : throw new InvalidOperationException($"Not an index: {part.Definition}");
}
