namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>A column of CREATE TABLE or of ADD COLUMN.</summary>
/// <param name="Name">Name.</param>
/// <param name="Definition">Type and all that follows, as text.</param>
/// <param name="References">The tables that its foreign keys point to.</param>
internal sealed record ColumnDefinition(string Name, string Definition, IReadOnlyList<QualifiedName> References)
{
    /// <summary>Parses it; null where it is not understood.</summary>
    internal static ColumnDefinition? TryParse(SqlReader reader)
    {
        if (reader.TakeName() is not { } name)
        {
            return null;
        }

        string definition = reader.Rest();
        List<QualifiedName> references = [];
        while (true)
        {
            reader.SkipTo("references");
            if (!reader.Take("references"))
            {
                return new ColumnDefinition(name, definition, references);
            }

            if (reader.TakeQualifiedName() is not { } parent)
            {
                return null;
            }

            references.Add(parent);
        }
    }
}

/// <summary>A constraint of a table.</summary>
/// <param name="Name">Name; null where PostgreSQL chooses it.</param>
internal abstract record TableConstraint(string? Name)
{
    /// <summary>Whether a constraint, not a column, is next after ADD or in a list of table elements.</summary>
    internal static bool IsNext(SqlReader reader)
    {
        SqlReader ahead = reader.Clone();
        return ahead.Sees("constraint") || ahead.Sees("check") || ahead.Sees("unique") || ahead.Sees("primary") || ahead.Sees("foreign") || ahead.Sees("not")
            || (ahead.Take("exclude") && (ahead.Sees("using") || ahead.SeesMark("(")));
    }

    /// <summary>Parses it; null where it is not understood.</summary>
    internal static TableConstraint? TryParse(SqlReader reader)
    {
        string? name = null;
        if (reader.Take("constraint") && (name = reader.TakeName()) is null)
        {
            return null;
        }

        if (reader.Take("check"))
        {
            return reader.TakeParentheses() is { } expression ? new CheckConstraint(name, ColumnMentions.In(expression)) : null;
        }

        if (reader.Take("not", "null"))
        {
            return reader.TakeName() is { } column ? new NotNullConstraint(name, column) : null;
        }

        if (reader.Take("foreign", "key"))
        {
            return reader.TakeNameList() is { } columns && reader.Take("references") && reader.TakeQualifiedName() is { } parent
                ? new ForeignKeyConstraint(name, columns, parent)
                : null;
        }

        if (reader.Take("exclude"))
        {
            if (reader.Take("using"))
            {
                reader.Skip();
            }

            return reader.TakeParentheses() is { } elements
                ? new ExcludeConstraint(name, [.. elements.SplitAtCommas().Select(ElementName.Of), .. Included(reader) ?? []])
                : null;
        }

        bool primary = reader.Take("primary", "key");
        return primary || reader.Take("unique") ? Unique(reader, name, primary) : null;
    }

    private static UniqueConstraint? Unique(SqlReader reader, string? name, bool primary)
    {
        if (reader.Take("using", "index"))
        {
            return reader.TakeName() is { } index ? new UniqueConstraint(name, primary, [], [], index) : null;
        }

        if (reader.Take("nulls"))
        {
            reader.Take("not");
            reader.Take("distinct");
        }

        return reader.TakeNameList() is { } columns ? new UniqueConstraint(name, primary, columns, Included(reader) ?? [], null) : null;
    }

    private static IReadOnlyList<string>? Included(SqlReader reader) => reader.Take("include") ? reader.TakeNameList() : null;
}

/// <summary>CHECK.</summary>
/// <param name="Name">Name.</param>
/// <param name="Mentions">What its expression mentions that may be a column.</param>
internal sealed record CheckConstraint(string? Name, IReadOnlyList<ColumnMention> Mentions) : TableConstraint(Name);

/// <summary>NOT NULL as a table constraint (18).</summary>
/// <param name="Name">Name.</param>
/// <param name="Column">Column.</param>
internal sealed record NotNullConstraint(string? Name, string Column) : TableConstraint(Name);

/// <summary>FOREIGN KEY.</summary>
/// <param name="Name">Name.</param>
/// <param name="Columns">Referencing columns.</param>
/// <param name="Parent">Referenced table.</param>
internal sealed record ForeignKeyConstraint(string? Name, IReadOnlyList<string> Columns, QualifiedName Parent) : TableConstraint(Name);

/// <summary>EXCLUDE.</summary>
/// <param name="Name">Name.</param>
/// <param name="ElementNames">What its elements bring into a chosen name.</param>
internal sealed record ExcludeConstraint(string? Name, IReadOnlyList<string> ElementNames) : TableConstraint(Name);

/// <summary>UNIQUE or PRIMARY KEY.</summary>
/// <param name="Name">Name.</param>
/// <param name="Primary">Whether it is a primary key.</param>
/// <param name="Columns">Key columns; empty with USING INDEX.</param>
/// <param name="Include">Columns of INCLUDE.</param>
/// <param name="UsingIndex">The index that it takes over; null where it makes its own.</param>
internal sealed record UniqueConstraint(string? Name, bool Primary, IReadOnlyList<string> Columns, IReadOnlyList<string> Include, string? UsingIndex) : TableConstraint(Name);
