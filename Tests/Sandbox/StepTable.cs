using System.Globalization;
using Spectre.Console;

namespace MigrationSafety.Sandbox;

/// <summary>The table at the end: what was done, how fast, and what the application felt beside what it feels without us.</summary>
internal static class StepTable
{
    internal static Table Draw(Bench bench)
    {
        Latency? alone = bench.Baseline is { } baseline ? bench.Of(baseline).Latency : null;
        Table table = new Table()
            .Border(bench.Screen.Interactive ? TableBorder.Simple : TableBorder.Ascii)
            .Title("The application's statements during each step, in ms\n(in brackets: without any step)")
            .AddColumn(new TableColumn("Step").NoWrap());
        foreach (string column in (string[])["Took", "Rows/s", "Number", "p50", "p99", "Worst", "Waited\nfor us", "Longest\nwait"])
        {
            table.AddColumn(new TableColumn(column).RightAligned().NoWrap());
        }

        foreach (Figures figures in bench.Figures())
        {
            table.AddRow(Row(figures, alone));
        }

        if (bench.Baseline is { } none)
        {
            table.AddRow(Row(bench.Of(none), null));
        }

        return table;
    }

    private static Text[] Row(Figures figures, Latency? alone)
    {
        Latency latency = figures.Latency;
        string Beside(Func<Latency, TimeSpan> figure) =>
            latency.Count == 0 ? "-" : alone is null ? Milliseconds(figure(latency)) : $"{Milliseconds(figure(latency))} ({Milliseconds(figure(alone))})";
        double seconds = figures.Measure.Duration.TotalSeconds;
        string wait = figures.Waits.Count == 0 ? "-" : Milliseconds(figures.WorstWait);
        string style = figures.WorstWait >= Bench.TooLong ? "red" : "default";
        return
        [
            new(figures.Measure.Name),
            new(Screen.Text(figures.Measure.Duration)),
            new(figures.Measure.Rows is { } rows && seconds > 0 ? (rows / seconds).ToString("N0", CultureInfo.InvariantCulture) : "-"),
            new(latency.Count.ToString("N0", CultureInfo.InvariantCulture)),
            new(Beside(figure => figure.P50)),
            new(Beside(figure => figure.P99)),
            new(Beside(figure => figure.Worst)),
            new(figures.Waits.Count.ToString("N0", CultureInfo.InvariantCulture)),
            new(wait, Style.Parse(style)),
        ];
    }

    private static string Milliseconds(TimeSpan time) => time.TotalMilliseconds.ToString(time.TotalMilliseconds < 10 ? "0.0" : "0", CultureInfo.InvariantCulture);
}
