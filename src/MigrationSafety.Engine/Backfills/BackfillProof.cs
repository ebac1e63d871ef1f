using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>How a backfill is tested.</summary>
public sealed record BackfillTestRequest
{
    /// <summary>Its name.</summary>
    public required string Name { get; init; }

    /// <summary>Which rows' values are compared with what the expressions give now.</summary>
    public BackfillComparison Comparison { get; init; }

    /// <summary>About how many rows a sample has.</summary>
    public long SampleSize { get; init; } = 10_000;

    /// <summary>How long each of its queries may take.</summary>
    public TimeSpan StatementTimeout { get; init; } = TimeSpan.FromMinutes(10);
}

/// <summary>Proves from the table itself that a backfill is done. Reads only; a standby will do.</summary>
public static class BackfillProof
{
    private const int Examples = 5;
    private const int FewestBlocks = 20;

    // What a table's size and a sample of its blocks tell of the number of its rows; a large table is not counted when it begins.
    private const double EstimateError = 0.25;

    /// <summary>Tests it.</summary>
    /// <param name="session">Session; a standby's will do.</param>
    /// <param name="request">What is to be tested.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>What was found.</returns>
    /// <exception cref="MigrationException"><c>BackfillNotFound</c>, <c>TestTimedOut</c>, <c>TableBusy</c>, <c>RecoveryConflict</c>, <c>ComparisonImpossible</c>, or what the server refused.</exception>
    public static async Task<BackfillTestResult> TestAsync(EngineSession session, BackfillTestRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(sink);
        long start = Stopwatch.GetTimestamp();
        string activity = $"Testing {request.Name}";
        try
        {
            session = await DistributedTable.HolderAsync(session, request.Name, sink, cancellationToken).ConfigureAwait(false);
            BackfillStatus status = await BackfillControl.FindAsync(session, request.Name, sink, cancellationToken).ConfigureAwait(false);
            BackfillRequest recorded = await BackfillControl.RequestAsync(session, request.Name, sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlConnection connection = await Backfill.OpenAsync(session, recorded, sink, cancellationToken).ConfigureAwait(false);
            BackfillDefinition definition = await BackfillDefinition.FindAsync(connection, recorded, cancellationToken).ConfigureAwait(false);
            await BackfillPrivileges.CheckAsync(connection, definition, writes: false, cancellationToken).ConfigureAwait(false);
            BackfillQueries queries = new(definition);
            await SetTimeoutAsync(connection, request.StatementTimeout, cancellationToken).ConfigureAwait(false);

            List<string> details = [];
            sink.Progress(new OperationProgress(activity, "Counting the rows that match"));
            LongLook look = new(session, activity, definition.Table.Display, recorded.Options.LockTimeout, request.StatementTimeout, sink);
            Task<T> LookAsync<T>(Func<Task<T>> ask) => look.RunAsync(connection.ProcessID, ask, error => error.SqlState == SqlStates.LockNotAvailable, cancellationToken);
            (long rows, long own, long matching) = await LookAsync(() => CountAsync(connection, queries, sink, cancellationToken)).ConfigureAwait(false);
            (long? expected, bool counted, string? why) = await ExpectedAsync(connection, definition, cancellationToken).ConfigureAwait(false);
            (long compared, long different, string[] examples) = (0, 0, []);
            if (request.Comparison != BackfillComparison.None)
            {
                sink.Progress(new OperationProgress(activity, "Comparing values"));
                (compared, different, examples) = await LookAsync(() => CompareAsync(connection, definition, queries, request, own, sink, cancellationToken)).ConfigureAwait(false);
            }

            bool completed = status.State is BackfillState.Completed or BackfillState.CompletedWithErrors;
            // A sample that has met nothing of what is done proves nothing.
            bool nothing = request.Comparison != BackfillComparison.None && compared == 0 && own > matching;
            Say(details, status, definition, completed, matching, different);
            if (nothing)
            {
                details.Add("No row was compared: of those in the sample none is done. Give a larger -SampleSize, or -Comparison All.");
            }

            if ((why ?? Balance(expected, rows, counted)) is { } balance)
            {
                details.Add(balance);
            }

            return new BackfillTestResult
            {
                Origin = session.Info,
                Server = session.Info.Server,
                Port = session.Info.Port,
                Database = session.Info.Database,
                Name = request.Name,
                Schema = status.Schema,
                Table = status.Table,
                Passed = completed && matching == 0 && different == 0 && !nothing,
                State = status.State,
                Matching = matching,
                Errors = status.Errors,
                Rows = rows,
                RowsExpected = expected,
                Compared = compared,
                Different = different,
                DifferentRow = examples,
                Detail = [.. details],
                Duration = Stopwatch.GetElapsedTime(start),
            };
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.QueryCanceled && !cancellationToken.IsCancellationRequested)
        {
            throw new MigrationException(
                "TestTimedOut",
                MigrationErrorKind.Timeout,
                $"{activity} took longer than {Durations.Text(request.StatementTimeout)} for a query, or somebody cancelled it.",
                "Allow more with -StatementTimeout, compare a sample instead of all, or test on a standby: -Session.",
                e)
            {
                SqlState = e.SqlState,
                Target = request.Name,
            };
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.SerializationFailure && session.Info.IsStandby)
        {
            throw new MigrationException(
                "RecoveryConflict",
                MigrationErrorKind.Busy,
                $"{activity} was ended by the standby, which had to replay what removes rows that it still read: {ServerErrors.Words(e)}",
                "Allow queries more time there (max_standby_streaming_delay, hot_standby_feedback), compare a sample, or test on the primary.",
                e)
            {
                SqlState = e.SqlState,
                Target = request.Name,
            };
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, activity, request.Name);
        }
    }

