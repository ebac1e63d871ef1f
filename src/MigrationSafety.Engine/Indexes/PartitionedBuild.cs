using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>
/// Builds an index over all partitions of a table: an index on ONLY each partitioned table, one on each leaf concurrently, and each attached to the one above, until
/// the uppermost is valid. What is there already is used; interrupted, the next run goes on.
/// </summary>
internal sealed class PartitionedBuild
{
    // Partitions that are made meanwhile get their index from PostgreSQL; only those that are attached meanwhile make another round.
    private const int MostRounds = 10;

    private readonly IndexBuildPlan _plan;
    private readonly EngineSession _session;
    private readonly IndexBuildRequest _request;
    private readonly PartProgress _progress;
    private readonly IOperationSink _sink;
    private readonly object _gate = new();
    private readonly List<MigrationStep> _steps = [];
    private readonly Dictionary<string, string> _made = [];
    private readonly HashSet<string> _attached = [];
    private readonly List<string> _restorations = [];
    private string? _rootSql;

    internal PartitionedBuild(IndexBuildPlan plan, IOperationSink sink)
    {
        _plan = plan;
        _session = plan.Session;
        _request = plan.Request;
        _progress = new PartProgress(sink, $"Building index {plan.Name} on {plan.Target}");
        _sink = _progress.Part(null, 0);
    }

    /// <summary>The steps so far with their outcome. An index of a partition that is attached is taken back with the one that it is a part of.</summary>
    internal IReadOnlyList<MigrationStep> Steps
    {
        get
        {
            lock (_gate)
            {
                return [.. _steps.Select(step => _made.TryGetValue(step.Sql, out string? index) && _attached.Contains(index) ? AsPart(step) : step.Sql == _rootSql ? WithRestorations(step) : step)];
            }
        }
    }

    /// <summary>Time spent waiting for others who worked on the same tables.</summary>
    internal TimeSpan Queued { get; private set; }

