using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Indexes;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Completion;

namespace MigrationSafety.Module.Commands;

/// <summary>Indexes that are not valid: why, what they cost, what repairs them.</summary>
[Cmdlet(VerbsCommon.Get, "InvalidIndex")]
[OutputType(typeof(InvalidIndex))]
public sealed class GetInvalidIndexCommand : ReadCmdlet<InvalidIndex>
{
    /// <summary>Indexes of this table alone, its toast table included.</summary>
    [Parameter(Position = 0)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(TableNameCompleter))]
    public string? Table { get; set; }

    /// <summary>Indexes of this schema alone; with <see cref="Table"/>, the schema of the table.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(SchemaNameCompleter))]
    public string? Schema { get; set; }

    private protected override Task<IReadOnlyList<InvalidIndex>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        InvalidIndexReader.ReadAsync(session, Table, Schema, sink, cancellationToken);
}
