using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Collects what takes the actions of one ALTER TABLE back: one ALTER for all that the text tells, and what the catalog tells of each other action.</summary>
internal sealed class AlterReversal
{
    private readonly Reversing _r;
    private readonly AlterTable _alter;
    private readonly ResolvedName _table;
    private readonly ScriptObject _script;
    private readonly bool _tableIsMade;
    private readonly List<string> _drops = [];
    private readonly List<string> _notes = [];
    private readonly HashSet<QualifiedName> _parents = [];
    private readonly List<List<RollbackStatement>> _others = [];
    private readonly List<RollbackStatement> _afterwards = [];
    private bool _lossy;

    internal AlterReversal(Reversing r, AlterTable alter, ResolvedName table)
    {
        _r = r;
        _alter = alter;
        _table = table;
        _script = r.Names.Touch(ObjectKind.Table, table.Name);
        _tableIsMade = r.Names.Made(table.Name) is not null;
    }

    private ForwardStatement Forward => _r.Forward;

    private QualifiedName Table => _table.Name;

    internal async Task AddAsync(TableAction action)
    {
        switch (action)
        {
            case AddColumn add:
                await AddAsync(add).ConfigureAwait(false);
                break;
            case AddConstraint { Constraint: var constraint }:
                Add(constraint);
                break;
            case var _ when _tableIsMade && action is not (AttachPartition or DetachPartition or SetInherit):
                Follow(action);
                break;
            default:
                _others.Add(await TableActionReversal.ReverseAsync(_r, _alter, _script, _table, action).ConfigureAwait(false));
                Follow(action);
                break;
        }
    }

    /// <summary>In the order in which the rollback runs them: what was added goes first, what was dropped comes last.</summary>
    internal IEnumerable<RollbackStatement> Result()
    {
        _others.Reverse();
        List<RollbackStatement> others = [.. _others.SelectMany(o => o)];
        if (_tableIsMade)
        {
            if (others.Count == 0)
            {
                others.Add(Forward.NotNeeded($"It goes with the table {Table}, which this script makes."));
            }

            return others;
        }

        List<RollbackStatement> result = [];
        if (_drops.Count > 0)
        {
            _drops.Reverse();
            _parents.Remove(Table);
            _notes.Add(TableReversal.ParentsNote(_parents) ?? "");
            _notes.Add(IndexReversal.Missing(_r.Names, _table) ?? "");
            string only = _alter.Only ? "only " : "";
            result.Add(Forward.By($"alter table if exists {only}{Table} {string.Join(", ", _drops)}", _lossy, TableLockMode.AccessExclusive, [Table, .. _parents], _notes));
        }

        return [.. result, .. _afterwards, .. others];
    }

    /// <summary>Notes what an action drops.</summary>
    private void Follow(TableAction action)
    {
        switch (action)
        {
            case DropColumn drop:
                ScriptNames.DropPart(_script, ObjectKind.Column, drop.Column);
                break;
            case DropConstraint drop:
                ScriptNames.DropPart(_script, ObjectKind.Constraint, drop.Name);
                break;
        }
    }

    private async Task AddAsync(AddColumn add)
    {
        string name = SqlName.QuoteIfNeeded(add.Column.Name);
        ObjectReference column = ObjectReference.OfColumn(Table, add.Column.Name);
        bool there = !_tableIsMade && await _r.FindAsync(column).ConfigureAwait(false) is not null;
        bool ifNotExists = add.IfNotExists || _r.Optional;
        if (there && ifNotExists)
        {
            _others.Add([Forward.NotNeeded($"{Table} has the column {name} in {_r.Catalog!.Facts.Database}: {_r.OnlyIfMissing} does nothing there, and the column must stay. (If the migration has run already, it may be its own.)")]);
            return;
        }

        ScriptObject made = _r.Names.MakePart(_script, ObjectKind.Column, add.Column.Name, !ifNotExists || _r.Catalog is not null);
        _script.Parents.UnionWith(add.Column.References.Select(r => _r.Names.Existing(r, Forward.Path).Name));
        if (_tableIsMade)
        {
            return;
        }

        if (made.Fate.Dropped)
        {
            _others.Add([Forward.NotNeeded($"The script drops the column {name} itself.")]);
            return;
        }

        if (ifNotExists && _r.Catalog is null)
        {
            _others.Add([Forward.Unknown(
                $"{_r.Whether} {Table} had the column {name} before, with data of its own, cannot be told from the text. Connect before the migration runs, or run this only if the migration made it.",
                $"alter table if exists {Table} drop column if exists {name}")]);
            return;
        }

        if (_r.Displaced(column) is { } displaced)
        {
            // The name was another column's, which must not be dropped where it has it back.
            _others.Add([Forward.By($"alter table if exists {Table} drop column if exists {name}", $"All values of {name} are lost; indexes and constraints on the column go with it.", lossy: true, condition: displaced)]);
            return;
        }

        if (await Recreated.ColumnAsync(_r, column, add.Column.Type).ConfigureAwait(false) is { } recreated)
        {
            _others.Add([Forward.By($"alter table if exists {Table} drop column if exists {name}", $"All values of {name} are lost; indexes and constraints on the column go with it. {recreated.Note}", lossy: true, condition: recreated.Condition)]);
            return;
        }

        _lossy = true;
        _drops.Add($"drop column if exists {name}");
        _notes.Add($"All values of {name} are lost; indexes and constraints on the column go with it.");
        if (there)
        {
            _notes.Add($"{Table} has the column {name} already: the migration has run, or will fail here.");
        }

        _parents.UnionWith(add.Column.References.Select(r => _r.Names.Existing(r, Forward.Path).Name));
    }

