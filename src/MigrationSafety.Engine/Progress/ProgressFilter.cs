using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Engine.Progress;

/// <summary>Which operations are asked for.</summary>
public sealed record ProgressFilter
{
    /// <summary>Table of the session's database, as in SQL, with or without schema, and its partitions; null for all tables of all databases.</summary>
    public string? Table { get; init; }

    /// <summary>Process id of the backend; null for all.</summary>
    public int? Pid { get; init; }

    /// <summary>Operations by name, such as <c>CREATE INDEX*</c>; case does not matter; empty for all.</summary>
    public IReadOnlyList<string> Operations { get; init; } = [];

    /// <summary>The operations that have a name here; of a view that is not known here others may come.</summary>
    public static IReadOnlyList<string> Known { get; } =
    [
        "CREATE INDEX", "CREATE INDEX CONCURRENTLY", "REINDEX", "REINDEX CONCURRENTLY", "VACUUM", "AUTOVACUUM", "VACUUM FULL", "CLUSTER", "ANALYZE", "AUTOANALYZE",
        // What it is of the two, a role may not be shown.
        "CREATE INDEX or REINDEX", "CLUSTER or VACUUM FULL",
        "COPY", "COPY FROM", "COPY TO", "BASE BACKUP", "BACKFILL", OwnModels.Stream, "LOGICAL REPLICATION COPY",
        "ALTER TABLE", "ALTER MATERIALIZED VIEW", "ALTER DOMAIN", "ALTER FOREIGN TABLE", "REFRESH MATERIALIZED VIEW", "REFRESH MATERIALIZED VIEW CONCURRENTLY",
        "DDL", "CREATE TABLE AS", "CREATE UNLOGGED TABLE AS", "CREATE TEMP TABLE AS", "CREATE TEMPORARY TABLE AS", "CREATE MATERIALIZED VIEW AS", "SELECT INTO", "DROP INDEX CONCURRENTLY",
        // While they wait for their lock.
        "TRUNCATE", "CREATE TABLE", "CREATE TRIGGER", "CREATE RULE", "CREATE POLICY", "CREATE STATISTICS", "DROP TABLE", "DROP INDEX", "DROP MATERIALIZED VIEW", "DROP FOREIGN TABLE", "DROP TRIGGER",
        "DROP RULE", "DROP POLICY", "DROP SCHEMA",
        .. OperationPlan.Operations.Select(OwnModels.NameOf).Where(name => name != "BACKFILL"),
    ];

    /// <summary>Databases whose operations another session shows.</summary>
    internal IReadOnlyCollection<string> ShownElsewhere { get; init; } = [];

    /// <summary>Whether another session shows what runs in databases without a session, and for the server as a whole.</summary>
    internal bool OwnDatabaseOnly { get; init; }

    /// <summary>Only what the server has a view for: all that a watcher of one statement needs, at a fraction of the cost.</summary>
    internal bool ViewsOnly { get; init; }

    /// <summary>
    /// Shares the operations among sessions: those with the same server see the same ones. Each shows those of its own database; what is in no session's database, the first of
    /// its server shows.
    /// </summary>
    /// <param name="sessions">Sessions.</param>
    /// <returns>The sessions that show something, in their order, each with its part of the filter.</returns>
    public IReadOnlyList<(EngineSession Session, ProgressFilter Filter)> Shared(IReadOnlyList<EngineSession> sessions) =>
    [
        .. sessions
            .GroupBy(session => session.ServerStartedAt)
            .SelectMany(server =>
            {
                EngineSession[] one = [.. server.DistinctBy(session => session.Info.Database)];
                return one.Select((session, i) => (session, this with
                {
                    ShownElsewhere = [.. one.Select(other => other.Info.Database).Where(database => database != session.Info.Database)],
                    OwnDatabaseOnly = i > 0,
                }));
            }),
    ];

    /// <summary>Whether a session with this filter shows what runs in a database.</summary>
    /// <param name="database">Database; null for the server as a whole.</param>
    /// <param name="own">The session's.</param>
    /// <returns>True where it does.</returns>
    internal bool Shows(string? database, string own) => database == own || (!OwnDatabaseOnly && (database is null || !ShownElsewhere.Contains(database)));

    /// <summary>Whether a name may be one of an operation.</summary>
    /// <param name="name">Name, or a pattern.</param>
    /// <returns>False where it is neither.</returns>
    public static bool IsKnown(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return name.IndexOfAny(['*', '?']) >= 0 || Known.Contains(name, StringComparer.OrdinalIgnoreCase);
    }

    /// <summary>Whether an operation of this name is asked for.</summary>
    /// <param name="operation">Operation.</param>
    /// <returns>True where it is.</returns>
    internal bool Wants(string operation) =>
        Operations.Count == 0 || Operations.Any(pattern => System.IO.Enumeration.FileSystemName.MatchesSimpleExpression(pattern, operation, ignoreCase: true));
}
