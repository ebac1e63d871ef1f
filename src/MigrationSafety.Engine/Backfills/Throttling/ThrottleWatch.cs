using System.Data;
using System.Diagnostics;
using System.Text.RegularExpressions;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>Whose throttle it is.</summary>
/// <param name="Session">Session.</param>
/// <param name="Name">Name of the backfill.</param>
/// <param name="Run">The run.</param>
/// <param name="Gate">Where they wait.</param>
/// <param name="Workers">How many workers it has.</param>
/// <param name="Pids">Their backends, as far as they are connected.</param>
/// <param name="Transactions">How many transactions they have ended by now, about.</param>
/// <param name="Tables">The tables that hold the rows.</param>
/// <param name="RetryFor">How long a server that cannot be looked at is waited for.</param>
/// <param name="Show">Shows why it is slow; null where it is not.</param>
internal sealed record ThrottleOwner(EngineSession Session, string Name, Guid Run, ThrottleGate Gate, int Workers, Func<int[]> Pids, Func<long> Transactions, uint[] Tables, TimeSpan RetryFor, Action<string?> Show)
{
    /// <summary>The settings with which the health query is asked, as <see cref="BackfillSettings"/> has them; null for those of the session.</summary>
    internal IReadOnlyDictionary<string, string>? Settings { get; init; }

    /// <summary>For whose locks it stands still; null where it does not.</summary>
    internal Func<string?> Waiting { get; init; } = () => null;

