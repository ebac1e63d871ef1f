using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Which backfills are to be read.</summary>
public sealed record BackfillFilter
{
    /// <summary>Their names; null for all.</summary>
    public Func<string, bool>? Name { get; init; }

    /// <summary>Those of a table, as in SQL; null for all.</summary>
    public string? Table { get; init; }

    /// <summary>The schema of that table; null where <see cref="Table"/> names it or for any.</summary>
    public string? Schema { get; init; }

    /// <summary>What they are doing; none for all.</summary>
    public IReadOnlyList<BackfillState> States { get; init; } = [];

    /// <summary>Whether the rows that the server refused are read too.</summary>
    public bool IncludeErrors { get; init; }
}

/// <summary>Reads the backfills that a database has recorded, whoever runs them.</summary>
public static class BackfillReader
{
    private const int MostNamed = 10;

    private const string Statuses = $"""
        select b.name, b.table_schema, b.table_name, b.set_columns, b.set_expressions, b.predicate, b.strategy, b.state, b.sweep, b.rows_estimated, b.rows_in_table,
               coalesce((select pg_catalog.sum(w.rows_done) from {BackfillStore.Workers} w where w.backfill = b.name), 0)::int8,
               coalesce((select pg_catalog.sum(r.rows_seen) from {BackfillStore.Ranges} r where r.backfill = b.name), 0)::int8,
               (select pg_catalog.count(*) from {BackfillStore.Errors} e where e.backfill = b.name and not e.again),
               coalesce(b.last_error, (select e.message from {BackfillStore.Errors} e where e.backfill = b.name order by e.failed_at desc limit 1)),
               b.waiting_for, b.waiting_since, b.workers, b.target_batch_ms, b.max_errors, b.throttle::text, b.role, b.started_at,
               greatest(b.updated_at, (select pg_catalog.max(w.heartbeat) from {BackfillStore.Workers} w where w.backfill = b.name)), b.finished_at, pg_catalog.clock_timestamp(), b.kind, b.source,
               b.rows_before, pg_catalog.pg_is_in_recovery(), b.settings ->> 'search_path', b.settings ->> 'TimeZone',
               (select c.relname::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'migration_safety' and c.relname = b.archive),
               b.into_schema, b.into_table
        from {BackfillStore.Table} b
        where $1::text is null or b.name = $1
        order by b.started_at, b.name
        """;

    private static readonly string s_workers = $"""
        select w.backfill, w.number, w.pid, w.application, w.client, w.role, w.rows_done, w.batches, w.started_at, w.heartbeat
        from {BackfillStore.Workers} w
        join {BackfillStore.Table} b on b.name = w.backfill
        where ($1::text is null or w.backfill = $1) and {BackfillStore.IsAtWork}
        order by w.started_at, w.number
        """;

    private const string Errors = $"""
        select e.backfill, e.relation_name, e.key_columns, e.key, e.place, e.sqlstate, e.message, e.failed_at, e.again
        from {BackfillStore.Errors} e
        where $1::text is null or e.backfill = $1
        order by e.failed_at, e.place
        """;

    /// <summary>Reads them, in the order in which they began; where Citus distributes the database, those of its nodes.</summary>
    /// <param name="session">Session; a standby's will do.</param>
    /// <param name="filter">Which ones.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The backfills; none where none was ever recorded.</returns>
    /// <exception cref="MigrationException">Why they cannot be read.</exception>
    public static async Task<IReadOnlyList<BackfillStatus>> ReadAsync(EngineSession session, BackfillFilter filter, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        ArgumentNullException.ThrowIfNull(sink);
        try
        {
            IReadOnlyList<EngineSession> nodes = await DistributedTable.NodesAsync(session, sink, cancellationToken).ConfigureAwait(false);
            List<BackfillStatus> all = [];
            foreach (EngineSession node in nodes.Count == 0 ? [session] : nodes)
            {
                await using NpgsqlConnection connection = await node.OpenAsync("backfills", sink, cancellationToken).ConfigureAwait(false);
                all.AddRange(await ReadAsync(connection, node.Info, name: null, filter.IncludeErrors, cancellationToken).ConfigureAwait(false));
            }

            (string? schema, string? table) = Names(filter);
            return [.. all.Where(status => filter.Name?.Invoke(status.Name) != false
                && (table is null || status.Table == table) && (schema is null || status.Schema == schema)
                && (filter.States.Count == 0 || filter.States.Contains(status.State)))];
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw BackfillSchema.Translate(e, session.Info.User, "Reading the backfills", session.Info.ToString(), writes: false);
        }
    }

