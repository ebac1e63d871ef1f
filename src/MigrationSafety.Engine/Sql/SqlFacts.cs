namespace MigrationSafety.Engine.Sql;

/// <summary>What the words of one statement say about its locks; for DDL of tables and indexes.</summary>
/// <param name="LockMode">The strongest table lock that it takes on the tables it names; ACCESS EXCLUSIVE where the words do not tell.</param>
/// <param name="Transactional">Whether it may run inside a transaction block.</param>
/// <param name="BuildsIndex">Whether it builds an index.</param>
/// <param name="LocksForeignKeyParents">
/// Whether it drops a table, a column or a constraint, and so locks the parents of foreign keys as well (measured: ACCESS EXCLUSIVE).
/// </param>
internal sealed record SqlFacts(TableLockMode LockMode, bool Transactional, bool BuildsIndex, bool LocksForeignKeyParents)
{
    /// <summary>Whether it locks what it names and nothing below or beside that: no partitions, no table of an index.</summary>
    internal bool LocksNamedAlone { get; init; }

    /// <summary>Reads a statement; of a text with several, the first. Text without a statement takes no lock.</summary>
    internal static SqlFacts Of(string sql)
    {
        IReadOnlyList<SqlStatement> statements = SqlScript.Parse(sql, psql: false).Statements;
        return statements.Count == 0 ? new SqlFacts(TableLockMode.None, true, false, false) : Of(statements[0]);
    }

    private static SqlFacts Of(SqlStatement s)
    {
        bool concurrently = Enumerable.Range(0, s.Tokens.Length).Any(i => s.Is(i, "concurrently"));
        if (s.Is(0, "create") && (s.Is(1, "index") || s.Is(1, "unique", "index")))
        {
            bool only = Enumerable.Range(0, s.Tokens.Length).Any(i => s.Is(i, "on", "only"));
            return new SqlFacts(concurrently ? TableLockMode.ShareUpdateExclusive : TableLockMode.Share, !concurrently, true, false) { LocksNamedAlone = only };
        }

        if (s.Is(0, "alter", "index"))
        {
            // ATTACH PARTITION: ACCESS EXCLUSIVE on the attached index (measured), SHARE UPDATE EXCLUSIVE on the other.
            return new SqlFacts(TableLockMode.AccessExclusive, true, false, false) { LocksNamedAlone = true };
        }

        if (s.Is(0, "drop", "index"))
        {
            return new SqlFacts(concurrently ? TableLockMode.ShareUpdateExclusive : TableLockMode.AccessExclusive, !concurrently, false, false);
        }

        if (s.Is(0, "drop", "table") || s.Is(0, "drop", "schema"))
        {
            return new SqlFacts(TableLockMode.AccessExclusive, true, false, true);
        }

        if (s.Is(0, "alter", "table"))
        {
            return AlterTable(s);
        }

        if (s.Is(0, "comment", "on"))
        {
            return new SqlFacts(TableLockMode.ShareUpdateExclusive, true, false, false);
        }

        if (s.Is(0, "do"))
        {
            // A DO block reaches this as a reversal of ours alone: a backfill taken back in batches that it commits itself.
            return new SqlFacts(TableLockMode.RowExclusive, false, false, false);
        }

        return s.Is(0, "insert") || s.Is(0, "update") || s.Is(0, "delete") || s.Is(0, "merge")
            ? new SqlFacts(TableLockMode.RowExclusive, true, false, false)
            : new SqlFacts(TableLockMode.AccessExclusive, true, false, false);
    }

    private static SqlFacts AlterTable(SqlStatement s)
    {
        SqlReader reader = new(s);
        reader.Take("alter", "table");
        reader.Take("if", "exists");
        if (reader.TakeRelation() is null)
        {
            return new SqlFacts(TableLockMode.AccessExclusive, true, false, true);
        }

        bool drops = false;
        bool lightly = true;
        foreach (SqlReader action in reader.SplitAtCommas())
        {
            drops |= action.Sees("drop");
            lightly &= action.Sees("validate", "constraint") || action.Sees("cluster", "on");
        }

        return new SqlFacts(lightly ? TableLockMode.ShareUpdateExclusive : TableLockMode.AccessExclusive, true, false, drops);
    }
}
