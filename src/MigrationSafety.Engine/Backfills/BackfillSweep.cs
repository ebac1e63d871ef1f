using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// What comes after the pass: sweeps over all rows that match in one snapshot, whatever moved, was locked or came since. A sweep in which all that was found was done proves that every
/// row that existed when it began is done; it ends although the application inserts rows that match.
/// </summary>
internal sealed class BackfillSweep
{
    private const int Fetched = 5000;
    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(250);

    private readonly BackfillContext _context;
    private readonly BackfillWorker _worker;

    internal BackfillSweep(BackfillContext context, BackfillWorker worker)
    {
        _context = context;
        _worker = worker;
    }

    /// <summary>Rows of the last sweep that match as before although they were updated.</summary>
    internal long Same { get; private set; }

    /// <summary>Sweeps until one proves the end, which is then recorded; or until somebody else has.</summary>
    internal async Task<bool> RunAsync(CancellationToken cancellationToken)
    {
        await _worker.AttendAsync(cancellationToken).ConfigureAwait(false);
        long progress = Stopwatch.GetTimestamp();
        for (int inVain = 0; ;)
        {
            // Another client's: it sweeps for both.
            while (!await _worker.AskAsync(connection => BackfillLock.TrySweepAsync(connection, _context.Definition, CancellationToken.None), cancellationToken).ConfigureAwait(false))
            {
                if (!await IsRunningAsync(cancellationToken).ConfigureAwait(false))
                {
                    return true;
                }

                _context.Moved();
                await Task.Delay(s_poll, cancellationToken).ConfigureAwait(false);
            }

            if (!await IsRunningAsync(cancellationToken).ConfigureAwait(false)
                || await _worker.AskAsync(connection => BackfillStore.SweepAsync(connection, _context.Plan.Name, CancellationToken.None), cancellationToken).ConfigureAwait(false) is not { } number)
            {
                return true;
            }

            _context.Sweeps(number);
            (long found, RowsOutcome done) = await TrySweepAsync(cancellationToken).ConfigureAwait(false);
            Same = done.Same;
            if (done.Stopped)
            {
                return true;
            }

            if (found <= done.Changed + done.Failed)
            {
                await _worker.TellAsync(connection => BackfillStore.CompleteAsync(connection, _context.Plan.Name, CancellationToken.None), cancellationToken).ConfigureAwait(false);
                return true;
            }

            inVain = done.Changed > 0 ? 0 : inVain + 1;
            progress = inVain <= 1 ? Stopwatch.GetTimestamp() : progress;
            if (inVain > 1 && Stopwatch.GetElapsedTime(progress) > _context.Options.RetryFor)
            {
                throw StayLocked();
            }

            _context.Sink.Verbose($"Sweep {number} of {_context.Plan.Name} found {found:N0} rows, of which {found - done.Changed - done.Failed:N0} were locked or changed meanwhile; sweeps again.");
            await _worker.AskAsync(connection => BackfillLock.ReleaseSweepAsync(connection, _context.Definition, CancellationToken.None), cancellationToken).ConfigureAwait(false);
            await BackfillContext.PauseAsync(inVain + 1, cancellationToken).ConfigureAwait(false);
        }
    }

    private async Task<bool> IsRunningAsync(CancellationToken cancellationToken)
    {
        BackfillRecord? record = await _worker.AskAsync(connection => BackfillStore.ReadAsync(connection, _context.Plan.Name, CancellationToken.None), cancellationToken).ConfigureAwait(false);
        return (record ?? throw BackfillStore.Missing(_context.Plan.Name)).State == BackfillStore.Running;
    }

