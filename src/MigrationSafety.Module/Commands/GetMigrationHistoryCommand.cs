using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>What this module did to a database: the log of its operations.</summary>
[Cmdlet(VerbsCommon.Get, "MigrationHistory")]
[OutputType(typeof(MigrationOperation))]
public sealed class GetMigrationHistoryCommand : FleetCmdlet
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

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        // One by one: each result that is piped in stands for its own entry.
        foreach (SessionArgument? argument in Session is { Length: > 0 } given ? given : new SessionArgument?[] { null })
        {
            Session = argument is null ? null : [argument];
            try
            {
                HistoryFilter filter = Filter(argument);
                foreach (EngineSession session in Sessions())
                {
                    Runner.Start((sink, token) => ReadAsync(session, filter, sink, token), ThrottleLimit);
                }
            }
            catch (MigrationException e)
            {
                WriteError(ErrorRecords.Of(e));
            }
        }
    }

    private static async Task ReadAsync(EngineSession session, HistoryFilter filter, IRecordSink sink, CancellationToken cancellationToken)
    {
        IReadOnlyList<MigrationOperation> found = await HistoryReader.ReadAsync(session, filter, sink, cancellationToken).ConfigureAwait(false);
        foreach (MigrationOperation operation in found)
        {
            sink.Output(operation);
        }

        await HistoryCheck.RunAsync(session, filter, found, sink, cancellationToken).ConfigureAwait(false);
    }

    private HistoryFilter Filter(SessionArgument? argument) => new()
    {
        Table = Table,
        Operation = Operation,
        Outcome = Outcome,
        Since = Since,
        Until = Until,
        Last = Last,
        Id = argument is not { IsOperation: true } || Id.Length > 0 ? Id : [argument.OperationId ?? throw new MigrationException(
            "NotRecorded",
            MigrationErrorKind.NotFound,
            "The operation of this result could not be recorded: it has no entry in the history.",
            "A warning said why when it ran. New-RollbackScript takes the result itself.")],
    };
}
