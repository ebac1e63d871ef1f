using System.Management.Automation;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Rollback.Proof;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Proves a rollback in a scratch database: migration, rollback, migration again, and the catalog compared.</summary>
[Cmdlet(VerbsDiagnostic.Test, "RollbackScript", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low, DefaultParameterSetName = PathSet)]
[OutputType(typeof(RollbackTestResult), typeof(MigrationJob))]
public sealed class TestRollbackScriptCommand : SessionCmdlet
{
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";

    // One after the other: each makes a database of its own.
    private readonly SemaphoreSlim _turn = new(1);
    private readonly List<Func<IRecordSink, CancellationToken, Task>> _work = [];
    private readonly List<string> _locations = [];

    /// <summary>Migration files; wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PathSet)]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] Path { get; set; } = [];

    /// <summary>Migration files, taken as they are written.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet, ValueFromPipelineByPropertyName = true)]
    [Alias("PSPath")]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>The rollback, from New-RollbackScript.</summary>
    [Parameter(ValueFromPipeline = true)]
    [ValidateNotNull]
    public RollbackScript? RollbackScript { get; set; }

    /// <summary>File with the rollback. Without it the migration's own part is tested, and where it has none, what New-RollbackScript makes of it.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? RollbackPath { get; set; }

    /// <summary>The tool whose files they are; told from the files where nothing is said.</summary>
    [Parameter]
    public MigrationFormat InputFormat { get; set; }

    /// <summary>The database whose schema is copied, a session or a connection text; it is only read. Without it the database of -Session.</summary>
    [Parameter]
    [ValidateNotNull]
    public SessionArgument? From { get; set; }

    /// <summary>A database of the server of -Session that is copied as it is, instead of a schema.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Template { get; set; }

    /// <summary>How many rows of each table are copied, with those that they point to, and looked for after the rollback.</summary>
    [Parameter]
    [Alias("SampleRows")]
    [ValidateRange(0, 100000)]
    public int SampleRow { get; set; }

    /// <summary>Runs in the background and returns a job.</summary>
    [Parameter]
    public SwitchParameter AsJob { get; set; }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        try
        {
            string[] files = ParameterSetName == PathSet ? [.. Path.SelectMany(path => FilePaths.Resolve(this, path))] : [.. LiteralPath.Select(path => FilePaths.Full(this, path))];
            (string? name, string? rollback) = Rollback();
            if (rollback is not null && files.Length > 1)
            {
                throw Invalid("SeveralMigrations", $"One rollback was given, and {files.Length} migrations.", "Test each migration with its own rollback.");
            }

            if (Template is not null && From is not null)
            {
                throw Invalid("TemplateAndFrom", "-Template and -From both say what the scratch database is a copy of.", "Give one of them.");
            }

            foreach (string file in files)
            {
                Test(file, name, rollback);
            }
        }
        catch (MigrationException e)
        {
            WriteError(ErrorRecords.Of(e));
        }
    }

    /// <inheritdoc />
    protected override void EndProcessing()
    {
        base.EndProcessing();
        if (_work.Count > 0)
        {
            StartJob(_work, _locations);
        }
    }

    private (string? Name, string? Text) Rollback()
    {
        if (RollbackPath is null)
        {
            return (RollbackScript?.Path ?? (RollbackScript is null ? null : $"rollback of {RollbackScript.Source}"), RollbackScript?.Text);
        }

        if (RollbackScript is not null)
        {
            throw Invalid("SeveralRollbacks", "-RollbackScript and -RollbackPath were both given.", "Give one of them.");
        }

        string path = FilePaths.Full(this, RollbackPath);
        return (path, SqlFiles.Read(path));
    }

    private void Test(string file, string? name, string? rollback)
    {
        if (Session is { Length: > 1 })
        {
            throw Invalid("SeveralSessions", "The scratch database is made on one server, and -Session names several.", "Call Test-RollbackScript once for each session.");
        }

        try
        {
            MigrationFile migration = MigrationFile.Read(file, InputFormat);
            if (migration.RollbackOf is { } other)
            {
                // Among the files of a folder the rollbacks stand beside their migrations.
                WriteVerbose($"{file} is the rollback of {other}.");
                return;
            }

            EngineSession? session = Sessions().FirstOrDefault();
            EngineSession? from = From is null ? session : Resolve(From);
            if (session is null || from is null || !ShouldProcess($"{session.Info.Server}:{session.Info.Port}", $"Make a scratch database from {Template ?? from.Info.ToString()}, test {file} and its rollback there, and drop it"))
            {
                return;
            }

            RollbackTestRequest request = new() { Migration = migration, Rollback = rollback, RollbackName = name, From = from, Template = Template, SampleRows = SampleRow };
            if (!AsJob)
            {
                WriteObject(Runner.Wait((sink, token) => RollbackTester.RunAsync(session, request, sink, token)));
                return;
            }

            _locations.Add(session.Info.ToString());
            _work.Add(async (sink, token) =>
            {
                await _turn.WaitAsync(token).ConfigureAwait(false);
                try
                {
                    sink.Output(await RollbackTester.RunAsync(session, request, sink, token).ConfigureAwait(false));
                }
                finally
                {
                    _turn.Release();
                }
            });
        }
        catch (MigrationException e)
        {
            WriteError(ErrorRecords.Of(e));
        }
    }

    private static MigrationException Invalid(string id, string message, string advice) => new(id, MigrationErrorKind.InvalidInput, message, advice);
}
