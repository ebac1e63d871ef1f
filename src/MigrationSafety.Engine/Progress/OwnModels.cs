using System.Globalization;
using System.Text.RegularExpressions;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Engine.Progress;

/// <summary>What the server has no view for: backfills and other operations of this module, long DDL, logical replication.</summary>
internal static partial class OwnModels
{
    internal const string Stream = "LOGICAL REPLICATION";

    internal const string InitialCopy = "initial copy";

    // More than any session writes, and how much a file is taken to hold whose size this role may not see.
    private const double BytesPerSecond = 1e9;
    private const long UnseenSize = 5_000_000;

    // What a new file of an index, or of a table that nothing is written to yet, may hold.
    private const long FirstPage = 8192;

    // Beside an index page that is built, a page of the table that is read for it.
    private const double OfReading = 0.05;

    // Beside the pass, where it finds nothing: one scan of the table.
    private const double OfSweep = 0.02;

    /// <summary>Whether it is a backfill that nobody works on.</summary>
    internal static bool IsAtRest(string? phase) => phase is "interrupted" or "paused";

    /// <summary>Whether it is a backfill whose throttle lets nothing run, for as long as nobody can tell.</summary>
    internal static bool IsPaused(string? waiting) => waiting?.StartsWith($"throttle: {ThrottleDecision.PausedWord}", StringComparison.Ordinal) == true;

    internal static OperationState Backfill(ProgressSample sample)
    {
        long sweep = sample.Number("sweep") ?? 0;
        long workers = sample.Number("workers") ?? 0;
        long seen = sample.Number("rows_seen") ?? 0;
        string state = sample.Text("state") ?? "running";
        // The total is an estimate of the server's, and once it is passed, nobody knows how much is left; a sweep over rows that were locked comes when all have been seen.
        long? total = sample.Number("rows_in_table") is { } rows and > 0 && (sweep > 0 || seen <= rows) ? Math.Max(rows, seen) : null;
        return new OperationState
        {
            Operation = "BACKFILL",
            Phase = state != "running" ? state : sweep > 0 ? $"running, sweep {sweep}" : workers > 1 ? $"running, {workers} workers" : state,
            Done = seen,
            Total = total,
            // Whether it changed them or not.
            Unit = "rows read",
            Parts = total is null ? [] : [new("pass", 1), new("sweep", OfSweep)],
            Part = sweep > 0 && total is not null ? 1 : 0,
            Within = sweep > 0 ? null : OperationState.Fraction(seen, total),
            Estimated = true,
            // How many rows a sweep finds, nobody knows before it has.
            Basis = sweep > 0 ? ProgressConfidence.Assumed : ProgressConfidence.Measured,
            // What is written down while nobody works on it is old.
            Waiting = state == "running" && sample.Text("waiting_for") is { } reason ? reason.StartsWith(BlockerWatch.WaitsFor, StringComparison.Ordinal) ? reason[BlockerWatch.WaitsFor.Length..] : $"throttle: {reason}" : null,
        };
    }

    /// <summary>An operation of this module that shows in no view right now: it waits for its turn, looks, or is between two steps.</summary>
    internal static OperationState Operation(ProgressSample sample)
    {
        string? phase = sample.Text("phase");
        return new OperationState
        {
            Operation = NameOf(sample.Text("operation")!),
            Phase = phase ?? "running",
            Waiting = phase is not null && TurnWaits.Is(phase) ? phase["waiting for ".Length..] : null,
        };
    }

    /// <summary>What the log calls <c>IndexDrop</c> is INDEX DROP here.</summary>
    internal static string NameOf(string recorded) => WordPattern().Replace(recorded, " $0").ToUpperInvariant();

    /// <summary>
    /// A sample of long DDL without the files that its transaction had made before: they neither came nor grew since it was first looked at, and hold no more than was to be written before it began.
    /// </summary>
    /// <param name="sample">Sample.</param>
    /// <param name="first">The first one of the same statement; null for that one itself.</param>
    internal static ProgressSample OfStatement(ProgressSample sample, ProgressSample? first)
    {
        Dictionary<string, long> files = NewFiles(sample);
        Dictionary<string, long> before = first is null ? files : NewFiles(first);
        double written = BytesPerSecond * (sample.Facts.GetValueOrDefault("seconds_before") switch { double some => some, long whole => whole, _ => 0 });
        long[] own = [.. files.Where(file => !before.TryGetValue(file.Key, out long was) || file.Value > was || file.Value > written).Select(file => file.Value)];
        if (own.Length == files.Count)
        {
            return sample;
        }

        Dictionary<string, object> counters = new(sample.Counters, StringComparer.Ordinal) { ["new_files"] = (long)own.Length };
        if (counters.Remove("new_bytes") && own.Length > 0)
        {
            counters["new_bytes"] = own.Sum();
        }

        return sample with { Counters = counters };
    }

