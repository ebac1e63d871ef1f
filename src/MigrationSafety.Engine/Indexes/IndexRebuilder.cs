using System.Globalization;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Writes indexes anew so that nobody waits, and removes what earlier rebuilds left.</summary>
public static class IndexRebuilder
{
    private static readonly Version s_firstSound = new(14, 4);

    /// <summary>Finds the indexes that a request means, in the order in which they are to be worked on.</summary>
    /// <param name="session">Session.</param>
    /// <param name="request">Request.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The indexes; of a partitioned one those of its partitions, and never what a rebuild left, unless that was named.</returns>
    /// <exception cref="MigrationException">
    /// <c>NothingNamed</c>, <c>IndexNotFound</c>, <c>NotAnIndex</c>, <c>TableNotFound</c>, <c>SchemaNotFound</c>, <c>ServerCorruptsIndexes</c>, <c>PrimaryRequired</c>,
    /// <c>LockNotAvailable</c>, or the connection's.
    /// </exception>
    public static async Task<IReadOnlyList<IndexRebuildTarget>> FindAsync(EngineSession session, IndexRebuildRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(sink);
        string named = request.Name ?? request.Table ?? request.Schema
            ?? throw new MigrationException("NothingNamed", MigrationErrorKind.InvalidInput, "Nothing says what to rebuild.", "Name an index with -Name, a table with -Table, or a schema with -Schema.");
        CheckServer(session, request, named);
        try
        {
            await session.EnsurePrimaryAsync(sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await session.OpenAsync("index-rebuild", sink, cancellationToken).ConfigureAwait(false);
            return await CatalogReads.BoundedAsync(
                connection, named, "Looking for indexes to rebuild", () => TargetsAsync(connection, request, named, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, $"Looking for the indexes of {named}", named);
        }
    }

    /// <summary>Looks at one index and says what would be done. Changes nothing.</summary>
    /// <param name="session">Session.</param>
    /// <param name="request">Request.</param>
    /// <param name="target">One of those that <see cref="FindAsync"/> found.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The plan; without steps where the index is passed over.</returns>
    /// <exception cref="MigrationException">
    /// <c>IndexNotFound</c>, <c>IndexKindNotSupported</c>, <c>InsufficientPrivilege</c> (where one index was named; of many, such a one is passed over), <c>LockNotAvailable</c>, or the connection's.
    /// </exception>
    public static async Task<IndexRebuildPlan> PlanAsync(
        EngineSession session, IndexRebuildRequest request, IndexRebuildTarget target, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("index-rebuild", sink, cancellationToken).ConfigureAwait(false);
            return await CatalogReads.BoundedAsync(
                connection, target.Display, "Planning to rebuild an index", () => PlannedAsync(session, connection, request, target, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, $"Planning to rebuild index {target.Display}", target.Display);
        }
    }

    /// <summary>Does what the plan says, looking again first: what changed since is taken as it is now.</summary>
    /// <param name="plan">Plan.</param>
    /// <param name="sink">Progress, waits, retries.</param>
    /// <param name="cancellationToken">Cancels on the server too; a leftover that cannot be removed within a second is named in a warning.</param>
    /// <returns>The outcome, read back from the catalog.</returns>
    /// <exception cref="MigrationException">
    /// What <see cref="PlanAsync"/> throws, <c>DuplicateKey</c>, <c>WaitedTooLong</c>, <c>TableBusy</c>, <c>IndexBeingBuilt</c>, <c>CancelledByOther</c>,
    /// <c>TerminatedByOther</c>, <c>IndexNotValid</c>, or the server's. The index is as it was before, or rebuilt; a leftover was removed, or the message names it.
    /// </exception>
    public static Task<IndexRebuildResult> RunAsync(IndexRebuildPlan plan, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(sink);
        return new IndexRebuildRun(plan, sink).RunAsync(cancellationToken);
    }

    /// <summary>What rebuilds of this index left.</summary>
    internal static IReadOnlyList<InvalidIndexEntry> LeftoversOf(IndexDetails index, IReadOnlyList<InvalidIndexEntry> invalid) =>
        [.. invalid.Where(entry => entry.LeftByRebuild is not null && entry.Oid != index.Oid && entry.Twins.Contains(index.Name))];

    internal static MigrationStep DropStep(IndexDetails index, string leftover, string original, bool serves) =>
        IndexDropper.DropStep(leftover, index.Table.Display, $"Drop {leftover}, left by a rebuild") with
        {
            Reversibility = Reversibility.NotNeeded,
            ReversalNote = $"What a rebuild of {original} left; {(serves ? "that index serves on." : "that index is not valid either: a rebuild of it brings it back.")}",
        };

    internal static MigrationStep RebuildStep(IndexDetails index, double? bloat) => new()
    {
        Sql = $"REINDEX INDEX CONCURRENTLY {index.Display}",
        Purpose = bloat is { } percent ? string.Create(CultureInfo.InvariantCulture, $"Rebuild index {index.Display} ({percent:0}% of it is empty, by estimate)") : $"Rebuild index {index.Display}",
        LockMode = TableLockMode.ShareUpdateExclusive,
        Objects = [index.Table.Display, index.Display],
        Transactional = false,
        Cost = StepCost.BuildsIndex,
        Reversibility = Reversibility.NotNeeded,
        ReversalNote = "The same index, written anew.",
    };

    /// <summary>The server's settings that a request asks for.</summary>
    internal static IEnumerable<(string Name, string Value)> Settings(IndexRebuildRequest request)
    {
        if (request.MaintenanceWorkMem is { } memory)
        {
            yield return ("maintenance_work_mem", memory);
        }

        if (request.ParallelWorkers is { } workers)
        {
            yield return ("max_parallel_maintenance_workers", workers.ToString(CultureInfo.InvariantCulture));
        }
    }

    private static async Task<IReadOnlyList<IndexRebuildTarget>> TargetsAsync(NpgsqlConnection connection, IndexRebuildRequest request, string named, CancellationToken cancellationToken)
    {
        if (request.Name is { } name)
        {
            IndexDetails index = await IndexDetails.FindAsync(connection, name, request.Schema, cancellationToken).ConfigureAwait(false)
                ?? throw await NotFoundAsync(connection, request, name, cancellationToken).ConfigureAwait(false);
            return index.Partitioned
                ? await TargetsAsync(connection, "c.oid in (select p.relid from pg_catalog.pg_partition_tree($1) p)", index.Oid, null, cancellationToken).ConfigureAwait(false)
                : [new IndexRebuildTarget(index.Oid, index.Display)];
        }

        if (request.Table is { } table)
        {
            TableReference found = await TableReference.FindAnyAsync(connection, table, request.Schema, cancellationToken).ConfigureAwait(false);
            return await TargetsAsync(
                connection, "(coalesce(o.oid, t.oid) = $1 or coalesce(o.oid, t.oid) in (select p.relid from pg_catalog.pg_partition_tree($1) p))", found.Oid, null, cancellationToken).ConfigureAwait(false);
        }

        string schema = await InvalidIndexReader.SchemaAsync(connection, named, cancellationToken).ConfigureAwait(false);
        return await TargetsAsync(connection, "coalesce(o.relnamespace, t.relnamespace) = (select oid from pg_catalog.pg_namespace where nspname = $2)", null, schema, cancellationToken).ConfigureAwait(false);
    }

    private static async Task<IndexRebuildPlan> PlannedAsync(
        EngineSession session, NpgsqlConnection connection, IndexRebuildRequest request, IndexRebuildTarget target, CancellationToken cancellationToken)
    {
        IndexDetails? same = await IndexDetails.ReadAsync(connection, target.Oid, cancellationToken).ConfigureAwait(false);
        // By its name where its oid is gone, or is called otherwise: a rebuild that was under way has given the name to another.
        IndexDetails index = (same?.Display == target.Display ? same : await IndexDetails.FindAsync(connection, target.Display, schema: null, cancellationToken).ConfigureAwait(false))
            ?? same
            ?? throw new MigrationException("IndexNotFound", MigrationErrorKind.NotFound, $"{target.Display} was dropped a moment ago.", "Run the command again.") { Target = target.Display };
        IReadOnlyList<InvalidIndexEntry> invalid = await InvalidIndexEntry.ReadAsync(connection, index.Table.Oid, schema: null, cancellationToken).ConfigureAwait(false);
        InvalidIndexEntry? leftover = invalid.FirstOrDefault(entry => entry.Oid == index.Oid && entry.LeftByRebuild is not null);
        string? reason = null;
        double? bloat = null;
        if (await ObstacleAsync(connection, session, index, cancellationToken).ConfigureAwait(false) is { } obstacle)
        {
            reason = request.Name is null ? $"{obstacle.Message} {obstacle.RecommendedAction}" : throw obstacle;
        }
        else if (leftover is null)
        {
            bloat = await IndexBloat.EstimateAsync(connection, index.Oid, cancellationToken).ConfigureAwait(false);
            reason = Unwanted(request, index, invalid, bloat);
        }

        return new IndexRebuildPlan
        {
            Session = session,
            Action = leftover is not null ? $"Remove {SqlName.QuoteIfNeeded(index.Name)}, left by a rebuild" : $"Rebuild index {SqlName.QuoteIfNeeded(index.Name)}",
            // Of a toast index its table: they are one operation's turn.
            Target = index.Owner.Display,
            Steps = Steps(index, LeftoversOf(index, invalid), leftover, reason is null, bloat),
            Request = request,
            Index = index,
            Leftover = leftover is not null,
            Reason = reason,
            Notes = reason is null ? [] : [reason],
            EstimatedBloatPercent = bloat,
        };
    }

    private static IReadOnlyList<MigrationStep> Steps(IndexDetails index, IReadOnlyList<InvalidIndexEntry> leftovers, InvalidIndexEntry? itself, bool wanted, double? bloat) =>
    [
        .. itself is not null
            ? [DropStep(index, index.Display, SqlName.QuoteIfNeeded(itself.Original!), itself.OriginalServes)]
            : leftovers.Select(entry => DropStep(index, entry.Display, index.Display, index.Valid)),
        .. wanted && itself is null ? [RebuildStep(index, bloat)] : Array.Empty<MigrationStep>(),
    ];

    /// <summary>Why the index cannot be rebuilt while others use it; null where it can.</summary>
    private static async Task<MigrationException?> ObstacleAsync(NpgsqlConnection connection, EngineSession session, IndexDetails index, CancellationToken cancellationToken)
    {
        try
        {
            index.EnsureOpen();
        }
        catch (MigrationException e)
        {
            return e;
        }

        if (index.Exclusion)
        {
            return index.Refusal(
                "IndexKindNotSupported",
                MigrationErrorKind.NotSupported,
                $"{index.Display} backs an exclusion constraint: PostgreSQL rebuilds such an index only under a lock that stops writes.",
                $"REINDEX INDEX {index.Display} while nobody writes to {index.Table.Display}.");
        }

        return index.Owned || (session.Info.ServerVersion.Major >= 17 && await MayMaintainAsync(connection, index, cancellationToken).ConfigureAwait(false)) ? null : index.NotOwned();
    }

    private static async Task<bool> MayMaintainAsync(NpgsqlConnection connection, IndexDetails index, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.has_table_privilege($1, 'MAINTAIN')", connection) { Parameters = { new() { Value = index.Owner.Oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        return (bool)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    /// <summary>Why an index that could be rebuilt is not to be.</summary>
    private static string? Unwanted(IndexRebuildRequest request, IndexDetails index, IReadOnlyList<InvalidIndexEntry> invalid, double? bloat)
    {
        InvalidIndexEntry? entry = invalid.FirstOrDefault(entry => entry.Oid == index.Oid);
        if (entry is not null)
        {
            return request.Name is null && InvalidIndexReader.ReasonOf(entry) == InvalidIndexReason.InterruptedDrop
                ? "A drop of it was interrupted. Invoke-SafeIndexDrop finishes it; a rebuild that names it brings it back."
                : null;
        }

        return request.MinimumBloatPercent is not { } minimum ? null
            : bloat is not { } percent ? (index.Method == "btree" ? $"How much of it is empty cannot be estimated: run ANALYZE {index.Owner.Display} first." : $"How much of a {index.Method} index is empty cannot be estimated.")
            : percent < minimum ? string.Create(CultureInfo.InvariantCulture, $"About {percent:0.#}% of it is empty, by estimate: less than {minimum:0.#}%.")
            : null;
    }

    private static void CheckServer(EngineSession session, IndexRebuildRequest request, string named)
    {
        // Release notes of 14.4: CREATE INDEX CONCURRENTLY and REINDEX CONCURRENTLY could miss rows that were updated meanwhile.
        if (!request.Force && session.Info.ServerVersion is { Major: 14 } version && version < s_firstSound)
        {
            throw new MigrationException(
                "ServerCorruptsIndexes",
                MigrationErrorKind.NotSupported,
                $"PostgreSQL {version} can corrupt an index that is rebuilt concurrently: rows that are updated meanwhile may be missing in it.",
                "Update the server to the latest 14.x first; or use -Force where nobody writes to the table.")
            {
                Target = named,
            };
        }
    }

    private static async Task<MigrationException> NotFoundAsync(NpgsqlConnection connection, IndexRebuildRequest request, string name, CancellationToken cancellationToken)
    {
        IReadOnlyList<string> alike = await IndexDetails.AlikeAsync(connection, name, cancellationToken).ConfigureAwait(false);
        return new MigrationException(
            "IndexNotFound",
            MigrationErrorKind.NotFound,
            $"There is no index {name} in database {connection.Database}{(request.Schema is null ? "" : $", schema {request.Schema}")}.",
            alike.Count > 0 ? $"Did you mean {string.Join(" or ", alike)}?" : "Check the name, the schema and the database.")
        {
            Target = name,
        };
    }

    private static async Task<IReadOnlyList<IndexRebuildTarget>> TargetsAsync(NpgsqlConnection connection, string condition, uint? oid, string? schema, CancellationToken cancellationToken)
    {
        // Table by table, those of the toast table last; what a rebuild left comes with the index that it was left beside.
        string query = $"""
            select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
            from pg_catalog.pg_index i
            join pg_catalog.pg_class c on c.oid = i.indexrelid and c.relkind = 'i'
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            join pg_catalog.pg_class t on t.oid = i.indrelid
            left join pg_catalog.pg_class o on t.relkind = 't' and o.reltoastrelid = t.oid
            where ($1::oid is null or true) and ($2::name is null or true) and {condition} and c.relpersistence <> 't'
              and (i.indisvalid or c.relname !~ '_(ccnew|ccold)[0-9]*$' or not exists (
                  select from pg_catalog.pg_index x join pg_catalog.pg_class w on w.oid = x.indexrelid
                  where x.indrelid = i.indrelid and x.indexrelid <> i.indexrelid
                    and pg_catalog.replace(pg_catalog.pg_get_indexdef(w.oid), pg_catalog.format(' INDEX %I ON ', w.relname), ' INDEX ON ')
                      = pg_catalog.replace(pg_catalog.pg_get_indexdef(c.oid), pg_catalog.format(' INDEX %I ON ', c.relname), ' INDEX ON ')))
            order by coalesce(o.relname, t.relname), coalesce(o.oid, t.oid), t.relkind = 't', c.relname
            """;
        await using NpgsqlCommand command = new(query, connection)
        {
            Parameters =
            {
                new() { Value = (object?)oid ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = (object?)schema ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Name },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<IndexRebuildTarget> targets = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            targets.Add(new IndexRebuildTarget(reader.GetFieldValue<uint>(0), reader.GetString(1)));
        }

        return targets;
    }
}
