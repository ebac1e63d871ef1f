using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Locks;

/// <summary>
/// Orders sessions so that the table is the tree: roots first, those that hold up most on top, each waiter once, as near to a root as what it waits for allows (so that
/// a long queue is a list and not a staircase), under the holder of its lock rather than under another waiter.
/// </summary>
internal sealed class BlockingTree
{
    private readonly LockGraph _graph;
    private readonly int _count;
    private readonly Blocking[][] _blockers;
    private readonly List<int>[] _waiters;
    private readonly List<int>[] _workers;
    private readonly bool[] _part;
    private readonly int[] _blocked;
    private readonly bool[] _inCircle;
    private readonly int[] _depth;
    private readonly int[] _parent;

    private BlockingTree(LockGraph graph)
    {
        _graph = graph;
        _count = graph.Processes.Count;
        _workers = Lists();
        _waiters = Lists();
        _part = new bool[_count];
        _blocked = new int[_count];
        _inCircle = new bool[_count];
        _depth = new int[_count];
        _parent = new int[_count];
        for (int i = 0; i < _count; i++)
        {
            if (graph.Leader[i] != i && graph.BlockersOf(i).Count > 0)
            {
                _workers[graph.Leader[i]].Add(i);
            }
        }

        // A leader waits for what its workers wait for.
        _blockers = new Blocking[_count][];
        for (int i = 0; i < _count; i++)
        {
            _blockers[i] = graph.Leader[i] != i ? []
                : _workers[i].Count == 0 ? [.. graph.BlockersOf(i)]
                : [.. graph.BlockersOf(i).Concat(_workers[i].SelectMany(graph.BlockersOf)).DistinctBy(blocking => blocking.Node)];
            foreach (Blocking blocking in Links(i))
            {
                _waiters[blocking.Node].Add(i);
                _part[i] = _part[blocking.Node] = true;
            }
        }
    }

    /// <summary>The rows that the filter wants, in the order of the tree.</summary>
    internal static IReadOnlyList<BlockingLock> Order(LockGraph graph, BlockingLockFilter filter, MigrationSession server)
    {
        BlockingTree tree = new(graph);
        tree.Count();
        List<int> order = tree.Place();
        bool[] wanted = tree.Wanted(filter);
        return [.. order.Where(node => wanted[node]).Select(node => tree.Row(node, filter) with { Server = server.Server, Port = server.Port, Origin = server })];
    }

    private List<int>[] Lists() => [.. Enumerable.Range(0, _count).Select(_ => new List<int>())];

    /// <summary>
    /// The blockers of a session that matter for who waits for whom in the end. In a queue, those who want what excludes itself each wait for the one before: the last
    /// of them stands for all, and a queue of a thousand has thousands of links instead of half a million.
    /// </summary>
    private IEnumerable<Blocking> Links(int node)
    {
        HashSet<TableLockMode> seen = [];
        for (int i = _blockers[node].Length - 1; i >= 0; i--)
        {
            Blocking blocking = _blockers[node][i];
            if (blocking.Granted || _workers[node].Count > 0 || !blocking.Mode.ConflictsWith(blocking.Mode) || seen.Add(blocking.Mode))
            {
                yield return blocking;
            }
        }
    }

    private void Count()
    {
        int[] seen = new int[_count];
        Stack<int> stack = new();
        for (int start = 0; start < _count; start++)
        {
            stack.Push(start);
            while (stack.TryPop(out int node))
            {
                foreach (int waiter in _waiters[node])
                {
                    if (waiter == start)
                    {
                        _inCircle[start] = true;
                    }
                    else if (seen[waiter] != start + 1)
                    {
                        seen[waiter] = start + 1;
                        _blocked[start]++;
                        stack.Push(waiter);
                    }
                }
            }
        }
    }

