using System.Text.RegularExpressions;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using Npgsql;

namespace MigrationSafety.Engine.Progress;

/// <summary>How long the phases of finished index builds took beside each other, from the log of this database (<c>migration_safety.operation</c>).</summary>
/// <param name="builds">What the log has.</param>
internal sealed class LearntPhases(IReadOnlyList<LearntPhases.Build> builds)
{
    // What another index was built in sooner was looked at too seldom to tell of this one.
    private const double LeastSeconds = 3;

    // A rebuild works on an index of another name, which takes the old one's in the end.
    private const string NewIndex = @"_ccnew\d*(""?)$";

    /// <summary>Seconds of one phase in all operations that built one index; its size is null where it is gone.</summary>
    internal sealed record Build(string Table, string? Index, IndexSize? Size, string Phase, double Seconds, long Operations);

    /// <summary>Nothing is known.</summary>
    internal static LearntPhases None { get; } = new([]);

    /// <summary>Seconds of work by phase, waiting left out, in the mean of the builds of this very index; null where the log has none.</summary>
    /// <param name="table">Table as schema.name.</param>
    /// <param name="index">Index as schema.name; null where it is not to be seen yet: that of a plain CREATE INDEX.</param>
    internal IReadOnlyDictionary<string, double>? Of(string? table, string? index) =>
        index is null ? null : Mean(builds.Where(build => build.Table == table && build.Index == Regex.Replace(index, NewIndex, "$1")));

    /// <summary>
    /// The same for other indexes, one by one: those of this table with a first key of the same kind, else any such. All that builds an index has the same phases: a plain
    /// CREATE INDEX learns from a concurrent one, which has more of them.
    /// </summary>
    /// <param name="table">Table as schema.name.</param>
    /// <param name="slowKey">Whether the index's first key is compared by the rules of a language.</param>
    internal IReadOnlyList<(IndexSize Size, IReadOnlyDictionary<string, double> Seconds)> Related(string? table, bool slowKey)
    {
        (string Table, IndexSize Size, Dictionary<string, double>? Seconds)[] alike =
        [
            .. builds.Where(build => build.Size?.SlowKey == slowKey)
                .GroupBy(build => (build.Table, build.Index, Size: build.Size!))
                .Select(build => (build.Key.Table, build.Key.Size, Seconds: Mean(build)))
                .Where(build => build.Seconds?.Values.Sum() >= LeastSeconds),
        ];
        bool here = alike.Any(build => build.Table == table);
        return [.. alike.Where(build => !here || build.Table == table).Select(build => (build.Size, build.Seconds!))];
    }

