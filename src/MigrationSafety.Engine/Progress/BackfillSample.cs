using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Progress;

/// <summary>An unfinished backfill of the session's database (<c>migration_safety.backfill</c>), and who works on it.</summary>
internal static class BackfillSample
{
    /// <summary>Reads the unfinished ones; none where the table went away a moment ago.</summary>
    internal static async Task<IReadOnlyList<MigrationProgress>> ReadAsync(
        NpgsqlConnection connection,
        MigrationSession session,
        int? pid,
        uint? table,
        CancellationToken cancellationToken)
    {
        // Whoever works on one holds the table's advisory lock, which every role may see; a pid alone may be somebody else's by now.
        const string Query = """
            select coalesce(w.pid, 0), pg_catalog.format('%I.%I', b.table_schema, b.table_name),
                   case when w.pid is null then 'interrupted' when b.sweep > 1 then 'running, sweep ' || b.sweep else 'running' end,
                   b.rows_seen, b.rows_in_table, case when w.pid is null then b.updated_at else pg_catalog.clock_timestamp() end - b.started_at,
                   a.query, coalesce(a.usename::text, b.role), coalesce(a.application_name, b.application),
                   case when w.pid is null then '{}'::int4[] else pg_catalog.pg_blocking_pids(w.pid) end
            from migration_safety.backfill b
            left join pg_catalog.pg_locks w on w.locktype = 'advisory' and w.granted and w.objsubid = 2 and w.pid = b.pid
                and w.classid = $3 and w.objid = b.table_oid
                and w.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
            left join pg_catalog.pg_stat_activity a on a.pid = w.pid and a.usename is not null
            where b.state <> 'completed' and ($1::int4 is null or w.pid = $1) and ($2::oid is null or b.table_oid = $2)
            order by b.started_at
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = (object?)pid ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Integer },
                new() { Value = (object?)table ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = (uint)TableOperationLock.ClassId, NpgsqlDbType = NpgsqlDbType.Oid },
            },
        };
        List<MigrationProgress> found = [];
        try
        {
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                long seen = reader.GetInt64(3);
                long total = reader.GetInt64(4);
                int[] blockers = [.. reader.GetFieldValue<int[]>(9).Distinct()];
                found.Add(new MigrationProgress
                {
                    Pid = reader.GetInt32(0),
                    Operation = "BACKFILL",
                    Target = reader.GetString(1),
                    Phase = reader.GetString(2),
                    Done = seen,
                    Total = total > 0 ? total : null,
                    Unit = "rows",
                    // The total is an estimate of the server's.
                    PhasePercent = total > 0 ? Math.Min(100, 100.0 * seen / total) : null,
                    Elapsed = reader.Duration(5),
                    Query = reader.Text(6),
                    User = reader.Text(7),
                    Application = reader.Text(8),
                    WaitingFor = blockers.Length > 0 ? $"lock of {string.Join(", ", blockers.Select(blocker => $"pid {blocker}"))}" : null,
                    BlockedBy = blockers,
                    Server = session.Server,
                    Database = session.Database,
                });
            }
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.UndefinedTable or "3F000")
        {
            // It was dropped since it was looked for: there are none then.
            return [];
        }

        return found;
    }
}