    /// <summary>Writes down how many rows there are when it begins, and what the statistics have counted by then.</summary>
    internal static async Task NoteStartAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        string counted = definition.Blocks <= BackfillSample.Blocks ? $"({new BackfillQueries(definition).All})" : "null::int8";
        string sql = $"""
            update {BackfillStore.Table}
            set rows_counted = {counted}, rows_balance = s.balance, rows_leaves = s.leaves, stats_since = s.since
            from ({Statistics}) s
            where name = $1
            """;
        await using NpgsqlCommand command = new(sql, connection) { Parameters = { new() { Value = definition.Name }, Oids(definition) } };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    // A crash takes the statistics along: it resets those of the background writer too, and with a time.
    private const string Statistics = """
        select pg_catalog.sum(pg_catalog.pg_stat_get_tuples_inserted(o.oid) - pg_catalog.pg_stat_get_tuples_deleted(o.oid))::int8 as balance, pg_catalog.count(*)::int4 as leaves,
               greatest(pg_catalog.pg_stat_get_bgwriter_stat_reset_time(),
                        pg_catalog.pg_stat_get_db_stat_reset_time((select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()))) as since
        from pg_catalog.unnest($2::oid[]) as o (oid)
        """;

    private static NpgsqlParameter Oids(BackfillDefinition definition) =>
        new() { Value = definition.Leaves.Select(leaf => leaf.Table.Oid).ToArray(), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid };

    private static async Task<(long Rows, long Own, long Matching)> CountAsync(NpgsqlConnection connection, BackfillQueries queries, IOperationSink sink, CancellationToken cancellationToken)
    {
        sink.Debug(queries.CountAll);
        await using NpgsqlCommand count = new(queries.CountAll, connection) { CommandTimeout = 0 };
        await using NpgsqlDataReader reader = await count.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        return (reader.GetInt64(0), reader.GetInt64(1), reader.GetInt64(2));
    }

