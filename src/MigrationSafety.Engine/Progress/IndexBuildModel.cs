using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Progress;

/// <summary>
/// CREATE INDEX and REINDEX (manual, "CREATE INDEX Progress Reporting"): the one computation that everything which builds an index shows. How long the phases take
/// beside each other depends on the first key: measured with 2,000,000 rows on PostgreSQL 14 and 18, in microseconds a row.
/// </summary>
internal static class IndexBuildModel
{
    private const string Building = "building index";

    private static readonly IReadOnlyList<string> s_create = ["initializing", Building];

    private static readonly IReadOnlyList<string> s_createConcurrently =
    [
        "initializing",
        "waiting for writers before build",
        Building,
        "waiting for writers before validation",
        "index validation: scanning index",
        "index validation: sorting tuples",
        "index validation: scanning table",
        "waiting for old snapshots",
    ];

    private static readonly IReadOnlyList<string> s_reindexConcurrently = [.. s_createConcurrently, "waiting for readers before marking dead", "waiting for readers before dropping"];

    // Keys that the processor compares: numbers, times, uuid.
    private static readonly OperationPart[] s_plainKey =
    [
        new("building index: initializing", 0),
        new("building index: scanning table", 0.20),
        new("building index: sorting live tuples", 0.12),
        new("building index: sorting dead tuples", 0),
        new("building index: loading tuples in tree", 0.145),
        new("index validation: scanning index", 0.045),
        new("index validation: sorting tuples", 0.145),
        new("index validation: scanning table", 0.06),
    ];

    // Texts by the rules of a language.
    private static readonly OperationPart[] s_slowKey =
    [
        new("building index: initializing", 0),
        new("building index: scanning table", 0.80),
        new("building index: sorting live tuples", 0.20),
        new("building index: sorting dead tuples", 0),
        new("building index: loading tuples in tree", 0.34),
        new("index validation: scanning index", 0.085),
        new("index validation: sorting tuples", 0.14),
        new("index validation: scanning table", 0.07),
    ];

    internal static OperationState Of(ProgressSample sample, LearntPhases learnt)
    {
        string operation = sample.Text("command") ?? "CREATE INDEX or REINDEX";
        string? phase = sample.Text("phase");
        IReadOnlyList<string> phases = operation switch
        {
            "CREATE INDEX CONCURRENTLY" => s_createConcurrently,
            "REINDEX CONCURRENTLY" => s_reindexConcurrently,
            _ => s_create,
        };
        // The access method's own phase follows behind a colon: beginnings count.
        int number = phase is null ? -1 : phases.ToList().FindIndex(name => phase.StartsWith(name, StringComparison.Ordinal));
        OperationState state = new() { Operation = operation, Phase = phase };
        if (number < 0)
        {
            return state;
        }

        bool validates = phases.Count > 2;
        bool btree = phase!.StartsWith(Building + ": ", StringComparison.Ordinal) || number > 2 || (phase != Building && !phase.StartsWith(Building, StringComparison.Ordinal));
        bool slow = HasSlowKey(sample);
        OperationPart[] keys = slow ? s_slowKey : s_plainKey;
        // Other access methods name no parts; what they count is the table's blocks.
        OperationPart[] parts = btree
            ? validates ? keys : [.. keys.Where(part => part.Name.StartsWith(Building, StringComparison.Ordinal))]
            : [new(Building, keys[..5].Sum(part => part.Share)), .. validates ? keys[5..] : []];
        ProgressConfidence basis = ProgressConfidence.Assumed;
        if (learnt.Of(sample.Target, sample.Index, slow) is { } seconds)
        {
            // A part that is not in the log took no time to speak of.
            parts = [.. parts.Select(part => part with { Share = seconds.Where(phase => phase.Key.StartsWith(part.Name, StringComparison.Ordinal)).Sum(phase => phase.Value) })];
            basis = ProgressConfidence.Learnt;
        }

        (long? done, long? total, string? unit) = Counters(sample, phase);
        int part = Array.FindIndex(parts, p => phase.StartsWith(p.Name, StringComparison.Ordinal));
        // A counter that has no total yet has just begun.
        double? within = OperationState.Fraction(done, total) ?? (Counter(phase).Stem is null ? null : 0);
        if (part < 0)
        {
            // A phase of waiting: before the part that comes next.
            (part, within) = number switch { 0 or 1 => (0, 0), 3 => (Array.FindIndex(parts, p => !p.Name.StartsWith(Building, StringComparison.Ordinal)), 0), _ => (parts.Length - 1, 1) };
        }

        return state with
        {
            PhaseNumber = number + 1,
            PhaseCount = phases.Count,
            Done = done,
            Total = total,
            Unit = unit,
            Parts = parts,
            Part = part,
            Within = OneOfMany(sample, operation, within),
            Basis = basis,
            Rounds = sample.Number("partitions_total") is { } partitions and > 0 ? (sample.Number("partitions_done") ?? 0, partitions) : (0, 1),
        };
    }

    /// <summary>Whether the first key is compared by the rules of a language; of an index that is not to be seen yet, that of a plain CREATE INDEX, by its statement.</summary>
    private static bool HasSlowKey(ProgressSample sample)
    {
        if (sample.Index is not null || sample.Query is null || sample.Facts.GetValueOrDefault("slow_columns") is not string columns)
        {
            return sample.Fact("slow_key") > 0;
        }

        // Bytes are compared under COLLATE "C" and by the pattern operator classes.
        return SqlScript.Parse(sample.Query, psql: false).Statements.Select(StatementParser.Parse).OfType<CreateIndex>().FirstOrDefault()?.Elements is [IndexElement first, ..]
            && first.Collation?.Name is not ("C" or "POSIX") && first.OperatorClass?.Name.EndsWith("_pattern_ops", StringComparison.Ordinal) != true
            && columns.Split('\n').Any(column => column == first.Column || (first.Column is null && first.Expression.Statement.Tokens.Take(first.Expression.End).Skip(first.Expression.First).Any(token => SqlReader.NameOf(first.Expression.Statement.Script, token) == column)));
    }

    private static (string? Stem, string? Unit) Counter(string phase) => phase switch
    {
        _ when phase.StartsWith("waiting for", StringComparison.Ordinal) => ("lockers", "transactions"),
        _ when phase.EndsWith("scanning table", StringComparison.Ordinal) || phase.EndsWith("scanning index", StringComparison.Ordinal) || phase == Building => ("blocks", "blocks"),
        _ when phase.EndsWith("loading tuples in tree", StringComparison.Ordinal) => ("tuples", "tuples"),
        _ => (null, null),
    };

    /// <summary>The counters that belong to the phase: the view keeps those of earlier ones.</summary>
    private static (long? Done, long? Total, string? Unit) Counters(ProgressSample sample, string phase)
    {
        (string? stem, string? unit) = Counter(phase);
        return stem is not null && sample.Number(stem + "_total") is { } total and > 0 ? (sample.Number(stem + "_done"), total, unit) : (null, null, null);
    }

    /// <summary>REINDEX TABLE CONCURRENTLY makes all new indexes first, then does each phase for one after the other, by oid.</summary>
    private static double? OneOfMany(ProgressSample sample, string operation, double? within) =>
        operation == "REINDEX CONCURRENTLY" && sample.Fact("unfinished") is { } all and > 1 && sample.Fact("unfinished_before") is { } before && before < all
            ? (before + (within ?? 0)) / all
            : within;
}
