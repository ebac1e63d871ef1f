using System.Management.Automation.Host;
using System.Text;
using System.Text.RegularExpressions;

namespace MigrationSafety.Module.Pipeline;

/// <summary>
/// A view that is drawn over itself, on the terminal's second screen: nothing of what stood there before is touched, no line of an earlier drawing can be left
/// however the terminal was resized, and the last drawing stays on the first screen at the end. Used on the pipeline thread alone.
/// </summary>
internal sealed partial class LiveView : IDisposable
{
    private const string Escape = "\u001b[";

    // Second screen, no cursor, no wrapping: a line that is too long must not push the others down.
    private const string Enter = Escape + "?1049h" + Escape + "?25l" + Escape + "?7l";

    // Cleared first: a console without a second screen would show the last drawing twice.
    private const string Leave = Escape + "H" + Escape + "J" + Escape + "?7h" + Escape + "?25h" + Escape + "?1049l";

    // What stands between is shown at once, where the terminal knows it; elsewhere it is passed over.
    private const string BeginFrame = Escape + "?2026h";
    private const string EndFrame = Escape + "?2026l";

    private readonly PSHost _host;
    private IReadOnlyList<string> _last = [];
    private bool _entered;

    internal LiveView(PSHost host) => _host = host;

    /// <summary>The terminal's columns and lines.</summary>
    internal static (int Width, int Height) Size
    {
        get
        {
            // A terminal behind a bare line tells neither.
            (int width, int height) = (Console.WindowWidth, Console.WindowHeight);
            return (width > 0 ? width : 80, height > 0 ? height : 24);
        }
    }

    /// <summary>Draws lines over those of before; what does not fit is left out.</summary>
    internal void Draw(IReadOnlyList<string> lines)
    {
        StringBuilder frame = new(_entered ? "" : Enter);
        _entered = true;
        frame.Append(BeginFrame).Append(Escape).Append('H');
        int height = Size.Height;
        _last = [.. lines.Take(height).Select(Printable)];
        for (int i = 0; i < _last.Count; i++)
        {
            frame.Append(i == 0 ? "" : "\r\n").Append(_last[i]).Append(Escape).Append("0m").Append(Escape).Append('K');
        }

        // Not where the last line is full: the cursor stands on its end.
        frame.Append(_last.Count < height ? $"\r\n{Escape}J" : "").Append(EndFrame);
        Console.Out.Write(frame.ToString());
        Console.Out.Flush();
    }

    /// <summary>Back to the first screen, where the last drawing stays.</summary>
    public void Dispose()
    {
        if (!_entered)
        {
            return;
        }

        Console.Out.Write(Leave);
        Console.Out.Flush();
        foreach (string line in _last)
        {
            // Where it wraps now, it did not before.
            _host.UI.WriteLine(line.Length > Size.Width && !line.Contains('\u001b', StringComparison.Ordinal) ? line[..Size.Width] : line);
        }
    }

    /// <summary>The line without what would move the cursor: queries and application names are whatever their senders wrote. Colours stay.</summary>
    private static string Printable(string line) => Control().Replace(line, match => match.Length > 1 ? match.Value : " ");

    [GeneratedRegex(@"\u001b\[[0-9;]*m|\p{Cc}", RegexOptions.CultureInvariant)]
    private static partial Regex Control();
}
