namespace MigrationSafety;

/// <summary>What every result of a change has: the steps that ran.</summary>
public interface IOperationResult
{
    /// <summary>The steps that ran, with their outcome and their reversals.</summary>
    MigrationStep[] Steps { get; }
}