    private void Add(TableConstraint constraint)
    {
        string name = NameOf(constraint);
        bool there = constraint.Name is not null && _table.Relation?.Constraints.Contains(name) == true && !_script.Gone.Contains((ObjectKind.Constraint, name)) && !_script.Parts.Values.Any(p => p.Kind == ObjectKind.Constraint && p.Before?.Name == name);
        if (_r.Optional && !_tableIsMade && (there || _r.Catalog is null))
        {
            _others.Add([there
                ? Forward.NotNeeded($"{Table} has the constraint {SqlName.QuoteIfNeeded(name)} in {_r.Catalog!.Facts.Database}: {_r.OnlyIfMissing} does nothing there, and the constraint must stay. (If the migration has run already, it may be its own.)")
                : Forward.Unknown(
                    $"{_r.Whether} {Table} had the constraint {SqlName.QuoteIfNeeded(name)} before cannot be told from the text. Connect before the migration runs, or run this only if the migration made it.",
                    $"alter table if exists {Table} drop constraint if exists {SqlName.QuoteIfNeeded(name)}")]);
            return;
        }

        ScriptObject made = _r.Names.MakePart(_script, ObjectKind.Constraint, name);
        if (constraint is ForeignKeyConstraint foreign)
        {
            _script.Parents.Add(_r.Names.Existing(foreign.Parent, Forward.Path).Name);
        }

        if (_tableIsMade)
        {
            return;
        }

        if (made.Fate.Dropped)
        {
            _others.Add([Forward.NotNeeded($"The script drops the constraint {SqlName.QuoteIfNeeded(name)} itself.")]);
            return;
        }

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
            _parents.Add(_r.Names.Existing(key.Parent, Forward.Path).Name);
        }
    }

    private string NameOf(TableConstraint constraint)
    {
        bool ownIndex = constraint is UniqueConstraint or ExcludeConstraint;
        string? given = constraint.Name ?? (constraint as UniqueConstraint)?.UsingIndex;
        if (given is not null)
        {
            _r.Chooser.TakeConstraint(Table.Schema, given);
            if (ownIndex)
            {
                _r.Chooser.TakeRelation(Table.Schema, given);
            }

            return given;
        }

        if (!_tableIsMade)
        {
            _notes.Add(RollbackPlanner.GuessedName);
        }

        return constraint switch
        {
            UniqueConstraint unique => _r.Chooser.IndexConstraint(Table, unique.Columns.Concat(unique.Include), unique.Primary ? "pkey" : "key"),
            ExcludeConstraint exclude => _r.Chooser.IndexConstraint(Table, exclude.ElementNames, "excl"),
            ForeignKeyConstraint key => _r.Chooser.Constraint(Table, key.Columns, "fkey"),
            NotNullConstraint notNull => _r.Chooser.Constraint(Table, [notNull.Column], "not_null"),
            CheckConstraint check => _r.Chooser.Constraint(Table, CheckedColumn(check), "check"),
            _ => throw new InvalidOperationException($"No rule for the name of {constraint.GetType().Name}."),
        };
    }

    /// <summary>The one column that a CHECK is about; none where it is about several or none.</summary>
    private List<string> CheckedColumn(CheckConstraint check)
    {
        IReadOnlyDictionary<string, bool>? known = _table.Relation?.Columns;
        List<string> columns = [.. check.Mentions.Where(m => known is null ? !m.MayBeKeyword : known.ContainsKey(m.Name) || _script.Adds(m.Name)).Select(m => m.Name)];
        return columns.Count == 1 ? columns : [];
    }

    private void AddUnique(UniqueConstraint unique)
    {
        if (unique.UsingIndex is { } indexName)
        {
            QualifiedName index = Table with { Name = indexName };
            _notes.Add($"The constraint has taken over the index {index}, which goes with it.");
            if (_r.Names.Find(ObjectKind.Index, index) is not { Made: true })
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
        else if (unique.UsingIndex is not null || !unique.Columns.All(_script.Adds))
        {
            _notes.Add("The columns of the key stay NOT NULL, also those that were nullable before it: which these are cannot be told here.");
        }
    }

    /// <summary>An index from before the migration that the constraint took with it.</summary>
    private RollbackStatement Recreate(UniqueConstraint unique, QualifiedName index)
    {
        const string Prefix = "CREATE UNIQUE INDEX ";
        string? definition = index.Schema is { } schema ? _r.Names.Catalog?.Find(schema, index.Name)?.IndexDefinition : null;
        return definition?.StartsWith(Prefix, StringComparison.Ordinal) == true
            ? Forward.By(
                "create unique index concurrently if not exists " + definition[Prefix.Length..],
                lossy: false,
                TableLockMode.ShareUpdateExclusive,
                [Table],
                [$"Builds {index} again, as it was before the {(unique.Primary ? "primary key" : "constraint")} took it."])
            : Forward.Unknown($"The index {index} was there before and goes with the constraint: its definition cannot be told here. Connect before the migration runs, or write it by hand.");
    }
}
