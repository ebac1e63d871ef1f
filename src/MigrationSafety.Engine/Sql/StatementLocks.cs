using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Sql;

/// <summary>A lock that the words of a statement tell.</summary>
/// <param name="Name">The relation, as the statement names it.</param>
/// <param name="Mode">Strongest mode.</param>
/// <param name="Index">Whether it is an index; its table is locked too, and only the catalog knows which that is.</param>
internal sealed record StatedLock(QualifiedName Name, TableLockMode Mode, bool Index = false);

/// <summary>The locks that statements take on what they name. Measured on PostgreSQL 14 to 18; partitions and children are locked with their table.</summary>
internal static class StatementLocks
{
    // Storage parameters that may change under SHARE UPDATE EXCLUSIVE (reloptions.c); the autovacuum_ family is told by its name.
    private static readonly string[] s_quietParameters =
    [
        "fillfactor", "parallel_workers", "toast_tuple_target", "vacuum_index_cleanup", "vacuum_truncate", "vacuum_max_eager_freeze_failure_rate", "log_autovacuum_min_duration", "deduplicate_items",
    ];

    /// <summary>The locks of a statement; empty where it takes none, or none that its words tell.</summary>
    internal static IReadOnlyList<StatedLock> Of(ParsedStatement parsed)
    {
        Dictionary<(QualifiedName Name, bool Index), TableLockMode> locks = [];
        foreach (StatedLock stated in Each(parsed))
        {
            TableLockMode before = locks.GetValueOrDefault((stated.Name, stated.Index));
            locks[(stated.Name, stated.Index)] = stated.Mode > before ? stated.Mode : before;
        }

        return [.. locks.Select(l => new StatedLock(l.Key.Name, l.Value, l.Key.Index))];
    }

    private static IEnumerable<StatedLock> Each(ParsedStatement parsed) => parsed switch
    {
        CreateTable create => OfCreate(create),
        CreateIndex create => [new(create.Table, create.Concurrently ? TableLockMode.ShareUpdateExclusive : TableLockMode.Share)],
        CreateView { Replace: true } create => [new(create.View, TableLockMode.AccessExclusive)],
        CreateTrigger create => [new(create.Table, TableLockMode.ShareRowExclusive), .. create.From is null ? Array.Empty<StatedLock>() : [new(create.From, TableLockMode.AccessShare)]],
        CreateRule or CreatePolicy or AlterPolicy => All(parsed, TableLockMode.AccessExclusive),
        CreateStatistics => All(parsed, TableLockMode.ShareUpdateExclusive),
        CreatePublication create => create.Objects.Where(o => o.Table is not null).Select(o => new StatedLock(o.Table!, TableLockMode.ShareUpdateExclusive)),
        AlterPublication alter => alter.Objects.Where(o => o.Table is not null).Select(o => new StatedLock(o.Table!, TableLockMode.ShareUpdateExclusive)),
        AlterTable alter => alter.Actions.SelectMany(a => OfAction(alter, a)),
        AlterSequence alter => [new(alter.Sequence, TableLockMode.ShareRowExclusive), .. OfOwner(alter.Options)],
        RenameObject rename => OfRename(rename),
        SetSchema { Object: var moved } => moved.Kind.IsRelation() ? [new(moved.Name, TableLockMode.AccessExclusive)] : [],
        SetExtensionDependency { Object.Kind: ObjectKind.Trigger or ObjectKind.MaterializedView } => All(parsed, TableLockMode.AccessExclusive),
        DropObjects drop => OfDrop(drop),
        CommentOn { Object: var described } => OfComment(described),
        SecurityLabel { Object.Kind: ObjectKind.Table or ObjectKind.View or ObjectKind.MaterializedView or ObjectKind.ForeignTable or ObjectKind.Column } => All(parsed, TableLockMode.ShareUpdateExclusive),
        GrantPrivileges { Kind: ObjectKind.Table } => All(parsed, TableLockMode.AccessShare),
        CreateSequence create => OfOwner(create.Options),
        Truncate or RefreshMaterializedView { Concurrently: false } or Cluster => All(parsed, TableLockMode.AccessExclusive),
        RefreshMaterializedView => All(parsed, TableLockMode.Exclusive),
        LockTables { Mode: var mode } => All(parsed, mode),
        Vacuum { Full: true, Command: "VACUUM" } => All(parsed, TableLockMode.AccessExclusive),
        Vacuum => All(parsed, TableLockMode.ShareUpdateExclusive),
        Reindex { What: "index", Name: { } index, Concurrently: var quiet } => [new(index, quiet ? TableLockMode.ShareUpdateExclusive : TableLockMode.AccessExclusive, Index: true)],
        Reindex { Concurrently: var quiet } => All(parsed, quiet ? TableLockMode.ShareUpdateExclusive : TableLockMode.Share),
        DataStatement data => data.All.SelectMany(s => All(s, TableLockMode.RowExclusive)),
        Copy copy => All(parsed, copy.From ? TableLockMode.RowExclusive : TableLockMode.AccessShare),
        Explain { Statement: var explained } => Each(explained),
        _ => [],
    };

    /// <summary>Whether SET or RESET of these storage parameters lets reads and writes go on.</summary>
    internal static bool IsQuiet(IEnumerable<SqlOption> options) => options.All(o =>
    {
        string name = o.Name.StartsWith("toast.", StringComparison.Ordinal) ? o.Name["toast.".Length..] : o.Name;
        return name.StartsWith("autovacuum_", StringComparison.Ordinal) || Array.IndexOf(s_quietParameters, name) >= 0;
    });

