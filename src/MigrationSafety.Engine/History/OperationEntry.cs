using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.History;

/// <summary>
/// The entry of an operation that is at work, and the connection that stands for it: its advisory lock says that the client lives. All that it does is bounded.
/// </summary>
internal sealed class OperationEntry : IAsyncDisposable
{
    private static readonly TimeSpan s_beginWithin = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan s_finishWithin = TimeSpan.FromSeconds(5);
    // Whoever pressed Ctrl-C waits for it.
    private static readonly TimeSpan s_finishWithinOnCancel = TimeSpan.FromMilliseconds(700);
    private static readonly TimeSpan s_tick = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_lagEvery = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_signEvery = TimeSpan.FromSeconds(5);
    // Shorter than the end is waited for, so that nothing is written that was given up.
    private static readonly TimeSpan s_tryAgainFor = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan s_samplesEvery = TimeSpan.FromSeconds(30);
    private static readonly string s_application =
        $"MigrationSafety {typeof(OperationEntry).Assembly.GetName().Version?.ToString(3)}, {Path.GetFileNameWithoutExtension(Environment.ProcessPath) ?? "unknown program"}";

    private readonly EngineSession _session;
    private readonly OperationRecorder _recorder;
    private readonly IOperationSink _sink;
    private readonly long _id;
    private readonly TimeSpan _skew;
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _loop;
    private NpgsqlConnection? _connection;
    private Task _finishing = Task.CompletedTask;

    private OperationEntry(EngineSession session, OperationRecorder recorder, IOperationSink sink, NpgsqlConnection connection, long id, TimeSpan skew)
    {
        _session = session;
        _recorder = recorder;
        _sink = sink;
        _connection = connection;
        _id = id;
        _skew = skew;
        _loop = Task.Run(KeepAsync, CancellationToken.None);
    }

    /// <summary>Its number.</summary>
    internal long Id => _id;

    /// <summary>Begins the entry.</summary>
    /// <returns>Null where it cannot be recorded, which was warned of.</returns>
    internal static async Task<OperationEntry?> BeginAsync(OperationPlan plan, OperationRecorder recorder, IOperationSink sink, CancellationToken cancellationToken)
    {
        Task<OperationEntry> beginning = OpenAsync(plan, recorder, sink, cancellationToken);
        try
        {
            return await beginning.WaitAsync(s_beginWithin, cancellationToken).ConfigureAwait(false);
        }
        catch (MigrationException e) when (e.ErrorId == "HistoryDenied")
        {
            // Once a session: a script that builds fifty indexes says it once.
            if (plan.Session.MayWarnOfHistory())
            {
                sink.Warning($"{e.Message} The work goes on without being recorded. {e.RecommendedAction}");
            }

            return null;
        }
        catch (Exception e) when (IsTrouble(e))
        {
            _ = beginning.ContinueWith(
                late => late.IsCompletedSuccessfully ? late.Result.WithdrawAsync() : Task.FromResult(late.Exception), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            if (!cancellationToken.IsCancellationRequested)
            {
                sink.Warning($"{plan.Action} on {plan.Target} goes on without being recorded in {OperationStore.Table}: {Words(e)}");
            }

            cancellationToken.ThrowIfCancellationRequested();
            return null;
        }
    }

    /// <summary>Records the end.</summary>
    /// <param name="state">State, as in the table.</param>
    /// <param name="final">The steps as the result or the error has them; null where neither has.</param>
    /// <param name="error">Why it failed, or what it left undone; null where neither is.</param>
    internal async Task FinishAsync(string state, IReadOnlyList<MigrationStep>? final, MigrationException? error)
    {
        // Somebody waits at the keyboard where its user stopped it, which is no error.
        TimeSpan bound = state == "cancelled" && error is null ? s_finishWithinOnCancel : s_finishWithin;
        _finishing = WriteEndAsync(state, _recorder.Snapshot(final, state == "cancelled" ? StepState.Cancelled : StepState.Failed), error);
        try
        {
            await _finishing.WaitAsync(bound).ConfigureAwait(false);
        }
        catch (Exception e) when (IsTrouble(e))
        {
            _sink.Warning($"How the operation ended ({state}) could not be recorded: {Words(e)} Entry {_id} of {OperationStore.Table} has no end.");
        }
    }

    /// <summary>Lets go of the connection; one that does not answer is left behind.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        Task closing = AbandonAsync();
        await Task.WhenAny(closing, Task.Delay(TimeSpan.FromMilliseconds(300))).ConfigureAwait(false);
    }

