namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE TRIGGER.</summary>
/// <param name="Name">Name.</param>
/// <param name="Replace">OR REPLACE.</param>
/// <param name="Constraint">CONSTRAINT.</param>
/// <param name="Timing">before, after, instead of.</param>
/// <param name="Events">insert, update, delete, truncate.</param>
/// <param name="UpdateOf">Columns of UPDATE OF.</param>
/// <param name="Table">Table.</param>
internal sealed record CreateTrigger(string Name, bool Replace, bool Constraint, string Timing, IReadOnlyList<string> Events, IReadOnlyList<string> UpdateOf, QualifiedName Table)
    : ParsedStatement("CREATE TRIGGER")
{
    /// <summary>The other table of a constraint trigger.</summary>
    internal QualifiedName? From { get; init; }

    /// <summary>DEFERRABLE and INITIALLY.</summary>
    internal ConstraintTraits Traits { get; init; } = ConstraintTraits.None;

    /// <summary>REFERENCING: names of transition tables.</summary>
    internal SqlFragment? Referencing { get; init; }

    /// <summary>FOR EACH ROW; else for each statement.</summary>
    internal bool ForEachRow { get; init; }

    /// <summary>WHEN.</summary>
    internal SqlFragment? When { get; init; }

    /// <summary>Function.</summary>
    internal QualifiedName Function { get; init; } = new(null, "");

    /// <summary>Its arguments.</summary>
    internal SqlFragment Arguments { get; init; }

    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];
}

/// <summary>CREATE EVENT TRIGGER.</summary>
internal sealed record CreateEventTrigger(string Name, string Event, IReadOnlyList<SqlFragment> Filters, QualifiedName Function) : ParsedStatement("CREATE EVENT TRIGGER")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>ALTER EVENT TRIGGER ... ENABLE and DISABLE.</summary>
internal sealed record AlterEventTrigger(string Name, bool Enable, string? Mode) : ParsedStatement("ALTER EVENT TRIGGER")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [new QualifiedName(null, Name)];
}

/// <summary>Parses triggers.</summary>
internal static class TriggerStatements
{
    internal static CreateTrigger ReadCreate(SqlReader r, bool replace, bool constraint)
    {
        string name = r.Name();
        string timing = r.OneOf("before", "after", "instead");
        if (timing == "instead")
        {
            r.Expect("of");
            timing = "instead of";
        }

        List<string> events = [];
        IReadOnlyList<string> columns = [];
        do
        {
            events.Add(r.OneOf("insert", "update", "delete", "truncate"));
            columns = events[^1] == "update" && r.Take("of") ? r.List(r => r.Name()) : columns;
        }
        while (r.Take("or"));
        r.Expect("on");
        CreateTrigger trigger = new(name, replace, constraint, timing, events, columns, r.Qualified())
        {
            From = r.Take("from") ? r.Qualified() : null,
            Traits = ConstraintTraits.Read(r),
            Referencing = r.Take("referencing") ? r.Until("for", "when", "execute") : null,
            ForEachRow = Row(r),
            When = r.Take("when") ? r.Parenthesized() : null,
        };
        r.Expect("execute");
        r.OneOf("function", "procedure");
        return trigger with { Function = r.QualifiedFunction(), Arguments = r.Parenthesized() };
    }

    internal static CreateEventTrigger ReadCreateEvent(SqlReader r)
    {
        string name = r.Name();
        r.Expect("on");
        string on = r.Label();
        List<SqlFragment> filters = [];
        if (r.Take("when"))
        {
            do
            {
                filters.Add(r.Until("and", "execute"));
            }
            while (r.Take("and"));
        }

        r.Expect("execute");
        r.OneOf("function", "procedure");
        QualifiedName function = r.QualifiedFunction();
        r.Parenthesized();
        return new CreateEventTrigger(name, on, filters, function);
    }

    internal static AlterEventTrigger ReadAlterEvent(SqlReader r, ObjectReference name)
    {
        bool enable = r.OneOf("enable", "disable") == "enable";
        return new AlterEventTrigger(name.Name.Name, enable, enable ? r.TakeOneOf("always", "replica") : null);
    }

    private static bool Row(SqlReader r)
    {
        if (!r.Take("for"))
        {
            return false;
        }

        r.Take("each");
        return r.OneOf("row", "statement") == "row";
    }
}