    private List<int> Place()
    {
        Array.Fill(_depth, -1);
        Array.Fill(_parent, -1);
        int[] roots = [.. Sorted(Enumerable.Range(0, _count).Where(node => _part[node] && _blockers[node].Length == 0))];
        Spread(roots);

        // Who is left waits in a circle (a deadlock that the server is about to find), or behind one: begin with the one in it that waits longest.
        List<int> tops = [.. roots];
        foreach (int node in Enumerable.Range(0, _count).Where(node => _inCircle[node]).OrderByDescending(WaitTime).ThenBy(node => _graph.Processes[node].Row.Pid))
        {
            if (_depth[node] < 0)
            {
                tops.Add(node);
                Spread([node]);
            }
        }

        List<int>[] children = Lists();
        foreach (int node in Enumerable.Range(0, _count).Where(node => _parent[node] >= 0))
        {
            children[_parent[node]].Add(node);
        }

        List<int> order = [];
        // A stack of its own: no depth of a tree may end the process.
        Stack<int> stack = new(((IEnumerable<int>)tops).Reverse());
        while (stack.TryPop(out int node))
        {
            order.Add(node);
            order.AddRange(_workers[node].OrderBy(worker => _graph.Processes[worker].Row.Pid));
            foreach (int child in Sorted(children[node]).Reverse())
            {
                stack.Push(child);
            }
        }

        return order;
    }

    /// <summary>Gives all who wait for these, directly or not, their place: the shortest way to one of them.</summary>
    private void Spread(IReadOnlyList<int> tops)
    {
        List<int> level = [.. tops];
        foreach (int top in tops)
        {
            _depth[top] = 0;
        }

        for (int depth = 1; level.Count > 0; depth++)
        {
            List<int> next = [];
            foreach (int waiter in level.SelectMany(node => _waiters[node]))
            {
                if (_depth[waiter] < 0)
                {
                    _depth[waiter] = depth;
                    next.Add(waiter);
                }
            }

            foreach (int waiter in next)
            {
                // A holder before one who queues; of several the one that holds up most, of those who queue the first.
                _parent[waiter] = _blockers[waiter]
                    .Where(blocking => _depth[blocking.Node] == depth - 1)
                    .OrderByDescending(blocking => blocking.Granted)
                    .ThenByDescending(blocking => _blocked[blocking.Node])
                    .ThenByDescending(blocking => WaitTime(blocking.Node))
                    .ThenBy(blocking => _graph.Processes[blocking.Node].Row.Pid)
                    .First().Node;
            }

            level = next;
        }
    }

    private IOrderedEnumerable<int> Sorted(IEnumerable<int> nodes) => nodes
        .OrderByDescending(node => _blocked[node])
        .ThenByDescending(node => WaitTime(node) ?? _graph.Processes[node].Row.TransactionAge)
        .ThenBy(node => _graph.Processes[node].Row.Pid);

    /// <summary>What it waits for: itself, or the worker of its that has waited longest.</summary>
    private LockEntry? Wait(int node) =>
        _graph.Waits[node] ?? _workers[node].Select(worker => _graph.Waits[worker]).OrderBy(wait => wait?.WaitStart ?? DateTime.MaxValue).FirstOrDefault();

    private TimeSpan? WaitTime(int node)
    {
        if (Wait(node) is not { } wait)
        {
            return null;
        }

        TimeSpan time = wait.WaitStart is { } start ? _graph.Processes[node].Row.Timestamp.UtcDateTime - start : TimeSpan.Zero;
        return time < TimeSpan.Zero ? TimeSpan.Zero : time;
    }

    private bool[] Wanted(BlockingLockFilter filter)
    {
        bool[] wanted = new bool[_count];
        bool all = filter.Table is null && filter.Pids.Count == 0 && filter.MinimumWait == TimeSpan.Zero;
        HashSet<int> pids = [.. filter.Pids];
        Stack<int> up = new();
        for (int i = 0; i < _count; i++)
        {
            int node = _graph.Leader[i];
            bool waits = _blockers[node].Length > 0;
            bool asked = all
                || (waits
                    && (filter.Table is null || InScope(i))
                    && (filter.Pids.Count == 0 || pids.Contains(_graph.Processes[i].Row.Pid) || WaitsFor(node, pids))
                    && (filter.MinimumWait == TimeSpan.Zero || WaitTime(node) >= filter.MinimumWait))
                || (!waits && filter.Table is null && filter.MinimumWait == TimeSpan.Zero && pids.Contains(_graph.Processes[i].Row.Pid));
            if (asked && !wanted[node])
            {
                wanted[node] = true;
                up.Push(node);
            }
        }

        while (up.TryPop(out int node))
        {
            foreach (Blocking blocking in Links(node))
            {
                if (!wanted[blocking.Node])
                {
                    wanted[blocking.Node] = true;
                    up.Push(blocking.Node);
                }
            }
        }

        for (int i = 0; i < _count; i++)
        {
            wanted[i] = wanted[_graph.Leader[i]] && (!filter.RootOnly || _depth[i] == 0);
        }

        return wanted;
    }

