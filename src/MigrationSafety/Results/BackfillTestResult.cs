namespace MigrationSafety;

/// <summary>Which rows <c>Test-Backfill</c> compares with what the expressions give now.</summary>
public enum BackfillComparison
{
    /// <summary>None.</summary>
    None,

    /// <summary>Those of some blocks, chosen at random.</summary>
    Sample,

    /// <summary>All.</summary>
    All,
}

/// <summary>What <c>Test-Backfill</c> found, for a pipeline to stop on: <see cref="Passed"/>.</summary>
public sealed record BackfillTestResult
{
    /// <summary>Server that was asked.</summary>
    public required string Server { get; init; }

    /// <summary>TCP port of the server, or the suffix of its Unix socket.</summary>
    public int Port { get; init; }

    /// <summary>Database.</summary>
    public required string Database { get; init; }

    /// <summary>Name of the backfill.</summary>
    public required string Name { get; init; }

    /// <summary>Schema of its table, as SQL writes it.</summary>
    public required string Schema { get; init; }

    /// <summary>Its table, as SQL writes it.</summary>
    public required string Table { get; init; }

    /// <summary>Whether it is completed, no row matches, and no value that was compared differs.</summary>
    public bool Passed { get; init; }

    /// <summary>What the backfill is doing.</summary>
    public BackfillState State { get; init; }

    /// <summary>Rows that still match its condition; 0 is expected.</summary>
    public long Matching { get; init; }

    /// <summary>Those of them that the server refused, as recorded.</summary>
    public long Errors { get; init; }

    /// <summary>Rows in the table now.</summary>
    public long Rows { get; init; }

    /// <summary>
    /// Rows that should be there, an estimate on which <see cref="Passed"/> does not depend: those when it began, with what was inserted since and without what was deleted
    /// as <c>pg_stat_all_tables</c> counts them: some seconds late, with what was rolled back, without what TRUNCATE took. Null where that cannot be told.
    /// </summary>
    public long? RowsExpected { get; init; }

    /// <summary>Rows whose values were compared with the expressions.</summary>
    public long Compared { get; init; }

    /// <summary>Those of them whose values differ.</summary>
    public long Different { get; init; }

    /// <summary>Some of those, by their key or their place (<c>ctid</c>).</summary>
    public string[] DifferentRow { get; init; } = [];

    /// <summary>What else is to be known, a sentence each.</summary>
    public string[] Detail { get; init; } = [];

    /// <summary>How long it took.</summary>
    public TimeSpan Duration { get; init; }

    /// <summary>The session it was made in, for the next cmdlet in the pipeline.</summary>
    internal MigrationSession? Origin { get; init; }
}
