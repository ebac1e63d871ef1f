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
            .Border(bench.Screen.Interactive ? TableBorder.Rounded : TableBorder.Ascii)
            .Title("Application statements while a step runs (in brackets: without any step)")
            .AddColumn("Step");
        foreach (string column in (string[])["Duration", "Rows/s", "Statements", "p50", "p99", "Worst", "Waited for us", "Longest wait for us"])
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
        string Beside(Func<Latency, TimeSpan> figure) => alone is null ? Screen.Text(figure(latency)) : $"{Screen.Text(figure(latency))} ({Screen.Text(figure(alone))})";
        double seconds = figures.Measure.Duration.TotalSeconds;
        string wait = figures.Waits.Count == 0 ? "-" : Screen.Text(figures.WorstWait);
        string style = figures.WorstWait >= Bench.TooLong ? "red" : "default";
        return
        [
            new(figures.Measure.Name),
            new(Screen.Text(figures.Measure.Duration)),
            new(figures.Measure.Rows is { } rows && seconds > 0 ? (rows / seconds).ToString("N0", CultureInfo.InvariantCulture) : "-"),
            new(latency.Count.ToString("N0", CultureInfo.InvariantCulture)),
            new(latency.Count == 0 ? "-" : Beside(figure => figure.P50)),
            new(latency.Count == 0 ? "-" : Beside(figure => figure.P99)),
            new(latency.Count == 0 ? "-" : Beside(figure => figure.Worst)),
            new(figures.Waits.Count.ToString("N0", CultureInfo.InvariantCulture)),
            new(wait, Style.Parse(style)),
        ];
    }
}
