using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>What a statement of a definition sets.</summary>
internal enum DefinitionProperty
{
    /// <summary>The name of a type alone, for the functions that it needs.</summary>
    Shell,

    /// <summary>The object itself.</summary>
    Create,

    /// <summary>Type and collation of a column.</summary>
    DataType,

    /// <summary>Default of a column or a domain.</summary>
    Default,

    NotNull,

    /// <summary>GENERATED ... AS IDENTITY.</summary>
    Identity,

    /// <summary>Expression of a generated column.</summary>
    Generated,

    Storage,

    Compression,

    Statistics,

    /// <summary>Storage parameters of a relation or a column, options of a view, parameters of a sequence, options of foreign data.</summary>
    Options,

    Owner,

    Privileges,

    /// <summary>What objects that a role makes later grant.</summary>
    DefaultPrivileges,

    /// <summary>What belongs to a publication, an operator family, a text search configuration.</summary>
    Membership,

    Comment,

    SecurityLabel,

    Tablespace,

    AccessMethod,

    Persistence,

    ReplicaIdentity,

    RowSecurity,

    /// <summary>The index that CLUSTER goes by.</summary>
    Cluster,

    /// <summary>Whether a trigger, a rule, an event trigger or a subscription is enabled.</summary>
    Enabled,

    /// <summary>ATTACH PARTITION, of tables and of indexes.</summary>
    Partition,

    Inherit,

    /// <summary>Where a sequence stands.</summary>
    SequencePosition,

    /// <summary>The column that a sequence belongs to.</summary>
    OwnedBy,

    /// <summary>ALTER ... DEPENDS ON EXTENSION.</summary>
    ExtensionDependency,

    /// <summary>REFRESH of a materialized view that held rows.</summary>
    Rows,
}

/// <summary>When a statement of a definition is to run, where several objects are made.</summary>
internal enum DefinitionPhase
{
    /// <summary>With its object.</summary>
    Object,

    /// <summary>When all objects are there: what ties them together.</summary>
    Links,

    /// <summary>At the very end: what would act upon the statements after it.</summary>
    End,
}

/// <summary>One statement of a definition.</summary>
/// <param name="Property">What it sets.</param>
/// <param name="Sql">The statement, without a semicolon; every name in it is qualified.</param>
internal sealed record DefinitionStatement(DefinitionProperty Property, string Sql)
{
    /// <summary>Whether it serves to set the property of an object that is there: the object as created has the value, since it is in the CREATE or the default.</summary>
    internal bool Alone { get; init; }

    /// <summary>When it is to run.</summary>
    internal DefinitionPhase Phase { get; init; }

    /// <summary>The roles that it names: it fails on a server that lacks one.</summary>
    internal IReadOnlyList<string> Roles { get; init; } = [];
}

/// <summary>What makes an object of the catalog again, exactly as it is.</summary>
internal sealed record ObjectDefinition
{
    /// <summary>Its place in the catalogs.</summary>
    internal required CatalogAddress Address { get; init; }

    /// <summary>Kind.</summary>
    internal required ObjectKind Kind { get; init; }

    /// <summary>Its name as ALTER and DROP write it behind the words of the kind: qualified, quoted where needed, with arguments; <c>touch on app.items</c> of a trigger, <c>app.items.label</c> of a column.</summary>
    internal required string Identity { get; init; }

    /// <summary>The statements that make it, in order.</summary>
    internal required IReadOnlyList<DefinitionStatement> Statements { get; init; }

    /// <summary>The relation, as quoted <c>schema.name</c>, that it is or is part of; null where there is none.</summary>
    internal string? Relation { get; init; }

    /// <summary>The object without which it cannot be: the table of an index; null where it stands for itself.</summary>
    internal CatalogAddress? GoesWith { get; init; }

    /// <summary>Whether DROP of what was asked for takes it only with CASCADE. False for what was asked for, and for what goes with it anyway.</summary>
    internal bool NeedsCascade { get; init; }

    /// <summary>The planner's estimate of its rows (pg_class.reltuples) of tables and materialized views; null otherwise, and where it was never analyzed.</summary>
    internal long? EstimatedRows { get; init; }

    /// <summary>Size of the table with its TOAST and indexes in pages of the last VACUUM or ANALYZE, in bytes; null where it holds nothing.</summary>
    internal long? SizeBytes { get; init; }

    /// <summary>Whether it is a foreign key.</summary>
    internal bool IsForeignKey => Kind == ObjectKind.Constraint && this[DefinitionProperty.Create] is { } create
        && StatementParser.Parse(SqlScript.Parse(create.Sql, psql: false).Statements[0]) is AlterTable { Actions: [AddConstraint { Constraint: ForeignKeyConstraint }] };

    /// <summary>The statement that sets a property; null where it has none.</summary>
    /// <param name="property">Property.</param>
    internal DefinitionStatement? this[DefinitionProperty property] => Statements.FirstOrDefault(s => s.Property == property);
}
