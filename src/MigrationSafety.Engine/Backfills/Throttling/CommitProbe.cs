using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>
/// Tries, on a connection of its own, how long a small commit takes, again and again while others are at work on the server: what they feel of the backfill. A sequence is set, because
/// that writes WAL, waits until it is flushed as the application does, and leaves no dead row.
/// </summary>
internal sealed class CommitProbe : IAsyncDisposable
{
    /// <summary>What its session is called.</summary>
    internal const string Operation = "probe";

    private const int TransactionsOfTry = 2;
    private const int MostFailures = 10;
    private static readonly TimeSpan s_every = TimeSpan.FromMilliseconds(25);
    private static readonly TimeSpan s_afterglow = TimeSpan.FromMilliseconds(50);
    // How long, and how often, the backfill is held back to see how long commits take without it.
    private static readonly TimeSpan s_hold = TimeSpan.FromMilliseconds(600);
    private static readonly TimeSpan s_firstHoldEvery = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan s_holdEvery = TimeSpan.FromSeconds(5);

    private readonly ThrottleOwner _owner;
    private readonly IOperationSink _sink;
    private readonly CommitTimes _times = new();
    private readonly object _lock = new();
    private Task _trying = Task.CompletedTask;
    private CancellationTokenSource _stop = new();
    private long _transactions;
    private bool _givenUp;
    private bool _disposed;
    private int _failures;

    internal CommitProbe(ThrottleOwner owner, IOperationSink sink)
    {
        _owner = owner;
        _sink = sink;
    }

    /// <summary>Whether it tries commits now.</summary>
    internal bool IsTrying => !_trying.IsCompleted;

    /// <summary>Transactions of its own.</summary>
    internal long Transactions => Interlocked.Read(ref _transactions);

    /// <summary>How fast the backfill may go, and why not faster.</summary>
    /// <param name="limit">How many times as long commits of others may take; null where there is nobody to be kept from harm.</param>
    /// <param name="clients">Clients that work on the backfill.</param>
    internal (double Speed, string? Reason) Decide(double? limit, int clients)
    {
        lock (_lock)
        {
            if (_disposed)
            {
                return (1, null);
            }

            if (limit is not { } most || _givenUp)
            {
                _ = _stop.CancelAsync();
                return (1, null);
            }

            if (_trying.IsCompleted)
            {
                // What it did not expect ends the throttle, and with it the backfill.
                _trying.GetAwaiter().GetResult();
                _stop.Dispose();
                _stop = new CancellationTokenSource();
                _trying = TryAsync(_stop.Token);
            }

            _times.Decide(most, clients, _owner.Workers);
            return (_times.Speed, _times.Reason);
        }
    }

    public async ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            // A look that is under way must not begin it again. Not awaited: telling a dead network to cancel takes the driver many seconds.
            _disposed = true;
            _ = _stop.CancelAsync();
        }

        await Task.WhenAny(_trying, Task.Delay(ThrottleWatch.PatienceToLeave)).ConfigureAwait(false);
        if (_trying.IsCompleted)
        {
            _stop.Dispose();
        }
    }

    private async Task TryAsync(CancellationToken cancellationToken)
    {
        try
        {
            await using NpgsqlConnection connection = await _owner.OpenAsync(Operation, _sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlBatch batch = new(connection)
            {
                Timeout = 10,
                // The second is another transaction: its clock is read when the first has committed. By the server's clock, whatever the network takes.
                EnableErrorBarriers = true,
                BatchCommands = { new($"select pg_catalog.clock_timestamp(), pg_catalog.setval('{BackfillSchema.Probe}', 1)"), new("select pg_catalog.clock_timestamp()") },
            };
            await batch.PrepareAsync(cancellationToken).ConfigureAwait(false);
            for (long held = 0; ;)
            {
                await Task.Delay(s_every, cancellationToken).ConfigureAwait(false);
                TimeSpan since = Stopwatch.GetElapsedTime(held);
                bool hold = held == 0 || since > s_hold + (_times.IsKnown ? s_holdEvery : s_firstHoldEvery);
                held = hold ? Stopwatch.GetTimestamp() : held;
                _owner.Gate.Hold(hold || since < s_hold);
                ThrottleGate.Work before = _owner.Gate.Now;
                TimeSpan took;
                await using (NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false))
                {
                    await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
                    DateTime start = reader.GetDateTime(0);
                    await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
                    await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
                    took = reader.GetDateTime(0) - start;
                }

                Interlocked.Add(ref _transactions, TransactionsOfTry);
                ThrottleGate.Work after = _owner.Gate.Now;
                bool resting = before.Running == 0 && after == before && Stopwatch.GetElapsedTime(after.Changed) > s_afterglow;
                lock (_lock)
                {
                    _failures = 0;
                    // The server's clock may be set back.
                    if (took > TimeSpan.Zero)
                    {
                        _times.Add(took, resting, _owner.Gate.Speed);
                    }
                }
            }
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            // Nobody is to be kept from harm any more.
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.InsufficientPrivilege)
        {
            _givenUp = true;
            string role = SqlName.QuoteIfNeeded(_owner.Session.Info.User);
            _sink.Warning($"{_owner.Name}: role {_owner.Session.Info.User} may not try commits, so that how much it slows others down is not known, and -MaxSlowdown without effect. Have its owner run: GRANT UPDATE ON SEQUENCE {BackfillSchema.Probe} TO {role};");
        }
        catch (Exception e) when (e is NpgsqlException or MigrationException or IOException or TimeoutException || ServerErrors.IsConnectionLost(e))
        {
            // The next look begins it again.
            _sink.Verbose($"{_owner.Name}: trying a commit failed: {e.Message}");
            if (++_failures >= MostFailures)
            {
                _givenUp = true;
                _sink.Warning($"{_owner.Name}: commits cannot be tried ({e.Message}), so that how much it slows others down is not known, and -MaxSlowdown without effect.");
            }
        }
        finally
        {
            _owner.Gate.Hold(false);
        }
    }
}
