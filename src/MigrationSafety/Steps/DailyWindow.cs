using System.Globalization;
using System.Text.RegularExpressions;

namespace MigrationSafety;

/// <summary>
/// The hours of each day in which something may run: <c>22:00-05:00</c> goes over midnight. They are those of the server's clock, in the time zone that follows
/// (<c>22:00-05:00 Europe/Berlin</c>) or else in the server's own (its setting TimeZone), whatever clock the client has.
/// </summary>
public sealed partial class DailyWindow
{
    /// <summary>From a text.</summary>
    /// <param name="text"><c>HH:mm-HH:mm</c>, and a time zone as PostgreSQL names it where it is not the server's.</param>
    public DailyWindow(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        Match match = Pattern().Match(text.Trim());
        if (!match.Success || !TryTime(match.Groups[1].Value, out TimeOnly from) || !TryTime(match.Groups[2].Value, out TimeOnly to))
        {
            throw new FormatException($"'{text}' is no window: write from when to when, 22:00-05:00, and the time zone where it is not the server's: 22:00-05:00 Europe/Berlin.");
        }

        if (from == to)
        {
            throw new FormatException($"The window '{text}' ends when it begins; leave it out where it is to be open all day, or give $null where a backfill has one recorded.");
        }

        (From, To, TimeZone) = (from, to, match.Groups[3].Success ? match.Groups[3].Value : null);
    }

    private DailyWindow(TimeOnly from, TimeOnly to, string timeZone) => (From, To, TimeZone) = (from, to, timeZone);

    /// <summary>When it opens.</summary>
    public TimeOnly From { get; }

    /// <summary>When it closes.</summary>
    public TimeOnly To { get; }

    /// <summary>The time zone as PostgreSQL names it; null for the server's own.</summary>
    public string? TimeZone { get; }

    /// <summary>Whether it is open.</summary>
    /// <param name="time">The time of day in its time zone.</param>
    public bool IsOpen(TimeOnly time) => time.IsBetween(From, To);

    /// <summary>How long until it opens, on a day without a change of the clocks.</summary>
    /// <param name="time">The time of day in its time zone.</param>
    public TimeSpan OpensIn(TimeOnly time) => IsOpen(time) ? TimeSpan.Zero : From - time;

    /// <summary>The same hours in a time zone.</summary>
    /// <param name="timeZone">As PostgreSQL names it.</param>
    internal DailyWindow In(string timeZone) => new(From, To, timeZone);

    /// <inheritdoc />
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{From:HH\\:mm}-{To:HH\\:mm}{(TimeZone is null ? "" : " " + TimeZone)}");

    private static bool TryTime(string text, out TimeOnly time) =>
        TimeOnly.TryParseExact(text == "24:00" ? "00:00" : text, ["H:mm", "HH:mm"], CultureInfo.InvariantCulture, DateTimeStyles.None, out time);

    [GeneratedRegex(@"^(\d{1,2}:\d{2})\s*-\s*(\d{1,2}:\d{2})(?:\s+(\S.*))?$", RegexOptions.CultureInvariant)]
    private static partial Regex Pattern();
}
