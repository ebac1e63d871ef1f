namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>TRUNCATE.</summary>
internal sealed record Truncate(IReadOnlyList<(QualifiedName Name, bool Only)> Tables, bool RestartIdentity, bool Cascade) : ParsedStatement("TRUNCATE TABLE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [.. Tables.Select(t => t.Name)];

    internal static Truncate Read(SqlReader r)
    {
        r.Expect("truncate");
        r.Take("table");
        IReadOnlyList<(QualifiedName, bool)> tables = r.List(r => r.Table());
        bool restart = r.Take("restart", "identity");
        r.Take("continue", "identity");
        return new Truncate(tables, restart, r.TakeCascade());
    }
}

/// <summary>LOCK TABLE.</summary>
internal sealed record LockTables(IReadOnlyList<(QualifiedName Name, bool Only)> Tables, TableLockMode Mode, bool NoWait) : ParsedStatement("LOCK TABLE")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [.. Tables.Select(t => t.Name)];

    internal static LockTables Read(SqlReader r)
    {
        r.Expect("lock");
        r.Take("table");
        IReadOnlyList<(QualifiedName, bool)> tables = r.List(r => r.Table());
        TableLockMode mode = TableLockMode.AccessExclusive;
        if (r.Take("in"))
        {
            mode = ReadMode(r);
            r.Expect("mode");
        }

        return new LockTables(tables, mode, r.Take("nowait"));
    }

    private static TableLockMode ReadMode(SqlReader r) =>
        r.Take("access", "share") ? TableLockMode.AccessShare
        : r.Take("access", "exclusive") ? TableLockMode.AccessExclusive
        : r.Take("row", "share") ? TableLockMode.RowShare
        : r.Take("row", "exclusive") ? TableLockMode.RowExclusive
        : r.Take("share", "update", "exclusive") ? TableLockMode.ShareUpdateExclusive
        : r.Take("share", "row", "exclusive") ? TableLockMode.ShareRowExclusive
        : r.Take("share") ? TableLockMode.Share
        : r.Take("exclusive") ? TableLockMode.Exclusive
        : r.Fail<TableLockMode>();
}

/// <summary>REINDEX.</summary>
/// <param name="What">index, table, schema, system, database.</param>
/// <param name="Name">Name; null where the current database is meant.</param>
/// <param name="Concurrently">CONCURRENTLY.</param>
/// <param name="Options">Options in parentheses.</param>
internal sealed record Reindex(string What, QualifiedName? Name, bool Concurrently, IReadOnlyList<SqlOption> Options) : ParsedStatement("REINDEX")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => What is "index" or "table" && Name is not null ? [Name] : [];

    internal static Reindex Read(SqlReader r)
    {
        r.Expect("reindex");
        IReadOnlyList<SqlOption> options = r.SeesMark("(") ? SqlOption.ReadList(r) : [];
        string what = r.OneOf("index", "table", "schema", "system", "database");
        bool concurrently = r.Take("concurrently") || SqlOption.IsOn(options, "concurrently");
        return new Reindex(what, r.AtEnd ? null : r.Qualified(), concurrently, options);
    }
}

/// <summary>CLUSTER.</summary>
internal sealed record Cluster(QualifiedName? Table, string? Index, IReadOnlyList<SqlOption> Options) : ParsedStatement("CLUSTER")
{
    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => Table is null ? [] : [Table];

    internal static Cluster Read(SqlReader r)
    {
        r.Expect("cluster");
        IReadOnlyList<SqlOption> options = r.SeesMark("(") ? SqlOption.ReadList(r) : [];
        r.Take("verbose");
        if (r.AtEnd)
        {
            return new Cluster(null, null, options);
        }

        QualifiedName name = r.Qualified();
        if (r.Take("on"))
        {
            // The old form: CLUSTER index ON table.
            return new Cluster(r.Qualified(), name.Name, options);
        }

        return new Cluster(name, r.Take("using") ? r.Name() : null, options);
    }
}

/// <summary>VACUUM and ANALYZE.</summary>
/// <param name="Command">VACUUM or ANALYZE.</param>
/// <param name="Options">full, freeze, analyze, verbose and so on.</param>
/// <param name="Tables">Tables with their columns; empty for the whole database.</param>
internal sealed record Vacuum(string Command, IReadOnlyList<SqlOption> Options, IReadOnlyList<(QualifiedName Name, IReadOnlyList<string> Columns)> Tables) : ParsedStatement(Command)
{
    /// <summary>Whether the table is rewritten.</summary>
    internal bool Full => SqlOption.IsOn(Options, "full");

    /// <inheritdoc />
    internal override IReadOnlyList<QualifiedName> Targets => [.. Tables.Select(t => t.Name)];

    internal static Vacuum Read(SqlReader r)
    {
        string command = r.OneOf("vacuum", "analyze", "analyse") == "vacuum" ? "VACUUM" : "ANALYZE";
        List<SqlOption> options = [];
        if (r.SeesMark("("))
        {
            options.AddRange(SqlOption.ReadList(r));
        }
        else
        {
            while (r.TakeOneOf("full", "freeze", "verbose", "analyze", "analyse") is { } option)
            {
                options.Add(new SqlOption(option, r.From(r.At)));
            }
        }

        return new Vacuum(command, options, r.AtEnd ? [] : r.List(r => (r.Relation(), r.SeesMark("(") ? r.Names() : [])));
    }
}
