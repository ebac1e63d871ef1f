using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What some blocks of a table hold, by which all of it is estimated.</summary>
internal sealed class BackfillSample
{
    /// <summary>Blocks that are looked at, about: enough for an estimate within some percent. A table that has no more is counted.</summary>
    internal const double Blocks = 300;

    // Standard deviations.
    private const double Scatter = 4;

    private readonly Dictionary<uint, (SampledBlock[] Blocks, double RowsOfBlock)> _tables;

    private BackfillSample(BackfillDefinition definition, double percent, IReadOnlyCollection<(uint Relation, SampledBlock Block)> seen)
    {
        _tables = seen.GroupBy(block => block.Relation, block => block.Block).ToDictionary(blocks => blocks.Key, blocks => (blocks.ToArray(), blocks.Average(block => block.Rows)));
        // Only blocks that hold rows are seen: about all of them, or, where the sample has far fewer than chance would leave out, as many as it says.
        double expected = definition.Blocks * percent / 100;
        bool hasEmpty = seen.Count < expected - (Scatter * Math.Sqrt(expected));
        double scale = percent >= 100 ? 1 : hasEmpty ? 100 / percent : (double)definition.Blocks / Math.Max(1, seen.Count);
        (Matching, Rows) = ((long)(seen.Sum(block => block.Block.Matching) * scale), (long)(seen.Sum(block => block.Block.Rows) * scale));
    }

    /// <summary>Rows that match, estimated.</summary>
    internal long Matching { get; }

    /// <summary>Rows in all, estimated.</summary>
    internal long Rows { get; }

    /// <summary>The percentage of the table's blocks that is looked at.</summary>
    internal static double Percent(BackfillDefinition definition) => Math.Min(100, 100 * Blocks / Math.Max(1, definition.Blocks));

    /// <summary>Takes a sample: a new column has no statistics, and the planner's guess at it is far off; at a new table's rows too. Reads only.</summary>
    internal static async Task<BackfillSample> TakeAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        double percent = Percent(definition);
        await using NpgsqlCommand command = new(new BackfillQueries(definition).Sample, connection) { Parameters = { new() { Value = (float)percent } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<(uint, SampledBlock)> seen = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            seen.Add((reader.GetFieldValue<uint>(0), new SampledBlock(reader.GetInt64(1), reader.GetInt64(2), reader.GetInt64(3))));
        }

        return new BackfillSample(definition, percent, seen);
    }

    /// <summary>How full of rows that match the blocks are that hold any, 0 to 1: where the first half of a table is done, 1.</summary>
    /// <param name="relation">Oid of the table.</param>
    internal double ShareWhereAny(uint relation) => _tables.TryGetValue(relation, out (SampledBlock[] Blocks, double RowsOfBlock) table)
        ? table.Blocks.Sum(block => block.Matching * block.ShareOf(table.RowsOfBlock)) / Math.Max(1, table.Blocks.Sum(block => block.Matching))
        : ShareOfAll;

    /// <summary>How full of rows that match some blocks are, 0 to 1, by those of them that were looked at, or by the nearest.</summary>
    /// <param name="relation">Oid of the table.</param>
    /// <param name="lower">The first of the blocks.</param>
    /// <param name="upper">The one after the last.</param>
    internal double ShareIn(uint relation, long lower, long upper)
    {
        if (!_tables.TryGetValue(relation, out (SampledBlock[] Blocks, double RowsOfBlock) table))
        {
            return ShareOfAll;
        }

        SampledBlock[] inside = [.. table.Blocks.Where(block => block.Number >= lower && block.Number < upper)];
        return (inside.Length > 0 ? inside : [table.Blocks.MinBy(block => Math.Abs(block.Number - ((lower + upper) / 2)))!]).Average(block => block.ShareOf(table.RowsOfBlock));
    }

    private double ShareOfAll => (double)Matching / Math.Max(1, Rows);

    private sealed record SampledBlock(long Number, long Rows, long Matching)
    {
        // A block with fewer rows than others has room for new versions as it is.
        internal double ShareOf(double rowsOfBlock) => Matching / Math.Max(Rows, rowsOfBlock);
    }
}
