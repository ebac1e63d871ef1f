using System.Collections.Concurrent;
using System.Management.Automation;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Module.Pipeline;

/// <summary>
/// Runs asynchronous work for a cmdlet and writes what it reports on the pipeline thread. Used on that thread alone; the work may run on any.
/// </summary>
internal sealed class WorkRunner : IDisposable
{
    private readonly PSCmdlet _cmdlet;
    private readonly CancellationTokenSource _stop = new();
    private readonly BlockingCollection<OperationRecord> _records = [];
    private readonly Dictionary<int, Task> _running = [];
    private int _lastId;

    internal WorkRunner(PSCmdlet cmdlet) => _cmdlet = cmdlet;

    /// <summary>Cancels all work: Ctrl-C, or a downstream command that wants no more. May be called from any thread.</summary>
    internal void Cancel()
    {
        // Not awaited: on a dead network the request to cancel takes its time, and whoever pressed Ctrl-C must not wait for it.
        _ = _stop.CancelAsync();
    }

    /// <summary>Starts work; first waits, writing what comes, until fewer than <paramref name="limit"/> pieces run.</summary>
    internal void Start(Func<IRecordSink, CancellationToken, Task> work, int limit)
    {
        WriteWhile(() => _running.Count >= limit);
        Begin(work);
        WriteWhile(() => _records.Count > 0);
    }

    /// <summary>Runs one piece of work to its end, writing what comes, and returns its result; its failure is thrown here.</summary>
    internal T Wait<T>(Func<IOperationSink, CancellationToken, Task<T>> work)
    {
        T? result = default;
        Exception? failure = null;
        int id = Begin(async (sink, token) =>
        {
            try
            {
                result = await work(sink, token).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        WriteWhile(() => _running.ContainsKey(id));
        return failure switch
        {
            null => result!,
            OperationCanceledException => throw new PipelineStoppedException(),
            MigrationException => throw failure,
            _ => throw new InvalidOperationException(failure.Message, failure),
        };
    }

    /// <summary>Writes what comes until all work has ended.</summary>
    internal void WaitForAll() => WriteWhile(() => _running.Count > 0 || _records.Count > 0);

    public void Dispose()
    {
        // Work that is still running here was left by an exception on the pipeline thread: it is stopped on the server, then awaited.
        _stop.Cancel();
        Task.WhenAll(_running.Values).GetAwaiter().GetResult();
        while (_records.TryTake(out OperationRecord? record))
        {
            // The pipeline takes nothing more; what is left behind on the server must be said all the same.
            if (record is OperationRecord.Warning or OperationRecord.Error)
            {
                _cmdlet.Host.UI.WriteWarningLine(record is OperationRecord.Warning warning ? warning.Message : ((OperationRecord.Error)record).Record.ToString());
            }
        }

        _stop.Dispose();
        _records.Dispose();
    }

    private int Begin(Func<IRecordSink, CancellationToken, Task> work)
    {
        int id = ++_lastId;
        _running.Add(id, RunAsync(work, new QueueSink(_records, id)));
        return id;
    }

    private async Task RunAsync(Func<IRecordSink, CancellationToken, Task> work, QueueSink sink)
    {
        try
        {
            await work(sink, _stop.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            // The pipeline is being stopped; PowerShell says so itself.
        }
        catch (Exception e)
        {
            sink.Error(ErrorRecords.Of(e));
        }
        finally
        {
            sink.EndProgress();
            _records.Add(new OperationRecord.Ended(sink.Id));
        }
    }

    private void WriteWhile(Func<bool> condition)
    {
        while (condition())
        {
            OperationRecord record = _records.Take();
            if (record is OperationRecord.Ended ended)
            {
                _running.Remove(ended.Id);
            }
            else
            {
                Write(record);
            }
        }
    }

    private void Write(OperationRecord record)
    {
        try
        {
            switch (record)
            {
                case OperationRecord.Output output:
                    _cmdlet.WriteObject(output.Value);
                    break;
                case OperationRecord.Error error:
                    _cmdlet.WriteError(error.Record);
                    break;
                case OperationRecord.Warning warning when _stop.IsCancellationRequested:
                    // A pipeline that is being stopped takes no warning any more; what is left behind must be said all the same.
                    _cmdlet.Host.UI.WriteWarningLine(warning.Message);
                    break;
                case OperationRecord.Warning warning:
                    _cmdlet.WriteWarning(warning.Message);
                    break;
                case OperationRecord.Verbose verbose:
                    _cmdlet.WriteVerbose(verbose.Message);
                    break;
                case OperationRecord.Debug debug:
                    _cmdlet.WriteDebug(debug.Message);
                    break;
                case OperationRecord.Progress progress:
                    _cmdlet.WriteProgress(progress.Record);
                    break;
            }
        }
        catch (PipelineStoppedException) when (_stop.IsCancellationRequested)
        {
            // Already stopping: go on reading until the work has ended on the server.
        }
    }

    private sealed class QueueSink(BlockingCollection<OperationRecord> records, int id) : IRecordSink
    {
        private ProgressRecord? _last;

        internal int Id => id;

        public void Output(object value) => records.Add(new OperationRecord.Output(value));

        public void Error(ErrorRecord record) => records.Add(new OperationRecord.Error(record));

        public void Warning(string message) => records.Add(new OperationRecord.Warning(message));

        public void Verbose(string message) => records.Add(new OperationRecord.Verbose(message));

        public void Debug(string message) => records.Add(new OperationRecord.Debug(message));

        public void Progress(OperationProgress progress)
        {
            _last = ProgressRecords.Of(id, progress);
            records.Add(new OperationRecord.Progress(_last));
        }

        /// <summary>Takes the bar off the screen, however the work ended.</summary>
        internal void EndProgress()
        {
            if (_last is { RecordType: ProgressRecordType.Processing })
            {
                records.Add(new OperationRecord.Progress(new ProgressRecord(id, _last.Activity, _last.StatusDescription) { RecordType = ProgressRecordType.Completed }));
            }
        }
    }
}
