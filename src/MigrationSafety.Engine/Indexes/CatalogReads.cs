using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Questions to the catalog that ask for ACCESS SHARE on a table or an index, and would wait behind somebody's ACCESS EXCLUSIVE for as long as that is held.</summary>
internal static class CatalogReads
{
    /// <summary>Long enough for an ALTER that is instant, short enough for whoever waits for an answer. Nobody queues behind ACCESS SHARE but ACCESS EXCLUSIVE.</summary>
    private static readonly TimeSpan s_bound = TimeSpan.FromSeconds(5);

    internal static async Task BoundAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.set_config('lock_timeout', $1::text, false)", connection) { Parameters = { new() { Value = (int)s_bound.TotalMilliseconds } } };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Asks under the bound.</summary>
    /// <exception cref="MigrationException"><c>LockNotAvailable</c>: not answered in time.</exception>
    internal static async Task<T> BoundedAsync<T>(NpgsqlConnection connection, string table, string doing, Func<Task<T>> ask, CancellationToken cancellationToken)
    {
        await BoundAsync(connection, cancellationToken).ConfigureAwait(false);
        try
        {
            return await ask().ConfigureAwait(false);
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.LockNotAvailable)
        {
            throw await BusyAsync(connection, table, doing, e, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The error for a question that was not answered in time, with who holds the lock.</summary>
    internal static async Task<MigrationException> BusyAsync(NpgsqlConnection connection, string table, string doing, PostgresException e, CancellationToken cancellationToken)
    {
        const string Query = """
            select a.pid, a.usename::text, a.application_name, pg_catalog.host(a.client_addr), a.state,
                   pg_catalog.clock_timestamp() - a.xact_start, pg_catalog.left(a.query, 1000), a.backend_type, a.backend_start, l.relation::pg_catalog.regclass::text
            from pg_catalog.pg_locks l
            join pg_catalog.pg_stat_activity a on a.pid = l.pid
            where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock' and l.granted
              and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
            order by a.xact_start
            limit 10
            """;
        List<LockBlocker> blockers = [];
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            blockers.Add(reader.Blocker() with { Mode = "AccessExclusiveLock", Granted = true, Relation = reader.Text(9) });
        }

        string who = blockers.Count == 0 ? "a session that is gone by now" : string.Join("; ", blockers.Select(blocker => blocker.ToString()));
        return new MigrationException(
            "LockNotAvailable",
            MigrationErrorKind.Busy,
            $"{doing}: {table} could not be looked at within {Durations.Text(s_bound)}. In the way: {who}.",
            "Let these sessions end their transactions (Get-BlockingLock shows them), then run the command again; nothing was changed.",
            e)
        {
            SqlState = e.SqlState,
            Target = table,
            Blockers = [.. blockers],
        };
    }
}
