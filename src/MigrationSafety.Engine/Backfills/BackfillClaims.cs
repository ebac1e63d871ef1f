using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A stretch of a table, as it is recorded.</summary>
/// <param name="Leaf">Its table.</param>
/// <param name="Lower">Where it begins: the key before its first row, or its first block; null for the first row of a key.</param>
/// <param name="Upper">Where it ends: its last key, or the block after its last one.</param>
/// <param name="Rows">Rows in it, estimated.</param>
internal sealed record BackfillRange(BackfillLeaf Leaf, string[]? Lower, string[] Upper, long Rows);

/// <summary>A range that a worker has taken.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Relation">Oid of its table.</param>
/// <param name="ByKey">Whether it is one of keys rather than of blocks.</param>
/// <param name="First">Whether it has no checkpoint yet and begins before the first key.</param>
/// <param name="Slices">In how many turns its blocks are done.</param>
/// <param name="Stretch">How many blocks are done so, one turn after the other, before the next ones.</param>
/// <param name="TurnsBy">By what its rows are parted into turns; null: by their places.</param>
internal sealed record RangeClaim(int Id, uint Relation, bool ByKey, bool First, int Slices, long Stretch, TurnColumn? TurnsBy);

/// <summary>Hands out recorded ranges to workers, and moves their checkpoints.</summary>
internal static class BackfillClaims
{
    /// <summary>
    /// Takes a range: the worker's own, else an untouched one, else one whose worker is gone (it holds no lock) or has not been heard of for a while. No more than a wish: a batch takes
    /// the range's row for itself, so that two workers on one range get in each other's way but never do a row twice.
    /// </summary>
    /// <returns>The range; null with the number of those that others work on.</returns>
    internal static async Task<(RangeClaim? Claim, long Unfinished, string State)> ClaimAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        Guid run,
        int number,
        TimeSpan silence,
        CancellationToken cancellationToken)
    {
        const string Sql = $"""
            with msb_free as materialized (
                -- By itself: as the inner side of a join it would be asked again for each range, and claim them all.
                select g.id from {BackfillStore.Ranges} g
                where g.backfill = $1 and not g.finished
                  and (g.run is null or (g.run = $2 and g.worker = $3) or g.heartbeat < pg_catalog.clock_timestamp() - $4::interval
                       or not exists (select from pg_catalog.pg_locks l
                                      where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.pid = g.pid and l.classid = $5 and l.objid = $6
                                        and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
                       -- A pooled connection that works for another run by now.
                       or exists (select from {BackfillStore.Workers} w where w.backfill = g.backfill and w.pid = g.pid and w.run <> g.run and w.started_at > g.heartbeat))
                order by g.run = $2 and g.worker = $3 desc nulls last, g.run is not null, g.id
                limit 1 for update skip locked
            ), msb_claim as (
                update {BackfillStore.Ranges} r
                set run = $2, worker = $3, pid = pg_catalog.pg_backend_pid(), heartbeat = pg_catalog.clock_timestamp()
                from msb_free c
                where r.backfill = $1 and r.id = c.id
                returning r.id, r.relation, r.key_columns is not null as by_key, r.position is null as first, r.slices, r.stretch, r.slice_column, r.slice_type, r.slice_bounds
            )
            select c.id, c.relation, c.by_key, c.first, c.slices, c.stretch, a.attname::text, c.slice_type, c.slice_bounds,
                   (select pg_catalog.count(*) from {BackfillStore.Ranges} where backfill = $1 and not finished), b.state
            from {BackfillStore.Table} b left join msb_claim c on b.state = 'running'
            left join pg_catalog.pg_attribute a on a.attrelid = c.relation and a.attname = c.slice_column and not a.attisdropped and pg_catalog.format_type(a.atttypid, -1) = c.slice_type
            where b.name = $1
            """;
        await using NpgsqlCommand command = BackfillStore.Command(connection, Sql, definition.Name);
        command.Parameters.Add(new() { Value = run });
        command.Parameters.Add(new() { Value = number });
        command.Parameters.Add(new() { Value = silence });
        command.Parameters.Add(new() { Value = (uint)TableOperationLock.ClassId, NpgsqlDbType = NpgsqlDbType.Oid });
        command.Parameters.Add(new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid });
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            throw BackfillStore.Missing(definition.Name);
        }

        // A column that is gone or another by now parts nothing: what that leaves out, a sweep finds.
        TurnColumn? turnsBy = reader.Text(6) is { } column ? new TurnColumn(column, reader.GetString(7), reader.GetString(8)) : null;
        RangeClaim? claim = await reader.IsDBNullAsync(0, cancellationToken).ConfigureAwait(false)
            ? null
            : new RangeClaim(reader.GetInt32(0), reader.GetFieldValue<uint>(1), reader.GetBoolean(2), reader.GetBoolean(3), reader.GetInt32(4), reader.GetInt64(5), turnsBy);
        return (claim, reader.GetInt64(9), reader.GetString(10));
    }

    /// <summary>Ends the ranges of a part that is none any more.</summary>
    internal static async Task EndPartAsync(NpgsqlConnection connection, string name, uint relation, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = BackfillStore.Command(connection, $"update {BackfillStore.Ranges} set finished = true, rows_seen = rows_estimated where backfill = $1 and relation = $2 and not finished", name);
        command.Parameters.Add(new() { Value = relation, NpgsqlDbType = NpgsqlDbType.Oid });
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Moves a checkpoint over a piece whose rows were done one by one; not where somebody else has moved it.</summary>
    internal static async Task AdvanceAsync(NpgsqlConnection connection, string name, int range, string[]? from, string[] to, bool atEnd, CancellationToken cancellationToken)
    {
        const string Sql = $"""
            update {BackfillStore.Ranges}
            set position = $4, finished = $5, heartbeat = pg_catalog.clock_timestamp(),
                rows_seen = case when key_columns is not null then rows_seen when $5 then rows_estimated
                                 else rows_estimated * (($4::text[])[1]::int8 - lower[1]::int8) / (slices * greatest(1, upper[1]::int8 - lower[1]::int8)) end
            where backfill = $1 and id = $2 and not finished and position is not distinct from $3
            """;
        await using NpgsqlCommand command = BackfillStore.Command(connection, Sql, name);
        command.Parameters.Add(new() { Value = range });
        command.Parameters.Add(new() { Value = (object?)from ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text });
        command.Parameters.Add(new() { Value = to });
        command.Parameters.Add(new() { Value = atEnd });
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }
}
