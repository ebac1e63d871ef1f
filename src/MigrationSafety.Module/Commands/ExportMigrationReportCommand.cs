using System.Management.Automation;
using System.Text;
using MigrationSafety.Engine.Report;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Writes operations from the history as one HTML file for a change ticket.</summary>
[Cmdlet(VerbsData.Export, "MigrationReport", DefaultParameterSetName = PathSet, SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.Low)]
[OutputType(typeof(void), typeof(FileInfo))]
public sealed class ExportMigrationReportCommand : PSCmdlet
{
    private const string PathSet = "Path";
    private const string LiteralPathSet = "LiteralPath";

    private readonly List<MigrationOperation> _operations = [];
    private string _file = "";

    /// <summary>File to write; wildcards are characters like others.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PathSet)]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>File to write, under the name by which other cmdlets take a path as it is written.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LiteralPathSet)]
    [Alias("PSPath")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>Operations from Get-MigrationHistory, also those that a job or a file returns; all of them go into one report.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true)]
    [ValidateNotNull]
    public PSObject? InputObject { get; set; }

    /// <summary>Title of the report, such as the number of the change.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string Title { get; set; } = "Migration report";

    /// <summary>Writes over a file that exists.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>Returns the file.</summary>
    [Parameter]
    public SwitchParameter PassThru { get; set; }

    /// <inheritdoc />
    protected override void BeginProcessing()
    {
        try
        {
            _file = FilePaths.Full(this, ParameterSetName == PathSet ? Path : LiteralPath);
        }
        catch (MigrationException e)
        {
            ThrowTerminatingError(ErrorRecords.Of(e));
        }

        if (Directory.Exists(_file))
        {
            ThrowTerminatingError(ErrorRecords.Of(new MigrationException(
                "PathIsFolder", MigrationErrorKind.InvalidInput, $"{_file} is a folder.", "Name a file in it, such as change-1234.html.") { Target = _file }));
        }

        if (File.Exists(_file) && !Force)
        {
            // Before the history is read: whoever waits for it should not learn that at the end.
            ThrowTerminatingError(ErrorRecords.Of(new MigrationException(
                "FileExists", MigrationErrorKind.InvalidInput, $"{_file} exists.", "Name another file, or use -Force to write over it.") { Target = _file }));
        }
    }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        // As a parameter it may be several at once.
        foreach (PSObject input in LanguagePrimitives.GetEnumerable(InputObject)?.Cast<object>().Select(PSObject.AsPSObject) ?? [InputObject!])
        {
            try
            {
                _operations.Add(Operation(input));
            }
            catch (MigrationException e)
            {
                WriteError(ErrorRecords.Of(e));
            }
        }
    }

    /// <inheritdoc />
    protected override void EndProcessing()
    {
        if (_operations.Count == 0)
        {
            WriteError(ErrorRecords.Of(new MigrationException(
                "NothingToReport", MigrationErrorKind.NotFound, $"There is no operation to report; {_file} was not written.", "Look what the history holds: Get-MigrationHistory.") { Target = _file }));
            return;
        }

        if (!ShouldProcess(_file, $"Write a report of {_operations.Count} operations"))
        {
            return;
        }

        try
        {
            if (System.IO.Path.GetDirectoryName(_file) is { Length: > 0 } folder)
            {
                Directory.CreateDirectory(folder);
            }

            File.WriteAllText(_file, MigrationReport.Write(Title, _operations, DateTimeOffset.Now), new UTF8Encoding(encoderShouldEmitUTF8Identifier: false));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            ThrowTerminatingError(ErrorRecords.Of(new MigrationException(
                "OutputNotWritten", MigrationErrorKind.Resource, $"{_file} could not be written: {e.Message}", "Check the folder and its permissions.", e) { Target = _file }));
        }

        if (PassThru)
        {
            WriteObject(new FileInfo(_file));
        }
    }

    private static MigrationOperation Operation(PSObject input) => input.BaseObject as MigrationOperation ?? Deserialized.Of<MigrationOperation>(input)
        ?? throw new MigrationException(
            "InputNotUnderstood",
            MigrationErrorKind.InvalidInput,
            $"A {input.BaseObject.GetType().Name} is no operation from the history.",
            "Pipe what Get-MigrationHistory returns; of a result: $result | Get-MigrationHistory | Export-MigrationReport.")
        {
            Target = input.ToString(),
        };
}
