using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Progress;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module.Commands;

/// <summary>Index builds and backfills that are running, whoever started them.</summary>
[Cmdlet(VerbsCommon.Get, "MigrationProgress")]
[OutputType(typeof(MigrationProgress))]
public sealed class GetMigrationProgressCommand : ReadCmdlet<MigrationProgress>
{
    /// <summary>Operations on this table alone.</summary>
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
    public string[]? Operation { get; set; }

    private protected override async Task<IReadOnlyList<MigrationProgress>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        await using ProgressReader reader = new(session, new ProgressFilter { Table = Table, Pid = Pid, Operations = Operation ?? [] }, sink);
        return await reader.ReadOnceAsync(cancellationToken).ConfigureAwait(false);
    }
}
