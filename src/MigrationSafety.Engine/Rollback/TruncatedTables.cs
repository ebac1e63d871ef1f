using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;
using Npgsql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>The tables that a TRUNCATE empties.</summary>
/// <param name="InOrder">Tables with rows of their own, in the order in which they are filled again: what a foreign key points to before what points to it.</param>
/// <param name="Foreign">Foreign tables, whose rows another server holds.</param>
internal sealed record TruncatedTables(IReadOnlyList<QualifiedName> InOrder, IReadOnlyList<QualifiedName> Foreign)
{
    /// <summary>Finds them.</summary>
    /// <param name="catalog">Catalog.</param>
    /// <param name="tables">Those that the statement names, and whether with ONLY.</param>
    /// <param name="cascade">Whether what refers to them is emptied too.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<TruncatedTables> FindAsync(RollbackCatalog catalog, IEnumerable<(QualifiedName Name, bool Only)> tables, bool cascade, CancellationToken cancellationToken)
    {
        string named = string.Join(", ", tables.Select(t => $"({new ObjectReference(ObjectKind.Table, t.Name).Find().Oid}::oid, {(t.Only ? "true" : "false")})"));

        // Which key stands on which leaf of partitioned tables is not all in the catalog: their roots are put in order.
        await using NpgsqlCommand command = new(
            $"""
            with recursive named (oid, alone) as (values {named}),
            reached (oid, alone) as (
                select oid, alone from named
                union
                select next.oid, next.alone
                from reached x
                cross join lateral (
                    select h.inhrelid, false from pg_catalog.pg_inherits h where h.inhparent = x.oid and not x.alone
                    union all
                    select k.conrelid, false from pg_catalog.pg_constraint k where k.contype = 'f' and k.confrelid = x.oid and {(cascade ? "true" : "false")}
                ) as next (oid, alone)
            ),
            parents (root, parents) as (
                select root, array_agg(distinct coalesce(pg_catalog.pg_partition_root(k.confrelid)::oid, k.confrelid))
                from pg_catalog.pg_constraint k
                cross join lateral (select coalesce(pg_catalog.pg_partition_root(k.conrelid)::oid, k.conrelid)) as of (root)
                where k.contype = 'f'
                group by root
            )
            select n.nspname::text, c.relname::text, c.relkind = 'f', family.root, coalesce(p.parents, array[]::oid[])
            from (select distinct oid from reached) x
            join pg_catalog.pg_class c on c.oid = x.oid and c.relkind in ('r', 'f')
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            cross join lateral (select coalesce(pg_catalog.pg_partition_root(c.oid)::oid, c.oid)) as family (root)
            left join parents p on p.root = family.root
            order by 1, 2
            """,
            catalog.Connection);
        List<(QualifiedName Name, uint Root)> found = [];
        List<QualifiedName> foreign = [];
        Dictionary<uint, uint[]> parents = [];
        await using (NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false))
        {
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                QualifiedName name = new(reader.GetString(0), reader.GetString(1));
                uint root = reader.GetFieldValue<uint>(3);
                parents[root] = reader.GetFieldValue<uint[]>(4);
                if (reader.GetBoolean(2))
                {
                    foreign.Add(name);
                }
                else
                {
                    found.Add((name, root));
                }
            }
        }

        // Parents first. Tables that point to each other in a circle come as they may, and what points to these after them.
        Dictionary<uint, int> order = [];
        HashSet<uint> seen = [];
        void Visit(uint root)
        {
            if (!parents.TryGetValue(root, out uint[]? above) || !seen.Add(root))
            {
                return;
            }

            Array.ForEach(above, Visit);
            order[root] = order.Count;
        }

        found.ForEach(t => Visit(t.Root));
        return new TruncatedTables([.. found.OrderBy(t => order[t.Root]).Select(t => t.Name)], foreign);
    }
}
