using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>
/// How much of a B-tree holds nothing: its pages beside those that its rows need by the widths and numbers of distinct values that ANALYZE found (<c>pg_stats</c>).
/// An estimate: no page of the index is read.
/// </summary>
internal static class IndexBloat
{
    // Of the server's page and tuple layout (bufpage.h, itup.h, nbtree.h): 64-bit builds.
    private const double PageOverhead = 24 + 16;
    private const double TupleHeader = 8;
    private const double ItemPointer = 4;
    private const double Alignment = 8;
    private const double HeapPointer = 6;

    /// <summary>Estimates one index.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="index">Oid.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>Percent, 0 to 100; null where the statistics tell nothing or it is no B-tree.</returns>
    internal static async Task<double?> EstimateAsync(NpgsqlConnection connection, uint index, CancellationToken cancellationToken)
    {
        // A column without statistics is as wide as its type, where that is fixed (those of toast tables are). Expressions have statistics under the index's name.
        // Equal keys share a tuple where each column's operator class allows it (support function 4) and the index neither is unique nor has INCLUDE columns.
        const string Query = """
            select pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8, pg_catalog.current_setting('block_size')::float8,
                   case when i.indpred is null and t.reltuples >= 0 then least(c.reltuples, t.reltuples) else c.reltuples end::float8,
                   coalesce((select option_value::float8 from pg_catalog.pg_options_to_table(c.reloptions) where option_name = 'fillfactor'), 90),
                   k.width::float8, k.nulls::float8, k.distinct_values::float8,
                   not i.indisunique and i.indnatts = i.indnkeyatts and k.alike
                       and coalesce((select option_value::bool from pg_catalog.pg_options_to_table(c.reloptions) where option_name = 'deduplicate_items'), true)
            from pg_catalog.pg_index i
            join pg_catalog.pg_class c on c.oid = i.indexrelid
            join pg_catalog.pg_class t on t.oid = i.indrelid
            join pg_catalog.pg_am m on m.oid = c.relam and m.amname = 'btree'
            join lateral (
                select case when pg_catalog.count(*) = pg_catalog.count(w.width) then pg_catalog.sum(w.width) end as width, pg_catalog.max(w.nulls) as nulls,
                       case when pg_catalog.count(*) = pg_catalog.count(w.n_distinct) then
                            pg_catalog.exp(pg_catalog.sum(pg_catalog.ln(greatest(case when w.n_distinct < 0 then -w.n_distinct * greatest(t.reltuples, 1) else w.n_distinct end, 1)::float8))) end as distinct_values,
                       pg_catalog.bool_and(w.alike) as alike
                from (
                    select coalesce(s.avg_width * (1 - s.null_frac), case when a.attlen > 0 then a.attlen end) as width, coalesce(s.null_frac, 0) as nulls, s.n_distinct,
                           a.attnum > i.indnkeyatts or exists (
                               select from pg_catalog.pg_opclass o
                               join pg_catalog.pg_amproc p on p.amprocfamily = o.opcfamily and p.amprocnum = 4 and p.amproclefttype = o.opcintype
                               where o.oid = i.indclass[a.attnum - 1]) as alike
                    from pg_catalog.pg_attribute a
                    left join pg_catalog.pg_attribute h on h.attrelid = i.indrelid and h.attnum = i.indkey[a.attnum - 1] and h.attnum > 0
                    left join pg_catalog.pg_stats s on s.schemaname = case when h.attnum is null then (select nspname from pg_catalog.pg_namespace where oid = c.relnamespace)
                                                                           else (select nspname from pg_catalog.pg_namespace where oid = t.relnamespace) end
                        and s.tablename = case when h.attnum is null then c.relname else t.relname end and s.attname = coalesce(h.attname, a.attname) and not s.inherited
                    where a.attrelid = c.oid and a.attnum > 0
                ) w
            ) k on true
            where i.indexrelid = $1
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = index, NpgsqlDbType = NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false) || await reader.IsDBNullAsync(4, cancellationToken).ConfigureAwait(false) || reader.GetDouble(2) < 0)
        {
            return null;
        }

        double distinct = await reader.IsDBNullAsync(6, cancellationToken).ConfigureAwait(false) ? reader.GetDouble(2) : reader.GetDouble(6);
        double needed = Pages(reader.GetDouble(1), reader.GetDouble(2), reader.GetDouble(3), reader.GetDouble(4), reader.GetDouble(5), reader.GetBoolean(7) ? distinct : reader.GetDouble(2));
        long pages = reader.GetInt64(0);
        return pages == 0 ? 0 : Math.Round(Math.Clamp(100 * (1 - (needed / pages)), 0, 100), 1);
    }

    /// <summary>The pages that a B-tree has after it was built.</summary>
    private static double Pages(double blockSize, double rows, double fillFactor, double width, double nulls, double distinct)
    {
        double key = TupleHeader + (nulls > 0 ? Alignment : 0) + (Math.Ceiling(width / Alignment) * Alignment);
        double tuple = key + ItemPointer;
        // A tuple that stands for many rows takes a sixth of a page at most.
        double shared = Math.Clamp(rows / Math.Max(distinct, 1), 1, Math.Max(1, ((blockSize / 6) - key) / HeapPointer));
        double perRow = shared < 2 ? tuple : HeapPointer + (tuple / shared);
        double usable = (blockSize - PageOverhead) * fillFactor / 100;
        // The last tuple that begins on a page does not end there, half of it is lost; and each page repeats the first key of the next.
        double leaves = Math.Ceiling(rows * perRow / (usable - tuple - (perRow / 2)));
        double fanOut = Math.Max(2, (blockSize - PageOverhead) * 0.7 / tuple);
        return 1 + leaves + Math.Ceiling(leaves / (fanOut - 1));
    }
}
