namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>A thing that a command names: what it drops, renames, comments on.</summary>
/// <param name="Kind">Kind.</param>
/// <param name="Name">
/// Its name. Of a cast the source type's, of a transform the type's, of a user mapping the role's; a large object has its number.
/// </param>
/// <param name="Arguments">The arguments of a routine, aggregate or operator as they are written; null where none are given.</param>
/// <param name="On">The table of a trigger, rule, policy or constraint; the server of a user mapping; the language of a transform; the domain of its constraint.</param>
/// <param name="Using">The access method of an operator class or family; the target type of a cast.</param>
internal sealed record ObjectReference(ObjectKind Kind, QualifiedName Name, SqlFragment? Arguments = null, QualifiedName? On = null, string? Using = null)
{
    /// <summary>What is altered: the table of a trigger, rule, policy, column or constraint; else the thing itself.</summary>
    internal QualifiedName Target =>
        Kind is ObjectKind.Trigger or ObjectKind.Rule or ObjectKind.Policy or ObjectKind.Column or ObjectKind.Constraint ? On ?? Name : Name;

    /// <summary>The name of a column, with its table in <see cref="On"/>.</summary>
    internal static ObjectReference OfColumn(QualifiedName table, string column) => new(ObjectKind.Column, new QualifiedName(null, column), null, table);

    /// <summary>Parses what follows the words of a kind.</summary>
    internal static ObjectReference Read(SqlReader r, ObjectKind kind)
    {
        switch (kind)
        {
            case ObjectKind.Column:
                return ReadColumn(r);
            case ObjectKind.Constraint:
                string constraint = r.Name();
                r.Expect("on");
                r.Take("domain");
                return new ObjectReference(kind, new QualifiedName(null, constraint), null, r.Qualified());
            case ObjectKind.Trigger or ObjectKind.Rule or ObjectKind.Policy:
                string name = r.Name();
                r.Expect("on");
                return new ObjectReference(kind, new QualifiedName(null, name), null, r.Qualified());
            case ObjectKind.Function or ObjectKind.Procedure or ObjectKind.Routine or ObjectKind.Aggregate:
                QualifiedName routine = r.QualifiedFunction();
                return new ObjectReference(kind, routine, r.SeesMark("(") ? r.Parenthesized() : null);
            case ObjectKind.Operator:
                QualifiedName op = r.OperatorName();
                return new ObjectReference(kind, op, r.Parenthesized());
            case ObjectKind.OperatorClass or ObjectKind.OperatorFamily:
                QualifiedName set = r.Qualified();
                r.Expect("using");
                return new ObjectReference(kind, set, null, null, r.Name());
            case ObjectKind.Cast:
                r.ExpectMark("(");
                TypeName source = TypeName.Read(r);
                r.Expect("as");
                TypeName target = TypeName.Read(r);
                r.ExpectMark(")");
                return new ObjectReference(kind, source.Name, null, null, target.ToString());
            case ObjectKind.Transform:
                r.Expect("for");
                TypeName type = TypeName.Read(r);
                r.Expect("language");
                return new ObjectReference(kind, type.Name, null, new QualifiedName(null, r.Name()));
            case ObjectKind.UserMapping:
                r.Expect("for");
                string role = r.Take("user") ? "current_user" : r.Role();
                r.Expect("server");
                return new ObjectReference(kind, new QualifiedName(null, role), null, new QualifiedName(null, r.Name()));
            case ObjectKind.LargeObject:
                return new ObjectReference(kind, new QualifiedName(null, r.Number()));
            case ObjectKind.Type or ObjectKind.Domain:
                return new ObjectReference(kind, TypeName.Read(r).Name);
            case ObjectKind.Role:
                return new ObjectReference(kind, new QualifiedName(null, r.Role()));
            case ObjectKind.Language when r.IsString:
                return new ObjectReference(kind, new QualifiedName(null, r.Literal()[1..^1]));
            default:
                return new ObjectReference(kind, HasSchema(kind) ? r.Qualified() : new QualifiedName(null, r.Name()));
        }
    }

    private static bool HasSchema(ObjectKind kind) => kind is not (ObjectKind.AccessMethod or ObjectKind.Database or ObjectKind.EventTrigger or ObjectKind.Extension
        or ObjectKind.ForeignDataWrapper or ObjectKind.Language or ObjectKind.Publication or ObjectKind.Schema or ObjectKind.Server or ObjectKind.Subscription
        or ObjectKind.Tablespace);

    private static ObjectReference ReadColumn(SqlReader r)
    {
        List<string> parts = [r.Name()];
        while (r.TakeMark("."))
        {
            parts.Add(r.Label());
        }

        r.Database = parts.Count == 4 ? parts[0] : r.Database;
        return parts.Count switch
        {
            2 => OfColumn(new QualifiedName(null, parts[0]), parts[1]),
            3 => OfColumn(new QualifiedName(parts[0], parts[1]), parts[2]),
            4 => OfColumn(new QualifiedName(parts[1], parts[2]), parts[3]),
            _ => r.Fail<ObjectReference>() ?? OfColumn(new QualifiedName(null, ""), ""),
        };
    }
}
