namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>DROP of one or more things of one kind.</summary>
/// <param name="Kind">Kind.</param>
/// <param name="IfExists">IF EXISTS.</param>
/// <param name="Concurrently">CONCURRENTLY, of an index.</param>
/// <param name="Objects">What is dropped.</param>
/// <param name="Cascade">CASCADE.</param>
internal sealed record DropObjects(ObjectKind Kind, bool IfExists, bool Concurrently, IReadOnlyList<ObjectReference> Objects, bool Cascade) : ParsedStatement("DROP " + Kind.TagWords())
{
    /// <summary>Options of DROP DATABASE.</summary>
    internal IReadOnlyList<SqlOption> Options { get; init; } = [];

    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [.. Objects.Select(o => o.Target)];

    /// <summary>Parses what follows DROP.</summary>
    internal static ParsedStatement? Read(SqlReader r)
    {
        if (r.Take("owned", "by"))
        {
            return new DropOwned(r.Roles(), r.TakeCascade());
        }

        if (ObjectKinds.Take(r) is not { } kind)
        {
            return r.Fail<ParsedStatement>();
        }

        bool concurrently = kind == ObjectKind.Index && r.Take("concurrently");
        bool ifExists = r.TakeIfExists();
        IReadOnlyList<ObjectReference> objects = TakesOne(kind) ? [ObjectReference.Read(r, kind)] : r.List(r => ObjectReference.Read(r, kind));
        IReadOnlyList<SqlOption> options = kind != ObjectKind.Database ? []
            : r.Take("with") || r.SeesMark("(") ? SqlOption.ReadList(r)
            : [];
        return new DropObjects(kind, ifExists, concurrently, objects, r.TakeCascade()) { Options = options };
    }

    private static bool TakesOne(ObjectKind kind) => kind is ObjectKind.Trigger or ObjectKind.Rule or ObjectKind.Policy or ObjectKind.Cast or ObjectKind.Transform
        or ObjectKind.OperatorClass or ObjectKind.OperatorFamily or ObjectKind.UserMapping or ObjectKind.Database or ObjectKind.Tablespace or ObjectKind.Subscription;
}

/// <summary>DROP OWNED.</summary>
internal sealed record DropOwned(IReadOnlyList<string> Roles, bool Cascade) : ParsedStatement("DROP OWNED");

/// <summary>REASSIGN OWNED.</summary>
internal sealed record ReassignOwned(IReadOnlyList<string> Roles, string NewOwner) : ParsedStatement("REASSIGN OWNED")
{
    internal static ReassignOwned Read(SqlReader r)
    {
        r.Expect("reassign", "owned");
        r.Expect("by");
        IReadOnlyList<string> roles = r.Roles();
        r.Expect("to");
        return new ReassignOwned(roles, r.Role());
    }
}
