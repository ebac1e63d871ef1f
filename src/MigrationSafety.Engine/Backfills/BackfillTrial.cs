using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Tries the change on some of the rows and takes it back, before anything is recorded.</summary>
internal sealed class BackfillTrial
{
    private const int TriedRows = 100;
    // Each is waited for as long as a batch waits for a lock.
    private const int MostTriedInVain = 10;

    private readonly BackfillPlan _plan;
    private readonly BackfillDefinition _definition;
    private readonly BackfillRequest _request;
    private readonly IOperationSink _sink;
    private readonly BackfillWorker _worker;

    internal BackfillTrial(BackfillPlan plan, IOperationSink sink, BackfillWorker worker)
    {
        _plan = plan;
        _definition = plan.Definition;
        _request = plan.Request;
        _sink = sink;
        _worker = worker;
    }

    /// <summary>Tries it with the worker's connection.</summary>
    /// <returns>Whether any row matches.</returns>
    /// <exception cref="MigrationException"><c>PredicateStaysTrue</c>, <c>TriggerKeepsRow</c>, or what the server says to the change.</exception>
    internal async Task<bool> RunAsync(CancellationToken cancellationToken)
    {
        (BackfillLeaf Leaf, string Place)[] places = await PickAsync(TriedRows, cancellationToken).ConfigureAwait(false);
        SampleOutcome sample = new(0, 0, []);
        foreach (IGrouping<BackfillLeaf, string> ofLeaf in places.GroupBy(place => place.Leaf, place => place.Place))
        {
            string sql = new BackfillStatements(_definition, ofLeaf.Key).TrySample;
            SampleOutcome some = await TryAsync(ofLeaf.Key, sql, [.. ofLeaf], cancellationToken).ConfigureAwait(false);
            if (some.Locked - some.Changed > _request.MaxErrors)
            {
                // What another transaction changed between the look and the lock has left its place by now, and is not tried again.
                some = await TryAsync(ofLeaf.Key, sql, [.. ofLeaf], cancellationToken).ConfigureAwait(false);
            }

            if (some.Locked - some.Changed > _request.MaxErrors && await KeptAsync(ofLeaf.Key, some, cancellationToken).ConfigureAwait(false) is { } kept)
            {
                throw kept;
            }

            sample = sample.With(some);
        }

        return sample.Same.Count <= _request.MaxErrors
            ? places.Length > 0
            : throw new MigrationException(
                RowRefusal.StaysTrueId,
                MigrationErrorKind.InvalidInput,
                $"The condition ({_definition.Where}) is still true after the update in {sample.Same.Count} of {sample.Changed} rows that were tried and taken back, "
                + $"such as the one with the key ({sample.Same[0]}): the backfill could not tell what is done from what is to be done. Nothing was changed.",
                $"{RowRefusal.StaysTrueAdvice} -MaxErrors allows for such rows: they are recorded and passed over.")
            {
                Target = _definition.Table.Display,
            };
    }