    private static async Task<OperationEntry> OpenAsync(OperationPlan plan, OperationRecorder recorder, IOperationSink sink, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await plan.Session.OpenAsync("history", sink, cancellationToken).ConfigureAwait(false);
        try
        {
            await OperationStore.PrepareAsync(connection, cancellationToken).ConfigureAwait(false);
            await OperationStore.EnsureAsync(connection, cancellationToken).ConfigureAwait(false);
            (long id, TimeSpan skew) = await OperationStore.BeginAsync(connection, plan, recorder.Snapshot(null, given: null), s_application, cancellationToken).ConfigureAwait(false);
            return new OperationEntry(plan.Session, recorder, sink, connection, id, skew);
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private static bool IsTrouble(Exception e) =>
        e is NpgsqlException or MigrationException or TimeoutException or IOException or InvalidOperationException or OperationCanceledException or System.Text.Json.JsonException;

    /// <summary>Whether the log is only in somebody's hands just now.</summary>
    private static bool IsPassing(Exception e) =>
        e is PostgresException { SqlState: SqlStates.LockNotAvailable or SqlStates.QueryCanceled or SqlStates.SerializationFailure or SqlStates.DeadlockDetected };

    private static string Words(Exception e) => e is PostgresException server ? ServerErrors.Words(server) : e.Message;

    /// <summary>While the operation runs: what it has done so far, so that an entry tells also of one that was killed.</summary>
    private async Task KeepAsync()
    {
        long begun = Stopwatch.GetTimestamp();
        long written = begun;
        long lagSeen = written;
        long steps = _recorder.StepChanges;
        long samples = _recorder.SampleChanges;
        long signed = written;
        long? rows = null;
        TimeSpan cost = TimeSpan.Zero;
        while (!_stop.IsCancellationRequested)
        {
            await Task.Delay(s_tick, _stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (_stop.IsCancellationRequested)
            {
                return;
            }

            try
            {
                if (Stopwatch.GetElapsedTime(lagSeen) > s_lagEvery)
                {
                    lagSeen = Stopwatch.GetTimestamp();
                    (TimeSpan? lag, long? bytes) = await OperationStore.LagAsync(await ConnectionAsync().ConfigureAwait(false), CancellationToken.None).ConfigureAwait(false);
                    if (lag is not null || bytes is not null)
                    {
                        _recorder.NoteLag(lag, bytes);
                    }
                }

                // Of one that is killed early, most of its samples are there too.
                // A plan of thousands of steps is a large record: writing it takes a twentieth of the time at most.
                TimeSpan since = Stopwatch.GetElapsedTime(written);
                bool due = (_recorder.StepChanges != steps && since > 20 * cost) || (_recorder.SampleChanges != samples && (since > s_samplesEvery || (since > Stopwatch.GetElapsedTime(begun) / 4 && since > 20 * cost)));
                if (due)
                {
                    long start = Stopwatch.GetTimestamp();
                    (steps, samples) = (_recorder.StepChanges, _recorder.SampleChanges);
                    OperationRecord record = _recorder.Snapshot(null, given: null).By(_skew);
                    await OperationStore.UpdateAsync(await ConnectionAsync().ConfigureAwait(false), _id, record, CancellationToken.None).ConfigureAwait(false);
                    signed = written = Stopwatch.GetTimestamp();
                    rows = record.Rows;
                    cost = Stopwatch.GetElapsedTime(start);
                }
                else if (_recorder.Rows != rows || Stopwatch.GetElapsedTime(signed) > s_signEvery)
                {
                    rows = _recorder.Rows;
                    await OperationStore.SignAsync(await ConnectionAsync().ConfigureAwait(false), _id, rows, CancellationToken.None).ConfigureAwait(false);
                    signed = Stopwatch.GetTimestamp();
                }
            }
            catch (Exception e) when (IsTrouble(e))
            {
                _sink.Verbose($"The record of the operation could not be written, and will be again: {Words(e)}");
            }
        }
    }

    /// <summary>The connection; another one where it was lost.</summary>
    private async Task<NpgsqlConnection> ConnectionAsync()
    {
        if (_connection is { FullState: System.Data.ConnectionState.Open } open)
        {
            return open;
        }

        if (_connection is { } lost)
        {
            _connection = null;
            await lost.DisposeAsync().ConfigureAwait(false);
        }

        NpgsqlConnection connection = await _session.OpenAsync("history", _sink, CancellationToken.None).ConfigureAwait(false);
        try
        {
            await OperationStore.PrepareAsync(connection, CancellationToken.None).ConfigureAwait(false);
            await OperationStore.AttendAsync(connection, _id, CancellationToken.None).ConfigureAwait(false);
            return _connection = connection;
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private async Task WriteEndAsync(string state, OperationRecord record, MigrationException? error)
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _loop.ConfigureAwait(false);
        await WriteAsync(connection => OperationStore.FinishAsync(connection, _id, state, record.By(_skew), error, CancellationToken.None)).ConfigureAwait(false);
    }

    /// <summary>Writes to the log, again where the connection was lost, or for some seconds where the log is in somebody's hands.</summary>
    private async Task WriteAsync(Func<NpgsqlConnection, Task> write)
    {
        long start = Stopwatch.GetTimestamp();
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                await write(await ConnectionAsync().ConfigureAwait(false)).ConfigureAwait(false);
                return;
            }
            catch (Exception e) when ((attempt < 2 && ServerErrors.IsConnectionLost(e)) || (IsPassing(e) && Stopwatch.GetElapsedTime(start) < s_tryAgainFor))
            {
                _sink.Verbose($"The end of the operation could not be recorded, tries again: {Words(e)}");
            }
        }
    }

    /// <summary>Takes back an entry that came too late: left as it is, it would tell for ever of an operation that was broken off before its first step.</summary>
    private async Task WithdrawAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _loop.ConfigureAwait(false);
        try
        {
            try
            {
                await WriteAsync(connection => OperationStore.RemoveAsync(connection, _id, CancellationToken.None)).ConfigureAwait(false);
            }
            catch (PostgresException e) when (e.SqlState == SqlStates.InsufficientPrivilege)
            {
                // To write to the log a role needs no DELETE.
                MigrationException late = new("NotRecorded", MigrationErrorKind.Timeout, "The log answered too late: what became of this operation is not recorded.", "Its output tells, and the objects that it was to change.");
                await WriteAsync(connection => OperationStore.FinishAsync(connection, _id, "failed", _recorder.Snapshot(null, given: null) with { Steps = [] }, late, CancellationToken.None)).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (IsTrouble(e))
        {
            _sink.Debug($"Entry {_id} of {OperationStore.Table}, which came too late, could not be taken back: {Words(e)}");
        }

        await AbandonAsync().ConfigureAwait(false);
    }

    private async Task AbandonAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _loop.ConfigureAwait(false);
        await _finishing.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
        if (_connection is not { } connection)
        {
            return;
        }

        try
        {
            if (connection.FullState == System.Data.ConnectionState.Open)
            {
                await OperationStore.ReleaseAsync(connection).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (IsTrouble(e))
        {
            _sink.Debug($"The entry's lock went with its connection: {e.Message}");
        }

        await connection.DisposeAsync().ConfigureAwait(false);
    }
}
