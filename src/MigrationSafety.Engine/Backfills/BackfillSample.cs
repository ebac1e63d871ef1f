using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A block that was looked at.</summary>
/// <param name="Relation">Oid of its table.</param>
/// <param name="Block">Its number.</param>
/// <param name="Rows">Rows in it.</param>
/// <param name="Matching">Those of them that match.</param>
internal sealed record SampledBlock(uint Relation, long Block, long Rows, long Matching);

/// <summary>Some blocks all over a table, or all of a small one: how many rows match, and where they lie.</summary>
internal sealed class BackfillSample
{
    // Of fewer blocks one decides alone.
    private const int FewestBlocks = 2;
    private const double Many = 0.25;

    private readonly SampledBlock[] _blocks;
    private readonly double _scale;
    private readonly long _full;

    private BackfillSample(SampledBlock[] blocks, double scale)
    {
        _blocks = blocks;
        _scale = scale;
        long[] rows = [.. blocks.Select(block => block.Rows).Order()];
        // A block that most rows have left has room for new versions as it is. Where most rows of the table match, there is no telling how many such there are.
        _full = rows.Length == 0 || 2 * Matching > Rows ? 0 : rows[(rows.Length - 1) * 9 / 10];
    }

    /// <summary>Rows in the table, estimated.</summary>
    internal long Rows => (long)(_blocks.Sum(block => block.Rows) * _scale);

    /// <summary>Those of them that match, estimated.</summary>
    internal long Matching => (long)(_blocks.Sum(block => block.Matching) * _scale);

    /// <summary>Looks. A new column has no statistics, and the planner's guess at it is far off; at a new table's rows too.</summary>
    internal static async Task<BackfillSample> TakeAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        double percent = Backfill.SamplePercent(definition);
        await using NpgsqlCommand command = new(new BackfillQueries(definition).Sample, connection) { Parameters = { new() { Value = (float)percent } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<SampledBlock> blocks = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            blocks.Add(new SampledBlock(reader.GetFieldValue<uint>(0), reader.GetInt64(1), reader.GetInt64(2), reader.GetInt64(3)));
        }

        return new BackfillSample([.. blocks], percent >= 100 ? 1 : (double)definition.Blocks / Math.Max(1, blocks.Count));
    }

    /// <summary>Whether many rows match in some blocks of a table.</summary>
    internal bool IsDense(uint relation) => _blocks.Any(block => block.Relation == relation && ShareOf([block]) > Many);

    /// <summary>The share of the rows in some blocks of a table that match, of as many as there is room for: as those looked at tell, or, where none lies there, those around them, or the whole table's.</summary>
    /// <param name="relation">Oid of the table.</param>
    /// <param name="lower">First block.</param>
    /// <param name="upper">The block after the last one.</param>
    internal double Share(uint relation, long lower, long upper)
    {
        SampledBlock[] Between(long from, long to) => [.. _blocks.Where(block => block.Relation == relation && block.Block >= from && block.Block < to)];
        SampledBlock[] some = Between(lower, upper);
        some = some.Length >= FewestBlocks ? some : Between(lower - (upper - lower), upper + (upper - lower));
        some = some.Length >= FewestBlocks ? some : Between(0, long.MaxValue);
        return ShareOf(some.Length > 0 ? some : _blocks);
    }

    private double ShareOf(SampledBlock[] blocks) => (double)blocks.Sum(block => block.Matching) / Math.Max(1, Math.Max(blocks.Sum(block => block.Rows), blocks.Length * _full));
}
