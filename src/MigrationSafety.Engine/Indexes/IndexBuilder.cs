using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Builds an index so that nobody waits, nothing invalid stays, and the same call again finishes or finds it done.</summary>
public static class IndexBuilder
{
    private static readonly Version s_firstSound = new(14, 4);

    /// <summary>Looks at what is there and says what would be done. Changes nothing.</summary>
    /// <param name="session">Session.</param>
    /// <param name="request">The index that is wanted.</param>
    /// <param name="sink">Warnings: the same index under another name.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The plan; without steps where a valid index of this name and definition is there.</returns>
    /// <exception cref="MigrationException">
    /// <c>TableNotFound</c>, <c>TableKindNotSupported</c>, <c>ColumnNotFound</c>, <c>IndexNameTaken</c>, <c>InvalidName</c>, <c>PrimaryRequired</c>,
    /// <c>InsufficientPrivilege</c>, <c>ServerCorruptsIndexes</c>, or the connection's.
    /// </exception>
    public static async Task<IndexBuildPlan> PlanAsync(EngineSession session, IndexBuildRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(sink);
        CheckServer(session, request);
        try
        {
            await session.EnsurePrimaryAsync(sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await session.OpenAsync("index-plan", sink, cancellationToken).ConfigureAwait(false);
            IndexSituation situation = await IndexCatalog.InspectAsync(connection, request, cancellationToken).ConfigureAwait(false);
            foreach (IndexEntry twin in situation.Twins)
            {
                sink.Warning(twin.Valid
                    ? $"{situation.Table.Display} has the same index under another name: {Sql.SqlName.QuoteIfNeeded(twin.Name)}. A second one costs every write and helps no query."
                    : $"{situation.Table.Display} has the same index under another name, not valid: {Sql.SqlName.QuoteIfNeeded(twin.Name)}. It is being built, or it is a leftover that every write may pay for.");
            }

            return new IndexBuildPlan
            {
                Session = session,
                Action = $"Build {(request.Unique ? "unique " : "")}index {Sql.SqlName.QuoteIfNeeded(situation.Name)}",
                Target = situation.Table.Display,
                Steps = situation.Steps(),
                Request = request,
                Name = situation.Name,
                EstimatedRows = situation.Table.EstimatedRows < 0 ? null : situation.Table.EstimatedRows,
            };
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
    /// What <see cref="PlanAsync"/> throws, <c>DuplicateKey</c>, <c>WaitedTooLong</c>, <c>TableBusy</c>, <c>IndexBeingBuilt</c>, <c>CancelledByOther</c>,
    /// <c>TerminatedByOther</c>, <c>IndexNotValid</c>, or the server's. A leftover was removed, or the message names it.
    /// </exception>
    public static Task<IndexBuildResult> RunAsync(IndexBuildPlan plan, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(sink);
        return new IndexBuildRun(plan, sink).RunAsync(cancellationToken);
    }

    private static void CheckServer(EngineSession session, IndexBuildRequest request)
    {
        // Release notes of 14.4: CREATE INDEX CONCURRENTLY and REINDEX CONCURRENTLY could miss rows that were updated meanwhile.
        if (session.Info.ServerVersion is { Major: 14 } version && version < s_firstSound)
        {
            throw new MigrationException(
                "ServerCorruptsIndexes",
                MigrationErrorKind.NotSupported,
                $"PostgreSQL {version} can corrupt an index that is built concurrently: rows that are updated meanwhile may be missing in it.",
                "Update the server to the latest 14.x first; indexes that were built concurrently on 14.0 to 14.3 need a REINDEX.")
            {
                Target = request.Table,
            };
        }
    }
}
