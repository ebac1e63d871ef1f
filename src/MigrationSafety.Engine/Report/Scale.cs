using System.Globalization;

namespace MigrationSafety.Engine.Report;

/// <summary>Axes: round ends, round steps, and numbers in words.</summary>
internal static class Scale
{
    private static readonly double[] s_roundFactors = [1, 2, 5, 10];

    private static readonly TimeSpan[] s_timeSteps =
    [
        TimeSpan.FromMilliseconds(1), TimeSpan.FromMilliseconds(2), TimeSpan.FromMilliseconds(5), TimeSpan.FromMilliseconds(10), TimeSpan.FromMilliseconds(20),
        TimeSpan.FromMilliseconds(50), TimeSpan.FromMilliseconds(100), TimeSpan.FromMilliseconds(200), TimeSpan.FromMilliseconds(500), TimeSpan.FromSeconds(1),
        TimeSpan.FromSeconds(2), TimeSpan.FromSeconds(5), TimeSpan.FromSeconds(10), TimeSpan.FromSeconds(20), TimeSpan.FromSeconds(30), TimeSpan.FromMinutes(1),
        TimeSpan.FromMinutes(2), TimeSpan.FromMinutes(5), TimeSpan.FromMinutes(10), TimeSpan.FromMinutes(20), TimeSpan.FromMinutes(30), TimeSpan.FromHours(1),
        TimeSpan.FromHours(2), TimeSpan.FromHours(6), TimeSpan.FromHours(12), TimeSpan.FromDays(1), TimeSpan.FromDays(2), TimeSpan.FromDays(7), TimeSpan.FromDays(30),
    ];

    /// <summary>The round number at or above a value: 1, 2, 5 or 10 times a power of ten.</summary>
    internal static double Top(double value)
    {
        if (value <= 0)
        {
            return 1;
        }

        double power = Math.Pow(10, Math.Floor(Math.Log10(value)));
        return s_roundFactors.Select(factor => factor * power).First(top => top >= value * 0.999999);
    }

    /// <summary>Round times from nothing to the end, four or five at most.</summary>
    internal static IEnumerable<TimeSpan> Ticks(TimeSpan length)
    {
        TimeSpan step = s_timeSteps.FirstOrDefault(step => length / step <= 4.5, length / 4);
        for (TimeSpan tick = TimeSpan.Zero; tick <= length && step > TimeSpan.Zero; tick += step)
        {
            yield return tick;
        }
    }

    internal static string Tick(TimeSpan time) => time switch
    {
        { Ticks: 0 } => "0",
        { TotalSeconds: < 1 } => Text($"{time.TotalMilliseconds:0} ms"),
        { TotalMinutes: < 1 } => Text($"{time.TotalSeconds:0} s"),
        { TotalHours: < 1 } => time.Seconds == 0 ? Text($"{time.TotalMinutes:0} min") : Text($"{(int)time.TotalMinutes}:{time.Seconds:00} min"),
        { TotalDays: < 1 } => time.Minutes == 0 ? Text($"{time.TotalHours:0} h") : Text($"{(int)time.TotalHours}:{time.Minutes:00} h"),
        _ => Text($"{time.TotalDays:0.#} d"),
    };

    /// <summary>1,234 rows a second as 1.2k.</summary>
    internal static string Count(double value) => value switch
    {
        0 => "0",
        < 1 => Text($"{value:0.##}"),
        < 1000 => Text($"{value:0.#}"),
        < 1e6 => Text($"{value / 1e3:0.#}k"),
        < 1e9 => Text($"{value / 1e6:0.#}M"),
        _ => Text($"{value / 1e9:0.#}G"),
    };

    internal static string Seconds(double value) => value == 0 ? "0" : value < 0.01 ? Text($"{value * 1000:0.##} ms") : Durations.Text(TimeSpan.FromSeconds(value));

    internal static string Bytes(double value) => value switch
    {
        < 1e3 => Text($"{value:0} B"),
        < 1e6 => Text($"{value / 1e3:0.#} kB"),
        < 1e9 => Text($"{value / 1e6:0.#} MB"),
        _ => Text($"{value / 1e9:0.#} GB"),
    };

    internal static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
