namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>What may be said of a constraint besides what it demands.</summary>
/// <param name="Deferrable">DEFERRABLE or NOT DEFERRABLE; null where neither is said.</param>
/// <param name="InitiallyDeferred">INITIALLY DEFERRED or IMMEDIATE; null where neither is said.</param>
/// <param name="NotValid">NOT VALID: rows that are there are not checked.</param>
/// <param name="Inherited">INHERIT or NO INHERIT; null where neither is said.</param>
/// <param name="Enforced">ENFORCED or NOT ENFORCED (18); null where neither is said.</param>
internal sealed record ConstraintTraits(bool? Deferrable, bool? InitiallyDeferred, bool NotValid, bool? Inherited, bool? Enforced)
{
    internal static ConstraintTraits None { get; } = new(null, null, false, null, null);

    /// <summary>Parses what is next of them, in any order.</summary>
    internal static ConstraintTraits Read(SqlReader r, ConstraintTraits? before = null)
    {
        ConstraintTraits traits = before ?? None;
        while (true)
        {
            if (r.Take("not", "deferrable"))
            {
                traits = traits with { Deferrable = false };
            }
            else if (r.Take("deferrable"))
            {
                traits = traits with { Deferrable = true };
            }
            else if (r.Take("initially", "deferred"))
            {
                traits = traits with { InitiallyDeferred = true };
            }
            else if (r.Take("initially", "immediate"))
            {
                traits = traits with { InitiallyDeferred = false };
            }
            else if (r.Take("not", "valid"))
            {
                traits = traits with { NotValid = true };
            }
            else if (r.Take("no", "inherit"))
            {
                traits = traits with { Inherited = false };
            }
            else if (r.Take("inherit"))
            {
                traits = traits with { Inherited = true };
            }
            else if (r.Take("not", "enforced"))
            {
                traits = traits with { Enforced = false };
            }
            else if (r.Take("enforced"))
            {
                traits = traits with { Enforced = true };
            }
            else
            {
                return traits;
            }
        }
    }
}

/// <summary>A constraint of a table or, where it stands behind a column, of that column.</summary>
/// <param name="Name">Name; null where PostgreSQL chooses it.</param>
internal abstract record TableConstraint(string? Name)
{
    /// <summary>What may be said besides.</summary>
    internal ConstraintTraits Traits { get; init; } = ConstraintTraits.None;

    /// <summary>Whether a constraint, not a column, is next after ADD or in a list of table elements.</summary>
    internal static bool IsNext(SqlReader r)
    {
        if (r.Sees("exclude"))
        {
            SqlReader ahead = r.Clone();
            ahead.Skip();
            return ahead.Sees("using") || ahead.SeesMark("(");
        }

        return r.Sees("constraint") || r.Sees("check") || r.Sees("unique") || r.Sees("primary", "key") || r.Sees("foreign", "key") || r.Sees("not", "null");
    }

    /// <summary>Parses a constraint of a table.</summary>
    internal static TableConstraint? Read(SqlReader r)
    {
        string? name = r.Take("constraint") ? r.Name() : null;
        TableConstraint? constraint =
            r.Take("check") ? Check(r, name)
            : r.Take("not", "null") ? new NotNullConstraint(name, r.Name())
            : r.Take("foreign", "key") ? ForeignKeyConstraint.Read(r, name, KeyColumns(r, out bool period), period)
            : r.Take("exclude") ? Exclude(r, name)
            : r.Take("primary", "key") ? Unique(r, name, true, null)
            : r.Take("unique") ? Unique(r, name, false, null)
            : r.Fail<TableConstraint>();
        return constraint is null ? null : constraint with { Traits = ConstraintTraits.Read(r) };
    }

