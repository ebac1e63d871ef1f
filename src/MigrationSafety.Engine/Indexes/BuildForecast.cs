using System.Globalization;
using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>What can be said of a build before it begins: about how large and how long, and whom it would wait for.</summary>
/// <param name="Rows">Rows at the last ANALYZE or VACUUM; null where there was none.</param>
/// <param name="SizeBytes">About how large; null where nothing tells.</param>
/// <param name="Duration">About how long it works; null where nothing tells.</param>
/// <param name="WaitsFor">Whom a build that began now would wait for.</param>
internal sealed record BuildForecast(double? Rows, long? SizeBytes, TimeSpan? Duration, IReadOnlyList<LockBlocker> WaitsFor)
{
    // Measured on one core of a small machine, 5 million rows: two scans, a sort, and what of a second is spent per row. A larger one is faster.
    private const double ScanBytesPerSecond = 400e6;
    private const double SecondsPerRow = 0.7e-6;

    // What a btree adds to a key: line pointer 4, header 8.
    private const double BytesPerEntry = 12;
    private const double UsualFill = 0.9;
    private const double UnknownKeyBytes = 16;

    private static readonly TimeSpan s_longIdle = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan s_longQuery = TimeSpan.FromMinutes(10);

    /// <summary>Looks at statistics and sessions; no lock is asked for.</summary>
    internal static async Task<BuildForecast> ReadAsync(NpgsqlConnection connection, IReadOnlyList<PartitionNode> nodes, IndexDefinition definition, CancellationToken cancellationToken)
    {
        TableReference[] leaves = [.. nodes.Where(node => node.IsLeaf).Select(node => node.Table)];
        uint[] oids = [.. nodes.Select(node => node.Table.Oid)];
        IReadOnlyList<LockBlocker> waitsFor = await WaitsForAsync(connection, oids, nodes[0].Table, cancellationToken).ConfigureAwait(false);
        if (leaves.Length == 0 || leaves.Any(leaf => leaf.EstimatedRows < 0))
        {
            return new BuildForecast(null, null, null, waitsFor);
        }

        double rows = leaves.Sum(leaf => leaf.EstimatedRows);
        double bytes = leaves.Sum(leaf => (double)leaf.SizeBytes);
        double width = await KeyBytesAsync(connection, leaves, definition, cancellationToken).ConfigureAwait(false);
        long? size = definition.Method == "btree" ? (long)(rows * (width + BytesPerEntry) / UsualFill) + (8192L * leaves.Length * 2) : null;
        TimeSpan duration = TimeSpan.FromSeconds((2 * bytes / ScanBytesPerSecond) + (rows * SecondsPerRow));
        return new BuildForecast(rows, size, duration, waitsFor);
    }

    /// <summary>In words, a sentence each.</summary>
    internal IReadOnlyList<string> Notes(IndexDefinition definition)
    {
        string partial = definition.Where is null ? "" : ", if all rows were in it";
        string size = SizeBytes is { } bytes ? $", about {Size(bytes)}{partial}" : "";
        List<string> notes =
        [
            Rows is { } rows
                ? string.Create(CultureInfo.CurrentCulture, $"Estimate: {rows:N0} rows{size}, about {Durations.Text(Duration!.Value)} of work, waiting aside.")
                : "Estimate: none; the table was never analysed (ANALYZE).",
        ];
        notes.AddRange(WaitsFor.Select(blocker => $"Would wait for {blocker}: {Likelihood(blocker)}."));
        return notes;
    }

    /// <summary>Those who hardly end by themselves, a sentence each.</summary>
    internal IEnumerable<string> Warnings() =>
        WaitsFor.Where(IsStuck).Select(blocker => $"The build will wait for {blocker}: {Likelihood(blocker)}. -WaitFor bounds the wait; Get-BlockingLock shows who is in the way.");

    private static bool IsStuck(LockBlocker blocker) => blocker.Pid == 0 || (blocker.State?.StartsWith("idle in", StringComparison.Ordinal) == true && blocker.TransactionAge > s_longIdle);

