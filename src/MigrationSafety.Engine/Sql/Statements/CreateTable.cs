namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>What makes a table: CREATE TABLE, CREATE TABLE AS, SELECT INTO.</summary>
/// <param name="Tag">The command.</param>
/// <param name="Table">Table.</param>
/// <param name="Persistence">TEMPORARY, UNLOGGED or neither.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
internal abstract record MakesTable(string Tag, QualifiedName Table, Persistence Persistence, bool IfNotExists) : ParsedStatement(Tag)
{
    /// <summary>Table, materialized view or foreign table.</summary>
    internal abstract ObjectKind Kind { get; }

    /// <summary>TEMPORARY, or in the schema pg_temp.</summary>
    internal bool Temporary => Persistence == Persistence.Temporary || Table.Schema is "pg_temp";

    /// <summary>Names of the columns that the text gives.</summary>
    internal abstract IEnumerable<string> ColumnNames { get; }

    /// <summary>The tables that its foreign keys point to.</summary>
    internal virtual IEnumerable<QualifiedName> References => [];

    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [Table];
}

/// <summary>How long a relation lasts.</summary>
internal enum Persistence
{
    /// <summary>As others do.</summary>
    Permanent,

    /// <summary>TEMPORARY.</summary>
    Temporary,

    /// <summary>UNLOGGED.</summary>
    Unlogged,
}

/// <summary>PARTITION BY.</summary>
/// <param name="Strategy">range, list, hash.</param>
/// <param name="Elements">Columns and expressions.</param>
internal sealed record PartitionKey(string Strategy, IReadOnlyList<IndexElement> Elements);

/// <summary>LIKE in a list of table elements.</summary>
/// <param name="Table">The table that it is like.</param>
/// <param name="Options">INCLUDING and EXCLUDING.</param>
internal sealed record LikeClause(QualifiedName Table, SqlFragment Options);

/// <summary>CREATE TABLE and CREATE FOREIGN TABLE.</summary>
/// <param name="Tag">The command.</param>
/// <param name="Table">Table.</param>
/// <param name="Persistence">TEMPORARY, UNLOGGED or neither.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
internal sealed record CreateTable(string Tag, QualifiedName Table, Persistence Persistence, bool IfNotExists) : MakesTable(Tag, Table, Persistence, IfNotExists)
{
    /// <inheritdoc />
    internal override ObjectKind Kind => Server is null ? ObjectKind.Table : ObjectKind.ForeignTable;

    /// <summary>Columns that the text gives.</summary>
    internal IReadOnlyList<ColumnDefinition> Columns { get; init; } = [];

    /// <summary>Constraints besides those of its columns.</summary>
    internal IReadOnlyList<TableConstraint> Constraints { get; init; } = [];

    /// <summary>LIKE.</summary>
    internal IReadOnlyList<LikeClause> Like { get; init; } = [];

    /// <summary>INHERITS.</summary>
    internal IReadOnlyList<QualifiedName> Inherits { get; init; } = [];

    /// <summary>The type that a typed table is of.</summary>
    internal QualifiedName? OfType { get; init; }

    /// <summary>The table whose partition it is.</summary>
    internal QualifiedName? PartitionOf { get; init; }

    /// <summary>FOR VALUES ... or DEFAULT of a partition.</summary>
    internal SqlFragment? Bound { get; init; }

    /// <summary>PARTITION BY.</summary>
    internal PartitionKey? PartitionBy { get; init; }

    /// <summary>Access method.</summary>
    internal string? AccessMethod { get; init; }

    /// <summary>Storage parameters; OPTIONS of a foreign table.</summary>
    internal IReadOnlyList<SqlOption> Options { get; init; } = [];

    /// <summary>What follows ON COMMIT, in lower case.</summary>
    internal string? OnCommit { get; init; }

    /// <summary>Tablespace.</summary>
    internal string? Tablespace { get; init; }

    /// <summary>Server of a foreign table.</summary>
    internal string? Server { get; init; }

    /// <inheritdoc />
    internal override IEnumerable<string> ColumnNames => Columns.Select(c => c.Name);

    /// <summary>Constraints of the table and of its columns.</summary>
    internal IEnumerable<TableConstraint> AllConstraints => Columns.SelectMany(c => c.Constraints).Concat(Constraints);

    /// <inheritdoc />
    internal override IEnumerable<QualifiedName> References => AllConstraints.OfType<ForeignKeyConstraint>().Select(c => c.Parent);

    /// <summary>Parses it behind CREATE [TEMPORARY ...] TABLE or CREATE FOREIGN TABLE; also CREATE TABLE AS.</summary>
    internal static MakesTable Read(SqlReader r, Persistence persistence, bool foreign)
    {
        bool ifNotExists = r.TakeIfNotExists();
        QualifiedName name = r.Qualified();
        if (!foreign && r.HasAhead("as"))
        {
            return CreateTableAs.Read(r, ObjectKind.Table, name, persistence, ifNotExists);
        }

        CreateTable table = new(foreign ? "CREATE FOREIGN TABLE" : "CREATE TABLE", name, persistence, ifNotExists);
        if (r.Take("partition", "of"))
        {
            table = table with { PartitionOf = r.Qualified() };
            table = Elements(r, table, typed: false, optional: true);
            table = table with { Bound = ReadBound(r) };
        }
        else if (r.Take("of"))
        {
            table = Elements(r, table with { OfType = r.Qualified() }, typed: false, optional: true);
        }
        else
        {
            table = Elements(r, table, typed: true, optional: false);
            table = table with { Inherits = r.Take("inherits") ? r.ParenthesizedList(r => r.Qualified()) : [] };
        }

        if (foreign)
        {
            r.Expect("server");
            return table with { Server = r.Name(), Options = SqlOption.ReadForeign(r) };
        }

        return Tail(r, table);
    }