    private static async Task<(long? Expected, bool Counted, string? Why)> ExpectedAsync(NpgsqlConnection connection, BackfillDefinition definition, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select pg_catalog.pg_is_in_recovery(), b.rows_leaves = s.leaves, b.stats_since is not distinct from s.since, coalesce(b.rows_counted, b.rows_in_table) + s.balance - b.rows_balance, b.rows_counted is not null
            from {BackfillStore.Table} b, ({Statistics}) s
            where b.name = $1
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = definition.Name }, Oids(definition) } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            throw BackfillReader.NotFound(definition.Name, []);
        }

        const string Unknown = "how many rows should be there cannot be told.";
        return reader.GetBoolean(0) ? (null, false, $"What was inserted and deleted since the start is counted on the primary only: on a standby {Unknown}")
            : await reader.IsDBNullAsync(1, cancellationToken).ConfigureAwait(false) ? (null, false, $"What the server's statistics had counted at the start is not recorded: {Unknown}")
            : !reader.GetBoolean(1) ? (null, false, $"Partitions came or went since the start: {Unknown}")
            : !reader.GetBoolean(2) ? (null, false, $"The server's statistics were reset since the start, by a crash or by somebody: {Unknown}")
            : await reader.IsDBNullAsync(3, cancellationToken).ConfigureAwait(false) ? (null, false, null)
            : (reader.GetInt64(3), reader.GetBoolean(4), null);
    }

    /// <summary>What the balance tells, which decides nothing: the counters are late, have what was rolled back, and not what TRUNCATE took.</summary>
    private static string? Balance(long? expected, long rows, bool counted) => expected - rows > (counted ? 0 : expected * EstimateError)
        ? $"There are about {expected - rows:N0} rows fewer than {(counted ? "" : "were estimated ")}at the start with what the server's statistics have inserted and deleted since: an estimate, as these are some seconds late and count what was rolled back, but not TRUNCATE."
        : null;

    private static async Task<(long Compared, long Different, string[] Examples)> CompareAsync(
        NpgsqlConnection connection, BackfillDefinition definition, BackfillQueries queries, BackfillTestRequest request, long rows, IOperationSink sink, CancellationToken cancellationToken)
    {
        if (definition.Kind == BackfillKind.Delete || definition.From is not null)
        {
            throw new MigrationException(
                "ComparisonImpossible",
                MigrationErrorKind.InvalidInput,
                definition.From is { } from
                    ? $"The values come from {from}, of which several rows may belong to one row: which of them was taken cannot be told."
                    : "Rows that were deleted have no values to compare.",
                "Leave -Comparison and -SampleSize out: the rows that still match tell whether it is done.")
            {
                Target = definition.Name,
            };
        }

        foreach (SetColumn column in definition.Into is null ? definition.Set : [])
        {
            if (definition.Set.FirstOrDefault(target => Mentions(column.Expression, target.Name)) is { } used)
            {
                throw new MigrationException(
                    "ComparisonImpossible",
                    MigrationErrorKind.InvalidInput,
                    $"The expression for {SqlName.QuoteIfNeeded(column.Name)} uses {SqlName.QuoteIfNeeded(used.Name)}, which the backfill has changed: what it gives now says nothing about what it gave then.",
                    "Leave -Comparison and -SampleSize out.")
                {
                    Target = definition.Name,
                };
            }
        }

        Dictionary<string, string> types = [];
        const string Types = "select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod) from pg_catalog.pg_attribute a where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped";
        await using (NpgsqlCommand command = new(Types, connection) { Parameters = { new() { Value = (definition.Into?.Table ?? definition.Table).Oid, NpgsqlDbType = NpgsqlDbType.Oid } } })
        await using (NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false))
        {
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                types[reader.GetString(0)] = reader.GetString(1);
            }
        }

        // Of whole blocks: with fewer than some the sample may be empty.
        double least = 100.0 * FewestBlocks / Math.Max(1, definition.Blocks);
        double percent = request.Comparison == BackfillComparison.All ? 100 : Math.Clamp(Math.Max(least, 100.0 * request.SampleSize / Math.Max(1, rows)), 0.0001, 100);
        string sql = queries.Compare(types, percent < 100, Examples);
        sink.Debug(sql);
        await using NpgsqlCommand compare = new(sql, connection) { CommandTimeout = 0 };
        if (percent < 100)
        {
            compare.Parameters.Add(new() { Value = (float)percent });
        }

        await using NpgsqlDataReader result = await compare.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await result.ReadAsync(cancellationToken).ConfigureAwait(false);
        return (result.GetInt64(0), result.GetInt64(1), await result.IsDBNullAsync(2, cancellationToken).ConfigureAwait(false) ? [] : result.GetFieldValue<string[]>(2));
    }

    private static bool Mentions(string expression, string column) => SqlLexer.Tokens(expression, psql: false)
        .Any(token => token.Kind is SqlTokenKind.Word or SqlTokenKind.QuotedName && SqlName.Parse(token.Span(expression).ToString()).Name == column);

    private static void Say(List<string> details, BackfillStatus status, BackfillDefinition definition, bool completed, long matching, long different)
    {
        if (!completed)
        {
            details.Add($"It is not completed: {status.State}.{(status.State is BackfillState.Running ? "" : " Resume-Backfill goes on with it.")}");
        }

        if (matching > 0)
        {
            long others = completed ? Math.Max(0, matching - status.Errors) : 0;
            string which = status.Errors > 0 ? others == 1 ? "the other" : "the others" : others == 1 ? "it" : "they";
            string refused = status.Errors > 0 ? $", of which the server refused {Math.Min(status.Errors, matching):N0} (Get-Backfill -IncludeError lists them)" : "";
            details.Add(definition.Into is { } into
                ? $"{Counts.Rows(matching, "is", "are")} missing in {into.Table.Display}{refused}{(others > 0 ? $"; {which} {(others == 1 ? "was" : "were")} inserted since, or deleted there: {definition.Remedy}, then Resume-Backfill copies what is missing" : "")}."
                : $"{Counts.Rows(matching, "matches", "match")}{refused}{(others > 0 ? $"; {which} came or changed since: {definition.Remedy}, then Resume-Backfill does what is left" : "")}.");
        }

        if (different > 0)
        {
            details.Add(definition.Into is { } into
                ? $"{Counts.Rows(different)} of those that were compared {(different == 1 ? "differs" : "differ")} in {into.Table.Display} from what the expressions give now: changed on one side since and not on the other, there before, or the expression gives another value each time."
                : $"{Counts.Rows(different)} of those that were compared {(different == 1 ? "has" : "have")} another value than the expressions give now: the application has changed it or what it is computed from, it was there before{(definition.IsDefaultWhere ? "" : " (rows for which -Where never held are compared too)")}, or the expression gives another value each time.");
        }
    }

    private static async Task SetTimeoutAsync(NpgsqlConnection connection, TimeSpan timeout, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.set_config('statement_timeout', $1, false)", connection)
        {
            Parameters = { new() { Value = $"{(long)Math.Min(timeout.TotalMilliseconds, int.MaxValue)}ms" } },
        };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }
}
