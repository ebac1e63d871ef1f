using System.Collections.Concurrent;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>Keeps what an operation reports.</summary>
internal sealed class RecordingSink : IOperationSink
{
    private readonly ConcurrentQueue<string> _verbose = new();
    private readonly ConcurrentQueue<string> _debug = new();
    private readonly ConcurrentQueue<string> _warnings = new();
    private readonly ConcurrentQueue<OperationProgress> _progress = new();
    private readonly ConcurrentQueue<OperationEvent> _events = new();

    internal IReadOnlyCollection<string> VerboseMessages => _verbose;

    internal IReadOnlyCollection<string> DebugMessages => _debug;

    internal IReadOnlyCollection<string> Warnings => _warnings;

    internal IReadOnlyCollection<OperationProgress> ProgressRecords => _progress;

    internal IReadOnlyCollection<OperationEvent> Events => _events;

    /// <summary>Everything, for a look whether something is in none of it.</summary>
    internal string All => string.Join('\n', [.. _verbose, .. _debug, .. _warnings, .. _progress.Select(p => p.ToString())]);

    public void Verbose(string message) => _verbose.Enqueue(message);

    public void Debug(string message) => _debug.Enqueue(message);

    public void Warning(string message) => _warnings.Enqueue(message);

    public void Progress(OperationProgress progress) => _progress.Enqueue(progress);

    public void Record(OperationEvent happened) => _events.Enqueue(happened);
}
