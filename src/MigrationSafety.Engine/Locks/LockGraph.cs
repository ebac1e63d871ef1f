using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Locks;

/// <summary>A session that is in the way of another.</summary>
/// <param name="Node">Index of the session in the graph.</param>
/// <param name="Mode">The mode that it holds or awaits.</param>
/// <param name="Granted">Whether it holds it; else it stands before the other in the queue.</param>
internal readonly record struct Blocking(int Node, TableLockMode Mode, bool Granted);

/// <summary>
/// Who is in whose way, from one look at the lock table, by the server's own rules (conflict table, lock groups of parallel queries, and the order of the queue of
/// ProcSleep). The queue's order is that of the times at which the waits began, save where one that holds a lock on the object already was let in before others; two
/// that began in the same instant may stand the other way round.
/// </summary>
internal sealed class LockGraph
{
    private static readonly Comparer<(LockEntry Lock, int Node)> s_byArrival = Comparer<(LockEntry Lock, int Node)>.Create((left, right) =>
        (left.Lock.WaitStart ?? DateTime.MaxValue).CompareTo(right.Lock.WaitStart ?? DateTime.MaxValue) is var order and not 0 ? order : left.Node.CompareTo(right.Node));

    // Of thousands in one queue each would name all before it, which is of no use to anybody and grows with the square of their number.
    private const int MostAhead = 100;

    private readonly List<Blocking>[] _blockers;

    internal LockGraph(IReadOnlyList<LockProcess> processes)
    {
        Processes = processes;
        _blockers = new List<Blocking>[processes.Count];
        Waits = new LockEntry?[processes.Count];
        Dictionary<int, int> byPid = [];
        Dictionary<string, List<(LockEntry Lock, int Node)>> byObject = [];
        for (int i = 0; i < processes.Count; i++)
        {
            _blockers[i] = [];
            if (processes[i].Row.Pid != 0)
            {
                byPid[processes[i].Row.Pid] = i;
            }

            foreach (LockEntry entry in processes[i].Locks)
            {
                if (!entry.Granted)
                {
                    Waits[i] = entry;
                }

                if (!byObject.TryGetValue(entry.Key, out List<(LockEntry, int)>? entries))
                {
                    byObject[entry.Key] = entries = [];
                }

                entries.Add((entry, i));
            }
        }

        // A parallel worker stands for its leader, whose statement it is; a leader that is not shown leaves the worker on its own.
        Leader = [.. processes.Select((process, i) => byPid.TryGetValue(process.LeaderPid, out int leader) ? leader : i)];
        foreach (List<(LockEntry Lock, int Node)> entries in byObject.Values)
        {
            Connect(entries);
        }

        for (int i = 0; i < processes.Count; i++)
        {
            if (processes[i].RecoveryConflict)
            {
                _blockers[i].AddRange(Enumerable.Range(0, processes.Count).Where(other => other != i && processes[other].OldestSnapshot).Select(other => new Blocking(Leader[other], TableLockMode.None, true)));
            }
        }
    }

    internal IReadOnlyList<LockProcess> Processes { get; }

    /// <summary>The lock that each waits for; null for who waits for none.</summary>
    internal LockEntry?[] Waits { get; }

    /// <summary>The leader of each; itself where it is no parallel worker.</summary>
    internal int[] Leader { get; }

    /// <summary>Who is directly in the way, each once: those that hold what it waits for first, then those before it in the queue, of these the first 100.</summary>
    internal IReadOnlyList<Blocking> BlockersOf(int node) => _blockers[node];

    /// <summary>Who is directly in the way of a backend and of its parallel workers, for the records of waits.</summary>
    internal IReadOnlyList<LockBlocker> BlockersOfPid(int pid)
    {
        List<LockBlocker> blockers = [];
        HashSet<int> seen = [];
        for (int node = 0; node < Processes.Count; node++)
        {
            if (Processes[node].Row.Pid == pid || Processes[Leader[node]].Row.Pid == pid)
            {
                blockers.AddRange(_blockers[node].Where(blocking => seen.Add(blocking.Node)).Select(blocking => Blocker(blocking, Waits[node])));
            }
        }

        return blockers;
    }

