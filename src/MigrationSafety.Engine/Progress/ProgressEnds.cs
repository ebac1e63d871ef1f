using System.Globalization;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Progress;

/// <summary>How operations ended that are seen no more: from what they should have left behind.</summary>
internal static class ProgressEnds
{
    /// <summary>Looks for proof.</summary>
    internal static async Task<(ProgressOutcome Outcome, string Detail)> OfAsync(NpgsqlConnection connection, OperationTrack track, CancellationToken cancellationToken)
    {
        ProgressSample last = track.Last;
        if ((track.Entry is not null || last.Application?.StartsWith("MigrationSafety/", StringComparison.Ordinal) == true)
            && await OwnAsync(connection, last, track.EntryId, cancellationToken).ConfigureAwait(false) is { } own)
        {
            return own;
        }

        Traces traces;
        try
        {
            traces = await TracesAsync(connection, track, track.Transaction, cancellationToken).ConfigureAwait(false);
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.InvalidParameterValue)
        {
            // The server has not come to that transaction: it crashed, or another has taken its place, before anything of it was kept.
            traces = await TracesAsync(connection, track, null, cancellationToken).ConfigureAwait(false);
        }

        (ProgressOutcome, string) unknown = traces.Alive || last.View == "basebackup" || last.Text("command") == "COPY TO"
            ? (ProgressOutcome.Ended, $"The server keeps no record of how it ended.{LastSeen(track)}")
            : (ProgressOutcome.Vanished, "Its session is gone, and nothing shows that it came to its end.");
        (ProgressOutcome, string)? transaction = traces.Transaction switch
        {
            _ when track.InSeveralTransactions => null,
            "committed" => (ProgressOutcome.Finished, "Its transaction was committed."),
            "aborted" => (ProgressOutcome.Failed, "Its transaction was rolled back."),
            "in progress" => (ProgressOutcome.Ended, "It is over, but its transaction is still open: it can be rolled back yet."),
            _ => null,
        };
        if (last.Text("command") == "REINDEX CONCURRENTLY" && last.Text("phase") is "initializing" or "waiting for writers before build" && traces.Index is not null && traces.Here)
        {
            // Until then, the index that the view shows is the old one.
            return traces.IndexFile is null ? (ProgressOutcome.Finished, "A new index has taken its place.") : (ProgressOutcome.Failed, "It is still the index that it was before.");
        }

        if (last.View == "create_index" && last.Text("command") != "REINDEX")
        {
            return traces.IndexValid switch
            {
                true => (ProgressOutcome.Finished, "The index is valid."),
                false => (ProgressOutcome.Failed, "The index is not valid."),
                // That of a build in a transaction which is still open is seen by nobody else.
                null => transaction ?? (traces.Index is null || !traces.Here ? unknown : (ProgressOutcome.Failed, "There is no such index.")),
            };
        }

        if (last.View == ProgressQueries.Ddl && traces.Index is not null && traces.Here)
        {
            // Of a drop: its transactions are several, and all but the last are committed whatever becomes of it.
            return traces.IndexFile is null ? (ProgressOutcome.Finished, "The index is gone.") : (ProgressOutcome.Failed, "The index is still there.");
        }

        bool rewrites = last.View == "cluster" || (last.View == "create_index" && last.Text("command") == "REINDEX");
        if (rewrites && traces.Here && transaction?.Item1 is not (ProgressOutcome.Ended or ProgressOutcome.Failed))
        {
            (long? before, long? now) = last.View == "cluster" ? (track.First.Fact("file"), traces.TableFile) : (track.First.Fact("index_file"), traces.IndexFile);
            return before is null || now is null ? transaction ?? unknown
                : before != now ? (ProgressOutcome.Finished, "It has new files.") : (ProgressOutcome.Failed, "It still has the files that it had before.");
        }

        (long? counted, long? counts) = last.View switch
        {
            "vacuum" => (track.First.Fact("vacuums"), traces.Vacuums),
            "analyze" => (track.First.Fact("analyzes"), traces.Analyzes),
            _ => (null, null),
        };
        return counted is { } had && counts is { } has
            ? has > had ? (ProgressOutcome.Finished, "The table's statistics count it.") : (unknown.Item1, "The table's statistics do not count it as done.")
            : last.View == ProgressQueries.Subscription && traces.Replicated == true ? (ProgressOutcome.Finished, "All tables are copied.")
            : transaction ?? unknown;
    }

    /// <summary>How far it was, of what sends its data to a client: that the client went away when it had all of it, and that it did before, look the same.</summary>
    private static string LastSeen(OperationTrack track)
    {
        OperationState state = track.State;
        string? counted = state is { Done: { } done, Unit: { } unit } ? string.Create(CultureInfo.CurrentCulture, $"{done:N0}{(state.Total is { } total ? $" of {total:N0}" : "")} {unit}") : null;
        string seen = string.Join(", ", new[] { state.Phase, counted }.OfType<string>());
        return track.Last.View is "basebackup" or "copy" && seen.Length > 0 ? $" Last seen: {seen}." : "";
    }

