using System.Diagnostics;
using Npgsql;

namespace MigrationSafety.Engine.Execution;

/// <summary>
/// One operation per table at a time: an advisory lock of the session on the table's oid. It lives on the connection that does the work, so that
/// it ends with the work whatever happens to the client.
/// </summary>
internal static class TableOperationLock
{
    /// <summary>First key of the advisory locks of this module: "MiSa" in ASCII.</summary>
    internal const int ClassId = 0x4D695361;

    /// <summary>First key of those that the workers of a backfill hold besides, on the hash of its name: "MiSN" in ASCII.</summary>
    internal const int BackfillClassId = 0x4D69534E;

    /// <summary>Takes the lock; waits for another operation, saying whose, until <paramref name="waitFor"/> is over.</summary>
    /// <param name="connection">The connection that does the work.</param>
    /// <param name="table">Table.</param>
    /// <param name="waitFor">Bound on the wait.</param>
    /// <param name="sink">Where the holder is named.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>TableBusy</c>, with the holder.</exception>
    internal static async Task TakeAsync(NpgsqlConnection connection, TableReference table, TimeSpan waitFor, IOperationSink sink, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        bool told = false;
        while (true)
        {
            await using (NpgsqlCommand command = new("select pg_catalog.pg_try_advisory_lock($1, $2)", connection)
            {
                Parameters = { new() { Value = ClassId }, new() { Value = unchecked((int)table.Oid) } },
            })
            {
                if ((bool)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!)
                {
                    if (told)
                    {
                        sink.Record(new PhaseEndEvent(connection.ProcessID));
                    }

                    return;
                }
            }

            LockBlocker? holder = await HolderAsync(connection, table, cancellationToken).ConfigureAwait(false);
            if (holder is not null && Stopwatch.GetElapsedTime(start) > waitFor)
            {
                throw await BusyAsync(connection, table, holder, cancellationToken).ConfigureAwait(false);
            }

            if (holder is not null && !told)
            {
                sink.Warning($"Another operation works on {table.Display}; waiting for {holder}{await WorkAsync(connection, holder, cancellationToken).ConfigureAwait(false)}.");
                TurnWaits.Begin(sink, connection.ProcessID, table.Display, TurnWaits.ForTable);
                told = true;
            }

            await Task.Delay(TimeSpan.FromMilliseconds(200), cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The error for a table on which somebody else works.</summary>
    internal static async Task<MigrationException> BusyAsync(NpgsqlConnection connection, TableReference table, LockBlocker holder, CancellationToken cancellationToken)
    {
        string? work = await WorkAsync(connection, holder, cancellationToken).ConfigureAwait(false);
        return new MigrationException(
            "TableBusy",
            MigrationErrorKind.Busy,
            $"Another operation works on {table.Display}: {holder}{work}.",
            $"Wait for it or stop it{(work is null ? "" : " (Stop-Backfill)")}, then run the command again.")
        {
            Target = table.Display,
            Blockers = [holder],
        };
    }

    /// <summary>What a holder works on, where that is a backfill that is recorded, as the end of a sentence; null where it is not. Of others the query tells.</summary>
    internal static async Task<string?> WorkAsync(NpgsqlConnection connection, LockBlocker holder, CancellationToken cancellationToken)
    {
        const string Query = """
            select b.name, b.state
            from migration_safety.backfill b
            join pg_catalog.pg_locks n on n.locktype = 'advisory' and n.granted and n.objsubid = 2 and n.pid = $1 and n.classid = $2
                 and n.objid = (pg_catalog.hashtext(b.name)::int8 & 4294967295)::oid
                 and n.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
            limit 1
            """;
        try
        {
            await using NpgsqlCommand command = new(Query, connection)
            {
                Parameters = { new() { Value = holder.Pid }, new() { Value = (uint)BackfillClassId, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid } },
            };
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
                ? $", working on backfill {reader.GetString(0)} ({reader.GetString(1) switch { "paused" => "stopped, in its last batch", var state => state }})"
                : null;
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.UndefinedTable or SqlStates.InsufficientPrivilege)
        {
            return null;
        }
    }

    /// <summary>Gives the lock back.</summary>
    /// <param name="connection">The connection that took it.</param>
    /// <param name="table">Table.</param>
    internal static async Task ReleaseAsync(NpgsqlConnection connection, TableReference table)
    {
        // A dead line must not keep whoever wants to end; the lock ends with the connection.
        await using NpgsqlCommand command = new("select pg_catalog.pg_advisory_unlock($1, $2)", connection)
        {
            CommandTimeout = 2,
            Parameters = { new() { Value = ClassId }, new() { Value = unchecked((int)table.Oid) } },
        };
        await command.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
    }

    private static async Task<LockBlocker?> HolderAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        const string Query = """
            select a.pid, a.usename::text, a.application_name, pg_catalog.host(a.client_addr), a.state,
                   pg_catalog.clock_timestamp() - a.xact_start, pg_catalog.left(a.query, 1000), a.backend_type, a.backend_start
            from pg_catalog.pg_locks l
            join pg_catalog.pg_stat_activity a on a.pid = l.pid
            where l.locktype = 'advisory' and l.granted and l.objsubid = 2
              and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
              and l.classid = $1 and l.objid = $2
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = (uint)ClassId, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid }, new() { Value = table.Oid, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? reader.Blocker() with
            {
                Granted = true,
                Relation = table.Display,
            }
            : null;
    }
}
