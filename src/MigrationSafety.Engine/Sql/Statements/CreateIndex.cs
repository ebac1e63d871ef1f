namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>A column or an expression of an index, of an EXCLUDE constraint or of a partition key.</summary>
/// <param name="Column">Column; null where it is an expression.</param>
/// <param name="Expression">Its text: the column, the call or what the parentheses hold.</param>
/// <param name="ChosenName">What it brings into the name that PostgreSQL would choose.</param>
internal sealed record IndexElement(string? Column, SqlFragment Expression, string ChosenName)
{
    /// <summary>All of it, as written.</summary>
    internal SqlFragment Source { get; init; }

    /// <summary>Collation.</summary>
    internal QualifiedName? Collation { get; init; }

    /// <summary>Operator class.</summary>
    internal QualifiedName? OperatorClass { get; init; }

    /// <summary>Its parameters.</summary>
    internal IReadOnlyList<SqlOption> Options { get; init; } = [];

    /// <summary>DESC.</summary>
    internal bool Descending { get; init; }

    /// <summary>NULLS FIRST or LAST; null where neither is said.</summary>
    internal bool? NullsFirst { get; init; }

    /// <summary>Parses it.</summary>
    internal static IndexElement Read(SqlReader r)
    {
        int start = r.At;
        string? column = null;
        SqlFragment expression;
        if (r.SeesMark("("))
        {
            expression = r.Parenthesized();
        }
        else
        {
            bool keyword = r.Kind == SqlTokenKind.Word && SqlKeywords.IsNoName(r.Word());
            string name = r.Label();
            bool plain = !keyword;
            while (r.TakeMark("."))
            {
                plain = false;
                r.Label();
            }

            if (r.SeesMark("("))
            {
                plain = false;
                r.Parenthesized();
            }

            expression = r.From(start);
            column = plain ? name : null;
        }

        SqlFragment source = r.From(start);
        IndexElement element = new(column, expression, r.Failed ? "" : ElementName.Of(source.Read()))
        {
            Collation = r.Take("collate") ? r.Qualified() : null,
            OperatorClass = r.SeesName() && !r.Sees("nulls") && !r.Sees("include") ? r.Qualified() : null,
            Options = r.SeesMark("(") ? SqlOption.ReadList(r) : [],
            Descending = r.TakeOneOf("asc", "desc") == "desc",
            NullsFirst = !r.Take("nulls") ? null : r.OneOf("first", "last") == "first",
        };
        return element with { Source = r.From(start) };
    }
}

/// <summary>CREATE INDEX.</summary>
/// <param name="Unique">UNIQUE.</param>
/// <param name="Concurrently">CONCURRENTLY.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
/// <param name="Name">Name; null where PostgreSQL chooses it.</param>
/// <param name="Only">ONLY: a partitioned table's own index, without its partitions'.</param>
/// <param name="Table">Table.</param>
/// <param name="Elements">Columns and expressions.</param>
internal sealed record CreateIndex(
    bool Unique,
    bool Concurrently,
    bool IfNotExists,
    string? Name,
    bool Only,
    QualifiedName Table,
    IReadOnlyList<IndexElement> Elements) : ParsedStatement("CREATE INDEX")
{
    /// <summary>Access method; null where it is the default.</summary>
    internal string? Method { get; init; }

    /// <summary>INCLUDE.</summary>
    internal IReadOnlyList<IndexElement> Include { get; init; } = [];

    /// <summary>NULLS NOT DISTINCT (15).</summary>
    internal bool NullsNotDistinct { get; init; }

    /// <summary>Storage parameters.</summary>
    internal IReadOnlyList<SqlOption> Options { get; init; } = [];

    /// <summary>Tablespace.</summary>
    internal string? Tablespace { get; init; }

    /// <summary>WHERE.</summary>
    internal SqlFragment? Predicate { get; init; }

    /// <summary>What each column or expression, INCLUDE's too, brings into the name that PostgreSQL would choose.</summary>
    internal IEnumerable<string> ElementNames => Elements.Concat(Include).Select(e => e.ChosenName);

    /// <summary>The storage parameters as they stand between the parentheses of WITH; null where there are none.</summary>
    internal string? With => Options.Count == 0 ? null : string.Join(", ", Options.Select(option => option.Value.IsEmpty ? option.Name : $"{option.Name}={option.Value.Text}"));

    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];

    /// <summary>Parses it behind CREATE [UNIQUE] INDEX.</summary>
    internal static CreateIndex Read(SqlReader r, bool unique)
    {
        bool concurrently = r.Take("concurrently");
        bool ifNotExists = r.TakeIfNotExists();
        string? name = r.Sees("on") && !ifNotExists ? null : r.Name();
        r.Expect("on");
        (QualifiedName table, bool only) = r.Table();
        string? method = r.Take("using") ? r.Name() : null;
        IReadOnlyList<IndexElement> elements = r.ParenthesizedList(IndexElement.Read);
        IReadOnlyList<IndexElement> include = r.Take("include") ? r.ParenthesizedList(IndexElement.Read) : [];
        bool notDistinct = r.Take("nulls", "not", "distinct");
        _ = notDistinct || r.Take("nulls", "distinct");
        return new CreateIndex(unique, concurrently, ifNotExists, name, only, table, elements)
        {
            Method = method,
            Include = include,
            NullsNotDistinct = notDistinct,
            Options = SqlOption.ReadOptional(r, "with"),
            Tablespace = r.Take("tablespace") ? r.Name() : null,
            Predicate = r.Take("where") ? r.Remaining() : null,
        };
    }
}
