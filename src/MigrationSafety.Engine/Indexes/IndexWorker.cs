using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Indexes;

/// <summary>
/// The connection that works on the indexes of one table: it holds the table's operation lock, runs the CONCURRENTLY statements with somebody who watches them,
/// and is left behind, not awaited, when the network is lost.
/// </summary>
internal sealed class IndexWorker : IAsyncDisposable
{
    private readonly EngineSession _session;
    private readonly ExecutionOptions _options;
    private readonly TimeSpan _silence;
    private readonly IOperationSink _sink;
    private readonly int _pid;
    private TableReference? _locked;
    private Task? _abandoned;

    private IndexWorker(EngineSession session, ExecutionOptions options, TimeSpan silence, IOperationSink sink, NpgsqlConnection connection)
    {
        _session = session;
        _options = options;
        _silence = silence;
        _sink = sink;
        Connection = connection;
        _pid = connection.ProcessID;
    }

    /// <summary>For questions between the steps; nothing but <see cref="RunAsync"/> may be under way on it meanwhile.</summary>
    internal NpgsqlConnection Connection { get; }

    /// <summary>Opens the connection.</summary>
    /// <param name="session">Session.</param>
    /// <param name="operation">Short name, as in application_name.</param>
    /// <param name="options">Bounds for the steps.</param>
    /// <param name="silence">How long the server may say nothing before the network counts as lost.</param>
    /// <param name="sink">Progress, waits.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<IndexWorker> OpenAsync(
        EngineSession session, string operation, ExecutionOptions options, TimeSpan silence, IOperationSink sink, CancellationToken cancellationToken) =>
        new(session, options, silence, sink, await session.OpenAsync(operation, sink, cancellationToken).ConfigureAwait(false));

    /// <summary>Takes the operation lock of a table, once; waits for another operation as long as <see cref="ExecutionOptions.WaitFor"/> allows.</summary>
    /// <exception cref="MigrationException"><c>TableBusy</c>.</exception>
    internal async Task LockAsync(TableReference table, CancellationToken cancellationToken)
    {
        await TableOperationLock.TakeAsync(Connection, table, _options.WaitFor ?? TimeSpan.MaxValue, _sink, cancellationToken).ConfigureAwait(false);
        _locked = table;
    }

    /// <summary>
    /// Bounds how long a question to the catalog waits behind somebody's ACCESS EXCLUSIVE lock: sizes and definitions ask for ACCESS SHARE. A step sets its own bound.
    /// </summary>
    internal Task BoundReadsAsync(CancellationToken cancellationToken) => CatalogReads.BoundAsync(Connection, cancellationToken);

    /// <summary>Runs a CONCURRENTLY statement, telling how far it is and whom it waits for.</summary>
    /// <param name="step">Step.</param>
    /// <param name="activity">What the progress bar says: <c>Building index public.orders_tier_idx</c>.</param>
    /// <param name="cancellationToken">Cancels on the server.</param>
    /// <param name="waitFor">What is left of <see cref="ExecutionOptions.WaitFor"/>, where some of it is used up; null for all of it.</param>
    /// <returns>The step with its outcome.</returns>
    /// <exception cref="MigrationException">
    /// It failed; <see cref="MigrationException.Steps"/> holds the step with its outcome. <c>ConnectionLost</c> where the network is silent: the server may go on.
    /// </exception>
    internal async Task<MigrationStep> RunAsync(MigrationStep step, string activity, CancellationToken cancellationToken, TimeSpan? waitFor = null)
    {
        await using IndexBuildWatcher watcher = IndexBuildWatcher.Start(_session, _sink, activity, Connection.ProcessID, _silence, cancellationToken);
        Task<MigrationStep> running = ExecuteAsync(step, _options with { WaitFor = waitFor ?? _options.WaitFor }, cancellationToken);
        if (await Task.WhenAny(running, watcher.Lost).ConfigureAwait(false) == running)
        {
            return await running.ConfigureAwait(false);
        }

        _abandoned = running;
        cancellationToken.ThrowIfCancellationRequested();
        throw new MigrationException(
            "ConnectionLost",
            MigrationErrorKind.Connection,
            $"{step.Purpose}: the server has not answered for {Durations.Text(_silence)}; the connection counts as lost.",
            "Check the network and that the server runs, then run the command again: it goes on where it was.")
        {
            Target = step.Objects.FirstOrDefault(),
            Steps = [step with { State = StepState.Failed, Attempts = 1 }],
        };
    }

    public async ValueTask DisposeAsync()
    {
        _sink.Record(new PhaseEndEvent(_pid));
        if (_abandoned is { } running)
        {
            _ = CloseAfterAsync(running);
        }
        else
        {
            await CloseAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Gives the operation lock of a table back where the connection still lives.</summary>
    internal static async Task ReleaseAsync(NpgsqlConnection connection, TableReference table)
    {
        if (connection.State != System.Data.ConnectionState.Open)
        {
            return;
        }

        try
        {
            await TableOperationLock.ReleaseAsync(connection, table).ConfigureAwait(false);
        }
        catch (NpgsqlException)
        {
            // The connection broke: its end releases the lock, and what broke it is on its way to the caller already.
        }
    }

    private async Task<MigrationStep> ExecuteAsync(MigrationStep step, ExecutionOptions options, CancellationToken cancellationToken)
    {
        await using StepExecutor executor = await StepExecutor.OpenAsync(_session, options, _sink, cancellationToken).ConfigureAwait(false);
        return await executor.RunAsync(Connection, step, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Closes what was left behind when it comes to an end: the network came back, or the system gave the connection up.</summary>
    private async Task CloseAfterAsync(Task running)
    {
        await running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await CloseAsync().ConfigureAwait(false);
    }

    private async Task CloseAsync()
    {
        if (_locked is not null)
        {
            await ReleaseAsync(Connection, _locked).ConfigureAwait(false);
        }

        await Connection.DisposeAsync().ConfigureAwait(false);
    }
}
