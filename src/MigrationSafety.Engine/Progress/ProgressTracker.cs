using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Progress;

/// <summary>
/// Takes samples of what runs on a server, one round trip each, and remembers the operations from one sample to the next. Not for two threads at once.
/// </summary>
internal sealed class ProgressTracker(MigrationSession session, ProgressFilter filter) : IAsyncDisposable
{
    private NpgsqlParameter<int[]> _pids = new();
    private Dictionary<string, OperationTrack> _tracks = new(StringComparer.Ordinal);

    // Those that no view shows right now, while their statement goes on: it waits for its next table, or is at a step that no view tells.
    private Dictionary<string, OperationTrack> _between = new(StringComparer.Ordinal);
    private ProgressSample[] _statements = [];
    private ProgressCatalog? _catalog;
    private NpgsqlConnection? _connection;
    private NpgsqlBatch? _batch;
    private ulong _nextTransaction;
    private bool _ownLocked;
    private LearntPhases _learnt = LearntPhases.None;

    /// <summary>The operations of the last sample.</summary>
    internal IReadOnlyCollection<OperationTrack> Running => _tracks.Values;

    /// <summary>Whether the statement of an operation that no view shows any more was still at work at the last sample.</summary>
    internal bool IsAtWork(OperationTrack track) => StatementOf(track) is not null;

    /// <summary>Whether an operation that no view shows any more went on with its statement at the last sample.</summary>
    internal bool GoesOn(OperationTrack track) => StatementOf(track) is { } statement && track.Follow(statement, _nextTransaction);

    /// <summary>Whether the last sample is without this module's own operations, because somebody locks their tables.</summary>
    internal bool IsPartial => _ownLocked;

    /// <summary>The operations of this module that the log had at work at the last sample, by their number in it, whether they are shown by themselves or by what they are at.</summary>
    internal IReadOnlySet<long> Entries { get; private set; } = new HashSet<long>();

    /// <summary>What this role is not shown, and what grants it.</summary>
    internal IReadOnlyList<string> Warnings { get; private set; } = [];

    /// <summary>The server's clock at the last sample.</summary>
    internal DateTime Time { get; private set; }

    /// <summary>Takes a sample. On another connection than before, it prepares itself first.</summary>
    /// <returns>The operations, those of the views first, each kind oldest first.</returns>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>InvalidName</c>.</exception>
    internal async Task<IReadOnlyList<MigrationProgress>> SampleAsync(NpgsqlConnection connection, CancellationToken cancellationToken) =>
        Track(await LookAsync(connection, cancellationToken).ConfigureAwait(false));

    /// <summary>The same operations, with nothing prepared: where a look on the connection before may still use what is.</summary>
    internal ProgressTracker OnAnotherConnection() => new(session, filter) { _tracks = _tracks, _between = _between, _statements = _statements, Entries = Entries, Time = Time };

    /// <summary>Takes a sample, and leaves the operations as they are until it is handed to <see cref="Track"/>.</summary>
    internal async Task<ProgressLook> LookAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        DateTime before = Time;
        IReadOnlyList<ProgressSample> samples;
        _ownLocked = false;
        try
        {
            samples = await ReadAsync(connection, cancellationToken).ConfigureAwait(false);
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.UndefinedTable or SqlStates.UndefinedColumn or SqlStates.InsufficientPrivilege or "3F000" && _catalog is not null)
        {
            // The table of the backfills went, or was barred, since it was looked for: look again.
            await ForgetAsync().ConfigureAwait(false);
            samples = await ReadAsync(connection, cancellationToken).ConfigureAwait(false);
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.LockNotAvailable)
        {
            // Without this module's own tables, for this once.
            _ownLocked = true;
            await ForgetAsync().ConfigureAwait(false);
            samples = await ReadAsync(connection, cancellationToken).ConfigureAwait(false);
            await ForgetAsync().ConfigureAwait(false);
        }

