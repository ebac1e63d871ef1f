using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What a batch did, as the server committed it.</summary>
/// <param name="Changed">Rows updated.</param>
/// <param name="Skipped">Rows passed over because somebody had locked or just changed them.</param>
/// <param name="Same">Rows updated that match as before.</param>
/// <param name="AtEnd">Whether it reached the end of the sweep.</param>
/// <param name="RowsDone">Rows updated since the backfill began from the start.</param>
/// <param name="RowsSeen">Rows passed in the first sweep.</param>
/// <param name="ServerTime">Time that the server took.</param>
internal sealed record BatchOutcome(long Changed, long Skipped, long Same, bool AtEnd, long RowsDone, long RowsSeen, TimeSpan ServerTime);

/// <summary>The connection that works on a backfill: its settings, its lock on the table, its batches.</summary>
internal sealed class BackfillWorker : IAsyncDisposable
{
    // What a server under statement_timeout may be late by before the connection counts as dead.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_patienceAfterCancel = TimeSpan.FromMilliseconds(800);
    // A line that went dead while a connection lay in the pool gives no answer ever.
    private static readonly TimeSpan s_patienceToOpen = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan s_watchEvery = TimeSpan.FromMilliseconds(30);

    private readonly NpgsqlConnection _connection;
    private readonly BackfillDefinition _definition;
    private readonly BackfillStatements _statements;
    private readonly IOperationSink _sink;
    private string? _lastSql;
    private Task? _unanswered;

    private BackfillWorker(NpgsqlConnection connection, BackfillDefinition definition, IOperationSink sink, TimeSpan holdLimit)
    {
        _connection = connection;
        _definition = definition;
        _statements = new BackfillStatements(definition);
        _sink = sink;
        HoldLimit = holdLimit;
        Backend = (connection.ProcessID, default);
    }

    /// <summary>How long a batch may hold its rows before the server ends it.</summary>
    internal TimeSpan HoldLimit { get; }

    /// <summary>The backend for good: its process id and its start.</summary>
    internal (int Pid, DateTime Start) Backend { get; private set; }

    internal NpgsqlConnection Connection => _connection;

