using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Cuts a table into the ranges that workers take: each worth seconds of work, so that the end of one worker is not long after that of another.</summary>
internal static class BackfillRanges
{
    // A range is worth some batches; no more of them than a look at all of them is quick. The last ones are short: that is where rows came latest, and where workers end together.
    private const long BlocksOfRange = 1024;
    private const long FewestBlocks = 128;
    private const long FewestBlocksInTurns = 256;
    private const long Most = 1024;
    // Some rows for each boundary.
    private const double SampledBlocksPerRange = 20;

    /// <summary>Cuts. Reads only.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="definition">Definition.</param>
    /// <param name="workers">Workers of this client; a small table is cut for them at least.</param>
    /// <param name="sample">What some blocks hold.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<IReadOnlyList<BackfillRange>> CutAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        int workers,
        BackfillSample sample,
        IOperationSink sink,
        CancellationToken cancellationToken)
    {
        double rowsOfBlock = (double)sample.Rows / Math.Max(1, definition.Blocks);
        long wanted = Math.Clamp(Math.Max(definition.Blocks / BlocksOfRange, Math.Min(definition.Blocks / FewestBlocks, 4 * workers)), 1, Most);
        long left = definition.Blocks;
        List<BackfillRange> ranges = [];
        foreach (BackfillLeaf planned in definition.Leaves)
        {
            BackfillLeaf leaf = planned is { Slices: > 1, TurnsBy: { } column } ? planned with { TurnsBy = await column.FindBoundsAsync(connection, planned, (double)planned.Blocks / Math.Max(1, definition.Blocks), sink, cancellationToken).ConfigureAwait(false) } : planned;
            long rows = (long)(leaf.Blocks * rowsOfBlock);
            if (!leaf.ByKey)
            {
                bool sliced = leaf.Slices > 1;
                long fewest = sliced ? FewestBlocksInTurns : FewestBlocks;
                long most = Math.Max(definition.Blocks / Most, sliced ? Math.Max(BlocksOfRange, leaf.Stretch) : BlocksOfRange);
                for (long lower = 0, upper; lower < leaf.Blocks; lower = upper)
                {
                    upper = lower + Math.Clamp((left - lower) / ((sliced ? 2 : 4) * workers), fewest, most);
                    upper = leaf.Blocks - upper < fewest / 2 ? leaf.Blocks : upper;
                    // What was done before lies together: its blocks are looked at once.
                    bool inTurns = sliced && sample.ShareIn(leaf.Table.Oid, lower, upper) > BackfillLeaf.LeastShareInTurns;
                    BackfillLeaf part = leaf with { Slices = inTurns ? leaf.Slices : 1, TurnsBy = inTurns ? leaf.TurnsBy : null, Stretch = Math.Min(leaf.Stretch, upper - lower) };
                    ranges.Add(new BackfillRange(part, [Text(lower)], [Text(upper)], (long)(rowsOfBlock * upper) - (long)(rowsOfBlock * lower)));
                }

                left -= leaf.Blocks;
                continue;
            }

            long count = Math.Max(1, wanted * leaf.Blocks / Math.Max(1, definition.Blocks));
            string[][] bounds = await BoundsAsync(connection, definition, leaf, count, sink, cancellationToken).ConfigureAwait(false);
            ranges.AddRange(bounds.Select((upper, i) => new BackfillRange(leaf, i == 0 ? null : bounds[i - 1], upper, rows / bounds.Length)));
        }

        return ranges;

        static string Text(long number) => number.ToString(System.Globalization.CultureInfo.InvariantCulture);
    }

    /// <summary>Upper bounds of the key ranges, the greatest key last; none where the table is empty.</summary>
    private static async Task<string[][]> BoundsAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        BackfillLeaf leaf,
        long count,
        IOperationSink sink,
        CancellationToken cancellationToken)
    {
        BackfillStatements statements = new(definition, leaf);
        await using NpgsqlCommand greatest = new(statements.Bound, connection);
        if (await greatest.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is not string[] bound)
        {
            return [];
        }

        List<string[]> bounds = [];
        if (count > 1)
        {
            double percent = Math.Clamp(100.0 * count * SampledBlocksPerRange / Math.Max(1, leaf.Blocks), 0.01, 100);
            sink.Debug(statements.Quantiles);
            try
            {
                await using NpgsqlCommand quantiles = new(statements.Quantiles, connection) { Parameters = { new() { Value = (float)percent }, new() { Value = count } } };
                await using NpgsqlDataReader reader = await quantiles.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
                while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
                {
                    bounds.Add(reader.GetFieldValue<string[]>(0));
                }
            }
            catch (PostgresException e) when (e.SqlState.StartsWith("0A", StringComparison.Ordinal))
            {
                sink.Verbose($"{leaf.Table.Display} cannot be sampled ({e.MessageText}): one range for all of it, and so one worker.");
            }
        }

        // A row of the sample may be the greatest of all by now.
        return [.. bounds.Where(b => !b.SequenceEqual(bound)), bound];
    }
}
