using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Progress;

/// <summary>What runs on the server, whoever started it, as often as it is asked: the views of all its databases; backfills, long DDL and replication of the session's.</summary>
public sealed class ProgressReader : IAsyncDisposable
{
    /// <summary>How far apart the two samples of <see cref="ReadOnceAsync"/> are: far enough for a rate, near enough for somebody who waits for the answer.</summary>
    private static readonly TimeSpan s_moment = TimeSpan.FromMilliseconds(400);

    private readonly EngineSession _session;
    private readonly ProgressFilter _filter;
    private readonly TimeSpan _patience;
    private NpgsqlConnection? _connection;

    /// <summary>Opens nothing yet.</summary>
    /// <param name="session">Session.</param>
    /// <param name="filter">Which operations; an empty filter for all.</param>
    /// <param name="patience">How long a look may take before the connection counts as lost; null for as long as it takes.</param>
    public ProgressReader(EngineSession session, ProgressFilter filter, TimeSpan? patience = null)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        (_session, _filter, _patience) = (session, filter, patience ?? Timeout.InfiniteTimeSpan);
        Tracker = new ProgressTracker(session.Info, filter);
    }

    /// <summary>Whether the last look was without this module's own operations, because somebody locks their tables: more may run than was found.</summary>
    public bool IsPartial => Tracker.IsPartial;

    internal ProgressTracker Tracker { get; private set; }

    /// <summary>Takes one sample; with those before it, rates and times are told.</summary>
    /// <param name="sink">Warnings where this role is not shown everything.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The operations; none where nothing runs.</returns>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>InvalidName</c>, or the connection's. The next call connects again.</exception>
    public async Task<IReadOnlyList<MigrationProgress>> ReadAsync(IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(sink);
        IReadOnlyList<MigrationProgress> found = await SampleAsync(sink, cancellationToken).ConfigureAwait(false);
        Warn(sink);
        return found;
    }

    /// <summary>Takes two samples a moment apart, so that rates can be told; one where nothing runs.</summary>
    /// <param name="sink">Warnings where this role is not shown everything.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The operations of the second.</returns>
    /// <exception cref="MigrationException">As <see cref="ReadAsync"/>.</exception>
    public async Task<IReadOnlyList<MigrationProgress>> ReadOnceAsync(IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(sink);
        IReadOnlyList<MigrationProgress> first = await SampleAsync(sink, cancellationToken).ConfigureAwait(false);
        if (first.Count == 0)
        {
            Warn(sink);
            return first;
        }

        await Task.Delay(s_moment, cancellationToken).ConfigureAwait(false);
        return await ReadAsync(sink, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Whether an operation comes to an end by itself: not a stream that has caught up, nor a backfill that nobody works on.</summary>
    /// <param name="progress">Operation.</param>
    /// <returns>True where waiting for it makes sense.</returns>
    public static bool Ends(MigrationProgress progress)
    {
        ArgumentNullException.ThrowIfNull(progress);
        return !OwnModels.IsAtRest(progress.Phase) && (progress.Operation != OwnModels.Stream || progress.Phase == OwnModels.InitialCopy);
    }

    /// <inheritdoc />
    public ValueTask DisposeAsync() => CloseAsync(Tracker, _connection);

    /// <summary>As <see cref="ReadAsync"/>, without its warnings.</summary>
    internal async Task<IReadOnlyList<MigrationProgress>> SampleAsync(IOperationSink sink, CancellationToken cancellationToken)
    {
        // A look has the connection for itself, and what it was prepared for: one that is left behind goes on with them.
        (NpgsqlConnection? connection, _connection, ProgressTracker tracker) = (_connection, null, Tracker);
        async Task<(NpgsqlConnection Connection, ProgressLook Look)> LookAsync(CancellationToken token)
        {
            try
            {
                connection ??= await _session.OpenAsync("progress", sink, token).ConfigureAwait(false);
                return (connection, await tracker.LookAsync(connection, token).ConfigureAwait(false));
            }
            catch
            {
                await CloseAsync(tracker, connection).ConfigureAwait(false);
                throw;
            }
        }

        try
        {
            (_connection, ProgressLook look) = await Answers.WithinAsync(LookAsync, _patience, _session, late => CloseAsync(tracker, late.Connection), cancellationToken).ConfigureAwait(false);
            return Tracker.Track(look);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            Tracker = tracker.OnAnotherConnection();
            throw ServerErrors.Translate(e, "Reading progress", _filter.Table);
        }
    }

    private void Warn(IOperationSink sink)
    {
        foreach (string warning in Tracker.Warnings)
        {
            sink.Warning(warning);
        }
    }

    private static async ValueTask CloseAsync(ProgressTracker tracker, NpgsqlConnection? connection)
    {
        await tracker.DisposeAsync().ConfigureAwait(false);
        if (connection is not null)
        {
            await connection.DisposeAsync().ConfigureAwait(false);
        }
    }
}
