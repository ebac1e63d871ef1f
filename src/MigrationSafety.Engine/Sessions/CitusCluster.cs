using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>A node of a Citus cluster, as pg_dist_node has it.</summary>
/// <param name="Group">Its group.</param>
/// <param name="Host">Name or address by which the nodes reach it.</param>
/// <param name="Port">Port.</param>
/// <param name="IsHere">Whether it is the one that was asked.</param>
internal sealed record CitusNode(int Group, string Host, int Port, bool IsHere)
{
    /// <inheritdoc />
    public override string ToString() => $"{Host}:{Port}";
}

/// <summary>The Citus cluster of which a database is a part, where it is of one: its nodes, and sessions with them.</summary>
internal static class CitusCluster
{
    // What is made on a node is made there alone, and shards are tables like others.
    private const string NodeOptions = "-c citus.enable_ddl_propagation=off -c citus.override_table_visibility=off";

    /// <summary>Whether the extension is there.</summary>
    internal static async Task<bool> IsThereAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.to_regclass('pg_catalog.pg_dist_node') is not null", connection);
        return await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is true;
    }

    /// <summary>The nodes that hold shards; none where the extension is not there, or where the session is with a node already.</summary>
    internal static async Task<IReadOnlyList<CitusNode>> NodesAsync(NpgsqlConnection connection, EngineSession session, CancellationToken cancellationToken)
    {
        if (session.IsNode || !await IsThereAsync(connection, cancellationToken).ConfigureAwait(false))
        {
            return [];
        }

        const string Query = """
            select n.groupid, n.nodename, n.nodeport, n.groupid = l.groupid
            from pg_catalog.pg_dist_node n, pg_catalog.pg_dist_local_group l
            where n.isactive and n.noderole = 'primary'
            order by n.nodeid
            """;
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<CitusNode> nodes = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            nodes.Add(new CitusNode(reader.GetInt32(0), reader.GetString(1), reader.GetInt32(2), reader.GetBoolean(3)));
        }

        return nodes;
    }

    /// <summary>A session with a node, as the same role and in the database of the same name; it is closed with the session that it belongs to.</summary>
    /// <exception cref="MigrationException">Why it cannot be had.</exception>
    internal static async Task<EngineSession> ConnectAsync(EngineSession session, CitusNode node, IOperationSink sink, CancellationToken cancellationToken)
    {
        await session.NodesTurn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (!session.Nodes.TryGetValue(node.Group, out EngineSession? there))
            {
                there = session.Nodes[node.Group] = await SessionFactory.ConnectNodeAsync(session, node, NodeOptions, sink, cancellationToken).ConfigureAwait(false);
            }

            return there;
        }
        finally
        {
            session.NodesTurn.Release();
        }
    }
}
