namespace MigrationSafety.Engine.Progress;

/// <summary>
/// How far an operation is whose parts' shares are seconds, and how long it will take yet: what the log or the model expects of each part, times the pace that this one
/// has shown so far, set against the counter of the part in work. A pure function of the moments that it is given.
/// </summary>
internal sealed class PhaseEstimate
{
    // What parts of one kind tell of those of another, beside what they tell of their own.
    private const double OtherKind = 0.4;

    // Variance of the logarithm of what reading takes, beside the sorting that it is learnt or assumed with: an expression may take long to compute.
    private const double OfReading = 0.15;

    // At how many looks a counter that is slowed down on purpose has to have moved before it says more than age does: it moves as evenly as the delay is long.
    private const int Steady = 3;

    // By which factor an operation that was not seen from its beginning may be slower or quicker than expected: it may have waited.
    private const double OtherPace = 5;

    private readonly List<(double Took, int Group, int Next)> _done = [];
    private readonly List<double> _rounds = [];
    private CounterTrace _counter = new(0, 0);
    private CounterTrace? _fed;
    private double _now;
    private double _since;
    private double _unseen;
    private int _group = -1;
    private int _part = -1;
    private long _round;
    private double _roundSince;
    private double _groupSince;
    private double _partSince;
    private double _unseenExpected;
    private int _next;
    private bool _begun;

    /// <summary>Takes the next moment.</summary>
    /// <param name="worked">Seconds of work so far, of those that were seen.</param>
    /// <param name="fromBeginning">Whether that is all that there was.</param>
    /// <param name="waits">Whether it waits at this moment.</param>
    /// <param name="elapsed">Seconds since the operation began, whatever it did in them.</param>
    /// <param name="state">What the sample says.</param>
    /// <returns>How much of the whole is done, 0 to 1, and the seconds of work to come.</returns>
    internal (double Done, double Remaining) Add(double worked, bool fromBeginning, bool waits, double? elapsed, OperationState state)
    {
        IReadOnlyList<OperationPart> parts = state.Parts;
        int group = state.Part > 0 && parts[state.Part - 1].Sort is not null ? state.Part - 1 : state.Part;
        int next = parts[group].Sort is null ? group + 1 : group + 2;
        double expected = parts.Take(next).Skip(group).Sum(part => part.Share);
        if (_group < 0)
        {
            Begin(worked, fromBeginning, elapsed, state, group);
        }
        else if (state.Part != _part || state.Rounds.Done != _round)
        {
            Enter(worked, waits, state, group);
        }
        else if (_now <= _partSince)
        {
            // It has waited since it began, until some moment between the two looks.
            _counter.Doubt = worked - _now;
        }

        (_part, _group, _next, _round, _now) = (state.Part, group, next, state.Rounds.Done, worked);
        double pace = Pace(state, Kind(state));
        SortFeed? sort = parts[state.Part].Sort;
        if (state.Within is { } within)
        {
            _counter.Add(worked, within, sort is null ? null : sort.Run * expected * pace, state.WithinNext is not null);
        }

        (double left, double whole, double weight) =
            sort is not null && state.Within is not null ? Reading(worked, state, sort, expected)
            : group != state.Part && _fed is not null ? Sorting(worked, state, parts[group].Sort!, parts[state.Part].Share, expected)
            : state is { Within: { } pieces, WithinNext: { } reached } ? Pieces(worked, state, pieces, reached, expected * pace)
            : state.Within is { } done ? Counted(worked, state, done, expected * pace)
            : Uncounted(worked - _partSince, (group == state.Part ? expected : parts[state.Part].Share) * pace);
        double ratio = whole > 0 && expected > 0 ? whole / expected : pace;
        double after = parts.Skip(next).GroupBy(part => part.Kind).Sum(kind => kind.Sum(part => part.Share) * Pace(state, kind.Key, ratio, weight));
        double remaining = left + after;
        if (state.Rounds.Total - state.Rounds.Done - 1 is > 0 and var rounds)
        {
            remaining += rounds * (_rounds.Count > 0 ? _rounds.Average() : worked - _roundSince + remaining);
        }

        double past = worked - _since;
        return (past > 0 ? past / (past + remaining) : 0, remaining);
    }

