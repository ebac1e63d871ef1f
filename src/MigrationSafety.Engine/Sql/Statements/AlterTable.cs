namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>ALTER TABLE and its like for indexes, views, sequences, foreign tables and composite types, but for renaming and SET SCHEMA.</summary>
/// <param name="Kind">What the command says it is; ALTER TABLE is also said of views, indexes and sequences.</param>
/// <param name="IfExists">IF EXISTS.</param>
/// <param name="Only">ONLY.</param>
/// <param name="Table">Table.</param>
/// <param name="Actions">Its actions, in the order of the text.</param>
internal sealed record AlterTable(ObjectKind Kind, bool IfExists, bool Only, QualifiedName Table, IReadOnlyList<TableAction> Actions) : ParsedStatement("ALTER " + Kind.TagWords())
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];

    /// <summary>Parses it behind the name.</summary>
    internal static AlterTable Read(SqlReader r, ObjectKind kind, bool ifExists, bool only, QualifiedName name) =>
        new(kind, ifExists, only, name, r.List(r => ReadAction(r, kind)));

    private static TableAction ReadAction(SqlReader r, ObjectKind kind)
    {
        int start = r.At;
        TableAction? action = kind == ObjectKind.Type ? Attribute(r) : TableActions.Read(r);

        // Without an action the reader has failed, and with it the statement.
        return action is null ? null! : action with { Source = r.From(start) };
    }

    /// <summary>An action on a composite type.</summary>
    private static TableAction? Attribute(SqlReader r)
    {
        if (r.Take("add", "attribute"))
        {
            int start = r.At;
            ColumnDefinition column = new(r.Name(), TypeName.Read(r), default) { Collation = r.Take("collate") ? r.Qualified() : null };
            return new AddColumn(false, column with { Definition = r.From(start) }, r.TakeCascade());
        }

        if (r.Take("drop", "attribute"))
        {
            return new DropColumn(r.TakeIfExists(), r.Name(), r.TakeCascade());
        }

        r.Expect("alter", "attribute");
        string name = r.Name();
        r.Take("set", "data");
        r.Expect("type");
        return new AlterColumnType(name, TypeName.Read(r), r.Take("collate") ? r.Qualified() : null, null, r.TakeCascade());
    }
}

/// <summary>ALTER TABLE ALL IN TABLESPACE, and the same for indexes and materialized views.</summary>
/// <param name="Kind">Kind.</param>
/// <param name="From">Tablespace.</param>
/// <param name="OwnedBy">Roles whose objects are moved; empty for all.</param>
/// <param name="To">Where they go.</param>
/// <param name="NoWait">NOWAIT.</param>
internal sealed record MoveAllInTablespace(ObjectKind Kind, string From, IReadOnlyList<string> OwnedBy, string To, bool NoWait) : ParsedStatement("ALTER " + Kind.TagWords())
{
    internal static MoveAllInTablespace Read(SqlReader r, ObjectKind kind)
    {
        r.Expect("all", "in");
        r.Expect("tablespace");
        string from = r.Name();
        IReadOnlyList<string> roles = r.Take("owned", "by") ? r.Roles() : [];
        r.Expect("set", "tablespace");
        return new MoveAllInTablespace(kind, from, roles, r.Name(), r.Take("nowait"));
    }
}

/// <summary>An action of ALTER TABLE.</summary>
internal abstract record TableAction
{
    /// <summary>Its text.</summary>
    internal SqlFragment Source { get; init; }

    /// <summary>Its text.</summary>
    internal string Text => Source.Text;
}

/// <summary>ADD COLUMN, ADD ATTRIBUTE.</summary>
internal sealed record AddColumn(bool IfNotExists, ColumnDefinition Column, bool Cascade = false) : TableAction;

/// <summary>DROP COLUMN, DROP ATTRIBUTE.</summary>
internal sealed record DropColumn(bool IfExists, string Column, bool Cascade) : TableAction;

/// <summary>ALTER COLUMN ... TYPE.</summary>
internal sealed record AlterColumnType(string Column, TypeName Type, QualifiedName? Collation, SqlFragment? Using, bool Cascade) : TableAction;

/// <summary>SET DEFAULT; without expression DROP DEFAULT.</summary>
internal sealed record SetDefault(string Column, SqlFragment? Expression) : TableAction;

/// <summary>SET NOT NULL or DROP NOT NULL.</summary>
internal sealed record SetNotNull(string Column, bool NotNull) : TableAction;

/// <summary>SET EXPRESSION (17); without expression DROP EXPRESSION.</summary>
internal sealed record SetExpression(string Column, SqlFragment? Expression, bool IfExists) : TableAction;

