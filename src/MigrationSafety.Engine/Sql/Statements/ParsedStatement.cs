namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>What a statement says, as far as it is understood.</summary>
/// <param name="Tag">The command, such as <c>ALTER TABLE</c>.</param>
internal abstract record ParsedStatement(string Tag);

/// <summary>A statement that is kept as text.</summary>
/// <param name="Tag">The command.</param>
/// <param name="Effect">What can be said of it all the same.</param>
/// <param name="Target">The table that it writes or describes, where it is of a kind that tells.</param>
/// <param name="WrittenColumns">The columns that an UPDATE sets; empty for everything else, and where they cannot be told.</param>
internal sealed record OtherStatement(string Tag, StatementEffect Effect, QualifiedName? Target, IReadOnlyList<string> WrittenColumns) : ParsedStatement(Tag);

/// <summary>What a statement that is not understood in full does to the database.</summary>
internal enum StatementEffect
{
    /// <summary>Cannot be told.</summary>
    Unknown,

    /// <summary>Nothing that lasts: settings of the session, statistics, locks of the transaction.</summary>
    Nothing,

    /// <summary>It writes rows.</summary>
    WritesRows,
}

/// <summary>Parses one statement.</summary>
internal static class StatementParser
{
    /// <summary>What a statement says; what no family understands comes as <see cref="OtherStatement"/>.</summary>
    internal static ParsedStatement Parse(SqlStatement statement) =>
        statement.IsBroken ? Other(statement)
        : CreateIndex.TryParse(new SqlReader(statement))
        ?? AlterTable.TryParse(new SqlReader(statement))
        ?? CreateTable.TryParse(new SqlReader(statement))
        ?? (ParsedStatement)Other(statement);

    private static OtherStatement Other(SqlStatement statement)
    {
        string tag = CommandTag.Of(statement);
        SqlReader reader = new(statement);
        QualifiedName? target = null;
        IReadOnlyList<string> columns = [];
        switch (tag)
        {
            case "INSERT":
                target = reader.Take("insert", "into") ? reader.TakeQualifiedName() : null;
                break;
            case "COPY":
                reader.Skip();
                target = reader.TakeQualifiedName();
                reader.TakeParentheses();
                target = reader.Sees("from") ? target : null;
                break;
            case "DELETE":
                target = reader.Take("delete", "from") ? reader.TakeRelation()?.Name : null;
                break;
            case "TRUNCATE TABLE":
                reader.Skip();
                reader.Take("table");
                target = reader.TakeRelation()?.Name;
                target = reader.SeesMark(",") ? null : target;
                break;
            case "UPDATE":
                reader.Skip();
                target = reader.TakeRelation()?.Name;
                columns = SetColumns(reader);
                break;
            case "COMMENT":
                target = reader.Take("comment", "on", "table") ? reader.TakeQualifiedName()
                    : reader.Take("comment", "on", "column") ? reader.TakeColumnsTable()
                    : null;
                break;
        }

        return new OtherStatement(tag, EffectOf(statement, tag), target, columns);
    }

    private static StatementEffect EffectOf(SqlStatement statement, string tag) => tag switch
    {
        "INSERT" or "UPDATE" or "DELETE" or "MERGE" or "TRUNCATE TABLE" => StatementEffect.WritesRows,
        "COPY" => Enumerable.Range(0, statement.Tokens.Length).Any(i => statement.Is(i, "from")) ? StatementEffect.WritesRows : StatementEffect.Unknown,
        "SET" or "RESET" or "SHOW" or "DISCARD" or "ANALYZE" or "VACUUM" or "CHECKPOINT" or "LOCK TABLE" or "LISTEN" or "UNLISTEN" or "DEALLOCATE" or "SET CONSTRAINTS"
            => StatementEffect.Nothing,
        _ => StatementEffect.Unknown,
    };

    /// <summary>The columns after SET; empty where one of them cannot be told.</summary>
    private static List<string> SetColumns(SqlReader reader)
    {
        reader.SkipTo("set");
        if (!reader.Take("set"))
        {
            return [];
        }

        int start = reader.At;
        reader.SkipTo("from", "where", "returning");
        List<string> columns = [];
        foreach (SqlReader part in reader.Since(start).SplitAtCommas())
        {
            if (part.SeesMark("(") && part.TakeNameList() is { } list)
            {
                columns.AddRange(list);
            }
            else if (part.TakeName() is { } name)
            {
                columns.Add(name);
            }
            else
            {
                return [];
            }
        }

        return columns;
    }
}
