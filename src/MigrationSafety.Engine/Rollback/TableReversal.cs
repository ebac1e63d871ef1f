using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes CREATE TABLE and ALTER TABLE back.</summary>
internal static class TableReversal
{
    internal static async Task<RollbackStatement> ReverseAsync(Reversing r, MakesTable create)
    {
        (ForwardStatement forward, ScriptNames names) = (r.Forward, r.Names);
        bool ifNotExists = create.IfNotExists || r.Optional;
        ResolvedName table = names.New(ObjectKind.Table, create.Table, forward.Path);
        CatalogRelation? there = names.StillThere(ObjectKind.Table, table.Name) ? table.Relation : null;
        bool skipped = ifNotExists && (there is not null || names.Made(table.Name) is not null);

        // With IF NOT EXISTS only the catalog can say that it is made; a temporary table goes by itself.
        bool certain = create.Temporary || (table.Known && !skipped && (!ifNotExists || names.Catalog is not null));
        string? displaced = r.Displaced(new ObjectReference(ObjectKind.Table, table.Name));
        ScriptObject made = skipped ? names.Touch(ObjectKind.Table, table.Name) : names.Make(ObjectKind.Table, table.Name, certain);
        if (!skipped)
        {
            foreach (string column in create.ColumnNames)
            {
                names.MakePart(made, ObjectKind.Column, column);
            }

            made.Parents.UnionWith(create.References.Select(p => names.Existing(p, forward.Path).Name));
            if (create is CreateTable { PartitionOf: { } partitioned })
            {
                made.Parents.Add(names.Existing(partitioned, forward.Path).Name);
            }
        }

        if (create.Temporary)
        {
            return forward.NotNeeded("A temporary table goes with its session.");
        }

        if (!table.Known)
        {
            return forward.Unknown($"In which schema the script makes {create.Table} cannot be told from the text: connect, or write the schema.");
        }

        r.Chooser.TakeRelation(table.Name.Schema, table.Name.Name);
        string sql = $"drop table if exists {table.Name}";
        if (ifNotExists && names.Catalog is null && !skipped)
        {
            return forward.Unknown(
                $"{r.Whether} {table.Name} was there before, with data of its own, cannot be told from the text. Connect before the migration runs, or run this only if the migration made it.",
                sql);
        }

        if (skipped)
        {
            return forward.NotNeeded(there is null
                ? $"The script has made {table.Name} before: {r.OnlyIfMissing} does nothing."
                : $"{table.Name} exists in {names.Catalog!.Database}: {r.OnlyIfMissing} does nothing there, and the table must stay. (If the migration has run already, it may be its own.)");
        }

        if (made.Fate.Dropped)
        {
            return forward.NotNeeded($"The script drops the table {table.Name} itself.");
        }

        Recreated? recreated = displaced is null && there is null ? await Recreated.TableAsync(r, create, table.Name, made.Fate).ConfigureAwait(false) : null;
        HashSet<QualifiedName> parents = [.. made.Fate.Parents.Where(p => p != table.Name)];
        return forward.By(
            (displaced ?? recreated?.Condition) is { } condition ? Guard.If(condition, sql) : sql,
            lossy: true,
            TableLockMode.AccessExclusive,
            [table.Name, .. parents],
            [
                $"All rows of {table.Name} are lost; its indexes, constraints and triggers go with it.",
                recreated?.Note,
                ParentsNote(parents),
                there is not null ? $"{table.Name} exists already: the migration has run, or will fail here." : null,
            ]);
    }

    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, AlterTable alter)
    {
        ResolvedName table = alter.Kind == ObjectKind.Type ? r.Names.Resolve(ObjectKind.Type, alter.Table, "", r.Forward.Path) : r.Names.Existing(alter.Table, r.Forward.Path);
        if (!table.Known)
        {
            return [r.SchemaUnknown(alter.Table)];
        }

        if (alter.Kind == ObjectKind.Type)
        {
            return await CompositeReversal.ReverseAsync(r, alter, table).ConfigureAwait(false);
        }

        AlterReversal reversal = new(r, alter, table);
        foreach (TableAction action in alter.Actions)
        {
            await reversal.AddAsync(action).ConfigureAwait(false);
        }

        return [.. reversal.Result()];
    }

    /// <summary>What must be known of the parents of foreign keys.</summary>
    internal static string? ParentsNote(IReadOnlyCollection<QualifiedName> parents) =>
        parents.Count == 0 ? null : $"It locks {string.Join(" and ", parents)} too, in the same mode: PostgreSQL locks the other side of a foreign key, and the table of a partition.";
}
