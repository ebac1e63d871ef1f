using System.Diagnostics;
using System.Globalization;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// What comes after the pass: a sweep over all rows that match in one snapshot, whatever moved, was locked or came since. What of these it could not do it follows by key, wherever
/// they go, until each is done or filled by others: that proves that every row that existed when the sweep began is done. Rows that the application inserts meanwhile
/// do not make it last longer. What has no key and moved, or is not found by its key any more (deleted, or another key), is looked for by another sweep.
/// </summary>
internal sealed class BackfillSweep
{
    private const int Fetched = 5000;
    // The client's memory: with more than that left over the whole table is swept again.
    private const int MostFollowed = 10_000;
    // An application may delete rows that match for ever: what is still not found by its key then is taken for deleted; the count at the end tells of any that is not.
    private const int SweepsForGone = 3;
    // Looking after some rows is cheap: no long pauses.
    private const int LongestPause = 4;
    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(250);
    // Longer than a pause between two attempts at rows that are locked.
    private static readonly TimeSpan s_quiet = TimeSpan.FromSeconds(15);

    private readonly BackfillContext _context;
    private readonly BackfillWorker _worker;

    internal BackfillSweep(BackfillContext context, BackfillWorker worker)
    {
        _context = context;
        _worker = worker;
    }

    private int _sweeps;
    // The part that is being changed.
    private BackfillLeaf? _leaf;

    /// <summary>Whether the last sweep found nothing, so that by then no row was left.</summary>
    internal bool FoundNothing { get; private set; }

