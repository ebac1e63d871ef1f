using System.Globalization;
using Npgsql;

namespace MigrationSafety.Sandbox;

/// <summary>Counts whether each row was filled, once, and rightly. revision counts: every batch that writes a row adds one, the application never.</summary>
/// <param name="Rows">Rows of the table.</param>
/// <param name="Empty">Rows that are not filled.</param>
/// <param name="Once">Rows that a backfill wrote once.</param>
/// <param name="More">Rows that a backfill wrote more than once.</param>
/// <param name="Wrong">Rows that hold something else than they should.</param>
internal sealed record FillProof(long Rows, long Empty, long Once, long More, long Wrong)
{
    internal static async Task<FillProof> ReadAsync(Shop shop, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = shop.Admin.CreateCommand(
            $"""
            select count(*), count(*) filter (where tier is null), count(*) filter (where revision = 1), count(*) filter (where revision > 1),
                   count(*) filter (where tier <> {Migration.TierExpression})
            from orders
            """);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        return new FillProof(reader.GetInt64(0), reader.GetInt64(1), reader.GetInt64(2), reader.GetInt64(3), reader.GetInt64(4));
    }

    /// <summary>What is wrong, a sentence each.</summary>
    /// <param name="claimed">Rows that the backfill says it filled; null where it cannot be asked.</param>
    internal IEnumerable<string> Broken(long? claimed)
    {
        if (Empty > 0)
        {
            yield return $"Nothing is lost: {N(Empty)} rows are not filled.";
        }

        if (More > 0)
        {
            yield return $"Nothing is lost: {N(More)} rows were filled more than once.";
        }

        if (Wrong > 0)
        {
            yield return $"Nothing is lost: {N(Wrong)} rows hold a wrong value.";
        }

        if (claimed is { } rows && rows != Once + More)
        {
            yield return $"What it says is what the server did: the backfill says that it filled {N(rows)} rows; {N(Once + More)} were written.";
        }
    }

    public override string ToString() => $"{N(Empty)} rows are not filled, {N(Once)} were filled once, {N(More)} more than once, {N(Wrong)} hold a wrong value.";

    private static string N(long number) => number.ToString("N0", CultureInfo.InvariantCulture);
}
