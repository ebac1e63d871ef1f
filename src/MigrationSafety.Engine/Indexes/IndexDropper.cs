using System.Globalization;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Drops an index so that nobody waits, and keeps what it takes to build it again.</summary>
public static class IndexDropper
{
    private static readonly TimeSpan s_lately = TimeSpan.FromDays(30);

    /// <summary>Looks at the index and says what would be done. Changes nothing.</summary>
    /// <param name="session">Session.</param>
    /// <param name="request">The index.</param>
    /// <param name="sink">Warnings: it was used lately, a foreign key has no other index, there is no such index.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The plan; without steps where there is no such index.</returns>
    /// <exception cref="MigrationException">
    /// <c>IndexBacksConstraint</c>, <c>IndexIsReplicaIdentity</c>, <c>IndexIsAttached</c>, <c>IndexIsPartitioned</c>, <c>IndexKindNotSupported</c>, <c>NotAnIndex</c>,
    /// <c>InvalidName</c>, <c>PrimaryRequired</c>, <c>InsufficientPrivilege</c>, <c>LockNotAvailable</c>, or the connection's.
    /// </exception>
    public static async Task<IndexDropPlan> PlanAsync(EngineSession session, IndexDropRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await session.EnsurePrimaryAsync(sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await session.OpenAsync("index-drop", sink, cancellationToken).ConfigureAwait(false);
            return await CatalogReads.BoundedAsync(
                connection, request.Name, "Planning to drop an index", () => PlannedAsync(session, connection, request, sink, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, $"Planning to drop index {request.Name}", request.Name);
        }
    }

    /// <summary>Does what the plan says, looking again first: what changed since is taken as it is now.</summary>
    /// <param name="plan">Plan.</param>
    /// <param name="sink">Waits, retries.</param>
    /// <param name="cancellationToken">Cancels on the server too; what state the index is left in is said in a warning.</param>
    /// <returns>The outcome.</returns>
    /// <exception cref="MigrationException">
    /// What <see cref="PlanAsync"/> throws, <c>WaitedTooLong</c>, <c>TableBusy</c>, <c>IndexBeingBuilt</c>, <c>CancelledByOther</c>, <c>TerminatedByOther</c>, or the
    /// server's. The message says in what state the index is.
    /// </exception>
    public static Task<IndexDropResult> RunAsync(IndexDropPlan plan, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(sink);
        return new IndexDropRun(plan, sink).RunAsync(cancellationToken);
    }

    private static async Task<IndexDropPlan> PlannedAsync(EngineSession session, NpgsqlConnection connection, IndexDropRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        IndexDetails? index = await IndexDetails.FindAsync(connection, request.Name, request.Schema, cancellationToken).ConfigureAwait(false);
        if (index is null)
        {
            IReadOnlyList<string> alike = await IndexDetails.AlikeAsync(connection, request.Name, cancellationToken).ConfigureAwait(false);
            sink.Warning($"There is no index {request.Name} in database {connection.Database}{(request.Schema is null ? "" : $", schema {request.Schema}")}: it was dropped before, or it never was. "
                + (alike.Count > 0 ? $"Did you mean {string.Join(" or ", alike)}?" : "Check the name, the schema and the database."));
            return new IndexDropPlan { Session = session, Action = $"Drop index {request.Name}", Target = connection.Database, Steps = [], Request = request };
        }

        await EnsureDroppableAsync(connection, index, cancellationToken).ConfigureAwait(false);
        await WarnAsync(connection, index, sink, cancellationToken).ConfigureAwait(false);
        return new IndexDropPlan
        {
            Session = session,
            Action = $"Drop index {SqlName.QuoteIfNeeded(index.Name)}",
            Target = index.Table.Display,
            Steps = [await StepAsync(connection, index, cancellationToken).ConfigureAwait(false)],
            Request = request,
            Index = index,
        };
    }

    /// <summary>The step, with what builds the index again as its reversal.</summary>
    internal static async Task<MigrationStep> StepAsync(NpgsqlConnection connection, IndexDetails index, CancellationToken cancellationToken)
    {
        InvalidIndexEntry? invalid = index.Valid ? null : await InvalidIndexEntry.ReadOneAsync(connection, index.Oid, cancellationToken).ConfigureAwait(false);
        MigrationStep step = DropStep(index.Display, index.Table.Display, invalid is null ? $"Drop index {index.Display}" : $"Drop the invalid index {index.Display}");
        return invalid is null || invalid.MayHaveServed
            ? step with
            {
                Reversal = await IndexRestoration.ComposeAsync(connection, index, cancellationToken).ConfigureAwait(false),
                Reversibility = Reversibility.Reversible,
                ReversalNote = Note(index, invalid),
            }
            : step with
            {
                Reversibility = Reversibility.NotNeeded,
                ReversalNote = invalid.OriginalServes ? $"What a rebuild of {SqlName.QuoteIfNeeded(invalid.Original!)} left; that index serves on." : "An index that was never finished: no query used it.",
            };
    }

    /// <summary>The statement that drops an index concurrently.</summary>
    internal static MigrationStep DropStep(string index, string table, string purpose) => new()
    {
        Sql = $"DROP INDEX CONCURRENTLY IF EXISTS {index}",
        Purpose = purpose,
        LockMode = TableLockMode.ShareUpdateExclusive,
        Objects = [table, index],
        Transactional = false,
        Cost = StepCost.Instant,
    };

    /// <summary>Refuses an index that something else depends on, and says how it is dropped properly.</summary>
    internal static async Task EnsureDroppableAsync(NpgsqlConnection connection, IndexDetails index, CancellationToken cancellationToken)
    {
        index.EnsureOpen();
        if (!index.Owned)
        {
            throw index.NotOwned();
        }

        if (index.Toast && index.Valid)
        {
            throw index.Refusal("IndexKindNotSupported", MigrationErrorKind.NotSupported, $"{index.Display} serves the toast table of {index.Owner.Display}, which cannot be without it.", "It goes with its table.");
        }

        foreach ((char type, string name, string table, bool own) in await ConstraintsAsync(connection, index, cancellationToken).ConfigureAwait(false))
        {
            throw own
                ? index.Refusal(
                    "IndexBacksConstraint",
                    MigrationErrorKind.InvalidState,
                    $"{index.Display} backs the {KindInWords(type)} {SqlName.QuoteIfNeeded(name)} of {table}.",
                    $"Drop the constraint, and the index goes with it: ALTER TABLE {table} DROP CONSTRAINT {SqlName.QuoteIfNeeded(name)}. It takes ACCESS EXCLUSIVE on the table, for a moment.")
                : index.Refusal(
                    "IndexBacksConstraint",
                    MigrationErrorKind.InvalidState,
                    $"The foreign key {SqlName.QuoteIfNeeded(name)} of {table} points at the columns of {index.Display} and depends on it.",
                    $"Drop that foreign key first: ALTER TABLE {table} DROP CONSTRAINT {SqlName.QuoteIfNeeded(name)}. It takes ACCESS EXCLUSIVE on both tables, for a moment.");
        }

        if (index.AttachedTo is { } parent)
        {
            throw index.Refusal(
                "IndexIsAttached",
                MigrationErrorKind.InvalidState,
                $"{index.Display} is attached to {parent}, an index of the partitioned table: PostgreSQL detaches it only together with its partition.",
                $"Drop {parent}, or detach the partition {index.Table.Display} first. An attached index that is not valid can be rebuilt: Invoke-SafeIndexRebuild.");
        }

        if (index.Partitioned)
        {
            throw index.Refusal(
                "IndexIsPartitioned",
                MigrationErrorKind.NotSupported,
                $"{index.Display} is an index of a partitioned table: PostgreSQL cannot drop it concurrently, nor one partition's part of it.",
                $"DROP INDEX {index.Display} takes ACCESS EXCLUSIVE on {index.Table.Display} and all its partitions, for a moment: run it with a lock_timeout (SET lock_timeout = '500ms'), again and again until it gets its locks.");
        }

        if (index.ReplicaIdentity)
        {
            throw index.Refusal(
                "IndexIsReplicaIdentity",
                MigrationErrorKind.InvalidState,
                $"{index.Display} is the replica identity of {index.Table.Display}: without it, UPDATE and DELETE fail where the table is published.",
                $"Choose another identity first: ALTER TABLE {index.Table.Display} REPLICA IDENTITY DEFAULT (the primary key), or USING INDEX another.");
        }
    }

    private static string? Note(IndexDetails index, InvalidIndexEntry? invalid)
    {
        string?[] parts =
        [
            invalid is null ? null : "It was not valid: dropped in part, or built in part.",
            index.Unique ? "Until it is back, duplicates are accepted; then it cannot be built." : null,
            index.Definition.Contains('(', StringComparison.Ordinal) && index.Statistics.Length > 0 ? "ANALYZE fills the statistics of its expressions again." : null,
        ];
        return parts.Any(part => part is not null) ? string.Join(' ', parts.Where(part => part is not null)) : null;
    }

    private static string KindInWords(char type) => type switch
    {
        'p' => "primary key",
        'u' => "unique constraint",
        'x' => "exclusion constraint",
        _ => "constraint",
    };

    private static async Task<IReadOnlyList<(char Type, string Name, string Table, bool Own)>> ConstraintsAsync(NpgsqlConnection connection, IndexDetails index, CancellationToken cancellationToken)
    {
        const string Query = """
            select k.contype, k.conname::text, pg_catalog.format('%I.%I', n.nspname, c.relname), k.contype <> 'f'
            from pg_catalog.pg_constraint k
            join pg_catalog.pg_class c on c.oid = k.conrelid
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where k.conindid = $1 and k.contype in ('p', 'u', 'x', 'f')
            order by k.contype = 'f', k.conname
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = index.Oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<(char, string, string, bool)> constraints = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            constraints.Add((reader.GetChar(0), reader.GetString(1), reader.GetString(2), reader.GetBoolean(3)));
        }

        return constraints;
    }

    private static async Task WarnAsync(NpgsqlConnection connection, IndexDetails index, IOperationSink sink, CancellationToken cancellationToken)
    {
        if (!index.Valid)
        {
            return;
        }

        string since = index.StatisticsReset is { } reset ? string.Create(CultureInfo.InvariantCulture, $"since {reset:yyyy-MM-dd HH:mm}") : "since the statistics began";
        if (index.LastScanAge is { } age && age < s_lately)
        {
            sink.Warning($"{index.Display} was last used by a query {Durations.Text(age)} ago; {index.Scans:N0} scans {since}. Standbys count for themselves.");
        }
        else if (index.LastScanAge is null && index.Scans > 0)
        {
            // Before 16 the server does not keep when.
            sink.Warning($"{index.Display} was used by queries: {index.Scans:N0} scans {since}. Standbys count for themselves.");
        }

        foreach ((string key, string parent) in await LonelyForeignKeysAsync(connection, index, cancellationToken).ConfigureAwait(false))
        {
            sink.Warning($"{index.Display} is the only index that begins with the columns of foreign key {key}: without it, each DELETE in {parent} reads all of {index.Table.Display}.");
        }
    }

    /// <summary>Foreign keys of the table whose columns lead this index and no other valid, complete one.</summary>
    private static async Task<IReadOnlyList<(string Key, string Parent)>> LonelyForeignKeysAsync(NpgsqlConnection connection, IndexDetails index, CancellationToken cancellationToken)
    {
        const string Query = """
            with serving as (
                select k.oid as key, i.indexrelid
                from pg_catalog.pg_constraint k
                join pg_catalog.pg_index i on i.indrelid = k.conrelid and i.indisvalid and i.indpred is null
                where k.conrelid = $1 and k.contype = 'f'
                  and (i.indkey::int2[])[0:pg_catalog.cardinality(k.conkey) - 1] operator(pg_catalog.@>) k.conkey
                  and i.indnkeyatts >= pg_catalog.cardinality(k.conkey)
            )
            select pg_catalog.quote_ident(k.conname), pg_catalog.format('%I.%I', n.nspname, p.relname)
            from pg_catalog.pg_constraint k
            join pg_catalog.pg_class p on p.oid = k.confrelid
            join pg_catalog.pg_namespace n on n.oid = p.relnamespace
            where k.oid in (select key from serving group by key having pg_catalog.bool_and(indexrelid = $2))
            order by k.conname
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = index.Table.Oid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = index.Oid, NpgsqlDbType = NpgsqlDbType.Oid } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<(string, string)> keys = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            keys.Add((reader.GetString(0), reader.GetString(1)));
        }

        return keys;
    }
}
