using System.Text.RegularExpressions;

namespace MigrationSafety.Engine.Progress;

/// <summary>
/// VACUUM (manual, "VACUUM Progress Reporting"): the table is read, the indexes are rid of what points to dead rows, then the pages that had them; over again where memory does
/// not hold all dead rows. How long that takes is assumed from pages and dead rows, as measured on PostgreSQL 14 and 18; what is seen sets the pace.
/// </summary>
internal static class VacuumModel
{
    // The kind of the parts in which the table does not matter.
    private const int Indexes = 1;

    // What each further process that vacuums indexes adds to the speed of one: they share processors, and the log that they write.
    private const double Together = 0.2;

    private static readonly Regex s_serial = new(@"\bparallel\s+0\b", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant);

    private static readonly string[] s_phases =
        ["initializing", "scanning heap", "vacuuming indexes", "vacuuming heap", "cleaning up indexes", "truncating heap", "performing final cleanup"];

    // One that is slowed down on purpose, as an autovacuum is: what the table's pages took, and its age, say far more than the model does.
    private static readonly Trust s_throttled = new(0.02, 0.15) { Slowed = true };
    private static readonly Trust s_trust = new(0.3, 0.15);

    /// <summary>Whether it is slowed down by its cost delay: right now, or by what PostgreSQL 18 counts.</summary>
    internal static bool IsThrottled(ProgressSample sample) => sample.WaitEvent == "VacuumDelay" || sample.Counters.GetValueOrDefault("delay_time") is > 0.0 or > 0L;

    internal static OperationState Of(ProgressSample sample, SeenBuild seen)
    {
        string? phase = sample.Text("phase");
        int number = Array.IndexOf(s_phases, phase);
        bool automatic = sample.User is null && !sample.Hidden;
        OperationState state = new()
        {
            Operation = automatic ? "AUTOVACUUM" : "VACUUM",
            Phase = phase,
            PhaseNumber = number < 0 ? null : number + 1,
            PhaseCount = number < 0 ? null : s_phases.Length,
            Waiting = sample.WaitEvent == "VacuumDelay" ? "throttle: vacuum_cost_delay" : null,
        };
        if (number < 0 || sample.Number("heap_blks_total") is not { } blocks)
        {
            return state;
        }

        if (blocks == 0)
        {
            // Not counted yet.
            blocks = sample.Fact("pages") ?? 0;
        }

        long scanned = sample.Number("heap_blks_scanned") ?? 0;
        long vacuumed = sample.Number("heap_blks_vacuumed") ?? 0;
        int rounds = (int)(sample.Number("index_vacuum_count") ?? 0);
        (long? done, long? total, string? unit) = phase switch
        {
            "scanning heap" => (scanned, blocks, "blocks"),
            "vacuuming heap" => (vacuumed, blocks, "blocks"),
            // Since 17, how many indexes are through.
            "vacuuming indexes" or "cleaning up indexes" when sample.Number("indexes_total") is > 0 and var indexes => (sample.Number("indexes_processed"), indexes, "indexes"),
            _ => ((long?)null, (long?)null, (string?)null),
        };
        double through = OperationState.Fraction(scanned, blocks) ?? 1;
        (double dead, int passes) = Dead(sample, phase!, through, rounds);
        List<double> indexEnds = IndexEnds(sample, automatic, blocks, dead, passes, phase == "vacuuming indexes" ? seen.Workers : null);
        // One after the other: read, indexes, pages; where a pass ends no counter tells, but the table's go on through all of them.
        int pass = Math.Min(passes - 1, phase == "vacuuming heap" ? rounds - 1 : rounds);
        double Within(double all) => Math.Clamp((all * passes) - Math.Max(0, pass), 0, 1);
        double? Through(long? indexes) => indexEnds.Count == total && indexEnds[^1] > 0 ? (indexes > 0 ? indexEnds[(int)Math.Min(indexes.Value, total.Value) - 1] : 0) / indexEnds[^1] : null;
        (int part, double? within) = number switch
        {
            <= 1 => (0, Within(through)),
            2 => (1, total is null ? null : Through(done)),
            3 => (2, Within(OperationState.Fraction(vacuumed, blocks) ?? 1)),
            _ => (2, 1),
        };
        return state with
        {
            Done = done,
            Total = total,
            Unit = unit,
            Parts = [.. Enumerable.Repeat(Expected(blocks, dead, passes, indexEnds, sample.Fact("indexes") == 0), passes).SelectMany(one => one), new("cleaning up indexes", 0)],
            Part = number > 3 ? passes * 3 : (Math.Max(0, pass) * 3) + part,
            Within = number == 4 ? OperationState.Fraction(done, total) : within,
            WithinNext = number == 2 && within is not null ? Through(Math.Min(done!.Value + 1, total!.Value)) : null,
            Basis = ProgressConfidence.Assumed,
            Seconds = automatic || seen.Throttled ? s_throttled : s_trust,
        };
    }

