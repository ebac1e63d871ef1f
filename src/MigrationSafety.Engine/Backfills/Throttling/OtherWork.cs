namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>Whether anybody but the backfill works on the server, by the transactions that its statistics count. No clock, no server: the looks tell.</summary>
internal sealed class OtherWork
{
    /// <summary>Transactions a second, less what may be ours, from which on there is an application to be kept from harm: more than what a monitoring agent asks.</summary>
    internal const double Least = 10;

    private const int Looks = 15;
    // What other backfills on the server do is no application's work: transactions a second of a worker, and of a session that tries commits, at most.
    private const double OfWorker = 10;
    private const double OfProbe = 80;
    // What ours do besides what they count, and what each other worker does at its beginning: connections are opened, batches are small.
    private const int Uncounted = 100;
    // And what reaches the statistics after the first look, for each of ours: what was asked and recorded before it, its turn at the gate, and what autovacuum makes of that.
    private const int Beginning = 100;
    // It takes a while until all of ours are connected, and the statistics have that.
    private const int LooksOfBeginning = 3;
    // Until transactions can be counted. One session may be whoever looks at all this; of those that are hidden nobody can say whether they live, so they count only until there is a count.
    private const int LeastSessions = 2;
    private const int LooksOfHidden = 3;

    private readonly Queue<(DateTimeOffset Time, long All, long Own)> _looks = new();
    private int _gone;
    private bool _begins = true;
    private bool _lives;

    /// <summary>Others' transactions a second, at least; 0 before the second look.</summary>
    internal double PerSecond { get; private set; }

    internal bool IsThere => PerSecond >= Least || _lives;

    /// <summary>Takes a look in.</summary>
    /// <param name="time">The server's clock.</param>
    /// <param name="all">Transactions that ended on the server, as its statistics have them.</param>
    /// <param name="own">Transactions of this client until now.</param>
    /// <param name="mine">Workers of this client.</param>
    /// <param name="workers">Workers of other clients and other backfills.</param>
    /// <param name="probes">Their sessions that try commits.</param>
    /// <param name="live">Sessions of anybody else that just began or ended a statement.</param>
    /// <param name="hidden">Sessions of which that is not known.</param>
    internal void Add(DateTimeOffset time, long all, long own, int mine, int workers, int probes, int live, int hidden)
    {
        _lives = _begins && (live >= LeastSessions || (hidden >= LeastSessions && _looks.Count < LooksOfHidden));
        _looks.Enqueue((time, all, own));
        (DateTimeOffset firstTime, long firstAll, long firstOwn) = _looks.Peek();
        if (_looks.Count > Looks)
        {
            _looks.Dequeue();
            _gone++;
        }

        double seconds = (time - firstTime).TotalSeconds;
        if (seconds > 0)
        {
            // What a backend did reaches the statistics up to a second late: what was ours may be a second's worth more.
            int uncounted = (Uncounted * (1 + workers)) + (_begins ? Beginning * mine : 0);
            PerSecond = Math.Max(0, ((all - firstAll - uncounted - ((own - firstOwn) * (1 + (1 / seconds)))) / seconds) - (workers * OfWorker) - (probes * OfProbe));
        }

        _begins = _gone < LooksOfBeginning;
    }
}
