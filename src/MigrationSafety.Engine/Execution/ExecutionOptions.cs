namespace MigrationSafety.Engine.Execution;

/// <summary>The bounds under which a step runs.</summary>
public sealed record ExecutionOptions
{
    /// <summary>How long a step may queue for its locks, and therefore how long an application statement may wait behind it. 500 ms.</summary>
    public TimeSpan LockTimeout { get; init; } = TimeSpan.FromMilliseconds(500);

    /// <summary>How long a step is tried again before it is given up. 10 minutes.</summary>
    public TimeSpan RetryFor { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>How long a lock that conflicts with reads or writes may be held before the step is cancelled as not instant. 1 s.</summary>
    public TimeSpan MaxHold { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>How long a step watches for a clear way before it queues all the same. 5 s.</summary>
    public TimeSpan LookFor { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>How long a CONCURRENTLY statement may wait for old transactions; null for as long as it takes.</summary>
    public TimeSpan? WaitFor { get; init; }

    /// <summary>What is done about a session that a CONCURRENTLY statement has waited for as long as <see cref="BlockerGracePeriod"/>.</summary>
    public BlockerAction BlockerAction { get; init; }

    /// <summary>How long a session may be in the way of a CONCURRENTLY statement before <see cref="BlockerAction"/> is taken. 30 s.</summary>
    public TimeSpan BlockerGracePeriod { get; init; } = TimeSpan.FromSeconds(30);
}