    /// <summary>The steps for what is missing, in view of what is there.</summary>
    internal static async Task<IReadOnlyList<MigrationStep>> StepsAsync(
        NpgsqlConnection connection, IReadOnlyList<PartitionNode> nodes, IndexDefinition definition, IndexSituation root, CancellationToken cancellationToken)
    {
        if (root.Existing is { Valid: true })
        {
            return [];
        }

        List<MigrationStep> steps = root.Existing is null ? [root.CreateStep()] : [];
        Dictionary<uint, (string Display, uint? Oid)> indexes = new() { [root.Table.Oid] = (root.Display, root.Existing?.Oid) };
        foreach (PartitionNode node in nodes.Skip(1))
        {
            (string parentDisplay, uint? parentOid) = indexes[node.Parent!.Value];
            // 0 is the oid of no index: what is a part of any other one cannot be attached to one that is yet to be made.
            IndexSituation situation = await InspectAsync(connection, node, definition, parentOid ?? 0, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<MigrationStep> make = node.IsLeaf ? situation.Steps() : situation.Existing is null ? [situation.CreateStep()] : [];
            steps.AddRange(make.Select(step => step.Reversal is null ? step : AsPart(step)));
            if (situation.Existing?.Parent is not { } there || there != parentOid)
            {
                steps.Add(situation.Existing is { Valid: true } ? OlderAttachStep(situation, parentDisplay) : AttachStep(situation, parentDisplay));
            }

            indexes[node.Table.Oid] = (situation.Display, situation.Existing?.Oid);
        }

        return steps;
    }

    /// <summary>Builds what is missing.</summary>
    /// <returns>The index of the partitioned table, valid.</returns>
    /// <exception cref="MigrationException">It failed for good; what was built stays and is used by the next run.</exception>
    internal async Task<IndexSituation> RunAsync(CancellationToken cancellationToken)
    {
        IndexAttempts attempts = new(_session, "index-build", _request.Options, _request.Silence, _sink);
        try
        {
            (IndexSituation? built, MigrationException? givenUp) = await attempts
                .RunAsync(AttemptAsync, () => $"Building index {_plan.Name} on {_plan.Target}", _plan.Target, cancellationToken).ConfigureAwait(false);
            return built ?? throw givenUp!;
        }
        catch (MigrationException e)
        {
            throw new MigrationException(
                e.ErrorId,
                e.Kind,
                e.Message,
                $"{e.RecommendedAction} What is built stays: the same command goes on from there.",
                e)
            {
                SqlState = e.SqlState,
                Target = e.Target ?? _plan.Target,
                Blockers = e.Blockers,
                Steps = [.. Steps],
            };
        }
        finally
        {
            _progress.End();
        }
    }

    private static MigrationStep AsPart(MigrationStep step) => step with
    {
        Reversal = null,
        Reversibility = Reversibility.NotNeeded,
        ReversalNote = "It becomes a part of the index on the partitioned table, and goes with it.",
    };

    private static MigrationStep AttachStep(IndexSituation part, string parent) => new()
    {
        Sql = $"ALTER INDEX {parent} ATTACH PARTITION {part.Display}",
        Purpose = $"Attach {part.Display} to {parent}",
        LockMode = TableLockMode.AccessExclusive,
        Objects = [part.Display],
        Transactional = true,
        Cost = StepCost.Instant,
        Reversibility = Reversibility.NotNeeded,
        ReversalNote = "PostgreSQL cannot detach an index; it goes with the one that it is a part of.",
    };

    /// <summary>Attaches an index that was there before, and would be lost with the partitioned one.</summary>
    private static MigrationStep OlderAttachStep(IndexSituation part, string parent) => part.Table.Kind == 'p'
        ? AttachStep(part, parent) with
        {
            Reversibility = Reversibility.Irreversible,
            ReversalNote = $"It was there before. PostgreSQL cannot detach an index: whoever drops {parent} drops it and its parts too; Invoke-SafeIndexBuild on {part.Table.Display} builds them again.",
        }
        : AttachStep(part, parent) with
        {
            ReversalNote = $"It was there before. PostgreSQL cannot detach an index: whoever drops {parent} drops it too, so what takes that back builds it again.",
        };

    /// <summary>The step that makes the uppermost index; its reversal builds again what was there before this run and is lost with it.</summary>
    internal MigrationStep WithRestorations(MigrationStep root)
    {
        lock (_gate)
        {
            return _restorations.Count == 0 ? root : root with
            {
                Reversal = string.Join(";\n", [root.Reversal!, .. _restorations]),
                ReversalNote = $"{root.ReversalNote} Indexes of partitions that were there before and became parts are dropped with it; they are built again.",
            };
        }
    }

    /// <summary>What is there on a partition. One that can be attached counts as existing, whatever its name.</summary>
    private static async Task<IndexSituation> InspectAsync(NpgsqlConnection connection, PartitionNode node, IndexDefinition definition, uint parent, CancellationToken cancellationToken)
    {
        IndexSituation situation = await IndexCatalog.InspectAsync(connection, node.Table, definition, null, cancellationToken, parent).ConfigureAwait(false);
        IndexEntry? there = TableBuild.Attachable(situation, parent)
            ?? (node.IsLeaf ? null : situation.Existing ?? situation.Twins.FirstOrDefault(twin => twin.Parent is null));
        return there is null || there == situation.Existing ? situation : situation with { Name = there.Name, Existing = there };
    }

    /// <returns>The whole index; or why the build of a partition, which has tried again for itself, was given up.</returns>
    private async Task<(IndexSituation? Built, MigrationException? GivenUp)> AttemptAsync(IndexWorker worker, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        await worker.LockAsync(_plan.Table, cancellationToken).ConfigureAwait(false);
        TimeSpan forTurn = Stopwatch.GetElapsedTime(start);
        Queued += forTurn > TimeSpan.FromSeconds(0.2) ? forTurn : TimeSpan.Zero;
        for (int round = 0; round < MostRounds; round++)
        {
            await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
            IReadOnlyList<PartitionNode> nodes = await PartitionTree.ReadAsync(worker.Connection, _plan.Table, cancellationToken).ConfigureAwait(false);
            await PartitionTree.CheckAsync(worker.Connection, nodes, _plan.Definition, cancellationToken).ConfigureAwait(false);
            (IndexSituation root, IReadOnlyList<(PartitionNode Leaf, IndexSituation Parent)> missing) = await ParentsAsync(worker, nodes, cancellationToken).ConfigureAwait(false);
            if (root.Existing is { Valid: true })
            {
                return (root, null);
            }

            if (missing.Count == 0)
            {
                throw NotValid(root);
            }

            if (await LeavesAsync(worker, missing, cancellationToken).ConfigureAwait(false) is { } givenUp)
            {
                return (null, givenUp);
            }
        }

        throw new MigrationException(
            "IndexNotValid", MigrationErrorKind.InvalidState, $"Partitions are attached to {_plan.Target} faster than their indexes can be built.", "Run the command again when no more are attached.")
        {
            Target = _plan.Target,
        };
    }

    private static MigrationException NotValid(IndexSituation root) => new(
        "IndexNotValid",
        MigrationErrorKind.InvalidState,
        $"{root.Display} is not valid although each partition has a valid part: PostgreSQL looks at that only when a part is attached, and one was attached while it was not valid.",
        $"DROP INDEX {root.Display}, then this command builds it anew. The drop takes all its parts along, valid ones too, under ACCESS EXCLUSIVE on the table and all partitions: queries are without them until they are built again.")
    {
        Target = root.Display,
    };

    /// <summary>The indexes of the partitioned tables: makes and attaches those that are missing.</summary>
    /// <returns>The root's, and the leaves that have no part of it yet, with the index that they are to be attached to.</returns>
    private async Task<(IndexSituation Root, IReadOnlyList<(PartitionNode Leaf, IndexSituation Parent)> Missing)> ParentsAsync(
        IndexWorker worker, IReadOnlyList<PartitionNode> nodes, CancellationToken cancellationToken)
    {
        Dictionary<uint, IndexSituation> indexes = [];
        List<(PartitionNode, IndexSituation)> missing = [];
        foreach (PartitionNode node in nodes)
        {
            IndexSituation? parent = node.Parent is { } above ? indexes[above] : null;
            IndexSituation situation = await LookAsync().ConfigureAwait(false);
            if (node.IsLeaf)
            {
                if (situation.Existing is not { Valid: true } || situation.Existing.Parent != parent!.Existing!.Oid)
                {
                    missing.Add((node, parent!));
                }

                continue;
            }

            if (parent is null)
            {
                _rootSql = situation.CreateSql();
            }

            if (situation.Existing is null)
            {
                _made[situation.CreateStep().Sql] = situation.Display;
                await RunAsync(worker, situation.CreateStep(), cancellationToken).ConfigureAwait(false);
                await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
                situation = await LookAsync().ConfigureAwait(false);
            }

            if (parent is not null && situation.Existing!.Parent != parent.Existing!.Oid)
            {
                await AttachAsync(worker, situation, parent, cancellationToken).ConfigureAwait(false);
                await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
                situation = await LookAsync().ConfigureAwait(false);
            }

            indexes.Add(node.Table.Oid, situation);

            Task<IndexSituation> LookAsync() => parent is null
                ? IndexCatalog.InspectAsync(worker.Connection, node.Table, _plan.Definition, _request.Name, cancellationToken)
                : InspectAsync(worker.Connection, node, _plan.Definition, parent.Existing!.Oid, cancellationToken);
        }

        return (await IndexCatalog.InspectAsync(worker.Connection, nodes[0].Table, _plan.Definition, _request.Name, cancellationToken).ConfigureAwait(false), missing);
    }

    /// <summary>Builds and attaches the leaves, as many at once as there are places. The first failure lets those that run end, and starts no more.</summary>
    /// <returns>Why the build of one was given up; null where all were built.</returns>
    private async Task<MigrationException?> LeavesAsync(IndexWorker worker, IReadOnlyList<(PartitionNode Leaf, IndexSituation Parent)> missing, CancellationToken cancellationToken)
    {
        _progress.Expect(missing.Select(part => (part.Leaf.Table.Display, Math.Max(part.Leaf.Table.SizeBytes, 8192L))));
        using SemaphoreSlim one = new(1);
        using SemaphoreSlim attaching = new(1);
        SemaphoreSlim places = _request.Places ?? one;
        MigrationException? failure = null;
        MigrationException? givenUp = null;
        await Task.WhenAll(missing.Select(part => LeafAsync(part.Leaf.Table, part.Parent))).ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        return failure is null || failure == givenUp ? failure : throw failure;

        async Task LeafAsync(TableReference table, IndexSituation parent)
        {
            try
            {
                // The others wait behind the first, for each other too.
                await (table == missing[0].Leaf.Table ? places.EnterAsync(_sink, _plan.Target, cancellationToken) : places.WaitAsync(cancellationToken)).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                // Told once, when all have ended.
                return;
            }

            TableBuild build = new(_plan, table, null, parent.Existing!.Oid, _progress.Part(table.Display, Math.Max(table.SizeBytes, 8192L)));
            bool kept = false;
            try
            {
                if (Volatile.Read(ref failure) is null)
                {
                    IndexSituation situation = await build.RunAsync(cancellationToken).ConfigureAwait(false);
                    Keep(build, situation.Display);
                    kept = true;
                    await attaching.WaitAsync(cancellationToken).ConfigureAwait(false);
                    try
                    {
                        await AttachAsync(worker, situation, parent, cancellationToken).ConfigureAwait(false);
                    }
                    finally
                    {
                        attaching.Release();
                    }

                }
            }
            catch (MigrationException e)
            {
                if (!kept)
                {
                    Keep(build, null);
                }

                if (Interlocked.CompareExchange(ref failure, e, null) is null && !kept)
                {
                    givenUp = e;
                }
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                // Told once, when all have ended; what is left was said by the build.
            }
            finally
            {
                places.Release();
            }
        }
    }

    private void Keep(TableBuild build, string? index)
    {
        lock (_gate)
        {
            _steps.AddRange(build.Steps);
            Queued += build.Queued;
            if (build.Build is { } made && index is not null)
            {
                _made[made.Sql] = index;
            }
        }
    }

    private async Task AttachAsync(IndexWorker worker, IndexSituation part, IndexSituation parent, CancellationToken cancellationToken)
    {
        MigrationStep step = AttachStep(part, parent.Display);
        string? restoration = null;
        if (part.Existing is { Valid: true } older && !IsMade(part.Display))
        {
            step = OlderAttachStep(part, parent.Display);
            await worker.BoundReadsAsync(cancellationToken).ConfigureAwait(false);
            restoration = part.Table.Kind != 'p' && await IndexDetails.ReadAsync(worker.Connection, older.Oid, cancellationToken).ConfigureAwait(false) is { } details
                ? await IndexRestoration.ComposeAsync(worker.Connection, details, cancellationToken).ConfigureAwait(false)
                : null;
        }

        await RunAsync(worker, step, cancellationToken).ConfigureAwait(false);
        lock (_gate)
        {
            _attached.Add(part.Display);
            if (restoration is not null)
            {
                _restorations.Add(restoration);
            }
        }
    }

    private bool IsMade(string index)
    {
        lock (_gate)
        {
            return _made.ContainsValue(index);
        }
    }

    private async Task RunAsync(IndexWorker worker, MigrationStep step, CancellationToken cancellationToken)
    {
        MigrationStep outcome = step with { State = StepState.Failed };
        try
        {
            outcome = await worker.RunAsync(step, step.Purpose, cancellationToken).ConfigureAwait(false);
        }
        catch (MigrationException e) when (e.Steps is [MigrationStep failed])
        {
            outcome = failed;
            throw;
        }
        finally
        {
            lock (_gate)
            {
                _steps.Add(outcome);
            }
        }
    }
}