    /// <summary>Whether the counter of the part in work, as it was last added, tells more of it than what is expected.</summary>
    internal bool IsCounted(Trust trust) => _counter.Variance < trust.Variance;

    /// <summary>What was done before it was first looked at: as expected, or as its age says.</summary>
    private void Begin(double worked, bool fromBeginning, double? elapsed, OperationState state, int group)
    {
        double before = state.Parts.Take(group).Sum(part => part.Share);
        double part = state.Parts[state.Part].Share;
        // Where nothing is counted, what is left of its age when the parts before it are taken off.
        double earlier = (state.Rounds.Done * state.Shares) + state.Parts.Take(state.Part).Sum(part => part.Share);
        double since = (elapsed ?? 0) - earlier;
        bool slowed = state.Seconds!.Slowed;
        // An age that cannot be says nothing of it but that it has begun.
        double share = state.Within is { } counted ? part * counted : elapsed is null || since < 0 || since > part ? part / 2 : Math.Clamp(since, 0.1 * part, 0.9 * part);
        double within = state.Parts.Take(state.Part).Skip(group).Sum(part => part.Share) + share;
        double done = (state.Rounds.Done * state.Shares) + before + within;
        _begun = done == 0 || (fromBeginning && earlier == 0);
        double pace = 1;
        if (!_begun)
        {
            pace = elapsed is > 0 ? Math.Clamp(elapsed.Value / done, 1 / OtherPace, slowed ? double.MaxValue : OtherPace) : 1;
            _unseen = pace * done;
            _unseenExpected = done;
            _since = fromBeginning ? 0 : -_unseen;
        }

        _groupSince = _begun ? 0 : worked - (pace * within);
        _partSince = _begun ? 0 : worked - (pace * share);
        _roundSince = _begun ? 0 : _groupSince - (pace * before);
        _counter = _begun ? new(0, 0) : new(worked, state.Within ?? 0);
    }

    /// <summary>A part has ended, somewhere between the last moment and this one.</summary>
    private void Enter(double worked, bool waits, OperationState state, int group)
    {
        // Where it waits before the next one, all of the work since the last moment was the part's.
        double change = waits ? worked : (_now + worked) / 2;
        _counter.End(change);
        if (state.Rounds.Done != _round)
        {
            _rounds.Add((change - _roundSince) / Math.Max(1, state.Rounds.Done - _round));
            _roundSince = change;
        }

        if (group != _group || state.Rounds.Done != _round)
        {
            if (_begun)
            {
                _done.Add((change - _groupSince, _group, _next));
            }

            (_begun, _groupSince, _fed) = (true, change, null);
        }
        else
        {
            _fed = _counter;
        }

        (_partSince, _counter) = (change, new(change, 0) { Doubt = worked - change });
    }

    private int Kind(OperationState state) => state.Parts[_group].Kind;

    /// <summary>How many times as long as expected parts of one kind take, by those that are done and by what is seen of the one in work.</summary>
    private double Pace(OperationState state, int kind, double ratio = 1, double weight = 0) => Known(state, kind, ratio, weight).Pace;

