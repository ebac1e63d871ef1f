using System.Management.Automation;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Module.Pipeline;

/// <summary>
/// A job for <c>-AsJob</c>: the work of a cmdlet in the background, written to the job's streams. Get-Job, Wait-Job, Receive-Job, Stop-Job and Remove-Job serve it.
/// </summary>
public sealed class MigrationJob : Job, IRecordSink
{
    private const int MostProgress = 100;

    private readonly CancellationTokenSource _stop = new();
    private Task _work = Task.CompletedTask;
    private string _status = "";

    // All work has ended and what it opened is closed; only the state is still to be told. Whoever hears of the state may remove the job at once, on the
    // thread that tells it (Receive-Job -AutoRemoveJob): waiting for that thread there would be for ever.
    private volatile bool _ended;

    internal MigrationJob(string command, string location)
        : base(command)
    {
        PSJobTypeName = "MigrationSafety";
        Location = location;
    }

    /// <inheritdoc />
    public override string Location { get; }

    /// <inheritdoc />
    public override string StatusMessage => _status;

    /// <inheritdoc />
    public override bool HasMoreData =>
        Output.Count > 0 || Error.Count > 0 || Warning.Count > 0 || Verbose.Count > 0 || Debug.Count > 0 || Progress.Count > 0 || Information.Count > 0;

    /// <inheritdoc />
    public override void StopJob()
    {
        if (!_ended)
        {
            _stop.Cancel();
            _work.GetAwaiter().GetResult();
        }
    }

    void IRecordSink.Output(object value) => Output.Add(PSObject.AsPSObject(value));

    void IRecordSink.Error(ErrorRecord record) => Error.Add(record);

    void IOperationSink.Warning(string message) => Warning.Add(new WarningRecord(message));

    void IOperationSink.Verbose(string message) => Verbose.Add(new VerboseRecord(message));

    void IOperationSink.Debug(string message) => Debug.Add(new DebugRecord(message));

    void IOperationSink.Progress(OperationProgress progress)
    {
        // Of several databases, the one that it speaks of.
        string location = progress.Location is null || progress.Location == Location ? "" : $"{progress.Location}: ";
        _status = location + (progress.CurrentOperation is null ? progress.Status : $"{progress.Status}; {progress.CurrentOperation}");
        if (Progress.Count >= MostProgress)
        {
            // Nobody reads how far it was an hour ago.
            Progress.ReadAll();
        }

        Progress.Add(ProgressRecords.Of(InstanceId.GetHashCode() & int.MaxValue, progress));
    }

    /// <summary>Starts the work.</summary>
    /// <param name="work">Pieces of work; each waits for its own turn.</param>
    /// <param name="atEnd">What is to be closed when all has ended.</param>
    internal void Start(IReadOnlyList<Func<IRecordSink, CancellationToken, Task>> work, Func<Task> atEnd)
    {
        SetJobState(JobState.Running);
        _work = RunAsync(work, atEnd);
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            StopJob();
            _stop.Dispose();
        }

        base.Dispose(disposing);
    }

    private async Task RunAsync(IReadOnlyList<Func<IRecordSink, CancellationToken, Task>> work, Func<Task> atEnd)
    {
        bool failed = false;
        async Task OneAsync(Func<IRecordSink, CancellationToken, Task> piece)
        {
            try
            {
                await piece(this, _stop.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                // Stop-Job; the state says so.
            }
            catch (Exception e)
            {
                failed = true;
                Error.Add(ErrorRecords.Of(e));
            }
        }

        try
        {
            await Task.WhenAll(work.Select(OneAsync)).ConfigureAwait(false);
            await atEnd().ConfigureAwait(false);
        }
        catch (Exception e)
        {
            failed = true;
            Error.Add(ErrorRecords.Of(e));
        }

        JobState state = _stop.IsCancellationRequested ? JobState.Stopped : failed ? JobState.Failed : JobState.Completed;
        _ended = true;
        SetJobState(state);
    }
}
