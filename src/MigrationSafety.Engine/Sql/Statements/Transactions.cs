namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>BEGIN, COMMIT, ROLLBACK, SAVEPOINT and the like; the script's reading of them is <see cref="SqlStatement.Control"/>.</summary>
/// <param name="Command">The command's tag.</param>
/// <param name="Name">Savepoint, or the identifier of a prepared transaction, as SQL.</param>
internal sealed record TransactionStatement(string Command, string? Name) : ParsedStatement(Command)
{
    internal static TransactionStatement Read(SqlReader r)
    {
        string word = r.OneOf("begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare");
        switch (word)
        {
            case "begin":
                Noise(r);
                Modes(r);
                return new TransactionStatement("BEGIN", null);
            case "start":
                r.Expect("transaction");
                Modes(r);
                return new TransactionStatement("START TRANSACTION", null);
            case "prepare":
                r.Expect("transaction");
                return new TransactionStatement("PREPARE TRANSACTION", r.Literal());
            case "savepoint":
                return new TransactionStatement("SAVEPOINT", r.Name());
            case "release":
                return new TransactionStatement("RELEASE", Savepoint(r));
            case "commit" or "rollback" when r.Take("prepared"):
                return new TransactionStatement(word == "commit" ? "COMMIT PREPARED" : "ROLLBACK PREPARED", r.Literal());
        }

        Noise(r);
        bool commits = word is "commit" or "end";
        if (word == "rollback" && r.Take("to"))
        {
            return new TransactionStatement("ROLLBACK", Savepoint(r));
        }

        if (r.Take("and"))
        {
            r.Take("no");
            r.Expect("chain");
        }

        return new TransactionStatement(commits ? "COMMIT" : "ROLLBACK", null);
    }

    /// <summary>[SAVEPOINT] name; the name may be "savepoint".</summary>
    private static string Savepoint(SqlReader r)
    {
        string name = r.Name();
        return name == "savepoint" && !r.AtEnd ? r.Name() : name;
    }

    private static void Noise(SqlReader r) => r.TakeOneOf("work", "transaction");

    private static void Modes(SqlReader r)
    {
        while (!r.AtEnd)
        {
            if (r.Take("isolation", "level"))
            {
                _ = r.Take("read", "committed") || r.Take("read", "uncommitted") || r.Take("repeatable", "read") || r.OneOf("serializable").Length > 0;
            }
            else if (!r.Take("read", "only") && !r.Take("read", "write") && !r.Take("not", "deferrable"))
            {
                r.Expect("deferrable");
            }

            r.TakeMark(",");
        }
    }
}
