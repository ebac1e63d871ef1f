namespace MigrationSafety.Engine.Execution;

/// <summary>Something that happened in an operation and belongs into its record.</summary>
public abstract record OperationEvent;

/// <summary>A step began (its state is <see cref="StepState.Planned"/> and it has a start) or ended.</summary>
/// <param name="Step">The step as it is now.</param>
public sealed record StepEvent(MigrationStep Step) : OperationEvent;

/// <summary>A look at a progress view of the server.</summary>
/// <param name="Command">Command by the server's name.</param>
/// <param name="Target">What it is about; null where that cannot be seen.</param>
/// <param name="Phase">Phase by the server's name.</param>
/// <param name="Waits">Whether somebody is in the way right now.</param>
/// <param name="Total">Work that is counted in this phase; null where nothing is.</param>
public sealed record PhaseEvent(string? Command, string? Target, string Phase, bool Waits, long? Total) : OperationEvent;

/// <summary>A batch was committed.</summary>
/// <param name="Rows">Rows that it changed.</param>
/// <param name="Time">Time that it took on the server.</param>
public sealed record BatchEvent(long Rows, TimeSpan Time) : OperationEvent;
