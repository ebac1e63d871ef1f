namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>What a statement says.</summary>
/// <param name="Tag">The command in PostgreSQL's words, such as <c>ALTER TABLE</c> (manual, "Event Trigger Firing Matrix").</param>
internal abstract record ParsedStatement(string Tag)
{
    /// <summary>The things that it makes, changes or reads first of all; of a trigger, rule or policy its table. Empty where there are none, or where it names none.</summary>
    internal virtual IReadOnlyList<QualifiedName> Targets => [];

    /// <summary>The database that a name of three parts gives; null where none does.</summary>
    internal string? OfDatabase { get; init; }
}

/// <summary>A statement that is not understood, or not in this form: kept as text.</summary>
/// <param name="Tag">The command, as far as its first words tell.</param>
internal sealed record OtherStatement(string Tag) : ParsedStatement(Tag);

/// <summary>Parses one statement.</summary>
internal static class StatementParser
{
    /// <summary>What a statement says; what no family understands whole comes as <see cref="OtherStatement"/>.</summary>
    internal static ParsedStatement Parse(SqlStatement statement)
    {
        if (!statement.IsBroken)
        {
            SqlReader reader = new(statement);
            if (Read(reader) is { } parsed && !reader.Failed && reader.AtEnd)
            {
                return reader.Database is null ? parsed : parsed with { OfDatabase = reader.Database };
            }
        }

        return new OtherStatement(CommandTag.Of(statement));
    }

    /// <summary>Parses a statement wherever it stands. Where the reader has failed afterwards, what is returned means nothing.</summary>
    internal static ParsedStatement? Read(SqlReader r)
    {
        switch (r.Word())
        {
            case "create":
                return CreateStatements.Read(r);
            case "alter":
                r.Skip();
                return AlterStatements.Read(r);
            case "drop":
                r.Skip();
                return DropObjects.Read(r);
            case "select" or "values" or "with" or "insert" or "update" or "delete" or "merge" or "table":
                return DataStatements.Read(r);
            case "grant" or "revoke":
                return GrantStatements.Read(r);
            case "comment":
                return CommentOn.Read(r);
            case "security":
                return SecurityLabel.Read(r);
            case "set" or "reset":
                return SetVariable.Read(r);
            case "prepare" when !r.Sees("prepare", "transaction"):
                return PrepareStatement.Read(r);
            case "begin" or "start" or "commit" or "end" or "rollback" or "abort" or "savepoint" or "release" or "prepare":
                return TransactionStatement.Read(r);
            case "copy":
                return Copy.Read(r);
            case "truncate":
                return Truncate.Read(r);
            case "lock":
                return LockTables.Read(r);
            case "reindex":
                return Reindex.Read(r);
            case "cluster":
                return Cluster.Read(r);
            case "vacuum" or "analyze" or "analyse":
                return Vacuum.Read(r);
            case "refresh":
                return RefreshMaterializedView.Read(r);
            case "reassign":
                return ReassignOwned.Read(r);
            case "import":
                return ImportForeignSchema.Read(r);
            case "do":
                return DoBlock.Read(r);
            case "call":
                return CallProcedure.Read(r);
            case "explain":
                return Explain.Read(r);
            case "deallocate" or "close" or "discard" or "declare" or "checkpoint" or "execute" or "listen" or "unlisten" or "notify" or "load" or "show" or "fetch" or "move":
                return SessionStatement.Read(r);
            default:
                return r.SeesMark("(") ? DataStatements.Read(r) : null;
        }
    }
}
