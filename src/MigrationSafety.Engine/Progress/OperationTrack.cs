namespace MigrationSafety.Engine.Progress;

/// <summary>One operation over time: its rate, how much of the whole is done, and when it ends. Times are the server's.</summary>
/// <param name="learnt">What the log knows of index builds.</param>
/// <param name="began">When its statement was last seen at something else; null where that was not seen, so that the operation may be as old as the statement.</param>
internal sealed class OperationTrack(LearntPhases learnt, DateTime? began = null)
{
    // The window of the rate grows with the operation: a third of what was seen of it, within these bounds. Counters stand still for seconds and then jump: a sort
    // is fed as long as memory lasts, then works. A shorter window would take a pause for the end of the world, and a jump for the end of the work.
    private const double ShortestWindow = 20;
    private const double LongestWindow = 600;

    // How long a rate has to be seen before it is more than a glimpse.
    private const double Glimpse = 2;
    private const int MostPoints = 600;

    // What is said of the whole as long as it is not over.
    private const double MostPercent = 99.9;

    // An operation that began so shortly before it was first seen was seen from its beginning.
    private const double JustBegun = 1;

    // From which part of what was expected on a piece in which nothing is counted is late, and how much of what it took then is left at least.
    private const double Overdue = 0.8;
    private const double OfOverdue = 0.25;

    // For how long the file of a table that is written anew has to stand still before it is taken for complete: as long as this, and as several of its pauses.
    private const double ShortestStand = 1;
    private const double UnseenStand = 3;
    private const double Pauses = 3;

    private readonly Queue<Point> _points = new();
    private readonly PhaseEstimate _estimate = new();
    private DateTime _lastTime;
    private double _worked;
    private bool _waited;
    private double? _firstWork;

    // Until when it computed what it was to write: no pace of the writing.
    private double _blank;
    private string? _phase;
    private int _part = -1;
    private double? _partSince;
    private double _percent;
    private double _within;
    private double? _withinNext;
    private long? _firstPosition;
    private long? _bytes;
    private double _grewAt;
    private double? _pause;
    private SeenBuild _seen;
    private ProgressSample? _sample;
    private (string? Table, string? Index)? _made;

    /// <summary>A moment: seconds of work seen so far (waiting for locks left out), work done of the whole, and the phase's counter.</summary>
    private sealed record Point(double Worked, double? Work, int Part, long Round, string? Phase, long? Done, long? Lag);

    /// <summary>The first sample, which the end is compared with.</summary>
    internal ProgressSample First { get; private set; } = null!;

    internal ProgressSample Last => _sample!;

    internal OperationState State { get; private set; } = null!;

    /// <summary>What was said of the last sample.</summary>
    internal MigrationProgress Said { get; private set; } = null!;

    /// <summary>The index that it was last seen working on: the view forgets it between two phases.</summary>
    internal long? IndexOid { get; private set; }

    /// <summary>The entry in the log of the operation of this module that it is, or is a part of; the log may be done with it a moment earlier.</summary>
    internal ProgressSample? Entry { get; private set; }

    /// <summary>Number of that entry.</summary>
    internal long? EntryId => Entry?.Number("id");

    /// <summary>Whether it commits on its way: no transaction of it tells how it ended.</summary>
    internal bool InSeveralTransactions => State.Operation is "CREATE INDEX CONCURRENTLY" or "REINDEX CONCURRENTLY" or "DROP INDEX CONCURRENTLY";

    /// <summary>Its last transaction, as a whole number.</summary>
    internal ulong? Transaction { get; private set; }

