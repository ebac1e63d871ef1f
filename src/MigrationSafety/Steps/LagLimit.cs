using System.Globalization;
using System.Text.RegularExpressions;

namespace MigrationSafety;

/// <summary>
/// How far a standby may be behind, as parameters take it: a time (a TimeSpan, or a text such as <c>10s</c>), an amount of WAL (<c>64MB</c>), or a text with both,
/// <c>'10s, 64MB'</c>, of which the first that is reached counts. 0 is no limit. A small number alone is refused: PowerShell reads 10s in a list as the number 10.
/// </summary>
public sealed partial class LagLimit
{
    private const long SmallestPlainNumber = 1 << 20;

    /// <summary>A time.</summary>
    /// <param name="time">Not negative; 0 for no limit.</param>
    public LagLimit(TimeSpan time) => Time = NullWhereZero(new Duration(time).Value);

    /// <summary>From a text: a time with a unit, an amount of WAL with a unit, or both with a comma between them; 0 for no limit.</summary>
    /// <param name="text">Text.</param>
    public LagLimit(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        foreach (string part in text.Split([',', ' '], StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries) is { Length: > 0 } parts ? parts : [text])
        {
            Match match = Amount().Match(part);
            if (part == "0")
            {
                continue;
            }

            if (match.Success && Bytes is null)
            {
                int power = match.Groups[2].Value.Length == 0 ? 0 : "KMGT".IndexOf(char.ToUpperInvariant(match.Groups[2].Value[0]), StringComparison.Ordinal) + 1;
                double bytes = double.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture) * Math.Pow(1024, power);
                if (power > 0 || bytes >= SmallestPlainNumber)
                {
                    Bytes = bytes is > 0 and < long.MaxValue ? (long)bytes : null;
                    continue;
                }
            }
            else if (Time is null && Duration.TryParse(part, out TimeSpan time))
            {
                Time = NullWhereZero(time);
                continue;
            }

            throw new FormatException($"'{text}' is no lag: write a time (10s, 1min), an amount of WAL (64MB, 1GB), or both in quotation marks: '10s, 64MB'.");
        }
    }

    /// <summary>The time; null for no limit.</summary>
    public TimeSpan? Time { get; }

    /// <summary>The bytes of WAL; null for no limit.</summary>
    public long? Bytes { get; }

    /// <inheritdoc />
    public override string ToString() => (Time, Bytes) switch
    {
        ({ } time, { } bytes) => $"{Durations.Text(time)}, {ByteCounts.Text(bytes)}",
        ({ } time, null) => Durations.Text(time),
        (null, { } bytes) => ByteCounts.Text(bytes),
        _ => "0",
    };

    private static TimeSpan? NullWhereZero(TimeSpan time) => time == TimeSpan.Zero ? null : time;

    [GeneratedRegex(@"^(\d+(?:\.\d+)?)([kmgt]i?)?b?$", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex Amount();
}
