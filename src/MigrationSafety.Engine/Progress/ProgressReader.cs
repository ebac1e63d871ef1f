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
    private readonly IOperationSink _sink;
    private NpgsqlConnection? _connection;

    /// <summary>Opens nothing yet.</summary>
    /// <param name="session">Session.</param>
    /// <param name="filter">Which operations; an empty filter for all.</param>
    /// <param name="sink">A warning, once, where this role is not shown everything.</param>
    public ProgressReader(EngineSession session, ProgressFilter filter, IOperationSink sink)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(filter);
        ArgumentNullException.ThrowIfNull(sink);
        (_session, _filter, _sink) = (session, filter, sink);
        Tracker = new ProgressTracker(session.Info, filter);
    }

    internal ProgressTracker Tracker { get; }

    /// <summary>Takes one sample; with those before it, rates and times are told.</summary>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The operations; none where nothing runs.</returns>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>InvalidName</c>, or the connection's. The next call connects again.</exception>
    public async Task<IReadOnlyList<MigrationProgress>> ReadAsync(CancellationToken cancellationToken)
    {
        try
        {
            _connection ??= await _session.OpenAsync("progress", _sink, cancellationToken).ConfigureAwait(false);
            return await Tracker.SampleAsync(_connection, _sink, cancellationToken).ConfigureAwait(false);
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

    /// <summary>Takes two samples a moment apart, so that rates can be told; one where nothing runs.</summary>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The operations of the second.</returns>
    /// <exception cref="MigrationException">As <see cref="ReadAsync"/>.</exception>
    public async Task<IReadOnlyList<MigrationProgress>> ReadOnceAsync(CancellationToken cancellationToken)
    {
        IReadOnlyList<MigrationProgress> first = await ReadAsync(cancellationToken).ConfigureAwait(false);
        if (first.Count == 0)
        {
            return first;
        }

        await Task.Delay(s_moment, cancellationToken).ConfigureAwait(false);
        return await ReadAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc />
    public ValueTask DisposeAsync() => CloseAsync();

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
