using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Builds an index so that nobody waits, nothing invalid stays, and the same call again finishes or finds it done.</summary>
public static class IndexBuilder
{
    private static readonly Version s_firstSound = new(14, 4);

    /// <summary>Looks at what is there and says what would be done. Changes nothing.</summary>
    /// <param name="session">Session.</param>
    /// <param name="request">The index that is wanted.</param>
    /// <param name="sink">Warnings: the same index under another name, sessions that would be waited for and hardly end by themselves.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The plan; without steps where a valid index of this name and definition is there.</returns>
    /// <exception cref="MigrationException">
    /// <c>TableNotFound</c>, <c>TableKindNotSupported</c>, <c>ColumnNotFound</c>, <c>InvalidExpression</c>, <c>IndexNameTaken</c>, <c>InvalidName</c>,
    /// <c>PrimaryRequired</c>, <c>InsufficientPrivilege</c>, <c>ServerCorruptsIndexes</c>, <c>ForeignPartition</c>, <c>PartitionKeyNotUnique</c>,
    /// <c>LockNotAvailable</c>, what the server has against the definition, or the connection's.
    /// </exception>
    public static async Task<IndexBuildPlan> PlanAsync(EngineSession session, IndexBuildRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(sink);
        CheckServer(session, request, sink);
        try
        {
            await session.EnsurePrimaryAsync(sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await session.OpenAsync("index-plan", sink, cancellationToken).ConfigureAwait(false);
            await CatalogReads.BoundAsync(connection, cancellationToken).ConfigureAwait(false);
            try
            {
                return await PlanAsync(session, connection, request, sink, cancellationToken).ConfigureAwait(false);
            }
            catch (PostgresException e) when (e.SqlState == SqlStates.LockNotAvailable)
            {
                throw await CatalogReads.BusyAsync(connection, request.Table, "Planning an index", e, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, $"Planning an index on {request.Table}", request.Table);
        }
    }

    /// <summary>Does what the plan says, looking again first: what changed since is taken as it is now.</summary>
    /// <param name="plan">Plan.</param>
    /// <param name="sink">Progress, waits, retries.</param>
    /// <param name="cancellationToken">Cancels on the server too; a leftover that cannot be removed within a second is named in a warning.</param>
    /// <returns>The outcome, read back from the catalog.</returns>
    /// <exception cref="MigrationException">
    /// What <see cref="PlanAsync(EngineSession, IndexBuildRequest, IOperationSink, CancellationToken)"/> throws, <c>DuplicateKey</c>, <c>WaitedTooLong</c>, <c>TableBusy</c>,
    /// <c>IndexBeingBuilt</c>, <c>CancelledByOther</c>, <c>TerminatedByOther</c>, <c>IndexNotValid</c>, or the server's. A leftover was removed, or the message names it.
    /// </exception>
    public static Task<IndexBuildResult> RunAsync(IndexBuildPlan plan, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(sink);
        return new IndexBuildRun(plan, sink).RunAsync(cancellationToken);
    }

    /// <summary>The result of a run that failed: what was done, and what takes it back.</summary>
    /// <param name="plan">Plan.</param>
    /// <param name="failure">What <see cref="RunAsync"/> threw.</param>
    /// <returns>The result.</returns>
    public static IndexBuildResult Failed(IndexBuildPlan plan, MigrationException failure)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(failure);
        return IndexBuildRun.Failed(plan, failure);
    }

    /// <summary>The server's settings that a request asks for.</summary>
    internal static IEnumerable<(string Name, string Value)> Settings(IndexBuildRequest request)
    {
        if (request.MaintenanceWorkMem is { } memory)
        {
            yield return ("maintenance_work_mem", memory);
        }

        if (request.ParallelWorkers is { } workers)
        {
            yield return ("max_parallel_maintenance_workers", workers.ToString(System.Globalization.CultureInfo.InvariantCulture));
        }
    }

    private static async Task<IndexBuildPlan> PlanAsync(EngineSession session, NpgsqlConnection connection, IndexBuildRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        TableReference table = await TableReference.FindAsync(connection, request.Table, request.Schema, cancellationToken, "rmp").ConfigureAwait(false);
        IndexDefinition definition = await IndexDefinitionReader.ReadAsync(connection, table, request, cancellationToken).ConfigureAwait(false);
        IndexSituation situation = await IndexCatalog.InspectAsync(connection, table, definition, request.Name, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<PartitionNode> nodes = table.Kind == 'p' ? await PartitionTree.ReadAsync(connection, table, cancellationToken).ConfigureAwait(false) : [new PartitionNode(table, null)];
        if (table.Kind == 'p')
        {
            await PartitionTree.CheckAsync(connection, nodes, definition, cancellationToken).ConfigureAwait(false);
        }

        await CheckSettingsAsync(connection, request, cancellationToken).ConfigureAwait(false);
        Warn(situation, sink);
        IReadOnlyList<MigrationStep> steps = table.Kind == 'p'
            ? await PartitionedBuild.StepsAsync(connection, nodes, definition, situation, cancellationToken).ConfigureAwait(false)
            : situation.Steps();
        BuildForecast? forecast = steps.Count == 0 ? null : await BuildForecast.ReadAsync(connection, nodes, definition, cancellationToken).ConfigureAwait(false);
        foreach (string warning in forecast?.Warnings() ?? [])
        {
            sink.Warning(warning);
        }

        string duplicates = $"Duplicates are looked for first, for up to {Durations.Text(DuplicateCheck.Bound)}.";
        return new IndexBuildPlan
        {
            Session = session,
            Action = $"Build {(definition.Unique ? "unique " : "")}index {SqlName.QuoteIfNeeded(situation.Name)}",
            Target = table.Display,
            Steps = steps,
            Request = request,
            Name = situation.Name,
            Table = table,
            Definition = definition,
            EstimatedRows = forecast?.Rows,
            EstimatedSizeBytes = forecast?.SizeBytes,
            EstimatedDuration = forecast?.Duration,
            WaitsFor = forecast?.WaitsFor ?? [],
            Notes = forecast is null ? [] : [.. forecast.Notes(definition), .. definition.Unique && !request.SkipDuplicateCheck ? [duplicates] : Array.Empty<string>()],
        };
    }

    private static void Warn(IndexSituation situation, IOperationSink sink)
    {
        foreach (IndexEntry twin in situation.Twins)
        {
            sink.Warning(twin.Valid
                ? $"{situation.Table.Display} has the same index under another name: {SqlName.QuoteIfNeeded(twin.Name)}. A second one costs every write and helps no query."
                : $"{situation.Table.Display} has the same index under another name, not valid: {SqlName.QuoteIfNeeded(twin.Name)}. It is being built, or it is a leftover that every write may pay for.");
        }

        if (situation is { Existing: { Valid: true } there, Definition.With: not null } && there.Storage != situation.Definition.StorageKey())
        {
            sink.Warning($"{situation.Display} is there with other storage parameters ({(there.Storage.Length == 0 ? "none" : there.Storage)}); they are left as they are. ALTER INDEX {situation.Display} SET ({situation.Definition.With}) changes them.");
        }
    }

    private static async Task CheckSettingsAsync(NpgsqlConnection connection, IndexBuildRequest request, CancellationToken cancellationToken)
    {
        foreach ((string name, string value) in Settings(request))
        {
            try
            {
                await using NpgsqlCommand command = new("select pg_catalog.set_config($1, $2, true)", connection) { Parameters = { new() { Value = name }, new() { Value = value } } };
                await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (PostgresException e) when (e.SqlState == SqlStates.InvalidParameterValue)
            {
                throw new MigrationException(
                    "InvalidSetting", MigrationErrorKind.InvalidInput, $"The server takes no {name} of '{value}': {ServerErrors.Words(e)}", "Write a size with its unit (512MB, 2GB), and a number of workers from 0 on.", e)
                {
                    SqlState = e.SqlState,
                    Target = request.Table,
                };
            }
        }
    }

    private static void CheckServer(EngineSession session, IndexBuildRequest request, IOperationSink sink)
    {
        // Release notes of 14.4: CREATE INDEX CONCURRENTLY and REINDEX CONCURRENTLY could miss rows that were updated meanwhile.
        if (session.Info.ServerVersion is not { Major: 14 } version || version >= s_firstSound)
        {
            return;
        }

        string what = $"PostgreSQL {version} can corrupt an index that is built concurrently: rows that are updated meanwhile may be missing in it.";
        if (!request.Force)
        {
            throw new MigrationException(
                "ServerCorruptsIndexes",
                MigrationErrorKind.NotSupported,
                what,
                "Update the server to the latest 14.x first; indexes that were built concurrently on 14.0 to 14.3 need a REINDEX. -Force builds it all the same, where nobody updates the table.")
            {
                Target = request.Table,
            };
        }

        sink.Warning($"{what} It is built because of -Force: check it with amcheck (bt_index_check with heapallindexed), or REINDEX after the update.");
    }
}
