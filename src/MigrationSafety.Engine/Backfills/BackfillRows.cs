using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>What became of single rows.</summary>
/// <param name="Changed">Updated.</param>
/// <param name="Failed">Refused by the server, and recorded.</param>
/// <param name="Stopped">Whether the backfill was paused or ended meanwhile.</param>
internal sealed record RowsOutcome(long Changed, long Failed, bool Stopped)
{
    /// <summary>Of a sweep: those that were locked, needed what is locked, or were changed by others since they were found.</summary>
    internal IReadOnlyList<RowPlace> Left { get; init; } = [];
}

/// <summary>Updates rows by place and version: those that a sweep found, and those of a piece in which one is at fault. A batch that fails is halved down to the row.</summary>
internal sealed class BackfillRows
{
    private const int MostPassedOver = 64;
    private const int LookedFor = 1000;
    // So few are each waited for, one by one, in the queue for its lock.
    private const int Few = 32;

    private readonly BackfillContext _context;
    private readonly BackfillWorker _worker;
    private readonly BatchSize _size;

    internal BackfillRows(BackfillContext context, BackfillWorker worker)
    {
        _context = context;
        _worker = worker;
        _size = new BatchSize(context.Request.BatchSize, context.Request.TargetBatchTime, context.Sink);
    }

