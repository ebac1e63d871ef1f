using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Collects what takes the actions of one ALTER TABLE back: one ALTER for all that is known, and a word on each other action.</summary>
internal sealed class AlterReversal
{
    private readonly ScriptNames _names;
    private readonly NameChooser _chooser;
    private readonly ForwardStatement _forward;
    private readonly AlterTable _alter;
    private readonly ResolvedName _table;
    private readonly ScriptTable _script;
    private readonly bool _tableIsMade;
    private readonly List<string> _drops = [];
    private readonly List<string> _notes = [];
    private readonly HashSet<QualifiedName> _parents = [];
    private readonly List<RollbackStatement> _others = [];
    private readonly List<RollbackStatement> _afterwards = [];
    private bool _lossy;

    internal AlterReversal(ScriptNames names, NameChooser chooser, ForwardStatement forward, AlterTable alter, ResolvedName table)
    {
        _names = names;
        _chooser = chooser;
        _forward = forward;
        _alter = alter;
        _table = table;
        _script = names.Table(table.Name);
        _tableIsMade = names.Made(table.Name) is not null;
    }

    private QualifiedName Table => _table.Name;

    internal void Add(TableAction action)
    {
        switch (action)
        {
            case AddColumn add:
                Add(add);
                break;
            case AddConstraint { Constraint: var constraint }:
                Add(constraint);
                break;
            case AttachPartition or DetachPartition or SetInherit:
                _others.Add(_forward.Unknown(
                    $"ALTER TABLE, \"{Short(action.Text)}\": not understood here; write its reversal by hand, here, before what follows, which uses the names from before it."));
                break;
            case var _ when _tableIsMade:
                break;
            case ValidateConstraint validate when _script.Constraints.Contains(validate.Name):
                _others.Add(_forward.NotNeeded($"It goes with the constraint {SqlName.QuoteIfNeeded(validate.Name)}, which this script adds."));
                break;
            default:
                _others.Add(_forward.Unknown($"ALTER TABLE, \"{Short(action.Text)}\": not understood here; write its reversal by hand."));
                break;
        }
    }

    /// <summary>In the order in which the rollback runs them.</summary>
    internal IEnumerable<RollbackStatement> Result()
    {
        List<RollbackStatement> result = [.. _others];
        result.Reverse();
        if (_tableIsMade)
        {
            if (result.Count == 0)
            {
                result.Add(_forward.NotNeeded($"It goes with the table {Table}, which this script makes."));
            }

            return result;
        }

        if (_drops.Count > 0)
        {
            _drops.Reverse();
            _parents.Remove(Table);
            _notes.Add(TableReversal.ParentsNote(_parents) ?? "");
            _notes.Add(IndexReversal.Missing(_names, _table) ?? "");
            string only = _alter.Only ? "only " : "";
            result.Add(_forward.By($"alter table if exists {only}{Table} {string.Join(", ", _drops)}", _lossy, TableLockMode.AccessExclusive, [Table, .. _parents], _notes));
        }

        return result.Concat(_afterwards);
    }

    private void Add(AddColumn add)
    {
        string name = SqlName.QuoteIfNeeded(add.Column.Name);
        if (_tableIsMade)
        {
            return;
        }

        if (add.IfNotExists && _names.Catalog is null)
        {
            _others.Add(_forward.Unknown(
                $"IF NOT EXISTS: whether {Table} had the column {name} before, with data of its own, cannot be told from the text. Connect before the migration runs, or run this only if the migration made it.",
                $"alter table if exists {Table} drop column if exists {name}"));
            return;
        }

        bool there = _table.Relation?.Columns.ContainsKey(add.Column.Name) == true && _names.StillThere(add.Column.Name);
        if (add.IfNotExists && there)
        {
            _others.Add(_forward.NotNeeded($"{Table} has the column {name} in {_names.Catalog!.Database}: IF NOT EXISTS does nothing there, and the column must stay. (If the migration has run already, it may be its own.)"));
            return;
        }

        _lossy = true;
        _drops.Add($"drop column if exists {name}");
        _notes.Add($"All values of {name} are lost; indexes and constraints on the column go with it.");
        if (there)
        {
            _notes.Add($"{Table} has the column {name} already: the migration has run, or will fail here.");
        }

        _parents.UnionWith(add.Column.References.Select(r => _names.Existing(r, _forward.Path).Name));
    }

