using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// The last look at rows that the server refused, before the end: one that was changed or deleted since is no error any more, and one that somebody is just changing may become none.
/// </summary>
internal sealed class BackfillReview(BackfillContext context, BackfillWorker worker)
{
    private const int LookedAt = 1000;
    // Somebody may change refused rows for ever.
    private const int MostTimes = 3;
    private static readonly TimeSpan s_quiet = TimeSpan.FromSeconds(15);
    private int _times;

    private string Name => context.Plan.Name;

    /// <summary>Waits for those that are locked, as long as rows are waited for, and takes up again those that are not what they were.</summary>
    /// <returns>Whether they are to be swept for; null where the backfill does not run any more.</returns>
    internal async Task<bool?> RunAsync(CancellationToken cancellationToken)
    {
        if (_times++ == MostTimes)
        {
            return false;
        }

        long start = Stopwatch.GetTimestamp();
        (long changed, bool told) = (0, false);
        for (int attempt = 1; ; attempt++)
        {
            (long gone, long locked) = (0, 0);
            try
            {
                (gone, locked) = await LookAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (PostgresException e) when (SqlStates.IsMissing(e.SqlState))
            {
                // Perhaps the table was dropped or renamed: a sweep tells.
                return true;
            }

            changed += gone;
            if (locked == 0 || Stopwatch.GetElapsedTime(start) > context.Options.RetryFor)
            {
                if (changed > 0)
                {
                    context.Sink.Verbose($"{Counts.Rows(changed, "was", "were")} changed or deleted since the server refused {(changed == 1 ? "it" : "them")}; sweeps again.");
                }

                return changed > 0;
            }

            string waits = $"{Counts.Rows(locked, "that the server refused is", "that the server refused are")} just being changed by others: waits to see what becomes of {(locked == 1 ? "it" : "them")}.";
            if (attempt == 1)
            {
                context.Sink.Verbose(waits);
            }
            else if (!told && Stopwatch.GetElapsedTime(start) > s_quiet)
            {
                context.Sink.Warning($"{Name}: {waits} Their transactions are open.");
                told = true;
            }

            await worker.AttendAsync(cancellationToken).ConfigureAwait(false);
            context.Moved();
            await BackfillContext.PauseAsync(attempt, cancellationToken).ConfigureAwait(false);
            if (await worker.AskAsync(connection => BackfillRecords.ReadAsync(connection, Name, CancellationToken.None), cancellationToken).ConfigureAwait(false) is not { State: BackfillStore.Running })
            {
                return null;
            }
        }
    }

    private async Task<(long Gone, long Locked)> LookAsync(CancellationToken cancellationToken)
    {
        (long gone, long locked) = (0, 0);
        foreach (uint relation in await worker.AskAsync(RelationsAsync, cancellationToken).ConfigureAwait(false))
        {
            if (await worker.PartAsync(relation, cancellationToken).ConfigureAwait(false) is not { } leaf)
            {
                gone += await worker.AskAsync(connection => ForgetAsync(connection, relation, null), cancellationToken).ConfigureAwait(false);
                continue;
            }

            BackfillStatements statements = new(context.Definition, leaf);
            for (string after = ""; ;)
            {
                List<(string Place, string Version, bool IsThere)> rows = await worker.LookAsync(
                    statements.Recorded, [Name, after, LookedAt], reader => (reader.GetString(0), reader.GetString(1), reader.GetBoolean(2)), cancellationToken).ConfigureAwait(false);
                if (rows.Count == 0)
                {
                    break;
                }

                after = rows[^1].Place;
                (string Place, string Version, bool)[] there = [.. rows.Where(row => row.IsThere)];
                // By itself, because it locks them: only the look at what the condition says may take long.
                locked += there.Length - await worker.AskAsync(connection => CountFreeAsync(connection, statements.Free, there), cancellationToken).ConfigureAwait(false);
                string[] places = [.. rows.Where(row => !row.IsThere).Select(row => row.Place)];
                gone += places.Length == 0 ? 0 : await worker.AskAsync(connection => ForgetAsync(connection, relation, places), cancellationToken).ConfigureAwait(false);
            }
        }

        return (gone, locked);
    }

    private async Task<List<uint>> RelationsAsync(NpgsqlConnection connection)
    {
        await using NpgsqlCommand command = BackfillStore.Command(connection, $"select distinct relation from {BackfillStore.Errors} where backfill = $1 and not again", Name);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(CancellationToken.None).ConfigureAwait(false);
        List<uint> relations = [];
        while (await reader.ReadAsync(CancellationToken.None).ConfigureAwait(false))
        {
            relations.Add(reader.GetFieldValue<uint>(0));
        }

        return relations;
    }

    private async Task<long> CountFreeAsync(NpgsqlConnection connection, string free, (string Place, string Version, bool)[] rows)
    {
        await using NpgsqlCommand command = BackfillStore.Command(connection, $"select pg_catalog.count(*) from ({free}) f", Name);
        command.Parameters.Add(new() { Value = rows.Select(row => row.Place).ToArray() });
        command.Parameters.Add(new() { Value = rows.Select(row => row.Version).ToArray() });
        return (long)(await command.ExecuteScalarAsync(CancellationToken.None).ConfigureAwait(false))!;
    }

    /// <summary>Marks what was refused as to be tried again, which the end forgets where it is not refused again.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="relation">Oid of the table.</param>
    /// <param name="places">Where the rows lay; null for all of the table.</param>
    private async Task<long> ForgetAsync(NpgsqlConnection connection, uint relation, string[]? places)
    {
        await using NpgsqlCommand command = BackfillStore.Command(
            connection, $"update {BackfillStore.Errors} set again = true where backfill = $1 and relation = $2 and not again and ($3::text[] is null or place = any ($3))", Name);
        command.Parameters.Add(new() { Value = relation, NpgsqlDbType = NpgsqlDbType.Oid });
        command.Parameters.Add(new() { Value = (object?)places ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text });
        return await command.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
    }
}