    /// <summary>What this module's own tables say of its own operations; null where they say nothing.</summary>
    private static async Task<(ProgressOutcome Outcome, string Detail)?> OwnAsync(NpgsqlConnection connection, ProgressSample last, long? entry, CancellationToken cancellationToken)
    {
        string? kind = last.View switch
        {
            ProgressQueries.Backfill => "Backfill",
            "create_index" => last.Text("command")?.StartsWith("REINDEX", StringComparison.Ordinal) == true ? "IndexRebuild" : "IndexBuild",
            _ => null,
        };
        if (kind is null && entry is null)
        {
            return null;
        }

        // Its own entry was begun before it and is not finished before it; what else ran on the table, or an earlier run, tells nothing of it.
        string byTable = $"""
            select state, message from {OperationStore.Table}
            where pg_catalog.format('%I.%I', table_schema, table_name) = $1 and operation = '{kind}' and started_at <= $2 and (finished_at is null or finished_at >= $2)
            order by id desc limit 1
            """;
        const string ByNumber = $"select state, message from {OperationStore.Table} where id = $1";
        const string Backfill = "select case state when 'completed' then 'succeeded' when 'paused' then 'paused' end, null::text from migration_safety.backfill where name = $1 and updated_at >= $2";
        DateTime started = last.Started ?? DateTime.MinValue;
        (string, object?[])[] queries = entry is not null ? [(ByNumber, [entry])]
            : last.View == ProgressQueries.Backfill ? [(Backfill, [last.Text("name"), started]), (byTable, [last.Target, started])]
            : [(byTable, [last.Target, started])];
        foreach ((string query, object?[] values) in queries.Where(query => query.Item2[0] is not null))
        {
            try
            {
                await using NpgsqlCommand command = new(query, connection);
                foreach (object? value in values)
                {
                    command.Parameters.Add(value is DateTime ? new() { Value = value, NpgsqlDbType = NpgsqlDbType.TimestampTz } : new() { Value = value });
                }

                await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
                if (await reader.ReadAsync(cancellationToken).ConfigureAwait(false) && reader.Text(0) is { } state and not "running")
                {
                    return state switch
                    {
                        "succeeded" => (ProgressOutcome.Finished, "It is recorded as done."),
                        "paused" => (ProgressOutcome.Cancelled, "It was paused: the same Start-Backfill command goes on with it."),
                        "cancelled" => (ProgressOutcome.Cancelled, "It is recorded as cancelled."),
                        _ => (ProgressOutcome.Failed, reader.Text(1) ?? "It is recorded as failed."),
                    };
                }
            }
            catch (PostgresException e) when (e.SqlState is SqlStates.UndefinedTable or SqlStates.InsufficientPrivilege or SqlStates.UndefinedColumn or "3F000")
            {
                // No such record here, or not for this role: what the operation left behind has to tell.
            }
            catch (PostgresException e) when (e.SqlState == SqlStates.LockNotAvailable)
            {
                return (ProgressOutcome.Ended, "Somebody locks this module's tables in the schema migration_safety: Get-MigrationHistory tells how it ended when they are free.");
            }
        }

        return last.View == ProgressQueries.Backfill ? (ProgressOutcome.Vanished, "It is not finished, and nobody works on it: the same Start-Backfill command goes on with it.") : null;
    }

    private static async Task<Traces> TracesAsync(NpgsqlConnection connection, OperationTrack track, ulong? transaction, CancellationToken cancellationToken)
    {
        const string Query = """
            select exists (select from pg_catalog.pg_stat_activity where pid = $1 and backend_start is not distinct from $2),
                   pg_catalog.pg_xact_status($3::text::pg_catalog.xid8),
                   (select indisvalid from pg_catalog.pg_index where $6 and indexrelid = $4), (select relfilenode::int8 from pg_catalog.pg_class where $6 and oid = $4),
                   (select relfilenode::int8 from pg_catalog.pg_class where $6 and oid = $5),
                   case when $6 then pg_catalog.pg_stat_get_vacuum_count($5) + pg_catalog.pg_stat_get_autovacuum_count($5) end,
                   case when $6 then pg_catalog.pg_stat_get_analyze_count($5) + pg_catalog.pg_stat_get_autoanalyze_count($5) end,
                   (select not exists (select from pg_catalog.pg_subscription_rel r where r.srsubid = b.oid and r.srsubstate <> 'r') from pg_catalog.pg_subscription b where $6 and b.subname = $7)
            """;
        ProgressSample last = track.Last;
        bool here = last.Database == connection.Database;
        long? index = track.IndexOid;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = last.Pid },
                new() { Value = (object?)last.BackendStart ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.TimestampTz },
                new() { Value = (object?)transaction?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text },
                new() { Value = index is { } i ? (uint)i : DBNull.Value, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = last.Number("relid") is { } table ? (uint)table : DBNull.Value, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = here },
                new() { Value = (object?)last.Text("name") ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        return new Traces(
            here,
            reader.GetBoolean(0),
            reader.Text(1),
            index,
            reader.IsDBNull(2) ? null : reader.GetBoolean(2),
            reader.Long(3),
            reader.Long(4),
            reader.Long(5),
            reader.Long(6),
            reader.IsDBNull(7) ? null : reader.GetBoolean(7));
    }

    private sealed record Traces(
        bool Here, bool Alive, string? Transaction, long? Index, bool? IndexValid, long? IndexFile, long? TableFile, long? Vacuums, long? Analyzes, bool? Replicated);
}
