namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>SET and RESET of a setting, alone or as a clause of ALTER ROLE, ALTER DATABASE, CREATE FUNCTION.</summary>
/// <param name="Name">
/// Setting: <c>search_path</c>, <c>TimeZone</c> and so on in lower case; role, session_authorization, transaction, session characteristics for those forms; all for RESET ALL.
/// </param>
/// <param name="Reset">RESET, and SET ... TO DEFAULT.</param>
/// <param name="Values">Values, as SQL; empty for RESET and FROM CURRENT.</param>
/// <param name="Local">LOCAL.</param>
internal sealed record SetVariable(string Name, bool Reset, IReadOnlyList<SqlFragment> Values, bool Local) : ParsedStatement("SET")
{
    /// <summary>Whether a boolean setting is turned off; false where the value is another one or cannot be told.</summary>
    internal bool TurnsOff => Values is [var value] && value.Text.Trim('\'').ToUpperInvariant() is "OFF" or "FALSE" or "NO" or "0";

    /// <summary>Parses a statement.</summary>
    internal static ParsedStatement? Read(SqlReader r)
    {
        if (r.Take("set", "constraints"))
        {
            IReadOnlyList<QualifiedName> names = r.Take("all") ? [] : r.List(r => r.Qualified());
            return new SetConstraints(names, r.OneOf("deferred", "immediate") == "deferred");
        }

        bool reset = r.Sees("reset");
        SetVariable? set = ReadClause(r);
        return set is null ? r.Fail<ParsedStatement>() : reset ? set with { Tag = "RESET" } : set;
    }

    /// <summary>Parses SET ... or RESET ... wherever it stands.</summary>
    internal static SetVariable? ReadClause(SqlReader r)
    {
        if (r.Take("reset"))
        {
            return r.Take("time", "zone") ? new SetVariable("timezone", true, [], false)
                : r.Take("transaction", "isolation", "level") ? new SetVariable("transaction_isolation", true, [], false)
                : r.Take("session", "authorization") ? new SetVariable("session_authorization", true, [], false)
                : r.Take("all") ? new SetVariable("all", true, [], false)
                : new SetVariable(VariableName(r), true, [], false);
        }

        r.Expect("set");
        bool local = false;
        if (!IsName(r))
        {
            local = r.Take("local");
            _ = local || r.Take("session");
        }

        return Special(r, local) ?? Named(r, local);
    }

    private static SetVariable Named(SqlReader r, bool local)
    {
        string name = VariableName(r);
        if (r.Take("from", "current"))
        {
            return new SetVariable(name, false, [], local);
        }

        if (!r.Take("to"))
        {
            r.ExpectMark("=");
        }

        return r.Take("default") ? new SetVariable(name, true, [], local) : new SetVariable(name, false, r.List(Value), local);
    }

    /// <summary>The forms of SQL's own; null where another is next.</summary>
    private static SetVariable? Special(SqlReader r, bool local)
    {
        if (r.Take("time", "zone"))
        {
            return r.Take("default") || r.Take("local") ? new SetVariable("timezone", true, [], local) : new SetVariable("timezone", false, [ZoneValue(r)], local);
        }

        if (IsName(r))
        {
            return null;
        }

        if (r.Take("transaction") || r.Take("characteristics", "as", "transaction"))
        {
            return new SetVariable("transaction", false, [r.Remaining()], local);
        }

        if (r.Take("session", "characteristics", "as", "transaction"))
        {
            return new SetVariable("session characteristics", false, [r.Remaining()], local);
        }

        if (r.Take("session", "authorization") || r.Take("authorization"))
        {
            return r.Take("default") ? new SetVariable("session_authorization", true, [], local) : new SetVariable("session_authorization", false, [Value(r)], local);
        }

        if (r.Take("xml", "option"))
        {
            return new SetVariable("xmloption", false, [Value(r)], local);
        }

        if (r.Take("names"))
        {
            return r.AtEnd || r.Take("default") ? new SetVariable("client_encoding", true, [], local) : new SetVariable("client_encoding", false, [Value(r)], local);
        }

        return r.Take("schema") ? new SetVariable("search_path", false, [Value(r)], local)
            : r.Take("catalog") ? new SetVariable("catalog", false, [Value(r)], local)
            : r.Take("role") ? new SetVariable("role", false, [Value(r)], local)
            : null;
    }

    /// <summary>Whether a name is next that a value follows, whatever the name is.</summary>
    private static bool IsName(SqlReader r)
    {
        SqlReader ahead = r.Clone();
        ahead.Skip();
        return ahead.SeesMark("=") || ahead.Sees("to") || ahead.SeesMark(".") || ahead.Sees("from", "current");
    }

    private static string VariableName(SqlReader r)
    {
        string name = r.Name();
        while (r.TakeMark("."))
        {
            name += "." + r.Name();
        }

        return name.ToLowerInvariant();
    }

    private static SqlFragment Value(SqlReader r)
    {
        int start = r.At;
        if (r.Kind == SqlTokenKind.Number || r.SeesMark("-") || r.SeesMark("+"))
        {
            r.Number();
        }
        else if (r.IsString)
        {
            r.Literal();
        }
        else
        {
            r.Label();
        }

        return r.From(start);
    }

    private static SqlFragment ZoneValue(SqlReader r)
    {
        int start = r.At;
        if (r.Take("interval"))
        {
            if (r.SeesMark("("))
            {
                r.Parenthesized();
            }

            r.Literal();
            r.TakeAnyOf("hour", "minute", "to");
        }
        else
        {
            Value(r);
        }

        return r.From(start);
    }
}

/// <summary>SET CONSTRAINTS.</summary>
internal sealed record SetConstraints(IReadOnlyList<QualifiedName> Names, bool Deferred) : ParsedStatement("SET CONSTRAINTS");

/// <summary>ALTER SYSTEM.</summary>
internal sealed record AlterSystem(SetVariable Setting) : ParsedStatement("ALTER SYSTEM")
{
    internal static ParsedStatement? Read(SqlReader r) => SetVariable.ReadClause(r) is { } setting ? new AlterSystem(setting) : r.Fail<ParsedStatement>();
}
