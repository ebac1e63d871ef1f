using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// The column by whose values the rows of each block are parted into turns: the first one of an index in whose order they do not lie. The rows that leave their block in one turn then go
/// into one part of that index, which stays in memory and is the only one to grow; at random they would go to every page of it.
/// </summary>
/// <param name="Name">Name, as in the catalog.</param>
/// <param name="Type">Type, as a cast writes it.</param>
/// <param name="Bounds">Where turn after turn begins, as a text that casts to an array of the type; null until it is looked up.</param>
internal sealed record TurnColumn(string Name, string Type, string? Bounds)
{
    private const double SampledBlocks = 200;
    // Of each part of a table with many.
    private const double LeastBlocks = 20;
    private const int RowsOfTurn = 20;
    // The share of a block's rows that falls into one turn, beside that of turns at random: what rows leave in one turn makes room for the next only where the turns are about equal.
    private const double MostUneven = 1.25;

    /// <summary>Whether it is a row's turn, or was it in an earlier one; NULL belongs to the first. What was done does not match any more, and one comparison is quick.</summary>
    /// <param name="qualifier">What the table is called.</param>
    /// <param name="turn">Number of the turn, from 0, as an expression; the last has no bound.</param>
    /// <param name="from">Where that is read from.</param>
    internal string IsTurn(string qualifier, string turn, string from) => $"({qualifier}.{SqlName.Quote(Name)} operator(pg_catalog.<) (select ({SqlName.Literal(Bounds!)}::{Type}[])[{turn} + 1] from {from})) is not false";

    /// <summary>Looks up where the turns begin. Reads only.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="leaf">Table.</param>
    /// <param name="share">Its share of all that is to be done.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>Null where values that are alike lie together, so that a block would be done in one turn, and where too few rows were found to tell.</returns>
    internal async Task<TurnColumn?> FindBoundsAsync(NpgsqlConnection connection, BackfillLeaf leaf, double share, IOperationSink sink, CancellationToken cancellationToken)
    {
        string query = $"""
            with msb_sample as materialized (
                select (s.ctid::text::point)[0] as block, pg_catalog.hashtid(s.ctid) & {leaf.Slices - 1} as at_random, s.{SqlName.Quote(Name)} as value
                from only {leaf.Table.Sql} as s tablesample system ($1) where s.{SqlName.Quote(Name)} is not null
            ), msb_bounds as materialized (
                select pg_catalog.percentile_disc($2) within group (order by value) as bounds from msb_sample
            )
            select b.bounds::text,
                   (select pg_catalog.sum(t.most) from (select pg_catalog.max(n.rows) as most from (select s.block, pg_catalog.count(*) as rows from msb_sample s group by s.block, pg_catalog.width_bucket(s.value, b.bounds)) as n group by n.block) as t),
                   (select pg_catalog.sum(t.most) from (select pg_catalog.max(n.rows) as most from (select s.block, pg_catalog.count(*) as rows from msb_sample s group by s.block, s.at_random) as n group by n.block) as t),
                   (select pg_catalog.count(*) from msb_sample)
            from msb_bounds b
            """;
        sink.Debug(query);
        await using NpgsqlCommand command = new(query, connection)
        {
            Parameters =
            {
                new() { Value = (float)Math.Min(100, 100 * Math.Max(LeastBlocks, SampledBlocks * share) / Math.Max(1, leaf.Blocks)) },
                new() { Value = Enumerable.Range(1, leaf.Slices - 1).Select(turn => (double)turn / leaf.Slices).ToArray() },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        bool fits = await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            && reader.GetInt64(3) >= (long)RowsOfTurn * leaf.Slices && reader.GetDecimal(1) <= (decimal)MostUneven * reader.GetDecimal(2);
        sink.Verbose($"The rows of each block of {leaf.Table.Display} are parted into {leaf.Slices} turns {(fits ? $"by ranges of {SqlName.QuoteIfNeeded(Name)}" : $"at random: values of {SqlName.QuoteIfNeeded(Name)} that are alike lie together, or there are few")}.");
        return fits ? this with { Bounds = reader.GetString(0) } : null;
    }
}

/// <summary>The indexes of a table in whose order its rows do not lie, so that a row that moves means a page anywhere in them.</summary>
/// <param name="Blocks">Their size in blocks, as the catalog has it.</param>
/// <param name="Column">The first column of the largest of them by which turns can go; null where there is none.</param>
internal sealed record ScatteredIndexes(long Blocks, TurnColumn? Column)
{
    /// <summary>Looks them up by table, as far as the role may see the statistics, and the server's shared_buffers in blocks.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="tables">Oids of tables.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<(long Buffers, IReadOnlyDictionary<uint, ScatteredIndexes> Indexes)> ReadAsync(NpgsqlConnection connection, uint[] tables, CancellationToken cancellationToken)
    {
        // The column's own order is that of the index: by a B-tree of the type's default operators, those of PostgreSQL itself, which are found whatever the search_path. The bounds are an array, of which arrays and domains have none of their own.
        // With -1 a type without its length has a name that casts cut nothing: character would be one character.
        const string Query = """
            select pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')) / pg_catalog.current_setting('block_size')::int8, t.*
            from (select) as one
            left join (
                select x.indrelid, pg_catalog.sum(greatest(i.relpages, 0))::int8,
                       (pg_catalog.array_agg(array[a.attname::text, pg_catalog.format_type(a.atttypid, -1)] order by i.relpages desc, x.indexrelid) filter (where o.usable))[1:1]
                from pg_catalog.pg_index x
                join pg_catalog.pg_class i on i.oid = x.indexrelid
                join pg_catalog.pg_class c on c.oid = x.indrelid
                join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                left join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
                left join pg_catalog.pg_stats s on s.schemaname = n.nspname and s.tablename = c.relname and s.attname = a.attname and not s.inherited
                cross join lateral (
                    select coalesce(a.attnum > 0 and x.indpred is null and y.typtype <> 'd' and y.typarray <> 0 and pg_catalog.has_column_privilege(x.indrelid, a.attnum, 'SELECT') and p.opcdefault and p.opcnamespace = 'pg_catalog'::regnamespace and m.amname = 'btree', false) as usable
                    from (select) as one
                    left join pg_catalog.pg_type y on y.oid = a.atttypid
                    left join pg_catalog.pg_opclass p on p.oid = x.indclass[0]
                    left join pg_catalog.pg_am m on m.oid = i.relam
                ) as o
                where x.indrelid = any ($1) and coalesce(pg_catalog.abs(s.correlation), 0) < 0.5
                group by x.indrelid
            ) as t on true
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = tables, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        (long buffers, Dictionary<uint, ScatteredIndexes> found) = (0, []);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            buffers = reader.GetInt64(0);
            if (!await reader.IsDBNullAsync(1, cancellationToken).ConfigureAwait(false))
            {
                string[,]? column = await reader.IsDBNullAsync(3, cancellationToken).ConfigureAwait(false) ? null : reader.GetFieldValue<string[,]>(3);
                found[reader.GetFieldValue<uint>(1)] = new ScatteredIndexes(reader.GetInt64(2), column is { Length: > 0 } ? new TurnColumn(column[0, 0], column[0, 1], null) : null);
            }
        }

        return (buffers, found);
    }
}
