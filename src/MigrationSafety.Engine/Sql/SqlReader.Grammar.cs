namespace MigrationSafety.Engine.Sql;

/// <summary>What the grammar expects: what is not there makes the reader fail, and the statement is then kept as text.</summary>
internal sealed partial class SqlReader
{
    /// <summary>Gives the statement up.</summary>
    internal void Fail()
    {
        Failed = true;
        At = _end = 0;
    }

    /// <summary>Gives the statement up and returns nothing: for the last arm of a choice.</summary>
    internal T? Fail<T>()
    {
        Fail();
        return default;
    }

    /// <summary>Takes a keyword that must be next.</summary>
    internal void Expect(string word)
    {
        if (!Take(word))
        {
            Fail();
        }
    }

    /// <summary>Takes two keywords that must be next.</summary>
    internal void Expect(string first, string second)
    {
        if (!Take(first, second))
        {
            Fail();
        }
    }

    /// <summary>Takes a mark that must be next.</summary>
    internal void ExpectMark(string mark)
    {
        if (!TakeMark(mark))
        {
            Fail();
        }
    }

    /// <summary>The keyword that is next, in lower case; empty for everything else.</summary>
    internal string Word() => Kind == SqlTokenKind.Word ? Fold(_statement.Tokens[At].Span(_statement.Script)) : "";

    /// <summary>Takes one of these keywords if one is next.</summary>
    internal string? TakeOneOf(params ReadOnlySpan<string> words)
    {
        foreach (string word in words)
        {
            if (Take(word))
            {
                return word;
            }
        }

        return null;
    }

    /// <summary>Takes one of these keywords; one must be next.</summary>
    internal string OneOf(params ReadOnlySpan<string> words) => TakeOneOf(words) ?? Fail<string>() ?? "";

    /// <summary>Takes any number of these keywords, in any order.</summary>
    internal void TakeAnyOf(params ReadOnlySpan<string> words)
    {
        while (TakeOneOf(words) is not null)
        {
        }
    }

    /// <summary>Takes IF EXISTS if it is next.</summary>
    internal bool TakeIfExists() => Take("if", "exists");

    /// <summary>Takes IF NOT EXISTS if it is next.</summary>
    internal bool TakeIfNotExists() => Take("if", "not", "exists");

    /// <summary>Takes CASCADE or RESTRICT if one is next; whether it is CASCADE.</summary>
    internal bool TakeCascade() => Take("cascade") || (Take("restrict") && false);

    /// <summary>A name of a table, column and the like (ColId).</summary>
    internal string Name() => Kind == SqlTokenKind.Word && SqlKeywords.IsNoName(Word()) ? Fail<string>() ?? "" : Label();

    /// <summary>A name of a function or type, or the first part of one.</summary>
    internal string FunctionName() => Kind == SqlTokenKind.Word && SqlKeywords.IsReserved(Word()) ? Fail<string>() ?? "" : Label();

    /// <summary>Any word or quoted name (ColLabel).</summary>
    internal string Label() => TakeName() ?? Fail<string>() ?? "";

    /// <summary>Whether a name may be next.</summary>
    internal bool SeesName() => Kind is SqlTokenKind.QuotedName or SqlTokenKind.UnicodeName || (Kind == SqlTokenKind.Word && !SqlKeywords.IsNoName(Word()));

    /// <summary>A role as GRANT and OWNER TO name it: a name, CURRENT_USER and its like, PUBLIC.</summary>
    internal string Role() => TakeOneOf("current_user", "current_role", "session_user") ?? FunctionName();

    /// <summary>Roles, with commas between them.</summary>
    internal IReadOnlyList<string> Roles() => List(r => r.Role());

    /// <summary>A name of one to three parts, of which the database is kept in <see cref="Database"/>.</summary>
    internal QualifiedName Qualified() => Parts(Name());

    /// <summary>A name of a function or type, of one to three parts.</summary>
    internal QualifiedName QualifiedFunction() => Parts(FunctionName());

    /// <summary>An operator with or without a schema: <c>+</c>, <c>public.+</c>.</summary>
    internal QualifiedName OperatorName()
    {
        string? schema = null;
        if (Kind != SqlTokenKind.Operator)
        {
            schema = Name();
            ExpectMark(".");
        }

        string name = Kind == SqlTokenKind.Operator ? _statement.Tokens[At].Span(_statement.Script).ToString() : "";
        SkipOne(Kind == SqlTokenKind.Operator);
        return new QualifiedName(schema, name == "!=" ? "<>" : name);
    }

    /// <summary>A table, whose ONLY and * are of no further interest.</summary>
    internal QualifiedName Relation() => Table().Name;

    /// <summary>A table and whether ONLY it: <c>t</c>, <c>t *</c>, <c>ONLY t</c>, <c>ONLY (t)</c>.</summary>
    internal (QualifiedName Name, bool Only) Table()
    {
        bool only = Take("only");
        bool parenthesis = only && TakeMark("(");
        QualifiedName name = Qualified();
        if (parenthesis)
        {
            ExpectMark(")");
        }

        if (!only)
        {
            TakeMark("*");
        }

        return (name, only);
    }

    /// <summary>A string of any kind as its text stands; a name for a place that takes both.</summary>
    internal string StringOrName() => IsString ? Literal() : FunctionName();

    /// <summary>Whether a string is next.</summary>
    internal bool IsString => Kind is SqlTokenKind.String or SqlTokenKind.EscapeString or SqlTokenKind.UnicodeString or SqlTokenKind.DollarString;

