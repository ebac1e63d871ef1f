using System.Management.Automation;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Module.Pipeline;

/// <summary>Something to write on the pipeline thread.</summary>
internal abstract record OperationRecord
{
    internal sealed record Output(object Value) : OperationRecord;

    internal sealed record Error(ErrorRecord Record) : OperationRecord;

    internal sealed record Warning(string Message) : OperationRecord;

    internal sealed record Verbose(string Message) : OperationRecord;

    internal sealed record Debug(string Message) : OperationRecord;

    internal sealed record Progress(ProgressRecord Record) : OperationRecord;

    /// <summary>The last record of a piece of work.</summary>
    internal sealed record Ended(int Id) : OperationRecord;
}

internal static class ProgressRecords
{
    // PowerShell's default bar shows the status alone: who is waited for belongs there, before the numbers.
    internal static ProgressRecord Of(int activityId, OperationProgress progress) => new(
        activityId,
        progress.Activity,
        progress.CurrentOperation is null ? progress.Status : $"{progress.CurrentOperation}; {progress.Status}")
    {
        PercentComplete = progress.Percent is { } percent ? (int)Math.Clamp(percent, 0, 100) : -1,
        SecondsRemaining = progress.Remaining is { } remaining ? (int)Math.Min(remaining.TotalSeconds, int.MaxValue) : -1,
        CurrentOperation = progress.CurrentOperation,
        RecordType = progress.Completed ? ProgressRecordType.Completed : ProgressRecordType.Processing,
    };
}
