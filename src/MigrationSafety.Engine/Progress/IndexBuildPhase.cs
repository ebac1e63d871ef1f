namespace MigrationSafety.Engine.Progress;

/// <summary>
/// Where a build is: which of its phases, what is counted in it, and about which part of the whole is behind it (manual, "CREATE INDEX Progress Reporting").
/// </summary>
/// <param name="Number">Number of the phase, from 1.</param>
/// <param name="Count">How many there are.</param>
/// <param name="Done">Work done in it; null where nothing is counted.</param>
/// <param name="Total">Work of it in all.</param>
/// <param name="Unit">What is counted.</param>
/// <param name="Overall">Percent of the whole. A guess where it crosses phases: how long each takes beside the others is an assumption.</param>
internal sealed record IndexBuildPhase(int Number, int Count, long? Done, long? Total, string? Unit, double Overall)
{
    // Shares of the work, not of the time that is spent waiting: nobody can tell how long others stay.
    private static readonly Phase[] s_create = [new("initializing", 0), new("building index", 1)];

    private static readonly Phase[] s_createConcurrently =
    [
        new("initializing", 0),
        new("waiting for writers before build", 0),
        new("building index", 0.7),
        new("waiting for writers before validation", 0),
        new("index validation: scanning index", 0.08),
        new("index validation: sorting tuples", 0.07),
        new("index validation: scanning table", 0.15),
        new("waiting for old snapshots", 0),
    ];

    private static readonly Phase[] s_reindexConcurrently =
    [
        .. s_createConcurrently,
        new("waiting for readers before marking dead", 0),
        new("waiting for readers before dropping", 0),
    ];

    // Parts of "building index" that a btree names behind a colon.
    private static readonly Phase[] s_btree =
    [
        new("initializing", 0),
        new("scanning table", 0.5),
        new("sorting live tuples", 0.2),
        new("sorting dead tuples", 0),
        new("loading tuples in tree", 0.3),
    ];

    /// <summary>Percent of the phase; null where nothing is counted.</summary>
    internal double? Percent => Done is { } done && Total is > 0 and { } total ? Math.Min(100, 100.0 * done / total) : null;

    /// <summary>The phase of a sample; null where this role may not see it or the server has one that is not known here.</summary>
    internal static IndexBuildPhase? Of(IndexBuildSample sample)
    {
        Phase[] phases = sample.Command switch
        {
            "CREATE INDEX CONCURRENTLY" => s_createConcurrently,
            "REINDEX CONCURRENTLY" => s_reindexConcurrently,
            _ => s_create,
        };
        // The access method's own phase follows behind a colon: beginnings count.
        int index = sample.Phase is { } name ? Array.FindIndex(phases, phase => name.StartsWith(phase.Name, StringComparison.Ordinal)) : -1;
        if (index < 0)
        {
            return null;
        }

        (long done, long total, string? unit) = Counters(sample);
        double within = total > 0 ? Math.Min(1, (double)done / total) : 0;
        if (phases[index].Name == "building index")
        {
            int part = Array.FindIndex(s_btree, p => sample.Phase!.EndsWith(": " + p.Name, StringComparison.Ordinal));
            within = part < 0 ? within : s_btree.Take(part).Sum(p => p.Share) + (s_btree[part].Share * within);
        }

        double overall = 100 * (phases.Take(index).Sum(phase => phase.Share) + (phases[index].Share * within));
        return new IndexBuildPhase(index + 1, phases.Length, total > 0 ? done : null, total > 0 ? total : null, total > 0 ? unit : null, Math.Min(100, overall));
    }

    /// <summary>The counters that belong to the phase: the view keeps those of earlier ones.</summary>
    private static (long Done, long Total, string? Unit) Counters(IndexBuildSample sample) => sample.Phase switch
    {
        { } phase when phase.StartsWith("waiting for", StringComparison.Ordinal) => (sample.LockersDone, sample.LockersTotal, "transactions"),
        { } phase when phase.EndsWith("scanning table", StringComparison.Ordinal) || phase.EndsWith("scanning index", StringComparison.Ordinal) => (sample.BlocksDone, sample.BlocksTotal, "blocks"),
        { } phase when phase.EndsWith("loading tuples in tree", StringComparison.Ordinal) => (sample.TuplesDone, sample.TuplesTotal, "tuples"),
        // Other access methods name no parts; what they count is the table's blocks.
        "building index" => (sample.BlocksDone, sample.BlocksTotal, "blocks"),
        _ => (0, 0, null),
    };

    private sealed record Phase(string Name, double Share);
}
