namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>GENERATED ALWAYS AS (expression).</summary>
/// <param name="Expression">Expression.</param>
/// <param name="Stored">STORED or VIRTUAL; null where neither is said, which is VIRTUAL (18).</param>
internal sealed record GeneratedColumn(SqlFragment Expression, bool? Stored);

/// <summary>GENERATED ... AS IDENTITY.</summary>
/// <param name="Always">ALWAYS or BY DEFAULT.</param>
/// <param name="Options">Options of its sequence.</param>
internal sealed record IdentityColumn(bool Always, IReadOnlyList<SequenceOption> Options);

/// <summary>A column of CREATE TABLE, of ADD COLUMN, of a composite type.</summary>
/// <param name="Name">Name.</param>
/// <param name="Type">Type; null where a type or a partitioned table gives it.</param>
/// <param name="Definition">Type and all that follows.</param>
internal sealed record ColumnDefinition(string Name, TypeName? Type, SqlFragment Definition)
{
    /// <summary>Collation.</summary>
    internal QualifiedName? Collation { get; init; }

    /// <summary>DEFAULT.</summary>
    internal SqlFragment? Default { get; init; }

    /// <summary>GENERATED ALWAYS AS.</summary>
    internal GeneratedColumn? Generated { get; init; }

    /// <summary>AS IDENTITY.</summary>
    internal IdentityColumn? Identity { get; init; }

    /// <summary>STORAGE, in lower case.</summary>
    internal string? Storage { get; init; }

    /// <summary>COMPRESSION.</summary>
    internal string? Compression { get; init; }

    /// <summary>OPTIONS of a foreign table's column.</summary>
    internal IReadOnlyList<SqlOption> Options { get; init; } = [];

    /// <summary>NOT NULL, CHECK, UNIQUE, PRIMARY KEY, REFERENCES.</summary>
    internal IReadOnlyList<TableConstraint> Constraints { get; init; } = [];

    /// <summary>Whether NOT NULL is said.</summary>
    internal bool NotNull => Constraints.Any(c => c is NotNullConstraint);

    /// <summary>The tables that its foreign keys point to.</summary>
    internal IEnumerable<QualifiedName> References => Constraints.OfType<ForeignKeyConstraint>().Select(c => c.Parent);

    /// <summary>Parses it.</summary>
    /// <param name="r">Reader.</param>
    /// <param name="typed">Whether a type follows the name; in a partition or a typed table none does.</param>
    internal static ColumnDefinition Read(SqlReader r, bool typed = true)
    {
        string name = r.Name();
        int start = r.At;
        TypeName? type = typed ? TypeName.Read(r) : null;
        if (!typed)
        {
            r.Take("with", "options");
        }

        string? storage = null;
        string? compression = null;
        while (typed && (r.Sees("storage") || r.Sees("compression")))
        {
            if (r.Take("storage"))
            {
                storage = r.Take("default") ? "default" : r.Name();
            }
            else if (r.Take("compression"))
            {
                compression = r.Take("default") ? "default" : r.Name();
            }
        }

        ColumnDefinition column = new(name, type, default) { Storage = storage, Compression = compression, Options = SqlOption.ReadForeign(r) };
        return Qualifiers(r, column) with { Definition = r.From(start) };
    }

    private static ColumnDefinition Qualifiers(SqlReader r, ColumnDefinition column)
    {
        List<TableConstraint> constraints = [];
        while (true)
        {
            string? name = r.Take("constraint") ? r.Name() : null;
            if (TableConstraint.ReadOfColumn(r, name, column.Name) is { } constraint)
            {
                constraints.Add(constraint);
            }
            else if (r.Take("null"))
            {
            }
            else if (r.Take("default"))
            {
                column = column with { Default = Expression(r) };
            }
            else if (r.Take("collate"))
            {
                column = column with { Collation = r.Qualified() };
            }
            else if (r.Take("generated"))
            {
                column = Generate(r, column);
            }
            else
            {
                if (name is not null)
                {
                    r.Fail();
                }

                return column with { Constraints = constraints };
            }
        }
    }

    /// <summary>A default's expression (b_expr), which ends where the next clause of a column begins.</summary>
    internal static SqlFragment Expression(SqlReader r) => r.Until(
        ",", "constraint", "not", "null", "unique", "primary", "check", "default", "references", "generated", "collate", "deferrable", "initially", "enforced");

    private static ColumnDefinition Generate(SqlReader r, ColumnDefinition column)
    {
        bool always = r.Take("always") || !r.Take("by", "default") && r.Fail<bool>();
        r.Expect("as");
        if (r.Take("identity"))
        {
            return column with { Identity = new IdentityColumn(always, r.SeesMark("(") ? SequenceOption.ReadInParentheses(r) : []) };
        }

        SqlFragment expression = r.Parenthesized();
        return column with { Generated = new GeneratedColumn(expression, r.Take("stored") ? true : r.Take("virtual") ? false : null) };
    }
}
