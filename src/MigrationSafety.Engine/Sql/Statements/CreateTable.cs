namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>CREATE TABLE, CREATE TABLE AS included.</summary>
/// <param name="Temporary">TEMPORARY, or in the schema pg_temp.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
/// <param name="Table">Table.</param>
/// <param name="PartitionOf">The table whose partition it is; null where it is none.</param>
/// <param name="Columns">Names of the columns that the text gives.</param>
/// <param name="References">The tables that its foreign keys point to.</param>
/// <param name="FromQuery">Whether a query fills it.</param>
internal sealed record CreateTable(
    bool Temporary,
    bool IfNotExists,
    QualifiedName Table,
    QualifiedName? PartitionOf,
    IReadOnlyList<string> Columns,
    IReadOnlyList<QualifiedName> References,
    bool FromQuery) : ParsedStatement(FromQuery ? "CREATE TABLE AS" : "CREATE TABLE")
{
    /// <summary>Parses it; null where the statement is another one or is not understood.</summary>
    internal static CreateTable? TryParse(SqlReader reader)
    {
        if (!reader.Take("create"))
        {
            return null;
        }

        _ = reader.Take("global") || reader.Take("local");
        bool temporary = reader.Take("temporary") || reader.Take("temp");
        reader.Take("unlogged");
        if (!reader.Take("table"))
        {
            return null;
        }

        bool ifNotExists = reader.Take("if", "not", "exists");
        if (reader.TakeQualifiedName() is not { } table)
        {
            return null;
        }

        QualifiedName? partitionOf = null;
        if (reader.Take("partition", "of"))
        {
            partitionOf = reader.TakeQualifiedName();
            if (partitionOf is null)
            {
                return null;
            }
        }
        else if (reader.Take("of"))
        {
            reader.TakeQualifiedName();
        }

        List<string> columns = [];
        List<QualifiedName> references = [];
        if (reader.TakeParentheses() is { } elements && !Elements(elements, columns, references))
        {
            return null;
        }

        // "as" behind the columns begins a query; it stands nowhere else outside parentheses.
        reader.SkipTo("as");
        return new CreateTable(temporary || table.Schema is "pg_temp", ifNotExists, table, partitionOf, columns, references, reader.Sees("as"));
    }

    private static bool Elements(SqlReader elements, List<string> columns, List<QualifiedName> references)
    {
        if (elements.AtEnd)
        {
            return true;
        }

        foreach (SqlReader element in elements.SplitAtCommas())
        {
            if (element.Sees("like"))
            {
                continue;
            }

            if (TableConstraint.IsNext(element))
            {
                if (TableConstraint.TryParse(element) is not { } constraint)
                {
                    return false;
                }

                if (constraint is ForeignKeyConstraint foreignKey)
                {
                    references.Add(foreignKey.Parent);
                }
            }
            else if (ColumnDefinition.TryParse(element) is { } column)
            {
                columns.Add(column.Name);
                references.AddRange(column.References);
            }
            else
            {
                return false;
            }
        }

        return true;
    }
}