    /// <summary>Updates them. A row that was changed since it was found, is locked or needs what is locked, is left as it is.</summary>
    /// <param name="leaf">Their table.</param>
    /// <param name="places">Where they lie; the order may be changed.</param>
    /// <param name="isSweep">Whether nothing comes after this that would find what is left: each row is tried, what is left is returned, and who is in the way is of interest.</param>
    /// <param name="byKey">Whether a row that is waited for is to be updated wherever it went meanwhile; all have a key then.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException">More rows than <c>-MaxErrors</c> were refused; <c>BatchTooSlow</c>.</exception>
    internal async Task<RowsOutcome> UpdateAsync(BackfillLeaf leaf, RowPlace[] places, bool isSweep, bool byKey, CancellationToken cancellationToken)
    {
        BackfillStatements statements = new(_context.Definition, leaf);
        List<RowPlace> left = [];
        (long changed, long failed) = (0, 0);
        (bool skip, int setbacks, int passOver) = (false, 0, 1);
        for (int at = 0; at < places.Length;)
        {
            await _worker.Throttle.WaitAsync(cancellationToken).ConfigureAwait(false);
            BatchPace pace = _worker.Throttle.Pace(_size);
            int most = byKey && places.Length <= Few ? 1 : Math.Min(_size.Rows, _context.Gate.MostRows ?? int.MaxValue);
            RowPlace[] some = places[at..Math.Min(places.Length, at + most)];
            // One that holds no other may wait, and gets what is hardly ever free.
            skip |= some.Length > 1 && _worker.Connection.MayDeadlock;
            try
            {
                PlacesOutcome? outcome = await _worker.SendAsync(
                    leaf,
                    skip ? statements.SkippingPlaces : byKey ? statements.Keys : statements.Places,
                    [_context.Plan.Name, some.Select(place => byKey && !skip ? place.Key! : place.Place).ToArray(), some.Select(place => place.Version).ToArray(), _context.Run, _worker.Number, pace.Chance, pace.Seconds],
                    reader => new PlacesOutcome(
                        reader.GetInt64(0),
                        reader.Text(1),
                        TimeSpan.FromMilliseconds(reader.GetDouble(2)),
                        reader.IsDBNull(3) ? null : reader.GetFieldValue<long[]>(3),
                        reader.IsDBNull(4) ? null : reader.GetFieldValue<long[]>(4)),
                    (isSweep && !skip) || setbacks > 0,
                    cancellationToken,
                    byKey && !skip ? statements.LockKeys : null).ConfigureAwait(false);
                if (outcome?.State != BackfillStore.Running)
                {
                    return new RowsOutcome(changed, failed, Stopped: true);
                }

                changed += outcome.Changed;
                TimeSpan took = _worker.Connection.ServerTime(outcome.ServerTime);
                _worker.Throttle.Paused(pace, outcome.Changed, some.Length, took);
                _context.Did(outcome.Changed, passed: 0, took);
                if (some.Length == _size.Rows)
                {
                    _size.Took(took, some.Length);
                }

                RowPlace[] rest = isSweep && outcome.Done is { } done ? Without(some, done) : [];
                if (rest.Length > 0 && !skip)
                {
                    // Changed by others since they were found, or kept by a trigger: which of the two tells who locks them first.
                    rest.CopyTo(places, at + some.Length - rest.Length);
                    at += some.Length - rest.Length;
                    (skip, setbacks) = (true, 0);
                    continue;
                }

                if (rest.Length > 0 && outcome.Kept is { Length: > 0 } kept)
                {
                    // What somebody else did or copied while it was waited for looks the same, but matches no more.
                    (RowPlace[] refused, _) = await FindAsync(leaf, [.. kept.Select(number => some[number - 1])], byKey: false, cancellationToken).ConfigureAwait(false);
                    HashSet<(string, string)> matching = [.. refused.Select(place => (place.Place, place.Version))];
                    long[] numbers = [.. kept.Where(number => matching.Contains((some[number - 1].Place, some[number - 1].Version)))];
                    foreach (long number in numbers)
                    {
                        await FailedAsync(leaf, some[number - 1], RowRefusal.Kept(leaf, _context.Definition.Into), cancellationToken).ConfigureAwait(false);
                        failed++;
                    }

                    rest = Without(some, [.. outcome.Done!, .. numbers]);
                }

                left.AddRange(rest);
                at += some.Length;
                (skip, setbacks, passOver) = (false, 0, 1);
            }
            catch (PostgresException e) when (BackfillContext.IsDataError(e))
            {
                if (some.Length == 1)
                {
                    await FailedAsync(leaf, some[0], RowRefusal.Of(e, leaf, _context.Definition), cancellationToken).ConfigureAwait(false);
                    failed++;
                    at++;
                }
                else
                {
                    _size.Limit(some.Length / 2);
                }
            }
            catch (PostgresException e) when (e.SqlState == SqlStates.LockNotAvailable && !skip)
            {
                skip = true;
            }
            catch (PostgresException e) when (BackfillContext.IsBusy(e))
            {
                setbacks++;
                if (e.SqlState == SqlStates.LockNotAvailable && !_context.IsStuck && !await _worker.IsTableLockedAsync(statements.Explain, cancellationToken).ConfigureAwait(false))
                {
                    // What is locked is not the row but what it needs: another table's row that a trigger or a foreign key wants, a unique key in flight. Down to the row, which a
                    // sweep tries again; in the pass those behind it too, because they may well need the same.
                    if (some.Length > 1)
                    {
                        _size.Limit(some.Length / 2);
                    }
                    else
                    {
                        left.AddRange(isSweep ? some : []);
                        at += passOver;
                        passOver = isSweep ? 1 : Math.Min(passOver * 2, MostPassedOver);
                    }

                    continue;
                }

                if (e.SqlState == SqlStates.QueryCanceled && some.Length == 1 && setbacks > 8)
                {
                    throw SlowBatch.Of(_context.Definition, _worker.Connection.HoldLimit, e);
                }

                _size.Limit(Math.Max(1, some.Length / (e.SqlState == SqlStates.LockNotAvailable ? 1 : 4)));
                if (_context.IsStuck)
                {
                    throw ServerErrors.Translate(e, $"Backfilling {leaf.Table.Display}", leaf.Table.Display, blockers: _worker.Watch.Last);
                }

                if (e.SqlState != SqlStates.QueryCanceled || setbacks > 2)
                {
                    await BackfillContext.PauseAsync(setbacks, cancellationToken).ConfigureAwait(false);
                }
            }
        }

        return new RowsOutcome(changed, failed, Stopped: false) { Left = left };
    }

