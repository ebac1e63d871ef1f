namespace MigrationSafety.Engine.Progress;

/// <summary>
/// VACUUM (manual, "VACUUM Progress Reporting"): the table is read, the indexes are rid of what points to dead rows, then the pages that had them; over again where memory does
/// not hold all dead rows. How long that takes is assumed from pages and dead rows, as measured on PostgreSQL 14 and 18; what is seen sets the pace.
/// </summary>
internal static class VacuumModel
{
    private const double SecondsOfIndexPage = 8e-6;

    private static readonly string[] s_phases =
        ["initializing", "scanning heap", "vacuuming indexes", "vacuuming heap", "cleaning up indexes", "truncating heap", "performing final cleanup"];

    // An autovacuum is slowed down on purpose: what the table's pages took says far more than the model does.
    private static readonly Trust s_trust = new(0.1, 0.15);

    internal static OperationState Of(ProgressSample sample)
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
        // One after the other: read, indexes, pages; where a pass ends no counter tells, but the table's go on through all of them.
        int pass = Math.Min(passes - 1, phase == "vacuuming heap" ? rounds - 1 : rounds);
        double Within(double all) => Math.Clamp((all * passes) - Math.Max(0, pass), 0, 1);
        (int part, double? within) = number switch
        {
            <= 1 => (0, Within(through)),
            2 => (1, (double?)null),
            3 => (2, Within(OperationState.Fraction(vacuumed, blocks) ?? 1)),
            _ => (2, 1),
        };
        // An index whose dead rows were removed needs nothing more.
        double cleaning = rounds == 0 && dead <= 0 ? SecondsOfIndexPage * (sample.Fact("index_pages") ?? 0) : 0;
        return state with
        {
            Done = done,
            Total = total,
            Unit = unit,
            Parts = [.. Enumerable.Repeat(Expected(sample, automatic, blocks, dead, passes), passes).SelectMany(one => one), new("cleaning up indexes", cleaning)],
            Part = number > 3 ? passes * 3 : (Math.Max(0, pass) * 3) + part,
            Within = number == 4 ? OperationState.Fraction(done, total) : within,
            Basis = ProgressConfidence.Assumed,
            Seconds = s_trust,
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
        int passes = through < 0.1 && rounds == 0 && phase == "scanning heap" ? 1 : (int)Math.Clamp(Math.Ceiling((full / Math.Max(through, 0.01)) - 0.05), rounds + 1, 100);
        double likely = Math.Max(known, rounds == 0 ? found / Math.Max(through, 0.1) : 0);
        return (rounds == 0 ? Math.Min(likely, found + ((1 - through) * likely)) : Math.Max(known, found * passes), passes);
    }

    /// <summary>Seconds of the parts of one pass.</summary>
    private static OperationPart[] Expected(ProgressSample sample, bool automatic, long blocks, double dead, int passes)
    {
        double touched = Math.Min(dead, blocks);
        double pages = sample.Fact("index_pages") ?? 0;
        double largest = sample.Fact("largest_index") ?? 0;
        double indexes = sample.Fact("indexes") ?? 0;
        // Each index by a process of its own, if there are as many; they share processors, disk and log. Where so few pages have dead rows, the indexes are left alone.
        double processes = automatic ? 1 : 1 + ((Math.Min(indexes, 1 + (sample.Fact("max_workers") ?? 0)) - 1) / 2);
        // Each pointer is looked for among the dead rows: before 17 in a sorted list, since then in a tree of bitmaps.
        double lookup = sample.Number("max_dead_tuples") is null ? 0.02e-6 : 0.012e-6 * Math.Log2(dead + 2);
        double pointers = Math.Max(0, sample.Fact("tuples") ?? 0) * passes;
        double Cost(double pages, double indexes) => (SecondsOfIndexPage * pages * passes) + (lookup * pointers * indexes) + (15e-6 * Math.Min(dead * indexes, pages * passes)) + (0.5e-6 * dead * indexes);
        double index = dead < 0.02 * blocks || indexes == 0 ? 0 : Math.Max(Cost(largest, 1), Cost(pages, indexes) / processes);
        return
        [
            new("scanning heap", ((6e-6 * blocks) + (7e-6 * touched) + (0.45e-6 * dead)) / passes),
            new("vacuuming indexes", index / passes),
            new("vacuuming heap", 5e-6 * touched / passes),
        ];
    }
}
