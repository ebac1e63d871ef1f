using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Locks;

/// <summary>Who waits for whom, in one snapshot and one round trip.</summary>
public static class BlockingLockReader
{
    /// <summary>Reads the snapshot: roots first, each with those who wait for it under it.</summary>
    /// <param name="session">Session; its whole server is looked at, names are resolved in its database.</param>
    /// <param name="filter">What part of the tree; an empty filter for all.</param>
    /// <param name="sink">Where a missing privilege is said.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The tree, row by row; empty where nobody waits.</returns>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>InvalidName</c>, or what the server refused.</exception>
    public static async Task<IReadOnlyList<BlockingLock>> ReadAsync(EngineSession session, BlockingLockFilter filter, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("locks", sink, cancellationToken).ConfigureAwait(false);
            uint? table = filter.Table is null ? null : (await TableReference.FindAnyAsync(connection, filter.Table, null, cancellationToken).ConfigureAwait(false)).Oid;
            return await ReadAsync(connection, session.Info, table, filter, sink, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is NpgsqlException)
        {
            throw ServerErrors.Translate(e, "Reading the locks", session.Info.ToString());
        }
    }

    /// <summary>The same on a connection of the caller.</summary>
    internal static async Task<IReadOnlyList<BlockingLock>> ReadAsync(
        NpgsqlConnection connection, MigrationSession server, uint? table, BlockingLockFilter filter, IOperationSink sink, CancellationToken cancellationToken)
    {
        sink.Debug(LockTable.Query);
        IReadOnlyList<LockProcess> processes = await LockTable.ReadAsync(connection, table, filter.QueryLength, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<BlockingLock> rows = BlockingTree.Order(new LockGraph(processes), filter, server);
        HashSet<int> hidden = [.. processes.Where(process => process.Hidden).Select(process => process.Row.Pid)];
        if (rows.Any(row => hidden.Contains(row.Pid)))
        {
            sink.Warning(
                $"Role {server.User} may not see the queries, users and ages of other roles' sessions; these are empty. To see them: GRANT pg_read_all_stats TO {Sql.SqlName.QuoteIfNeeded(server.User)};");
        }

        return rows;
    }
}
