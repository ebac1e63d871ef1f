using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A version of a row: where it lies and which transaction made it. What moved or was changed has another one.</summary>
/// <param name="Relation">Oid of its table.</param>
/// <param name="Place">ctid, as text.</param>
/// <param name="Version">xmin, as text.</param>
/// <param name="Key">Its key, as the text of an array, by which it is found wherever it went; null where there is none or it was not asked for.</param>
internal readonly record struct RowPlace(uint Relation, string Place, string Version, string? Key = null);

/// <summary>Records rows that the server refuses.</summary>
internal static class BackfillErrors
{
    /// <summary>How many rows failed and were not changed since: of backfill $1.</summary>
    internal const string Count = $"select pg_catalog.count(*) from {BackfillStore.Errors} where backfill = $1 and not again";

    /// <summary>Records a row that the server refuses.</summary>
    internal static async Task RecordAsync(
        NpgsqlConnection connection,
        BackfillDefinition definition,
        BackfillLeaf leaf,
        RowPlace place,
        string[]? key,
        RowRefusal refusal,
        CancellationToken cancellationToken)
    {
        // The same row at another place, where it was changed since it first failed. By the hash there is an index, into which a key of any length fits.
        const string Older = $"delete from {BackfillStore.Errors} where backfill = $1 and relation = $2 and pg_catalog.hash_array(key) = pg_catalog.hash_array($3) and key = $3 and key_columns = $4 and place <> $5";
        const string Sql = $"""
            insert into {BackfillStore.Errors} (backfill, relation, relation_name, place, version, key, key_columns, sqlstate, message) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            on conflict (backfill, relation, place) do update
            set version = excluded.version, key = excluded.key, key_columns = excluded.key_columns, sqlstate = excluded.sqlstate, message = excluded.message, again = false, failed_at = excluded.failed_at
            """;
        NpgsqlParameter Texts(string[]? value) => new() { Value = (object?)value ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text };
        NpgsqlParameter Oid() => new() { Value = leaf.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid };
        string[]? names = key is null ? null : leaf.KeyNames;
        await using NpgsqlBatch batch = new(connection)
        {
            Timeout = BackfillStore.AnswerSeconds,
            BatchCommands =
            {
                BackfillStore.Durable(),
                new(Older) { Parameters = { new() { Value = definition.Name }, Oid(), Texts(key), Texts(names), new() { Value = place.Place } } },
                new(Sql)
                {
                    Parameters =
                    {
                        new() { Value = definition.Name },
                        Oid(),
                        new() { Value = leaf.Table.Display },
                        new() { Value = place.Place },
                        new() { Value = place.Version },
                        Texts(key),
                        Texts(names),
                        new() { Value = refusal.SqlState },
                        new() { Value = refusal.Words },
                    },
                },
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }
}
