using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module.Commands;

/// <summary>Who waits for whom on the server, as a tree.</summary>
[Cmdlet(VerbsCommon.Get, "BlockingLock")]
[OutputType(typeof(BlockingLock))]
public sealed class GetBlockingLockCommand : WatchCmdlet<BlockingLock>
{
    /// <summary>Waits for this table alone, its partitions, indexes and toast included; those in the way come along.</summary>
    [Parameter(Position = 0)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string? Table { get; set; }

    /// <summary>These sessions alone, with those they wait for and those who wait for them.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int[] Pid { get; set; } = [];

    /// <summary>Waits that have lasted as long; those in the way come along.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration MinimumWait { get; set; } = new(TimeSpan.Zero);

    /// <summary>Only those who wait for nobody and hold others up.</summary>
    [Parameter]
    public SwitchParameter RootOnly { get; set; }

    /// <summary>Most characters of a query; 0 for none.</summary>
    [Parameter]
    [ValidateRange(0, 1_000_000)]
    public int IncludeQuery { get; set; } = 1000;

    private protected override string NothingText => "Nobody waits for a lock.";

    private protected override Task<IReadOnlyList<BlockingLock>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        BlockingLockFilter filter = new() { Table = Table, Pids = Pid, MinimumWait = MinimumWait.Value, RootOnly = RootOnly, QueryLength = IncludeQuery };
        return Watch
            ? Answers.WithinAsync(token => BlockingLockReader.ReadAsync(session, filter, sink, token), Answers.Patience(Interval.Value), session, late: null, cancellationToken)
            : BlockingLockReader.ReadAsync(session, filter, sink, cancellationToken);
    }
}
