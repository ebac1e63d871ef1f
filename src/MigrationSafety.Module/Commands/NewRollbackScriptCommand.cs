using System.Globalization;
using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Rollback.Writing;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Makes the script that takes a migration back: from its file, or from the results of the cmdlets that ran it.</summary>
[Cmdlet(VerbsCommon.New, "RollbackScript", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low, DefaultParameterSetName = PathSet)]
[OutputType(typeof(RollbackScript))]
public sealed class NewRollbackScriptCommand : SessionCmdlet
{
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";
    private const string InputObjectSet = "InputObject";
    private const string SqlSet = "Sql";

    // Results that are piped together are one migration: their script is made when all are known.
    private readonly List<(string Server, int Port, string Database, string What, MigrationStep[] Steps, MigrationOperation? Operation)> _results = [];
    private readonly List<(RollbackScript Script, MigrationFile? File)> _scripts = [];
    private readonly HashSet<string> _written = [];

    /// <summary>Migration files; wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PathSet)]
    [ValidateNotNullOrEmpty]
    [SupportsWildcards]
    public string[] Path { get; set; } = [];

    /// <summary>Migration files, taken as they are written.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet)]
    [Alias("PSPath")]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>Results of Invoke-SafeIndexBuild and Start-Backfill, backfills from Get-Backfill, operations from Get-MigrationHistory, steps, or files from Get-ChildItem.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = InputObjectSet)]
    [ValidateNotNull]
    public PSObject? InputObject { get; set; }

    // Not from the pipeline: a step has a property of the name.
    /// <summary>The migration's statements as text, as they stand in a runbook or a ticket.</summary>
    [Parameter(Mandatory = true, ParameterSetName = SqlSet)]
    [ValidateNotNullOrEmpty]
    public string? Sql { get; set; }

    /// <summary>The tool that the migration files are of; by default told from their marks, names and folders.</summary>
    [Parameter]
    public MigrationFormat InputFormat { get; set; } = MigrationFormat.Auto;

    /// <summary>The layout of text and files: a script for psql, or the files of a migration tool.</summary>
    [Parameter]
    public RollbackFormat Format { get; set; }

    /// <summary>File to write; for several scripts a folder, in which each is named after its migration, as its layout wants it.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? OutputPath { get; set; }

    /// <summary>Keeps what the migration would lose in the schema migration_safety, with a script to run before it, and brings it back with the rollback. Needs a session.</summary>
    [Parameter]
    public SwitchParameter PreserveData { get; set; }

    /// <summary>Writes over a file that exists.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        try
        {
            switch (ParameterSetName)
            {
                case PathSet:
                    foreach (string path in Path)
                    {
                        FromFiles(FilePaths.Resolve(this, path), named: !WildcardPattern.ContainsWildcardCharacters(path));
                    }

                    break;
                case LiteralPathSet:
                    FromFiles(LiteralPath.Select(path => FilePaths.Full(this, path)), named: true);
                    break;
                case SqlSet:
                    FromSql(Sql!);
                    break;
                default:
                    Take(InputObject!);
                    break;
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
        foreach (var database in _results.GroupBy(result => (result.Server, result.Port, result.Database)))
        {
            // Of the log it is known which came first, however they were sorted or read; results are taken in their order.
            var ordered = database.All(result => result.Operation is not null) ? HistoryReader.InOrder(database, result => result.Operation!) : [.. database];
            string source = string.Join(", ", ordered.Select(result => result.What));
            RollbackScript script = RollbackGenerator.FromSteps(source, [.. ordered.SelectMany(result => result.Steps)]);
            _scripts.Add((script, null));
            // It would run without a word.
            if (script.Statements.Where(statement => statement.Reversibility is Reversibility.Unknown or Reversibility.Irreversible).ToArray() is [var first, ..] left)
            {
                WriteWarning($"{source}: {left.Length} statement{(left.Length == 1 ? " is" : "s are")} not taken back by the script, which has {(left.Length == 1 ? "it" : "them")} as a comment: {first.Note}");
            }
        }

        foreach ((RollbackScript script, MigrationFile? file) in _scripts)
        {
            try
            {
                RollbackLayout layout = RollbackLayouts.Of(script, file, Format);
                foreach (string warning in layout.Warnings)
                {
                    WriteWarning(warning);
                }

                RollbackScript made = script with { Format = Format, Text = layout.Files[0].Text, Warnings = [.. script.Warnings, .. layout.Warnings] };
                WriteObject(OutputPath is null ? made : Save(made, layout));
            }
            catch (Exception e) when (e is MigrationException or IOException or UnauthorizedAccessException)
            {
                WriteError(ErrorRecords.Of(e is MigrationException ? e : NotWritten(e)));
            }
        }
    }

    /// <summary>001_add.down.sql has 001_add.before.sql beside it.</summary>
    private static string BeforeName(string path)
    {
        string name = path.EndsWith(".sql", StringComparison.OrdinalIgnoreCase) ? path[..^4] : path;
        return (name.EndsWith(".down", StringComparison.OrdinalIgnoreCase) ? name[..^5] : name) + ".before.sql";
    }

    private MigrationException NotWritten(Exception e) => new(
        "OutputNotWritten",
        MigrationErrorKind.Resource,
        $"{OutputPath} could not be written: {e.Message}",
        "Check the folder and its permissions.",
        e)
    {
        Target = OutputPath,
    };

    private void Take(PSObject input)
    {
        switch (Deserialized.Of<MigrationOperation>(input) ?? input.BaseObject)
        {
            case IndexBuildResult index:
                _results.Add((index.Server, index.Port, index.Database, $"index {index.Schema}.{index.Name}", index.Steps, null));
                break;
            case IndexRebuildResult index:
                _results.Add((index.Server, index.Port, index.Database, $"rebuild of index {index.Schema}.{index.Name}", index.Steps, null));
                break;
            case IndexDropResult index:
                _results.Add((index.Server, index.Port, index.Database, $"drop of index {index.Schema}.{index.Name}", index.Steps, null));
                break;
            case BackfillResult backfill:
                _results.Add((backfill.Server, backfill.Port, backfill.Database, $"backfill {backfill.Name}", [.. backfill.Steps.Select(step => Named(step, backfill.Name, $"{backfill.Schema}.{backfill.Table}", backfill.TotalRows))], null));
                break;
            case BackfillStatus { Origin: { } origin } backfill:
                MigrationStep recorded = Runner.Wait((sink, token) => BackfillControl.StepAsync(EngineSession.Of(origin), backfill.Name, sink, token));
                _results.Add((backfill.Server, backfill.Port, backfill.Database, $"backfill {backfill.Name}", [Named(recorded, backfill.Name, $"{backfill.Schema}.{backfill.Table}", backfill.Done)], null));
                break;
            case MigrationOperation operation:
                _results.Add((operation.Server, operation.Port, operation.Database, $"operation {operation.Id} ({operation.Action})", operation.Steps, operation));
                break;
            case MigrationStep step:
                _results.Add(("", 0, "", step.Purpose, [step], null));
                break;
            case FileInfo file:
                FromFiles([file.FullName], named: false);
                break;
            case string path:
                FromFiles(FilePaths.Resolve(this, path), named: !WildcardPattern.ContainsWildcardCharacters(path));
                break;
            default:
                throw new MigrationException(
                    "InputNotUnderstood",
                    MigrationErrorKind.InvalidInput,
                    $"A {input.BaseObject.GetType().Name} is neither a result of this module nor a file.",
                    "Pipe results of Invoke-SafeIndexBuild and Start-Backfill, their Steps, what Get-Backfill returns, or files from Get-ChildItem. Results that went through a file or another process have lost their type; what Get-MigrationHistory returns has not.")
                {
                    Target = input.ToString(),
                };
        }
    }

    /// <summary>The step of a backfill with what its statement, which is that of one batch, does not say.</summary>
    private static MigrationStep Named(MigrationStep step, string name, string table, long rows) => step.Cost != StepCost.UpdatesRows
        ? step
        : step with { Purpose = string.Create(CultureInfo.InvariantCulture, $"backfill {name} of {table}, {rows:N0} rows done: {step.Purpose}") };

    /// <summary>Makes the rollbacks of files. One that is itself a rollback is passed over, but where the user has named it.</summary>
    private void FromFiles(IEnumerable<string> files, bool named)
    {
        foreach (string path in files)
        {
            MigrationFile file = MigrationFile.Read(path, InputFormat);
            if (file.RollbackOf is { } migration)
            {
                if (named)
                {
                    throw new MigrationException(
                        "IsRollback",
                        MigrationErrorKind.InvalidInput,
                        $"{file.Name} is the rollback of {System.IO.Path.GetFileName(migration)}, not a migration.",
                        $"Name {migration}: its rollback is made, and this file is held against it.")
                    {
                        Target = path,
                    };
                }

                WriteVerbose($"{file.Name} is the rollback of {System.IO.Path.GetFileName(migration)}, and is held against it there.");
                continue;
            }

            if (!TryCatalog(path, out EngineSession? session))
            {
                return;
            }

            Add(file, file, session);
        }
    }

    private void FromSql(string sql)
    {
        MigrationFile text = MigrationFile.OfText("SQL text", sql, InputFormat);
        if (TryCatalog(text.Name, out EngineSession? session))
        {
            // Beside a text lies nothing: it is written as results are.
            Add(text, null, session);
        }
    }

    private void Add(MigrationFile migration, MigrationFile? file, EngineSession? session)
    {
        RollbackScript script = session is null
            ? RollbackGenerator.FromFile(migration)
            : Runner.Wait((sink, token) => RollbackGenerator.FromFileAsync(session, migration, PreserveData, sink, token));
        _scripts.Add((script, file));
        foreach (string warning in script.Warnings)
        {
            WriteWarning(warning.StartsWith(script.Source, StringComparison.Ordinal) ? warning : $"{script.Source}: {warning}");
        }

        if (script.Differences.Length > 0)
        {
            WriteWarning($"{script.Source}: the rollback that it has differs from this one in {script.Differences.Length} point{(script.Differences.Length == 1 ? "" : "s")}: see Differences.");
        }
    }

    /// <summary>
    /// The session whose catalog is asked: one that was given, or the current one. The environment alone is not enough: a text needs no server.
    /// </summary>
    /// <param name="target">What is to be taken back, for errors.</param>
    /// <param name="session">The session; null for none.</param>
    /// <returns>False where one was asked for and could not be had. Its error has been written; a rollback guessed from the text is not what was asked for.</returns>
    private bool TryCatalog(string target, out EngineSession? session)
    {
        session = null;
        if (Session is { Length: > 1 })
        {
            throw new MigrationException(
                "SeveralSessions",
                MigrationErrorKind.InvalidInput,
                "A rollback is made from the catalog of one database, and -Session names several.",
                "Call New-RollbackScript once for each session.");
        }

        if (Session is not null || RunspaceSessions.Here.Current is not null)
        {
            session = Sessions().FirstOrDefault();
            return session is not null;
        }

        return PreserveData
            ? throw new MigrationException(
                "NoSession",
                MigrationErrorKind.InvalidInput,
                "-PreserveData asks the catalog what would be lost, and there is no session.",
                "Connect to the database of the migration, before it runs: Connect-MigrationDatabase, or -Session.")
            {
                Target = target,
            }
            : true;
    }

    private RollbackScript Save(RollbackScript script, RollbackLayout layout)
    {
        string[] own = [.. Paths(layout)];
        string? before = script.BeforeText is null ? null : BeforeName(own[0]);
        string[] paths = before is null ? own : [.. own, before];
        string? taken = paths.FirstOrDefault(path => !_written.Add(path) || (File.Exists(path) && !Force));
        if (taken is not null)
        {
            throw new MigrationException(
                "FileExists",
                MigrationErrorKind.InvalidInput,
                $"{taken} exists.",
                Format is RollbackFormat.Dbmate or RollbackFormat.Goose or RollbackFormat.Liquibase
                    ? $"A file of {Format} holds both ways: -Force writes it anew with its up part as it is and its down part replaced. Or name another folder."
                    : "Name another file, or use -Force to write over a file of an earlier call.")
            {
                Target = taken,
            };
        }

        if (!ShouldProcess(string.Join(", ", paths), "Write rollback script"))
        {
            return script;
        }

        foreach ((string path, string text) in paths.Zip([.. layout.Files.Select(file => file.Text), .. before is null ? Array.Empty<string>() : [script.BeforeText!]]))
        {
            if (System.IO.Path.GetDirectoryName(path) is { Length: > 0 } folder)
            {
                Directory.CreateDirectory(folder);
            }

            // A file with the migration in it is whole at any moment.
            string whole = path + ".new";
            File.WriteAllText(whole, text);
            if (!OperatingSystem.IsWindows() && File.Exists(path))
            {
                File.SetUnixFileMode(whole, File.GetUnixFileMode(path));
            }

            File.Move(whole, path, overwrite: true);
        }

        return script with { Path = own[0], Files = own, BeforePath = before };
    }

    /// <summary>Where the files of a layout go.</summary>
    private IEnumerable<string> Paths(RollbackLayout layout)
    {
        string path = FilePaths.Full(this, OutputPath!);
        if (Directory.Exists(path) || OutputPath!.EndsWith('/') || OutputPath.EndsWith('\\'))
        {
            // ./revert/ and the folder above it are both meant as Sqitch's.
            string full = System.IO.Path.TrimEndingDirectorySeparator(path);
            string root = Format == RollbackFormat.Sqitch && System.IO.Path.GetFileName(full) == "revert" ? System.IO.Path.GetDirectoryName(full)! : full;
            return layout.Files.Select(file => System.IO.Path.Combine(root, file.Name.Replace('/', System.IO.Path.DirectorySeparatorChar)));
        }

        if (_scripts.Count > 1)
        {
            throw new MigrationException(
                "SeveralScripts",
                MigrationErrorKind.InvalidInput,
                $"There are {_scripts.Count} scripts to write, and -OutputPath '{OutputPath}' is one file.",
                "Name a folder: -OutputPath ./rollback/.")
            {
                Target = OutputPath,
            };
        }

        string beside = System.IO.Path.GetDirectoryName(path) ?? "";
        return layout.Files.Select((file, i) => i == 0 ? path
            : file.Name == layout.Files[0].Name + ".conf" ? path + ".conf"
            : System.IO.Path.Combine(beside, System.IO.Path.GetFileName(file.Name)));
    }
}