    internal static OperationState LongDdl(ProgressSample sample)
    {
        string operation = CommandOf(sample.Query ?? "");
        long files = sample.Number("new_files") ?? 0;
        long begun = sample.Number("indexes_begun") ?? 0;
        long indexes = sample.Number("indexes") ?? 0;
        bool queued = sample.WaitEventType == "Lock";
        OperationState state = new() { Operation = operation };
        if (operation.StartsWith("DROP", StringComparison.Ordinal))
        {
            return state with { Phase = !queued ? "running" : sample.WaitEvent == "virtualxid" ? TurnWaits.ForOldTransactions : "waiting for a lock" };
        }

        if (files == 0)
        {
            // Whether it scans the table or merely writes to the catalog, no server tells.
            return state with { Phase = queued ? "waiting for a lock" : NewFiles(sample).Count > 0 ? "running" : "running, without new files so far" };
        }

        long? written = sample.Number("new_bytes");
        long? old = sample.Number("old_bytes") is { } bytes and > 0 ? bytes : null;
        double heap = old ?? 0;
        // That an index page costs as much as six of the table is assumed, by what was measured with 2,000,000 rows and four indexes, two of them of text.
        double pages = (sample.Number("index_pages") ?? 0) * 8192.0 * 6;
        OperationPart[] parts = [new("rewriting table", heap), new("rebuilding indexes", pages)];
        // ALTER COLUMN TYPE locks the indexes that it is to replace from the beginning on: there the size of the new table has to tell, or that it has stopped to grow, which a smaller one does earlier.
        bool replaces = TypePattern().IsMatch(sample.Query ?? "");
        long before = replaces ? sample.Fact("begun_before") ?? 0 : 0;
        bool blank = old is not null && written < old && written <= files * FirstPage && NewFiles(sample).Count > 0;
        bool complete = !replaces || begun > before || (!blank && sample.Fact("stands") == 1) || (written is not null && old is not null && written >= 0.9 * old);
        if (begun == 0 || !complete)
        {
            if (blank)
            {
                // A file begins with a page, whatever is computed before there is a row for it.
                written = null;
            }

            // How large the table becomes is an estimate; once that is passed, nobody knows how much is left.
            long? total = written <= old ? old : null;
            return state with
            {
                Phase = sample.Target is null ? "writing a new table" : "rewriting table",
                PhaseNumber = indexes > 0 ? 1 : null,
                PhaseCount = indexes > 0 ? 2 : null,
                Done = written,
                Total = total,
                Unit = written is null ? null : "bytes",
                Parts = total is null ? [] : parts,
                Within = OperationState.Fraction(written, total),
                Estimated = true,
            };
        }

        // Those that are replaced are built after the others.
        long inWork = Math.Max(1, begun - before);
        double through = inWork - 1;
        double reached = inWork;
        double all = indexes;
        if (sample.Number("index_pages") is { } counted and > 0 && sample.Number("index_pages_begun") is { } begunPages)
        {
            // However few pages an index has, the table is read for it.
            double least = heap / 8192 * OfReading;
            double own = before == 0 ? begunPages : Math.Max(0, begunPages - (sample.Fact("pages_before") ?? 0));
            reached = own + (inWork * least);
            through = Math.Max(0, reached - least - (before == 0 ? sample.Number("index_pages_current") ?? 0 : own / inWork));
            all = counted + (indexes * least);
        }

        if (before > 0 && begun == indexes)
        {
            // How many of those that are replaced are through, no lock tells.
            reached = all;
        }

        return state with
        {
            Phase = "rebuilding indexes",
            PhaseNumber = 2,
            PhaseCount = 2,
            Done = inWork - 1,
            Total = indexes,
            Unit = "indexes",
            Parts = old is null ? [] : parts,
            Part = 1,
            Within = Math.Min(1, through / all),
            WithinNext = Math.Min(1, reached / all),
        };
    }

