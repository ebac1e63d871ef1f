using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A connection that works on a backfill: its settings, its share of the table's lock, the answers it waits for.</summary>
internal sealed class BackfillConnection : IAsyncDisposable
{
    // What a server under statement_timeout may be late by before the connection counts as dead.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    // A batch ends within the hold limit, and then its work is known to be kept; anything else is left alone sooner.
    private static readonly TimeSpan s_patienceAfterCancel = TimeSpan.FromMilliseconds(700);
    private static readonly TimeSpan s_patienceToLeave = TimeSpan.FromMilliseconds(200);
    // A line that went dead while a connection lay in the pool gives no answer ever.
    private static readonly TimeSpan s_patienceToOpen = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_patienceToEnd = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_watchEvery = TimeSpan.FromMilliseconds(30);

    /// <summary>For a transaction that takes as long as it takes, because it locks no row of the application.</summary>
    // transaction_timeout came with 17.
    internal const string Unbounded = "select pg_catalog.set_config(name, '0', true) from pg_catalog.pg_settings where name in ('statement_timeout', 'transaction_timeout')";

    private readonly IOperationSink _sink;
    private string? _lastSql;
    private NpgsqlCommand? _prepared;
    private Task? _unanswered;
    private TimeSpan? _settled;

    private BackfillConnection(NpgsqlConnection connection, IOperationSink sink, TimeSpan holdLimit)
    {
        Connection = connection;
        _sink = sink;
        HoldLimit = holdLimit;
        Backend = (connection.ProcessID, default);
    }

    /// <summary>How long a batch may hold its rows before the server ends it.</summary>
    internal TimeSpan HoldLimit { get; }

    /// <summary>How long a batch of a request may hold its rows.</summary>
    internal static TimeSpan HoldLimitOf(BackfillRequest request) =>
        TimeSpan.FromMilliseconds(Math.Max(request.Options.LockTimeout.TotalMilliseconds, 2 * request.TargetBatchTime.TotalMilliseconds));

    /// <summary>
    /// Whether a batch may hold its rows for as long as somebody waits before the server looks for a deadlock, and fails whoever has waited: then none that holds rows may wait for one.
    /// </summary>
    internal bool MayDeadlock { get; private set; }

    /// <summary>The backend for good: its process id and its start.</summary>
    internal (int Pid, DateTime Start) Backend { get; private set; }

    internal NpgsqlConnection Connection { get; }

    /// <summary>Whether its backend may be at work although this connection is of no use any more.</summary>
    internal bool IsLost => Connection.FullState != System.Data.ConnectionState.Open || _unanswered is { IsCompleted: false };

