using System.Globalization;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Progress;

/// <summary>
/// CREATE INDEX and REINDEX (manual, "CREATE INDEX Progress Reporting"): the one computation that everything which builds an index shows. How long its phases take is
/// assumed from rows, blocks, the first key, the processes at work and the memory of the sort, as measured on PostgreSQL 14 and 18; what is seen sets the pace.
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

    private const string Flushing = Building + ": flushing";

    private const int BuildParts = 6;

    // Seconds between two looks of who wrote the log, at a build so short that it matters.
    private const double LogLook = 0.1;

    // Bytes of a text of which there are no statistics.
    private const double UnknownText = 40;

    // How long sorting what is in order takes, beside sorting what is not.
    private const double InOrder = 0.2;

    // The kind of the parts in which the keys do not matter.
    private const int Validation = 1;

    // How far the model's seconds are to be trusted: the same kind of key took up to twice as long where an expression had to be computed, and machines differ by half and more.
    private static readonly Trust s_assumed = new(0.5, 0.15);
    private static readonly Trust s_related = new(0.5, 0.1);
    private static readonly Trust s_logged = new(0.2, 0.02);

    /// <summary>Whether it is at a scan that may begin in the middle of the table, where another one is: as all do that read the table, but the one that validates.</summary>
    internal static bool MayBeginInTheMiddle(ProgressSample sample) =>
        sample.View == "create_index" && sample.Text("phase") is { } phase && (phase == Building || phase == $"{Building}: scanning table");

    internal static OperationState Of(ProgressSample sample, LearntPhases learnt, SeenBuild seen)
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
        IndexSize size = Size(sample, phase!, seen);
        OperationPart[] parts = Expected(sample, size, seen, ordered: sample.Fact("key_sorted") > 0, sample.Fact("key_distinct"));
        // Other access methods name no parts, or others; what they count is the table's blocks.
        bool btree = !phase!.StartsWith(Building, StringComparison.Ordinal) || parts.Take(BuildParts).Any(p => phase.StartsWith(p.Name, StringComparison.Ordinal));
        int building = btree ? BuildParts : 1;
        OperationPart[] Counted(OperationPart[] all) => btree ? all : [new(Building, all[..BuildParts].Sum(part => part.Share)), .. all[BuildParts..]];
        parts = Counted(parts);
        (ProgressConfidence basis, Trust trust) = (ProgressConfidence.Assumed, s_assumed);
        if (learnt.Of(sample.Target, sample.Index) is { } seconds)
        {
            (parts, basis, trust) = (Corrected(parts, seconds), ProgressConfidence.Learnt, s_logged);
        }
        else if (learnt.Related(sample.Target, size.SlowKey) is { Count: > 0 } related)
        {
            (parts, basis, trust) = (Related(parts, [.. related.Select(other => (Counted(Expected(sample, other.Size, seen, ordered: false, distinct: null)), other.Seconds))]), ProgressConfidence.Learnt, s_related);
        }

        OperationPart[] build = parts[..building];
        OperationPart[] validation = validates ? parts[building..] : [];
        (long? done, long? total, string? unit) = Counters(sample, phase);
        // A counter that has no total yet has just begun; but only a b-tree counts while it is validated.
        double? within = OperationState.Fraction(done, total) ?? (Counter(phase).Stem is null || phase.EndsWith("scanning index", StringComparison.Ordinal) ? null : 0);
        (int before, int all) = OneOfMany(sample, operation);
        int part = Array.FindIndex(build, p => phase.StartsWith(p.Name, StringComparison.Ordinal));
        if (part >= 0)
        {
            if (within is 1 && build.ElementAtOrDefault(part + 1)?.Name == Flushing)
            {
                // All is loaded, and the phase goes on.
                (part, within) = (part + 1, null);
            }

            part += before * build.Length;
        }
        else if (Array.FindIndex(validation, p => phase.StartsWith(p.Name, StringComparison.Ordinal)) is >= 0 and var validating)
        {
            part = (all * build.Length) + (before * validation.Length) + validating;
        }
        else
        {
            // A phase of waiting: before the part that comes next.
            (part, within) = number switch { 0 or 1 => (0, 0), 3 => ((all * build.Length) + (before * validation.Length), 0), _ => ((all * (build.Length + validation.Length)) - 1, 1) };
        }

        return state with
        {
            PhaseNumber = number + 1,
            PhaseCount = phases.Count,
            Done = done,
            Total = total,
            Unit = unit,
            Parts = [.. Enumerable.Repeat(build, all).Concat(Enumerable.Repeat(validation, all)).SelectMany(one => one)],
            Part = part,
            Within = within,
            Basis = basis,
            Seconds = trust,
            Rounds = sample.Number("partitions_total") is { } partitions and > 0 ? (sample.Number("partitions_done") ?? 0, partitions) : (0, 1),
        };
    }

    /// <summary>The index and its table, by what the server says of them and by what was seen.</summary>
    private static IndexSize Size(ProgressSample sample, string phase, SeenBuild seen)
    {
        (bool slow, double? width) = Keys(sample);
        // The statistics say how many rows a block has, and the scan how many blocks there are now. Those of a partitioned table are of all its partitions.
        bool partitioned = sample.Number("partitions_total") > 0;
        (double? tuples, double? pages) = partitioned ? (null, null) : (sample.Fact("tuples") is > 0 and var n ? (double?)n : null, sample.Fact("pages") is > 0 and var p ? (double?)p : null);
        double blocks = TableBlocks(sample) ?? seen.Blocks ?? pages ?? 1000;
        double rows = blocks * (tuples is not null && pages is not null ? tuples.Value / pages.Value : 50);
        double keys = Math.Max(1, partitioned ? rows : seen.Rows ?? rows);
        double bytes = width ?? (slow ? UnknownText : 8);
        double indexBlocks = phase.EndsWith("scanning index", StringComparison.Ordinal) && sample.Number("blocks_total") is > 0 and var leaves ? leaves : IndexSize.BlocksOf(keys, bytes);
        return new(slow, blocks, rows, keys, bytes, indexBlocks);
    }

    /// <summary>
    /// Whether the first key is compared by the rules of a language, and how many bytes all have, null where that is not known; of an index that is not to be seen yet, that of a
    /// plain CREATE INDEX, by its statement.
    /// </summary>
    private static (bool Slow, double? Width) Keys(ProgressSample sample)
    {
        if (sample.Index is not null || sample.Query is null || sample.Facts.GetValueOrDefault("columns") is not string columns
            || SqlScript.Parse(sample.Query, psql: false).Statements.Select(StatementParser.Parse).OfType<CreateIndex>().FirstOrDefault()?.Elements is not [IndexElement first, ..] elements)
        {
            return (sample.Fact("slow_key") > 0, sample.Fact("key_width") is > 0 and var bytes ? bytes : null);
        }

        // A line each: its bytes, whether it is compared by the rules of a language, its name.
        (string Name, bool Slow, double Width)[] known = [.. columns.Split('\n').Select(line => line.Split('\t', 3)).Select(column => (column[2], column[1] == "1", double.Parse(column[0], CultureInfo.InvariantCulture)))];
        (string Name, bool Slow, double Width)[] Of(IndexElement element) =>
            [.. known.Where(column => column.Name == element.Column || (element.Column is null && element.Expression.Statement.Tokens.Take(element.Expression.End).Skip(element.Expression.First).Any(token => SqlReader.NameOf(element.Expression.Statement.Script, token) == column.Name)))];
        // Bytes are compared under COLLATE "C" and by the pattern operator classes.
        bool slow = first.Collation?.Name is not ("C" or "POSIX") && first.OperatorClass?.Name.EndsWith("_pattern_ops", StringComparison.Ordinal) != true && Of(first).Any(column => column.Slow);
        return (slow, elements.Sum(element => Of(element).Select(column => column.Width).DefaultIfEmpty(UnknownText).Max()));
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

    /// <summary>REINDEX TABLE CONCURRENTLY makes all new indexes first, builds one after the other, by oid, then validates one after the other.</summary>
    private static (int Before, int All) OneOfMany(ProgressSample sample, string operation) =>
        operation == "REINDEX CONCURRENTLY" && sample.Fact("unfinished") is { } all and > 1 && sample.Fact("unfinished_before") is { } before && before < all ? ((int)before, (int)all) : (0, 1);

    /// <summary>Seconds of each part in the log.</summary>
    private static double[] Logged(OperationPart[] parts, IReadOnlyDictionary<string, double> seconds) =>
        [.. parts.Select(part => seconds.Where(phase => phase.Key.StartsWith(part.Name, StringComparison.Ordinal)).Sum(phase => phase.Value))];

    /// <summary>The parts as the log has them: what was written is flushed in the phase before.</summary>
    private static OperationPart[] AsLogged(OperationPart[] parts) =>
        [.. parts.Select((part, i) => part with { Share = part.Name == Flushing ? 0 : part.Share + (i + 1 < parts.Length && parts[i + 1].Name == Flushing ? parts[i + 1].Share : 0) })];

    /// <summary>
    /// The parts as the log of this very index corrects them, as far as it can know them: it was written by looks now and then, between which a short part begins, ends, or is
    /// over altogether.
    /// </summary>
    private static OperationPart[] Corrected(OperationPart[] parts, IReadOnlyDictionary<string, double> seconds)
    {
        OperationPart[] assumed = AsLogged(parts);
        double[] logged = Logged(assumed, seconds);
        double known = assumed.Where((_, i) => logged[i] > 0).Sum(part => part.Share);
        double scale = known > 0 ? logged.Sum() / known : 1;
        double Took(int i)
        {
            double expected = assumed[i].Share * scale;
            // Its two ends were each seen up to a look late; the difference of two such errors has this deviation.
            double doubt = s_logged.Variance + Math.Pow(LogLook / Math.Sqrt(6) / logged[i], 2);
            return expected <= 0 ? logged[i] : logged[i] > 0 ? expected * Math.Pow(logged[i] / expected, s_assumed.Variance / (s_assumed.Variance + doubt)) : Math.Min(expected, LogLook / 2);
        }

        return
        [
            .. parts.Select((part, i) =>
            {
                int under = part.Name == Flushing ? i - 1 : i;
                return part with { Share = assumed[under].Share > 0 ? part.Share * Took(under) / assumed[under].Share : Took(under) };
            }),
        ];
    }

    /// <summary>
    /// The parts as the log of other indexes corrects them: how far off the model was with the parts of those, beside each other, it is half as far with these. What another
    /// index leaves out tells nothing.
    /// </summary>
    private static OperationPart[] Related(OperationPart[] parts, (OperationPart[] Assumed, IReadOnlyDictionary<string, double> Seconds)[] others)
    {
        double[][] off =
        [
            .. others.Select(other =>
            {
                OperationPart[] assumed = AsLogged(other.Assumed);
                double[] logged = Logged(assumed, other.Seconds);
                double scale = assumed.Where((_, i) => logged[i] > 0).Sum(part => part.Share) / Math.Max(logged.Sum(), double.Epsilon);
                return logged.Select((took, i) => took > 0 && assumed[i].Share > 0 ? Math.Log(took * scale / assumed[i].Share) : 0).ToArray();
            }),
        ];
        return [.. parts.Select((part, i) => part with { Share = part.Share * Math.Exp(off.Average(of => of[i]) / 2) })];
    }

    /// <summary>What a sample tells beyond its own phase.</summary>
    internal static SeenBuild See(ProgressSample sample, SeenBuild seen) => new(
        sample.Number("tuples_total") is > 0 and var rows ? rows : seen.Rows,
        TableBlocks(sample) ?? seen.Blocks,
        Math.Max(sample.Fact("workers") ?? 0, seen.Workers));

    /// <summary>How many blocks the table has, where it is what the phase counts.</summary>
    private static long? TableBlocks(ProgressSample sample) =>
        sample.Text("phase") is { } phase && (phase == Building || phase.EndsWith("scanning table", StringComparison.Ordinal)) && sample.Number("blocks_total") is > 0 and var blocks ? blocks : null;

    /// <summary>Seconds of each part on a processor of 2020; what is seen of the build sets the pace, so that it matters only how they are beside each other.</summary>
    private static OperationPart[] Expected(ProgressSample sample, IndexSize size, SeenBuild seen, bool ordered, long? distinct)
    {
        (bool slow, double blocks, double rows, double keys, double width, double indexBlocks) = size;
        // That of its session is not to be seen, but the server gives each process 32 MB or does without it.
        double memory = Math.Max(sample.Fact("sort_memory") ?? 64 << 20, seen.Workers > 0 ? (32L << 20) * (seen.Workers + 1) : 0);
        double processes = 1 + seen.Workers;

        // In pieces that memory holds. What is read last is left for the phase of sorting; where several processes work, each merges its pieces then, else it happens while loading.
        double run = memory / (keys * (width + 32));
        bool pieces = run < 1;
        double reading = ((2.2e-6 * blocks) + ((slow ? 0.26e-6 : 0.16e-6) * rows)) / processes;
        // Rows that are in order are sorted in one pass, and so are the pointers to them.
        double order = ordered ? InOrder : 1;
        // Keys that are the same are quick to compare, whatever the language: below so many levels there are no others.
        double levels = Math.Log2(keys + 1);
        double different = Math.Min(levels, distinct is > 0 and var values ? Math.Log2(values + 1) : levels);
        double sorting = order * ((0.36e-6 * levels) + (slow ? 0.84e-6 * different : 0)) * (pieces ? 1 : 1.25) * keys / 21 / processes;
        double merging = pieces && processes > 1 ? 0.12 : 0;
        double both = (reading + sorting) / (1 - merging);
        double left = pieces ? sorting * run / 2 : sorting;
        double loading = (0.1e-6 + (0.003e-6 * width) + (pieces && processes == 1 ? slow ? 0.06e-6 : 0.02e-6 : 0)) * keys;
        double leaf = 8e-6 * indexBlocks;
        double pointerRun = memory / (keys * 24);
        double pointers = order * (pointerRun < 1 ? 0.18e-6 : 0.13e-6) * keys;
        double pointersLeft = pointerRun < 1 ? pointers * pointerRun / 2 : pointers;
        return
        [
            new(Building + ": initializing", 0),
            new(Building + ": scanning table", reading + sorting - left) { Sort = new(reading / both, merging, run) },
            new(Building + ": sorting live tuples", left + (merging * both)),
            new(Building + ": sorting dead tuples", 0),
            new(Building + ": loading tuples in tree", loading),
            // No phase of its own: what was written has to reach the disk.
            new(Flushing, 4e-6 * indexBlocks),
            new("index validation: scanning index", leaf + pointers - pointersLeft) { Sort = new(leaf / (leaf + pointers), 0, pointerRun), Kind = Validation },
            new("index validation: sorting tuples", pointersLeft) { Kind = Validation },
            new("index validation: scanning table", (2e-6 * blocks) + (0.05e-6 * rows)) { Kind = Validation },
        ];
    }
}

/// <summary>What one phase of an index build, or of a vacuum, has told, and those after it need.</summary>
/// <param name="Rows">Rows of the index; null before they are counted.</param>
/// <param name="Blocks">Blocks of the table; null before they are counted.</param>
/// <param name="Workers">Processes that helped: to read and sort, or to vacuum the indexes.</param>
internal readonly record struct SeenBuild(long? Rows, long? Blocks, long Workers)
{
    /// <summary>Whether a vacuum was seen to be slowed down by its cost delay.</summary>
    internal bool Throttled { get; init; }
}