    private async Task<(long Found, RowsOutcome Done)> TrySweepAsync(CancellationToken cancellationToken)
    {
        try
        {
            return await SweepAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (PostgresException e) when (BackfillContext.IsBusy(e))
        {
            // A cursor whose fetch failed cannot be read on: as if nothing of it had been done.
            _context.Sink.Verbose($"A sweep was broken off ({ServerErrors.Words(e)}).");
            return (1, new RowsOutcome(0, 0, 0, false));
        }
    }

    private async Task<(long Found, RowsOutcome Done)> SweepAsync(CancellationToken cancellationToken)
    {
        BackfillQueries queries = new(_context.Definition);
        _context.Sink.Debug(queries.DeclareSweep);
        // The end of the transaction fills the cursor; then no snapshot is held any more. A look at the whole table takes as long as it takes, but no row is locked by it.
        await _worker.TellAsync(
            _ => _worker.Connection.InTransactionAsync(
                    [new("close all"), new("set local statement_timeout = 0"), new("set local enable_seqscan = on"), new("set local enable_bitmapscan = on"), new(queries.DeclareSweep), new("commit")],
                    read: null,
                    cancellationToken),
            cancellationToken).ConfigureAwait(false);
        _context.Moved();
        long found = 0;
        RowsOutcome done = new(0, 0, 0, false);
        while (!done.Stopped && await _worker.AskAsync(FetchAsync, cancellationToken).ConfigureAwait(false) is { Count: > 0 } places)
        {
            found += places.Count;
            foreach (IGrouping<uint, RowPlace> ofTable in places.GroupBy(place => place.Relation))
            {
                if (await LeafAsync(ofTable.Key, cancellationToken).ConfigureAwait(false) is not { } leaf)
                {
                    continue;
                }

                RowsOutcome some = await _worker.Rows.UpdateAsync(leaf, [.. ofTable], isSweep: true, cancellationToken).ConfigureAwait(false);
                done = new RowsOutcome(done.Changed + some.Changed, done.Same + some.Same, done.Failed + some.Failed, some.Stopped);
                if (done.Stopped)
                {
                    break;
                }
            }
        }

        await _worker.TellAsync(
            async connection =>
            {
                await using NpgsqlCommand close = new("close msb_sweep", connection) { CommandTimeout = 20 };
                await close.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        return (found, done);
    }

    private static async Task<List<RowPlace>> FetchAsync(NpgsqlConnection connection)
    {
        await using NpgsqlCommand command = new(string.Create(CultureInfo.InvariantCulture, $"fetch {Fetched} from msb_sweep"), connection) { CommandTimeout = 60 };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(CancellationToken.None).ConfigureAwait(false);
        List<RowPlace> places = [];
        while (await reader.ReadAsync(CancellationToken.None).ConfigureAwait(false))
        {
            places.Add(new RowPlace(reader.GetFieldValue<uint>(0), reader.GetString(1), reader.GetString(2)));
        }

        return places;
    }

    /// <summary>The part of the table; one that came since the backfill began is looked up. Null where it is gone again.</summary>
    private async Task<BackfillLeaf?> LeafAsync(uint relation, CancellationToken cancellationToken)
    {
        BackfillLeaf? leaf = _context.Definition.Leaves.FirstOrDefault(l => l.Table.Oid == relation);
        if (leaf is null)
        {
            IReadOnlyList<BackfillLeaf> leaves = await _worker.AskAsync(
                connection => BackfillLeaf.ReadAsync(connection, _context.Definition.Table.Oid, [.. _context.Definition.Set.Select(column => column.Name)], CancellationToken.None),
                cancellationToken).ConfigureAwait(false);
            _context.Definition = _context.Definition with { Leaves = leaves };
            leaf = leaves.FirstOrDefault(l => l.Table.Oid == relation);
            if (leaf is not null)
            {
                _context.Definition.Archive?.Check(leaf);
            }
        }

        return leaf;
    }

    private MigrationException StayLocked() => new(
        "RowsStayLocked",
        MigrationErrorKind.Busy,
        $"Rows of {_context.Definition.Table.Display} stay locked: {Durations.Text(_context.Options.RetryFor)} have passed without progress. "
        + $"In the way: {(_worker.Watch.Last.Length == 0 ? "transactions that came and went too fast to be seen" : string.Join("; ", _worker.Watch.Last.Select(blocker => blocker.ToString())))}. All other rows are done.",
        "Let these sessions end their transactions (Get-BlockingLock shows them), then run the command again: it goes on with the rows that are left.")
    {
        SqlState = SqlStates.LockNotAvailable,
        Target = _context.Definition.Table.Display,
        Blockers = _worker.Watch.Last,
    };
}