    /// <summary>Opens a connection, ends the backend of a predecessor that may still be at work, and takes the table's lock.</summary>
    internal static async Task<BackfillWorker> OpenAsync(
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

        TimeSpan holdLimit = TimeSpan.FromMilliseconds(Math.Max(request.Options.LockTimeout.TotalMilliseconds, 2 * request.TargetBatchTime.TotalMilliseconds));
        BackfillWorker worker = new(connection, definition, sink, holdLimit);
        try
        {
            await worker.PrepareSessionAsync(request, cancellationToken).ConfigureAwait(false);
            if (predecessor is { } old)
            {
                // Its last batch is decided when it is gone, and not before: a frozen connection keeps a backend, and the table's lock, alive.
                await using NpgsqlCommand command = new("select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity where pid = $1 and backend_start = $2", connection)
                {
                    Parameters = { new() { Value = old.Pid }, new() { Value = old.Start } },
                };
                await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }

            await TableOperationLock.TakeAsync(connection, definition.Table, request.Options.RetryFor, sink, cancellationToken).ConfigureAwait(false);
            return worker;
        }
        catch
        {
            await worker.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Runs a batch.</summary>
    /// <param name="size">Rows of the table to look at.</param>
    /// <param name="first">Whether the sweep has no checkpoint yet.</param>
    /// <param name="skipLocked">Whether to pass over locked rows rather than to wait shortly for them.</param>
    /// <param name="watch">Where to note who is in the way; null where that is not asked.</param>
    /// <param name="cancellationToken">Cancels at the end of the batch, which the server bounds.</param>
    /// <exception cref="TimeoutException">The server does not answer; the connection is to be given up.</exception>
    internal async Task<BatchOutcome> RunBatchAsync(int size, bool first, bool skipLocked, BlockerWatch? watch, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        string sql = skipLocked ? _statements.SkippingBatch(first) : _statements.Batch(first);
        if (sql != _lastSql)
        {
            _sink.Debug(sql);
            _lastSql = sql;
        }

        // Not cancelled by the token: the batch ends by itself within the hold limit, and then its work is kept.
        Task<BatchOutcome> work = ExecuteAsync(sql, size);
        if (watch is not null)
        {
            while (!await EndsWithinAsync(work, s_watchEvery, cancellationToken).ConfigureAwait(false))
            {
                await watch.LookAsync(_connection.ProcessID, cancellationToken).ConfigureAwait(false);
            }
        }

        return await AnswerAsync(work, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Tries the update on a few rows that match and takes it back.</summary>
    /// <returns>Keys of the rows that match as before.</returns>
    internal async Task<(int Tried, IReadOnlyList<string[]> Same)> TryAsync(string[] places, CancellationToken cancellationToken)
    {
        // One round trip: no client can keep these rows locked.
        await using NpgsqlBatch batch = new(_connection)
        {
            BatchCommands =
            {
                new NpgsqlBatchCommand("begin"),
                new NpgsqlBatchCommand(_statements.TrySample) { Parameters = { new() { Value = places } } },
                new NpgsqlBatchCommand("rollback"),
            },
        };
        _sink.Debug(_statements.TrySample);
        int tried = 0;
        List<string[]> same = [];
        try
        {
            await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                tried++;
                if (reader.GetBoolean(1))
                {
                    same.Add(reader.GetFieldValue<string[]>(0));
                }
            }
        }
        catch (PostgresException) when (_connection.FullState == System.Data.ConnectionState.Open)
        {
            await using NpgsqlCommand rollback = new("rollback", _connection);
            await rollback.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            throw;
        }

        return (tried, same);
    }

    public async ValueTask DisposeAsync()
    {
        if (_unanswered is { IsCompleted: false } unanswered)
        {
            // A connection cannot be closed under its statement; it closes itself when the statement ends or the network says that it is gone.
            _ = unanswered.ContinueWith(_ => _connection.Dispose(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            return;
        }

        try
        {
            if (_connection.FullState == System.Data.ConnectionState.Open)
            {
                // A pooled connection keeps its session, and with it the lock, until it is used again.
                await TableOperationLock.ReleaseAsync(_connection, _definition.Table).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is NpgsqlException or IOException or InvalidOperationException)
        {
            // The session is gone, and the lock with it.
            _sink.Debug($"The table's lock went with its connection: {e.Message}");
        }

        await _connection.DisposeAsync().ConfigureAwait(false);
    }

    private async Task PrepareSessionAsync(BackfillRequest request, CancellationToken cancellationToken)
    {
        // Short waits for locks and a bound on the whole batch, both on the server: they hold while this client is frozen. Commits need no flush, because a crash
        // takes the checkpoint with the rows. Only the primary key's order will do, and a wrong estimate must not choose another way.
        const string Sql = $"""
            select pg_catalog.set_config(name, value, false)
            from (values ('lock_timeout', $1), ('statement_timeout', $2), ('synchronous_commit', 'off'), ('default_transaction_isolation', 'read committed'),
                         ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), ('max_parallel_workers_per_gather', '0'), ('jit', 'off'),
                         {Backfill.CommonSettings}) as s (name, value)
            """;
        await using (NpgsqlCommand command = new(Sql, _connection)
        {
            CommandTimeout = 20,
            Parameters =
            {
                new() { Value = $"{Math.Max(1, (int)request.Options.LockTimeout.TotalMilliseconds / 5)}ms" },
                new() { Value = $"{(int)HoldLimit.TotalMilliseconds}ms" },
            },
        })
        {
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }

        await using NpgsqlCommand own = new("select pg_catalog.pg_backend_pid(), backend_start from pg_catalog.pg_stat_activity where pid = pg_catalog.pg_backend_pid()", _connection);
        await using NpgsqlDataReader reader = await own.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        Backend = (reader.GetInt32(0), reader.GetDateTime(1));
    }

    private async Task<BatchOutcome> ExecuteAsync(string sql, int size)
    {
        // Not prepared: its plan costs half a millisecond of the batch's 250, and a session that goes back to the pool would have to forget it.
        await using NpgsqlCommand command = new(sql, _connection)
        {
            CommandTimeout = 0,
            Parameters = { new() { Value = _definition.Name }, new() { Value = (long)size } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(CancellationToken.None).ConfigureAwait(false);
        return await reader.ReadAsync(CancellationToken.None).ConfigureAwait(false)
            ? new BatchOutcome(
                reader.GetInt64(0),
                reader.GetInt64(1),
                reader.GetInt64(2),
                reader.GetBoolean(3),
                reader.GetInt64(4),
                reader.GetInt64(5),
                TimeSpan.FromMilliseconds(reader.GetDouble(6)))
            : throw new MigrationException(
                "CheckpointMissing",
                MigrationErrorKind.InvalidState,
                $"The checkpoint of {_definition.Name} was removed or completed by somebody while the backfill ran.",
                "Run the command again: it begins from the start and passes over the rows that are done.")
            {
                Target = _definition.Name,
            };
    }

    private async Task<BatchOutcome> AnswerAsync(Task<BatchOutcome> work, CancellationToken cancellationToken)
    {
        _unanswered = work;
        try
        {
            return await work.WaitAsync(HoldLimit + s_patience, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            await EndsWithinAsync(work, s_patienceAfterCancel, CancellationToken.None).ConfigureAwait(false);
            if (!work.IsCompleted)
            {
                _sink.Verbose("The server does not answer; the batch that was sent is left to it.");
            }

            throw;
        }
    }

    private async Task<bool> EndsWithinAsync(Task<BatchOutcome> work, TimeSpan time, CancellationToken cancellationToken)
    {
        _unanswered = work;
        using CancellationTokenSource timer = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Task first = await Task.WhenAny(work, Task.Delay(time, timer.Token)).ConfigureAwait(false);
        await timer.CancelAsync().ConfigureAwait(false);
        return first == work || cancellationToken.IsCancellationRequested;
    }
}
