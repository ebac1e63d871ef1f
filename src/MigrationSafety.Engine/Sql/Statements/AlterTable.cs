namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>ALTER TABLE.</summary>
/// <param name="IfExists">IF EXISTS.</param>
/// <param name="Only">ONLY.</param>
/// <param name="Table">Table.</param>
/// <param name="Actions">Its actions, in the order of the text.</param>
internal sealed record AlterTable(bool IfExists, bool Only, QualifiedName Table, IReadOnlyList<TableAction> Actions) : ParsedStatement("ALTER TABLE")
{
    /// <summary>Parses it; null where the statement is another one or is not understood.</summary>
    internal static AlterTable? TryParse(SqlReader reader)
    {
        if (!reader.Take("alter", "table") || reader.Sees("all", "in"))
        {
            return null;
        }

        bool ifExists = reader.Take("if", "exists");
        return reader.TakeRelation() is { } relation && !reader.AtEnd
            ? new AlterTable(ifExists, relation.Only, relation.Name, [.. reader.SplitAtCommas().Select(Action)])
            : null;
    }

    private static TableAction Action(SqlReader reader)
    {
        string text = reader.Rest();
        bool movesTable = reader.Sees("rename", "to") || reader.Sees("set", "schema") || reader.Sees("attach") || reader.Sees("detach")
            || reader.Sees("inherit") || reader.Sees("no", "inherit");
        TableAction? action = null;
        if (reader.Take("add"))
        {
            if (TableConstraint.IsNext(reader))
            {
                action = TableConstraint.TryParse(reader) is { } constraint ? new AddConstraint(text, constraint) : null;
            }
            else
            {
                reader.Take("column");
                bool ifNotExists = reader.Take("if", "not", "exists");
                action = ColumnDefinition.TryParse(reader) is { Definition.Length: > 0 } column ? new AddColumn(text, ifNotExists, column) : null;
            }
        }
        else if (reader.Take("validate", "constraint"))
        {
            action = reader.TakeName() is { } name ? new ValidateConstraint(text, name) : null;
        }

        return action ?? new OtherAction(text, movesTable);
    }
}

/// <summary>An action of ALTER TABLE.</summary>
/// <param name="Text">Its text.</param>
internal abstract record TableAction(string Text);

/// <summary>ADD COLUMN.</summary>
/// <param name="Text">Its text.</param>
/// <param name="IfNotExists">IF NOT EXISTS.</param>
/// <param name="Column">Column.</param>
internal sealed record AddColumn(string Text, bool IfNotExists, ColumnDefinition Column) : TableAction(Text);

/// <summary>ADD CONSTRAINT, with or without a name.</summary>
/// <param name="Text">Its text.</param>
/// <param name="Constraint">Constraint.</param>
internal sealed record AddConstraint(string Text, TableConstraint Constraint) : TableAction(Text);

/// <summary>VALIDATE CONSTRAINT.</summary>
/// <param name="Text">Its text.</param>
/// <param name="Name">Constraint.</param>
internal sealed record ValidateConstraint(string Text, string Name) : TableAction(Text);

/// <summary>An action that is kept as text.</summary>
/// <param name="Text">Its text.</param>
/// <param name="MovesTable">Whether it takes the table to another name, schema or parent, so that it outlives the table's name.</param>
internal sealed record OtherAction(string Text, bool MovesTable) : TableAction(Text);
