namespace MigrationSafety.Engine.Progress;

/// <summary>ANALYZE, CLUSTER and VACUUM FULL: their work is pages, and the catalog knows how many the table and its indexes have.</summary>
internal static class MaintenanceModels
{
    // Beside a page of the table that is read and written anew, measured with 2,000,000 rows and four indexes: to build a page of an index again, by sequential
    // scan and by one along an index, whose pages of the table come in no order.
    private const double RebuiltPage = 6;
    private const double RebuiltPageByIndex = 1;

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
            // The statistics may know of fewer than there are.
            "index scanning heap" => (sample.Number("heap_tuples_scanned"), sample.Number("heap_tuples_scanned") >= tuples ? null : tuples, "tuples"),
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
            Done = total > 0 || phase == "index scanning heap" ? done : null,
            Total = total > 0 ? total : null,
            Unit = total > 0 || phase == "index scanning heap" ? unit : null,
            Parts = number < 0 || blocks is null ? [] : parts,
            Part = number switch { <= 2 => 0, 3 => 1, 4 => 2, _ => 3 },
            Within = number switch { 0 or 5 => 0, 3 => null, 7 => 1, 6 when rebuilds => (sample.Fact("index_pages_rebuilt") ?? 0) / pagesOfIndexes, _ => OperationState.Fraction(done, total) },
            WithinNext = rebuilds ? (sample.Fact("index_pages_rebuilding") ?? 0) / pagesOfIndexes : null,
            Estimated = phase == "index scanning heap",
        };
    }
}
