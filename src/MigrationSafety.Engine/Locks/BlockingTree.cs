namespace MigrationSafety.Engine.Locks;

/// <summary>Names a session, or by its gid a prepared transaction (pid 0).</summary>
internal readonly record struct BlockingNodeKey(int Pid, string? Gid);

/// <summary>A session and whom it waits for.</summary>
internal sealed record BlockingNode(BlockingNodeKey Key, IReadOnlyList<BlockingNodeKey> Blockers, BlockingLock Row);

/// <summary>Orders sessions so that the table is the tree: roots first, those that hold up most on top, each waiter once, under one of its blockers.</summary>
internal static class BlockingTree
{
    internal static IReadOnlyList<BlockingLock> Order(IReadOnlyList<BlockingNode> nodes)
    {
        Dictionary<BlockingNodeKey, BlockingNode> byKey = nodes.ToDictionary(node => node.Key);
        Dictionary<BlockingNodeKey, List<BlockingNode>> waitersOf = nodes.ToDictionary(node => node.Key, _ => new List<BlockingNode>());
        foreach (BlockingNode node in nodes)
        {
            foreach (BlockingNodeKey blocker in node.Blockers.Where(waitersOf.ContainsKey))
            {
                waitersOf[blocker].Add(node);
            }
        }

        Dictionary<BlockingNodeKey, int> blocked = nodes.ToDictionary(node => node.Key, node => CountReachable(node, waitersOf));
        IEnumerable<BlockingNode> Sorted(IEnumerable<BlockingNode> some) => some
            .OrderByDescending(node => blocked[node.Key])
            .ThenByDescending(node => node.Row.WaitTime ?? node.Row.TransactionAge)
            .ThenBy(node => node.Key.Pid);

        List<BlockingLock> rows = new(nodes.Count);
        HashSet<BlockingNodeKey> placed = [];
        foreach (BlockingNode root in Sorted(nodes.Where(node => node.Blockers.Count == 0)))
        {
            Place(root);
        }

        // Who is left waits in a circle (a deadlock that the server is about to find): begin with the one that waits longest.
        foreach (BlockingNode node in nodes.OrderByDescending(node => node.Row.WaitTime).ThenBy(node => node.Key.Pid))
        {
            Place(node);
        }

        return rows;

        // A stack of its own: a queue of a thousand sessions is a chain of a thousand levels.
        void Place(BlockingNode root)
        {
            Stack<(BlockingNode Node, int Depth)> stack = new([(root, 0)]);
            while (stack.TryPop(out (BlockingNode Node, int Depth) next))
            {
                if (!placed.Add(next.Node.Key))
                {
                    continue;
                }

                rows.Add(next.Node.Row with
                {
                    RootPid = root.Key.Pid,
                    Depth = next.Depth,
                    IsRoot = next.Node.Blockers.Count == 0,
                    BlockedCount = blocked[next.Node.Key],
                });
                foreach (BlockingNode waiter in Sorted(waitersOf[next.Node.Key].Where(waiter => NearestBlocker(waiter, placed) == next.Node.Key)).Reverse())
                {
                    stack.Push((waiter, next.Depth + 1));
                }
            }
        }

        // Of several blockers, a waiter stands under the one that is last in the queue before it: itself blocked by the others.
        BlockingNodeKey NearestBlocker(BlockingNode waiter, HashSet<BlockingNodeKey> placedNow) => waiter.Blockers
            .Where(byKey.ContainsKey)
            .OrderByDescending(blocker => byKey[blocker].Blockers.Count(waiter.Blockers.Contains))
            .ThenByDescending(placedNow.Contains)
            .First();
    }

    private static int CountReachable(BlockingNode start, Dictionary<BlockingNodeKey, List<BlockingNode>> waitersOf)
    {
        HashSet<BlockingNodeKey> seen = [start.Key];
        Stack<BlockingNodeKey> stack = new([start.Key]);
        while (stack.TryPop(out BlockingNodeKey key))
        {
            foreach (BlockingNode waiter in waitersOf[key].Where(waiter => seen.Add(waiter.Key)))
            {
                stack.Push(waiter.Key);
            }
        }

        return seen.Count - 1;
    }
}
