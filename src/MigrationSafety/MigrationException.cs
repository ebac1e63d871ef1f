namespace MigrationSafety;

/// <summary>Kinds of failure; the cmdlets map each to an ErrorCategory.</summary>
public enum MigrationErrorKind
{
    /// <summary>The input is wrong; nothing was changed.</summary>
    InvalidInput,

    /// <summary>The named object does not exist.</summary>
    NotFound,

    /// <summary>Somebody else is in the way: a lock, another operation.</summary>
    Busy,

    /// <summary>A bound on time was reached.</summary>
    Timeout,

    /// <summary>The server cannot be reached, or the connection was lost.</summary>
    Connection,

    /// <summary>The server refused the login.</summary>
    Authentication,

    /// <summary>The role lacks a privilege.</summary>
    Permission,

    /// <summary>The data contradicts the request (duplicates, a CHECK, a cast).</summary>
    InvalidData,

    /// <summary>The server or the object is of a kind that is not supported here.</summary>
    NotSupported,

    /// <summary>The object is in a state in which this cannot be done.</summary>
    InvalidState,

    /// <summary>The server ran out of something (disk, memory, connections).</summary>
    Resource,

    /// <summary>Stopped by the user.</summary>
    Stopped,

    /// <summary>Any other refusal by the server.</summary>
    Server,
}

/// <summary>A failure that says what was wrong and what to do. The id is stable: FullyQualifiedErrorId begins with it.</summary>
public sealed class MigrationException : Exception
{
    /// <summary>Makes a failure.</summary>
    /// <param name="errorId">Stable id in Pascal case, such as <c>TableNotFound</c>.</param>
    /// <param name="kind">Kind.</param>
    /// <param name="message">What was wrong.</param>
    /// <param name="recommendedAction">What to do next.</param>
    /// <param name="innerException">The cause, where there is one.</param>
    public MigrationException(string errorId, MigrationErrorKind kind, string message, string recommendedAction, Exception? innerException = null)
        : base(message, innerException)
    {
        ErrorId = errorId;
        Kind = kind;
        RecommendedAction = recommendedAction;
    }

    /// <summary>Stable id.</summary>
    public string ErrorId { get; }

    /// <summary>Kind.</summary>
    public MigrationErrorKind Kind { get; }

    /// <summary>What to do next.</summary>
    public string RecommendedAction { get; }

    /// <summary>SQLSTATE of the server's error; null where the failure is not the server's.</summary>
    public string? SqlState { get; init; }

    /// <summary>What the failure is about, such as a table's name; becomes the target object.</summary>
    public string? Target { get; init; }

    /// <summary>Who was in the way, where somebody was.</summary>
    public LockBlocker[] Blockers { get; init; } = [];

    /// <summary>The steps with their outcome up to the failure, where a plan was running.</summary>
    public MigrationStep[] Steps { get; init; } = [];

    /// <summary>Number of the entry in the log of the operation that it ended; null where there is none.</summary>
    internal long? OperationId { get; set; }
}
