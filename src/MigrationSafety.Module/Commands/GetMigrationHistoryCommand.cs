using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module.Commands;

/// <summary>What this module did to a database: the log of its operations.</summary>
[Cmdlet(VerbsCommon.Get, "MigrationHistory")]
[OutputType(typeof(MigrationOperation))]
public sealed class GetMigrationHistoryCommand : ReadCmdlet<MigrationOperation>
{
    /// <summary>Operations on this table alone; it need not be there any more.</summary>
    [Parameter(Position = 0)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string? Table { get; set; }

    /// <summary>Kinds of operation, such as IndexBuild.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(OperationCompleter))]
    public string[] Operation { get; set; } = [];

    /// <summary>Outcomes.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public OperationOutcome[] Outcome { get; set; } = [];

    /// <summary>Those that began then or later.</summary>
    [Parameter]
    public DateTimeOffset? Since { get; set; }

    /// <summary>Those that began then or before.</summary>
    [Parameter]
    public DateTimeOffset? Until { get; set; }

    /// <summary>The latest of those that remain.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int? Last { get; set; }

    /// <summary>Numbers in the log.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [ValidateRange(1, long.MaxValue)]
    public long[] Id { get; set; } = [];

    private protected override Task<IReadOnlyList<MigrationOperation>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) => HistoryReader.ReadAsync(
        session,
        new HistoryFilter { Table = Table, Operation = Operation, Outcome = Outcome, Since = Since, Until = Until, Last = Last, Id = Id },
        sink,
        cancellationToken);
}