    /// <summary>How many dead rows there are, and how many times the indexes are gone through for them.</summary>
    private static (double Dead, int Passes) Dead(ProgressSample sample, string phase, double through, int rounds)
    {
        // What is known by the statistics, and what was found so far; the view forgets that after each pass.
        double found = sample.Number("num_dead_item_ids") ?? sample.Number("num_dead_tuples") ?? 0;
        double known = sample.Fact("dead_tuples") ?? 0;
        if (through >= 1)
        {
            return (rounds == 0 ? found : Math.Max(known, found), Math.Max(1, phase is "scanning heap" or "vacuuming indexes" ? rounds + 1 : rounds));
        }

        // How often memory was full until here. Before 17 it was counted in rows, since then in bytes.
        double full = phase switch
        {
            "vacuuming heap" => rounds,
            "vacuuming indexes" => rounds + 1,
            _ => rounds + (OperationState.Fraction(sample.Number("dead_tuple_bytes"), sample.Number("max_dead_tuple_bytes")) ?? OperationState.Fraction(sample.Number("num_dead_tuples"), sample.Number("max_dead_tuples")) ?? 0),
        };
        int passes = through < 0.1 && rounds == 0 && phase == "scanning heap" ? 1 : (int)Math.Clamp(Math.Ceiling((full / Math.Max(through, 0.01)) - 0.05), rounds + 1, Math.Max(1000, rounds + 1));
        if (rounds > 0)
        {
            return (Math.Max(known, found * passes), passes);
        }

        // The statistics count rows, too, that an update has replaced on their own page: those leave nothing for the indexes, and are not found here.
        double likely = known > 0 ? ((1 - through) * known) + found : found / Math.Max(through, 0.1);
        return (found + ((1 - through) * likely), passes);
    }

    /// <summary>Seconds of the parts of one pass.</summary>
    private static OperationPart[] Expected(long blocks, double dead, int passes, List<double> indexEnds, bool bare)
    {
        double touched = Math.Min(dead, blocks);
        return
        [
            new("scanning heap", ((6e-6 * blocks) + (7e-6 * touched) + (0.45e-6 * dead)) / passes),
            // Where so few pages have dead rows, the indexes are left alone.
            new("vacuuming indexes", dead < 0.02 * blocks || indexEnds.Count == 0 ? 0 : indexEnds[^1]) { Kind = Indexes },
            // Without indexes each page is rid of its dead rows as it is read.
            new("vacuuming heap", bare ? 0 : 8e-6 * touched / passes),
        ];
    }

    /// <summary>
    /// When how many indexes are through in one pass, in seconds since the first was begun. They are taken in the order of their oids, each by one process, as soon as one
    /// is free.
    /// </summary>
    private static List<double> IndexEnds(ProgressSample sample, bool automatic, long blocks, double dead, int passes, long? workers)
    {
        // Each pointer is looked for among the dead rows: before 17 in a sorted list, since then in a tree of bitmaps.
        double found = dead / passes;
        double lookup = sample.Number("max_dead_tuples") is null ? 0.0135e-6 : 0.0087e-6 * Math.Log2(found + 2);
        double pointers = Math.Max(0, sample.Fact("live_tuples") ?? 0) + dead;
        Queue<double> waiting = new(((sample.Facts.GetValueOrDefault("index_sizes") as string) ?? "").Split(' ', StringSplitOptions.RemoveEmptyEntries)
            .Select(size => double.Parse(size, System.Globalization.CultureInfo.InvariantCulture))
            // Pages that lose a pointer are written to the log.
            .Select(pages => (5.6e-6 * pages) + (lookup * pointers) + (11e-6 * pages * (1 - Math.Exp(-found / Math.Max(pages, 1)))) + (0.19e-6 * found)));
        long most = automatic || s_serial.IsMatch(sample.Query ?? "") ? 0 : Math.Min(waiting.Count - 1, sample.Fact("max_workers") ?? 0);
        long processes = 1 + (workers ?? most);
        List<double> inWork = [];
        List<double> ends = [];
        double time = 0;
        while (waiting.Count + inWork.Count > 0)
        {
            while (inWork.Count < processes && waiting.TryDequeue(out double next))
            {
                inWork.Add(next);
            }

            double least = inWork.Min();
            time += least * inWork.Count / (1 + ((inWork.Count - 1) * Together));
            inWork = [.. inWork.Select(rest => rest - least)];
            ends.AddRange(Enumerable.Repeat(time, inWork.RemoveAll(rest => rest <= 0)));
        }

        return ends;
    }
}
