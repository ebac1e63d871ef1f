using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>A session that is at work on an index right now.</summary>
/// <param name="Index">Oid of the index.</param>
/// <param name="Session">The session.</param>
/// <param name="Command">What it does, as <c>pg_stat_progress_create_index</c> names it; null for a DROP, which has no view, and where this role may not see it.</param>
/// <param name="Certain">False where this role is not shown on which index it works: it builds on the table of this one.</param>
internal sealed record IndexActivity(uint Index, LockBlocker Session, string? Command, bool Certain)
{
    /// <summary>What it does, as a participle.</summary>
    internal string Doing => (Command, Certain) switch
    {
        (_, false) => "probably being built",
        ("CREATE INDEX" or "CREATE INDEX CONCURRENTLY", _) => "being built",
        ("REINDEX" or "REINDEX CONCURRENTLY", _) => "part of a rebuild",
        _ when Session.Query?.TrimStart().StartsWith("drop", StringComparison.OrdinalIgnoreCase) == true => "being dropped",
        _ => "being worked on",
    };

    /// <summary>Finds who is at work on indexes.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="indexes">Oids.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>At most one for each index; none for a leftover.</returns>
    internal static async Task<IReadOnlyDictionary<uint, IndexActivity>> ReadAsync(NpgsqlConnection connection, IReadOnlyCollection<uint> indexes, CancellationToken cancellationToken)
    {
        // REINDEX and DROP INDEX CONCURRENTLY hold their lock on the index to the end, CREATE INDEX CONCURRENTLY one on the table alone. The view hides oids from
        // roles without pg_read_all_stats; pg_locks hides nothing.
        const string Query = """
            select distinct on (i.indexrelid) i.indexrelid, a.pid, a.usename::text, a.application_name, pg_catalog.host(a.client_addr), a.state,
                   pg_catalog.clock_timestamp() - a.query_start, pg_catalog.left(a.query, 1000), a.backend_type, a.backend_start, w.command, w.certainty < 3
            from pg_catalog.pg_index i
            join lateral (
                select p.pid, p.command, 1 as certainty from pg_catalog.pg_stat_progress_create_index p
                where p.datname = pg_catalog.current_database() and p.index_relid = i.indexrelid
                union all
                select l.pid, p.command, 2 from pg_catalog.pg_locks l
                left join pg_catalog.pg_stat_progress_create_index p on p.pid = l.pid
                where l.locktype = 'relation' and l.relation = i.indexrelid and l.granted and l.mode in ('ShareUpdateExclusiveLock', 'AccessExclusiveLock')
                union all
                select p.pid, p.command, 3 from pg_catalog.pg_stat_progress_create_index p
                join pg_catalog.pg_locks l on l.pid = p.pid and l.database = p.datid and l.locktype = 'relation' and l.relation = i.indrelid and l.granted and l.mode = 'ShareUpdateExclusiveLock'
                where p.datname = pg_catalog.current_database() and p.index_relid is null
            ) w on true
            join pg_catalog.pg_stat_activity a on a.pid = w.pid
            where i.indexrelid = any ($1) and w.pid <> pg_catalog.pg_backend_pid()
              and (w.certainty <> 2 or exists (select from pg_catalog.pg_database d where d.oid = a.datid and d.datname = pg_catalog.current_database()))
            order by i.indexrelid, w.certainty, w.command nulls last
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = indexes.ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        Dictionary<uint, IndexActivity> activities = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            uint index = reader.GetFieldValue<uint>(0);
            activities.Add(index, new IndexActivity(index, reader.Blocker(first: 1), reader.Text(10), reader.GetBoolean(11)));
        }

        return activities;
    }
}