    /// <summary>Sweeps until one proves the end, which is then recorded; or until somebody else has.</summary>
    internal async Task<bool> RunAsync(CancellationToken cancellationToken)
    {
        await _worker.AttendAsync(cancellationToken).ConfigureAwait(false);
        (long progress, long fewest) = (Clock(), long.MaxValue);
        BackfillReview review = new(_context, _worker);
        for (int inVain = 0; ; inVain++)
        {
            if (!await TakeTurnAsync(cancellationToken).ConfigureAwait(false)
                || await _worker.AskAsync(connection => BackfillStore.SweepAsync(connection, _context.Plan.Name, CancellationToken.None), cancellationToken).ConfigureAwait(false) is not { } number)
            {
                return true;
            }

            _context.Sweeps(number);
            FoundNothing = false;
            long? open = await TrySweepAsync(number, cancellationToken).ConfigureAwait(false);
            if (open < 0)
            {
                return true;
            }

            if (open == 0)
            {
                bool? again = await review.RunAsync(cancellationToken).ConfigureAwait(false);
                if (again == false)
                {
                    await _worker.TellAsync(connection => BackfillStore.CompleteAsync(connection, _context.Plan.Name, CancellationToken.None), cancellationToken).ConfigureAwait(false);
                }

                if (again != true)
                {
                    return true;
                }

                (progress, fewest, inVain) = (Clock(), long.MaxValue, 0);
            }
            else
            {
                if (open < fewest)
                {
                    (progress, fewest, inVain) = (Clock(), open.Value, 0);
                }
                else if (Stopwatch.GetElapsedTime(progress, Clock()) > _context.Options.RetryFor)
                {
                    throw StayLocked();
                }

                _context.Sink.Verbose($"After sweep {number} of {_context.Plan.Name} it is not known {(open is null ? "what is left" : $"what became of {open:N0} rows, which were locked or changed meanwhile")}; sweeps again.");
            }

            await _worker.AskAsync(connection => BackfillLock.ReleaseSweepAsync(connection, _context.Definition, CancellationToken.None), cancellationToken).ConfigureAwait(false);
            await BackfillContext.PauseAsync(inVain + 1, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Waits while another client sweeps, which it does for both, as long as it moves.</summary>
    /// <returns>False where the backfill does not run any more.</returns>
    /// <exception cref="MigrationException"><c>TableBusy</c>: it has not moved for as long as is to be waited for.</exception>
    private async Task<bool> TakeTurnAsync(CancellationToken cancellationToken)
    {
        (long moved, (int Pid, DateTime Heartbeat) last, bool told) = (Stopwatch.GetTimestamp(), default, false);
        while (!await _worker.AskAsync(connection => BackfillLock.TrySweepAsync(connection, _context.Definition, CancellationToken.None), cancellationToken).ConfigureAwait(false))
        {
            if (!await IsRunningAsync(cancellationToken).ConfigureAwait(false))
            {
                return false;
            }

            if (await _worker.AskAsync(connection => BackfillLock.SweeperAsync(connection, _context.Definition, CancellationToken.None), cancellationToken).ConfigureAwait(false) is { } sweeper)
            {
                (DateTime heartbeat, string? waitingFor) = await _worker.AskAsync(
                    connection => BackfillStore.HeartbeatAsync(connection, _context.Plan.Name, sweeper.Pid, CancellationToken.None), cancellationToken).ConfigureAwait(false);
                if (last != (sweeper.Pid, heartbeat))
                {
                    (moved, last, told) = (Stopwatch.GetTimestamp(), (sweeper.Pid, heartbeat), false);
                }
                else if (sweeper.State == "active")
                {
                    // A look at the whole table is one statement.
                    moved = Stopwatch.GetTimestamp();
                }

                TimeSpan quiet = Stopwatch.GetElapsedTime(moved);
                string who = $"{sweeper}{(waitingFor is null ? "" : $", by its own word: {waitingFor}")}";
                if (quiet > _context.Options.RetryFor)
                {
                    throw BackfillLock.Busy($"Another client sweeps for {_context.Plan.Name} and has not moved for {Durations.Text(quiet)}: {who}.", _context.Definition, sweeper);
                }

                if (quiet > s_quiet && !told)
                {
                    _context.Sink.Warning($"Another client sweeps for {_context.Plan.Name} and does not move; waiting for {who}.");
                    told = true;
                }
            }

            _context.Moved();
            await Task.Delay(s_poll, cancellationToken).ConfigureAwait(false);
        }

        return await IsRunningAsync(cancellationToken).ConfigureAwait(false);
    }

    private async Task<bool> IsRunningAsync(CancellationToken cancellationToken)
    {
        BackfillRecord? record = await _worker.AskAsync(connection => BackfillRecords.ReadAsync(connection, _context.Plan.Name, CancellationToken.None), cancellationToken).ConfigureAwait(false);
        return (record ?? throw BackfillStore.Missing(_context.Plan.Name)).State == BackfillStore.Running;
    }

    /// <returns>How many rows found a way out of sight; null where that is not known, less than zero where the backfill does not run any more.</returns>
    private async Task<long?> TrySweepAsync(int number, CancellationToken cancellationToken)
    {
        try
        {
            return await SweepAsync(number, cancellationToken).ConfigureAwait(false);
        }
        catch (PostgresException e) when (SqlStates.IsMissing(e.SqlState) && _leaf is { } leaf)
        {
            // A part that was dropped or renamed under the sweep, as a look at it tells; else something else is missing.
            if ((await LeafAsync(leaf.Table.Oid, cancellationToken).ConfigureAwait(false))?.Table.Sql == leaf.Table.Sql)
            {
                throw;
            }

            _context.Sink.Verbose($"{leaf.Table.Display} was dropped or renamed under a sweep.");
            return null;
        }
        catch (PostgresException e) when (BackfillContext.IsBusy(e))
        {
            // A cursor whose fetch failed cannot be read on: as if nothing of it had been done.
            _context.Sink.Verbose($"A sweep was broken off ({ServerErrors.Words(e)}).");
            return null;
        }
    }

    private async Task<long?> SweepAsync(int number, CancellationToken cancellationToken)
    {
        _leaf = null;
        await _worker.Throttle.WaitAsync(cancellationToken).ConfigureAwait(false);
        await _worker.TellAsync(connection => BackfillRecords.RefuseRenamedAsync(connection, _context.Plan.Name, runs: true, CancellationToken.None), cancellationToken).ConfigureAwait(false);
        uint[] tables = [.. _context.Definition.Leaves.Select(leaf => leaf.Table.Oid)];
        string files = await FilesAsync(tables, cancellationToken).ConfigureAwait(false);
        BackfillQueries queries = new(_context.Definition);
        _context.Sink.Debug(queries.DeclareSweep);
        try
        {
            // The end of the transaction fills the cursor; then no snapshot is held any more. A look at the whole table takes as long as it takes, but no row is locked by it.
            await _context.Look($"Sweep {number} of {_context.Plan.Name}").RunAsync(
                _worker.Connection.Backend.Pid,
                () => _worker.AskAsync(
                    async _ =>
                    {
                        await _worker.Connection.InTransactionAsync(
                            [new("close all"), new(BackfillConnection.Unbounded), new("set local enable_seqscan = on"), new("set local enable_bitmapscan = on"), new(queries.DeclareSweep), new("commit")],
                            read: null,
                            cancellationToken).ConfigureAwait(false);
                        return true;
                    },
                    cancellationToken,
                    repeat: false),
                BackfillContext.IsBusy,
                cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            // Also where it is broken off: it was at work, however long it took.
            _context.Moved();
        }

        (long found, long lost) = (0, 0);
        List<RowPlace> left = [];
        // Not again where it fails: the cursor may have moved on, and what it passed would be missing.
        while (await _worker.AskAsync(_ => FetchAsync(), cancellationToken, repeat: false).ConfigureAwait(false) is { Count: > 0 } places)
        {
            found += places.Count;
            foreach (IGrouping<uint, RowPlace> ofTable in places.GroupBy(place => place.Relation))
            {
                if (await LeafAsync(ofTable.Key, cancellationToken).ConfigureAwait(false) is not { } leaf)
                {
                    // Dropped or detached, and perhaps attached again by the next sweep.
                    lost += ofTable.Count();
                    continue;
                }

                bool hasKey = leaf.KeyNames.SequenceEqual(queries.SweptKey);
                RowsOutcome some = await _worker.Rows.UpdateAsync(leaf, [.. ofTable.Select(place => hasKey ? place : place with { Key = null })], isSweep: true, byKey: false, cancellationToken).ConfigureAwait(false);
                if (some.Stopped)
                {
                    return -1;
                }

                int room = Math.Min(some.Left.Count, MostFollowed - left.Count);
                left.AddRange(some.Left.Take(room));
                lost += some.Left.Count - room;
            }
        }

        await _worker.TellAsync(
            async connection =>
            {
                await using NpgsqlCommand close = new("close msb_sweep", connection) { CommandTimeout = 20 };
                await close.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
            },
            cancellationToken).ConfigureAwait(false);
        _sweeps++;
        if (left.Count > 0)
        {
            _context.Sink.Verbose($"Sweep {number} of {_context.Plan.Name} found {found:N0} rows, of which {left.Count + lost:N0} were locked or changed meanwhile.");
        }

        FoundNothing = found == 0;
        long open = lost > 0 ? left.Count + lost : await FollowAsync(left, cancellationToken).ConfigureAwait(false);
        if (open == 0 && found > 0 && await FilesAsync(tables, cancellationToken).ConfigureAwait(false) != files)
        {
            // VACUUM FULL and CLUSTER move rows and leave them their versions: what was found by place may have been another row.
            _context.Sink.Verbose($"{_context.Definition.Table.Display} was written anew under a sweep.");
            return null;
        }

        return open;
    }

    /// <summary>The files of tables, which change where one is written anew.</summary>
    private Task<string> FilesAsync(uint[] tables, CancellationToken cancellationToken) => _worker.AskAsync(
        async connection =>
        {
            await using NpgsqlCommand command = new("select coalesce(pg_catalog.string_agg(coalesce(pg_catalog.pg_relation_filenode(t), 0)::text, ' ' order by t), '') from pg_catalog.unnest($1) t", connection)
            {
                CommandTimeout = BackfillStore.AnswerSeconds,
                Parameters = { new() { Value = tables, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Array | NpgsqlTypes.NpgsqlDbType.Oid } },
            };
            return (string)(await command.ExecuteScalarAsync(CancellationToken.None).ConfigureAwait(false))!;
        },
        cancellationToken);

    /// <summary>Tries those that a sweep had to leave, and only those, until each is done or gone.</summary>
    /// <returns>How many are nowhere to be found; less than zero where the backfill does not run any more.</returns>
    /// <exception cref="MigrationException"><c>RowsStayLocked</c>.</exception>
    private async Task<long> FollowAsync(List<RowPlace> left, CancellationToken cancellationToken)
    {
        (long lost, long progress) = (0, Clock());
        for (int inVain = 0; left.Count > 0; inVain++)
        {
            await BackfillContext.PauseAsync(Math.Min(inVain + 1, LongestPause), cancellationToken).ConfigureAwait(false);
            _context.Moved();
            List<RowPlace> still = [];
            foreach (IGrouping<(uint Relation, bool HasKey), RowPlace> ofTable in left.GroupBy(place => (place.Relation, place.Key is not null)))
            {
                if (await LeafAsync(ofTable.Key.Relation, cancellationToken).ConfigureAwait(false) is not { } leaf)
                {
                    lost += ofTable.Count();
                    continue;
                }

                (RowPlace[] places, int gone) = await _worker.Rows.FindAsync(leaf, [.. ofTable], ofTable.Key.HasKey, cancellationToken).ConfigureAwait(false);
                lost += ofTable.Key.HasKey && _sweeps >= SweepsForGone ? 0 : gone;
                RowsOutcome some = await _worker.Rows.UpdateAsync(leaf, places, isSweep: true, ofTable.Key.HasKey, cancellationToken).ConfigureAwait(false);
                if (some.Stopped)
                {
                    return -1;
                }

                still.AddRange(some.Left);
            }

            if (still.Count < left.Count)
            {
                (progress, inVain) = (Clock(), -1);
            }
            else if (Stopwatch.GetElapsedTime(progress, Clock()) > _context.Options.RetryFor)
            {
                throw StayLocked();
            }

            left = still;
        }

        return lost;
    }

    private async Task<List<RowPlace>> FetchAsync()
    {
        List<RowPlace> places = [];
        await _worker.Connection.InTransactionAsync(
            [new(BackfillConnection.Unbounded), new(string.Create(CultureInfo.InvariantCulture, $"fetch {Fetched} from msb_sweep")), new("commit")],
            async reader =>
            {
                await reader.NextResultAsync(CancellationToken.None).ConfigureAwait(false);
                while (await reader.ReadAsync(CancellationToken.None).ConfigureAwait(false))
                {
                    places.Add(new RowPlace(reader.GetFieldValue<uint>(0), reader.GetString(1), reader.GetString(2), reader.Text(3)));
                }
            },
            CancellationToken.None).ConfigureAwait(false);
        return places;
    }

    private async Task<BackfillLeaf?> LeafAsync(uint relation, CancellationToken cancellationToken) => _leaf = await _worker.PartAsync(relation, cancellationToken).ConfigureAwait(false);

    /// <summary>Now, but for the time that the throttle has taken: that counts as no attempt in vain.</summary>
    private long Clock() => Stopwatch.GetTimestamp() - _worker.Throttle.Waited;

    private MigrationException StayLocked() => new(
        "RowsStayLocked",
        MigrationErrorKind.Busy,
        $"Rows of {_context.Definition.Table.Display} stay locked or are changed again and again: {Durations.Text(_context.Options.RetryFor)} have passed without progress. "
        + $"In the way: {(_worker.Watch.Last.Length == 0 ? "transactions that came and went too fast to be seen" : string.Join("; ", _worker.Watch.Last.Select(blocker => blocker.ToString())))}. All other rows are done.",
        "Let these sessions end their transactions (Get-BlockingLock shows them), then run the command again: it goes on with the rows that are left.")
    {
        SqlState = SqlStates.LockNotAvailable,
        Target = _context.Definition.Table.Display,
        Blockers = _worker.Watch.Last,
    };
}
