namespace MigrationSafety;

/// <summary>How <c>Stop-BlockingSession</c> takes a session out of the way.</summary>
public enum BlockingSessionMode
{
    /// <summary>Cancels the statement that runs (<c>pg_cancel_backend</c>); the session stays.</summary>
    Cancel,

    /// <summary>Ends the session (<c>pg_terminate_backend</c>).</summary>
    Terminate,

    /// <summary>Cancels, waits for the grace period, and ends the session where that did not help.</summary>
    Escalate,
}

/// <summary>What became of a session that was to be taken out of the way.</summary>
public enum BlockingSessionOutcome
{
    /// <summary>It is out of the way: nobody waits for it any more.</summary>
    Freed,

    /// <summary>It had ended before.</summary>
    Gone,

    /// <summary>The server took the request, and it is still in the way.</summary>
    StillBlocking,

    /// <summary>Nothing was done; <see cref="BlockingSessionResult.Note"/> says why and what would help.</summary>
    NotStopped,
}

/// <summary>What <c>Stop-BlockingSession</c> did about a session, and what came of it.</summary>
public sealed record BlockingSessionResult
{
    /// <summary>Process id; 0 for a prepared transaction.</summary>
    public int Pid { get; init; }

    /// <summary>Global identifier of a prepared transaction; else null.</summary>
    public string? Gid { get; init; }

    /// <summary>What came of it.</summary>
    public BlockingSessionOutcome Outcome { get; init; }

    /// <summary>What was sent to the server, in order; empty where nothing was.</summary>
    public string[] Statement { get; init; } = [];

    /// <summary>From the first request until it was out of the way, or until waiting for that was given up.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>The session, or the prepared transaction, is there no more. A statement that was cancelled leaves its session.</summary>
    public bool Ended { get; init; }

    /// <summary>Process ids of those that waited for it and now wait for nobody, or only for others of them.</summary>
    public int[] FreedPid { get; init; } = [];

    /// <summary>What else is to be known: why nothing was done, what would help.</summary>
    public string? Note { get; init; }

    /// <summary>Role.</summary>
    public string? User { get; init; }

    /// <summary>application_name.</summary>
    public string? Application { get; init; }

    /// <summary>Query, as it was before.</summary>
    public string? Query { get; init; }

    /// <summary>When the backend started; with the pid it names a session for good.</summary>
    public DateTimeOffset? BackendStart { get; init; }

    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Port of the server.</summary>
    public required int Port { get; init; }

    /// <summary>Database of the session.</summary>
    public string? Database { get; init; }
}
