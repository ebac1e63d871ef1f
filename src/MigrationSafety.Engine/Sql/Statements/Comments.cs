namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>COMMENT ON.</summary>
/// <param name="Object">What it describes.</param>
/// <param name="Text">The comment, as SQL; null where it is removed.</param>
internal sealed record CommentOn(ObjectReference Object, string? Text) : ParsedStatement("COMMENT")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Object.Target];

    internal static ParsedStatement? Read(SqlReader r)
    {
        r.Expect("comment", "on");
        if (ObjectKinds.Take(r) is not { } kind)
        {
            return r.Fail<ParsedStatement>();
        }

        ObjectReference reference = ObjectReference.Read(r, kind);
        r.Expect("is");
        return new CommentOn(reference, r.Take("null") ? null : r.Literal());
    }
}

/// <summary>SECURITY LABEL.</summary>
/// <param name="Provider">FOR.</param>
/// <param name="Object">What is labelled.</param>
/// <param name="Label">Label, as SQL; null where it is removed.</param>
internal sealed record SecurityLabel(string? Provider, ObjectReference Object, string? Label) : ParsedStatement("SECURITY LABEL")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Object.Target];

    internal static ParsedStatement? Read(SqlReader r)
    {
        r.Expect("security", "label");
        string? provider = r.Take("for") ? r.StringOrName() : null;
        r.Expect("on");
        if (ObjectKinds.Take(r) is not { } kind)
        {
            return r.Fail<ParsedStatement>();
        }

        ObjectReference reference = ObjectReference.Read(r, kind);
        r.Expect("is");
        return new SecurityLabel(provider, reference, r.Take("null") ? null : r.Literal());
    }
}
