using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// One operation per table, shared by all workers of one backfill, whichever client they belong to: each holds the lock of <see cref="TableOperationLock"/> in shared mode, and a second
/// one with the backfill's name. Under a short gate whoever comes looks whether all holders of the first hold the second.
/// </summary>
internal static class BackfillLock
{
    // "MiSG", "MiSS", "MiSI" in ASCII.
    private const int GateClassId = 0x4D695347;
    private const int SweepClassId = 0x4D695353;
    private const int TargetClassId = 0x4D695349;
    // The gate is for what takes milliseconds; many workers that come at once take their turns.
    private static readonly TimeSpan s_usual = TimeSpan.FromSeconds(10);

    // Locks (n) of other connections that work on the backfill named $1, or are about to.
    private static readonly string s_shares = $"""
        from pg_catalog.pg_locks n
        where n.locktype = 'advisory' and n.granted and n.objsubid = 2 and n.pid <> pg_catalog.pg_backend_pid() and n.classid = {TableOperationLock.BackfillClassId}
          and n.objid = (pg_catalog.hashtext($1)::int8 & 4294967295)::oid
          and n.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
        """;

    /// <summary>Whether another connection works on the backfill named $1.</summary>
    internal static readonly string IsShared = $"exists (select {s_shares})";

    /// <summary>Process ids of those who work on a backfill, or are about to.</summary>
    internal static async Task<int[]> HoldersAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = BackfillStore.Command(connection, $"select array(select n.pid {s_shares})", name);
        return (int[])(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    /// <summary>Takes the lock; waits for another operation, saying whose, until <paramref name="waitFor"/> is over.</summary>
    /// <exception cref="MigrationException"><c>TableBusy</c>, with the holder.</exception>
    internal static async Task TakeAsync(NpgsqlConnection connection, BackfillDefinition definition, TimeSpan waitFor, IOperationSink sink, CancellationToken cancellationToken)
    {
        bool told = false;
        for (long start = Stopwatch.GetTimestamp(); ;)
        {
            LockBlocker? holder;
            await TakeGateAsync(connection, definition, waitFor - Stopwatch.GetElapsedTime(start), sink, cancellationToken).ConfigureAwait(false);
            try
            {
                holder = await TryAsync(connection, definition, cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                await ReleaseGateAsync(connection, definition).ConfigureAwait(false);
            }

            if (holder is null)
            {
                return;
            }

            if (Stopwatch.GetElapsedTime(start) > waitFor)
            {
                throw await TableOperationLock.BusyAsync(connection, definition.Table, holder, cancellationToken).ConfigureAwait(false);
            }

            if (!told)
            {
                sink.Warning($"Another operation works on {definition.Table.Display}; waiting for {holder}{await TableOperationLock.WorkAsync(connection, holder, cancellationToken).ConfigureAwait(false)}.");
                told = true;
            }

            await Task.Delay(TimeSpan.FromMilliseconds(200), cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Takes the gate behind which a backfill begins. It is held for some short statements only: whoever holds it for longer is frozen, and is said and waited for until
    /// <paramref name="waitFor"/> is over.
    /// </summary>
    /// <exception cref="MigrationException"><c>TableBusy</c>, with the holder.</exception>
    internal static async Task TakeGateAsync(NpgsqlConnection connection, BackfillDefinition definition, TimeSpan waitFor, IOperationSink sink, CancellationToken cancellationToken)
    {
        bool told = false;
        for (long start = Stopwatch.GetTimestamp(); !await ScalarAsync(connection, "select pg_catalog.pg_try_advisory_lock($1, $2)", GateClassId, definition, cancellationToken).ConfigureAwait(false);)
        {
            TimeSpan waited = Stopwatch.GetElapsedTime(start);
            if ((waited > waitFor || (waited > s_usual && !told)) && await HolderAsync(connection, definition, GateClassId, exceptOf: null, cancellationToken).ConfigureAwait(false) is { } holder)
            {
                if (waited > waitFor)
                {
                    throw Busy($"Another client has been about to begin a backfill of {definition.Table.Display} for {Durations.Text(waited)}: {holder}.", definition, holder);
                }

                sink.Warning($"Another client is about to begin a backfill of {definition.Table.Display}; waiting for {holder}.");
                told = true;
            }

            await Task.Delay(TimeSpan.FromMilliseconds(50), cancellationToken).ConfigureAwait(false);
        }
    }

    internal static async Task ReleaseGateAsync(NpgsqlConnection connection, BackfillDefinition definition)
    {
        if (connection.FullState == System.Data.ConnectionState.Open)
        {
            await ScalarAsync(connection, "select pg_catalog.pg_advisory_unlock($1, $2)", GateClassId, definition, CancellationToken.None).ConfigureAwait(false);
        }
    }

    /// <summary>Waits, no longer than the lock timeout, until nobody else is about to begin a copy into a table, and keeps others from that until the transaction ends, which takes as long as it takes.</summary>
    internal static async Task TakeTargetAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        await using NpgsqlBatch batch = new(connection)
        {
            BatchCommands =
            {
                new(BackfillConnection.Unbounded),
                new("select pg_catalog.pg_advisory_xact_lock($1, $2)") { Parameters = { new() { Value = TargetClassId }, new() { Value = unchecked((int)table.Oid) } } },
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Whether this connection may sweep: one at a time.</summary>
    internal static Task<bool> TrySweepAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken) =>
        ScalarAsync(connection, "select pg_catalog.pg_try_advisory_lock($1, $2)", SweepClassId, definition, cancellationToken);

    /// <summary>Who sweeps; null where nobody does any more, or where that cannot be seen.</summary>
    internal static Task<LockBlocker?> SweeperAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken) =>
        HolderAsync(connection, definition, SweepClassId, exceptOf: null, cancellationToken);

    internal static MigrationException Busy(string message, BackfillDefinition definition, LockBlocker holder) =>
        new("TableBusy", MigrationErrorKind.Busy, message, "Wait for it or stop it, then run the command again.")
        {
            Target = definition.Table.Display,
            Blockers = [holder],
        };

    internal static Task<bool> ReleaseSweepAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken) =>
        ScalarAsync(connection, "select pg_catalog.pg_advisory_unlock($1, $2)", SweepClassId, definition, cancellationToken);

    /// <summary>Gives everything back that the connection holds.</summary>
    internal static async Task ReleaseAllAsync(NpgsqlConnection connection)
    {
        // A dead line must not keep whoever wants to end; the locks end with the connection.
        await using NpgsqlCommand command = new("select pg_catalog.pg_advisory_unlock_all()", connection) { CommandTimeout = 2 };
        await command.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Takes the table's lock and the backfill's where no other operation holds the table's.</summary>
    /// <returns>Null where it has them; else who is in the way.</returns>
    private static async Task<LockBlocker?> TryAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        bool shared = await ScalarAsync(connection, "select pg_catalog.pg_try_advisory_lock_shared($1, $2)", TableOperationLock.ClassId, definition, cancellationToken).ConfigureAwait(false);
        if (await HolderAsync(connection, definition, TableOperationLock.ClassId, definition.Name, cancellationToken).ConfigureAwait(false) is { } holder)
        {
            if (shared)
            {
                await ScalarAsync(connection, "select pg_catalog.pg_advisory_unlock_shared($1, $2)", TableOperationLock.ClassId, definition, cancellationToken).ConfigureAwait(false);
            }

            return holder;
        }

        if (!shared)
        {
            // It was given back between the two questions.
            return await TryAsync(connection, definition, cancellationToken).ConfigureAwait(false);
        }

        await using NpgsqlCommand command = new("select pg_catalog.pg_advisory_lock_shared($1, pg_catalog.hashtext($2))", connection)
        {
            Parameters = { new() { Value = TableOperationLock.BackfillClassId }, new() { Value = definition.Name } },
        };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        return null;
    }

    private static async Task<bool> ScalarAsync(NpgsqlConnection connection, string sql, int classId, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(sql, connection)
        {
            CommandTimeout = 20,
            Parameters = { new() { Value = classId }, new() { Value = unchecked((int)definition.Table.Oid) } },
        };
        return (bool)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    /// <summary>Somebody else who holds a lock of the table; null where nobody does.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="definition">Definition.</param>
    /// <param name="classId">Which lock.</param>
    /// <param name="exceptOf">Name of the backfill whose workers are not meant; null for none.</param>
    /// <param name="cancellationToken">Cancels.</param>
    private static async Task<LockBlocker?> HolderAsync(NpgsqlConnection connection, BackfillDefinition definition, int classId, string? exceptOf, CancellationToken cancellationToken)
    {
        const string Query = """
            select l.pid, a.usename::text, a.application_name, pg_catalog.host(a.client_addr),
                   -- one whose client takes nothing is not at work
                   case when a.state = 'active' and a.wait_event_type = 'Client' then 'waiting for its client'
                        -- the state of other roles' sessions is hidden, what they have locked is not
                        when a.state is null and exists (select from pg_catalog.pg_locks t where t.pid = l.pid and t.locktype = 'relation' and t.database = l.database and t.relation = $2) then 'active'
                        else a.state end,
                   pg_catalog.clock_timestamp() - a.xact_start, pg_catalog.left(a.query, 1000), a.backend_type, a.backend_start
            from pg_catalog.pg_locks l
            left join pg_catalog.pg_stat_activity a on a.pid = l.pid
            where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.pid <> pg_catalog.pg_backend_pid()
              and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
              and l.classid = $1 and l.objid = $2
              and not exists (select from pg_catalog.pg_locks n
                              where n.locktype = 'advisory' and n.granted and n.objsubid = 2 and n.pid = l.pid and n.database = l.database
                                and n.classid = $3 and n.objid = (pg_catalog.hashtext($4)::int8 & 4294967295)::oid)
            limit 1
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = (uint)classId, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = definition.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = (uint)TableOperationLock.BackfillClassId, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = (object?)exceptOf ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? reader.Blocker() with
            {
                Granted = true,
                Relation = definition.Table.Display,
            }
            : null;
    }
}