    /// <summary>Takes the next sample.</summary>
    /// <param name="sample">Sample.</param>
    /// <param name="time">When it was taken.</param>
    /// <param name="session">Whose server.</param>
    /// <param name="nextTransaction">The server's next one: what makes a whole number of a transaction's 32 bits.</param>
    internal MigrationProgress Add(ProgressSample sample, DateTime time, MigrationSession session, ulong nextTransaction)
    {
        if (sample.View == ProgressQueries.Ddl)
        {
            sample = OwnModels.OfStatement(sample, _sample is null ? null : First);
            sample = Growth(sample, time);
        }

        IndexOid = sample.Number("index_relid") is { } index and > 0 ? index : IndexOid;
        Entry = sample.View == ProgressQueries.Operation ? sample : sample.Entry ?? Entry;
        Transaction = Whole(sample.Xid, nextTransaction) ?? Transaction;
        if (sample.View == "create_index")
        {
            _seen = IndexBuildModel.See(sample, _seen);
        }
        else if (sample.View == "vacuum")
        {
            _seen = _seen with { Workers = Math.Max(_seen.Workers, sample.Fact("workers") ?? 0), Throttled = _seen.Throttled || VacuumModel.IsThrottled(sample) };
        }

        OperationState state = ProgressModels.Of(sample, learnt, _seen);
        bool waits = sample.BlockedBy.Length > 0 || sample.WaitEventType == "Lock" || OwnModels.IsAtRest(state.Phase) || OwnModels.IsPaused(state.Waiting);
        bool fromBeginning = _sample is null && OfAllWork(sample, time) < (began is null ? JustBegun : double.MaxValue);
        if (_sample is null)
        {
            First = sample;
            if (fromBeginning && !waits)
            {
                _worked = OfAllWork(sample, time)!.Value;
                _firstWork = 0;
            }
        }
        else if (!waits || !_waited)
        {
            // A wait begins, or ends, somewhere between two looks.
            _worked += Math.Max(0, (time - _lastTime).TotalSeconds) * (waits == _waited ? 1 : 0.5);
        }

        _waited = waits;

        if (state.Within is 1 && IndexBuildModel.MayBeginInTheMiddle(sample) && (state.Part != _part ? state.Part < state.Parts.Count - 1 : _within < 0.5))
        {
            // A scan that begins in the middle of the table says at its first block that it has seen all.
            state = state with { Within = state.Part == _part ? _within : 0, Done = null, Total = null, Unit = null };
        }

        _within = state.Within ?? 0;
        if (state.Part != _part || (state.Phase != _phase && state.Within is null) || (state.WithinNext is not null && state.WithinNext != _withinNext))
        {
            // When a part, or a piece of it, began is known only of those whose beginning was seen.
            _partSince = _sample is not null ? _worked : fromBeginning ? 0 : null;
        }

        _withinNext = state.WithinNext;

        (_part, _phase, _lastTime, _sample, State) = (state.Part, state.Phase, time, sample, state);
        if (state.Endless)
        {
            _firstPosition ??= sample.Number("position");
        }

        double? speed = Speed(sample, time);
        double? work = Work(state, speed);
        _firstWork ??= work;
        _blank = work is null && _points.All(point => point.Work is null) ? _worked : _blank;
        _points.Enqueue(new Point(_worked, work, state.Part, state.Rounds.Done, state.Phase, state.Done, state.Endless ? state.Total : null));
        Forget();

        double all = state.Shares * state.Rounds.Total;
        (double Done, double Remaining)? estimate = state.Seconds is null ? null : _estimate.Add(_worked, _firstWork == 0, waits, Elapsed(sample, time), state);
        double? percent = estimate is { } e ? 100 * e.Done : work is { } w && all > 0 ? Math.Clamp(100 * w / all, 0, 100) : null;
        if (percent is { } part && sample.View == "vacuum" && state is { Part: 0, Within: { } read })
        {
            // No more of the whole than of its first part, however slow that turns out to be: what was said once stays.
            percent = Math.Min(part, 100 * read);
        }

        if (percent is not null)
        {
            // The table grows while it is scanned, and shares are assumed: what was said stays said. What still runs, if only to wait for others, is not done.
            _percent = Math.Max(_percent, Math.Min(percent.Value, MostPercent));
            percent = _percent;
        }

        TimeSpan? remaining = waits ? null : estimate is { } to && to.Remaining < TimeSpan.MaxValue.TotalSeconds / 10 ? TimeSpan.FromSeconds(to.Remaining) : state.Endless ? CatchUp(state) : work is { } done && percent is not null ? Remaining(sample, time, state, done, all) : null;
        return Said = Progress(sample, state, session) with
        {
            Percent = percent,
            Rate = Rate(state),
            Remaining = remaining,
            EstimatedEnd = remaining is { } left ? new DateTimeOffset(time + left, TimeSpan.Zero).ToLocalTime() : null,
            Confidence = percent is null && remaining is null ? ProgressConfidence.Unknown : Confidence(state),
        };
    }

    /// <summary>Takes what its statement is at where no view shows it.</summary>
    /// <returns>Whether it goes on for as long as the statement: not where the statement does one table after the other, each in a transaction of its own.</returns>
    internal bool Follow(ProgressSample statement, ulong nextTransaction)
    {
        ulong? transaction = Whole(statement.Xid, nextTransaction);
        if (Last.View is "vacuum" or "analyze" || ((Last.View == "cluster" || Last.Text("command") == "REINDEX") && Transaction is not null && Transaction != transaction))
        {
            return false;
        }

        Transaction ??= transaction;
        _sample = Last with { Elapsed = statement.Elapsed };
        return true;
    }

    /// <summary>It as far as its statement tells, while no view shows it.</summary>
    internal MigrationProgress Between(ProgressSample statement, DateTime time, MigrationSession session) =>
        Progress(
            statement with { View = Last.View, Counters = Last.Counters, Facts = Last.Facts },
            new OperationState { Operation = State.Operation },
            session) with { Confidence = ProgressConfidence.Unknown, Timestamp = new DateTimeOffset(time, TimeSpan.Zero).ToLocalTime() };