    private void Add(TableConstraint constraint)
    {
        string name = NameOf(constraint);
        _script.Constraints.Add(name);
        if (_tableIsMade)
        {
            return;
        }

        bool there = constraint.Name is not null && _table.Relation?.Constraints.Contains(name) == true && _names.StillThere(name);
        if (there)
        {
            _notes.Add($"{Table} has the constraint {SqlName.QuoteIfNeeded(name)} already: the migration has run, or will fail here.");
        }

        // The list is turned round at the end: what is to run after the constraint is gone comes first.
        if (constraint is UniqueConstraint unique)
        {
            AddUnique(unique);
        }

        _drops.Add($"drop constraint if exists {SqlName.QuoteIfNeeded(name)}");
        if (constraint is ForeignKeyConstraint key)
        {
            _parents.Add(_names.Existing(key.Parent, _forward.Path).Name);
        }
    }

    private string NameOf(TableConstraint constraint)
    {
        bool ownIndex = constraint is UniqueConstraint or ExcludeConstraint;
        string? given = constraint.Name ?? (constraint as UniqueConstraint)?.UsingIndex;
        if (given is not null)
        {
            _chooser.TakeConstraint(Table.Schema, given);
            if (ownIndex)
            {
                _chooser.TakeRelation(Table.Schema, given);
            }

            return given;
        }

        if (!_tableIsMade)
        {
            _notes.Add(RollbackPlanner.GuessedName);
        }

        return constraint switch
        {
            UniqueConstraint unique => _chooser.IndexConstraint(Table, unique.Columns.Concat(unique.Include), unique.Primary ? "pkey" : "key"),
            ExcludeConstraint exclude => _chooser.IndexConstraint(Table, exclude.ElementNames, "excl"),
            ForeignKeyConstraint key => _chooser.Constraint(Table, key.Columns, "fkey"),
            NotNullConstraint notNull => _chooser.Constraint(Table, [notNull.Column], "not_null"),
            CheckConstraint check => _chooser.Constraint(Table, CheckedColumn(check), "check"),
            _ => throw new InvalidOperationException($"No rule for the name of {constraint.GetType().Name}."),
        };
    }

    /// <summary>The one column that a CHECK is about; none where it is about several or none.</summary>
    private List<string> CheckedColumn(CheckConstraint check)
    {
        IReadOnlyDictionary<string, bool>? known = _table.Relation?.Columns;
        List<string> columns = [.. check.Mentions.Where(m => known is null ? !m.MayBeKeyword : known.ContainsKey(m.Name) || _script.Columns.Contains(m.Name)).Select(m => m.Name)];
        return columns.Count == 1 ? columns : [];
    }

    private void AddUnique(UniqueConstraint unique)
    {
        if (unique.UsingIndex is { } indexName)
        {
            QualifiedName index = Table with { Name = indexName };
            _notes.Add($"The constraint has taken over the index {index}, which goes with it.");
            if (!_names.Indexes.Contains(index))
            {
                _afterwards.Add(Recreate(unique, index));
            }
        }

        if (!unique.Primary)
        {
            return;
        }

        // Without the catalog it is not known which columns were nullable before the key made them NOT NULL.
        if (_table.Relation is { } relation && unique.UsingIndex is null)
        {
            foreach (string column in unique.Columns.Where(c => relation.Columns.TryGetValue(c, out bool notNull) && !notNull).Reverse())
            {
                _drops.Add($"alter column {SqlName.QuoteIfNeeded(column)} drop not null");
            }
        }
        else if (unique.UsingIndex is not null || !unique.Columns.All(_script.Columns.Contains))
        {
            _notes.Add("The columns of the key stay NOT NULL, also those that were nullable before it: which these are cannot be told here.");
        }
    }

    /// <summary>An index from before the migration that the constraint took with it.</summary>
    private RollbackStatement Recreate(UniqueConstraint unique, QualifiedName index)
    {
        const string Prefix = "CREATE UNIQUE INDEX ";
        string? definition = index.Schema is { } schema ? _names.Catalog?.Find(schema, index.Name)?.IndexDefinition : null;
        return definition?.StartsWith(Prefix, StringComparison.Ordinal) == true
            ? _forward.By(
                "create unique index concurrently if not exists " + definition[Prefix.Length..],
                lossy: false,
                TableLockMode.ShareUpdateExclusive,
                [Table],
                [$"Builds {index} again, as it was before the {(unique.Primary ? "primary key" : "constraint")} took it."])
            : _forward.Unknown($"The index {index} was there before and goes with the constraint: its definition cannot be told here. Connect before the migration runs, or write it by hand.");
    }

    private static string Short(string text)
    {
        string line = string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
        return line.Length <= 80 ? line : string.Concat(line.AsSpan(0, 77), "...");
    }
}