    internal static OperationState Replication(ProgressSample sample)
    {
        (long tables, long ready, long copied) = (sample.Number("tables") ?? 0, sample.Number("tables_ready") ?? 0, sample.Number("tables_copied") ?? 0);
        long? lag = sample.Number("lag_bytes");
        OperationState state = new() { Operation = Stream, Endless = ready == tables };
        if (sample.View == ProgressQueries.Subscription && ready < tables)
        {
            return state with
            {
                Phase = InitialCopy,
                PhaseNumber = 1,
                PhaseCount = 2,
                Done = copied,
                Total = tables,
                Unit = "tables",
                Parts = [new(InitialCopy, 1)],
                Within = OperationState.Fraction(copied, tables),
                // One table may be a thousand times another.
                Basis = ProgressConfidence.Assumed,
                Waiting = sample.Pid == 0 ? "a worker: none is running" : null,
            };
        }

        return state with
        {
            // What a subscriber has not been sent yet it does not know; while it waits for its publisher, it has applied the rest.
            Phase = sample.Pid == 0 ? "without a worker"
                : sample.Text("state") is { } at and not "streaming" ? at
                : lag > 0 ? "catching up"
                : sample.View == ProgressQueries.Publication || sample.Hidden || sample.WaitEventType == "Activity" ? "streaming" : "applying; its publisher knows how far behind it is",
            PhaseNumber = sample.View == ProgressQueries.Subscription ? 2 : null,
            PhaseCount = sample.View == ProgressQueries.Subscription ? 2 : null,
            Total = lag,
            Unit = lag is null ? null : "bytes",
        };
    }

    /// <summary>Whether a command is shown by a view of the server's once it has its lock.</summary>
    internal static bool HasView(string operation) => operation.Split(' ')[0] is "REINDEX" or "VACUUM" or "CLUSTER" or "ANALYZE" or "COPY" || operation.StartsWith("CREATE INDEX", StringComparison.Ordinal);

    /// <summary>The command by the text of its statement.</summary>
    private static string CommandOf(string query)
    {
        Match match = DdlPattern().Match(query);
        if (match.Success && (!match.Value.StartsWith("CREATE", StringComparison.OrdinalIgnoreCase) || AsPattern().IsMatch(query)))
        {
            string command = SpacePattern().Replace(match.Value, " ").ToUpperInvariant();
            return command.StartsWith("CREATE", StringComparison.Ordinal) ? command + " AS" : command;
        }

        Match queued = QueuedPattern().Match(query);
        return queued.Success ? SpacePattern().Replace($"{queued.Groups["verb"]} {queued.Groups["kind"]} {queued.Groups["how"]}", " ").Trim().ToUpperInvariant()
            : SelectPattern().IsMatch(query) ? "SELECT INTO" : "DDL";
    }

    /// <summary>Files that nobody else sees yet in pg_class, with their sizes.</summary>
    private static Dictionary<string, long> NewFiles(ProgressSample sample) =>
        ((sample.Facts.GetValueOrDefault("files") as string)?.Split('\n') ?? [])
            .Select(file => file.Split(' '))
            .ToDictionary(file => file[0], file => long.Parse(file[1], CultureInfo.InvariantCulture) is >= 0 and var size ? size : UnseenSize, StringComparer.Ordinal);

    [GeneratedRegex(@"\b(ALTER\s+(TABLE|MATERIALIZED\s+VIEW|DOMAIN|FOREIGN\s+TABLE)|REFRESH\s+MATERIALIZED\s+VIEW(\s+CONCURRENTLY)?|CREATE\s+(UNLOGGED\s+|TEMP(ORARY)?\s+)?(TABLE|MATERIALIZED\s+VIEW)|DROP\s+INDEX\s+CONCURRENTLY)\b", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex DdlPattern();

    [GeneratedRegex(@"\bAS[\s(]+(SELECT|WITH|TABLE|VALUES|EXECUTE)\b", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex AsPattern();

    /// <summary>What is shown only while it waits for its lock; by the names that the views have for the same.</summary>
    [GeneratedRegex(
        """
        (?:^|;|\n|\*/)\s*(?:
            (?<verb>CREATE)\s+(?:UNIQUE\s+)?(?<kind>INDEX)(?<how>\s+CONCURRENTLY\b)?
            |(?<verb>CREATE|DROP)(?:\s+(?:OR\s+REPLACE|CONSTRAINT|UNLOGGED|TEMP|TEMPORARY))*\s+(?<kind>MATERIALIZED\s+VIEW|FOREIGN\s+TABLE|\w+)
            |(?<verb>REINDEX|VACUUM)\b(?:[^;]*?\b(?<how>CONCURRENTLY|FULL)\b)?
            |(?<verb>COPY)\s+(?:\(.*\)|[^\s(]+\s*(?:\([^)]*\))?)\s*(?<how>FROM|TO)\b
            |(?<verb>TRUNCATE|CLUSTER|ANALYZE)\b)
        """,
        RegexOptions.IgnoreCase | RegexOptions.CultureInvariant | RegexOptions.IgnorePatternWhitespace)]
    private static partial Regex QueuedPattern();

    [GeneratedRegex(@"^\s*(WITH|SELECT)\b", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex SelectPattern();

    [GeneratedRegex(@"\bTYPE\b", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex TypePattern();

    [GeneratedRegex(@"(?<!^)[A-Z]")]
    private static partial Regex WordPattern();

    [GeneratedRegex(@"\s+")]
    private static partial Regex SpacePattern();
}