    /// <summary>How long a connection may take to open: a line that went dead while it lay in the pool gives no answer ever.</summary>
    internal TimeSpan PatienceToOpen { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Opens a connection, or gives up after <see cref="PatienceToOpen"/>.</summary>
    /// <param name="operation">What it is for, as its application_name says.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="TimeoutException">The server did not answer in time.</exception>
    internal async Task<NpgsqlConnection> OpenAsync(string operation, IOperationSink sink, CancellationToken cancellationToken)
    {
        Task<NpgsqlConnection> opening = Session.OpenAsync(operation, sink, cancellationToken);
        try
        {
            return await opening.WaitAsync(PatienceToOpen, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is TimeoutException or OperationCanceledException)
        {
            // What comes too late is closed; how it failed is of no interest any more.
            _ = opening.ContinueWith(
                late => late.IsCompletedSuccessfully ? late.Result.DisposeAsync().AsTask() : Task.FromResult(late.Exception),
                CancellationToken.None,
                TaskContinuationOptions.None,
                TaskScheduler.Default);
            throw;
        }
    }
}

/// <summary>
/// The throttle of one run: looks at the server about once a second on a connection of its own, decides, opens and closes the gate before its workers, and writes down on the server
/// why, for whoever looks from elsewhere.
/// </summary>
internal sealed partial class ThrottleWatch : IAsyncDisposable
{
    private const int MostBlindLooks = 3;

    private static readonly TimeSpan s_every = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_heartbeatEvery = TimeSpan.FromSeconds(3);
    // Figures change with each look.
    private static readonly TimeSpan s_wordsEvery = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_quietPause = TimeSpan.FromMinutes(1);

    /// <summary>How long a connection that has to be closed is waited for: a dead network takes the driver many seconds.</summary>
    internal static readonly TimeSpan PatienceToLeave = TimeSpan.FromMilliseconds(300);

    private readonly ThrottleOwner _owner;
    private readonly IOperationSink _sink;
    private readonly ThrottleRules _rules;
    private readonly ThrottleController _controller = new();
    private readonly OtherWork _others = new();
    private readonly CommitProbe _probe;
    private readonly CancellationTokenSource _stop = new();
    private readonly HashSet<string> _said = [];
    private ThrottleLook _look;
    private string? _recorded;
    private ThrottleDecision _decision = new(1, null, default);
    private double _pace = 1;
    private long _looks;
    private NpgsqlConnection? _connection;
    private Task _watching = Task.CompletedTask;
    private string? _writtenWords;
    private long _written;
    private long _beat;
    private long _pausedSince;
    private DateTimeOffset? _waitingSince;
    private int _blind;
    private long _blindSince;
    private bool _warned;

    private ThrottleWatch(ThrottleOwner owner, ThrottleLimits limits, IOperationSink sink)
    {
        _owner = owner;
        _sink = sink;
        _look = new ThrottleLook(limits, owner.Name, owner.Tables);
        _rules = new ThrottleRules(limits);
        _probe = new CommitProbe(owner, sink);
    }

    private ThrottleGate Gate => _owner.Gate;

    private ThrottleLimits Limits => _rules.Limits;

    /// <summary>Looks for the first time, so that nothing runs that should not, and then again and again.</summary>
    internal static async Task<ThrottleWatch> StartAsync(ThrottleOwner owner, ThrottleLimits limits, IOperationSink sink, CancellationToken cancellationToken)
    {
        ThrottleWatch watch = new(owner, limits, sink);
        try
        {
            await watch.LookAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await watch.DisposeAsync().ConfigureAwait(false);
            throw;
        }

        watch._watching = watch.WatchAsync();
        return watch;
    }

    public async ValueTask DisposeAsync()
    {
        // Not awaited: telling a dead network to cancel takes the driver many seconds.
        _ = _stop.CancelAsync();
        Gate.Open();
        await _probe.DisposeAsync().ConfigureAwait(false);
        await Task.WhenAny(_watching, Task.Delay(PatienceToLeave)).ConfigureAwait(false);
        if (_watching.IsCompleted)
        {
            await CloseAsync().ConfigureAwait(false);
            _stop.Dispose();
        }
        else
        {
            // A connection cannot be closed under its statement.
            _ = _watching.ContinueWith(_ => CloseAsync(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        }
    }

    private async Task WatchAsync()
    {
        try
        {
            while (true)
            {
                long start = Stopwatch.GetTimestamp();
                await Task.Delay(s_every, _stop.Token).ConfigureAwait(false);
                await LookAsync(_stop.Token).ConfigureAwait(false);
                // A server that takes long to answer is asked less often.
                TimeSpan took = Stopwatch.GetElapsedTime(start) - s_every;
                await Task.Delay(took < TimeSpan.Zero ? TimeSpan.Zero : took, _stop.Token).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            // The run has ended.
        }
        catch (Exception e)
        {
            // Nobody may work on unwatched.
            Gate.Open(e);
        }
    }

    private async Task LookAsync(CancellationToken cancellationToken)
    {
        ThrottleDecision before = _decision;
        try
        {
            ThrottleSample sample = await SampleAsync(cancellationToken).ConfigureAwait(false);
            _blind = 0;
            SayHidden(sample);
            TakeOver(sample.Limits);
            ThrottleDecision decision = _decision = Slowest(_controller.Decide(_rules.Assess(sample), sample.Time), sample);
            Gate.Set(decision.Speed, (double?)Limits.RowsPerSecond / sample.Clients, _owner.Workers, _pace, idle: sample.State is not BackfillStore.Running);
            string? waiting = decision.Paused ? null : _owner.Waiting();
            _waitingSince = waiting is null ? null : _waitingSince ?? sample.Time;
            Tell(before, decision, waiting);
            await WriteAsync(decision, waiting, first: before.Since == default, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested && (e is NpgsqlException or MigrationException or IOException or TimeoutException || ServerErrors.IsConnectionLost(e)))
        {
            await CloseAsync().ConfigureAwait(false);
            MigrationException known = ServerErrors.Translate(e, $"Looking at the server for the throttle of {_owner.Name}", _owner.Name);
            if (before.Since == default && known is not { Kind: MigrationErrorKind.Connection or MigrationErrorKind.Resource })
            {
                // It will be no better a second later, and nothing has been done yet.
                throw known;
            }

            _sink.Verbose($"{known.Message} Looks again.");
            _blindSince = _blind == 0 ? Stopwatch.GetTimestamp() : _blindSince;
            if (Stopwatch.GetElapsedTime(_blindSince) > _owner.RetryFor)
            {
                Gate.Open(known);
            }
            else if (++_blind >= MostBlindLooks)
            {
                ThrottleDecision decision = _decision = _controller.Decide([new($"the server cannot be looked at: {e.Message}", double.PositiveInfinity, Stops: true)], DateTimeOffset.UtcNow);
                Gate.Set(decision.Speed, null, _owner.Workers);
                Tell(before, decision);
            }
        }
    }

    /// <summary>What the limits leave, or what the application's commits do where that is less.</summary>
    private ThrottleDecision Slowest(ThrottleDecision decided, ThrottleSample sample)
    {
        _looks++;
        if (sample.Transactions is not { } transactions)
        {
            (_pace, _) = _probe.Decide(limit: null, sample.Clients);
            return decided;
        }

        _others.Add(sample.Time, transactions, _owner.Transactions() + _probe.Transactions + _looks, _owner.Workers, sample.OtherWorkers, Math.Max(0, sample.Probes - (_probe.IsTrying ? 1 : 0)), sample.LiveSessions, sample.HiddenSessions);
        (_pace, string? reason) = _probe.Decide(_others.IsThere && sample.State is BackfillStore.Running && !decided.Paused ? Limits.Slowdown : null, sample.Clients);
        return _pace >= decided.Speed ? decided : new ThrottleDecision(_pace, reason, _decision.Speed < 1 && !_decision.Paused ? _decision.Since : sample.Time);
    }

    private async Task<ThrottleSample> SampleAsync(CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await ConnectAsync(cancellationToken).ConfigureAwait(false);
        return await _look.ReadAsync(connection, _owner.Pids(), cancellationToken).ConfigureAwait(false);
    }

    private async Task<NpgsqlConnection> ConnectAsync(CancellationToken cancellationToken)
    {
        // After an error of classes 53, 57P, 58 and XX, which a health query may raise, the driver has closed it.
        if (_connection is { FullState: not ConnectionState.Open })
        {
            await CloseAsync().ConfigureAwait(false);
        }

        if (_connection is null)
        {
            _connection = await _owner.OpenAsync("throttle", _sink, cancellationToken).ConfigureAwait(false);
            if (_owner.Settings is { } settings)
            {
                await BackfillSettings.SetAsync(_connection, settings, cancellationToken).ConfigureAwait(false);
            }

            await ThrottleLook.PrepareAsync(_connection, cancellationToken).ConfigureAwait(false);
        }

        return _connection;
    }

    /// <summary>All clients keep to what is recorded, which is what the one that came last asked for.</summary>
    private void TakeOver(string? recorded)
    {
        if (recorded is null || recorded == _recorded)
        {
            return;
        }

        _recorded = recorded;
        ThrottleLimits limits = ThrottleLimits.FromJson(recorded);
        if (limits != Limits)
        {
            _sink.Verbose($"{_owner.Name}: another client has given other limits, which hold for all that work on it: {limits.Text}.");
            _rules.Limits = limits;
            _look = new ThrottleLook(limits, _owner.Name, _owner.Tables);
        }
    }

    /// <summary>What cannot be seen is said once.</summary>
    private void SayHidden(ThrottleSample sample)
    {
        string grant = $"To see them: GRANT pg_monitor TO {SqlName.QuoteIfNeeded(_owner.Session.Info.User)};";
        if (sample.HiddenStandbys > 0 && _said.Add("standbys"))
        {
            _sink.Warning($"{_owner.Name}: how far {sample.HiddenStandbys:N0} standby{(sample.HiddenStandbys > 1 ? "s are" : " is")} behind is hidden from role {_owner.Session.Info.User}, and does not slow the backfill down. {grant}");
        }

        if (Limits.Slowdown is not null && sample.HasSynchronousStandbys && sample.HiddenSessions > 0 && _said.Add("commits"))
        {
            _sink.Warning($"{_owner.Name}: whether commits of other roles' sessions hang for a synchronous standby (synchronous_standby_names) is hidden from role {_owner.Session.Info.User}, and does not pause the backfill. {grant}");
        }

        if (Limits.ActiveSessions is not null && sample.HiddenSessions > 0 && _said.Add("sessions"))
        {
            _sink.Warning($"{_owner.Name}: whether other roles' sessions are active is hidden from role {_owner.Session.Info.User}: -MaxActiveSession counts only those that it sees. {grant}");
        }
    }

    private void Tell(ThrottleDecision before, ThrottleDecision decision, string? locked = null)
    {
        string? waiting = decision.Words;
        _owner.Show(locked ?? waiting);
        if (decision.Paused != before.Paused || (decision.Speed < before.Speed && !decision.Paused))
        {
            _sink.Verbose($"{_owner.Name}: {waiting ?? "at full speed"}.");
        }
        else if (decision.Speed == 1 && before.Speed < 1)
        {
            _sink.Verbose($"{_owner.Name}: at full speed again.");
        }

        if (!decision.Paused)
        {
            (_pausedSince, _warned) = (0, false);
            return;
        }

        _pausedSince = _pausedSince == 0 ? Stopwatch.GetTimestamp() : _pausedSince;
        // Nobody reads verbose in a scheduled task; but not for each short pause.
        if (!_warned && Stopwatch.GetElapsedTime(_pausedSince) > s_quietPause)
        {
            _warned = true;
            _sink.Warning($"{_owner.Name} has been {waiting}. It goes on by itself when that is over; Ctrl-C or Stop-Backfill ends it, and what is done stays.");
        }
    }

    /// <summary>Writes the reason down where others can read it, and keeps the heartbeats of workers that wait.</summary>
    private async Task WriteAsync(ThrottleDecision decision, string? locked, bool first, CancellationToken cancellationToken)
    {
        const string Reason = $"""
            update {BackfillStore.Table} set waiting_for = $2, waiting_since = $3
            where name = $1 and (waiting_for, waiting_since) is distinct from ($2, $3)
            """;
        // Not of their ranges: what only this client sees, and waits for, keeps these from no other.
        const string Heartbeat = $"update {BackfillStore.Workers} set heartbeat = pg_catalog.clock_timestamp() where backfill = $1 and run = $2";
        string? words = locked ?? decision.Words;
        // Again and again, changed or not: another client, gone by now, may have written since. What stands there already is not written.
        bool reason = first || WithoutFigures(words) != WithoutFigures(_writtenWords) || Stopwatch.GetElapsedTime(_written) >= s_wordsEvery;
        bool beat = decision.Paused && (reason || Stopwatch.GetElapsedTime(_beat) >= s_heartbeatEvery);
        if (!reason && !beat)
        {
            return;
        }

        // Each its own transaction: none may wait for another's rows.
        await using NpgsqlBatch batch = new(await ConnectAsync(cancellationToken).ConfigureAwait(false)) { Timeout = 10, EnableErrorBarriers = true };
        if (reason)
        {
            batch.BatchCommands.Add(new(Reason)
            {
                Parameters =
                {
                    new() { Value = _owner.Name },
                    new() { Value = (object?)words ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Text },
                    new() { Value = words is null ? DBNull.Value : (locked is null ? decision.Since : _waitingSince!.Value).UtcDateTime, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.TimestampTz },
                },
            });
        }

        if (beat)
        {
            batch.BatchCommands.Add(new(Heartbeat) { Parameters = { new() { Value = _owner.Name }, new() { Value = _owner.Run } } });
        }

        await batch.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        (_writtenWords, _written) = reason ? (words, Stopwatch.GetTimestamp()) : (_writtenWords, _written);
        _beat = beat ? Stopwatch.GetTimestamp() : _beat;
    }

    // With their units and separators, which change with their size.
    private static string? WithoutFigures(string? words) => words is null ? null : Figure().Replace(words, "");

    [GeneratedRegex(@"(\d[\d.,\u00A0\u202F]*( ([kMGT]B|bytes|ms|s|min|h|d)\b)? ?)+", RegexOptions.CultureInvariant)]
    private static partial Regex Figure();

    private async Task CloseAsync()
    {
        if (_connection is { } connection)
        {
            _connection = null;
            await connection.DisposeAsync().ConfigureAwait(false);
        }
    }
}
