using System.Management.Automation;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Module.Pipeline;

/// <summary>Where work of a cmdlet writes: the pipeline of the cmdlet, or the streams of a job. Calls come from any thread.</summary>
internal interface IRecordSink : IOperationSink
{
    void Output(object value);

    void Error(ErrorRecord record);
}
