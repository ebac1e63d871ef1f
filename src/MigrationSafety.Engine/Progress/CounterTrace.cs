namespace MigrationSafety.Engine.Progress;

/// <summary>
/// What the counter of one part has told so far. The counter of a part that feeds a sort runs ahead of the work until the sort's memory is full, then stands while that is
/// sorted: what it tells of the whole is to be read where it goes on after standing.
/// </summary>
/// <param name="since">Seconds of work at which the part began, or was first seen.</param>
/// <param name="from">How much of it was done then, 0 to 1.</param>
internal sealed class CounterTrace(double since, double from)
{
    // A rate is seen over a third of the time, within these bounds: what slows a server down does not last.
    private const double ShortestWindow = 20;
    private const double LongestWindow = 600;

    // Sorting is seen where it takes longer than this many looks.
    private const double Looks = 3;

    private readonly Queue<(double Worked, double Within)> _anchors = new([(since, from)]);
    private (double Worked, double Within) _anchor = (since, from);
    private (double Worked, double Within) _last = (since, from);
    private bool _stands;

    /// <summary>Where a sort's memory was last seen full and emptied again; the beginning until then. Of a part without a sort, the last moment.</summary>
    internal (double Worked, double Within) Anchor => _anchor;

    /// <summary>By how many seconds the beginning may be off, either way: half of what was worked between the two looks around it.</summary>
    internal double Doubt { get; set; }

    /// <summary>At how many looks it had moved.</summary>
    internal int Moves { get; private set; }

    /// <summary>Variance of the logarithm of <see cref="Whole"/>: by half of what is to be done it is right within a quarter or so, and when it began is known to within <see cref="Doubt"/>.</summary>
    internal double Variance => Seen is > 0 and var seen ? (0.05 * (1 - seen) / seen) + Math.Pow(Doubt / (_anchor.Worked - since), 2) : double.PositiveInfinity;

    /// <summary>Seconds for the whole part and its sorting; null where nothing has moved yet. While it stands for longer than before, it grows.</summary>
    internal double? Whole => _anchors.Peek() is var (worked, within) && _anchor.Within > within && _anchor.Worked > worked
        ? Math.Max((_anchor.Worked - worked) / (_anchor.Within - within), (_last.Worked - worked) / (_last.Within - within))
        : null;

    /// <summary>Seconds for the whole part without sorting: until it first stood. Null where nothing has moved yet.</summary>
    internal double? Filling { get; private set; }

    /// <summary>Takes the next moment.</summary>
    /// <param name="worked">Seconds of work.</param>
    /// <param name="within">How much of the part is done.</param>
    /// <param name="run">Seconds in which the memory of the sort that it feeds is expected to be filled and sorted; null where it feeds none.</param>
    /// <param name="pieces">Whether it counts whole pieces.</param>
    internal void Add(double worked, double within, double? run, bool pieces)
    {
        (double before, double done) = _last;
        if (worked <= before)
        {
            return;
        }

        if (within > done)
        {
            if (pieces)
            {
                Put((before + worked) / 2, within);
            }
            else if (run is not { } seconds || seconds < Looks * (worked - before))
            {
                Put(worked, within);
            }
            else if (_stands)
            {
                // Somewhere between the two looks.
                Put((before + worked) / 2, done);
            }
            else if (_anchors.Count == 1)
            {
                Filling = (worked - since) / (within - from);
            }

            _stands = false;
        }
        else
        {
            _stands = true;
        }

        _last = (worked, Math.Max(within, done));
    }

    /// <summary>The part is over: what it had read when it last stood was sorted by then.</summary>
    internal void End(double worked)
    {
        if (_stands)
        {
            Put(worked, _last.Within);
        }
    }

    /// <summary>How much of what was to be done, when it was first seen, the rate rests on.</summary>
    private double Seen => from < 1 ? (_anchor.Within - from) / (1 - from) : 0;

    private void Put(double worked, double within)
    {
        if (within <= _anchor.Within)
        {
            return;
        }

        Moves++;
        _anchor = (worked, within);
        _anchors.Enqueue(_anchor);
        double window = Math.Clamp((worked - since) / 3, ShortestWindow, LongestWindow);
        while (_anchors.Count > 2 && worked - _anchors.Peek().Worked > window)
        {
            _anchors.Dequeue();
        }
    }
}
