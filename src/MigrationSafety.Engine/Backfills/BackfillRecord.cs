using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What is recorded about a backfill.</summary>
/// <param name="TableOid">The table's oid when it began.</param>
/// <param name="Statement">What is done to which rows, as one statement.</param>
/// <param name="Archive">Where what it overwrites or deletes is kept; null where it is not.</param>
/// <param name="WasEmpty">Whether the table that is copied into was empty when it began; null where nothing is copied.</param>
/// <param name="State">running, paused or completed.</param>
/// <param name="Sweep">0 in the pass through its ranges, then the number of the sweep.</param>
/// <param name="RowsInTable">Rows in the table when it began, estimated.</param>
/// <param name="TotalRows">Rows updated by all runs.</param>
/// <param name="RowsSeen">Rows passed, matching or not.</param>
/// <param name="Errors">Rows that failed and were not changed since.</param>
internal sealed record BackfillRecord(
    uint TableOid,
    string Statement,
    string? Archive,
    bool? WasEmpty,
    string State,
    int Sweep,
    long RowsInTable,
    long TotalRows,
    long RowsSeen,
    long Errors)
{
    internal bool IsCompleted => State == BackfillStore.Completed;

    /// <summary>Rows that are still to be changed, estimated.</summary>
    internal required long Remaining { get; init; }

    /// <summary>The limits it was last begun or joined with.</summary>
    internal required ThrottleLimits Throttle { get; init; }

    /// <summary>Whether a client works on it.</summary>
    internal required bool IsAtWork { get; init; }

    /// <summary>Whether it has changed no row and been refused none, and nobody works on it: nothing would be lost with it.</summary>
    internal required bool IsUnused { get; init; }

    /// <summary>When it began and when it was completed.</summary>
    internal required (DateTime Started, DateTime? Finished) Times { get; init; }

    /// <summary>What is another when somebody has begun it anew or completed it.</summary>
    internal (uint Table, bool IsCompleted, (DateTime Started, DateTime? Finished) Times) Stamp => (TableOid, IsCompleted, Times);
}

/// <summary>What is recorded about backfills, and whether it is what is asked for.</summary>
internal static class BackfillRecords
{
    /// <summary>Whether nothing would be lost with a backfill (b) named $1.</summary>
    // One that is not at its end may just be taken up by whoever holds its lock; at its end it may be begun anew only, and then it is another.
    internal static readonly string IsUnused = $"""
        not exists (select from {BackfillStore.Workers} w where w.backfill = b.name and (w.rows_done > 0 or (w.pid <> pg_catalog.pg_backend_pid() and {BackfillStore.IsAtWork})))
        and not exists (select from {BackfillStore.Errors} e where e.backfill = b.name)
        and (b.state = 'completed' or not {BackfillLock.IsShared})
        """;

