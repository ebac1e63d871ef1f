namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>DO.</summary>
internal sealed record DoBlock(string Language, string Body) : ParsedStatement("DO")
{
    internal static DoBlock Read(SqlReader r)
    {
        r.Expect("do");
        string language = "plpgsql";
        string body = "";
        while (!r.AtEnd)
        {
            if (r.Take("language"))
            {
                language = r.StringOrName().Trim('\'');
            }
            else
            {
                body = r.Literal();
            }
        }

        if (body.Length == 0)
        {
            r.Fail();
        }

        return new DoBlock(language, body);
    }
}

/// <summary>CALL.</summary>
internal sealed record CallProcedure(QualifiedName Procedure, SqlFragment Arguments) : ParsedStatement("CALL")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Procedure];

    internal static CallProcedure Read(SqlReader r)
    {
        r.Expect("call");
        return new CallProcedure(r.QualifiedFunction(), r.Parenthesized());
    }
}

/// <summary>EXPLAIN.</summary>
/// <param name="Analyze">Whether the statement runs.</param>
/// <param name="Options">Options.</param>
/// <param name="Statement">Statement.</param>
internal sealed record Explain(bool Analyze, IReadOnlyList<SqlOption> Options, ParsedStatement Statement) : ParsedStatement("EXPLAIN")
{
    internal static ParsedStatement? Read(SqlReader r)
    {
        r.Expect("explain");
        List<SqlOption> options = [];
        if (r.SeesMark("(") && !IsQuery(r))
        {
            options.AddRange(SqlOption.ReadList(r));
        }
        else
        {
            while (r.TakeOneOf("analyze", "analyse", "verbose") is { } option)
            {
                options.Add(new SqlOption(option, r.From(r.At)));
            }
        }

        bool analyze = SqlOption.IsOn(options, "analyze") || SqlOption.IsOn(options, "analyse");
        return StatementParser.Read(r) is { } statement ? new Explain(analyze, options, statement) : r.Fail<ParsedStatement>();
    }

    private static bool IsQuery(SqlReader r)
    {
        SqlReader ahead = r.Clone();
        while (ahead.TakeMark("("))
        {
        }

        return ahead.Word() is "select" or "values" or "with" or "table";
    }
}

/// <summary>PREPARE.</summary>
internal sealed record PrepareStatement(string Name, ParsedStatement Statement) : ParsedStatement("PREPARE")
{
    internal static ParsedStatement? Read(SqlReader r)
    {
        r.Expect("prepare");
        string name = r.Name();
        if (r.SeesMark("("))
        {
            r.Parenthesized();
        }

        r.Expect("as");
        return StatementParser.Read(r) is { } statement ? new PrepareStatement(name, statement) : r.Fail<ParsedStatement>();
    }
}

/// <summary>What concerns the session alone: cursors, prepared statements, notifications, DISCARD, SHOW, LOAD, CHECKPOINT.</summary>
/// <param name="Command">The command's tag.</param>
/// <param name="Rest">What follows the command's word.</param>
internal sealed record SessionStatement(string Command, SqlFragment Rest) : ParsedStatement(Command)
{
    internal static SessionStatement Read(SqlReader r)
    {
        string word = r.Label();
        int start = r.At;
        switch (word)
        {
            case "deallocate":
                r.Take("prepare");
                return new SessionStatement(r.Take("all") ? "DEALLOCATE ALL" : Named(r, "DEALLOCATE"), r.From(start));
            case "close":
                return new SessionStatement(r.Take("all") ? "CLOSE CURSOR ALL" : Named(r, "CLOSE CURSOR"), r.From(start));
            case "discard":
                string what = r.OneOf("all", "plans", "sequences", "temp", "temporary");
                return new SessionStatement("DISCARD " + (what == "temporary" ? "TEMP" : what.ToUpperInvariant()), r.From(start));
            case "declare":
                r.Name();
                r.TakeAnyOf("binary", "insensitive", "asensitive", "no", "scroll");
                r.Expect("cursor");
                _ = r.Take("with", "hold") || r.Take("without", "hold");
                r.Expect("for");
                return new SessionStatement("DECLARE CURSOR", From(r, start));
            case "checkpoint":
                return new SessionStatement("CHECKPOINT", Optional(r));
            case "execute":
                r.Name();
                if (r.SeesMark("("))
                {
                    r.Parenthesized();
                }

                return new SessionStatement("EXECUTE", r.From(start));
            default:
                return new SessionStatement(word.ToUpperInvariant(), From(r, start));
        }
    }

    private static SqlFragment From(SqlReader r, int start)
    {
        r.Remaining();
        return r.From(start);
    }

    private static SqlFragment Optional(SqlReader r) => r.AtEnd ? r.From(r.At) : r.Remaining();

    private static string Named(SqlReader r, string tag)
    {
        r.Name();
        return tag;
    }
}