    /// <summary>A string, as SQL.</summary>
    internal string Literal()
    {
        string text = IsString ? _statement.Tokens[At].Span(_statement.Script).ToString() : "";
        bool unicode = Kind == SqlTokenKind.UnicodeString;
        SkipOne(IsString);
        if (unicode && Take("uescape"))
        {
            SkipOne(Kind == SqlTokenKind.String);
        }

        return text;
    }

    /// <summary>A number with its sign, as SQL.</summary>
    internal string Number()
    {
        string sign = TakeMark("-") ? "-" : TakeMark("+") ? "" : "";
        string text = Kind == SqlTokenKind.Number ? _statement.Tokens[At].Span(_statement.Script).ToString() : "";
        SkipOne(Kind == SqlTokenKind.Number);
        return sign + text;
    }

    /// <summary>Items with commas between them; at least one.</summary>
    internal IReadOnlyList<T> List<T>(Func<SqlReader, T> item)
    {
        List<T> items = [];
        do
        {
            items.Add(item(this));
        }
        while (TakeMark(","));
        return items;
    }

    /// <summary>Items in parentheses; at least one.</summary>
    internal IReadOnlyList<T> ParenthesizedList<T>(Func<SqlReader, T> item)
    {
        ExpectMark("(");
        IReadOnlyList<T> items = List(item);
        ExpectMark(")");
        return items;
    }

    /// <summary>Names in parentheses.</summary>
    internal IReadOnlyList<string> Names() => ParenthesizedList(r => r.Name());

    /// <summary>What parentheses enclose, which may be nothing.</summary>
    internal SqlFragment Parenthesized()
    {
        int start = At;
        return TakeParentheses() is null ? Fail<SqlFragment>() : new SqlFragment(_statement, start + 1, At - 1);
    }

    /// <summary>An expression or query up to one of these keywords, pairs of keywords or marks, or to the end: at least one token, brackets and CASE ... END passed over whole.</summary>
    internal SqlFragment Until(params ReadOnlySpan<string> stops)
    {
        int start = At;
        int depth = 0;
        int cases = 0;
        for (; !AtEnd; At++)
        {
            if (SeesMark(")") || SeesMark("]"))
            {
                if (depth-- == 0)
                {
                    break;
                }
            }
            else if (depth == 0 && cases == 0 && At > start && Stops(stops))
            {
                break;
            }

            depth += SeesMark("(") || SeesMark("[") ? 1 : 0;
            if (Kind == SqlTokenKind.Word && !AfterNameMark(start))
            {
                cases += Sees("case") ? 1 : Sees("end") && cases > 0 ? -1 : 0;
            }
        }

        return At == start || depth > 0 ? Fail<SqlFragment>() : new SqlFragment(_statement, start, At);
    }

    /// <summary>All that is left; at least one token.</summary>
    internal SqlFragment Remaining()
    {
        int start = At;
        At = _end;
        return At == start ? Fail<SqlFragment>() : new SqlFragment(_statement, start, At);
    }

    /// <summary>What was taken since an earlier place.</summary>
    internal SqlFragment From(int start) => new(_statement, Math.Min(start, At), At);

    /// <summary>Whether a keyword stands outside parentheses somewhere ahead, not as a label behind AS or a dot.</summary>
    internal bool HasAhead(string word)
    {
        int depth = 0;
        for (int i = At; i < _end && depth >= 0; i++)
        {
            depth += _statement.IsMark(i, "(") ? 1 : _statement.IsMark(i, ")") ? -1 : 0;
            if (depth == 0 && _statement.Is(i, word) && !(i > 0 && (_statement.IsMark(i - 1, ".") || (word != "as" && _statement.Is(i - 1, "as")))))
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Takes keywords off the end if they are the last tokens.</summary>
    internal bool TakeLast(params ReadOnlySpan<string> words)
    {
        int start = _end - words.Length;
        if (start < At)
        {
            return false;
        }

        for (int i = 0; i < words.Length; i++)
        {
            if (!_statement.Is(start + i, words[i]))
            {
                return false;
            }
        }

        _end = start;
        return true;
    }

    private bool Stops(ReadOnlySpan<string> stops)
    {
        foreach (string stop in stops)
        {
            // "is distinct from" and names such as "x.set" and "y as set" are parts of expressions.
            int space = stop.IndexOf(' ', StringComparison.Ordinal);
            bool word = space < 0 ? Sees(stop) : _statement.Is(At, stop.AsSpan(0, space)) && At + 1 < _end && _statement.Is(At + 1, stop.AsSpan(space + 1));
            if (SeesMark(stop) || (word && !_statement.Is(At - 1, "as") && !_statement.IsMark(At - 1, ".") && !(stop == "from" && _statement.Is(At - 1, "distinct"))))
            {
                return true;
            }
        }

        return false;
    }

    private bool AfterNameMark(int start) => At > start && (_statement.IsMark(At - 1, ".") || _statement.Is(At - 1, "as"));

    private QualifiedName Parts(string first)
    {
        if (!TakeMark("."))
        {
            return new QualifiedName(null, first);
        }

        string second = Label();
        if (!TakeMark("."))
        {
            return new QualifiedName(first, second);
        }

        // Three parts: the first is the database, which the server wants to be the current one.
        Database = first;
        return new QualifiedName(second, Label());
    }

    private void SkipOne(bool expected)
    {
        if (!expected)
        {
            Fail();
        }

        Skip();
    }
}
