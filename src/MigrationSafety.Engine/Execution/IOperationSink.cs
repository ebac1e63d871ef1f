namespace MigrationSafety.Engine.Execution;

/// <summary>How far an operation is, for a progress record.</summary>
/// <param name="Activity">What is going on, such as "Building index public.orders_tier_idx".</param>
/// <param name="Status">Phase and numbers in words.</param>
/// <param name="Percent">0 to 100; null where it cannot be told.</param>
/// <param name="Remaining">Estimated time to the end; null where it cannot be told.</param>
/// <param name="CurrentOperation">What it waits for right now; null while it works.</param>
/// <param name="Completed">Whether the activity has ended.</param>
/// <param name="Location">Server and database; null where it is not about one.</param>
public sealed record OperationProgress(
    string Activity,
    string Status,
    double? Percent = null,
    TimeSpan? Remaining = null,
    string? CurrentOperation = null,
    bool Completed = false,
    string? Location = null);

/// <summary>Where an operation reports to. Calls come from any thread; implementations must not block for long.</summary>
public interface IOperationSink
{
    /// <summary>Something a curious user wants to read: retries, waits, notices of the server.</summary>
    /// <param name="message">Message.</param>
    void Verbose(string message);

    /// <summary>SQL that is sent.</summary>
    /// <param name="message">Message.</param>
    void Debug(string message);

    /// <summary>Something every user should read.</summary>
    /// <param name="message">Message.</param>
    void Warning(string message);

    /// <summary>Progress.</summary>
    /// <param name="progress">Progress.</param>
    void Progress(OperationProgress progress);

    /// <summary>Something for the operation's record; of no interest to who only shows.</summary>
    /// <param name="happened">What happened.</param>
    void Record(OperationEvent happened)
    {
    }
}
