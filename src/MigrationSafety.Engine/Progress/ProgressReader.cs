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
    private NpgsqlConnection? _connection;

    /// <summary>Opens nothing yet.</summary>
    /// <param name="session">Session.</param>
    /// <param name="filter">Which operations; an empty filter for all.</param>
    public ProgressReader(EngineSession session, ProgressFilter filter)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        (_session, _filter) = (session, filter);
        Tracker = new ProgressTracker(session.Info, filter);
    }

    internal ProgressTracker Tracker { get; }

    /// <summary>Takes one sample; with those before it, rates and times are told.</summary>
    /// <param name="sink">Warnings where this role is not shown everything.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The operations; none where nothing runs.</returns>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>InvalidName</c>, or the connection's. The next call connects again.</exception>
    public async Task<IReadOnlyList<MigrationProgress>> ReadAsync(IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(sink);
        IReadOnlyList<MigrationProgress> found = await SampleAsync(sink, cancellationToken).ConfigureAwait(false);
        foreach (string warning in Tracker.Warnings)
        {
            sink.Warning(warning);
        }

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
        if ((await SampleAsync(sink, cancellationToken).ConfigureAwait(false)).Count > 0)
        {
            await Task.Delay(s_moment, cancellationToken).ConfigureAwait(false);
        }

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
    public ValueTask DisposeAsync() => CloseAsync();

    /// <summary>As <see cref="ReadAsync"/>, without its warnings.</summary>
    internal async Task<IReadOnlyList<MigrationProgress>> SampleAsync(IOperationSink sink, CancellationToken cancellationToken)
    {
        try
        {
            _connection ??= await _session.OpenAsync("progress", sink, cancellationToken).ConfigureAwait(false);
            return await Tracker.SampleAsync(_connection, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            await CloseAsync().ConfigureAwait(false);
            if (e is OperationCanceledException)
            {
                throw;
            }

            throw ServerErrors.Translate(e, "Reading progress", _filter.Table);
        }
    }

    private async ValueTask CloseAsync()
    {
        await Tracker.DisposeAsync().ConfigureAwait(false);
        if (_connection is { } connection)
        {
            _connection = null;
            await connection.DisposeAsync().ConfigureAwait(false);
        }
    }
}
