namespace MigrationSafety;

/// <summary>A session that held or awaited a lock which was in our way (<c>pg_stat_activity</c>, <c>pg_locks</c>, <c>pg_prepared_xacts</c>).</summary>
public sealed record LockBlocker
{
    /// <summary>Process id; 0 for a prepared transaction.</summary>
    public int Pid { get; init; }

    /// <summary>Role; null where this role may not see it.</summary>
    public string? User { get; init; }

    /// <summary>application_name.</summary>
    public string? Application { get; init; }

    /// <summary>Client address; null for a Unix socket and for the server's own processes.</summary>
    public string? ClientAddress { get; init; }

    /// <summary>State as in pg_stat_activity ("idle in transaction", "active" ...), or "prepared".</summary>
    public string? State { get; init; }

    /// <summary>Age of its transaction.</summary>
    public TimeSpan? TransactionAge { get; init; }

    /// <summary>Its current or last query, cut at 1,000 characters; of a prepared transaction its gid.</summary>
    public string? Query { get; init; }

    /// <summary>backend_type as in pg_stat_activity.</summary>
    public string? BackendType { get; init; }

    /// <summary>When the backend started; with the pid it names a session for good.</summary>
    public DateTimeOffset? BackendStart { get; init; }

    /// <summary>The lock in the way, by PostgreSQL's name ("ShareUpdateExclusiveLock"); null where it is not a table lock.</summary>
    public string? Mode { get; init; }

    /// <summary>Whether it holds the lock (true) or queues for it before us (false).</summary>
    public bool Granted { get; init; }

    /// <summary>The relation concerned, as schema.name; null where the lock is on none.</summary>
    public string? Relation { get; init; }

    /// <summary>An autovacuum worker.</summary>
    public bool IsAutovacuum => BackendType == "autovacuum worker";

    /// <summary>An autovacuum that prevents transaction id wraparound: it never yields. Where its query is hidden, told by the age of its table.</summary>
    public bool PreventsWraparound { get; init; }

    /// <summary>One line for errors, warnings and verbose output: pid, user, application, state, age of the transaction, query.</summary>
    /// <returns>The line.</returns>
    public override string ToString()
    {
        string who = Pid == 0 ? "prepared transaction" : $"pid {Pid}";
        string? one = Query?.ReplaceLineEndings(" ");
        if (one?.Length > 100)
        {
            one = one[..100] + "...";
        }

        string?[] parts =
        [
            User is null ? null : $"user {User}",
            string.IsNullOrEmpty(Application) ? null : $"application '{Application}'",
            PreventsWraparound ? "autovacuum that prevents wraparound" : State is null or "active" && IsAutovacuum ? BackendType : State ?? BackendType,
            TransactionAge is { } age ? $"transaction open for {Durations.Text(age)}" : null,
            Mode is null ? null : $"{(Granted ? "holds" : "awaits")} {Mode}{(Relation is null ? "" : $" on {Relation}")}",
            string.IsNullOrEmpty(one) ? null : one,
        ];
        return $"{who} ({string.Join(", ", parts.Where(part => part is not null))})";
    }
}

/// <summary>For what a step waited.</summary>
public enum LockWaitCause
{
    /// <summary>A lock that others held or awaited.</summary>
    Lock,

    /// <summary>Transactions that had written to the table before (an index build waits for them twice).</summary>
    Writers,

    /// <summary>Transactions with a snapshot older than the index (the end of an index build).</summary>
    Snapshots,

    /// <summary>Transactions that had used the table or the index before (the end of a rebuild or a concurrent drop).</summary>
    Readers,
}

/// <summary>A time during which a step waited for others, and for whom.</summary>
public sealed record LockWait
{
    /// <summary>When the wait was first seen.</summary>
    public DateTimeOffset Start { get; init; }

    /// <summary>How long it lasted.</summary>
    public TimeSpan WaitTime { get; init; }

    /// <summary>Whether the step was queued for the lock (true: others could queue behind it) or only watched until the way was clear (false).</summary>
    public bool Queued { get; init; }

    /// <summary>For what it waited.</summary>
    public LockWaitCause Cause { get; init; }

    /// <summary>Who was in the way.</summary>
    public LockBlocker[] Blockers { get; init; } = [];

    /// <inheritdoc />
    public override string ToString() => $"{Durations.Text(WaitTime)} for {string.Join("; ", Blockers.Select(blocker => blocker.ToString()))}";
}

internal static class Durations
{
    internal static string Text(TimeSpan value) => value switch
    {
        { TotalSeconds: < 1 } => $"{value.TotalMilliseconds:0} ms",
        { TotalMinutes: < 2 } => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{value.TotalSeconds:0.0} s"),
        { TotalHours: < 2 } => $"{(int)value.TotalMinutes} min {value.Seconds} s",
        { TotalDays: < 2 } => $"{(int)value.TotalHours} h {value.Minutes} min",
        _ => $"{(int)value.TotalDays} d {value.Hours} h",
    };
}

/// <summary>Numbers of bytes in words.</summary>
internal static class ByteCounts
{
    internal static string Text(double value) => value switch
    {
        >= 1L << 40 => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{value / (1L << 40):0.#} TB"),
        >= 1 << 30 => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{value / (1 << 30):0.#} GB"),
        >= 1 << 20 => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{value / (1 << 20):0.#} MB"),
        >= 1 << 10 => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{value / (1 << 10):0.#} kB"),
        _ => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{value:0} bytes"),
    };
}