    /// <summary>Parses a constraint of a column; null, and nothing taken, where none is next.</summary>
    internal static TableConstraint? ReadOfColumn(SqlReader r, string? name, string column)
    {
        TableConstraint? constraint =
            r.Take("check") ? Check(r, name)
            : r.Take("not", "null") ? new NotNullConstraint(name, column)
            : r.Sees("references") ? ForeignKeyConstraint.Read(r, name, [column], false)
            : r.Take("primary", "key") ? Unique(r, name, true, column)
            : r.Take("unique") ? Unique(r, name, false, column)
            : null;
        return constraint is null ? null : constraint with { Traits = ConstraintTraits.Read(r) };
    }

    /// <summary>Columns of a key in parentheses; of a temporal one the last stands behind PERIOD or before WITHOUT OVERLAPS (18).</summary>
    internal static IReadOnlyList<string> KeyColumns(SqlReader r, out bool period)
    {
        bool temporal = false;
        IReadOnlyList<string> columns = r.ParenthesizedList(r =>
        {
            SqlReader ahead = r.Clone();
            ahead.Skip();
            temporal |= ahead.SeesName() && r.Take("period");
            string column = r.Name();
            temporal |= r.Take("without", "overlaps");
            return column;
        });
        period = temporal;
        return columns;
    }

    private static CheckConstraint Check(SqlReader r, string? name)
    {
        SqlFragment expression = r.Parenthesized();
        return new CheckConstraint(name, expression);
    }

    private static UniqueConstraint Unique(SqlReader r, string? name, bool primary, string? column)
    {
        bool nullsNotDistinct = r.Take("nulls", "not", "distinct");
        _ = nullsNotDistinct || r.Take("nulls", "distinct");
        if (column is null && r.Take("using", "index"))
        {
            return new UniqueConstraint(name, primary, [], [], r.Name());
        }

        bool withoutOverlaps = false;
        IReadOnlyList<string> columns = column is null ? KeyColumns(r, out withoutOverlaps) : [column];
        IReadOnlyList<string> include = column is null && r.Take("include") ? r.Names() : [];
        return new UniqueConstraint(name, primary, columns, include, null)
        {
            NullsNotDistinct = nullsNotDistinct,
            WithoutOverlaps = withoutOverlaps,
            Options = SqlOption.ReadOptional(r, "with"),
            Tablespace = r.Take("using", "index", "tablespace") ? r.Name() : null,
        };
    }

    private static ExcludeConstraint Exclude(SqlReader r, string? name)
    {
        string? method = r.Take("using") ? r.Name() : null;
        IReadOnlyList<(IndexElement Element, QualifiedName Operator)> elements = r.ParenthesizedList(r =>
        {
            IndexElement element = IndexElement.Read(r);
            r.Expect("with");
            if (!r.Take("operator"))
            {
                return (element, r.OperatorName());
            }

            r.ExpectMark("(");
            QualifiedName name = r.OperatorName();
            r.ExpectMark(")");
            return (element, name);
        });
        return new ExcludeConstraint(name, method, elements, r.Take("include") ? r.Names() : [])
        {
            Options = SqlOption.ReadOptional(r, "with"),
            Tablespace = r.Take("using", "index", "tablespace") ? r.Name() : null,
            Predicate = r.Take("where") ? r.Parenthesized() : null,
        };
    }
}

/// <summary>CHECK.</summary>
/// <param name="Name">Name.</param>
/// <param name="Expression">What must hold.</param>
internal sealed record CheckConstraint(string? Name, SqlFragment Expression) : TableConstraint(Name)
{
    /// <summary>What the expression mentions that may be a column.</summary>
    internal IReadOnlyList<ColumnMention> Mentions => ColumnMentions.In(Expression.Read());
}

/// <summary>NOT NULL; as a constraint of a table since 18.</summary>
/// <param name="Name">Name.</param>
/// <param name="Column">Column.</param>
internal sealed record NotNullConstraint(string? Name, string Column) : TableConstraint(Name);

