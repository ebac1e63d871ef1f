using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes CREATE TABLE and ALTER TABLE back.</summary>
internal sealed class TableReversal
{
    private readonly ScriptNames _names;
    private readonly NameChooser _chooser;

    internal TableReversal(ScriptNames names, NameChooser chooser)
    {
        _names = names;
        _chooser = chooser;
    }

    /// <summary>Learns of a table before reversals are made.</summary>
    internal void Learn(MakesTable create, ScriptPath? path)
    {
        ResolvedName table = _names.New(create.Table, path);
        ScriptTable made = _names.Table(table.Name);

        // With IF NOT EXISTS only the catalog can say that it is made; a temporary table goes by itself.
        made.Certain |= create.Temporary || (table.Known && (!create.IfNotExists || (_names.Catalog is not null && table.Relation is null)));
        made.Columns.UnionWith(create.ColumnNames);
        made.Parents.UnionWith(create.References.Select(r => _names.Existing(r, path).Name));
        if (create is CreateTable { PartitionOf: { } partitioned })
        {
            made.Parents.Add(_names.Existing(partitioned, path).Name);
        }
    }

    /// <summary>Learns of columns and foreign keys before reversals are made.</summary>
    internal void Learn(AlterTable alter, ScriptPath? path)
    {
        ResolvedName name = _names.Existing(alter.Table, path);
        ScriptTable table = _names.Table(name.Name);
        foreach (TableAction action in alter.Actions)
        {
            switch (action)
            {
                case AddColumn add when !add.IfNotExists || (_names.Catalog is not null && name.Relation?.Columns.ContainsKey(add.Column.Name) != true):
                    table.Columns.Add(add.Column.Name);
                    table.Parents.UnionWith(add.Column.References.Select(r => _names.Existing(r, path).Name));
                    break;
                case AddConstraint { Constraint: ForeignKeyConstraint key }:
                    table.Parents.Add(_names.Existing(key.Parent, path).Name);
                    break;
            }
        }
    }

    internal IEnumerable<RollbackStatement> Reverse(ForwardStatement forward, MakesTable create)
    {
        ResolvedName table = _names.New(create.Table, forward.Path);
        if (create.Temporary)
        {
            yield return forward.NotNeeded("A temporary table goes with its session.");
            yield break;
        }

        if (!table.Known)
        {
            yield return forward.Unknown($"In which schema the script makes {create.Table} cannot be told from the text: connect, or write the schema.");
            yield break;
        }

        _chooser.TakeRelation(table.Name.Schema, table.Name.Name);
        string sql = $"drop table if exists {table.Name}";
        if (create.IfNotExists && _names.Catalog is null)
        {
            yield return forward.Unknown(
                $"IF NOT EXISTS: whether {table.Name} was there before, with data of its own, cannot be told from the text. Connect before the migration runs, or run this only if the migration made it.",
                sql);
            yield break;
        }

        if (create.IfNotExists && table.Relation is not null)
        {
            yield return forward.NotNeeded($"{table.Name} exists in {_names.Catalog!.Database}: IF NOT EXISTS does nothing there, and the table must stay. (If the migration has run already, it may be its own.)");
            yield break;
        }

        HashSet<QualifiedName> parents = [.. _names.Table(table.Name).Parents.Where(p => p != table.Name)];
        yield return forward.By(
            sql,
            lossy: true,
            TableLockMode.AccessExclusive,
            [table.Name, .. parents],
            [
                $"All rows of {table.Name} are lost; its indexes, constraints and triggers go with it.",
                ParentsNote(parents),
                table.Relation is not null ? $"{table.Name} exists already: the migration has run, or will fail here." : null,
            ]);
    }

    internal IEnumerable<RollbackStatement> Reverse(ForwardStatement forward, AlterTable alter)
    {
        ResolvedName table = _names.Existing(alter.Table, forward.Path);
        if (!table.Known)
        {
            return [forward.Unknown($"In which schema of the script's search_path {alter.Table} is cannot be told from the text: connect, or write the schema.")];
        }

        AlterReversal reversal = new(_names, _chooser, forward, alter, table);
        foreach (TableAction action in alter.Actions)
        {
            reversal.Add(action);
        }

        return reversal.Result();
    }

    /// <summary>What must be known of the parents of foreign keys.</summary>
    internal static string? ParentsNote(IReadOnlyCollection<QualifiedName> parents) =>
        parents.Count == 0 ? null : $"It locks {string.Join(" and ", parents)} too, in the same mode: PostgreSQL locks the other side of a foreign key, and the table of a partition.";
}
