namespace MigrationSafety.Engine.Execution;

/// <summary>Something that happened in an operation and belongs into its record.</summary>
public abstract record OperationEvent;

/// <summary>A step began (its state is <see cref="StepState.Planned"/> and it has a start) or ended.</summary>
/// <param name="Step">The step as it is now.</param>
public sealed record StepEvent(MigrationStep Step) : OperationEvent;

/// <summary>A look at a progress view of the server, or the beginning of a wait for a turn.</summary>
/// <param name="Worker">Whose it is, where several work side by side: the pid of the backend; 0 where none does the waiting.</param>
/// <param name="Command">Command by the server's name; null of a wait for a turn.</param>
/// <param name="Target">What it is about; null where that cannot be seen.</param>
/// <param name="Phase">Phase by the server's name.</param>
/// <param name="Waits">Whether somebody is in the way right now.</param>
/// <param name="Total">Work that is counted in this phase; null where nothing is.</param>
public sealed record PhaseEvent(int Worker, string? Command, string? Target, string Phase, bool Waits, long? Total) : OperationEvent;

/// <summary>What a worker was at is over, and nothing that has phases follows at once.</summary>
/// <param name="Worker">As of its <see cref="PhaseEvent"/>s.</param>
public sealed record PhaseEndEvent(int Worker) : OperationEvent;

/// <summary>A batch was committed.</summary>
/// <param name="Rows">Rows that it changed.</param>
/// <param name="Time">Time that it took on the server.</param>
public sealed record BatchEvent(long Rows, TimeSpan Time) : OperationEvent;