    /// <summary>Tells of a rewrite what its earlier looks do: what it had locked when it was first seen, and whether its new file has stopped to grow.</summary>
    private ProgressSample Growth(ProgressSample sample, DateTime time)
    {
        bool waits = sample.BlockedBy.Length > 0 || sample.WaitEventType == "Lock";
        double now = _worked + (_sample is null || waits || _waited ? 0 : Math.Max(0, (time - _lastTime).TotalSeconds));
        long? bytes = sample.Number("new_bytes");
        if (bytes != _bytes)
        {
            _pause = _bytes is null ? null : Math.Max(_pause ?? 0, now - _grewAt);
            (_bytes, _grewAt) = (bytes, now);
        }

        ProgressSample first = _sample is null ? sample : First;
        Dictionary<string, object> facts = new(sample.Facts, StringComparer.Ordinal)
        {
            ["begun_before"] = first.Number("indexes_begun") ?? 0,
            ["pages_before"] = first.Number("index_pages_begun") ?? 0,
            ["stands"] = bytes is not null && !waits && now - _grewAt >= (_pause is { } pause ? Math.Max(ShortestStand, Pauses * pause) : UnseenStand) ? 1L : 0L,
        };
        return sample with { Facts = facts };
    }

    private static ulong? Whole(string? xid, ulong next)
    {
        if (xid is null || !uint.TryParse(xid, System.Globalization.CultureInfo.InvariantCulture, out uint low))
        {
            return null;
        }

        // The next one that a snapshot knows of is the one after the last that ended: a running one may be older or younger.
        return unchecked(next + (ulong)(int)(low - (uint)next));
    }

    /// <summary>How much of the whole is done, in the unit of the shares.</summary>
    private double? Work(OperationState state, double? speed)
    {
        if (state.Parts.Count == 0)
        {
            return null;
        }

        OperationPart part = state.Parts[state.Part];
        double within = (state.Within, state.WithinNext) switch
        {
            ({ } done, { } next) => done + ((next - done) * Uncounted(part.Share * (next - done), speed)),
            ({ } done, null) => done,
            _ => Uncounted(part.Share, speed),
        };
        return (state.Rounds.Done * state.Shares) + state.Parts.Take(state.Part).Sum(p => p.Share) + (part.Share * within);
    }

    /// <summary>Work in which nothing is counted (a sort, one index of several): by the time since it began, as fast as the work so far went; half of it where that is not known.</summary>
    private double Uncounted(double share, double? speed)
    {
        if (_partSince is not { } since || speed is not > 0 || share <= 0)
        {
            return 0.5;
        }

        double expected = (_worked - since) * speed.Value / share;
        return expected <= 0.8 ? expected : 0.8 + (0.19 * (1 - Math.Exp(-(expected - 0.8) / 0.4)));
    }

    /// <summary>Seconds since it began, or since its statement did where that is all that is known.</summary>
    private double? Elapsed(ProgressSample sample, DateTime time) => began is { } since ? (time - since).TotalSeconds : sample.Elapsed?.TotalSeconds;

    /// <summary>Seconds in which all of its work was done; null of a backfill that was resumed, as earlier runs did some of it.</summary>
    private double? OfAllWork(ProgressSample sample, DateTime time) => sample.Fact("runs") > 1 ? null : Elapsed(sample, time);

    /// <summary>Work a second, over all that was seen; from its start where little was seen. Null where nothing moved.</summary>
    private double? Speed(ProgressSample sample, DateTime time)
    {
        double? seen = _points.Count > 0 && _firstWork is { } first && _worked - _blank > 0.05 ? (_points.Last().Work - first) / (_worked - _blank) : null;
        double elapsed = OfAllWork(sample, time) ?? 0;
        if (_points.Count > 0 && elapsed > 0 && _worked < Math.Min(5, elapsed / 4) && _points.Last().Work is > 0 and var done)
        {
            // It may have waited before it was looked at: at least as fast as this.
            return Math.Max(seen ?? 0, done / elapsed);
        }

        return seen > 0 ? seen : null;
    }