    private LockBlocker Blocker(Blocking blocking, LockEntry? wait)
    {
        BlockingLock row = Processes[blocking.Node].Row;
        // Of the end of a transaction, which is waited for too, the mode says nothing.
        bool ofTable = wait?.Type == "relation";
        return new LockBlocker
        {
            Pid = row.Pid,
            User = row.User,
            Application = row.Application,
            ClientAddress = row.ClientAddress,
            State = row.State,
            TransactionAge = row.TransactionAge,
            Query = row.Query,
            BackendType = row.BackendType,
            BackendStart = row.BackendStart,
            PreventsWraparound = row.PreventsWraparound,
            Mode = ofTable && blocking.Mode != TableLockMode.None ? blocking.Mode.CatalogName() : null,
            Granted = blocking.Granted,
            Relation = ofTable ? wait!.Relation : null,
        };
    }

    private void Connect(List<(LockEntry Lock, int Node)> entries)
    {
        List<(LockEntry Lock, int Node)> waiting = [.. entries.Where(entry => !entry.Lock.Granted)];
        if (waiting.Count == 0)
        {
            return;
        }

        // Modes that a group holds on the object; a bit each.
        Dictionary<int, int> held = [];
        foreach ((LockEntry entry, int node) in entries)
        {
            if (entry.Granted)
            {
                held[Leader[node]] = held.GetValueOrDefault(Leader[node]) | (1 << (int)entry.Mode);
            }
        }

        waiting.Sort(s_byArrival);
        List<(LockEntry Lock, int Node)> queue = Queue(waiting, held);
        HashSet<int> seen = [];
        for (int place = 0; place < queue.Count; place++)
        {
            (LockEntry wait, int node) = queue[place];
            seen.Clear();
            List<Blocking> blockers = _blockers[node];
            foreach ((int holder, int modes) in held)
            {
                TableLockMode strongest = Strongest(wait.Mode, modes);
                if (holder != Leader[node] && strongest != TableLockMode.None && seen.Add(holder))
                {
                    blockers.Add(new Blocking(holder, strongest, true));
                }
            }

            int named = 0;
            for (int before = 0; before < place && named < MostAhead; before++)
            {
                (LockEntry other, int ahead) = queue[before];
                if (Leader[ahead] != Leader[node] && wait.Mode.ConflictsWith(other.Mode) && seen.Add(Leader[ahead]))
                {
                    blockers.Add(new Blocking(Leader[ahead], other.Mode, false));
                    named++;
                }
            }
        }
    }

    /// <summary>As they stand: who holds a lock on the object already goes before the first that has to wait for it (JoinWaitQueue).</summary>
    private List<(LockEntry Lock, int Node)> Queue(List<(LockEntry Lock, int Node)> waiting, Dictionary<int, int> held)
    {
        if (!waiting.Any(entry => held.ContainsKey(Leader[entry.Node])))
        {
            return waiting;
        }

        List<(LockEntry Lock, int Node)> queue = new(waiting.Count);
        foreach ((LockEntry Lock, int Node) entry in waiting)
        {
            int own = held.GetValueOrDefault(Leader[entry.Node]);
            int place = own == 0 ? -1 : queue.FindIndex(other => Leader[other.Node] != Leader[entry.Node] && Strongest(other.Lock.Mode, own) != TableLockMode.None);
            queue.Insert(place < 0 ? queue.Count : place, entry);
        }

        return queue;
    }

    private static TableLockMode Strongest(TableLockMode wanted, int modes)
    {
        for (TableLockMode mode = TableLockMode.AccessExclusive; mode > TableLockMode.None; mode--)
        {
            if ((modes & (1 << (int)mode)) != 0 && wanted.ConflictsWith(mode))
            {
                return mode;
            }
        }

        return TableLockMode.None;
    }
}
