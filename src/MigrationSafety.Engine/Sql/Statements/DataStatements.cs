namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>A part of WITH.</summary>
/// <param name="Name">Name.</param>
/// <param name="Statement">What it holds: a query, or a statement that writes.</param>
internal sealed record CommonTable(string Name, ParsedStatement Statement);

/// <summary>A statement on rows.</summary>
/// <param name="Tag">The command.</param>
internal abstract record DataStatement(string Tag) : ParsedStatement(Tag)
{
    /// <summary>WITH.</summary>
    internal IReadOnlyList<CommonTable> With { get; init; } = [];

    /// <summary>The same as text, with the word WITH; empty where there is none.</summary>
    internal SqlFragment WithClause { get; init; }

    /// <summary>What the statement calls the table that it writes: its alias, else the table's name.</summary>
    internal string? Alias { get; init; }

    /// <summary>The statement itself and all that its WITH holds.</summary>
    internal IEnumerable<DataStatement> All => With.Select(w => w.Statement).OfType<DataStatement>().SelectMany(s => s.All).Append(this);
}

/// <summary>SELECT, VALUES, TABLE; kept as text but for WITH.</summary>
internal sealed record Query(SqlFragment Text) : DataStatement("SELECT");

/// <summary>INSERT.</summary>
/// <param name="Table">Table.</param>
/// <param name="Columns">Columns; empty where the text gives none.</param>
/// <param name="Source">VALUES, a query, DEFAULT VALUES.</param>
/// <param name="OnConflict">What follows ON CONFLICT.</param>
internal sealed record Insert(QualifiedName Table, IReadOnlyList<string> Columns, SqlFragment Source, SqlFragment? OnConflict) : DataStatement("INSERT")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];
}

/// <summary>An item of SET in UPDATE.</summary>
/// <param name="Columns">Columns.</param>
/// <param name="Value">Value.</param>
internal sealed record Assignment(IReadOnlyList<string> Columns, SqlFragment Value);

/// <summary>UPDATE.</summary>
/// <param name="Table">Table.</param>
/// <param name="Only">ONLY.</param>
/// <param name="Assignments">SET.</param>
/// <param name="From">FROM.</param>
/// <param name="Predicate">WHERE.</param>
internal sealed record Update(QualifiedName Table, bool Only, IReadOnlyList<Assignment> Assignments, SqlFragment? From, SqlFragment? Predicate) : DataStatement("UPDATE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];
}

/// <summary>DELETE.</summary>
/// <param name="Table">Table.</param>
/// <param name="Only">ONLY.</param>
/// <param name="Using">USING.</param>
/// <param name="Predicate">WHERE.</param>
internal sealed record Delete(QualifiedName Table, bool Only, SqlFragment? Using, SqlFragment? Predicate) : DataStatement("DELETE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];
}

/// <summary>A WHEN of MERGE.</summary>
/// <param name="Matched">MATCHED, or NOT MATCHED.</param>
/// <param name="BySource">NOT MATCHED BY SOURCE (17).</param>
/// <param name="Condition">AND.</param>
/// <param name="Command">update, delete, insert, nothing.</param>
/// <param name="Columns">Columns that it writes, as far as the text gives them.</param>
internal sealed record MergeAction(bool Matched, bool BySource, SqlFragment? Condition, string Command, IReadOnlyList<string> Columns);

/// <summary>MERGE.</summary>
/// <param name="Table">Table.</param>
/// <param name="Source">USING.</param>
/// <param name="Predicate">ON.</param>
/// <param name="Actions">WHEN.</param>
internal sealed record Merge(QualifiedName Table, SqlFragment Source, SqlFragment Predicate, IReadOnlyList<MergeAction> Actions) : DataStatement("MERGE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];
}

/// <summary>Parses statements on rows.</summary>
internal static class DataStatements
{
    internal static ParsedStatement? Read(SqlReader r)
    {
        int start = r.At;
        IReadOnlyList<CommonTable> with = r.Take("with") ? CommonTables(r) : [];
        SqlFragment clause = r.From(start);
        return r.Word() switch
        {
            "insert" => ReadInsert(r) with { With = with, WithClause = clause },
            "update" => ReadUpdate(r) with { With = with, WithClause = clause },
            "delete" => ReadDelete(r) with { With = with, WithClause = clause },
            "merge" => ReadMerge(r) with { With = with, WithClause = clause },
            "select" when r.HasAhead("into") => SelectInto(r, start),
            "select" or "values" or "table" => Select(r, start, with),
            _ when r.SeesMark("(") => Select(r, start, with),
            _ => r.Fail<ParsedStatement>(),
        };
    }

    private static Query Select(SqlReader r, int start, IReadOnlyList<CommonTable> with)
    {
        r.Until();
        return new Query(r.From(start)) { With = with };
    }

    private static CreateTableAs SelectInto(SqlReader r, int start)
    {
        r.Until("into");
        r.Expect("into");
        _ = r.Take("global") || r.Take("local");
        Persistence persistence = r.TakeOneOf("temporary", "temp") is not null ? Persistence.Temporary : r.Take("unlogged") ? Persistence.Unlogged : Persistence.Permanent;
        r.Take("table");
        QualifiedName name = r.Qualified();
        if (!r.AtEnd)
        {
            r.Until();
        }

        return new CreateTableAs("SELECT INTO", name, persistence, false, r.From(start), true);
    }

    private static IReadOnlyList<CommonTable> CommonTables(SqlReader r)
    {
        r.Take("recursive");
        return r.List(r =>
        {
            string name = r.Name();
            if (r.SeesMark("("))
            {
                r.Names();
            }

            r.Expect("as");
            r.Take("not");
            r.Take("materialized");
            r.ExpectMark("(");
            ParsedStatement statement = Read(r)!;
            r.ExpectMark(")");
            Search(r);
            return new CommonTable(name, statement);
        });
    }

