using System.Text.RegularExpressions;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>An index that is not valid, as the catalogs have it (<c>pg_index</c>, <c>pg_class</c>, <c>pg_stat_all_indexes</c>).</summary>
internal sealed partial record InvalidIndexEntry
{
    internal required uint Oid { get; init; }

    internal required string Schema { get; init; }

    internal required string Name { get; init; }

    internal required uint TableOid { get; init; }

    internal required string TableSchema { get; init; }

    internal required string Table { get; init; }

    /// <summary>The table whose toast table it belongs to, as schema.name; null where it is no toast index.</summary>
    internal string? ToastOf { get; init; }

    internal bool Partitioned { get; init; }

    /// <summary>The partitioned index that it is attached to, as schema.name.</summary>
    internal string? AttachedTo { get; init; }

    internal bool Unique { get; init; }

    internal bool Ready { get; init; }

    internal bool Live { get; init; }

    internal required string Definition { get; init; }

    internal long SizeBytes { get; init; }

    /// <summary>Scans since the statistics were reset: an index that was scanned was valid once.</summary>
    internal long Scans { get; init; }

    /// <summary>Other indexes of the same table and definition, valid ones first; without those that look like leftovers themselves.</summary>
    internal string[] Twins { get; init; } = [];

    /// <summary>How many of <see cref="Twins"/> are valid: the first ones.</summary>
    internal int ValidTwins { get; init; }

    /// <summary>Schema and name, for people and for SQL.</summary>
    internal string Display => $"{SqlName.QuoteIfNeeded(Schema)}.{SqlName.QuoteIfNeeded(Name)}";

    internal string TableDisplay => $"{SqlName.QuoteIfNeeded(TableSchema)}.{SqlName.QuoteIfNeeded(Table)}";

    /// <summary>
    /// The index beside which a rebuild left this one: its name says so, and there is another of the same definition. The name alone proves nothing, anybody may
    /// choose it.
    /// </summary>
    internal string? Original
    {
        get
        {
            Match suffix = RebuildSuffix().Match(Name);
            // The server cuts long names before it appends the suffix: the twin may be longer than what is left of its name.
            return suffix.Success ? Twins.FirstOrDefault(twin => twin.StartsWith(Name[..suffix.Index], StringComparison.Ordinal)) ?? Twins.FirstOrDefault() : null;
        }
    }

    /// <summary>Whether the index beside which a rebuild left this one is valid.</summary>
    internal bool OriginalServes => Original is { } original && Twins.Take(ValidTwins).Contains(original);

    /// <summary>
    /// Whether queries may have used it once, and miss it: one that took part in writes may have been valid, for a drop that was interrupted early leaves the same as a
    /// late build. Not where a rebuild left it beside an index that serves in its place.
    /// </summary>
    internal bool MayHaveServed => !OriginalServes && (Ready || !Live || Scans > 0 || LeftByRebuild == InvalidIndexReason.RebuildOriginal);

    /// <summary>Whether a rebuild left it, and which of the two: the copy that was to take over, or the index that it replaced.</summary>
    internal InvalidIndexReason? LeftByRebuild => Original is null ? null
        : RebuildSuffix().Match(Name).Groups[1].Value == "ccnew" ? InvalidIndexReason.RebuildCopy
        : InvalidIndexReason.RebuildOriginal;

    /// <summary>Reads one.</summary>
    /// <returns>The index; null where it is valid or has gone.</returns>
    internal static async Task<InvalidIndexEntry?> ReadOneAsync(NpgsqlConnection connection, uint index, CancellationToken cancellationToken) =>
        (await ReadAsync(connection, table: null, schema: null, cancellationToken, index).ConfigureAwait(false)).SingleOrDefault();

