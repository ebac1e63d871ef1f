using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// Tables whose rows the extension Citus keeps elsewhere. What is said of it was read off its documentation and source (metadata tables; "could not run distributed query with FOR
/// UPDATE/SHARE commands"; citus.enable_manual_changes_to_shards), and not tried: the extension could not be had here.
/// </summary>
internal static class DistributedTable
{
    /// <summary>Refuses one. Reads only.</summary>
    /// <exception cref="MigrationException"><c>TableDistributed</c>.</exception>
    internal static async Task RefuseAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand there = new("select pg_catalog.to_regclass('pg_catalog.pg_dist_partition') is not null", connection);
        if (await there.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is not true)
        {
            return;
        }

        // h, r and a: by hash, range and append; n: no distribution column, a reference or a local table that Citus manages.
        await using NpgsqlCommand command = new("select p.partmethod::text from pg_catalog.pg_dist_partition p where p.logicalrelid::oid = $1", connection)
        {
            Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid } },
        };
        if (await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is not string method)
        {
            return;
        }

        throw new MigrationException(
            "TableDistributed",
            MigrationErrorKind.NotSupported,
            $"{table.Display} is {(method == "n" ? "managed by Citus without a distribution column (a reference table, or one of a single shard)" : "distributed by Citus")}: through this server its rows have no place (ctid), cannot be locked over several shards, and would not commit in one statement with a checkpoint.",
            method == "n"
                ? "Update it by ranges of its key with statements of your own, in small transactions: Citus passes them on to every copy."
                : "Go shard by shard, on the nodes, where each is an ordinary table: select shard_name, nodename, nodeport from citus_shards where table_name = '" + table.Display + "'::regclass lists them. Connect to a node with "
                    + "options='-c citus.show_shards_for_app_name_prefixes=* -c citus.enable_manual_changes_to_shards=on -c citus.enable_ddl_propagation=off' and name the shard with -Table. Only where each shard has one placement, and with the rebalancer off. This way was not tried by those who wrote it.")
        {
            Target = table.Display,
        };
    }
}