    /// <summary>Reads one, or all, on a connection of the caller.</summary>
    /// <returns>None where nothing is recorded.</returns>
    internal static async Task<IReadOnlyList<BackfillStatus>> ReadAsync(NpgsqlConnection connection, MigrationSession session, string? name, bool withErrors, CancellationToken cancellationToken)
    {
        NpgsqlParameter Name() => new() { Value = (object?)name ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text };
        await using NpgsqlBatch batch = new(connection)
        {
            BatchCommands =
            {
                new(s_workers) { Parameters = { Name() } },
                new(withErrors ? Errors : Errors + " limit 0") { Parameters = { Name() } },
                new(Statuses) { Parameters = { Name() } },
            },
        };
        try
        {
            await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            ILookup<string, BackfillWorkerStatus> workers = await RowsAsync(reader, Worker, cancellationToken).ConfigureAwait(false);
            await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
            ILookup<string, BackfillError> errors = await RowsAsync(reader, Error, cancellationToken).ConfigureAwait(false);
            await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
            List<BackfillStatus> found = [];
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                found.Add(Status(reader, session, [.. workers[reader.GetString(0)]]) with { ErrorRows = [.. errors[reader.GetString(0)]] });
            }

            return found;
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.UndefinedTable)
        {
            // None was ever recorded here.
            return [];
        }
    }

    internal static MigrationException NotFound(string name, IEnumerable<string> others)
    {
        string[] all = [.. others];
        // Those that are most like it first.
        string[] names = [.. all.OrderByDescending(other => other.Contains(name, StringComparison.OrdinalIgnoreCase)).Take(MostNamed)];
        return new(
            "BackfillNotFound",
            MigrationErrorKind.NotFound,
            $"No backfill named {name} is recorded in this database.",
            names.Length == 0 ? "None is recorded here: Start-Backfill begins one." : $"Recorded are {string.Join(", ", names)}{(all.Length > MostNamed ? $" and {all.Length - MostNamed:N0} more" : "")}; Get-Backfill lists them.")
        {
            Target = name,
        };
    }

    private static (string? Schema, string? Table) Names(BackfillFilter filter)
    {
        (string? schema, string? table) = filter.Table is null ? (null, null) : SqlName.Parse(filter.Table);
        schema ??= filter.Schema is null ? null : SqlName.Parse(filter.Schema).Name;
        return (schema is null ? null : SqlName.QuoteIfNeeded(schema), table is null ? null : SqlName.QuoteIfNeeded(table));
    }

    private static BackfillStatus Status(NpgsqlDataReader reader, MigrationSession session, BackfillWorkerStatus[] workers)
    {
        string recorded = reader.GetString(7);
        (long estimated, long inTable, long done, long seen, long errors) = (reader.GetInt64(9), reader.GetInt64(10), reader.GetInt64(11), reader.GetInt64(12), reader.GetInt64(13));
        (long before, bool standby) = (reader.GetInt64(28), reader.GetBoolean(29));
        BackfillState state = (recorded, workers.Length > 0) switch
        {
            (BackfillStore.Running, true) => BackfillState.Running,
            // Who works on it is to be seen on the primary alone.
            (BackfillStore.Running, false) => standby ? BackfillState.Running : BackfillState.Interrupted,
            (BackfillStore.Completed, _) => errors > 0 ? BackfillState.CompletedWithErrors : BackfillState.Completed,
            (_, true) => BackfillState.Pausing,
            _ => BackfillState.Paused,
        };
        bool ended = recorded == BackfillStore.Completed;
        DateTimeOffset now = reader.Time(25)!.Value;
        long remaining = ended ? errors : BackfillRecords.Left(estimated, done, before);
        // How many a sweep will find is not known, and a pause has no end that is.
        bool passes = reader.GetInt32(8) == 0 && reader.Text(15)?.StartsWith(ThrottleDecision.PausedWord, StringComparison.Ordinal) != true;
        double? rate = state == BackfillState.Running && workers.Length > 0
            ? workers.Sum(worker => worker.Rows) / Math.Max(0.001, (now - workers.Min(worker => worker.StartedAt)).TotalSeconds)
            : null;
        return new BackfillStatus
        {
            Origin = session,
            Server = session.Server,
            Port = session.Port,
            Database = session.Database,
            Name = reader.GetString(0),
            Schema = SqlName.QuoteIfNeeded(reader.GetString(1)),
            Table = SqlName.QuoteIfNeeded(reader.GetString(2)),
            Action = Action(reader) + (reader.Text(27) is { } source ? $" from {source}" : ""),
            Where = reader.GetString(5),
            Archive = reader.Text(32) is { } archive ? BackfillArchive.Table(archive) : null,
            Strategy = reader.GetString(6) == "key" ? BackfillStrategy.Key : BackfillStrategy.Block,
            State = state,
            Sweep = reader.GetInt32(8),
            Percent = ended ? 100 : inTable > 0 ? Math.Min(99.9, 100.0 * seen / inTable) : null,
            Done = done,
            Remaining = remaining,
            RowsPerSecond = rate,
            RemainingTime = passes && rate > 0.5 && remaining > 0 && remaining / rate < TimeSpan.FromDays(10_000).TotalSeconds ? TimeSpan.FromSeconds(Math.Ceiling(remaining / rate.Value)) : null,
            // What was written down by who is gone is old.
            WaitingFor = state == BackfillState.Running ? reader.Text(15) : null,
            WaitingSince = state == BackfillState.Running ? reader.Time(16) : null,
            Errors = errors,
            LastError = reader.Text(14),
            Workers = workers,
            WorkersWanted = reader.GetInt32(17),
            TargetBatchTime = TimeSpan.FromMilliseconds(reader.GetInt32(18)),
            MaxErrors = reader.GetInt64(19),
            Throttle = ThrottleLimits.FromJson(reader.Text(20)).Text,
            SearchPath = reader.GetString(30),
            TimeZone = reader.GetString(31),
            User = reader.Text(21),
            StartedAt = reader.Time(22)!.Value,
            UpdatedAt = reader.Time(23)!.Value,
            FinishedAt = reader.Time(24),
        };
    }

    private static string Action(NpgsqlDataReader reader)
    {
        SetColumn[] set = [.. reader.GetFieldValue<string[]>(3).Zip(reader.GetFieldValue<string[]>(4), (column, expression) => new SetColumn(column, expression))];
        return BackfillStore.KindOf(reader.GetString(26)) switch
        {
            BackfillKind.Delete => "delete",
            BackfillKind.Insert => $"insert into {BackfillDefinition.Copy($"{SqlName.QuoteIfNeeded(reader.GetString(33))}.{SqlName.QuoteIfNeeded(reader.GetString(34))}", set)}",
            _ => BackfillDefinition.Text(set),
        };
    }

    private static (string Name, BackfillWorkerStatus Row) Worker(NpgsqlDataReader reader) => (reader.GetString(0), new BackfillWorkerStatus
    {
        Number = reader.GetInt32(1),
        Pid = reader.GetInt32(2),
        Application = reader.Text(3),
        ClientAddress = reader.Text(4),
        User = reader.Text(5),
        Rows = reader.GetInt64(6),
        Batches = reader.GetInt64(7),
        StartedAt = reader.Time(8)!.Value,
        Heartbeat = reader.Time(9)!.Value,
    });

    private static (string Name, BackfillError Row) Error(NpgsqlDataReader reader) => (reader.GetString(0), new BackfillError
    {
        Table = reader.GetString(1),
        KeyColumn = reader.IsDBNull(2) ? [] : [.. reader.GetFieldValue<string[]>(2).Select(SqlName.QuoteIfNeeded)],
        Key = reader.IsDBNull(3) ? [] : reader.GetFieldValue<string[]>(3),
        Place = reader.GetString(4),
        SqlState = reader.GetString(5),
        Message = reader.GetString(6),
        FailedAt = reader.Time(7)!.Value,
        Again = reader.GetBoolean(8),
    });

    private static async Task<ILookup<string, T>> RowsAsync<T>(NpgsqlDataReader reader, Func<NpgsqlDataReader, (string Name, T Row)> read, CancellationToken cancellationToken)
    {
        List<(string Name, T Row)> rows = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            rows.Add(read(reader));
        }

        return rows.ToLookup(row => row.Name, row => row.Row);
    }
}