/// <summary>EXCLUDE.</summary>
/// <param name="Name">Name.</param>
/// <param name="Method">Access method; null where it is the default.</param>
/// <param name="Elements">Columns and expressions with their operators.</param>
/// <param name="Include">Columns of INCLUDE.</param>
internal sealed record ExcludeConstraint(
    string? Name, string? Method, IReadOnlyList<(IndexElement Element, QualifiedName Operator)> Elements, IReadOnlyList<string> Include) : TableConstraint(Name)
{
    /// <summary>Storage parameters of its index.</summary>
    internal IReadOnlyList<SqlOption> Options { get; init; } = [];

    /// <summary>Tablespace of its index.</summary>
    internal string? Tablespace { get; init; }

    /// <summary>WHERE.</summary>
    internal SqlFragment? Predicate { get; init; }

    /// <summary>What its elements bring into a chosen name.</summary>
    internal IEnumerable<string> ElementNames => Elements.Select(e => e.Element.ChosenName).Concat(Include);
}

/// <summary>UNIQUE or PRIMARY KEY.</summary>
/// <param name="Name">Name.</param>
/// <param name="Primary">Whether it is a primary key.</param>
/// <param name="Columns">Key columns; empty with USING INDEX.</param>
/// <param name="Include">Columns of INCLUDE.</param>
/// <param name="UsingIndex">The index that it takes over; null where it makes its own.</param>
internal sealed record UniqueConstraint(string? Name, bool Primary, IReadOnlyList<string> Columns, IReadOnlyList<string> Include, string? UsingIndex) : TableConstraint(Name)
{
    /// <summary>NULLS NOT DISTINCT (15).</summary>
    internal bool NullsNotDistinct { get; init; }

    /// <summary>WITHOUT OVERLAPS behind the last column (18).</summary>
    internal bool WithoutOverlaps { get; init; }

    /// <summary>Storage parameters of its index.</summary>
    internal IReadOnlyList<SqlOption> Options { get; init; } = [];

    /// <summary>Tablespace of its index.</summary>
    internal string? Tablespace { get; init; }
}

/// <summary>FOREIGN KEY.</summary>
/// <param name="Name">Name.</param>
/// <param name="Columns">Referencing columns.</param>
/// <param name="Parent">Referenced table.</param>
/// <param name="ParentColumns">Referenced columns; empty where they are those of its primary key.</param>
/// <param name="Match">FULL, PARTIAL, SIMPLE in lower case; null where it is not said.</param>
/// <param name="OnDelete">What follows ON DELETE; null where it is not said.</param>
/// <param name="OnUpdate">What follows ON UPDATE; null where it is not said.</param>
/// <param name="Period">Whether it is temporal: PERIOD (18).</param>
internal sealed record ForeignKeyConstraint(
    string? Name,
    IReadOnlyList<string> Columns,
    QualifiedName Parent,
    IReadOnlyList<string> ParentColumns,
    string? Match,
    SqlFragment? OnDelete,
    SqlFragment? OnUpdate,
    bool Period) : TableConstraint(Name)
{
    /// <summary>Parses it from REFERENCES on.</summary>
    internal static ForeignKeyConstraint Read(SqlReader r, string? name, IReadOnlyList<string> columns, bool period)
    {
        r.Expect("references");
        QualifiedName parent = r.Qualified();
        IReadOnlyList<string> parentColumns = r.SeesMark("(") ? KeyColumns(r, out _) : [];
        string? match = r.Take("match") ? r.OneOf("full", "partial", "simple") : null;
        SqlFragment? onDelete = null;
        SqlFragment? onUpdate = null;
        while (r.Take("on"))
        {
            if (r.OneOf("delete", "update") == "delete")
            {
                onDelete = Action(r);
            }
            else
            {
                onUpdate = Action(r);
            }
        }

        return new ForeignKeyConstraint(name, columns, parent, parentColumns, match, onDelete, onUpdate, period);
    }

    private static SqlFragment Action(SqlReader r)
    {
        int start = r.At;
        if (r.Take("set"))
        {
            r.OneOf("null", "default");
            if (r.SeesMark("("))
            {
                r.Names();
            }
        }
        else if (!r.Take("no", "action"))
        {
            r.OneOf("restrict", "cascade");
        }

        return r.From(start);
    }
}
