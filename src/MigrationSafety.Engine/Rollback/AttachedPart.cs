using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>An index or a foreign key of a partitioned table that ATTACH PARTITION makes on the partition, because that has none to match it.</summary>
/// <param name="Constraint">Whether it is a constraint.</param>
/// <param name="Name">The name that it is going to have; null where PostgreSQL chooses it.</param>
/// <param name="Label">What the chosen name ends with.</param>
/// <param name="Definition">CREATE INDEX of the partitioned table's; empty for a foreign key.</param>
internal sealed record AttachedPart(bool Constraint, string? Name, string Label, string Definition)
{
    internal static async Task<IReadOnlyList<AttachedPart>> ReadAsync(RollbackCatalog catalog, QualifiedName parent, QualifiedName child, CancellationToken cancellationToken)
    {
        // What follows USING is the same for an index and the one that it would match, but for names of columns at other places.
        const string Query = """
            with part as (
                select x.indrelid, x.indexrelid, x.indisunique, pg_catalog.pg_get_indexdef(x.indexrelid) as definition,
                       substring(pg_catalog.pg_get_indexdef(x.indexrelid) from ' USING .*$') as body,
                       (select contype from pg_catalog.pg_constraint k where k.conindid = x.indexrelid and k.conrelid = x.indrelid and k.contype in ('p', 'u', 'x')) as contype
                from pg_catalog.pg_index x
                where x.indrelid = any (array[to_regclass($1), to_regclass($2)])
            )
            select p.contype is not null, null, case p.contype when 'p' then 'pkey' when 'u' then 'key' when 'x' then 'excl' else 'idx' end, p.definition
            from part p
            where p.indrelid = to_regclass($1)
              and not exists (select from part c where c.indrelid = to_regclass($2) and c.body = p.body and c.indisunique = p.indisunique and (p.contype is null or c.contype = p.contype))
            union all
            select true, k.conname::text, 'fkey', ''
            from pg_catalog.pg_constraint k
            where k.conrelid = to_regclass($1) and k.contype = 'f' and k.conparentid = 0
              and not exists (select from pg_catalog.pg_constraint c where c.conrelid = to_regclass($2) and c.contype = 'f' and pg_catalog.pg_get_constraintdef(c.oid) = pg_catalog.pg_get_constraintdef(k.oid))
            """;
        await using NpgsqlCommand command = new(Query, catalog.Connection) { Parameters = { new() { Value = parent.ToString() }, new() { Value = child.ToString() } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<AttachedPart> parts = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            parts.Add(new AttachedPart(reader.GetBoolean(0), reader.IsDBNull(1) ? null : reader.GetString(1), reader.GetString(2), reader.GetString(3)));
        }

        return parts;
    }
}