    /// <summary>Opens a connection, ends the backend of a predecessor that may still be at work, and takes its share of the table's lock.</summary>
    internal static async Task<BackfillConnection> OpenAsync(
        EngineSession session,
        BackfillDefinition definition,
        BackfillRequest request,
        (int Pid, DateTime Start)? predecessor,
        IOperationSink sink,
        CancellationToken cancellationToken)
    {
        // A token of its own: telling a dead network to cancel takes the driver many seconds, in which no other listener to the same token would be called.
        CancellationTokenSource own = new();
        Task<BackfillConnection> opening = OpenSlowlyAsync(session, definition, request, predecessor, sink, own.Token);
        await Task.WhenAny(opening, Task.Delay(Timeout.Infinite, cancellationToken)).ConfigureAwait(false);
        if (!opening.IsCompleted)
        {
            _ = own.CancelAsync();
        }

        await Task.WhenAny(opening, Task.Delay(s_patienceToLeave, CancellationToken.None)).ConfigureAwait(false);
        if (!opening.IsCompleted)
        {
            // A network that is dead answers no cancelling either.
            _ = opening.ContinueWith(late => late.IsCompletedSuccessfully ? late.Result.DisposeAsync().AsTask() : Task.FromResult(late.Exception), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            throw new OperationCanceledException(cancellationToken);
        }

        return await opening.ConfigureAwait(false);
    }

    private static async Task<BackfillConnection> OpenSlowlyAsync(
        EngineSession session,
        BackfillDefinition definition,
        BackfillRequest request,
        (int Pid, DateTime Start)? predecessor,
        IOperationSink sink,
        CancellationToken cancellationToken)
    {
        Task<NpgsqlConnection> opening = session.OpenAsync("backfill", sink, cancellationToken);
        NpgsqlConnection connection;
        try
        {
            connection = await opening.WaitAsync(s_patienceToOpen, CancellationToken.None).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            _ = opening.ContinueWith(late => late.Result.Dispose(), CancellationToken.None, TaskContinuationOptions.OnlyOnRanToCompletion, TaskScheduler.Default);
            throw;
        }

        BackfillConnection worker = new(connection, sink, HoldLimitOf(request));
        try
        {
            if (await worker.PrepareSessionAsync(request, cancellationToken).ConfigureAwait(false))
            {
                // A standby that is about to take over, or the old primary as one. Connections to it must not be had from the pool again when the name leads elsewhere.
                session.Forget();
                throw Backfill.ReadOnly();
            }

            if (predecessor is { } old)
            {
                // Its last batch is decided when it is gone, and not before: a frozen connection keeps a backend alive.
                await using NpgsqlCommand command = new("select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity where pid = $1 and backend_start = $2", connection)
                {
                    Parameters = { new() { Value = old.Pid }, new() { Value = old.Start } },
                };
                await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }

            await BackfillLock.TakeAsync(connection, definition, request.Options.RetryFor, sink, cancellationToken).ConfigureAwait(false);
            return worker;
        }
        catch
        {
            await worker.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Runs a statement that changes rows and reads the one row that it returns.</summary>
    /// <typeparam name="T">What is read.</typeparam>
    /// <param name="sql">Statement.</param>
    /// <param name="parameters">Its parameters.</param>
    /// <param name="read">Reads the row.</param>
    /// <param name="watch">Where to note who is in the way; null where that is not asked.</param>
    /// <param name="cancellationToken">Cancels at the end of the statement, which the server bounds.</param>
    /// <param name="fires">Whether it fires triggers, which are to run within the same bound.</param>
    /// <param name="first">A statement of the same parameters, in the same transaction before it, so that it sees what that one waited for; null for none.</param>
    /// <returns>What was read; null where it returns no row.</returns>
    /// <exception cref="TimeoutException">The server does not answer; the connection is to be given up.</exception>
    internal async Task<T?> ExecuteAsync<T>(
        string sql, object[] parameters, Func<NpgsqlDataReader, T> read, BlockerWatch? watch, CancellationToken cancellationToken, bool fires = false, string? first = null)
        where T : class
    {
        cancellationToken.ThrowIfCancellationRequested();
        _settled = null;
        bool repeated = sql == _lastSql;
        if (!repeated)
        {
            _sink.Debug(sql);
            _lastSql = sql;
        }

        // Not cancelled by the token: the batch ends by itself within the hold limit, and then its work is kept.
        Task<T?> work = fires || first is not null ? SettleAsync(first, sql, parameters, read) : SendAsync(sql, repeated, parameters, read);
        if (watch is not null)
        {
            try
            {
                while (!await EndsWithinAsync(work, s_watchEvery, cancellationToken).ConfigureAwait(false))
                {
                    await watch.LookAsync(Connection.ProcessID, cancellationToken).ConfigureAwait(false);
                }
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                // The batch is waited for below, as wherever else it is cancelled.
            }
        }

        return await AnswerAsync(work, HoldLimit + s_patience, s_patienceAfterCancel, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>How long the server took for the last statement: as it returned itself, or, where it fired triggers, with those.</summary>
    internal TimeSpan ServerTime(TimeSpan returned) => _settled ?? returned;

    /// <summary>Waits for an answer; whoever is cancelled does not wait for a network that is dead.</summary>
    /// <typeparam name="T">Answer.</typeparam>
    /// <param name="work">What was sent on this connection.</param>
    /// <param name="cancellationToken">Cancels the wait.</param>
    internal Task<T> AnswerAsync<T>(Task<T> work, CancellationToken cancellationToken) => AnswerAsync(work, Timeout.InfiniteTimeSpan, s_patienceToLeave, cancellationToken);

    private async Task<T> AnswerAsync<T>(Task<T> work, TimeSpan patience, TimeSpan afterCancel, CancellationToken cancellationToken)
    {
        _unanswered = work;
        try
        {
            return await work.WaitAsync(patience, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            await EndsWithinAsync(work, afterCancel, CancellationToken.None).ConfigureAwait(false);
            if (!work.IsCompleted)
            {
                _sink.Verbose("The server does not answer; what was sent is left to it.");
            }

            throw;
        }
    }

    /// <summary>Tries the update on a few rows that match and takes it back.</summary>
    internal async Task<SampleOutcome> TryAsync(string sql, string[] places, CancellationToken cancellationToken)
    {
        _sink.Debug(sql);
        SampleOutcome outcome = new(0, 0, []);
        // One round trip: no client can keep these rows locked.
        await InTransactionAsync(
            [new("set local client_min_messages to notice"), new(sql) { Parameters = { new() { Value = places } } }, new("rollback")],
            async reader =>
            {
                await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
                outcome = new(reader.GetInt64(0), reader.GetInt64(1), reader.GetFieldValue<string[]>(2));
            },
            cancellationToken).ConfigureAwait(false);
        return outcome;
    }

    /// <summary>Asks what locks no row, however long the conditions of the user take.</summary>
    /// <typeparam name="T">What is read of each row.</typeparam>
    /// <param name="sql">Question.</param>
    /// <param name="parameters">Its parameters.</param>
    /// <param name="read">Reads a row.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task<List<T>> LookAsync<T>(string sql, object[] parameters, Func<NpgsqlDataReader, T> read, CancellationToken cancellationToken)
    {
        _sink.Debug(sql);
        List<T> rows = [];
        await InTransactionAsync(
            [new(Unbounded), With(sql, parameters), new("commit")],
            async reader =>
            {
                await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
                while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
                {
                    rows.Add(read(reader));
                }
            },
            cancellationToken).ConfigureAwait(false);
        return rows;
    }

    /// <summary>Runs statements in one transaction and one round trip. They end it themselves; where they fail it is rolled back.</summary>
    internal async Task InTransactionAsync(IReadOnlyList<NpgsqlBatchCommand> commands, Func<NpgsqlDataReader, Task>? read, CancellationToken cancellationToken)
    {
        await using NpgsqlBatch batch = new(Connection) { Timeout = 0 };
        batch.BatchCommands.Add(new NpgsqlBatchCommand("begin"));
        foreach (NpgsqlBatchCommand command in commands)
        {
            batch.BatchCommands.Add(command);
        }

        try
        {
            await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            if (read is not null)
            {
                await read(reader).ConfigureAwait(false);
            }

            while (await reader.NextResultAsync(cancellationToken).ConfigureAwait(false))
            {
            }
        }
        catch (Exception e) when (e is PostgresException or OperationCanceledException && Connection.FullState == System.Data.ConnectionState.Open)
        {
            await using NpgsqlCommand rollback = new("rollback", Connection) { CommandTimeout = 2 };
            await rollback.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        bool answers = _unanswered is null or { IsCompleted: true };
        Task closing = CloseAsync();
        await Task.WhenAny(closing, Task.Delay(answers ? s_patienceToLeave : TimeSpan.Zero)).ConfigureAwait(false);
        if (closing.IsCompleted)
        {
            await closing.ConfigureAwait(false);
        }
    }

    /// <summary>A connection cannot be closed under its statement: it closes when that ends, or the network says that it is gone.</summary>
    private async Task CloseAsync()
    {
        if (_unanswered is { } unanswered)
        {
            await unanswered.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        try
        {
            if (Connection.FullState == System.Data.ConnectionState.Open)
            {
                // A pooled connection keeps its session, and with it the locks, until it is used again.
                await ReleaseAsync().ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is NpgsqlException or IOException or InvalidOperationException)
        {
            // The session is gone, and its locks with it.
            _sink.Debug($"The table's lock went with its connection: {e.Message}");
        }

        await Connection.DisposeAsync().ConfigureAwait(false);
    }

    /// <returns>Whether it may only read.</returns>
    private async Task<bool> PrepareSessionAsync(BackfillRequest request, CancellationToken cancellationToken)
    {
        // Short waits for locks and a bound on the whole batch, both on the server: they hold while this client is frozen. Commits need no flush, because a crash
        // takes the checkpoint with the rows.
        // From 17 on the transaction is bounded too: rows stay locked when the end of a message is lost on its way.
        // What triggers say of each row the trial has shown.
        // What is waited for with rows in hand is waited for shortly: of two that wait for each other the one that has waited for deadlock_timeout is failed, and that may be the application.
        string sql = $"""
            select pg_catalog.set_config(name, value, false)
            from (values {(Connection.PostgreSqlVersion.Major >= 17 ? "('transaction_timeout', $3), " : "")}('lock_timeout', (select greatest(1, least($1, setting::int8 / 2))::text from pg_catalog.pg_settings where name = 'deadlock_timeout')),
                         ('statement_timeout', $2), ('synchronous_commit', 'off'), ('client_min_messages', 'error'), {Backfill.PlannerSettings}, {Backfill.CommonSettings}) as s (name, value)
            """;
        await using (NpgsqlCommand command = new(sql, Connection)
        {
            CommandTimeout = 20,
            Parameters =
            {
                new() { Value = (long)request.Options.LockTimeout.TotalMilliseconds / 5 },
                new() { Value = $"{(int)HoldLimit.TotalMilliseconds}ms" },
                new() { Value = $"{(int)((2 * HoldLimit) + s_patienceToEnd).TotalMilliseconds}ms" },
            },
        })
        {
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }

        if (request.Settings is { } settings)
        {
            await BackfillSettings.SetAsync(Connection, settings, cancellationToken).ConfigureAwait(false);
        }

        const string Own = """
            select a.pid, a.backend_start, s.setting::int8, pg_catalog.current_setting('transaction_read_only') = 'on'
            from pg_catalog.pg_stat_activity a, pg_catalog.pg_settings s
            where a.pid = pg_catalog.pg_backend_pid() and s.name = 'deadlock_timeout'
            """;
        await using NpgsqlCommand own = new(Own, Connection);
        await using NpgsqlDataReader reader = await own.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        Backend = (reader.GetInt32(0), reader.GetDateTime(1));
        MayDeadlock = HoldLimit.TotalMilliseconds >= reader.GetInt64(2);
        return reader.GetBoolean(3);
    }

    private async Task ReleaseAsync()
    {
        await BackfillLock.ReleaseAllAsync(Connection).ConfigureAwait(false);
        await ForgetAsync().ConfigureAwait(false);
    }

    private async Task ForgetAsync()
    {
        if (_prepared is { } prepared)
        {
            _prepared = null;
            await prepared.UnprepareAsync().ConfigureAwait(false);
            await prepared.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Prepares what is sent again and again: to plan it takes a millisecond, a good part of a short batch. One at a time, because each holds memory of the server.</summary>
    private async Task<NpgsqlCommand> CommandAsync(string sql, bool repeated, object[] parameters)
    {
        if (_prepared?.CommandText == sql)
        {
            for (int i = 0; i < parameters.Length; i++)
            {
                _prepared.Parameters[i].Value = parameters[i];
            }

            return _prepared;
        }

        NpgsqlCommand command = new(sql, Connection) { CommandTimeout = 0 };
        foreach (object parameter in parameters)
        {
            command.Parameters.Add(new NpgsqlParameter { Value = parameter });
        }

        if (repeated)
        {
            await ForgetAsync().ConfigureAwait(false);
            await command.PrepareAsync(CancellationToken.None).ConfigureAwait(false);
            _prepared = command;
        }

        return command;
    }

    private async Task<T?> SendAsync<T>(string sql, bool repeated, object[] parameters, Func<NpgsqlDataReader, T> read)
        where T : class
    {
        NpgsqlCommand command = await CommandAsync(sql, repeated, parameters).ConfigureAwait(false);
        // What is prepared stays for the next time.
        await using NpgsqlCommand? once = command == _prepared ? null : command;
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(CancellationToken.None).ConfigureAwait(false);
        T? row = await reader.ReadAsync(CancellationToken.None).ConfigureAwait(false) ? read(reader) : null;
        // The statement has committed only when the server says so.
        while (await reader.NextResultAsync(CancellationToken.None).ConfigureAwait(false))
        {
        }

        return row;
    }

    /// <summary>
    /// Runs a statement and what it fires. What is deferred would run at the end of the transaction, where no statement_timeout reaches, its rows locked: it is called for before,
    /// within what is left of the bound, and what is known of the time is known after that. One round trip.
    /// </summary>
    private async Task<T?> SettleAsync<T>(string? first, string sql, object[] parameters, Func<NpgsqlDataReader, T> read)
        where T : class
    {
        const string Spent = "extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp())::float8 * 1000";
        NpgsqlBatchCommand Bound() => new($"select pg_catalog.set_config('statement_timeout', greatest(1, $1 - {Spent})::int8::text, true)") { Parameters = { new() { Value = HoldLimit.TotalMilliseconds } } };
        T? row = null;
        await InTransactionAsync(
            [.. first is null ? (NpgsqlBatchCommand[])[] : [With(first, parameters), Bound()], With(sql, parameters), Bound(), new("set constraints all immediate"), new($"select {Spent}"), new("commit")],
            async reader =>
            {
                if (first is not null)
                {
                    await reader.NextResultAsync(CancellationToken.None).ConfigureAwait(false);
                    await reader.NextResultAsync(CancellationToken.None).ConfigureAwait(false);
                }

                row = await reader.ReadAsync(CancellationToken.None).ConfigureAwait(false) ? read(reader) : null;
                await reader.NextResultAsync(CancellationToken.None).ConfigureAwait(false);
                await reader.NextResultAsync(CancellationToken.None).ConfigureAwait(false);
                await reader.ReadAsync(CancellationToken.None).ConfigureAwait(false);
                _settled = TimeSpan.FromMilliseconds(reader.GetDouble(0));
            },
            CancellationToken.None).ConfigureAwait(false);
        return row;
    }

    private static NpgsqlBatchCommand With(string sql, object[] parameters)
    {
        NpgsqlBatchCommand command = new(sql);
        foreach (object parameter in parameters)
        {
            command.Parameters.Add(new NpgsqlParameter { Value = parameter });
        }

        return command;
    }

    private async Task<bool> EndsWithinAsync(Task work, TimeSpan time, CancellationToken cancellationToken)
    {
        _unanswered = work;
        using CancellationTokenSource timer = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Task first = await Task.WhenAny(work, Task.Delay(time, timer.Token)).ConfigureAwait(false);
        await timer.CancelAsync().ConfigureAwait(false);
        return first == work || cancellationToken.IsCancellationRequested;
    }
}
