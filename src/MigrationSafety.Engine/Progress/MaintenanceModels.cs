namespace MigrationSafety.Engine.Progress;

/// <summary>VACUUM, ANALYZE, CLUSTER and VACUUM FULL: their work is pages, and the catalog knows how many the table and its indexes have.</summary>
internal static class MaintenanceModels
{
    // Pages are read and written, and keys sorted: that an index page costs as much as two of the table is assumed.
    private const double IndexPage = 2;

    // Beside a page of the table that is read and written anew, measured with 2,000,000 rows and four indexes: to build a page of an index again, by sequential
    // scan and by one along an index, whose pages of the table come in no order.
    private const double RebuiltPage = 6;
    private const double RebuiltPageByIndex = 1;

    internal static OperationState Vacuum(ProgressSample sample)
    {
        string[] phases = ["initializing", "scanning heap", "vacuuming indexes", "vacuuming heap", "cleaning up indexes", "truncating heap", "performing final cleanup"];
        string? phase = sample.Text("phase");
        int number = Array.IndexOf(phases, phase);
        OperationState state = new()
        {
            Operation = sample.User is null && !sample.Hidden ? "AUTOVACUUM" : "VACUUM",
            Phase = phase,
            PhaseNumber = number < 0 ? null : number + 1,
            PhaseCount = number < 0 ? null : phases.Length,
            Waiting = sample.WaitEvent == "VacuumDelay" ? "throttle: vacuum_cost_delay" : null,
        };
        long scanned = sample.Number("heap_blks_scanned") ?? 0;
        long vacuumed = sample.Number("heap_blks_vacuumed") ?? 0;
        if (number < 0 || sample.Number("heap_blks_total") is not { } blocks)
        {
            return state;
        }

        long indexPages = sample.Fact("index_pages") ?? 0;
        long rounds = sample.Number("index_vacuum_count") ?? 0;
        // Since 17, how many indexes are through.
        (long? indexesDone, long? indexes) = (sample.Number("indexes_processed"), sample.Number("indexes_total"));
        bool atIndexes = phase is "vacuuming indexes" or "cleaning up indexes";
        (long? done, long? total, string? unit) = phase switch
        {
            "scanning heap" => (scanned, blocks, "blocks"),
            "vacuuming heap" => (vacuumed, blocks, "blocks"),
            _ when atIndexes && indexes > 0 => (indexesDone, indexes, "indexes"),
            _ => ((long?)null, (long?)null, (string?)null),
        };
        // Where dead rows are known, the indexes are gone through at least once, and then the pages that had them.
        bool dead = sample.Fact("dead_tuples") > 0 || sample.Number("num_dead_tuples") > 0 || sample.Number("num_dead_item_ids") > 0 || rounds > 0 || number is 2 or 3;
        long passes = dead ? Math.Max(1, rounds + (phase is "vacuuming indexes" or "scanning heap" && scanned < blocks ? 1 : 0)) : 0;
        double index = passes * indexPages * IndexPage;
        OperationPart[] parts = [new("scanning heap", blocks), new("vacuuming indexes", index), new("vacuuming heap", dead ? blocks * 0.3 : 0), new("cleaning up indexes", dead ? 0 : indexPages)];
        double all = Math.Max(1, parts.Sum(part => part.Share));
        // Scanning and removing take turns where memory does not hold all dead rows: the scan's counter goes on, and the parts are what was done of each.
        double Through(double rounds) => (scanned + Math.Min(rounds * indexPages * IndexPage, index) + (blocks > 0 ? Math.Min(1, (double)vacuumed / blocks) * parts[2].Share : 0)) / all;
        double Cleaned(double share) => (parts[..3].Sum(part => part.Share) + (share * parts[3].Share)) / all;
        // Since 17 the indexes are counted; before, and while one of them is in work, the time tells.
        double through = OperationState.Fraction(indexesDone, indexes) ?? 0;
        double reached = OperationState.Fraction(indexesDone + 1, indexes) ?? 1;
        (double within, double? next) = phase switch
        {
            "vacuuming indexes" => (Through(rounds + through), Through(rounds + reached)),
            "cleaning up indexes" => (Cleaned(through), Cleaned(reached)),
            _ when number <= 3 => (Through(rounds), (double?)null),
            _ => (1, null),
        };
        return state with { Done = done, Total = total, Unit = unit, Parts = [new("all", all)], Within = Math.Min(1, within), WithinNext = next is { } end ? Math.Min(1, end) : null, Basis = ProgressConfidence.Assumed };
    }