    private static string Likelihood(LockBlocker blocker) =>
        blocker.Pid == 0 ? "it ends with COMMIT PREPARED or ROLLBACK PREPARED alone"
        : IsStuck(blocker) ? "idle in its transaction, not likely to end soon"
        : blocker.PreventsWraparound ? "it does not yield, and ends when it is done"
        : blocker.IsAutovacuum ? "it yields to the build"
        : blocker.State == "active" && blocker.TransactionAge > s_longQuery ? "a long query, which may go on"
        : "likely to end soon";

    private static string Size(long bytes) => bytes switch
    {
        >= 1L << 30 => string.Create(CultureInfo.CurrentCulture, $"{bytes / (double)(1L << 30):0.0} GB"),
        >= 1L << 20 => string.Create(CultureInfo.CurrentCulture, $"{bytes / (double)(1L << 20):0} MB"),
        _ => string.Create(CultureInfo.CurrentCulture, $"{bytes / 1024.0:0} kB"),
    };

    private static async Task<double> KeyBytesAsync(NpgsqlConnection connection, TableReference[] leaves, IndexDefinition definition, CancellationToken cancellationToken)
    {
        // The widths of the largest partition stand for all. pg_statistic itself is closed to most roles; the view shows what the role may read.
        const string Query = """
            select s.attname::text, s.avg_width from pg_catalog.pg_stats s where s.schemaname = $1 and s.tablename = $2 and not s.inherited
            """;
        TableReference largest = leaves.MaxBy(leaf => leaf.EstimatedRows)!;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = largest.Schema }, new() { Value = largest.Name } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        Dictionary<string, int> widths = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            widths[reader.GetString(0)] = reader.GetInt32(1);
        }

        double sum = definition.ColumnNames.Sum(column => widths.TryGetValue(column, out int width) ? width : UnknownKeyBytes);
        return Math.Ceiling(sum / 8) * 8;
    }

    /// <summary>By the rules that were measured: whoever wrote to the table or locks it, whoever holds a snapshot in this database, and prepared transactions that wrote.</summary>
    private static async Task<IReadOnlyList<LockBlocker>> WaitsForAsync(NpgsqlConnection connection, uint[] tables, TableReference table, CancellationToken cancellationToken)
    {
        // A VACUUM that scans has a snapshot that nobody waits for; one on the table is waited for because of its lock.
        const string Query = """
            with writers as materialized (
                select distinct on (l.pid, l.virtualtransaction) l.pid, l.virtualtransaction, l.mode, l.relation
                from pg_catalog.pg_locks l
                where l.locktype = 'relation' and l.granted and l.relation = any ($1)
                  and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
                  and l.mode in ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                  and l.pid is distinct from pg_catalog.pg_backend_pid()
                order by l.pid, l.virtualtransaction, l.mode
            )
            select a.pid, a.usename::text, a.application_name, pg_catalog.host(a.client_addr), a.state, pg_catalog.clock_timestamp() - a.xact_start,
                   pg_catalog.left(a.query, 1000), coalesce(a.backend_type, case when a.usesysid is null then 'autovacuum worker' end), a.backend_start, w.mode, w.relation::pg_catalog.regclass::text
            from pg_catalog.pg_stat_activity a
            left join writers w on w.pid = a.pid
            where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid() and a.state is distinct from 'idle'
              and (w.pid is not null or (a.backend_xmin is not null and a.query !~* '^\s*vacuum' and a.backend_type is distinct from 'autovacuum worker'
                   and not exists (select from pg_catalog.pg_stat_progress_create_index p where p.pid = a.pid)))
            union all
            select null, p.owner::text, null, null, 'prepared', pg_catalog.clock_timestamp() - p.prepared, p.gid, null, null, w.mode, w.relation::pg_catalog.regclass::text
            from writers w
            join pg_catalog.pg_locks x on x.locktype = 'transactionid' and x.pid is null and x.virtualtransaction = w.virtualtransaction
            join pg_catalog.pg_prepared_xacts p on p.transaction = x.transactionid
            where w.pid is null
            order by 6 desc nulls last
            limit 50
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = tables, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<LockBlocker> blockers = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            blockers.Add(reader.Blocker() with { Mode = reader.Text(9), Granted = true, Relation = reader.Text(10) ?? (reader.Text(9) is null ? null : table.Display) });
        }

        return blockers;
    }
}
