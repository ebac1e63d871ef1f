using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>What runs on the server, how far it is, and when it ends, whoever started it.</summary>
[Cmdlet(VerbsCommon.Get, "MigrationProgress")]
[OutputType(typeof(MigrationProgress), typeof(ProgressResult))]
public sealed class GetMigrationProgressCommand : WatchCmdlet<MigrationProgress>
{
    private readonly List<EngineSession> _sessions = [];
    private readonly Dictionary<EngineSession, ProgressReader> _readers = [];
    private SemaphoreSlim? _places;

    /// <summary>Operations on this table and its partitions alone.</summary>
    [Parameter(Position = 0)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string? Table { get; set; }

    /// <summary>The operation of this backend alone.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int? Pid { get; set; }

    /// <summary>Operations of these names alone; wildcards are taken.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(RunningOperationCompleter))]
    public string[]? Operation { get; set; }

    /// <summary>Waits until the operations that run now have ended, with progress records meanwhile, and returns how they ended.</summary>
    [Parameter]
    public SwitchParameter Wait { get; set; }

    private protected override string NothingText => "Nothing runs.";

    private protected override Func<MigrationProgress, bool> Ends => ProgressReader.Ends;

    private protected override string BriefView => "MigrationSafety.MigrationProgress.Brief";

    private protected override bool Repeats => Watch || Wait;

    private ProgressFilter Filter => new() { Table = Table, Pid = Pid, Operations = Operation ?? [] };

    /// <inheritdoc />
    protected override void BeginProcessing()
    {
        base.BeginProcessing();
        if (Watch && Wait)
        {
            ThrowTerminatingError(ErrorRecords.Of(new MigrationException(
                "WatchOrWait",
                MigrationErrorKind.InvalidInput,
                "-Watch and -Wait cannot be given together.",
                "-Watch shows what runs until nothing is left; -Wait waits for it and returns how it ended.")));
        }

        if (Operation?.FirstOrDefault(name => !ProgressFilter.IsKnown(name)) is { } unknown)
        {
            ThrowTerminatingError(ErrorRecords.Of(new MigrationException(
                "OperationUnknown",
                MigrationErrorKind.InvalidInput,
                $"There is no operation {unknown}.",
                $"There are {string.Join(", ", ProgressFilter.Known)}. A pattern is taken as it is: '{unknown}*'.")
            {
                Target = unknown,
            }));
        }
    }

    /// <inheritdoc />
    protected override void ProcessRecord() => _sessions.AddRange(Sessions());

    /// <inheritdoc />
    protected override void EndProcessing()
    {
        _places = new SemaphoreSlim(ThrottleLimit);
        // Only when all are known: sessions with one server see the same operations.
        foreach ((EngineSession session, ProgressFilter filter) in Filter.Shared(_sessions))
        {
            if (Watch)
            {
                _readers[session] = new ProgressReader(session, filter, Answers.Patience(Interval.Value));
                Watched.Add(session);
            }
            else if (Wait)
            {
                // All of them at once, whatever the limit: what ends while nobody looks is in no result.
                Runner.Start((sink, token) => ProgressWait.RunAsync(session, filter, Interval.Value, sink.Output, sink, _places, token), int.MaxValue);
            }
            else
            {
                Runner.Start((sink, token) => ReadOnceAsync(session, filter, sink, token), ThrottleLimit);
            }
        }

        base.EndProcessing();
    }

    private protected override Task<IReadOnlyList<MigrationProgress>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        _readers[session].ReadAsync(sink, cancellationToken);

    private protected override bool IsPartial(EngineSession session) => _readers[session].IsPartial;

    private static async Task ReadOnceAsync(EngineSession session, ProgressFilter filter, IRecordSink sink, CancellationToken cancellationToken)
    {
        await using ProgressReader reader = new(session, filter);
        foreach (MigrationProgress row in await reader.ReadOnceAsync(sink, cancellationToken).ConfigureAwait(false))
        {
            sink.Output(row);
        }
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        // The work that uses them first.
        base.Dispose(disposing);
        _places?.Dispose();
        foreach (ProgressReader reader in _readers.Values)
        {
            reader.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }
}