    /// <summary>What is recorded under a name; null where nothing is.</summary>
    internal static async Task<BackfillRecord?> ReadAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        string query = $"""
            select b.table_schema, b.table_name, b.table_oid, b.set_columns, b.set_expressions, b.predicate, b.kind, b.source, b.archive, b.state, b.sweep, b.rows_in_table,
                   coalesce((select pg_catalog.sum(w.rows_done) from {BackfillStore.Workers} w where w.backfill = b.name), 0)::int8,
                   coalesce((select pg_catalog.sum(r.rows_seen) from {BackfillStore.Ranges} r where r.backfill = b.name), 0)::int8,
                   (select pg_catalog.count(*) from {BackfillStore.Errors} e where e.backfill = b.name and not e.again), b.started_at, b.finished_at, b.into_schema, b.into_table, b.into_was_empty,
                   b.throttle::text, exists (select from {BackfillStore.Workers} w where w.backfill = b.name and {BackfillStore.IsAtWork}),
                   {IsUnused}, b.rows_estimated, b.rows_before
            from {BackfillStore.Table} b
            where b.name = $1
            """;
        await using NpgsqlCommand command = BackfillStore.Command(connection, query, name);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new BackfillRecord(
                reader.GetFieldValue<uint>(2),
                BackfillDefinition.Text(
                    BackfillStore.KindOf(reader.GetString(6)),
                    reader.GetString(0),
                    reader.GetString(1),
                    [.. reader.GetFieldValue<string[]>(3).Zip(reader.GetFieldValue<string[]>(4), (column, expression) => new SetColumn(column, expression))],
                    reader.Text(7),
                    reader.GetString(5),
                    reader.Text(17) is { } schema ? $"{SqlName.QuoteIfNeeded(schema)}.{SqlName.QuoteIfNeeded(reader.GetString(18))}" : null),
                reader.Text(8),
                reader.IsDBNull(19) ? null : reader.GetBoolean(19),
                reader.GetString(9),
                reader.GetInt32(10),
                reader.GetInt64(11),
                reader.GetInt64(12),
                reader.GetInt64(13),
                reader.GetInt64(14))
            {
                Remaining = Left(reader.GetInt64(23), reader.GetInt64(12), reader.GetInt64(24)),
                Throttle = ThrottleLimits.FromJson(reader.Text(20)),
                IsAtWork = reader.GetBoolean(21),
                IsUnused = reader.GetBoolean(22),
                Times = (reader.GetDateTime(15), await reader.IsDBNullAsync(16, cancellationToken).ConfigureAwait(false) ? null : reader.GetDateTime(16)),
            }
            : null;
    }

    /// <summary>Rows that are left of those that were estimated.</summary>
    /// <param name="estimated">Rows that matched when it began, as far as is known by now.</param>
    /// <param name="done">Rows changed by all runs.</param>
    /// <param name="before">Those that were changed before it began.</param>
    internal static long Left(long estimated, long done, long before) => Math.Max(0, estimated - (done - before));

    /// <summary>Both definitions, where another one is recorded; null where it is the same.</summary>
    internal static string? Difference(BackfillRecord record, BackfillDefinition definition)
    {
        // Whether the keys of copied rows are kept is not asked for.
        bool sameKeeping = definition.Kind == BackfillKind.Insert || record.Archive is null == definition.Archive is null;
        if (record.Statement == definition.Statement && sameKeeping)
        {
            return null;
        }

        static string Keeping(bool keeps) => keeps ? ", keeping the old values" : ", keeping no old values";
        (string recorded, string asked) = sameKeeping
            ? (record.Statement, definition.Statement)
            : (record.Statement + Keeping(record.Archive is not null), definition.Statement + Keeping(definition.Archive is not null));

        return $"Recorded: {recorded}. Asked for: {asked}.";
    }

    /// <summary>Whether a definition takes the place of another that is recorded under its name, with which nothing is lost.</summary>
    /// <returns>False where the same one is recorded.</returns>
    /// <exception cref="MigrationException"><c>DefinitionDiffers</c>, with both: the name is taken.</exception>
    internal static bool Replaces(BackfillRecord record, BackfillDefinition definition)
    {
        string? difference = Difference(record, definition);
        return difference is null || record.IsUnused ? difference is not null : throw new MigrationException(
            "DefinitionDiffers",
            MigrationErrorKind.InvalidState,
            $"A backfill named {definition.Name} is recorded with another definition{(record.IsCompleted ? "" : ", and is not finished")}. {difference}",
            record.IsCompleted
                ? "Give this one another name with -Name, or remove what is recorded about the other, which is done (Remove-Backfill)."
                : "Repeat the recorded definition to resume it, give this one another name with -Name, or give the other one up (Remove-Backfill -Force): the rows that it has changed stay changed.")
        {
            Target = definition.Name,
        };
    }

    /// <summary>Whoever was away looks whether the record is still that of its own definition: somebody may have removed it and begun another backfill under its name.</summary>
    /// <exception cref="MigrationException"><c>CheckpointMissing</c>, <c>DefinitionDiffers</c>.</exception>
    internal static async Task RefuseReplacedAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        BackfillRecord record = await ReadAsync(connection, definition.Name, cancellationToken).ConfigureAwait(false) ?? throw BackfillStore.Missing(definition.Name);
        if (Difference(record, definition) is { } difference)
        {
            throw new MigrationException(
                "DefinitionDiffers",
                MigrationErrorKind.InvalidState,
                $"While the connection was lost somebody removed {definition.Name} and began another backfill under its name, which this one leaves alone. {difference}",
                "Give this one another name with -Name if it is still wanted.")
            {
                Target = definition.Name,
            };
        }
    }

    /// <summary>Refuses to share a copy that another client has begun since this one was planned, when the target was empty for one of them only: what one copies would not be in the archive of the other.</summary>
    /// <exception cref="MigrationException"><c>BegunMeanwhile</c>.</exception>
    internal static void RefuseOtherArchive(BackfillRecord record, BackfillDefinition definition)
    {
        if (definition.Into is { } into && !record.IsCompleted && record.WasEmpty != into.IsEmpty)
        {
            throw new MigrationException(
                "BegunMeanwhile",
                MigrationErrorKind.InvalidState,
                $"Another client has just begun {definition.Name}, when {into.Table.Display} was {(record.WasEmpty == true ? "still" : "no longer")} empty; by the plan of this one it was {(into.IsEmpty ? "still" : "no longer")} so, and what is copied would be kept in two ways.",
                "Run the command again: it then works with the other client, in its way.")
            {
                Target = into.Table.Display,
            };
        }
    }

    /// <summary>Refuses one whose table has another name now: its expressions and its record know it by the old one, which may be another table's by now. While it runs, also one whose table is gone.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="name">The backfill's name.</param>
    /// <param name="runs">Whether it runs.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>TableRenamed</c>, <c>TableDropped</c>.</exception>
    internal static async Task RefuseRenamedAsync(NpgsqlConnection connection, string name, bool runs, CancellationToken cancellationToken)
    {
        (string asked, string? now) = await TableAsync(connection, name, cancellationToken).ConfigureAwait(false);
        if (now is null && runs)
        {
            throw new MigrationException(
                "TableDropped",
                MigrationErrorKind.InvalidState,
                $"{asked}, the table of backfill {name}, was dropped while the backfill ran.",
                "Where another table has its name now, the same command begins a backfill of that one.")
            {
                Target = asked,
            };
        }

        if (now is not null && now != asked)
        {
            throw new MigrationException(
                "TableRenamed",
                MigrationErrorKind.InvalidState,
                $"{asked}, the table of backfill {name}, is named {now} now.",
                $"Give it its old name back to finish the backfill; or begin one of {now} with Start-Backfill, which passes over the rows that are done, and remove this one (Remove-Backfill -Force).")
            {
                Target = asked,
            };
        }
    }

    /// <summary>What the table of a backfill was called when it began, and what it is called now; null where it is gone.</summary>
    private static async Task<(string Asked, string? Now)> TableAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select b.table_schema, b.table_name, n.nspname::text, c.relname::text
            from {BackfillStore.Table} b
            left join pg_catalog.pg_class c on c.oid = b.table_oid and c.relkind in ('r', 'p')
            left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where b.name = $1
            """;
        await using NpgsqlCommand command = BackfillStore.Command(connection, Query, name);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            throw BackfillStore.Missing(name);
        }

        string Name(int first) => $"{SqlName.QuoteIfNeeded(reader.GetString(first))}.{SqlName.QuoteIfNeeded(reader.GetString(first + 1))}";
        return (Name(0), await reader.IsDBNullAsync(3, cancellationToken).ConfigureAwait(false) ? null : Name(2));
    }
}
