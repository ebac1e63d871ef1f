using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Sql;

/// <summary>What the words of one statement say about how it runs.</summary>
/// <param name="LockMode">The strongest lock that it takes on a table or view; ACCESS EXCLUSIVE where the words do not tell.</param>
/// <param name="Transactional">Whether it may run inside a transaction block.</param>
/// <param name="BuildsIndex">Whether it builds an index.</param>
/// <param name="LocksForeignKeyParents">
/// Whether it drops or changes a table, a column or a constraint, and so may lock the parents of foreign keys as well (measured: ACCESS EXCLUSIVE).
/// </param>
/// <param name="Locks">The locks on what it names.</param>
internal sealed record SqlFacts(TableLockMode LockMode, bool Transactional, bool BuildsIndex, bool LocksForeignKeyParents, IReadOnlyList<StatedLock> Locks)
{
    /// <summary>Whether it locks what it names and nothing below or beside that: no partitions, no table of an index.</summary>
    internal bool LocksNamedAlone { get; init; }

    /// <summary>Reads a statement; of a text with several, the first. Text without a statement takes no lock.</summary>
    internal static SqlFacts Of(string sql)
    {
        IReadOnlyList<SqlStatement> statements = SqlScript.Parse(sql, psql: false).Statements;
        return statements.Count == 0 ? new SqlFacts(TableLockMode.None, true, false, false, []) : Of(StatementParser.Parse(statements[0]));
    }

    /// <summary>The facts of a parsed statement.</summary>
    internal static SqlFacts Of(ParsedStatement parsed)
    {
        IReadOnlyList<StatedLock> locks = StatementLocks.Of(parsed);
        TableLockMode named = locks.Count == 0 ? TableLockMode.None : locks.Max(l => l.Mode);
        TableLockMode unnamed = Unnamed(parsed);
        return new SqlFacts(named > unnamed ? named : unnamed, IsTransactional(parsed), BuildsAnIndex(parsed), LocksParents(parsed), locks)
        {
            LocksNamedAlone = parsed is CreateIndex { Only: true } or AlterTable { Kind: ObjectKind.Index } or RenameObject { Object.Kind: ObjectKind.Index },
        };
    }

    /// <summary>The strongest lock on tables that it does not name; ACCESS EXCLUSIVE where that cannot be told.</summary>
    private static TableLockMode Unnamed(ParsedStatement parsed) => parsed switch
    {
        OtherStatement or CallProcedure or DropOwned => TableLockMode.AccessExclusive,

        // What hangs on it goes too, or is changed: columns, views, all of a schema.
        DropObjects { Cascade: true } or DropObjects { Kind: ObjectKind.Extension } => TableLockMode.AccessExclusive,
        AlterTable { Kind: ObjectKind.Type } or UpdateExtension or CreateExtension => TableLockMode.AccessExclusive,

        // An index's own lock is stated; REINDEX lets its table be read.
        Reindex { What: "index", Concurrently: false } => TableLockMode.AccessExclusive,
        Reindex { Concurrently: true } => TableLockMode.ShareUpdateExclusive,
        Reindex => TableLockMode.Share,
        AlterDomain { Action: DomainAction.AddConstraint or DomainAction.SetNotNull or DomainAction.ValidateConstraint } => TableLockMode.Share,
        DropObjects { Kind: ObjectKind.Statistics } or AlterStatistics => TableLockMode.ShareUpdateExclusive,

        // A DO block reaches this as a reversal of ours alone: a backfill taken back in batches that it commits itself.
        DoBlock => TableLockMode.RowExclusive,
        Cluster { Table: null } or Vacuum { Tables: [], Full: true } => TableLockMode.AccessExclusive,
        Vacuum { Tables: [] } => TableLockMode.ShareUpdateExclusive,
        Query query => LocksRows(query) ? TableLockMode.RowShare : TableLockMode.AccessShare,
        CreateTableAs or CreateView or DataStatement or Copy => TableLockMode.AccessShare,
        Explain { Statement: var explained } => Unnamed(explained),
        _ => TableLockMode.None,
    };

    private static bool LocksRows(Query query)
    {
        SqlReader r = query.Text.Read();
        while (!r.AtEnd)
        {
            if (r.Take("for") && (r.Sees("update") || r.Sees("share") || r.Sees("no", "key") || r.Sees("key", "share")))
            {
                return true;
            }

            r.Skip();
        }

        return false;
    }

    private static bool IsTransactional(ParsedStatement parsed) => parsed is not (
        CreateIndex { Concurrently: true }
        or DropObjects { Concurrently: true }
        or DropObjects { Kind: ObjectKind.Database or ObjectKind.Tablespace or ObjectKind.Subscription }
        or Reindex { Concurrently: true }
        or Reindex { What: "schema" or "database" or "system" }
        or Vacuum { Command: "VACUUM" }
        or Cluster { Table: null }
        or CreateDatabase or CreateTablespace or AlterSystem or CreateSubscription or DoBlock
        or SessionStatement { Command: "DISCARD ALL" }
        or TransactionStatement { Command: "COMMIT PREPARED" or "ROLLBACK PREPARED" })
        && !(parsed is AlterTable table && table.Actions.Any(a => a is DetachPartition { Concurrently: true }))
        && !(parsed is AlterDatabase database && database.Options.Any(o => o.Name == "tablespace"));

    private static bool BuildsAnIndex(ParsedStatement parsed) => parsed is CreateIndex or Reindex
        || (parsed is AlterTable alter && alter.Actions.Any(a => a is AddConstraint { Constraint: ExcludeConstraint or UniqueConstraint { UsingIndex: null } }));

    private static bool LocksParents(ParsedStatement parsed) => parsed switch
    {
        DropObjects { Kind: ObjectKind.Table or ObjectKind.Schema } or DropObjects { Cascade: true } or DropOwned or OtherStatement { Tag: "ALTER TABLE" or "DROP TABLE" } => true,
        AlterTable alter => alter.Actions.Any(a => a is DropColumn or DropConstraint or AlterColumnType),
        _ => false,
    };
}