    internal static OperationState Analyze(ProgressSample sample)
    {
        string[] phases = ["initializing", "acquiring sample rows", "acquiring inherited sample rows", "computing statistics", "computing extended statistics", "finalizing analyze"];
        string? phase = sample.Text("phase");
        int number = Array.IndexOf(phases, phase);
        OperationPart[] parts = [new("acquiring sample rows", 0.8), new("computing statistics", 0.2)];
        (long? done, long? total, string? unit) = phase switch
        {
            "acquiring sample rows" => (sample.Number("sample_blks_scanned"), sample.Number("sample_blks_total"), "blocks"),
            "acquiring inherited sample rows" => (sample.Number("child_tables_done"), sample.Number("child_tables_total"), "tables"),
            "computing extended statistics" => (sample.Number("ext_stats_computed"), sample.Number("ext_stats_total"), "statistics"),
            _ => ((long?)null, (long?)null, (string?)null),
        };
        double? within = OperationState.Fraction(done, total);
        if (phase == "acquiring inherited sample rows" && total > 0)
        {
            // The table in work is one of the children.
            within = Math.Min(1, ((done ?? 0) + (OperationState.Fraction(sample.Number("sample_blks_scanned"), sample.Number("sample_blks_total")) ?? 0)) / total.Value);
        }

        return new OperationState
        {
            Operation = sample.User is null && !sample.Hidden ? "AUTOANALYZE" : "ANALYZE",
            Phase = phase,
            PhaseNumber = number < 0 ? null : number + 1,
            PhaseCount = number < 0 ? null : phases.Length,
            Done = done,
            Total = total is > 0 ? total : null,
            Unit = total is > 0 ? unit : null,
            Parts = number < 0 ? [] : parts,
            Part = number <= 2 ? 0 : 1,
            Within = number switch { <= 2 => within ?? 0, 5 => 1, _ => null },
            Waiting = sample.WaitEvent == "VacuumDelay" ? "throttle: vacuum_cost_delay" : null,
        };
    }

    internal static OperationState Cluster(ProgressSample sample)
    {
        string[] phases =
            ["initializing", "seq scanning heap", "index scanning heap", "sorting tuples", "writing new heap", "swapping relation files", "rebuilding index", "performing final cleanup"];
        string? phase = sample.Text("phase");
        int number = Array.IndexOf(phases, phase);
        long? blocks = sample.Number("heap_blks_total") is { } counted and > 0 ? counted : sample.Fact("pages") is { } pages and > 0 ? pages : null;
        long? tuples = sample.Fact("tuples") is { } rows and > 0 ? rows : null;
        long? indexes = sample.Fact("indexes");
        (long? done, long? total, string? unit) = phase switch
        {
            "seq scanning heap" => (sample.Number("heap_blks_scanned"), blocks, "blocks"),
            "index scanning heap" => (sample.Number("heap_tuples_scanned"), tuples, "tuples"),
            "writing new heap" => (sample.Number("heap_tuples_written"), sample.Number("heap_tuples_scanned"), "tuples"),
            "rebuilding index" => (sample.Number("index_rebuild_count"), indexes, "indexes"),
            _ => ((long?)null, (long?)null, (string?)null),
        };
        double heap = blocks ?? 1;
        double pagesOfIndexes = sample.Fact("index_pages") ?? 0;
        bool rebuilds = phase == "rebuilding index" && pagesOfIndexes > 0;
        // CLUSTER by sorting counts blocks and writes tuples after the sort; along the index it counts tuples alone and writes them as they are read.
        bool clusters = sample.Number("cluster_index_relid") is > 0;
        bool alongIndex = clusters && (phase == "index scanning heap" || (number >= 5 && sample.Number("heap_blks_scanned") is null or 0));
        bool sorts = clusters && !alongIndex;
        double index = pagesOfIndexes * (alongIndex ? RebuiltPageByIndex : RebuiltPage);
        OperationPart[] parts = sorts
            ? [new("seq scanning heap", heap), new("sorting tuples", heap * 0.5), new("writing new heap", heap), new("rebuilding index", index)]
            : [new("seq scanning heap", heap), new("sorting tuples", 0), new("writing new heap", 0), new("rebuilding index", index)];
        return new OperationState
        {
            Operation = sample.Text("command") ?? "CLUSTER or VACUUM FULL",
            Phase = phase,
            PhaseNumber = number < 0 ? null : number + 1,
            PhaseCount = number < 0 ? null : phases.Length,
            Done = total > 0 ? done : null,
            Total = total > 0 ? total : null,
            Unit = total > 0 ? unit : null,
            Parts = number < 0 || blocks is null ? [] : parts,
            Part = number switch { <= 2 => 0, 3 => 1, 4 => 2, _ => 3 },
            Within = number switch { 0 or 5 => 0, 3 => null, 7 => 1, 6 when rebuilds => (sample.Fact("index_pages_rebuilt") ?? 0) / pagesOfIndexes, _ => OperationState.Fraction(done, total) },
            WithinNext = rebuilds ? (sample.Fact("index_pages_rebuilding") ?? 0) / pagesOfIndexes : null,
            Estimated = phase == "index scanning heap",
        };
    }
}
