using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Progress;

/// <summary>What runs on the server right now, whoever started it: index builds of all its databases, and backfills of the session's.</summary>
public static class ProgressReader
{
    /// <summary>Takes one sample.</summary>
    /// <param name="session">Session.</param>
    /// <param name="filter">Which operations; an empty filter for all.</param>
    /// <param name="sink">A warning where this role is not shown everything.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The operations, oldest first; none where nothing runs.</returns>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>InvalidName</c>, or the connection's.</exception>
    public static async Task<IReadOnlyList<MigrationProgress>> ReadAsync(EngineSession session, ProgressFilter filter, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("progress", sink, cancellationToken).ConfigureAwait(false);
            (uint? table, bool mayReadBackfills, bool keepsBackfills) = await SituationAsync(connection, filter.Table, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<IndexBuildSample> builds = await IndexBuildSample.ReadAsync(connection, filter.Pid, table, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<MigrationProgress> backfills = mayReadBackfills
                ? await BackfillSample.ReadAsync(connection, session.Info, filter.Pid, table, cancellationToken).ConfigureAwait(false)
                : [];
            if (builds.Any(build => build.Hidden))
            {
                sink.Warning($"{session.Info.User} is not shown what other roles' index builds are at. Have a superuser run: GRANT pg_read_all_stats TO {SqlName.QuoteIfNeeded(session.Info.User)};");
            }

            if (keepsBackfills && !mayReadBackfills)
            {
                string role = SqlName.QuoteIfNeeded(session.Info.User);
                sink.Warning($"{session.Info.User} may not read the backfills of this database. Have their owner run: GRANT USAGE ON SCHEMA migration_safety TO {role}; GRANT SELECT ON migration_safety.backfill TO {role};");
            }

            return [.. builds.Select(build => Progress(session.Info, build)), .. backfills];
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, "Reading progress", filter.Table);
        }
    }

    private static async Task<(uint? Table, bool MayReadBackfills, bool KeepsBackfills)> SituationAsync(NpgsqlConnection connection, string? table, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.to_regclass($1)::oid,
                   coalesce((select pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_table_privilege(c.oid, 'SELECT')
                             from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                             where n.nspname = 'migration_safety' and c.relname = 'backfill' and c.relkind = 'r'), false),
                   exists (select from pg_catalog.pg_namespace where nspname = 'migration_safety')
            """;
        (string? schema, string? name) = table is null ? (null, null) : SqlName.Parse(table);
        string? regclass = name is null ? null : schema is null ? SqlName.Quote(name) : SqlName.Quote(schema, name);
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = (object?)regclass ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Text } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        uint? oid = await reader.IsDBNullAsync(0, cancellationToken).ConfigureAwait(false) ? null : reader.GetFieldValue<uint>(0);
        return table is null || oid is not null
            ? (oid, reader.GetBoolean(1), reader.GetBoolean(2))
            : throw new MigrationException(
                "TableNotFound",
                MigrationErrorKind.NotFound,
                $"There is no table {table} in database {connection.Database}.",
                "Check the name, the schema and the database; without -Table, everything that runs is shown.")
            {
                Target = table,
            };
    }

    private static MigrationProgress Progress(MigrationSession session, IndexBuildSample build)
    {
        IndexBuildPhase? phase = IndexBuildPhase.Of(build);
        return new MigrationProgress
        {
            Pid = build.Pid,
            Operation = build.Command ?? "CREATE INDEX or REINDEX",
            Target = build.Table,
            Index = build.Index,
            Phase = build.Phase,
            PhaseNumber = phase?.Number,
            PhaseCount = phase?.Count,
            Done = phase?.Done,
            Total = phase?.Total,
            Unit = phase?.Unit,
            PhasePercent = phase?.Percent,
            Elapsed = build.Elapsed,
            WaitingFor = build.Waiting(),
            BlockedBy = build.BlockedBy,
            Query = build.Query,
            User = build.User,
            Application = build.Application,
            Server = session.Server,
            Database = build.Database,
        };
    }
}
