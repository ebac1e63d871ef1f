using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A column of a key.</summary>
/// <param name="Name">Name, as in the catalog.</param>
/// <param name="Type">Type, as a cast writes it.</param>
internal sealed record KeyColumn(string Name, string Type);

/// <summary>A table that holds rows: the table itself, a partition, a child that inherits from it.</summary>
/// <param name="Table">It.</param>
/// <param name="Blocks">Its size in blocks, without toast.</param>
/// <param name="AccessMethod">Its access method, such as <c>heap</c>.</param>
/// <param name="Index">The unique index along which batches can go, quoted for people; null where there is none.</param>
/// <param name="Key">Columns of that index; none where there is none.</param>
/// <param name="ChangesUniqueKey">Whether a unique index holds a column that is set: then the update locks its rows as a delete does.</param>
/// <param name="ChangesIndex">Whether any index looks at a column that is set: then no new version of a row can stay in its block.</param>
/// <param name="ByKey">Whether the batches go along the key rather than by blocks.</param>
internal sealed record BackfillLeaf(TableReference Table, long Blocks, string AccessMethod, string? Index, IReadOnlyList<KeyColumn> Key, bool ChangesUniqueKey, bool ChangesIndex, bool ByKey)
{
    /// <summary>The most of <see cref="Stretch"/>: 128 MB.</summary>
    internal const long MostStretch = 16384;

    /// <summary>The share of a block's rows that have to match for turns to be worth looking at it several times.</summary>
    internal const double LeastShareInTurns = 0.25;

    /// <summary>
    /// In how many turns a block's rows are done; a power of two. The versions that one turn leaves dead make room for the next: so most new versions stay in their block, as
    /// heap-only tuples, no index is written for them, and the table grows by a fraction. All at once, each would go to another block and into every index, whose
    /// pages PostgreSQL then cleans again and again: that took three times as long with two indexes.
    /// </summary>
    internal int Slices { get; init; } = 1;

    /// <summary>By what a block's rows are parted into <see cref="Slices"/>; null: at random, by their places.</summary>
    internal TurnColumn? TurnsBy { get; init; }

    /// <summary>Whether a change or deletion of a row fires triggers, those of foreign keys among them: they run when the statement has returned its rows, or at the end of the transaction.</summary>
    internal bool HasTriggers { get; init; }

    /// <summary>How many blocks are done so, one turn after the other, before the next ones: as many as stay in memory from turn to turn.</summary>
    internal long Stretch { get; init; } = MostStretch;

    internal bool IsHeap => AccessMethod == "heap";

    internal string[] KeyNames => [.. Key.Select(column => column.Name)];

    internal string KeyText => string.Join(", ", Key.Select(column => SqlName.QuoteIfNeeded(column.Name)));

