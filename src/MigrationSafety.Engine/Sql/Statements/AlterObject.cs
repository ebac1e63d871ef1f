namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>RENAME.</summary>
/// <param name="Object">What is renamed, or what has the part that is.</param>
/// <param name="IfExists">IF EXISTS.</param>
/// <param name="Part">What of it is renamed.</param>
/// <param name="OldName">The part's name.</param>
/// <param name="NewName">New name.</param>
internal sealed record RenameObject(ObjectReference Object, bool IfExists, RenamedPart Part, string? OldName, string NewName) : ParsedStatement("ALTER " + Object.Kind.TagWords())
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Object.Target];
}

/// <summary>What of a thing is renamed.</summary>
internal enum RenamedPart
{
    /// <summary>The thing itself.</summary>
    Whole,

    /// <summary>A column.</summary>
    Column,

    /// <summary>A constraint of a table or domain.</summary>
    Constraint,

    /// <summary>An attribute of a composite type.</summary>
    Attribute,

    /// <summary>A value of an enum.</summary>
    Value,
}

/// <summary>SET SCHEMA.</summary>
internal sealed record SetSchema(ObjectReference Object, bool IfExists, string Schema) : ParsedStatement("ALTER " + Object.Kind.TagWords())
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Object.Target];
}

/// <summary>OWNER TO; of tables and their like it is an action of <see cref="AlterTable"/>.</summary>
internal sealed record SetOwner(ObjectReference Object, string Role) : ParsedStatement("ALTER " + Object.Kind.TagWords())
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Object.Target];
}

/// <summary>DEPENDS ON EXTENSION and NO DEPENDS ON EXTENSION.</summary>
internal sealed record SetExtensionDependency(ObjectReference Object, string Extension, bool Depends) : ParsedStatement("ALTER " + Object.Kind.TagWords())
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Object.Target];
}

/// <summary>Parses ALTER.</summary>
internal static class AlterStatements
{
    /// <summary>Parses what follows ALTER.</summary>
    internal static ParsedStatement? Read(SqlReader r)
    {
        if (r.Take("default", "privileges"))
        {
            return AlterDefaultPrivileges.Read(r);
        }

        if (r.Take("system"))
        {
            return AlterSystem.Read(r);
        }

        return ObjectKinds.Take(r) switch
        {
            ObjectKind.Role => RoleStatements.ReadAlter(r),
            ObjectKind.Database => DatabaseStatements.ReadAlter(r),
            ObjectKind.UserMapping => ForeignStatements.ReadAlter(r, ObjectKind.UserMapping),
            { } kind when kind.IsRelation() => Relation(r, kind),
            { } kind => Other(r, kind),
            _ => r.Fail<ParsedStatement>(),
        };
    }

    /// <summary>RENAME TO, OWNER TO, SET SCHEMA, DEPENDS ON EXTENSION; null, and nothing taken, where none is next.</summary>
    internal static ParsedStatement? Common(SqlReader r, ObjectReference name, bool ifExists = false)
    {
        if (r.Take("rename", "to"))
        {
            return new RenameObject(name, ifExists, RenamedPart.Whole, null, name.Kind == ObjectKind.Role ? r.Role() : r.Name());
        }

        if (r.Take("owner", "to"))
        {
            return new SetOwner(name, r.Role());
        }

        if (r.Take("set", "schema"))
        {
            return new SetSchema(name, ifExists, r.Name());
        }

        bool no = r.Sees("no", "depends");
        if (no)
        {
            r.Skip();
        }

        if (r.Take("depends", "on", "extension"))
        {
            return new SetExtensionDependency(name, r.Name(), !no);
        }

        return no ? r.Fail<ParsedStatement>() : null;
    }