    private bool InScope(int node) => _graph.Waits[node] is { } wait && (wait.InScope || (wait.RelationKey is null && RowLock(node) is { InScope: true }));

    private bool WaitsFor(int node, HashSet<int> pids)
    {
        HashSet<int> seen = [node];
        Stack<int> up = new([node]);
        while (up.TryPop(out int next))
        {
            foreach (Blocking blocking in Links(next))
            {
                if (pids.Contains(_graph.Processes[blocking.Node].Row.Pid))
                {
                    return true;
                }

                if (seen.Add(blocking.Node))
                {
                    up.Push(blocking.Node);
                }
            }
        }

        return false;
    }

    /// <summary>A row lock is waited for as the transaction that holds it; the row's table is that of the tuple lock which the first waiter holds meanwhile.</summary>
    private LockEntry? RowLock(int node) => _graph.Waits[node]?.Type == "transactionid"
        ? _graph.Processes[node].Locks.FirstOrDefault(held => held is { Granted: true, Type: "tuple" })
        : null;

    private BlockingLock Row(int node, BlockingLockFilter filter)
    {
        LockProcess process = _graph.Processes[node];
        int leader = _graph.Leader[node];
        bool worker = leader != node;
        IReadOnlyList<Blocking> blockers = worker ? _graph.BlockersOf(node) : _blockers[node];
        LockEntry? wait = worker ? _graph.Waits[node] : Wait(node);
        (string? relation, TableLockMode held) = Holds(node);
        int top = leader;
        while (_parent[top] >= 0)
        {
            top = _parent[top];
        }

        return process.Row with
        {
            BlockingPid = [.. blockers.Select(blocking => _graph.Processes[blocking.Node].Row.Pid)],
            RootPid = _graph.Processes[top].Row.Pid,
            Depth = _depth[leader] + (worker ? 1 : 0),
            IsRoot = blockers.Count == 0,
            IsDeadlock = _inCircle[leader],
            BlockedCount = worker ? 0 : _blocked[node],
            WaitTime = wait is null ? null : WaitTime(worker ? node : leader),
            LockType = wait?.Type ?? (process.RecoveryConflict ? "recovery conflict" : null),
            RequestedMode = wait?.Mode.CatalogName(),
            Relation = wait is null ? relation : wait.Relation ?? RowLock(node)?.Relation,
            HeldMode = held == TableLockMode.None ? null : held.CatalogName(),
            Query = process.Row.Gid ?? (filter.QueryLength == 0 ? null : process.Row.Query),
        };
    }

    /// <summary>The strongest of its locks on a relation that others wait for; where there is none, on what they wait for instead.</summary>
    private (string? Relation, TableLockMode Mode) Holds(int node)
    {
        HashSet<string> relations = [];
        HashSet<string> objects = [];
        foreach (int waiter in _waiters[node].SelectMany(waiter => _workers[waiter].Append(waiter)))
        {
            if (_graph.Waits[waiter] is { } wait)
            {
                objects.Add(wait.Key);
                if ((wait.RelationKey ?? RowLock(waiter)?.RelationKey) is { } relation)
                {
                    relations.Add(relation);
                }
            }
        }

        LockEntry? held = _graph.Processes[node].Locks
            .Where(held => held.Granted && (held.Type == "relation" ? held.RelationKey is not null && relations.Contains(held.RelationKey) : held.Type is not ("transactionid" or "virtualxid" or "tuple") && objects.Contains(held.Key)))
            .OrderByDescending(held => held.Type == "relation").ThenByDescending(held => held.Mode)
            .FirstOrDefault();
        return (held?.Relation, held?.Mode ?? TableLockMode.None);
    }
}
