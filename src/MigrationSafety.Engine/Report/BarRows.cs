namespace MigrationSafety.Engine.Report;

/// <summary>A stretch of a row.</summary>
/// <param name="From">Beginning, since the beginning of the picture.</param>
/// <param name="To">End.</param>
/// <param name="Kind">CSS class: a state, or a wait.</param>
/// <param name="Words">What it is, for who points at it.</param>
internal readonly record struct Bar(TimeSpan From, TimeSpan To, string Kind, string Words);

/// <summary>A row of a timeline.</summary>
/// <param name="Label">What it is about.</param>
/// <param name="Time">How long, in words.</param>
/// <param name="Bars">Its stretches; later ones lie above earlier ones.</param>
/// <param name="Link">Id of the element that tells more; null where none does.</param>
internal sealed record BarRow(string Label, string Time, IReadOnlyList<Bar> Bars, string? Link = null);

/// <summary>Stretches of time as bars, a row for each thing that took time.</summary>
internal static class BarRows
{
    internal static void Draw(HtmlWriter html, string title, TimeSpan length, IReadOnlyList<BarRow> rows, string? note = null)
    {
        html.Open("figure", ("class", "rows"));
        html.Open("figcaption").Element("strong", null, title).Close();
        foreach (BarRow row in rows)
        {
            html.Open("div", ("class", "row"));
            html.Open("span", ("class", "label"));
            if (row.Link is null)
            {
                html.Text(row.Label);
            }
            else
            {
                html.Open("a", ("href", "#" + row.Link)).Text(row.Label).Close();
            }

            html.Close();
            html.Element("span", "time", row.Time);
            html.Open("svg", ("viewBox", "0 0 1000 10"), ("preserveAspectRatio", "none"), ("role", "img"), ("aria-label", $"{row.Label}: {string.Join("; ", row.Bars.Select(bar => bar.Words).Take(20))}"));
            html.Open("rect", ("class", "track"), ("x", "0"), ("y", "0"), ("width", "1000"), ("height", "10"));
            foreach (Bar bar in row.Bars)
            {
                double x = Math.Min(997, SeriesPlot.X(bar.From, length));
                double width = Math.Max(3, SeriesPlot.X(bar.To, length) - x);
                html.Open("rect", ("class", bar.Kind), ("x", HtmlWriter.Number(x)), ("y", "0"), ("width", HtmlWriter.Number(width)), ("height", "10"));
            }

            html.Close();
            html.Close();
        }

        html.Open("div", ("class", "row axis"));
        SeriesPlot.Axis(html, length);
        html.Close();
        if (note is not null)
        {
            html.Element("p", "note", note);
        }

        html.Close();
    }
}
