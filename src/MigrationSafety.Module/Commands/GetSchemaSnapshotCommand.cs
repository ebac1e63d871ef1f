using System.Management.Automation;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Schema;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>The schema of a database in canonical form, to keep or to compare.</summary>
[Cmdlet(VerbsCommon.Get, "SchemaSnapshot")]
[OutputType(typeof(SchemaSnapshot))]
public sealed class GetSchemaSnapshotCommand : ReadCmdlet<SchemaSnapshot>
{
    private readonly HashSet<string> _written = [];
    private string? _path;

    /// <summary>File to write it to, as JSON; for several databases a folder, in which each is named after its server and database.</summary>
    [Parameter(Position = 0)]
    [ValidateNotNullOrEmpty]
    public string? OutputPath { get; set; }

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

    /// <summary>Writes over a file that exists.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc />
    protected override void BeginProcessing()
    {
        try
        {
            _path = OutputPath is null ? null : FilePaths.Full(this, OutputPath);
        }
        catch (MigrationException e)
        {
            ThrowTerminatingError(ErrorRecords.Of(e));
        }
    }

    private protected override async Task<IReadOnlyList<SchemaSnapshot>> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        string? path = _path is null ? null : FileFor(session.Info);
        SnapshotFilter filter = new() { Include = IncludeSchema, Exclude = ExcludeSchema };
        SchemaSnapshot snapshot = filter.Of(await SnapshotReader.ReadAsync(session, sink, cancellationToken).ConfigureAwait(false));
        if (path is null)
        {
            return [snapshot];
        }

        try
        {
            if (Path.GetDirectoryName(path) is { Length: > 0 } folder)
            {
                Directory.CreateDirectory(folder);
            }

            SnapshotFile.Write(snapshot, path);
            return [snapshot with { Path = path }];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new MigrationException("OutputNotWritten", MigrationErrorKind.Resource, $"{path} could not be written: {e.Message}", "Check the folder and its permissions.", e) { Target = path };
        }
    }

    /// <summary>The file for a session; sessions are worked on side by side.</summary>
    private string FileFor(MigrationSession session)
    {
        bool folder = Directory.Exists(_path) || OutputPath!.EndsWith('/') || OutputPath.EndsWith('\\');
        string name = string.Concat($"{session.Server}.{session.Port}.{session.Database}.schema.json".Select(c => Path.GetInvalidFileNameChars().Contains(c) ? '_' : c));
        string path = folder ? Path.Combine(_path!, name) : _path!;
        bool free;
        lock (_written)
        {
            free = _written.Add(path);
        }

        return !free
            ? throw new MigrationException(
                "SeveralSnapshots",
                MigrationErrorKind.InvalidInput,
                $"Several snapshots are to be written, and -OutputPath '{OutputPath}' is one file.",
                "Name a folder: -OutputPath ./schemas/.")
            {
                Target = OutputPath,
            }
            : File.Exists(path) && !Force
                ? throw new MigrationException("FileExists", MigrationErrorKind.InvalidInput, $"{path} exists.", "Name another file, or use -Force to write over it.") { Target = path }
                : path;
    }
}
