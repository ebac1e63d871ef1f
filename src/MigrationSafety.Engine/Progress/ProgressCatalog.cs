using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Progress;

/// <summary>What the server at hand has to tell progress from, and what this role may see of it.</summary>
/// <param name="Views">Ends of the names of its views pg_stat_progress_*.</param>
/// <param name="Table">Oid of the table asked for.</param>
/// <param name="Own">Oids of migration_safety.backfill and migration_safety.operation, as far as they are there.</param>
/// <param name="MayReadBackfills">Whether this role may read the former; null where it is not there.</param>
/// <param name="MayReadLog">Whether this role may read the latter; null where it is not there, or was made by an older version.</param>
/// <param name="MaySeeFiles">Whether this role may ask for the size of a file: how a rewrite grows before it is committed is to be seen there alone.</param>
/// <param name="SegmentSize">Bytes of a full file of a table.</param>
/// <param name="BlockSize">Bytes of a block.</param>
internal sealed record ProgressCatalog(string[] Views, uint? Table, uint[] Own, bool? MayReadBackfills, bool? MayReadLog, bool MaySeeFiles, long SegmentSize, int BlockSize)
{
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>TableKindNotSupported</c>, <c>InvalidName</c>.</exception>
    internal static async Task<ProgressCatalog> ReadAsync(NpgsqlConnection connection, string? table, CancellationToken cancellationToken)
    {
        const string Query = """
            select array(select pg_catalog.substr(relname, 18) from pg_catalog.pg_class
                         where relnamespace = 'pg_catalog'::pg_catalog.regnamespace and relkind = 'v' and relname like 'pg\_stat\_progress\_%'
                           and exists (select from pg_catalog.pg_attribute where attrelid = pg_class.oid and attname = 'pid' and not attisdropped) order by 1),
                   pg_catalog.array_remove(array[b.oid, o.oid], null), b.readable, o.readable,
                   pg_catalog.has_function_privilege('pg_catalog.pg_stat_file(text, boolean)', 'execute'),
                   pg_catalog.current_setting('block_size')::int4,
                   (select setting::int8 from pg_catalog.pg_settings where name = 'segment_size')
            from (select) as one
            left join (select c.oid, pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
                              and (select pg_catalog.count(*) = 2 and pg_catalog.bool_and(pg_catalog.has_table_privilege(o.oid, 'select')) from pg_catalog.pg_class o
                                   where o.relnamespace = n.oid and o.relname in ('backfill_range', 'backfill_worker')) as readable
                       from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                       where n.nspname = 'migration_safety' and c.relname = 'backfill' and c.relkind = 'r') b on true
            left join (select c.oid, case when exists (select from pg_catalog.pg_attribute where attrelid = c.oid and attname = 'phase')
                                          then pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select') end as readable
                       from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                       where n.nspname = 'migration_safety' and c.relname = 'operation' and c.relkind = 'r') o on true
            """;
        TableReference? found = table is null ? null : (await TableReference.FindAnyAsync(connection, table, null, cancellationToken).ConfigureAwait(false)).AsTable();
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        int blockSize = reader.GetInt32(5);
        return new ProgressCatalog(
            reader.GetFieldValue<string[]>(0),
            found?.Oid,
            reader.GetFieldValue<uint[]>(1),
            reader.IsDBNull(2) ? null : reader.GetBoolean(2),
            reader.IsDBNull(3) ? null : reader.GetBoolean(3),
            reader.GetBoolean(4),
            // pg_settings gives it in blocks.
            reader.GetInt64(6) * blockSize,
            blockSize);
    }
}
