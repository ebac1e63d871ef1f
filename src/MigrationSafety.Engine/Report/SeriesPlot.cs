namespace MigrationSafety.Engine.Report;

/// <summary>A value over a stretch of time.</summary>
/// <param name="From">Beginning, since the beginning of the operation.</param>
/// <param name="To">End.</param>
/// <param name="Value">The value, on average.</param>
/// <param name="Most">The greatest value in it.</param>
internal readonly record struct SeriesPoint(TimeSpan From, TimeSpan To, double Value, double Most);

/// <summary>
/// A series as a picture: a stepped area for the averages, a lighter one behind it up to the greatest values, gaps where nothing was measured. Thousands of points
/// are put together in columns; single values far above all others do not flatten the rest, they are marked at the upper edge and named.
/// </summary>
internal static class SeriesPlot
{
    private const int MostColumns = 240;
    private const double Width = 1000;
    private const double Height = 100;

    /// <summary>Draws the plot.</summary>
    /// <param name="html">Where to.</param>
    /// <param name="title">What is shown, with its unit.</param>
    /// <param name="length">Length of the time axis.</param>
    /// <param name="points">The values in their order; one at least.</param>
    /// <param name="words">Writes a value.</param>
    /// <param name="average">The average over all, in words; null where there is none to name.</param>
    /// <param name="waits">When others were in the way.</param>
    internal static void Draw(
        HtmlWriter html,
        string title,
        TimeSpan length,
        IReadOnlyList<SeriesPoint> points,
        Func<double, string> words,
        string? average,
        IEnumerable<(TimeSpan From, TimeSpan To)> waits)
    {
        double most = points.Max(point => point.Most);
        SeriesPoint[] drawn = Reduce(points, length);
        double top = Ceiling(drawn);
        SeriesPoint[] beyond = [.. drawn.Where(point => point.Most > top)];
        string summary = average is null ? $"{words(most)} at most" : $"{average} on average, {words(most)} at most";
        string id = html.NewId();
        html.Open("figure", ("class", "plot"));
        html.Open("figcaption").Element("strong", null, title).Text(" ").Element("span", null, summary).Close();
        html.Open("div", ("class", "chart"));
        html.Open("div", ("class", "y"), ("aria-hidden", "true"));
        for (int i = 0; i <= 2; i++)
        {
            html.Open("span", ("style", $"top:{50 * i}%")).Text(words(top * (2 - i) / 2)).Close();
        }

        html.Close();
        html.Open("div", ("class", "field"));
        html.Open("svg", ("viewBox", "0 0 1000 100"), ("preserveAspectRatio", "none"), ("role", "img"), ("aria-labelledby", $"{id}t {id}d"));
        html.Open("title", ("id", id + "t")).Text(title).Close();
        html.Open("desc", ("id", id + "d")).Text($"{summary}, over {Durations.Text(length)}, in {drawn.Length} stretches.").Close();
        foreach ((TimeSpan from, TimeSpan to) in waits)
        {
            double x = X(from, length);
            html.Open("rect", ("class", "wait"), ("x", HtmlWriter.Number(x)), ("y", "0"), ("width", HtmlWriter.Number(Math.Max(2, X(to, length) - x))), ("height", "100"));
        }

        foreach (double y in new[] { 0.0, 50, 100 })
        {
            html.Open("line", ("class", "grid"), ("x1", "0"), ("x2", "1000"), ("y1", HtmlWriter.Number(y)), ("y2", HtmlWriter.Number(y)));
        }

        html.Open("path", ("class", "range"), ("d", Area(drawn, point => point.Most, top, length, closed: true)));
        html.Open("path", ("class", "area"), ("d", Area(drawn, point => point.Value, top, length, closed: true)));
        html.Open("path", ("class", "edge"), ("d", Area(drawn, point => point.Value, top, length, closed: false)));
        html.Close();
        foreach (SeriesPoint point in beyond)
        {
            html.Open("span", ("class", "beyond"), ("style", $"left:{HtmlWriter.Number((X(point.From, length) + X(point.To, length)) / 20)}%"), ("title", words(point.Most))).Text("▲").Close();
        }

        html.Close();
        Axis(html, length);
        html.Close();
        if (beyond.Length > 0)
        {
            html.Element("p", "note", beyond.Length == 1
                ? $"▲ One value is beyond the scale: {words(most)} after {Durations.Text(beyond[0].From)}."
                : $"▲ {beyond.Length} values are beyond the scale, up to {words(most)}.");
        }

        html.Close();
    }