    private static ParsedStatement? Relation(SqlReader r, ObjectKind kind)
    {
        if (r.Sees("all", "in"))
        {
            return MoveAllInTablespace.Read(r, kind);
        }

        bool ifExists = r.TakeIfExists();
        (QualifiedName name, bool only) = r.Table();
        ObjectReference reference = new(kind, name);
        if (r.Sees("owner"))
        {
            return AlterTable.Read(r, kind, ifExists, only, name);
        }

        if (r.Sees("rename") && !r.Sees("rename", "to"))
        {
            return Part(r, reference, ifExists);
        }

        return Common(r, reference, ifExists)
            ?? (kind == ObjectKind.Sequence && SequenceOption.IsNext(r)
                ? new AlterSequence(name, ifExists, SequenceOption.ReadAll(r))
                : AlterTable.Read(r, kind, ifExists, only, name));
    }

    /// <summary>RENAME of a column or constraint.</summary>
    private static RenameObject Part(SqlReader r, ObjectReference name, bool ifExists)
    {
        r.Expect("rename");
        RenamedPart part = r.Take("constraint") ? RenamedPart.Constraint : RenamedPart.Column;
        r.Take("column");
        string old = r.Name();
        r.Expect("to");
        return new RenameObject(name, ifExists, part, old, r.Name());
    }

    private static ParsedStatement? Other(SqlReader r, ObjectKind kind)
    {
        bool ifExists = kind == ObjectKind.Policy && r.TakeIfExists();
        ObjectReference name = kind switch
        {
            ObjectKind.Type or ObjectKind.Domain => new ObjectReference(kind, r.Qualified()),
            ObjectKind.Statistics when r.TakeIfExists() => Existing(r, kind, out ifExists),
            _ => ObjectReference.Read(r, kind),
        };
        if (Common(r, name, ifExists) is { } common)
        {
            return common;
        }

        return kind switch
        {
            ObjectKind.Type => TypeStatements.ReadAlter(r, name),
            ObjectKind.Domain => AlterDomain.Read(r, name),
            ObjectKind.Function or ObjectKind.Procedure or ObjectKind.Routine => AlterRoutine.Read(r, name),
            ObjectKind.Operator => new AlterOperator(name, SetOptions(r)),
            ObjectKind.OperatorFamily => OperatorClassStatements.ReadAlterFamily(r, name),
            ObjectKind.EventTrigger => TriggerStatements.ReadAlterEvent(r, name),
            ObjectKind.Policy => AlterPolicy.Read(r, name),
            ObjectKind.Extension => ExtensionStatements.ReadAlter(r, name),
            ObjectKind.Tablespace => AlterTablespace.Read(r, name),
            ObjectKind.Collation => RefreshVersion(r, name),
            ObjectKind.Server or ObjectKind.ForeignDataWrapper => ForeignStatements.ReadAlter(r, kind, name),
            ObjectKind.Publication => PublicationStatements.ReadAlter(r, name),
            ObjectKind.Subscription => SubscriptionStatements.ReadAlter(r, name),
            ObjectKind.Statistics => AlterStatistics.Read(r, name, ifExists),
            ObjectKind.TextSearchConfiguration or ObjectKind.TextSearchDictionary => TextSearchStatements.ReadAlter(r, name),
            _ => r.Fail<ParsedStatement>(),
        };
    }

    private static ObjectReference Existing(SqlReader r, ObjectKind kind, out bool ifExists)
    {
        ifExists = true;
        return ObjectReference.Read(r, kind);
    }

    private static IReadOnlyList<SqlOption> SetOptions(SqlReader r)
    {
        r.Expect("set");
        return SqlOption.ReadList(r);
    }

    private static RefreshCollationVersion RefreshVersion(SqlReader r, ObjectReference name)
    {
        r.Expect("refresh", "version");
        return new RefreshCollationVersion(name);
    }
}

/// <summary>ALTER OPERATOR ... SET (...).</summary>
internal sealed record AlterOperator(ObjectReference Operator, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER OPERATOR")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Operator.Name];
}

/// <summary>ALTER COLLATION and ALTER DATABASE ... REFRESH [COLLATION] VERSION.</summary>
internal sealed record RefreshCollationVersion(ObjectReference Object) : ParsedStatement("ALTER " + Object.Kind.TagWords())
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Object.Name];
}