    private static IEnumerable<StatedLock> All(ParsedStatement parsed, TableLockMode mode) => parsed.Targets.Select(t => new StatedLock(t, mode));

    private static IEnumerable<StatedLock> OfCreate(CreateTable create) =>
    [
        .. create.References.Where(r => r != create.Table).Select(r => new StatedLock(r, TableLockMode.ShareRowExclusive)),
        .. create.Inherits.Select(i => new StatedLock(i, TableLockMode.ShareUpdateExclusive)),
        .. create.Like.Select(l => new StatedLock(l.Table, TableLockMode.AccessShare)),
        .. create.PartitionOf is { } table ? new[] { new StatedLock(table, TableLockMode.AccessExclusive) } : [],
    ];

    /// <summary>OWNED BY table.column.</summary>
    private static IEnumerable<StatedLock> OfOwner(IEnumerable<SequenceOption> options)
    {
        foreach (SequenceOption option in options.Where(o => o.Name == "owned by" && !o.Value.IsEmpty && !o.Value.Read().Sees("none")))
        {
            if (option.Value.Read().TakeColumnsTable() is { } table)
            {
                yield return new StatedLock(table, TableLockMode.AccessShare);
            }
        }
    }

    private static IEnumerable<StatedLock> OfAction(AlterTable alter, TableAction action)
    {
        yield return new StatedLock(alter.Table, Mode(alter.Kind, action), alter.Kind == ObjectKind.Index);
        IEnumerable<QualifiedName> parents = action switch
        {
            AddColumn add => add.Column.References,
            AddConstraint { Constraint: ForeignKeyConstraint key } => [key.Parent],
            _ => [],
        };
        foreach (QualifiedName parent in parents)
        {
            yield return new StatedLock(parent, TableLockMode.ShareRowExclusive);
        }

        switch (action)
        {
            case AttachPartition attach:
                yield return new StatedLock(attach.Partition, TableLockMode.AccessExclusive, alter.Kind == ObjectKind.Index);
                break;
            case DetachPartition { Concurrently: false } detach:
                yield return new StatedLock(detach.Partition, TableLockMode.AccessExclusive);
                break;
            case DetachPartition detach:
                yield return new StatedLock(detach.Partition, TableLockMode.ShareUpdateExclusive);
                break;
            case SetInherit { Inherit: true } inherit:
                yield return new StatedLock(inherit.Parent, TableLockMode.ShareUpdateExclusive);
                break;
            case SetInherit { Inherit: false } inherit:
                yield return new StatedLock(inherit.Parent, TableLockMode.AccessShare);
                break;
        }
    }

    /// <summary>AlterTableGetLockLevel in tablecmds.c.</summary>
    private static TableLockMode Mode(ObjectKind kind, TableAction action) => action switch
    {
        ValidateConstraint or SetCluster or AttachPartition => TableLockMode.ShareUpdateExclusive,
        DetachPartition detach => detach.Concurrently || detach.Finalize ? TableLockMode.ShareUpdateExclusive : TableLockMode.AccessExclusive,
        SetColumn { Setting: ColumnSetting.Statistics or ColumnSetting.Options or ColumnSetting.ResetOptions } => TableLockMode.ShareUpdateExclusive,
        SetStorageParameters set when kind is not ObjectKind.View && IsQuiet(set.Options) => TableLockMode.ShareUpdateExclusive,
        AddConstraint { Constraint: ForeignKeyConstraint } or SwitchTrigger { Rule: false } => TableLockMode.ShareRowExclusive,
        _ => TableLockMode.AccessExclusive,
    };

    private static IEnumerable<StatedLock> OfRename(RenameObject rename) => rename.Object.Kind switch
    {
        ObjectKind.Index => [new(rename.Object.Name, TableLockMode.ShareUpdateExclusive, Index: true)],
        ObjectKind.Trigger or ObjectKind.Policy or ObjectKind.Rule => [new(rename.Object.Target, TableLockMode.AccessExclusive)],
        { } kind when kind.IsRelation() => [new(rename.Object.Name, TableLockMode.AccessExclusive)],
        _ => [],
    };

    private static IEnumerable<StatedLock> OfDrop(DropObjects drop) => drop.Kind switch
    {
        ObjectKind.Index => drop.Objects.Select(o => new StatedLock(o.Name, drop.Concurrently ? TableLockMode.ShareUpdateExclusive : TableLockMode.AccessExclusive, Index: true)),
        ObjectKind.Trigger or ObjectKind.Policy or ObjectKind.Rule => All(drop, TableLockMode.AccessExclusive),
        { } kind when kind.IsRelation() => All(drop, TableLockMode.AccessExclusive),
        _ => [],
    };

    private static IEnumerable<StatedLock> OfComment(ObjectReference described) => described.Kind switch
    {
        ObjectKind.Index => [new(described.Name, TableLockMode.ShareUpdateExclusive, Index: true)],
        ObjectKind.Column => [new(described.Target, TableLockMode.ShareUpdateExclusive)],
        ObjectKind.Constraint or ObjectKind.Trigger or ObjectKind.Policy or ObjectKind.Rule => [new(described.Target, TableLockMode.AccessShare)],
        { } kind when kind.IsRelation() => [new(described.Name, TableLockMode.ShareUpdateExclusive)],
        _ => [],
    };
}
