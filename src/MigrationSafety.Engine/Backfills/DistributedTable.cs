using System.Globalization;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A shard of a table that Citus distributes.</summary>
/// <param name="Session">Session with the node where it lies.</param>
/// <param name="Schema">Schema, quoted for SQL.</param>
/// <param name="Table">Name there, quoted for SQL.</param>
/// <param name="Id">Its number, by which names are told apart.</param>
public sealed record TableShard(EngineSession Session, string Schema, string Table, string Id);

/// <summary>
/// Tables whose rows Citus keeps in shards. Through the distributed table they have no place, cannot be locked over several shards and would not commit in one statement with a checkpoint;
/// on its node a shard is an ordinary table, and what is recorded about it commits with it there. Seen so with Citus 13.2.
/// </summary>
public static class DistributedTable
{
    /// <summary>The shards of a table, where Citus distributes it.</summary>
    /// <param name="session">Session with any node that knows the cluster, such as the coordinator.</param>
    /// <param name="table">Table, as in SQL.</param>
    /// <param name="schema">Schema, as in SQL; null for the one in <paramref name="table"/> or the search_path.</param>
    /// <param name="joins">Whether its rows are to be joined with another table.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>Each with a session that is closed with the given one; none where the table is an ordinary one.</returns>
    /// <exception cref="MigrationException"><c>TableDistributed</c>: shards have copies; or why the table or a node cannot be had.</exception>
    public static async Task<IReadOnlyList<TableShard>> ShardsAsync(EngineSession session, string table, string? schema, bool joins, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("backfill", sink, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<CitusNode> nodes = await CitusCluster.NodesAsync(connection, session, cancellationToken).ConfigureAwait(false);
            if (nodes.Count == 0)
            {
                return [];
            }

            TableReference found = await TableReference.FindAnyAsync(connection, table, schema, cancellationToken).ConfigureAwait(false);
            List<TableShard> shards = [];
            foreach ((string name, long id, int group, long copies) in await ReadAsync(connection, found, cancellationToken).ConfigureAwait(false))
            {
                if (copies > 1)
                {
                    throw Refusal(found, "Each of its shards lies on several nodes (a reference table does), and must change on all of them at once.", "Update it by ranges of its key with statements of your own, in small transactions: Citus passes them on to every copy.");
                }

                CitusNode node = nodes.FirstOrDefault(n => n.Group == group)
                    ?? throw Refusal(found, $"Its shard {name} lies on a node that is not active.", "Wait until the node is back, or repair the cluster (select * from pg_dist_node).");
                shards.Add(new TableShard(
                    await CitusCluster.ConnectAsync(session, node, sink, cancellationToken).ConfigureAwait(false),
                    SqlName.QuoteIfNeeded(found.Schema),
                    SqlName.QuoteIfNeeded(SqlName.Parse(name).Name),
                    id.ToString(CultureInfo.InvariantCulture)));
            }

            return shards.Count == 0 || !joins ? shards
                : throw Refusal(found, "On its node a shard cannot be joined with a table of the cluster.", "Leave -From out: bring what is needed into the table first, by statements of your own through Citus.");
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, $"Looking for the shards of {table}", table);
        }
    }

    /// <summary>The session with the node that has recorded a backfill: itself, where it is no part of a Citus cluster or none of them has.</summary>
    /// <param name="session">Session with any node that knows the cluster.</param>
    /// <param name="backfill">Name.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    public static async Task<EngineSession> HolderAsync(EngineSession session, string backfill, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            foreach (EngineSession node in await NodesAsync(session, sink, cancellationToken).ConfigureAwait(false))
            {
                await using NpgsqlConnection connection = await node.OpenAsync("backfills", sink, cancellationToken).ConfigureAwait(false);
                if ((await BackfillReader.ReadAsync(connection, node.Info, backfill, withErrors: false, cancellationToken).ConfigureAwait(false)).Count > 0)
                {
                    return node;
                }
            }

            return session;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, $"Looking for backfill {backfill}", backfill);
        }
    }

    /// <summary>Sessions with the nodes of the cluster that can be had, itself among them; none where there is no cluster.</summary>
    internal static async Task<IReadOnlyList<EngineSession>> NodesAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        IReadOnlyList<CitusNode> nodes;
        await using (NpgsqlConnection connection = await session.OpenAsync("backfills", sink, cancellationToken).ConfigureAwait(false))
        {
            nodes = await CitusCluster.NodesAsync(connection, session, cancellationToken).ConfigureAwait(false);
        }

        // A coordinator that holds no shards need not be among them.
        List<EngineSession> sessions = nodes.Count == 0 || nodes.Any(node => node.IsHere) ? [] : [session];
        foreach (CitusNode node in nodes)
        {
            try
            {
                sessions.Add(await CitusCluster.ConnectAsync(session, node, sink, cancellationToken).ConfigureAwait(false));
            }
            catch (MigrationException e)
            {
                // The others can be looked at all the same.
                sink.Warning($"What is recorded on {node}, a node of this Citus cluster, cannot be seen: {e.Message}");
            }
        }

        return sessions;
    }

    /// <summary>Whether Citus has the shard on this node; where it has moved it, what is left here is thrown away.</summary>
    internal static async Task<bool> IsHereAsync(NpgsqlConnection connection, TableReference shard, CancellationToken cancellationToken)
    {
        const string Query = """
            select exists (select from pg_catalog.pg_dist_placement p join pg_catalog.pg_dist_local_group l on l.groupid = p.groupid
                           where p.shardid = pg_catalog.substring($1, '_([0-9]{1,18})$')::int8)
            """;
        await using NpgsqlCommand command = new(Query, connection) { CommandTimeout = 20, Parameters = { new() { Value = shard.Name } } };
        return await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is true;
    }

    /// <summary>The error of a shard that was moved away while it was backfilled: its new place may lack what was changed last.</summary>
    internal static MigrationException Moved(TableReference shard) => new(
        "ShardMoved",
        MigrationErrorKind.InvalidState,
        $"Citus has moved {shard.Display} to another node while it was backfilled: what was changed last may be missing there.",
        "Run the same command again, through any node: it does what is left where the shard lies now. Keep the rebalancer off meanwhile.")
    {
        Target = shard.Display,
    };

    /// <summary>What the table is to Citus. Reads only.</summary>
    /// <returns>The name of the table of which it is a shard; null where it is an ordinary one.</returns>
    /// <exception cref="MigrationException"><c>TableDistributed</c>: it has no rows itself.</exception>
    internal static async Task<string?> LookAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        if (!await CitusCluster.IsThereAsync(connection, cancellationToken).ConfigureAwait(false))
        {
            return null;
        }

        const string Query = """
            select exists (select from pg_catalog.pg_dist_partition p where p.logicalrelid::oid = $1),
                   (select c.relname::text
                    from pg_catalog.pg_dist_shard s
                    join pg_catalog.pg_class c on c.oid = s.logicalrelid
                    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                    where s.shardid = pg_catalog.substring($3, '_([0-9]{1,18})$')::int8 and n.nspname = $2)
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = table.Schema }, new() { Value = table.Name } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        return reader.GetBoolean(0)
            ? throw Refusal(table, "Through this name its rows have no place, and would not commit in one statement with a checkpoint.", "Name a table that is not distributed.")
            : reader.Text(1);
    }

    private static async Task<IReadOnlyList<(string Name, long Id, int Group, long Copies)>> ReadAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.shard_name(s.logicalrelid, s.shardid), s.shardid, p.groupid, pg_catalog.count(*) over (partition by s.shardid)
            from pg_catalog.pg_dist_shard s
            join pg_catalog.pg_dist_placement p on p.shardid = s.shardid and p.shardstate = 1
            where s.logicalrelid::oid = $1
            order by s.shardid
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<(string, long, int, long)> shards = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            shards.Add((reader.GetString(0), reader.GetInt64(1), reader.GetInt32(2), reader.GetInt64(3)));
        }

        return shards;
    }

    private static MigrationException Refusal(TableReference table, string why, string advice) =>
        new("TableDistributed", MigrationErrorKind.NotSupported, $"{table.Display} is distributed by Citus. {why}", advice) { Target = table.Display };
}