        return new ProgressLook(samples, before);
    }

    public async ValueTask DisposeAsync()
    {
        if (_batch is { } batch)
        {
            _batch = null;
            await batch.DisposeAsync().ConfigureAwait(false);
        }
    }

    private async Task ForgetAsync()
    {
        await DisposeAsync().ConfigureAwait(false);
        (_catalog, _connection) = (null, null);
    }

    private async Task<IReadOnlyList<ProgressSample>> ReadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        if (_connection != connection || _batch is null)
        {
            await ForgetAsync().ConfigureAwait(false);
            if (!filter.ViewsOnly)
            {
                // Whoever waits for a lock holds a snapshot, which index builds wait for in turn: who locks this module's tables would stop them. For the session, as preparing asks for the locks too.
                await using NpgsqlCommand limit = new("select pg_catalog.set_config('lock_timeout', $1, false)", connection) { Parameters = { new() { Value = _ownLocked ? "0" : "100ms" } } };
                await limit.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }

            _catalog = await ProgressCatalog.ReadAsync(connection, filter.Table, cancellationToken).ConfigureAwait(false);
            (_batch, _connection) = (Batch(connection, _catalog), connection);
            // Planning takes longer than running it.
            await _batch.PrepareAsync(cancellationToken).ConfigureAwait(false);
        }

        _pids.TypedValue = [.. Known.Select(known => known.Value.Last.Pid).Distinct()];
        List<ProgressSample> samples = [];
        uint[] own;
        bool seesAll;
        await using (NpgsqlDataReader reader = await _batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false))
        {
            await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
            Time = reader.GetDateTime(0);
            _nextTransaction = ulong.Parse(reader.GetString(1), System.Globalization.CultureInfo.InvariantCulture);
            own = reader.GetFieldValue<uint[]>(2);
            seesAll = reader.GetBoolean(3);
            while (await reader.NextResultAsync(cancellationToken).ConfigureAwait(false))
            {
                while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
                {
                    samples.Add(ProgressSample.Read(reader));
                }
            }
        }

        if (samples.Exists(sample => sample.View == "create_index" && Shows(sample) && !Known.Any(known => known.Key == sample.Key))
            && await LearntPhases.ReadAsync(connection, cancellationToken).ConfigureAwait(false) is var learnt && learnt != LearntPhases.None)
        {
            // What has ended since tells of those that begin.
            _learnt = learnt;
        }

        Warnings = Missing(samples, seesAll, _catalog!);
        if (!own.SequenceEqual(_catalog!.Own))
        {
            // Made, or made anew, since it was looked for: from the next sample on.
            await ForgetAsync().ConfigureAwait(false);
        }

        return samples;
    }

    private NpgsqlBatch Batch(NpgsqlConnection connection, ProgressCatalog catalog)
    {
        NpgsqlBatch batch = new(connection) { BatchCommands = { new(ProgressQueries.Server) } };
        List<string> queries = filter.ViewsOnly ? [ProgressQueries.Views(catalog)] : [ProgressQueries.Views(catalog), ProgressQueries.LongDdl(catalog), ProgressQueries.Replication];
        if (catalog.MayReadBackfills == true && !filter.ViewsOnly && !_ownLocked)
        {
            queries.Add(ProgressQueries.Backfills);
        }

        if (catalog.MayReadLog == true && !filter.ViewsOnly && !_ownLocked)
        {
            queries.Add(ProgressQueries.Operations);
        }

        foreach (string query in queries)
        {
            batch.BatchCommands.Add(new(query)
            {
                Parameters =
                {
                    new() { Value = (object?)filter.Pid ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Integer },
                    new() { Value = (object?)catalog.Table ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Oid },
                },
            });
        }

        if (!filter.ViewsOnly)
        {
            _pids = new();
            batch.BatchCommands.Add(new(ProgressQueries.Statements) { Parameters = { _pids, new() { Value = (object?)catalog.Table ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Oid } } });
        }

        return batch;
    }

    private IEnumerable<KeyValuePair<string, OperationTrack>> Known => _tracks.Concat(_between);

    private bool Shows(ProgressSample sample) => filter.Wants(ProgressModels.Of(sample, _learnt).Operation) && filter.Shows(sample.Database, session.Database);

    private ProgressSample? StatementOf(OperationTrack track) => Array.Find(_statements, statement => statement.IsSameStatement(track.Last));

    /// <summary>Brings the operations up to date.</summary>
    /// <returns>The operations, those of the views first, each kind oldest first.</returns>
    internal List<MigrationProgress> Track(ProgressLook look)
    {
        (IReadOnlyList<ProgressSample> all, DateTime before) = look;
        _statements = [.. all.Where(sample => sample.View == ProgressQueries.Statement)];
        ProgressSample[] samples = [.. all.Where(sample => sample.View != ProgressQueries.Statement)];
        HashSet<int> inViews = [.. samples.Where(sample => sample.View is not (ProgressQueries.Ddl or ProgressQueries.Operation)).Select(sample => sample.Pid)];
        ProgressSample[] entries = [.. samples.Where(sample => sample.View == ProgressQueries.Operation)];
        Entries = _ownLocked ? Entries : entries.Select(entry => entry.Number("id")!.Value).ToHashSet();
        Dictionary<string, ProgressSample> workers = entries
            .SelectMany(entry => ((string)entry.Facts["workers"]).Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(pid => (pid, entry)))
            .ToDictionary(worker => worker.pid, worker => worker.entry, StringComparer.Ordinal);
        ProgressSample? EntryOf(ProgressSample sample) => workers.GetValueOrDefault(sample.Pid.ToString(System.Globalization.CultureInfo.InvariantCulture));
        // A backfill tells more of itself than the log, and goes on when one of its clients is done before the others.
        bool IsShown(ProgressSample entry) => entry.Text("operation") == "Backfill"
            ? samples.Any(sample => sample.View == ProgressQueries.Backfill && sample.Pid > 0 && sample.Number("relid") == entry.Number("relid"))
            : samples.Any(sample => sample.View != ProgressQueries.Operation && EntryOf(sample) == entry);
        Dictionary<string, OperationTrack> tracks = new(StringComparer.Ordinal);
        List<MigrationProgress> found = [];
        foreach (ProgressSample seen in samples)
        {
            ProgressSample sample = seen.View is ProgressQueries.Operation or ProgressQueries.Backfill ? seen : seen with { Entry = EntryOf(seen) };
            if (sample.View == ProgressQueries.Operation && IsShown(sample))
            {
                continue;
            }

            // An ALTER TABLE that builds an index, and a REINDEX that ALTER is a part of the text of, are what their view says.
            if ((sample.View == ProgressQueries.Ddl && inViews.Contains(sample.Pid)) || !Shows(sample))
            {
                continue;
            }

            if (!_tracks.TryGetValue(sample.Key, out OperationTrack? track) && !_between.TryGetValue(sample.Key, out track))
            {
                // What the statement did before, with other tables or indexes, is none of this one's time.
                track = new OperationTrack(_learnt, Known.Any(known => known.Value.Last.IsSameStatement(sample)) ? before : null);
            }

            tracks[sample.Key] = track;
            found.Add(track.Add(sample, Time, session, _nextTransaction));
        }

        foreach ((string key, OperationTrack unseen) in _tracks.Where(track => _ownLocked && track.Value.Last.View is ProgressQueries.Backfill or ProgressQueries.Operation))
        {
            // They are not over because nobody could look: they are as they were.
            if (tracks.TryAdd(key, unseen))
            {
                found.Add(unseen.Said);
            }
        }

        _between = Known
            .Where(known => !tracks.Values.Any(track => track == known.Value || track.Last.IsSameStatement(known.Value.Last)) && IsAtWork(known.Value) && !(known.Value.EntryId is { } id && Entries.Contains(id)))
            .DistinctBy(known => StatementOf(known.Value))
            .ToDictionary(StringComparer.Ordinal);
        _tracks = tracks;
        found.AddRange(_between.Values.Select(track => track.Between(StatementOf(track)!, Time, session)));
        return found;
    }

    private List<string> Missing(List<ProgressSample> samples, bool seesAll, ProgressCatalog catalog)
    {
        string role = SqlName.QuoteIfNeeded(session.User);
        List<string> warnings = [];
        if (!seesAll)
        {
            // Also where nothing is found: long DDL of others is told by its text alone, which is hidden.
            warnings.Add($"{session.User} is not shown what other roles' operations are at. Have a superuser run: GRANT pg_read_all_stats TO {role};");
        }

        if (catalog.MayReadBackfills == false)
        {
            warnings.Add($"{session.User} may not read the backfills of this database. Have their owner run: GRANT USAGE ON SCHEMA migration_safety TO {role}; GRANT SELECT ON migration_safety.backfill, migration_safety.backfill_range, migration_safety.backfill_worker TO {role};");
        }

        if (catalog.MayReadLog == false)
        {
            warnings.Add($"{session.User} may not read the log of operations of this database. Have its owner run: GRANT USAGE ON SCHEMA migration_safety TO {role}; GRANT SELECT ON {OperationStore.Table} TO {role};");
        }

        if (_ownLocked)
        {
            warnings.Add("Operations and backfills of this module cannot be looked at: somebody locks their tables in the schema migration_safety. They are shown as they were last seen, and looked for again the next time.");
        }

        if (!catalog.MaySeeFiles && samples.Any(sample => sample.View == ProgressQueries.Ddl && sample.Number("new_files") > 0))
        {
            warnings.Add($"{session.User} may not see how the new files of a rewrite grow. Have a superuser run: GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO {role};");
        }

        return warnings;
    }
}

/// <summary>What one look found.</summary>
/// <param name="Samples">All of it.</param>
/// <param name="Before">When it was looked before.</param>
internal sealed record ProgressLook(IReadOnlyList<ProgressSample> Samples, DateTime Before);
