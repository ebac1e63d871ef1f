using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;

namespace MigrationSafety.Module.Commands;

/// <summary>Who waits for whom on the server, as a tree.</summary>
[Cmdlet(VerbsCommon.Get, "BlockingLock")]
[OutputType(typeof(BlockingLock))]
public sealed class GetBlockingLockCommand : WatchCmdlet<BlockingLock>
{
    private protected override string NothingText => "Nobody waits for a lock.";

    private protected override Task<IReadOnlyList<BlockingLock>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        BlockingLockReader.ReadAsync(session, sink, cancellationToken);
}
