using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Rollback;

namespace MigrationSafety.Engine.Report;

/// <summary>
/// The report of operations for a change ticket: one HTML file that needs nothing else. No script, nothing from the network; its policy forbids both.
/// </summary>
public static class MigrationReport
{
    private const int MostRows = 40;
    private const int MostSections = 200;

    /// <summary>Writes the report.</summary>
    /// <param name="title">Its title.</param>
    /// <param name="operations">The operations, one at least; they are told in the order in which they began, each once.</param>
    /// <param name="now">When it is made.</param>
    /// <returns>HTML, well-formed as XML too.</returns>
    public static string Write(string title, IReadOnlyList<MigrationOperation> operations, DateTimeOffset now)
    {
        ArgumentNullException.ThrowIfNull(title);
        ArgumentNullException.ThrowIfNull(operations);
        ArgumentOutOfRangeException.ThrowIfZero(operations.Count);
        operations = HistoryReader.InOrder(operations, operation => operation);
        HtmlWriter html = new();
        html.Raw("<!DOCTYPE html>\n").Open("html", ("lang", "en")).Open("head");
        html.Open("meta", ("charset", "utf-8"));
        html.Open("meta", ("http-equiv", "Content-Security-Policy"), ("content", "default-src 'none'; style-src 'unsafe-inline'"));
        html.Open("meta", ("name", "viewport"), ("content", "width=device-width, initial-scale=1"));
        html.Open("meta", ("name", "referrer"), ("content", "no-referrer"));
        html.Element("title", null, title);
        html.Open("style").Raw(ReportStyle.Css).Close();
        html.Close();
        html.Open("body").Open("main");
        // Those that did not succeed, and the latest.
        HashSet<int> told = [.. Enumerable.Range(0, operations.Count).OrderByDescending(i => IsBad(operations[i])).ThenByDescending(i => i).Take(MostSections)];
        Head(html, title, operations, told);
        foreach (int i in told.Order())
        {
            new OperationSection(html, operations[i], Anchor(i), operations.Count > 1 ? $"{i + 1}. " : "").Write();
        }

        InBrief(html, [.. Enumerable.Range(0, operations.Count).Where(i => !told.Contains(i)).Select(i => (operations[i], i + 1))]);
        WayBack(html, operations);
        html.Element("footer", null, $"Made {Time(now)} by MigrationSafety {typeof(MigrationReport).Assembly.GetName().Version?.ToString(3)} from the log of operations (migration_safety.operation). Times are by the server's clock.");
        html.Close().Close().Close();
        return html.ToString();
    }

    internal static string Time(DateTimeOffset time) => Scale.Text($"{time:yyyy-MM-dd HH:mm:ss} {(time.Offset == TimeSpan.Zero ? "UTC" : Scale.Text($"{time:zzz}"))}");

    internal static (string Word, string Kind) Outcome(OperationOutcome outcome) => outcome switch
    {
        OperationOutcome.Succeeded => ("Succeeded", "good"),
        OperationOutcome.Failed => ("Failed", "bad"),
        OperationOutcome.Cancelled => ("Cancelled", "warn"),
        OperationOutcome.Interrupted => ("Interrupted", "bad"),
        _ => ("Running", "busy"),
    };

    internal static void Fact(HtmlWriter html, string name, string? value)
    {
        if (!string.IsNullOrEmpty(value))
        {
            html.Open("div").Element("dt", null, name).Element("dd", null, value).Close();
        }
    }

    /// <summary>How an operation's bar looks.</summary>
    internal static string Kind(OperationOutcome outcome) => outcome switch
    {
        OperationOutcome.Succeeded or OperationOutcome.Running => "done",
        OperationOutcome.Cancelled => "ended",
        _ => "failed",
    };

    private static string Anchor(int index) => $"operation-{index + 1}";

    private static bool IsBad(MigrationOperation operation) => operation.Outcome is OperationOutcome.Failed or OperationOutcome.Interrupted;

