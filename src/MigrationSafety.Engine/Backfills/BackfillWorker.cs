using System.Diagnostics;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>One of the workers of a run: takes range after range, and is on again after whatever can be overcome.</summary>
internal sealed partial class BackfillWorker : IAsyncDisposable
{
    // Who has not moved its range for so long is frozen or lost; nothing depends on it.
    private static readonly TimeSpan s_silence = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_poll = TimeSpan.FromMilliseconds(200);
    // What is done row by row is kept in the client's memory.
    private const int MostRowsOfPiece = 5000;
    // Short waits are the usual ones.
    private const int BatchesBeforeRows = 3;
    // Between two looks at a block lie the other batches of its turn, and with them the end of what others do meanwhile.
    private const int BatchesOfTurn = 4;

    private readonly BackfillContext _context;
    private readonly int _number;
    private readonly BatchSize _size;
    // Batches still to be run with SKIP LOCKED, because a row was locked for longer than a short wait.
    private int _skipping;
    private int _skippingSpan;
    private int _setbacks;
    // A block at a time takes too long: its rows one by one, or some.
    private bool _byRow;
    // A batch took longer than what it returned has led to expect.
    private bool _overran;

    internal BackfillWorker(BackfillContext context, int number)
    {
        _context = context;
        _number = number;
        _size = new BatchSize(context.Request.BatchSize, context.Request.TargetBatchTime, context.Sink);
        Watch = new BlockerWatch(context.Plan.Session, context.Activity, context.Sink);
        Throttle = new WorkerThrottle(context.Gate, context.Request.TargetBatchTime, context.Definition.MayPause, context.Moved);
        Rows = new BackfillRows(context, this);
    }

    internal BlockerWatch Watch { get; }

    /// <summary>Updates single rows.</summary>
    internal BackfillRows Rows { get; }

    /// <summary>Tells when and how gently it may go on.</summary>
    internal WorkerThrottle Throttle { get; }

    /// <summary>Batches sent.</summary>
    internal int Attempts { get; set; }

    internal int Number => _number;

    private string Name => _context.Plan.Name;

    private IOperationSink Sink => _context.Sink;

    /// <summary>Takes ranges until none is left, or until the backfill does not run any more.</summary>
    /// <param name="over">Tells that another worker has found it so: who has no connection then needs none any more.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task PassAsync(CancellationToken over, CancellationToken cancellationToken)
    {
        using CancellationTokenSource connecting = CancellationTokenSource.CreateLinkedTokenSource(over, cancellationToken);
        await HoldAsync(() => TakeRangesAsync(cancellationToken), cancellationToken, connecting.Token).ConfigureAwait(false);
    }

    private async Task<bool> TakeRangesAsync(CancellationToken cancellationToken)
    {
        await AttendAsync(cancellationToken).ConfigureAwait(false);
        TurnColumn? missed = null;
        while (true)
        {
            Task rangeEnded = _context.RangeEnded;
            (RangeClaim? claim, long unfinished, string state) = await AskAsync(
                connection => BackfillClaims.ClaimAsync(connection, _context.Definition, _context.Run, _number, s_silence + (2 * Connection.HoldLimit), CancellationToken.None),
                cancellationToken).ConfigureAwait(false);
            if (state != BackfillStore.Running || unfinished == 0)
            {
                return true;
            }

            if (claim is null)
            {
                // Others work on what is left.
                _context.Moved();
                await Task.WhenAny(rangeEnded, Task.Delay(s_poll, cancellationToken)).ConfigureAwait(false);
                cancellationToken.ThrowIfCancellationRequested();
                continue;
            }

            if (await PartAsync(claim.Relation, cancellationToken).ConfigureAwait(false) is not { } leaf)
            {
                Sink.Verbose($"A part of {_context.Definition.Table.Display} (oid {claim.Relation}) was dropped or detached since the backfill began: nothing is to be done there any more.");
                await TellAsync(connection => BackfillClaims.EndPartAsync(connection, Name, claim.Relation, CancellationToken.None), cancellationToken).ConfigureAwait(false);
                continue;
            }

            try
            {
                await WalkAsync(claim, leaf, cancellationToken).ConfigureAwait(false);
            }
            catch (PostgresException e) when (SqlStates.IsMissing(e.SqlState))
            {
                // Dropped or renamed meanwhile, perhaps with another table of that name in its place, as the next look at it tells; else something else is missing.
                if ((await PartAsync(claim.Relation, cancellationToken).ConfigureAwait(false))?.Table.Sql == leaf.Table.Sql)
                {
                    // The column of its turns may be what is gone: the same range is claimed again, by place then.
                    if (claim.TurnsBy is null || claim.TurnsBy == missed)
                    {
                        throw;
                    }

                    missed = claim.TurnsBy;
                    continue;
                }
            }

            _context.EndRange();
        }
    }