    private (double Pace, double Weights) Known(OperationState state, int kind, double ratio = 1, double weight = 0)
    {
        double sum = 0;
        double weights = 0;
        void Count(double took, double expected, int of, double counts)
        {
            counts *= of == kind ? 1 : OtherKind;
            sum += counts * Math.Log(Math.Max(took, expected / 100) / expected);
            weights += counts;
        }

        double all = Math.Max(state.Shares, double.Epsilon);
        foreach ((double took, int group, int next) in _done)
        {
            // By what is known now; a short part is known by few looks.
            double expected = state.Parts.Take(next).Skip(group).Sum(part => part.Share);
            if (expected > 0 && group < state.Parts.Count)
            {
                Count(took, expected, state.Parts[group].Kind, Math.Min(1, 10 * expected / all));
            }
        }

        if (_unseenExpected > 0)
        {
            Count(_unseen, _unseenExpected, kind, Math.Min(1, 10 * _unseenExpected / all));
        }

        Count(ratio, 1, state.Parts[_group].Kind, weight);
        return (weights > 0 ? Math.Exp(sum / (weights + state.Seconds!.Prior)) : 1, weights);
    }

    /// <summary>How much a part tells of the pace whose length is seen with a variance of its logarithm, beside what is expected of it.</summary>
    private static double Weight(OperationState state, double variance) => state.Seconds!.Variance / (state.Seconds.Variance + variance);

    /// <summary>What was expected and what a counter says, each by how sure it is.</summary>
    private double Blend(double expected, double counted, double variance, OperationState state)
    {
        Trust trust = state.Seconds!;
        if (trust.Slowed && _counter.Moves > 0 && _counter.Moves < Steady && Known(state, Kind(state)).Weights == 0)
        {
            // What the work takes says nothing of what the delay makes of it.
            return Math.Max(expected, counted);
        }

        if (trust.Slowed && _counter.Moves >= Steady)
        {
            variance = Math.Min(variance, trust.Variance / _counter.Moves);
        }

        if (expected <= 0)
        {
            return variance < trust.Variance ? counted : 0;
        }

        // That of the part itself, and that of the pace; where both are far from each other, it is what was expected that is wrong.
        double apart = Math.Log(counted / expected);
        double doubt = Math.Max(trust.Variance * (1 + (1 / (trust.Prior + Known(state, Kind(state)).Weights))), (apart * apart / 2) - variance);
        return double.IsFinite(variance) ? expected * Math.Exp(apart * doubt / (doubt + variance)) : expected;
    }

    /// <summary>A part whose counter moves with its work.</summary>
    private (double Left, double Whole, double Weight) Counted(double worked, OperationState state, double done, double expected)
    {
        bool slowed = state.Seconds!.Slowed;
        double since = worked - _partSince;
        double whole = _counter.Whole is { } counted ? Blend(expected, counted, _counter.Variance, state) : Math.Max(expected, slowed && _begun && done > 0 ? since / done : since);
        // The delay is that of the parts to come, too.
        return ((1 - done) * whole, whole, slowed && _counter.Moves >= Steady ? Math.Max(done, 0.5) : done);
    }

    /// <summary>A part that counts whole pieces of different size: between two of them the time tells.</summary>
    private (double Left, double Whole, double Weight) Pieces(double worked, OperationState state, double done, double next, double expected)
    {
        double since = worked - _partSince;
        (double at, double within) = _counter.Anchor;
        double counted = Math.Max(within > 0 ? (at - _partSince) / within : 0, Math.Max(0, since - _counter.Doubt) / Math.Max(next, 0.01));
        double whole = within > 0 ? Blend(expected, counted, _counter.Variance, state) : Math.Max(expected, counted);
        double left = Math.Max(Uncounted(since, whole).Left, (1 - next) * whole);
        return (left, since + left, done);
    }

    /// <summary>A part in which nothing is counted: the time since it began tells, and when that is over, that it has to end some time.</summary>
    private static (double Left, double Whole, double Weight) Uncounted(double since, double expected)
    {
        double left = since < 0.85 * expected ? expected - since : 0.15 * expected * Math.Exp(0.85 - (since / Math.Max(expected, 1e-6)));
        return (left, since + left, 0);
    }

