using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Schema;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>How schemas differ: two databases, or a database and a snapshot that was kept.</summary>
[Cmdlet(VerbsData.Compare, "SchemaSnapshot")]
[OutputType(typeof(SchemaDifference))]
public sealed class CompareSchemaSnapshotCommand : ReadCmdlet<SchemaDifference>
{
    private SchemaSnapshot? _reference;

    /// <summary>What it should be like: a snapshot, its file, a session or a connection text.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [ValidateNotNull]
    public SnapshotArgument Reference { get; set; } = null!;

    /// <summary>What is compared with it, in the same forms; without it the databases of -Session.</summary>
    [Parameter(Position = 1)]
    [ValidateNotNullOrEmpty]
    public SnapshotArgument[]? Difference { get; set; }

    /// <summary>Only these schemas; wildcards are allowed.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] IncludeSchema { get; set; } = [];

    /// <summary>Without these schemas; wildcards are allowed.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] ExcludeSchema { get; set; } = [];

    /// <summary>Properties that do not count, such as Owner, Privileges, Position.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] ExcludeProperty { get; set; } = [];

    /// <inheritdoc />
    protected override void BeginProcessing()
    {
        try
        {
            _reference = Take(Reference);
        }
        catch (MigrationException e)
        {
            ThrowTerminatingError(ErrorRecords.Of(e));
        }
    }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        if (Difference is null)
        {
            base.ProcessRecord();
            return;
        }

        foreach (SnapshotArgument side in Difference)
        {
            try
            {
                WriteObject(With(Take(side)), enumerateCollection: true);
            }
            catch (MigrationException e)
            {
                WriteError(ErrorRecords.Of(e));
            }
        }
    }

    private protected override async Task<IReadOnlyList<SchemaDifference>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        With(await SnapshotReader.ReadAsync(session, sink, cancellationToken).ConfigureAwait(false));

    private IReadOnlyList<SchemaDifference> With(SchemaSnapshot side)
    {
        SnapshotFilter filter = new() { Include = IncludeSchema, Exclude = ExcludeSchema };
        return SnapshotComparer.Compare(filter.Of(_reference!), filter.Of(side), ExcludeProperty);
    }

    private SchemaSnapshot Take(SnapshotArgument argument)
    {
        if (argument.Snapshot is { } snapshot)
        {
            return snapshot;
        }

        if (argument.Path is { } path)
        {
            return SnapshotFile.Read(FilePaths.Full(this, path));
        }

        EngineSession session = Resolve(argument.Session) ?? throw new MigrationException(
            "NotConnected", MigrationErrorKind.Connection, $"{argument} could not be connected before.", "Mend what the first error says.");
        return Runner.Wait((sink, token) => SnapshotReader.ReadAsync(session, sink, token));
    }
}
