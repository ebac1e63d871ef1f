namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>An argument of a routine.</summary>
/// <param name="Mode">in, out, inout, variadic.</param>
/// <param name="Name">Name.</param>
/// <param name="Type">Type.</param>
/// <param name="Default">DEFAULT.</param>
internal sealed record RoutineArgument(string Mode, string? Name, TypeName Type, SqlFragment? Default)
{
    /// <summary>A list of them in parentheses, which may be empty.</summary>
    internal static IReadOnlyList<RoutineArgument> ReadList(SqlReader r)
    {
        r.ExpectMark("(");
        IReadOnlyList<RoutineArgument> arguments = r.SeesMark(")") ? [] : r.List(Read);
        r.ExpectMark(")");
        return arguments;
    }

    private static RoutineArgument Read(SqlReader r)
    {
        string? mode = TakeMode(r);
        string? name = null;
        if (!IsTypeOnly(r))
        {
            name = r.FunctionName();
            mode ??= TakeMode(r);
        }

        TypeName type = TypeName.Read(r);
        SqlFragment? standard = r.Take("default") || r.TakeMark("=") ? r.Until(",") : null;
        return new RoutineArgument(mode ?? "in", name, type, standard);
    }

    private static string? TakeMode(SqlReader r) => r.Take("in", "out") ? "inout" : r.TakeOneOf("in", "out", "inout", "variadic");

    /// <summary>Whether the type comes at once: what follows the first word ends an argument or goes on with a type.</summary>
    private static bool IsTypeOnly(SqlReader r)
    {
        if (r.Sees("setof") || r.Sees("double", "precision") || r.Sees("national"))
        {
            return true;
        }

        SqlReader ahead = r.Clone();
        ahead.Skip();
        return ahead.AtEnd || ahead.SeesMark(",") || ahead.SeesMark(")") || ahead.SeesMark("(") || ahead.SeesMark("[") || ahead.SeesMark(".") || ahead.SeesMark("%")
            || ahead.SeesMark("=") || ahead.Sees("default") || ahead.Sees("array") || ahead.Sees("varying")
            || (r.Word() is "time" or "timestamp" && (ahead.Sees("with") || ahead.Sees("without")))
            || (r.Word() is "interval" && ahead.Word() is "year" or "month" or "day" or "hour" or "minute" or "second");
    }
}

/// <summary>CREATE FUNCTION and CREATE PROCEDURE.</summary>
/// <param name="Kind">Function or procedure.</param>
/// <param name="Name">Name.</param>
/// <param name="Replace">OR REPLACE.</param>
/// <param name="Arguments">Arguments.</param>
/// <param name="Returns">What it returns; null where RETURNS is missing or says TABLE.</param>
/// <param name="ReturnsTable">Columns of RETURNS TABLE.</param>
/// <param name="Options">language, immutable, volatile, cost, set, as and so on, each with its value.</param>
/// <param name="Body">RETURN or BEGIN ATOMIC; null where the body is a string.</param>
internal sealed record CreateRoutine(
    ObjectKind Kind,
    QualifiedName Name,
    bool Replace,
    IReadOnlyList<RoutineArgument> Arguments,
    TypeName? Returns,
    IReadOnlyList<RoutineArgument> ReturnsTable,
    IReadOnlyList<SqlOption> Options,
    SqlFragment? Body) : ParsedStatement("CREATE " + Kind.TagWords())
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Name];

    internal static CreateRoutine Read(SqlReader r, ObjectKind kind, bool replace)
    {
        QualifiedName name = r.QualifiedFunction();
        IReadOnlyList<RoutineArgument> arguments = RoutineArgument.ReadList(r);
        TypeName? returns = null;
        IReadOnlyList<RoutineArgument> table = [];
        if (r.Take("returns"))
        {
            if (r.Take("table"))
            {
                table = RoutineArgument.ReadList(r);
            }
            else
            {
                returns = TypeName.Read(r);
            }
        }

        List<SqlOption> options = [];
        while (RoutineOption.TryRead(r) is { } option)
        {
            options.Add(option);
        }

        SqlFragment? body = r.Sees("return") || r.Sees("begin", "atomic") ? r.Remaining() : null;
        return new CreateRoutine(kind, name, replace, arguments, returns, table, options, body);
    }
}

/// <summary>ALTER FUNCTION, PROCEDURE, ROUTINE with options.</summary>
internal sealed record AlterRoutine(ObjectReference Routine, IReadOnlyList<SqlOption> Options) : ParsedStatement("ALTER " + Routine.Kind.TagWords())
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Routine.Name];

    internal static AlterRoutine Read(SqlReader r, ObjectReference name)
    {
        List<SqlOption> options = [];
        while (RoutineOption.TryRead(r) is { } option)
        {
            options.Add(option);
        }

        r.TakeCascade();
        if (options.Count == 0)
        {
            r.Fail();
        }

        return new AlterRoutine(name, options);
    }
}

/// <summary>Parses the options of routines.</summary>
internal static class RoutineOption
{
    /// <summary>Parses one; null, and nothing taken, where none is next.</summary>
    internal static SqlOption? TryRead(SqlReader r)
    {
        int start = r.At;
        string word = r.Word();
        switch (word)
        {
            case "immutable" or "stable" or "volatile" or "strict" or "leakproof" or "window":
                r.Skip();
                return Option(r, word);
            case "not" when r.Take("not", "leakproof"):
                return Option(r, "not leakproof");
            case "called":
                r.Expect("called", "on");
                r.Expect("null", "input");
                return Option(r, "called on null input");
            case "returns" when r.Take("returns", "null", "on", "null"):
                r.Expect("input");
                return Option(r, "strict");
            case "external" or "security":
                r.Take("external");
                r.Expect("security");
                return Option(r, "security " + r.OneOf("definer", "invoker"));
            case "language":
                r.Skip();
                start = r.At;
                r.StringOrName();
                return new SqlOption(word, r.From(start));
            case "transform":
                r.Skip();
                start = r.At;
                r.List(r =>
                {
                    r.Expect("for", "type");
                    return TypeName.Read(r);
                });
                return new SqlOption(word, r.From(start));
            case "cost" or "rows":
                r.Skip();
                start = r.At;
                r.Number();
                return new SqlOption(word, r.From(start));
            case "support":
                r.Skip();
                start = r.At;
                r.QualifiedFunction();
                return new SqlOption(word, r.From(start));
            case "parallel":
                r.Skip();
                start = r.At;
                r.Name();
                return new SqlOption(word, r.From(start));
            case "as":
                r.Skip();
                start = r.At;
                r.List(r => r.Literal());
                return new SqlOption(word, r.From(start));
            case "set" or "reset":
                SetVariable? setting = SetVariable.ReadClause(r);
                return setting is null ? r.Fail<SqlOption>() : new SqlOption(word, r.From(start + 1));
            default:
                return null;
        }
    }

    private static SqlOption Option(SqlReader r, string name) => new(name, r.From(r.At));
}