    /// <summary>Rows that match were free and are not changed all the same.</summary>
    private async Task<MigrationException?> KeptAsync(BackfillLeaf leaf, SampleOutcome sample, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.string_agg(pg_catalog.format('%I, which calls %s', g.tgname, g.tgfoid::pg_catalog.regproc), '; ' order by g.tgname)
            from pg_catalog.pg_trigger g
            where g.tgrelid = $1 and not g.tgisinternal and g.tgenabled <> 'D' and g.tgtype & 3 = 3 and g.tgtype & $2 <> 0
            """;
        string? triggers = await _worker.AskAsync(
            async connection =>
            {
                await using NpgsqlCommand command = new(Query, connection)
                {
                    Parameters = { new() { Value = (_definition.Into?.Table ?? leaf.Table).Oid, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid }, new() { Value = _definition.Kind switch { BackfillKind.Insert => 4, BackfillKind.Delete => 8, _ => 16 } } },
                };
                return await command.ExecuteScalarAsync(CancellationToken.None).ConfigureAwait(false) as string;
            },
            cancellationToken).ConfigureAwait(false);
        return triggers is null && _definition.Into is null ? null : new MigrationException(
            RowRefusal.KeptId,
            MigrationErrorKind.InvalidState,
            $"{sample.Locked - sample.Changed} of {sample.Locked} rows of {leaf.Table.Display} that were tried and taken back were not "
            + (_definition.Into is { } into
                ? $"in {into.Table.Display} by ({into.KeyText}) then: a BEFORE trigger there returns NULL for them or changes the key{(triggers is null ? "" : $" ({triggers})")}, or the key's expression gives another value each time."
                : $"changed although they match and nobody has locked them: a BEFORE trigger returns NULL for them ({triggers}).") + " Nothing was changed.",
            (_definition.Into is null ? RowRefusal.KeptAdvice : RowRefusal.NotThereAdvice) + " -MaxErrors allows for such rows: they are recorded and passed over.")
        {
            Target = leaf.Table.Display,
        };
    }

    private async Task<SampleOutcome> TryAsync(BackfillLeaf leaf, string sql, string[] places, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        BusyTable busy = new(_plan, _sink);
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return await _worker.Connection.TryAsync(sql, places, cancellationToken).ConfigureAwait(false);
            }
            catch (PostgresException e) when (BackfillContext.IsDataError(e))
            {
                if (places.Length == 1)
                {
                    return _request.MaxErrors > 0 ? new(0, 0, []) : throw await RefusedAsync(leaf, places[0], e, cancellationToken).ConfigureAwait(false);
                }

                SampleOutcome each = await TryEachAsync(leaf, sql, places, cancellationToken).ConfigureAwait(false);
                if (_request.MaxErrors == 0)
                {
                    // Alone none of them is refused, but all of them together: two of the same unique key.
                    throw;
                }

                return each;
            }
            catch (PostgresException e) when (BackfillContext.IsBusy(e))
            {
                if (e.SqlState == SqlStates.LockNotAvailable && await _worker.IsTableLockedAsync(new BackfillStatements(_definition, leaf).Explain, cancellationToken).ConfigureAwait(false))
                {
                    await busy.WaitAsync(_worker.Connection.Connection, e, cancellationToken).ConfigureAwait(false);
                    continue;
                }

                if (Stopwatch.GetElapsedTime(start) >= _request.Options.RetryFor)
                {
                    throw;
                }

                if (e.SqlState == SqlStates.QueryCanceled)
                {
                    if (places.Length == 1 && attempt > 5)
                    {
                        throw SlowBatch.Of(_definition, _worker.Connection.HoldLimit, e);
                    }

                    places = places[..1];
                }
                else if (places.Length > 1)
                {
                    if (await TryEachAsync(leaf, sql, places, cancellationToken).ConfigureAwait(false) is { Locked: > 0 } free)
                    {
                        return free;
                    }

                    // All that were tried need what is locked: others next time.
                    int tried = Math.Min(MostTriedInVain, places.Length);
                    places = [.. places[tried..], .. places[..tried]];
                }

                await BackfillContext.PauseAsync(attempt, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Tries rows one by one: those that the server refuses may be allowed for, else one is named; what others need elsewhere is locked, such as a foreign key's parent, and the rest tells enough.</summary>
    private async Task<SampleOutcome> TryEachAsync(BackfillLeaf leaf, string sql, string[] places, CancellationToken cancellationToken)
    {
        SampleOutcome each = new(0, 0, []);
        int inVain = 0;
        foreach (string place in places)
        {
            try
            {
                each = each.With(await _worker.Connection.TryAsync(sql, [place], cancellationToken).ConfigureAwait(false));
            }
            catch (PostgresException e) when (BackfillContext.IsDataError(e))
            {
                if (_request.MaxErrors == 0)
                {
                    throw await RefusedAsync(leaf, place, e, cancellationToken).ConfigureAwait(false);
                }
            }
            catch (PostgresException e) when (BackfillContext.IsBusy(e))
            {
                if (++inVain == MostTriedInVain)
                {
                    break;
                }
            }
        }

        return each;
    }

    private async Task<MigrationException> RefusedAsync(BackfillLeaf leaf, string place, PostgresException e, CancellationToken cancellationToken)
    {
        string[]? key = await _worker.AskAsync(connection => BackfillRows.KeyAtAsync(connection, _definition, leaf, place), cancellationToken).ConfigureAwait(false);
        MigrationException refused = RowRefusal.Of(e, leaf, _definition).Error(BackfillRows.Row(leaf, key, place));
        return new MigrationException(refused.ErrorId, refused.Kind, $"{refused.Message} It was tried on some rows and taken back: nothing was changed.", $"{refused.RecommendedAction} {RowRefusal.MaxErrorsAdvice}", e)
        {
            SqlState = refused.SqlState,
            Target = refused.Target,
        };
    }

    /// <summary>Some rows that match, from all over the table.</summary>
    internal Task<(BackfillLeaf Leaf, string Place)[]> PickAsync(long rows, CancellationToken cancellationToken) => Backfill.AskAsync(
        _plan,
        _sink,
        async connection =>
        {
            double percent = BackfillSample.Percent(_definition);
            (BackfillLeaf Leaf, string Place)[] sampled = await PickAsync(connection, sampled: true, rows, percent, cancellationToken).ConfigureAwait(false);
            if (sampled.Length > 0 || percent >= 100)
            {
                return sampled;
            }

            LongLook look = new(_plan.Session, $"The look for rows of {_definition.Table.Display} that match", _definition.Table.Display, _request.Options.LockTimeout, _request.Options.RetryFor, _sink);
            return await look.RunAsync(connection.ProcessID, () => PickAsync(connection, sampled: false, rows, percent, cancellationToken), _ => false, cancellationToken).ConfigureAwait(false);
        },
        cancellationToken);

    private async Task<(BackfillLeaf Leaf, string Place)[]> PickAsync(NpgsqlConnection connection, bool sampled, long rows, double percent, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(new BackfillQueries(_definition).PickSample(sampled), connection) { CommandTimeout = 0, Parameters = { new() { Value = rows } } };
        if (sampled)
        {
            command.Parameters.Add(new() { Value = (float)percent });
        }

        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<(BackfillLeaf, string)> places = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            uint relation = reader.GetFieldValue<uint>(0);
            if (_definition.Leaves.FirstOrDefault(leaf => leaf.Table.Oid == relation) is { } leaf)
            {
                places.Add((leaf, reader.GetString(1)));
            }
        }

        return [.. places];
    }
}
