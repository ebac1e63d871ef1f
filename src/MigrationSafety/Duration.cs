using System.Globalization;
using System.Text.RegularExpressions;

namespace MigrationSafety;

/// <summary>
/// A time span as parameters take it: a TimeSpan, or a text with a unit as PostgreSQL's settings have it (<c>500ms</c>, <c>30s</c>, <c>10min</c>, <c>2h</c>, <c>1d</c>),
/// or <c>hh:mm:ss</c>. A number alone is refused: PowerShell would read it as ticks, a person as seconds or milliseconds.
/// </summary>
public sealed partial class Duration
{
    /// <summary>From a TimeSpan.</summary>
    /// <param name="value">Not negative.</param>
    public Duration(TimeSpan value) => Value = value < TimeSpan.Zero
        ? throw new ArgumentException("A duration cannot be negative.", nameof(value))
        : value;

    /// <summary>From a text with a unit.</summary>
    /// <param name="text"><c>500ms</c>, <c>30s</c>, <c>10min</c>, <c>2h</c>, <c>1d</c> or <c>hh:mm:ss</c>.</param>
    public Duration(string text)
        : this(Parse(text))
    {
    }

    /// <summary>The time span.</summary>
    public TimeSpan Value { get; }

    /// <inheritdoc />
    public override string ToString() => Durations.Text(Value);

    internal static bool TryParse(string text, out TimeSpan value)
    {
        bool valid = WithUnit().IsMatch(text.Trim()) || (text.Contains(':', StringComparison.Ordinal) && TimeSpan.TryParse(text, CultureInfo.InvariantCulture, out _));
        value = valid ? Parse(text) : default;
        return valid;
    }

    private static TimeSpan Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        Match match = WithUnit().Match(text.Trim());
        if (match.Success)
        {
            double number = double.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture);
            double milliseconds = number * match.Groups[2].Value.ToLowerInvariant() switch
            {
                "ms" => 1,
                "s" => 1_000,
                "min" => 60_000,
                "h" => 3_600_000,
                _ => 86_400_000,
            };
            // 365 days, so that sums with a clock cannot overflow.
            return milliseconds <= 31_536_000_000d
                ? TimeSpan.FromMilliseconds(milliseconds)
                : throw new FormatException($"'{text}' is longer than 365 days.");
        }

        return text.Contains(':', StringComparison.Ordinal) && TimeSpan.TryParse(text, CultureInfo.InvariantCulture, out TimeSpan span)
            ? span
            : throw new FormatException($"'{text}' is not a duration: write a number with a unit (500ms, 30s, 10min, 2h, 1d), or hh:mm:ss.");
    }

    [GeneratedRegex(@"^(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)$", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex WithUnit();
}