    /// <summary>Records who works here now.</summary>
    internal Task AttendAsync(CancellationToken cancellationToken) =>
        TellAsync(connection => BackfillStore.AttendAsync(connection, Name, _context.Run, _number, CancellationToken.None), cancellationToken);

    /// <summary>Runs what changes rows; null where it returned nothing.</summary>
    /// <param name="leaf">Its table.</param>
    /// <param name="sql">Statement.</param>
    /// <param name="parameters">Its parameters.</param>
    /// <param name="read">Reads the row that it returns.</param>
    /// <param name="watched">Whether to note who is in the way.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <param name="first">A statement of the same parameters, in the same transaction before it; null for none.</param>
    internal async Task<T?> SendAsync<T>(BackfillLeaf leaf, string sql, object[] parameters, Func<NpgsqlDataReader, T> read, bool watched, CancellationToken cancellationToken, string? first = null)
        where T : class
    {
        Attempts++;
        long sent = await Throttle.BeginAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            T? outcome = await Connection.ExecuteAsync(sql, parameters, read, watched ? Watch : null, cancellationToken, (_context.Definition.Into?.HasTriggers ?? leaf.HasTriggers) || _overran, first).ConfigureAwait(false);
            if (watched)
            {
                Watch.Cleared();
            }

            return outcome;
        }
        catch (PostgresException e) when (_context.Definition.Archive?.Outgrown(e, leaf.Table.Display) is { } outgrown)
        {
            throw outgrown;
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.QueryCanceled && Stopwatch.GetElapsedTime(sent) < 0.9 * Connection.HoldLimit)
        {
            throw new MigrationException(
                "CancelledByOther",
                MigrationErrorKind.Stopped,
                $"{_context.Activity}: somebody cancelled a batch on the server (pg_cancel_backend).",
                "Ask who did, then run the command again: it goes on at the checkpoint.",
                e)
            {
                SqlState = e.SqlState,
                Target = _context.Definition.Table.Display,
            };
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.QueryCanceled)
        {
            // There may be a trigger that was not there when the parts of the table were looked up.
            _overran = true;
            throw;
        }
        finally
        {
            Throttle.End(sent);
        }
    }

    /// <summary>Whether somebody holds a lock on the whole table that keeps its rows from being changed.</summary>
    /// <param name="explain">Explains the update: takes the table's lock as it does, but no row's.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task<bool> IsTableLockedAsync(string explain, CancellationToken cancellationToken)
    {
        try
        {
            await Connection.ExecuteAsync(explain, [], reader => reader.GetString(0), watch: null, cancellationToken).ConfigureAwait(false);
            return false;
        }
        catch (PostgresException e) when (BackfillContext.IsBusy(e))
        {
            return true;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Watch.DisposeAsync().ConfigureAwait(false);
        if (_connection is { } connection)
        {
            _connection = null;
            await connection.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>The part of the table; one that came since the backfill began is looked up. Null where it is none any more.</summary>
    /// <exception cref="MigrationException"><c>TableRenamed</c>, <c>TableDropped</c>: it is the table itself.</exception>
    internal async Task<BackfillLeaf?> PartAsync(uint relation, CancellationToken cancellationToken)
    {
        uint root = _context.Definition.Table.Oid;
        BackfillLeaf? Known() => _context.Definition.Leaves.FirstOrDefault(l => l.Table.Oid == relation);
        if (relation == root)
        {
            await TellAsync(connection => BackfillRecords.RefuseRenamedAsync(connection, Name, runs: true, CancellationToken.None), cancellationToken).ConfigureAwait(false);
            return Known();
        }

        if (await AskAsync(connection => BackfillLeaf.FindPartAsync(connection, root, relation, CancellationToken.None), cancellationToken).ConfigureAwait(false) is not { } name)
        {
            return null;
        }

        if (Known() is not { } known || (known.Table.Schema, known.Table.Name) != name)
        {
            IReadOnlyList<BackfillLeaf> leaves = await AskAsync(
                connection => BackfillLeaf.ReadAsync(connection, root, _context.Definition.ChangedColumns, CancellationToken.None),
                cancellationToken).ConfigureAwait(false);
            _context.Definition = _context.Definition with { Leaves = leaves };
            if (Known() is { } found)
            {
                _context.Definition.Archive?.Check(found);
            }
        }

        return Known();
    }

    /// <summary>Batch after batch through a range, until its end or until somebody else is there.</summary>
    private async Task WalkAsync(RangeClaim claim, BackfillLeaf leaf, CancellationToken cancellationToken)
    {
        BackfillStatements statements = new(_context.Definition, leaf with { ByKey = claim.ByKey, Slices = claim.Slices, TurnsBy = claim.TurnsBy });
        bool first = claim.First;
        while (true)
        {
            await Throttle.WaitAsync(cancellationToken).ConfigureAwait(false);
            BatchPace pace = Throttle.Pace(_size);
            int rows = Math.Min(_size.Rows, _context.Gate.MostRows ?? int.MaxValue);
            long wanted = claim.ByKey ? rows : Math.Max(1, (long)(rows * (long)claim.Slices / _context.RowsOfBlock));
            long amount = claim.Slices == 1 ? wanted : Math.Min(wanted, Math.Max(1, claim.Stretch / BatchesOfTurn));
            // Who never waits for a row while it holds others is in no deadlock for a row.
            bool skip = _skipping > 0 || Connection.MayDeadlock;
            BatchOutcome? outcome = null;
            bool atOnce = _byRow && !claim.ByKey;
            PostgresException? fault = atOnce ? null : await TryBatchAsync().ConfigureAwait(false);
            if (fault is null && outcome is null && !atOnce)
            {
                return;
            }

            // What stays locked although locked rows are passed over is not in the table: only its rows one by one tell which need it.
            bool lockedElsewhere = fault?.SqlState == SqlStates.LockNotAvailable && _setbacks >= BatchesBeforeRows
                && !await IsTableLockedAsync(statements.Explain, cancellationToken).ConfigureAwait(false);
            if (outcome is null && (fault is null || lockedElsewhere || BackfillContext.IsDataError(fault) || (fault.SqlState == SqlStates.QueryCanceled && !claim.ByKey && amount == 1)))
            {
                _byRow = fault is null || fault.SqlState == SqlStates.QueryCanceled;
                if (!await ByRowAsync(claim, leaf, statements, first, cancellationToken).ConfigureAwait(false))
                {
                    return;
                }

                first = false;
                continue;
            }

            if (outcome is null)
            {
                await SetBackAsync(fault!, skip, amount == 1, claim.ByKey ? leaf : null, cancellationToken).ConfigureAwait(false);
                continue;
            }

            _setbacks = 0;
            first = false;
            _skipping = Math.Max(0, _skipping - 1);
            _skippingSpan = skip ? _skippingSpan : 0;
            TimeSpan took = Connection.ServerTime(outcome.ServerTime);
            Throttle.Paused(pace, outcome.Changed, outcome.Passed, took);
            _context.Did(outcome.Changed, outcome.Passed, took);
            if (outcome.AtEnd)
            {
                return;
            }

            // One that was cut short says nothing about how long a whole one takes, unless that it takes too long.
            if ((rows == _size.Rows && amount == wanted && outcome.Whole) || took > _context.Request.TargetBatchTime)
            {
                _size.Took(took, outcome.Changed);
            }

            async Task<PostgresException?> TryBatchAsync()
            {
                try
                {
                    // Who is in the way is of interest where rows or the table stay locked, not at every short wait.
                    outcome = await SendAsync(
                        leaf,
                        skip ? statements.SkippingBatch(first) : statements.Batch(first),
                        [Name, claim.Id, amount, _context.Run, _number, pace.Chance, pace.Seconds],
                        reader => new BatchOutcome(reader.GetInt64(0), reader.GetBoolean(1), reader.GetInt64(2), TimeSpan.FromMilliseconds(reader.GetDouble(3)), reader.GetBoolean(4)),
                        _setbacks > 0,
                        cancellationToken).ConfigureAwait(false);
                    return null;
                }
                catch (PostgresException e) when (BackfillContext.IsBusy(e) || BackfillContext.IsDataError(e))
                {
                    return e;
                }
            }
        }
    }

    /// <summary>Does the rows of the next piece in small batches, down to single rows, and moves the checkpoint over them.</summary>
    /// <returns>False at the end of the range, and where somebody else is there.</returns>
    private async Task<bool> ByRowAsync(RangeClaim claim, BackfillLeaf leaf, BackfillStatements statements, bool first, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        _size.Limit(MostRowsOfPiece);
        long amount = claim.ByKey ? _size.Rows : _byRow ? 1 : Math.Max(1, (long)(_size.Rows * claim.Slices / _context.RowsOfBlock));
        List<PieceOfRange> pieces = await LookAsync(
            statements.PlacesOfPiece(first),
            [Name, claim.Id, amount],
            reader => new PieceOfRange(
                [.. reader.GetFieldValue<string[]>(0).Zip(reader.GetFieldValue<string[]>(1), (place, version) => new RowPlace(leaf.Table.Oid, place, version))],
                reader.IsDBNull(2) ? null : reader.GetFieldValue<string[]>(2),
                reader.GetFieldValue<string[]>(3),
                reader.GetBoolean(4)),
            cancellationToken).ConfigureAwait(false);
        if (pieces is not [PieceOfRange piece])
        {
            return false;
        }

        RowsOutcome done = await Rows.UpdateAsync(leaf, piece.Places, isSweep: false, byKey: false, cancellationToken).ConfigureAwait(false);
        if (done.Stopped)
        {
            return false;
        }

        await TellAsync(connection => BackfillClaims.AdvanceAsync(connection, Name, claim.Id, piece.From, piece.To, piece.AtEnd, CancellationToken.None), cancellationToken).ConfigureAwait(false);
        _byRow &= Stopwatch.GetElapsedTime(start) > _context.Request.TargetBatchTime / 2;
        return !piece.AtEnd;
    }

    /// <summary>A batch was taken back because of others, or because it took too long.</summary>
    /// <param name="e">What the server said.</param>
    /// <param name="skipped">Whether it passed over locked rows.</param>
    /// <param name="smallest">Whether none is smaller.</param>
    /// <param name="alongKey">The part along whose key it went; null by blocks.</param>
    /// <param name="cancellationToken">Cancels.</param>
    private async Task SetBackAsync(PostgresException e, bool skipped, bool smallest, BackfillLeaf? alongKey, CancellationToken cancellationToken)
    {
        if (e.SqlState == SqlStates.LockNotAvailable && !skipped)
        {
            _skippingSpan = Math.Clamp(_skippingSpan * 2, 1, 32);
            _skipping = _skippingSpan;
            return;
        }

        _setbacks++;
        if (e.SqlState == SqlStates.QueryCanceled)
        {
            if (smallest && alongKey is not null && !await AskAsync(connection => alongKey.HasItsKeyAsync(connection, _context.Definition, CancellationToken.None), cancellationToken).ConfigureAwait(false))
            {
                throw SlowBatch.WithoutIndex(alongKey, e);
            }

            if (_setbacks > 8 && smallest)
            {
                throw SlowBatch.Of(_context.Definition, Connection.HoldLimit, e);
            }

            _size.Divide(4);
        }
        else if (e.SqlState != SqlStates.LockNotAvailable)
        {
            _size.Divide(2);
        }

        if (_context.IsStuck)
        {
            throw ServerErrors.Translate(e, $"Backfilling {_context.Definition.Table.Display}", _context.Definition.Table.Display, blockers: Watch.Last);
        }

        Sink.Verbose($"A batch was taken back ({ServerErrors.Words(e)}); tries again.");
        // A batch that was merely too large need not wait.
        if (e.SqlState != SqlStates.QueryCanceled || _setbacks > 2)
        {
            await BackfillContext.PauseAsync(_setbacks, cancellationToken).ConfigureAwait(false);
        }
    }
}