    /// <summary>FOR VALUES IN, FROM ... TO, WITH; or DEFAULT.</summary>
    internal static SqlFragment ReadBound(SqlReader r)
    {
        int start = r.At;
        if (r.Take("default"))
        {
            return r.From(start);
        }

        r.Expect("for", "values");
        if (r.Take("from"))
        {
            r.Parenthesized();
            r.Expect("to");
        }
        else
        {
            r.OneOf("in", "with");
        }

        r.Parenthesized();
        return r.From(start);
    }

    /// <summary>INCLUDING and EXCLUDING of LIKE.</summary>
    internal static LikeClause ReadLike(SqlReader r)
    {
        QualifiedName table = r.Qualified();
        int start = r.At;
        while (r.TakeOneOf("including", "excluding") is not null)
        {
            r.OneOf("all", "comments", "compression", "constraints", "defaults", "generated", "identity", "indexes", "statistics", "storage");
        }

        return new LikeClause(table, r.From(start));
    }

    private static CreateTable Elements(SqlReader r, CreateTable table, bool typed, bool optional)
    {
        if (optional && !r.SeesMark("("))
        {
            return table;
        }

        List<ColumnDefinition> columns = [];
        List<TableConstraint> constraints = [];
        List<LikeClause> like = [];
        r.ExpectMark("(");
        if (typed && r.TakeMark(")"))
        {
            return table;
        }

        do
        {
            if (r.Take("like"))
            {
                like.Add(ReadLike(r));
            }
            else if (!TableConstraint.IsNext(r))
            {
                columns.Add(ColumnDefinition.Read(r, typed));
            }
            else if (TableConstraint.Read(r) is { } constraint)
            {
                constraints.Add(constraint);
            }
        }
        while (r.TakeMark(","));
        r.ExpectMark(")");
        return table with { Columns = columns, Constraints = constraints, Like = like };
    }

    private static CreateTable Tail(SqlReader r, CreateTable table)
    {
        PartitionKey? partitionBy = null;
        if (r.Take("partition", "by"))
        {
            string strategy = r.Label();
            partitionBy = new PartitionKey(strategy, r.ParenthesizedList(IndexElement.Read));
        }

        string? method = r.Take("using") ? r.Name() : null;
        IReadOnlyList<SqlOption> options = SqlOption.ReadOptional(r, "with");
        r.Take("without", "oids");
        return table with
        {
            PartitionBy = partitionBy,
            AccessMethod = method,
            Options = options,
            OnCommit = ReadOnCommit(r),
            Tablespace = r.Take("tablespace") ? r.Name() : null,
        };
    }

    /// <summary>ON COMMIT; null where it is not next.</summary>
    internal static string? ReadOnCommit(SqlReader r) => !r.Take("on", "commit") ? null
        : r.Take("drop") ? "drop"
        : r.Take("delete", "rows") ? "delete rows"
        : r.Take("preserve", "rows") ? "preserve rows"
        : r.Fail<string>();
}

/// <summary>CREATE TABLE AS, CREATE MATERIALIZED VIEW, SELECT INTO.</summary>
/// <param name="Tag">The command.</param>
/// <param name="Table">What is made.</param>
/// <param name="Persistence">TEMPORARY, UNLOGGED or neither.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
/// <param name="Query">The query; of SELECT INTO the whole statement.</param>
/// <param name="WithData">Whether it is filled.</param>
internal sealed record CreateTableAs(
    string Tag, QualifiedName Table, Persistence Persistence, bool IfNotExists, SqlFragment Query, bool WithData) : MakesTable(Tag, Table, Persistence, IfNotExists)
{
    /// <inheritdoc />
    internal override ObjectKind Kind => Tag == "CREATE MATERIALIZED VIEW" ? ObjectKind.MaterializedView : ObjectKind.Table;

    /// <summary>Names that the text gives to the columns; empty where the query names them.</summary>
    internal IReadOnlyList<string> Columns { get; init; } = [];

    /// <summary>Access method.</summary>
    internal string? AccessMethod { get; init; }

    /// <summary>Storage parameters.</summary>
    internal IReadOnlyList<SqlOption> Options { get; init; } = [];

    /// <summary>What follows ON COMMIT, in lower case.</summary>
    internal string? OnCommit { get; init; }

    /// <summary>Tablespace.</summary>
    internal string? Tablespace { get; init; }

    /// <inheritdoc />
    internal override IEnumerable<string> ColumnNames => Columns;

    /// <summary>Parses it behind the name.</summary>
    internal static CreateTableAs Read(SqlReader r, ObjectKind kind, QualifiedName name, Persistence persistence, bool ifNotExists)
    {
        IReadOnlyList<string> columns = r.SeesMark("(") ? r.Names() : [];
        string? method = r.Take("using") ? r.Name() : null;
        IReadOnlyList<SqlOption> options = SqlOption.ReadOptional(r, "with");
        r.Take("without", "oids");
        string? onCommit = CreateTable.ReadOnCommit(r);
        string? tablespace = r.Take("tablespace") ? r.Name() : null;
        r.Expect("as");
        bool withData = !r.TakeLast("with", "no", "data");
        _ = withData && r.TakeLast("with", "data");
        if (r.Word() is not ("select" or "values" or "table" or "with" or "execute") && !r.SeesMark("("))
        {
            r.Fail();
        }

        string tag = kind == ObjectKind.MaterializedView ? "CREATE MATERIALIZED VIEW" : "CREATE TABLE AS";
        return new CreateTableAs(tag, name, persistence, ifNotExists, r.Remaining(), withData)
        {
            Columns = columns,
            AccessMethod = method,
            Options = options,
            OnCommit = onCommit,
            Tablespace = tablespace,
        };
    }
}