    /// <summary>The labels below a time axis.</summary>
    internal static void Axis(HtmlWriter html, TimeSpan length)
    {
        html.Open("div", ("class", "x"), ("aria-hidden", "true"));
        foreach (TimeSpan tick in Scale.Ticks(length))
        {
            double percent = X(tick, length) / 10;
            html.Open("span", ("class", percent > 90 ? "last" : percent < 1 ? "first" : null), ("style", $"left:{HtmlWriter.Number(percent)}%")).Text(Scale.Tick(tick)).Close();
        }

        html.Close();
    }

    /// <summary>Where on the picture a time is.</summary>
    internal static double X(TimeSpan time, TimeSpan length) => length > TimeSpan.Zero ? Math.Clamp(Width * (time / length), 0, Width) : 0;

    /// <summary>Puts neighbours together where there are more than can be told apart: the average over their time, and the greatest of all.</summary>
    internal static SeriesPoint[] Reduce(IReadOnlyList<SeriesPoint> points, TimeSpan length)
    {
        if (points.Count <= MostColumns)
        {
            return [.. points];
        }

        TimeSpan width = length / MostColumns;
        return
        [
            .. points.GroupBy(point => (int)Math.Clamp((point.From + ((point.To - point.From) / 2)) / width, 0, MostColumns - 1)).OrderBy(column => column.Key).Select(column =>
            {
                double time = column.Sum(point => (point.To - point.From).TotalSeconds);
                double value = time > 0 ? column.Sum(point => point.Value * (point.To - point.From).TotalSeconds) / time : column.Average(point => point.Value);
                return new SeriesPoint(column.Min(point => point.From), column.Max(point => point.To), value, column.Max(point => point.Most));
            }),
        ];
    }

    /// <summary>The end of the scale: round, and not that of a few values far above all others.</summary>
    private static double Ceiling(SeriesPoint[] points)
    {
        double[] sorted = [.. points.Select(point => point.Most).Order()];
        double usual = sorted[(int)((sorted.Length - 1) * 0.95)];
        return sorted.Length >= 10 && usual > 0 && sorted[^1] > 4 * usual ? Scale.Top(usual * 1.25) : Scale.Top(sorted[^1]);
    }

    private static string Area(SeriesPoint[] points, Func<SeriesPoint, double> value, double top, TimeSpan length, bool closed)
    {
        // What is shorter than that is a break between two looks, not a gap.
        TimeSpan gap = length / 200;
        System.Text.StringBuilder path = new();
        for (int i = 0; i < points.Length; i++)
        {
            double left = X(points[i].From, length);
            double right = Math.Max(X(points[i].To, length), Math.Min(Width, left + 2));
            string y = HtmlWriter.Number(Height - (Height * Math.Clamp(value(points[i]) / top, 0, 1)));
            bool begins = i == 0 || points[i].From - points[i - 1].To > gap;
            bool ends = i == points.Length - 1 || points[i + 1].From - points[i].To > gap;
            string start = begins ? $"M{HtmlWriter.Number(left)},{(closed ? "100" : y)}" : "";
            string step = closed || !begins ? $"V{y}" : "";
            string across = $"H{HtmlWriter.Number(right)}";
            path.Append(start).Append(step).Append(across);
            path.Append(ends && closed ? "V100Z" : "");
        }

        return path.ToString();
    }
}