    /// <summary>Reads all that are not valid, or those of one table or schema.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="table">Table; null for all. Its toast table and its partitions are included.</param>
    /// <param name="schema">Schema, as in the catalog; null for all. The toast tables of its tables are included.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <param name="index">This one alone; null for all.</param>
    internal static async Task<IReadOnlyList<InvalidIndexEntry>> ReadAsync(NpgsqlConnection connection, uint? table, string? schema, CancellationToken cancellationToken, uint? index = null)
    {
        // Reading a size takes ACCESS SHARE on the index: where somebody holds or awaits ACCESS EXCLUSIVE, its pages at the last look are good enough.
        const string Query = """
            with unusable as (
                select i.*, c.relname, c.relkind, c.relpages, c.relispartition, c.relnamespace, t.relname as tablename, t.relnamespace as tablenamespace,
                       pg_catalog.pg_get_indexdef(c.oid) as definition,
                       (select o.oid from pg_catalog.pg_class o where t.relkind = 't' and o.reltoastrelid = t.oid) as owner
                from pg_catalog.pg_index i
                join pg_catalog.pg_class c on c.oid = i.indexrelid
                join pg_catalog.pg_class t on t.oid = i.indrelid
                where not (i.indisvalid and i.indisready and i.indislive) and ($3::oid is null or i.indexrelid = $3)
            )
            select u.indexrelid, n.nspname::text, u.relname::text, u.indrelid, m.nspname::text, u.tablename::text,
                   case when u.owner is not null then (select pg_catalog.format('%I.%I', s.nspname, o.relname) from pg_catalog.pg_class o join pg_catalog.pg_namespace s on s.oid = o.relnamespace where o.oid = u.owner) end,
                   u.relkind = 'I', case when u.relispartition then
                       (select pg_catalog.format('%I.%I', s.nspname, o.relname) from pg_catalog.pg_inherits h join pg_catalog.pg_class o on o.oid = h.inhparent join pg_catalog.pg_namespace s on s.oid = o.relnamespace where h.inhrelid = u.indexrelid) end,
                   u.indisunique, u.indisready, u.indislive, u.definition,
                   case when u.relkind = 'I' then (select coalesce(sum(pg_catalog.pg_relation_size(p.relid)), 0)::int8 from pg_catalog.pg_partition_tree(u.indexrelid) p where p.isleaf and p.relid <> u.indexrelid)
                        when exists (select from pg_catalog.pg_locks l where l.relation = u.indexrelid and l.mode = 'AccessExclusiveLock') then u.relpages::int8 * pg_catalog.current_setting('block_size')::int8
                        else coalesce(pg_catalog.pg_relation_size(u.indexrelid), 0) end,
                   coalesce(pg_catalog.pg_stat_get_numscans(u.indexrelid), 0),
                   array(select w.relname::text from pg_catalog.pg_index x join pg_catalog.pg_class w on w.oid = x.indexrelid
                         where x.indrelid = u.indrelid and x.indexrelid <> u.indexrelid and (x.indisvalid or w.relname !~ '_(ccnew|ccold)[0-9]*$')
                           and pg_catalog.replace(pg_catalog.pg_get_indexdef(w.oid), pg_catalog.format(' INDEX %I ON ', w.relname), ' INDEX ON ')
                             = pg_catalog.replace(u.definition, pg_catalog.format(' INDEX %I ON ', u.relname), ' INDEX ON ')
                         order by x.indisvalid desc, w.relname),
                   (select pg_catalog.count(*)::int4 from pg_catalog.pg_index x join pg_catalog.pg_class w on w.oid = x.indexrelid
                    where x.indrelid = u.indrelid and x.indexrelid <> u.indexrelid and x.indisvalid
                      and pg_catalog.replace(pg_catalog.pg_get_indexdef(w.oid), pg_catalog.format(' INDEX %I ON ', w.relname), ' INDEX ON ')
                        = pg_catalog.replace(u.definition, pg_catalog.format(' INDEX %I ON ', u.relname), ' INDEX ON '))
            from unusable u
            join pg_catalog.pg_namespace n on n.oid = u.relnamespace
            join pg_catalog.pg_namespace m on m.oid = u.tablenamespace
            where ($1::oid is null or $1 in (u.indrelid, u.owner) or u.indrelid in (select p.relid from pg_catalog.pg_partition_tree($1) p))
              and ($2::name is null or $2 in (m.nspname, (select s.nspname from pg_catalog.pg_class o join pg_catalog.pg_namespace s on s.oid = o.relnamespace where o.oid = u.owner)))
            order by m.nspname, u.tablename, u.relname
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = (object?)table ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = (object?)schema ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Name },
                new() { Value = (object?)index ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Oid },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<InvalidIndexEntry> entries = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            if (reader.Text(12) is not { } definition)
            {
                // Dropped since the snapshot.
                continue;
            }

            entries.Add(new InvalidIndexEntry
            {
                Oid = reader.GetFieldValue<uint>(0),
                Schema = reader.GetString(1),
                Name = reader.GetString(2),
                TableOid = reader.GetFieldValue<uint>(3),
                TableSchema = reader.GetString(4),
                Table = reader.GetString(5),
                ToastOf = reader.Text(6),
                Partitioned = reader.GetBoolean(7),
                AttachedTo = reader.Text(8),
                Unique = reader.GetBoolean(9),
                Ready = reader.GetBoolean(10),
                Live = reader.GetBoolean(11),
                Definition = definition,
                SizeBytes = reader.GetInt64(13),
                Scans = reader.GetInt64(14),
                Twins = reader.GetFieldValue<string[]>(15),
                ValidTwins = reader.GetInt32(16),
            });
        }

        return entries;
    }

    [GeneratedRegex("_(ccnew|ccold)[0-9]*$", RegexOptions.CultureInvariant)]
    private static partial Regex RebuildSuffix();
}