    private TimeSpan? Remaining(ProgressSample sample, DateTime time, OperationState state, double work, double all)
    {
        double? overall = Speed(sample, time);
        double partEnd = (state.Rounds.Done * state.Shares) + state.Parts.Take(state.Part + 1).Sum(part => part.Share);
        OperationPart part = state.Parts[state.Part];
        // Within the part, the rate of the last while counts; for what comes after it, the speed of the whole.
        Point? begin = _points.FirstOrDefault(point => point.Part == state.Part && point.Work is not null);
        double? inPart = begin is not null && state.Within is not null && state.WithinNext is null && _worked - begin.Worked > 0.05 && work > begin.Work ? (work - begin.Work) / (_worked - begin.Worked) : null;
        double rest = Math.Max(0, partEnd - work);
        double after = Math.Max(0, all - partEnd);
        double? now = rest > 0 ? rest / (inPart ?? overall) : 0;
        if (inPart is null && now is not null && _partSince is { } since && part.Share > 0)
        {
            // What counts nothing ends the later, the longer it has taken beyond what was expected of it.
            double took = _worked - since;
            now = took > Overdue * part.Share * ((state.WithinNext ?? 1) - (state.Within ?? 0)) / overall ? Math.Max(now.Value, took * OfOverdue) : now;
        }

        double? seconds = now + (after > 0 ? after / (overall ?? inPart) : 0);
        return seconds is { } s && double.IsFinite(s) && s < TimeSpan.MaxValue.TotalSeconds / 10 ? TimeSpan.FromSeconds(s) : null;
    }

    /// <summary>A stream has caught up when its lag, at the rate at which it gets less, is none.</summary>
    private TimeSpan? CatchUp(OperationState state)
    {
        Point begin = _points.Peek();
        return state.Total is 0 ? TimeSpan.Zero
            : begin.Lag is { } before && state.Total is { } now && now < before && _worked > begin.Worked
                ? TimeSpan.FromSeconds(now * (_worked - begin.Worked) / (before - now))
                : null;
    }

    private double? Rate(OperationState state)
    {
        Point last = _points.Last();
        Point begin = last;
        // The same phase of another partition or index counted for that: back to where its counter began.
        foreach (Point point in _points.Reverse().TakeWhile(point => (point.Phase, point.Part, point.Round) == (last.Phase, last.Part, last.Round)))
        {
            if (point.Done is null || point.Done > begin.Done)
            {
                break;
            }

            begin = point;
        }

        return !state.Endless && begin.Done is { } before && last.Done is { } now && last.Worked - begin.Worked > 0.05 ? (now - before) / (last.Worked - begin.Worked) : null;
    }

    private ProgressConfidence Confidence(OperationState state)
    {
        // The last part that takes time, counted by the server whose counter has said more than what was assumed: nothing is left to assume, as far as the rest goes.
        bool last = state.Parts.Count > 0 && state.Within is not null && state.WithinNext is null && state.Rounds.Done + 1 >= state.Rounds.Total && state.Parts.Skip(state.Part + 1).All(part => part.Share == 0)
            && (state.Seconds is not { } trust || _estimate.IsCounted(trust));
        ProgressConfidence basis = last && state.Parts.Count > 1 ? ProgressConfidence.Measured : state.Basis;
        bool brief = _worked < Glimpse;
        return basis == ProgressConfidence.Measured && (state.Estimated || brief) ? ProgressConfidence.Estimated : basis;
    }

    /// <summary>Points older than the window go; a long window is thinned out.</summary>
    private void Forget()
    {
        double window = Math.Clamp(_worked / 3, ShortestWindow, LongestWindow);
        while (_points.Count > 2 && (_worked - _points.Peek().Worked > window || _points.Count > MostPoints))
        {
            _points.Dequeue();
        }
    }

    private MigrationProgress Progress(ProgressSample sample, OperationState state, MigrationSession session)
    {
        (long? done, long? total) = (state.Done, state.Total);
        if (state.Endless && _firstPosition is { } first && sample.Number("position") is { } position)
        {
            // Of a stream: what was applied since it was first looked at, and what is there to be applied.
            done = Math.Max(0, position - first);
            total = done + total;
        }

        _made ??= sample.Query is null ? null : ProgressModels.Made(sample);
        return new MigrationProgress
        {
            Pid = sample.Pid,
            Operation = state.Operation,
            Target = sample.Target ?? (sample.View == "basebackup" ? sample.Application : _made?.Table),
            Index = sample.Index ?? _made?.Index,
            Name = sample.BackfillName,
            Phase = state.Phase,
            PhaseNumber = state.PhaseNumber,
            PhaseCount = state.PhaseCount,
            Done = done,
            Total = total,
            Unit = done is null && total is null ? null : state.Unit,
            PhasePercent = OperationState.Fraction(done, total) * 100,
            Elapsed = sample.Elapsed,
            WaitingFor = ProgressModels.Waiting(sample, state),
            BlockedBy = sample.BlockedBy,
            Query = sample.Query,
            User = sample.User,
            Application = sample.Application,
            Server = session.Server,
            Port = session.Port,
            Database = sample.Database,
            Counters = sample.Counters,
            Timestamp = new DateTimeOffset(_lastTime, TimeSpan.Zero).ToLocalTime(),
            Origin = session,
        };
    }
}
