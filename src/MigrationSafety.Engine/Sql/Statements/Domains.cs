namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>A constraint of a domain: NOT NULL, or CHECK with its expression.</summary>
internal sealed record DomainConstraint(string? Name, SqlFragment? Check, bool NotValid)
{
    internal static DomainConstraint? TryRead(SqlReader r)
    {
        string? name = r.Take("constraint") ? r.Name() : null;
        SqlFragment? check = null;
        if (r.Take("check"))
        {
            check = r.Parenthesized();
        }
        else if (!r.Take("not", "null"))
        {
            return name is null ? null : r.Fail<DomainConstraint>();
        }

        return new DomainConstraint(name, check, ConstraintTraits.Read(r).NotValid);
    }
}

/// <summary>CREATE DOMAIN.</summary>
internal sealed record CreateDomain(QualifiedName Domain, TypeName Type, QualifiedName? Collation, SqlFragment? Default, IReadOnlyList<DomainConstraint> Constraints) : ParsedStatement("CREATE DOMAIN")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Domain];

    internal static CreateDomain Read(SqlReader r)
    {
        QualifiedName name = r.Qualified();
        r.Take("as");
        TypeName type = TypeName.Read(r);
        QualifiedName? collation = null;
        SqlFragment? standard = null;
        List<DomainConstraint> constraints = [];
        while (!r.AtEnd)
        {
            if (r.Take("collate"))
            {
                collation = r.Qualified();
            }
            else if (r.Take("default"))
            {
                standard = ColumnDefinition.Expression(r);
            }
            else if (DomainConstraint.TryRead(r) is { } constraint)
            {
                constraints.Add(constraint);
            }
            else if (!r.Take("null"))
            {
                r.Fail();
            }
        }

        return new CreateDomain(name, type, collation, standard, constraints);
    }
}

/// <summary>What ALTER DOMAIN does.</summary>
internal enum DomainAction
{
    /// <summary>SET DEFAULT.</summary>
    SetDefault,

    /// <summary>DROP DEFAULT.</summary>
    DropDefault,

    /// <summary>SET NOT NULL.</summary>
    SetNotNull,

    /// <summary>DROP NOT NULL.</summary>
    DropNotNull,

    /// <summary>ADD CONSTRAINT.</summary>
    AddConstraint,

    /// <summary>DROP CONSTRAINT.</summary>
    DropConstraint,

    /// <summary>VALIDATE CONSTRAINT.</summary>
    ValidateConstraint,
}

/// <summary>ALTER DOMAIN.</summary>
/// <param name="Domain">Domain.</param>
/// <param name="Action">What it does.</param>
/// <param name="Default">The default that it sets.</param>
/// <param name="Constraint">The constraint that it adds.</param>
/// <param name="Name">The constraint that it drops or validates.</param>
/// <param name="IfExists">IF EXISTS of DROP CONSTRAINT.</param>
/// <param name="Cascade">CASCADE of DROP CONSTRAINT.</param>
internal sealed record AlterDomain(
    QualifiedName Domain, DomainAction Action, SqlFragment? Default = null, DomainConstraint? Constraint = null, string? Name = null, bool IfExists = false, bool Cascade = false)
    : ParsedStatement("ALTER DOMAIN")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Domain];

    internal static ParsedStatement? Read(SqlReader r, ObjectReference name)
    {
        if (r.Take("rename", "constraint"))
        {
            string old = r.Name();
            r.Expect("to");
            return new RenameObject(name, false, RenamedPart.Constraint, old, r.Name());
        }

        QualifiedName domain = name.Name;
        return r.Take("set", "default") ? new AlterDomain(domain, DomainAction.SetDefault, Default: r.Remaining())
            : r.Take("drop", "default") ? new AlterDomain(domain, DomainAction.DropDefault)
            : r.Take("set", "not", "null") ? new AlterDomain(domain, DomainAction.SetNotNull)
            : r.Take("drop", "not", "null") ? new AlterDomain(domain, DomainAction.DropNotNull)
            : r.Take("validate", "constraint") ? new AlterDomain(domain, DomainAction.ValidateConstraint, Name: r.Name())
            : r.Take("drop", "constraint") ? new AlterDomain(domain, DomainAction.DropConstraint, IfExists: r.TakeIfExists(), Name: r.Name(), Cascade: r.TakeCascade())
            : r.Take("add") && DomainConstraint.TryRead(r) is { } constraint ? new AlterDomain(domain, DomainAction.AddConstraint, Constraint: constraint)
            : r.Fail<ParsedStatement>();
    }
}