    /// <summary>A part that reads, and sorts whenever memory is full.</summary>
    private (double Left, double Whole, double Weight) Reading(double worked, OperationState state, SortFeed sort, double expected)
    {
        double since = worked - _groupSince;
        double done = state.Within ?? 0;
        double seen = _begun && done > 2 * sort.Run ? (0.05 * (1 - done) / done) + (Math.Pow(sort.Run / done, 2) / 12) + Math.Pow(_counter.Doubt / since, 2) : double.PositiveInfinity;
        if (seen < _counter.Variance)
        {
            // Memory has been full and was emptied, be it too quickly to be seen: what is sorted is what was read, less half of what memory holds.
            double whole = Blend(expected * Pace(state, Kind(state)), since / (done - (sort.Run / 2)) / (1 - sort.Merging), 0.03 + seen, state);
            return (Math.Max((whole * (1 - sort.Merging)) - since, (1 - done) * whole * sort.Reading) + (sort.Merging * whole), whole, Math.Min(1, since / whole));
        }

        if (_counter.Whole is { } counted)
        {
            // All that is not merging goes by the counter.
            double whole = Blend(expected * Pace(state, Kind(state)), counted / (1 - sort.Merging), 0.03 + _counter.Variance, state);
            (double at, double within) = _counter.Anchor;
            double left = ((1 - within) * whole * (1 - sort.Merging)) - (worked - at);
            return (Math.Max(left, (1 - done) * whole * sort.Reading) + (sort.Merging * whole), whole, Math.Min(1, since / whole));
        }

        if (state.Basis == ProgressConfidence.Learnt && _counter.Filling is { } unseen && done > 1.25 * sort.Run && state.Parts[_group].Share > expected * Math.Sqrt(sort.Reading * (1 - sort.Merging)))
        {
            // Memory has been full, and in the log it was too slow for reading alone: it sorts in pieces too small to be seen.
            double whole = Blend(expected * Pace(state, Kind(state)), unseen / (1 - sort.Merging), 0.03 + (0.05 * (1 - done) / done), state);
            return (((1 - done) * whole * (1 - sort.Merging)) + (sort.Merging * whole), whole, Math.Min(1, since / whole));
        }

        // It has only read so far, or sorts for the first time.
        double weight = done / (done + 0.3) * Weight(state, OfReading);
        double all = expected * (_counter.Filling is { } filling && expected > 0 ? Pace(state, Kind(state), filling / (sort.Reading * expected), weight) : Pace(state, Kind(state)));
        if (done > 0)
        {
            // No quicker than it has been for sure.
            all = Math.Max(all, (Math.Max(0, since - _counter.Doubt) / Math.Max(done, 0.01)) + (sort.Merging * all));
        }

        return (Math.Max(all - since, 0.15 * all), all, weight);
    }

    /// <summary>What reading has left to be sorted and merged.</summary>
    private (double Left, double Whole, double Weight) Sorting(double worked, OperationState state, SortFeed sort, double share, double expected)
    {
        double read = _partSince - _groupSince;
        // It began and ended somewhere between two looks.
        double weight = read > 0 ? Weight(state, (Math.Pow(_fed!.Doubt, 2) + Math.Pow(_counter.Doubt, 2)) / (read * read)) : 0;
        double length = share * (expected > share ? Pace(state, Kind(state), read / (expected - share), weight) : Pace(state, Kind(state)));
        if (_fed!.Whole is { } counted)
        {
            (double at, double within) = _fed.Anchor;
            double merging = sort.Merging * counted / (1 - sort.Merging);
            double unsorted = merging + Math.Max(0, ((1 - within) * counted) - (_partSince - at));
            length = Blend(length, Math.Max(unsorted, length / 10), 0.1, state);
        }
        else if (state.Basis != ProgressConfidence.Learnt && (sort.Run >= 1 || read < Math.Sqrt(sort.Reading * expected * (expected - share))))
        {
            // All of it fitted into memory: it took as long as reading alone does.
            length = Pace(state, Kind(state), read / (sort.Reading * expected), weight) * (1 - sort.Reading) * expected;
        }

        (double left, double whole, _) = Uncounted(worked - _partSince, length);
        return (left, read + whole, weight);
    }
}