    /// <summary>SEARCH and CYCLE.</summary>
    private static void Search(SqlReader r)
    {
        if (r.Take("search"))
        {
            r.OneOf("depth", "breadth");
            r.Expect("first", "by");
            r.List(r => r.Name());
            r.Expect("set");
            r.Name();
        }

        if (r.Take("cycle"))
        {
            r.List(r => r.Name());
            r.Expect("set");
            r.Name();
            if (r.Take("to"))
            {
                r.Until("default");
                r.Expect("default");
                r.Until("using");
            }

            r.Expect("using");
            r.Name();
        }
    }

    private static Insert ReadInsert(SqlReader r)
    {
        r.Expect("insert", "into");
        QualifiedName table = r.Qualified();
        if (r.Take("as"))
        {
            r.Name();
        }

        IReadOnlyList<string> columns = r.SeesMark("(") && !IsQuery(r) ? r.ParenthesizedList(Target) : [];
        if (r.Take("overriding"))
        {
            r.OneOf("system", "user");
            r.Expect("value");
        }

        SqlFragment source = r.Until("on conflict", "returning");
        SqlFragment? onConflict = r.Take("on", "conflict") ? r.Until("returning") : null;
        Returning(r);
        return new Insert(table, columns, source, onConflict);
    }

    private static Update ReadUpdate(SqlReader r)
    {
        r.Expect("update");
        (QualifiedName table, bool only) = r.Table();
        string alias = Alias(r, "set") ?? table.Name;
        r.Expect("set");
        IReadOnlyList<Assignment> assignments = r.List(ReadAssignment);
        SqlFragment? from = r.Take("from") ? r.Until("where", "returning") : null;
        SqlFragment? predicate = r.Take("where") ? r.Until("returning") : null;
        Returning(r);
        return new Update(table, only, assignments, from, predicate) { Alias = alias };
    }

    private static Delete ReadDelete(SqlReader r)
    {
        r.Expect("delete", "from");
        (QualifiedName table, bool only) = r.Table();
        string alias = Alias(r, "using") ?? table.Name;
        SqlFragment? using_ = r.Take("using") ? r.Until("where", "returning") : null;
        SqlFragment? predicate = r.Take("where") ? r.Until("returning") : null;
        Returning(r);
        return new Delete(table, only, using_, predicate) { Alias = alias };
    }

    private static Merge ReadMerge(SqlReader r)
    {
        r.Expect("merge", "into");
        (QualifiedName table, _) = r.Table();
        string alias = Alias(r, "using") ?? table.Name;
        r.Expect("using");
        SqlFragment source = JoinedSource(r);
        r.Expect("on");
        SqlFragment predicate = r.Until("when");
        List<MergeAction> actions = [];
        while (r.Take("when"))
        {
            actions.Add(ReadMergeAction(r));
        }

        Returning(r);
        if (actions.Count == 0)
        {
            r.Fail();
        }

        return new Merge(table, source, predicate, actions) { Alias = alias };
    }

    /// <summary>The source up to the ON of MERGE itself: each JOIN in it has an ON or USING of its own, but for CROSS and NATURAL ones.</summary>
    private static SqlFragment JoinedSource(SqlReader r)
    {
        int start = r.At;
        int open = 0;
        bool plain = false;
        while (!r.AtEnd)
        {
            r.SkipTo("join", "on", "using", "cross", "natural");
            if (r.AtEnd || (r.Sees("on") && open == 0))
            {
                break;
            }

            plain |= r.Sees("cross") || r.Sees("natural");
            if (r.Sees("join"))
            {
                open += plain ? 0 : 1;
                plain = false;
            }
            else if (r.Sees("on") || r.Sees("using"))
            {
                open--;
            }

            r.Skip();
        }

        return r.From(start);
    }

    private static MergeAction ReadMergeAction(SqlReader r)
    {
        bool matched = !r.Take("not");
        r.Expect("matched");
        bool bySource = r.Take("by", "source");
        r.Take("by", "target");
        SqlFragment? condition = r.Take("and") ? r.Until("then") : null;
        r.Expect("then");
        string command = r.OneOf("update", "delete", "insert", "do");
        IReadOnlyList<string> columns = [];
        switch (command)
        {
            case "update":
                r.Expect("set");
                columns = [.. r.List(ReadAssignment).SelectMany(a => a.Columns)];
                break;
            case "insert":
                columns = r.SeesMark("(") ? r.ParenthesizedList(Target) : [];
                r.Until("when", "returning");
                break;
            case "do":
                r.Expect("nothing");
                break;
        }

        return new MergeAction(matched, bySource, condition, command == "do" ? "nothing" : command, columns);
    }

    private static Assignment ReadAssignment(SqlReader r)
    {
        IReadOnlyList<string> columns = r.SeesMark("(") ? r.ParenthesizedList(Target) : [Target(r)];
        r.ExpectMark("=");
        return new Assignment(columns, r.Until(",", "from", "where", "when", "returning"));
    }

    /// <summary>A column that is written, with what part of it.</summary>
    private static string Target(SqlReader r)
    {
        string name = r.Name();
        if (r.SeesMark(".") || r.SeesMark("["))
        {
            r.Until(",", "=");
        }

        return name;
    }

    private static string? Alias(SqlReader r, string next) => r.Take("as") || (r.SeesName() && !r.Sees(next)) ? r.Name() : null;

    private static void Returning(SqlReader r)
    {
        if (r.Take("returning"))
        {
            r.Until();
        }
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
