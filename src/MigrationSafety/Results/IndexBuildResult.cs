namespace MigrationSafety;

/// <summary>What became of an index build.</summary>
public enum IndexBuildOutcome
{
    /// <summary>Built now, and valid.</summary>
    Built,

    /// <summary>A valid index of the same name and definition was there; nothing was done.</summary>
    AlreadyValid,

    /// <summary>An invalid leftover was removed and the index built anew; it is valid.</summary>
    Rebuilt,
}

/// <summary>The outcome of <c>Invoke-SafeIndexBuild</c>, read back from the catalog.</summary>
public sealed record IndexBuildResult : IOperationResult
{
    /// <summary>Server.</summary>
    public required string Server { get; init; }

    /// <summary>Database.</summary>
    public required string Database { get; init; }

    /// <summary>Schema of table and index, as SQL writes it: quoted where it has to be, so that the next cmdlet finds it again.</summary>
    public required string Schema { get; init; }

    /// <summary>Table, as SQL writes it.</summary>
    public required string Table { get; init; }

    /// <summary>Name of the index, as SQL writes it.</summary>
    public required string Name { get; init; }

    /// <summary>What was done.</summary>
    public IndexBuildOutcome Outcome { get; init; }

    /// <summary>The index as the server describes it (<c>pg_get_indexdef</c>).</summary>
    public required string Definition { get; init; }

    /// <summary>How often the build was started.</summary>
    public int Attempts { get; init; }

    /// <summary>From the beginning to the verified end.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>Time of it that was spent waiting for others, as sampled.</summary>
    public TimeSpan WaitTime { get; init; }

    /// <summary>Size of the index in bytes (<c>pg_relation_size</c>).</summary>
    public long SizeBytes { get; init; }

    /// <summary>The steps that ran, with their reversals; pipe the result to <c>New-RollbackScript</c>.</summary>
    public MigrationStep[] Steps { get; init; } = [];

    /// <summary>The session it was made in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}
