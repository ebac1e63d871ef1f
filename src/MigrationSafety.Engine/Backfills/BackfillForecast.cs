using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What a backfill is going to cost: assumed from the catalog, or measured by batches that are rolled back.</summary>
/// <param name="RowsPerSecond">Rows that one worker does in a second.</param>
/// <param name="WalBytesPerRow">WAL of a row, with the images of pages that the next checkpoints bring.</param>
/// <param name="Batches">Batches that were measured; 0 where all is assumed.</param>
/// <param name="Rows">Rows of those batches.</param>
internal sealed record BackfillForecast(double RowsPerSecond, double WalBytesPerRow, int Batches, long Rows)
{
    private const double AssumedRate = 50_000;
    private const double PageBytes = 8192;
    // Of the table, and of a small one, in all batches: each leaves versions of its rows behind, for which the table grows until a vacuum has been there.
    private const double MostTried = 0.02;
    private const double MostTriedBlocks = 16;
    // A WAL record of a row besides the row itself, and one of an index entry.
    private const double RecordBytes = 100;
    private const double EntryBytes = 80;

    /// <summary>From what the catalog says of row width and indexes. Reads only, and waits for no lock.</summary>
    internal static async Task<BackfillForecast> AssumeAsync(NpgsqlConnection connection, BackfillDefinition definition, long rowsInTable, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.count(*), coalesce(pg_catalog.sum(greatest(c.relpages, 0)), 0)::int8
            from pg_catalog.pg_index x join pg_catalog.pg_class c on c.oid = x.indexrelid
            where x.indrelid = any ($1)
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = definition.Into is { } into ? [into.Table.Oid] : definition.Leaves.Select(leaf => leaf.Table.Oid).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        double indexes = (double)reader.GetInt64(0) / Math.Max(1, definition.Into is null ? definition.Leaves.Count : 1);
        double rows = Math.Max(1, rowsInTable);
        double width = definition.Blocks * PageBytes / rows;
        // A page is written whole after each checkpoint: the old and the new page of a row, and those of the indexes.
        double images = ((2 * definition.Blocks) + reader.GetInt64(1)) * PageBytes / rows;
        if (definition.Kind == BackfillKind.Insert)
        {
            // The lock of the row, and the image of its page, besides the copy.
            return new BackfillForecast(AssumedRate, (2 * RecordBytes) + (2 * width) + (indexes * EntryBytes), 0, 0);
        }

        return new BackfillForecast(AssumedRate, definition.Kind == BackfillKind.Delete ? RecordBytes + (images / 2) : RecordBytes + width + (indexes * EntryBytes) + images, 0, 0);
    }