    /// <summary>Reads the log; nothing where there is none, or this role may not read it.</summary>
    internal static async Task<LearntPhases> ReadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        const string There = """
            select coalesce((select pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
                                    and exists (select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = 'phases')
                             from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                             where n.nspname = 'migration_safety' and c.relname = 'operation' and c.relkind = 'r'), false)
            """;
        const string Query = $"""
            select b.*, (select pg_catalog.count(*) > 0 from pg_catalog.pg_attribute k join pg_catalog.pg_collation l on l.oid = k.attcollation
                         where k.attrelid = i.oid and k.attnum = 1 and k.attlen = -1 and l.collname not in ('C', 'POSIX')
                        and not exists (select from pg_catalog.pg_index d join pg_catalog.pg_opclass p on p.oid = d.indclass[0] where d.indexrelid = k.attrelid and p.opcname like '%\_pattern\_ops') having i.oid is not null),
                   i.reltuples::float8, i.relpages::float8, c.reltuples::float8, c.relpages::float8
            from (
                select pg_catalog.format('%I.%I', o.table_schema, o.table_name), pg_catalog.regexp_replace(p.value->>'target', '{NewIndex}', '\1') as target, p.value->>'name',
                       pg_catalog.sum(greatest(0, (p.value->>'duration')::float8 - coalesce((p.value->>'wait_time')::float8, 0))), pg_catalog.count(distinct o.id)
                from (select id, table_schema, table_name, phases from {OperationStore.Table} where state = 'succeeded' and phases <> '[]' order by id desc limit 50) o
                cross join pg_catalog.jsonb_array_elements(o.phases) p
                where o.table_name is not null and p.value->>'command' like '% CONCURRENTLY' and p.value->>'name' not like 'waiting for %'
                group by 1, 2, 3
            ) b
            left join pg_catalog.pg_class i on i.oid = pg_catalog.to_regclass(b.target)
            left join pg_catalog.pg_index x on x.indexrelid = i.oid
            left join pg_catalog.pg_class c on c.oid = x.indrelid
            """;
        await using NpgsqlCommand there = new(There, connection);
        if (!(bool)(await there.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!)
        {
            return None;
        }

        List<Build> builds = [];
        try
        {
            // Whoever waits for a lock holds a snapshot, which an index build waits for in turn: who locks the log would stop the very build that is looked at.
            await using NpgsqlBatch batch = new(connection) { BatchCommands = { new("select pg_catalog.set_config('lock_timeout', '100ms', true)"), new(Query) } };
            await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                IndexSize? size = await reader.IsDBNullAsync(9, cancellationToken).ConfigureAwait(false)
                    ? null
                    : IndexSize.Of(reader.GetBoolean(5), reader.GetDouble(6), reader.GetDouble(7), reader.GetDouble(8), reader.GetDouble(9));
                builds.Add(new(reader.GetString(0), reader.Text(1), size, reader.GetString(2), reader.GetDouble(3), reader.GetInt64(4)));
            }
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.UndefinedTable or SqlStates.InsufficientPrivilege or SqlStates.LockNotAvailable)
        {
            // It went since it was looked for, or somebody has locked it: nothing is learnt then.
            return None;
        }

        return new(builds);
    }

    private static Dictionary<string, double>? Mean(IEnumerable<Build> builds)
    {
        Build[] all = [.. builds];
        // A short phase is seen in some of the builds alone.
        double operations = all.Select(build => build.Operations).DefaultIfEmpty().Max();
        Dictionary<string, double> phases = all.GroupBy(build => build.Phase, StringComparer.Ordinal).ToDictionary(phase => phase.Key, phase => phase.Sum(build => build.Seconds) / operations, StringComparer.Ordinal);
        return phases.Values.Sum() > 0 ? phases : null;
    }
}

/// <summary>What the time that an index takes depends on.</summary>
/// <param name="SlowKey">Whether its first key is compared by the rules of a language.</param>
/// <param name="TableBlocks">Blocks of the table.</param>
/// <param name="TableRows">Rows of the table.</param>
/// <param name="Rows">Rows of the index.</param>
/// <param name="Width">Bytes of an entry's keys.</param>
/// <param name="Blocks">Blocks of the index.</param>
internal sealed record IndexSize(bool SlowKey, double TableBlocks, double TableRows, double Rows, double Width, double Blocks)
{
    // Of a block as a build fills it: what is left for entries, and what an entry has besides its keys.
    private const double BytesOfBlock = 7400;
    private const double BytesOfEntry = 16;

    /// <summary>Of an index that is there, as the catalog has it; what was never counted is taken for the least.</summary>
    internal static IndexSize Of(bool slowKey, double rows, double blocks, double tableRows, double tableBlocks)
    {
        double counted = Math.Max(1, rows);
        // Equal keys share an entry.
        return new(slowKey, Math.Max(1, tableBlocks), Math.Max(1, tableRows), counted, Math.Max(8, (blocks * BytesOfBlock / counted) - BytesOfEntry), blocks);
    }

    /// <summary>Blocks of an index that is being built.</summary>
    internal static double BlocksOf(double rows, double width) => rows * (width + BytesOfEntry) / BytesOfBlock;
}
