using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Execution;

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

    /// <summary>The error for a question that was not answered in time, with who holds the lock or queues for it.</summary>
    internal static Task<MigrationException> BusyAsync(NpgsqlConnection connection, string table, string doing, Exception e, CancellationToken cancellationToken) =>
        BusyAsync(connection, table, doing, e, null, ["AccessExclusiveLock"], cancellationToken);

    /// <summary>The error for a question about writing to tables, which asks for ROW EXCLUSIVE on them and their parts; <paramref name="waited"/> is null for the bound.</summary>
    internal static Task<MigrationException> BusyAsync(NpgsqlConnection connection, string table, string doing, Exception e, string[] written, CancellationToken cancellationToken, TimeSpan? waited = null) =>
        BusyAsync(connection, table, doing, e, written, ["ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"], cancellationToken, waited);

    private static async Task<MigrationException> BusyAsync(NpgsqlConnection connection, string table, string doing, Exception e, string[]? among, string[] modes, CancellationToken cancellationToken, TimeSpan? waited = null)
    {
        // One row a session, of all that it locks the table rather than an index or the toast of it.
        const string Query = """
            with recursive part as (
                select pg_catalog.to_regclass(n)::oid as oid from pg_catalog.unnest($1) n
                union
                select x.oid from part join lateral (
                    select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = part.oid
                    union all
                    select n.indexrelid from pg_catalog.pg_index n where n.indrelid = part.oid
                    union all
                    select t.reltoastrelid from pg_catalog.pg_class t where t.oid = part.oid and t.reltoastrelid <> 0
                ) x (oid) on true
            )
            select pid, usename, application_name, address, state, age, query, backend_type, backend_start, relation, granted, mode
            from (select distinct on (a.pid) a.pid, a.usename::text, a.application_name, pg_catalog.host(a.client_addr) as address, a.state,
                         pg_catalog.clock_timestamp() - a.xact_start as age, pg_catalog.left(a.query, 1000) as query, a.backend_type, a.backend_start,
                         l.relation::pg_catalog.regclass::text as relation, l.granted, l.mode
                  from pg_catalog.pg_locks l
                  join pg_catalog.pg_stat_activity a on a.pid = l.pid
                  left join pg_catalog.pg_class c on c.oid = l.relation
                  where l.locktype = 'relation' and l.mode = any ($2) and ($1 is null or l.relation in (select oid from part))
                    and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
                  order by a.pid, l.granted, c.relkind in ('r', 'p', 'm') desc nulls last, l.relation) q
            order by granted desc, age desc
            limit 10
            """;
        List<LockBlocker> blockers = [];
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = (object?)among ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text }, new() { Value = modes } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            blockers.Add(reader.Blocker() with { Mode = reader.GetString(11), Granted = reader.GetBoolean(10), Relation = reader.Text(9) });
        }

        string who = blockers.Count == 0 ? "Who held the lock could not be seen" : $"In the way: {string.Join("; ", blockers.Select(blocker => blocker.ToString()))}";
        return new MigrationException(
            "LockNotAvailable",
            MigrationErrorKind.Busy,
            $"{doing}: {table} could not be looked at within {Durations.Text(waited ?? s_bound)}. {who}.",
            blockers.Count == 0 ? "Run the command again; nothing was changed. Where it fails again, Get-BlockingLock shows who holds what." : "Let these sessions end their transactions (Get-BlockingLock shows them), then run the command again; nothing was changed.",
            e)
        {
            SqlState = SqlStates.LockNotAvailable,
            Target = table,
            Blockers = [.. blockers],
        };
    }
}