    /// <summary>Runs batches all over the table and rolls each back.</summary>
    /// <returns>Null where no batch could be measured.</returns>
    /// <exception cref="MigrationException">What the server says to the change.</exception>
    internal static async Task<BackfillForecast?> MeasureAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        BackfillRequest request,
        long rowsInTable,
        IOperationSink sink,
        CancellationToken cancellationToken)
    {
        BackfillLeaf[] heaps = [.. definition.Leaves.Where(leaf => leaf is { IsHeap: true, Blocks: > 0 })];
        long blocks = heaps.Sum(leaf => leaf.Blocks);
        if (blocks == 0)
        {
            return null;
        }

        double rowsOfBlock = Math.Max(1, (double)rowsInTable / Math.Max(1, definition.Blocks));
        BatchSize size = new(request.BatchSize, request.TargetBatchTime, sink);
        (int batches, long rows, double milliseconds, double wal) = (0, 0, 0, 0);
        double most = Math.Max(MostTriedBlocks, MostTried * blocks);
        int wanted = (int)Math.Min(request.SampleBatch, most);
        for (int i = 0; i < wanted; i++)
        {
            long at = (long)((i + 0.5) * blocks / wanted);
            BackfillLeaf leaf = heaps[0];
            foreach (BackfillLeaf next in heaps)
            {
                leaf = next;
                if (at < next.Blocks)
                {
                    break;
                }

                at -= next.Blocks;
            }

            sink.Progress(new OperationProgress($"Planning {definition.Name}", $"Batch {i + 1:N0} of {wanted:N0}, which is rolled back", 100.0 * i / wanted));
            long amount = Math.Max(1, (long)Math.Min(size.Rows / rowsOfBlock, most / wanted));
            string sql = new BackfillStatements(definition, leaf).Measure(Math.Min(at, Math.Max(0, leaf.Blocks - amount)), amount);
            try
            {
                (long changed, double took, double bytes) = await MeasureAsync(connection, sql, request, sink, cancellationToken).ConfigureAwait(false);
                size.Took(TimeSpan.FromMilliseconds(took), changed);
                (batches, rows, milliseconds, wal) = (batches + 1, rows + changed, milliseconds + took, wal + bytes);
            }
            catch (PostgresException e) when (BackfillContext.IsBusy(e) || (request.MaxErrors > 0 && BackfillContext.IsDataError(e)))
            {
                sink.Verbose($"A batch of the sample was given up ({ServerErrors.Words(e)}).");
                size.Divide(4);
            }
        }

        return rows == 0 ? null : new BackfillForecast(rows * 1000 / Math.Max(0.001, milliseconds), wal / rows, batches, rows);
    }

    /// <summary>One batch, its locks bounded on the server, in one round trip: no client can keep its rows.</summary>
    private static async Task<(long Rows, double Milliseconds, double WalBytes)> MeasureAsync(
        NpgsqlConnection connection,
        string sql,
        BackfillRequest request,
        IOperationSink sink,
        CancellationToken cancellationToken)
    {
        const string Settings = """
            select pg_catalog.set_config(name, value, true)
            from (values ('lock_timeout', $1), ('statement_timeout', $2), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('max_parallel_workers_per_gather', '0'), ('jit', 'off')) as s (name, value)
            """;
        sink.Debug(sql);
        await using NpgsqlBatch batch = new(connection)
        {
            Timeout = 0,
            BatchCommands =
            {
                new("begin"),
                new(Settings)
                {
                    Parameters =
                    {
                        new() { Value = $"{Math.Max(1, (int)request.Options.LockTimeout.TotalMilliseconds / 5)}ms" },
                        new() { Value = $"{(int)BackfillConnection.HoldLimitOf(request).TotalMilliseconds}ms" },
                    },
                },
                new(sql),
                new("rollback"),
            },
        };
        try
        {
            string? json = null;
            await using (NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false))
            {
                // BEGIN and ROLLBACK return no rows.
                do
                {
                    while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
                    {
                        json = reader.GetString(0);
                    }
                }
                while (await reader.NextResultAsync(cancellationToken).ConfigureAwait(false));
            }

            using JsonDocument document = JsonDocument.Parse(json ?? throw new UnreachableException());
            JsonElement top = document.RootElement[0];
            JsonElement plan = top.GetProperty("Plan");
            double rows = plan.GetProperty("Plans").EnumerateArray().Where(child => child.GetProperty("Parent Relationship").GetString() == "Outer").Sum(child => child.GetProperty("Actual Rows").GetDouble() * child.GetProperty("Actual Loops").GetDouble());
            return ((long)rows, top.GetProperty("Execution Time").GetDouble(), plan.GetProperty("WAL Bytes").GetDouble());
        }
        catch (PostgresException)
        {
            await using NpgsqlCommand rollback = new("rollback", connection);
            await rollback.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Time that so many rows take, as fast as they may be done at all; what else slows it down is not known before.</summary>
    internal TimeSpan Time(long rows, BackfillRequest request)
    {
        double rate = RowsPerSecond * (Batches > 0 ? request.Workers : 1);
        return TimeSpan.FromSeconds(Math.Ceiling(rows / Math.Max(1, Math.Min(rate, request.Throttle.RowsPerSecond ?? double.MaxValue))));
    }

    internal long WalBytes(long rows) => (long)(rows * WalBytesPerRow);

    /// <summary>What it rests on, in words.</summary>
    internal string Basis(int workers) => (Batches > 0
            ? (FormattableString)$"measured by {Batches:N0} batches with {Rows:N0} rows, which were rolled back: {RowsPerSecond:N0} rows/s a worker{(workers > 1 ? "; workers share the server's cores" : "")}"
            : $"assumed: {RowsPerSecond:N0} rows/s, less where indexes, triggers or wide rows make a change dear; -SampleBatch measures it").ToString(CultureInfo.CurrentCulture);
}