    /// <summary>Whether an index still leads along its key; also where it is no part any more, which others notice.</summary>
    internal async Task<bool> HasItsKeyAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken) =>
        (await ReadAsync(connection, definition.Table.Oid, definition.ChangedColumns, cancellationToken).ConfigureAwait(false)).FirstOrDefault(leaf => leaf.Table.Oid == Table.Oid)?.KeyNames.SequenceEqual(KeyNames) != false;

    /// <summary>What a part of a table is called by now; null where it is none any more: dropped, or detached.</summary>
    internal static async Task<(string Schema, string Name)?> FindPartAsync(NpgsqlConnection connection, uint root, uint part, CancellationToken cancellationToken)
    {
        const string Query = """
            with recursive up as (
                select $2::oid as oid
                union
                select i.inhparent from up join pg_catalog.pg_inherits i on i.inhrelid = up.oid where not i.inhdetachpending
            )
            select n.nspname::text, c.relname::text
            from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where c.oid = $2 and exists (select from up where up.oid = $1)
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            CommandTimeout = 20,
            Parameters = { new() { Value = root, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = part, NpgsqlDbType = NpgsqlDbType.Oid } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false) ? (reader.GetString(0), reader.GetString(1)) : null;
    }

    /// <summary>Finds the table and all that inherits from it, as far as they hold rows. Reads only.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="root">Oid of the table.</param>
    /// <param name="targets">Names of the columns that are set.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>TableKindNotSupported</c>: a foreign or temporary table is among them.</exception>
    internal static async Task<IReadOnlyList<BackfillLeaf>> ReadAsync(NpgsqlConnection connection, uint root, string[] targets, CancellationToken cancellationToken)
    {
        // Of the unique indexes those serve whose order is that of the columns' own comparison (default operator class, the column's collation, one direction), which
        // hold every row once (no predicate, no expression, NOT NULL), and which the update leaves alone. Not deferrable ones before others, the primary key first.
        const string Query = $"""
            with recursive tree as (
                select $1::oid as oid
                union
                select i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid where not i.inhdetachpending
            )
            select c.oid, n.nspname::text, c.relname::text, c.relkind, c.relpersistence, c.reltuples::float8, pg_catalog.pg_table_size(c.oid),
                   case when c.relkind = 'r' then pg_catalog.pg_relation_size(c.oid) else 0 end / pg_catalog.current_setting('block_size')::int8,
                   coalesce(m.amname::text, 'heap'), k.name, k.columns, k.types,
                   exists (select from pg_catalog.pg_index x join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = any (x.indkey::int2[])
                           where x.indrelid = c.oid and x.indisunique and a.attname = any ($2)),
                   exists (select from pg_catalog.pg_index x join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attname = any ($2)
                           where x.indrelid = c.oid
                             and (a.attnum = any (x.indkey::int2[])
                                  or exists (select from pg_catalog.pg_depend d
                                             where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = x.indexrelid and d.refclassid = 'pg_catalog.pg_class'::regclass
                                               and d.refobjid = c.oid and d.refobjsubid = a.attnum))),
                   -- Of updates (16) or deletions (8).
                   exists (select from pg_catalog.pg_trigger g where g.tgrelid = c.oid and g.tgenabled <> 'D' and g.tgtype & 24 <> 0)
            from tree
            join pg_catalog.pg_class c on c.oid = tree.oid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            left join pg_catalog.pg_am m on m.oid = c.relam
            left join lateral (
                select ic.relname::text as name, u.columns, u.types
                from pg_catalog.pg_index x
                join pg_catalog.pg_class ic on ic.oid = x.indexrelid
                join pg_catalog.pg_am im on im.oid = ic.relam and im.amname = 'btree'
                cross join lateral (
                    select pg_catalog.array_agg(a.attname::text order by i) as columns, pg_catalog.array_agg(pg_catalog.format_type(a.atttypid, a.atttypmod) order by i) as types,
                           pg_catalog.bool_and({BackfillDefinition.NotNull} and o.opcdefault and (x.indcollation::oid[])[i] = a.attcollation and a.attname <> all ($2)
                                               and (x.indoption::int2[])[i] & 1 = (x.indoption::int2[])[0] & 1) as fits,
                           pg_catalog.count(*) as found
                    from pg_catalog.generate_series(0, x.indnkeyatts - 1) as i
                    join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = (x.indkey::int2[])[i]
                    join pg_catalog.pg_opclass o on o.oid = (x.indclass::oid[])[i]
                ) u
                where x.indrelid = c.oid and x.indisunique and x.indisvalid and x.indisready and x.indislive and x.indpred is null and x.indexprs is null
                  and u.found = x.indnkeyatts and u.fits
                order by x.indisprimary desc, x.indimmediate desc, x.indnkeyatts, x.indexrelid
                limit 1
            ) k on c.relkind = 'r'
            where c.relkind <> 'p'
            order by c.oid <> $1, n.nspname, c.relname
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = root, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = targets } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<BackfillLeaf> leaves = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            TableReference table = new(
                reader.GetFieldValue<uint>(0),
                reader.GetString(1),
                reader.GetString(2),
                reader.GetChar(3),
                reader.GetChar(4),
                reader.GetDouble(5),
                reader.Long(6) ?? 0);
            if (table.Kind != 'r' || table.Persistence == 't')
            {
                throw new MigrationException(
                    "TableKindNotSupported",
                    MigrationErrorKind.NotSupported,
                    $"{table.Display}, a part of the table, is {(table.Persistence == 't' ? "temporary" : "a foreign table")}: no checkpoint could commit together with its rows.",
                    "Backfill the other parts one by one, and this one where it lives.")
                {
                    Target = table.Display,
                };
            }

            string? index = reader.Text(9);
            string[] names = index is null ? [] : reader.GetFieldValue<string[]>(10);
            string[] types = index is null ? [] : reader.GetFieldValue<string[]>(11);
            leaves.Add(new BackfillLeaf(
                table,
                reader.GetInt64(7),
                reader.GetString(8),
                index is null ? null : SqlName.QuoteIfNeeded(index),
                [.. names.Zip(types, (name, type) => new KeyColumn(name, type))],
                reader.GetBoolean(12),
                reader.GetBoolean(13),
                ByKey: false)
            {
                HasTriggers = reader.GetBoolean(14),
            });
        }

        return leaves;
    }
}
