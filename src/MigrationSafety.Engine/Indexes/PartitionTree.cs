using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>A table of a partition tree.</summary>
/// <param name="Table">The table; its size is that of its main fork at the last VACUUM.</param>
/// <param name="Parent">Oid of the table that it is a partition of; null for the root.</param>
internal sealed record PartitionNode(TableReference Table, uint? Parent)
{
    /// <summary>Whether it has rows of its own.</summary>
    internal bool IsLeaf => Table.Kind != 'p';
}

/// <summary>The partitions of a table, of any depth.</summary>
internal static class PartitionTree
{
    /// <summary>Reads the tree, parents before their partitions. No lock is asked for. A partition whose detachment is pending is none any more.</summary>
    internal static async Task<IReadOnlyList<PartitionNode>> ReadAsync(NpgsqlConnection connection, TableReference root, CancellationToken cancellationToken)
    {
        const string Query = """
            with recursive tree as (
                select $1::oid as oid, null::oid as parent, 0 as level
                union all
                select i.inhrelid, i.inhparent, tree.level + 1
                from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid
                where not i.inhdetachpending
            )
            select c.oid, n.nspname::text, c.relname::text, c.relkind, c.relpersistence, c.reltuples::float8, c.relpages::int8 * pg_catalog.current_setting('block_size')::int8, tree.parent
            from tree
            join pg_catalog.pg_class c on c.oid = tree.oid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            order by tree.level, c.relname, n.nspname
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = root.Oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<PartitionNode> nodes = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            TableReference table = new(
                reader.GetFieldValue<uint>(0), reader.GetString(1), reader.GetString(2), reader.GetChar(3), reader.GetChar(4), reader.GetDouble(5), reader.GetInt64(6));
            nodes.Add(new PartitionNode(table, reader.IsDBNull(7) ? null : reader.GetFieldValue<uint>(7)));
        }

        return nodes;
    }

    /// <summary>Refuses what PostgreSQL would refuse in the end, or what would never become valid.</summary>
    /// <exception cref="MigrationException"><c>ForeignPartition</c>, <c>PartitionKeyNotUnique</c>.</exception>
    internal static async Task CheckAsync(NpgsqlConnection connection, IReadOnlyList<PartitionNode> nodes, IndexDefinition definition, CancellationToken cancellationToken)
    {
        TableReference root = nodes[0].Table;
        TableReference[] foreign = [.. nodes.Where(node => node.Table.Kind == 'f').Select(node => node.Table)];
        if (foreign.Length > 0)
        {
            throw new MigrationException(
                "ForeignPartition",
                MigrationErrorKind.NotSupported,
                $"{string.Join(", ", foreign.Take(5).Select(table => table.Display))}{(foreign.Length > 5 ? $" and {foreign.Length - 5} more" : "")}: a foreign table has no indexes, so that an index on {root.Display} could never become valid.",
                "Build the index on each ordinary partition by itself, or detach the foreign ones first.")
            {
                Target = root.Display,
            };
        }

        if (definition.Unique)
        {
            await CheckUniqueAsync(connection, nodes, definition, cancellationToken).ConfigureAwait(false);
        }
    }

    private static async Task CheckUniqueAsync(NpgsqlConnection connection, IReadOnlyList<PartitionNode> nodes, IndexDefinition definition, CancellationToken cancellationToken)
    {
        // 0 in partattrs stands for an expression.
        const string Query = """
            select p.partrelid, coalesce(a.attname::text, '')
            from pg_catalog.pg_partitioned_table p
            cross join pg_catalog.unnest(p.partattrs) as k (number)
            left join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = k.number
            where p.partrelid = any ($1)
            """;
        uint[] oids = [.. nodes.Where(node => !node.IsLeaf).Select(node => node.Table.Oid)];
        string[] keys = [.. definition.ColumnNames.Take(definition.Elements.Length)];
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = oids, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            string column = reader.GetString(1);
            TableReference table = nodes.First(node => node.Table.Oid == reader.GetFieldValue<uint>(0)).Table;
            if (column.Length == 0 || !definition.Keys.Contains(SqlName.QuoteIfNeeded(column)) && !(keys.Contains(column) && definition.Elements.Contains(SqlName.QuoteIfNeeded(column))))
            {
                throw new MigrationException(
                    "PartitionKeyNotUnique",
                    MigrationErrorKind.InvalidInput,
                    column.Length == 0
                        ? $"{table.Display} is partitioned by an expression: PostgreSQL has no unique index over its partitions."
                        : $"A unique index over the partitions of {table.Display} must hold its partition key, and {SqlName.QuoteIfNeeded(column)} is not among ({string.Join(", ", definition.Elements)}).",
                    column.Length == 0 ? "Build unique indexes on the partitions one by one." : "Add the column to -Column; or build unique indexes on the partitions one by one.")
                {
                    Target = table.Display,
                };
            }
        }
    }
}