/// <summary>ADD GENERATED ... AS IDENTITY.</summary>
internal sealed record AddIdentity(string Column, IdentityColumn Identity) : TableAction;

/// <summary>SET GENERATED, SET of a sequence's option, RESTART.</summary>
internal sealed record AlterIdentity(string Column, bool? Always, IReadOnlyList<SequenceOption> Options) : TableAction;

/// <summary>DROP IDENTITY.</summary>
internal sealed record DropIdentity(string Column, bool IfExists) : TableAction;

/// <summary>What ALTER COLUMN sets that changes no row.</summary>
internal enum ColumnSetting
{
    /// <summary>SET STATISTICS.</summary>
    Statistics,

    /// <summary>SET STORAGE.</summary>
    Storage,

    /// <summary>SET COMPRESSION.</summary>
    Compression,

    /// <summary>SET (n_distinct ...).</summary>
    Options,

    /// <summary>RESET (n_distinct ...).</summary>
    ResetOptions,

    /// <summary>OPTIONS of a foreign table's column.</summary>
    ForeignOptions,
}

/// <summary>ALTER COLUMN ... SET STATISTICS and its like. Of an index the column may be a number.</summary>
internal sealed record SetColumn(string Column, ColumnSetting Setting, SqlFragment Value) : TableAction;

/// <summary>ADD CONSTRAINT, with or without a name.</summary>
internal sealed record AddConstraint(TableConstraint Constraint) : TableAction;

/// <summary>ALTER CONSTRAINT.</summary>
internal sealed record AlterConstraint(string Name, ConstraintTraits Traits) : TableAction;

/// <summary>VALIDATE CONSTRAINT.</summary>
internal sealed record ValidateConstraint(string Name) : TableAction;

/// <summary>DROP CONSTRAINT.</summary>
internal sealed record DropConstraint(bool IfExists, string Name, bool Cascade) : TableAction;

/// <summary>ENABLE and DISABLE TRIGGER and RULE.</summary>
/// <param name="Rule">Whether it is about a rule.</param>
/// <param name="Name">Name; ALL and USER are null.</param>
/// <param name="All">ALL or USER, in lower case.</param>
/// <param name="Enable">ENABLE or DISABLE.</param>
/// <param name="Mode">ALWAYS, REPLICA, in lower case; null where neither is said.</param>
internal sealed record SwitchTrigger(bool Rule, string? Name, string? All, bool Enable, string? Mode) : TableAction;

/// <summary>ENABLE, DISABLE, FORCE, NO FORCE ROW LEVEL SECURITY.</summary>
internal sealed record SetRowSecurity(bool? Enabled, bool? Forced) : TableAction;

/// <summary>INHERIT and NO INHERIT.</summary>
internal sealed record SetInherit(QualifiedName Parent, bool Inherit) : TableAction;

/// <summary>OF and NOT OF.</summary>
internal sealed record SetOfType(QualifiedName? Type) : TableAction;

/// <summary>OWNER TO.</summary>
internal sealed record SetTableOwner(string Role) : TableAction;

/// <summary>CLUSTER ON; without index SET WITHOUT CLUSTER.</summary>
internal sealed record SetCluster(string? Index) : TableAction;

/// <summary>SET LOGGED and UNLOGGED.</summary>
internal sealed record SetLogged(bool Logged) : TableAction;

/// <summary>SET TABLESPACE.</summary>
internal sealed record SetTablespace(string Tablespace) : TableAction;

/// <summary>SET ACCESS METHOD; null for DEFAULT.</summary>
internal sealed record SetAccessMethod(string? Method) : TableAction;

/// <summary>SET (...) and RESET (...) of storage parameters and of a view's options.</summary>
internal sealed record SetStorageParameters(IReadOnlyList<SqlOption> Options, bool Reset) : TableAction;

/// <summary>OPTIONS of a foreign table.</summary>
internal sealed record SetForeignOptions(IReadOnlyList<SqlOption> Options) : TableAction;

/// <summary>REPLICA IDENTITY.</summary>
/// <param name="Mode">default, full, nothing or index.</param>
/// <param name="Index">The index of USING INDEX.</param>
internal sealed record SetReplicaIdentity(string Mode, string? Index) : TableAction;

/// <summary>SET WITHOUT OIDS, which does nothing.</summary>
internal sealed record SetWithoutOids : TableAction;

/// <summary>ATTACH PARTITION; of an index without bound.</summary>
internal sealed record AttachPartition(QualifiedName Partition, SqlFragment? Bound) : TableAction;

/// <summary>DETACH PARTITION.</summary>
internal sealed record DetachPartition(QualifiedName Partition, bool Concurrently, bool Finalize) : TableAction;