    /// <summary>Where rows lie by now that still match, and how many there are no more: found by key, or, without one, where they have not moved.</summary>
    /// <param name="leaf">Their table.</param>
    /// <param name="rows">Rows as they were found before.</param>
    /// <param name="byKey">Whether all have a key.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task<(RowPlace[] Places, int Gone)> FindAsync(BackfillLeaf leaf, RowPlace[] rows, bool byKey, CancellationToken cancellationToken)
    {
        string sql = new BackfillStatements(_context.Definition, leaf).Whereabouts(byKey);
        List<(RowPlace Place, bool Matches)> there = [];
        foreach (RowPlace[] some in rows.Chunk(LookedFor))
        {
            there.AddRange(await _worker.LookAsync(
                sql,
                [_context.Plan.Name, some.Select(row => byKey ? row.Key! : row.Place).ToArray(), some.Select(row => row.Version).ToArray()],
                reader => (new RowPlace(leaf.Table.Oid, reader.GetString(0), reader.GetString(1), reader.Text(2)), reader.GetBoolean(3)),
                cancellationToken).ConfigureAwait(false));
        }

        return ([.. there.Where(row => row.Matches).Select(row => row.Place)], rows.Length - there.Count);
    }

    /// <summary>The key of the row at a place, as texts; null where there is none.</summary>
    internal static async Task<string[]?> KeyAtAsync(NpgsqlConnection connection, BackfillDefinition definition, BackfillLeaf leaf, string place, string? version = null)
    {
        if (leaf.Key.Count == 0)
        {
            return null;
        }

        await using NpgsqlCommand command = new(new BackfillStatements(definition, leaf).KeyAt, connection) { CommandTimeout = 20, Parameters = { new() { Value = place }, new() { Value = (object?)version ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Text } } };
        return (string[]?)await command.ExecuteScalarAsync(CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>A row in words: by its key, or where it lies.</summary>
    internal static string Row(BackfillLeaf leaf, string[]? key, string place) => key is null ? $"ctid {place}" : $"({leaf.KeyText}) = ({string.Join(", ", key)})";

    private static RowPlace[] Without(RowPlace[] places, long[] numbers)
    {
        HashSet<long> named = [.. numbers];
        return [.. places.Where((_, i) => !named.Contains(i + 1))];
    }

    private async Task FailedAsync(BackfillLeaf leaf, RowPlace place, RowRefusal refusal, CancellationToken cancellationToken)
    {
        string[]? key = await _worker.AskAsync(
            async connection =>
            {
                string[]? found = await KeyAtAsync(connection, _context.Definition, leaf, place.Place, place.Version).ConfigureAwait(false);
                await BackfillErrors.RecordAsync(connection, _context.Definition, leaf, place, found, refusal, CancellationToken.None).ConfigureAwait(false);
                return found;
            },
            cancellationToken).ConfigureAwait(false);
        long errors = 0;
        if (_context.MustCountErrors())
        {
            errors = (await _worker.LookAsync(BackfillErrors.Count, [_context.Plan.Name], reader => reader.GetInt64(0), cancellationToken).ConfigureAwait(false))[0];
            _context.CountedErrors(errors);
        }

        string row = Row(leaf, key, place.Place);
        if (errors > _context.Request.MaxErrors)
        {
            MigrationException refused = refusal.Error(row);
            string advice = _context.Request.MaxErrors == 0
                ? RowRefusal.MaxErrorsAdvice
                : $"{Counts.Rows(errors, "was", "were")} refused, more than -MaxErrors allows; Get-Backfill -IncludeError lists them.";
            throw new MigrationException(refused.ErrorId, refused.Kind, refused.Message, $"{refused.RecommendedAction} {advice} What is done stays done; run again, it goes on.", refused.InnerException)
            {
                SqlState = refusal.SqlState,
                Target = leaf.Table.Display,
            };
        }

        _context.Sink.Verbose($"The server refuses the row of {leaf.Table.Display} with {row}, which is recorded and passed over: {refusal.Words}");
    }
}