    private static void Head(HtmlWriter html, string title, IReadOnlyList<MigrationOperation> operations, HashSet<int> told)
    {
        DateTimeOffset first = operations.Min(operation => operation.StartedAt);
        DateTimeOffset last = operations.Max(operation => operation.StartedAt + operation.Duration);
        int bad = operations.Count(IsBad);
        int stopped = operations.Count(operation => operation.Outcome == OperationOutcome.Cancelled);
        int running = operations.Count(operation => operation.Outcome == OperationOutcome.Running);
        (string verdict, string kind) = operations.Count == 1 && bad + stopped > 0 ? Outcome(operations[0].Outcome)
            : bad > 0 ? ($"{bad} of {operations.Count} did not succeed", "bad")
            : running > 0 ? ("Still running", "busy")
            // Somebody wanted that, and may have let it go on since.
            : stopped > 0 ? ($"{stopped} of {operations.Count} {(stopped == 1 ? "was" : "were")} stopped", "warn")
            : (operations.Count == 1 ? "Succeeded" : $"All {operations.Count} succeeded", "good");
        html.Open("header");
        html.Open("div", ("class", "head")).Element("h1", null, title).Element("span", $"badge {kind}", verdict).Close();
        html.Element("p", "sub", $"{string.Join(", ", operations.Select(Place).Distinct())} · {Time(first)}");
        html.Open("dl", ("class", "facts"));
        Fact(html, "Operations", $"{operations.Count}");
        Fact(html, "From first to last", Durations.Text(last - first));
        Fact(html, "Rows changed", operations.Any(operation => operation.Rows is not null) ? Scale.Text($"{operations.Sum(operation => operation.Rows ?? 0):N0}") : null);
        Fact(html, "Waited for others", Waited(operations.Aggregate(TimeSpan.Zero, (sum, operation) => sum + operation.WaitTime)));
        Fact(html, "Tried again", Times(operations.Sum(operation => operation.Retries)));
        Fact(html, "Run by", string.Join(", ", operations.Select(operation => operation.User).Where(user => user is not null).Distinct()));
        Fact(html, "Taken back", $"{(running > 0 ? "not before its end; then: " : "")}{Reversible(RollbackGenerator.ReversibilityOf(operations.SelectMany(Ran)))}");
        html.Close();
        if (operations.Count > 1)
        {
            (MigrationOperation Operation, int Index)[] drawn = [.. operations.Select((operation, i) => (operation, i)).OrderByDescending(one => one.operation.Duration).Take(MostRows).OrderBy(one => one.i)];
            BarRows.Draw(
                html,
                "The operations in time",
                last - first,
                [
                    .. drawn.Select(one => new BarRow(
                        $"{one.Index + 1}. {Cut(one.Operation.Action, 70)}",
                        Durations.Text(one.Operation.Duration),
                        [new Bar(one.Operation.StartedAt - first, one.Operation.StartedAt + one.Operation.Duration - first, Kind(one.Operation.Outcome), $"{Outcome(one.Operation.Outcome).Word}, {Durations.Text(one.Operation.Duration)}")],
                        told.Contains(one.Index) ? Anchor(one.Index) : null)),
                ],
                operations.Count > drawn.Length ? $"{operations.Count - drawn.Length} shorter operations are not drawn." : null);
        }

        html.Close();
    }

    /// <summary>A line each of those that there is no room for.</summary>
    private static void InBrief(HtmlWriter html, (MigrationOperation Operation, int Number)[] others)
    {
        if (others.Length == 0)
        {
            return;
        }

        html.Open("section", ("id", "in-brief"));
        html.Element("h2", null, "The others in brief");
        html.Element("p", "note", $"{others.Length} more operations have a line each. To be told more of them, report fewer: Get-MigrationHistory -Since, -Until, -Last and -Id choose.");
        foreach ((MigrationOperation operation, int number) in others)
        {
            html.Element("p", "meta", $"{number}. {Time(operation.StartedAt)} · {Durations.Text(operation.Duration)} · {Outcome(operation.Outcome).Word} · {Place(operation)}, entry {operation.Id} · {Cut(operation.Action, 200)}");
        }

        html.Close();
    }

    private static void WayBack(HtmlWriter html, IReadOnlyList<MigrationOperation> operations)
    {
        html.Open("section", ("id", "way-back"));
        html.Element("h2", null, "The way back");
        foreach (var database in operations.GroupBy(Place))
        {
            RollbackScript script = RollbackGenerator.FromSteps(RollbackText.OneLine(string.Join(", ", database.Select(operation => operation.Action)), 500), [.. database.SelectMany(Ran)]);
            string running = string.Join(", ", database.Where(operation => operation.Outcome == OperationOutcome.Running).Select(operation => operation.Action));
            html.Element("p", "meta", $"{database.Key}: {Reversible(script.Reversibility)}. The script takes the last operation back first; {(running.Length == 0 ? "New-RollbackScript makes the same from the log." : "it is not for now:")}");
            if (running.Length > 0)
            {
                html.Element("p", "note", $"Still running: {running}. The script takes back what that is going to have done at its end. Stop it first, or wait; then New-RollbackScript makes one of what was really done.");
            }

            html.Open("pre").Open("code").Text(script.Text.TrimEnd()).Close().Close();
        }

        html.Close();
    }

    internal static string Place(MigrationOperation operation) => $"{operation.Database} on {operation.Server}{(operation.Port > 0 ? $":{operation.Port}" : "")}";

    internal static string Waited(TimeSpan time) => time > TimeSpan.Zero ? Durations.Text(time) : "not at all";

    internal static string Times(long times) => times switch { 0 => "never", 1 => "once", _ => Scale.Text($"{times:N0} times") };

    internal static string Reversible(Reversibility reversibility) => reversibility switch
    {
        Reversibility.Reversible => "can be taken back",
        Reversibility.ReversibleWithDataLoss => "can be taken back, with a loss of data",
        Reversibility.Irreversible => "cannot be taken back in full",
        Reversibility.NotNeeded => "nothing to take back",
        _ => "not known in full",
    };

    internal static string Cut(string text, int length)
    {
        string line = string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
        return line.Length <= length ? line : line[..(char.IsHighSurrogate(line[length - 1]) ? length - 1 : length)].TrimEnd() + "…";
    }

    /// <summary>The steps, where an operation still runs as they are going to be at its end: what is begun has to be taken back too.</summary>
    private static IEnumerable<MigrationStep> Ran(MigrationOperation operation) => operation.Outcome == OperationOutcome.Running
        ? operation.Steps.Select(step => step.State == StepState.Planned ? step with { State = StepState.Done } : step)
        : operation.Steps;
}
