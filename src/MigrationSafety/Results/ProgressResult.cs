namespace MigrationSafety;

/// <summary>How an operation ended, as far as the server can prove it.</summary>
public enum ProgressOutcome
{
    /// <summary>It did what it was to do: the catalog, the log of operations, or the state of its transaction says so.</summary>
    Finished,

    /// <summary>It did not: its transaction was rolled back, or what it made is missing or not valid.</summary>
    Failed,

    /// <summary>It was stopped by who ran it: the log of operations says so.</summary>
    Cancelled,

    /// <summary>The session that ran it is gone, and nothing proves that it came to its end.</summary>
    Vanished,

    /// <summary>It is over, and the server keeps no record of how it ended.</summary>
    Ended,
}

/// <summary>An operation that was waited for and is over.</summary>
public sealed record ProgressResult
{
    /// <summary>Process id of the backend that did the work.</summary>
    public int Pid { get; init; }

    /// <summary>Operation, as in <see cref="MigrationProgress.Operation"/>.</summary>
    public required string Operation { get; init; }

    /// <summary>Table as schema.name, or what else it worked on.</summary>
    public string? Target { get; init; }

    /// <summary>Index, where it was about one.</summary>
    public string? Index { get; init; }

    /// <summary>Name of a backfill, for Resume-Backfill and its kin; null for other operations.</summary>
    public string? Name { get; init; }

    /// <summary>How it ended.</summary>
    public ProgressOutcome Outcome { get; init; }

    /// <summary>What proves it, in words.</summary>
    public string? Detail { get; init; }

    /// <summary>How long it had run when it was last seen.</summary>
    public TimeSpan? Elapsed { get; init; }

    /// <summary>When it was first missed, by the server's clock.</summary>
    public DateTimeOffset EndedAt { get; init; }

    /// <summary>Query; null where this role may not see it.</summary>
    public string? Query { get; init; }

    /// <summary>Role.</summary>
    public string? User { get; init; }

    /// <summary>application_name.</summary>
    public string? Application { get; init; }

    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Port.</summary>
    public int Port { get; init; }

    /// <summary>Database.</summary>
    public string? Database { get; init; }

    /// <summary>The session that it was read in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}
