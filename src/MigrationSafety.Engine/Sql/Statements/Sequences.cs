namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>An option of a sequence or of an identity column.</summary>
/// <param name="Name">as, cache, cycle, no cycle, increment, maxvalue, no maxvalue, minvalue, no minvalue, owned by, sequence name, start, restart, logged, unlogged.</param>
/// <param name="Value">Value, as SQL; empty where it has none.</param>
internal sealed record SequenceOption(string Name, SqlFragment Value)
{
    /// <summary>Whether one is next.</summary>
    internal static bool IsNext(SqlReader r) => r.Word() is "as" or "cache" or "cycle" or "increment" or "maxvalue" or "minvalue" or "no" or "owned" or "sequence"
        or "start" or "restart";

    /// <summary>Any number of them.</summary>
    internal static IReadOnlyList<SequenceOption> ReadAll(SqlReader r)
    {
        List<SequenceOption> options = [];
        while (IsNext(r))
        {
            options.Add(Read(r));
        }

        return options;
    }

    /// <summary>Any number of them in parentheses; at least one.</summary>
    internal static IReadOnlyList<SequenceOption> ReadInParentheses(SqlReader r)
    {
        r.ExpectMark("(");
        IReadOnlyList<SequenceOption> options = ReadAll(r);
        r.ExpectMark(")");
        return options;
    }

    /// <summary>Parses one.</summary>
    internal static SequenceOption Read(SqlReader r)
    {
        string name = r.OneOf("as", "cache", "cycle", "increment", "maxvalue", "minvalue", "no", "owned", "sequence", "start", "restart", "logged", "unlogged");
        switch (name)
        {
            case "no":
                return new SequenceOption("no " + r.OneOf("maxvalue", "minvalue", "cycle"), r.From(r.At));
            case "owned":
                r.Expect("by");
                break;
            case "sequence":
                r.Expect("name");
                break;
            case "increment":
                r.Take("by");
                break;
            case "start" or "restart":
                r.Take("with");
                break;
        }

        int start = r.At;
        switch (name)
        {
            case "as":
                TypeName.Read(r);
                break;
            case "owned" or "sequence":
                if (!r.Take("none"))
                {
                    r.Name();
                    while (r.TakeMark("."))
                    {
                        r.Label();
                    }
                }

                break;
            case "cycle" or "logged" or "unlogged":
                break;
            case "restart" when r.Kind != SqlTokenKind.Number && !r.SeesMark("-") && !r.SeesMark("+"):
                break;
            default:
                r.Number();
                break;
        }

        return new SequenceOption(name switch { "owned" => "owned by", "sequence" => "sequence name", _ => name }, r.From(start));
    }
}

/// <summary>CREATE SEQUENCE.</summary>
internal sealed record CreateSequence(QualifiedName Sequence, Persistence Persistence, bool IfNotExists, IReadOnlyList<SequenceOption> Options) : ParsedStatement("CREATE SEQUENCE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Sequence];

    internal static CreateSequence Read(SqlReader r, Persistence persistence)
    {
        bool ifNotExists = r.TakeIfNotExists();
        return new CreateSequence(r.Qualified(), persistence, ifNotExists, SequenceOption.ReadAll(r));
    }
}

/// <summary>ALTER SEQUENCE with options of a sequence; its other forms are those of ALTER TABLE.</summary>
internal sealed record AlterSequence(QualifiedName Sequence, bool IfExists, IReadOnlyList<SequenceOption> Options) : ParsedStatement("ALTER SEQUENCE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Sequence];
}
