using System.Globalization;
using System.Text;

namespace MigrationSafety.Engine.Report;

/// <summary>Writes HTML that is well-formed XML too. Whatever is written as text or value is escaped; nothing else comes from outside.</summary>
internal sealed class HtmlWriter
{
    private static readonly HashSet<string> s_void = ["meta", "br", "line", "rect", "path"];

    private readonly StringBuilder _text = new();
    private readonly Stack<string> _open = new();
    private int _lastId;

    /// <summary>An id that no other element has.</summary>
    internal string NewId() => $"i{++_lastId}";

    /// <summary>Opens an element; one that can hold nothing is closed at once.</summary>
    internal HtmlWriter Open(string tag, params (string Name, string? Value)[] attributes)
    {
        _text.Append('<').Append(tag);
        foreach ((string name, string? value) in attributes)
        {
            if (value is not null)
            {
                _text.Append(' ').Append(name).Append("=\"").Append(Escape(value)).Append('"');
            }
        }

        if (s_void.Contains(tag))
        {
            _text.Append(" />");
        }
        else
        {
            _text.Append('>');
            _open.Push(tag);
        }

        return this;
    }

    internal HtmlWriter Close()
    {
        string tag = _open.Pop();
        _text.Append("</").Append(tag).Append('>');
        if (tag is "section" or "header" or "footer" or "div" or "li" or "ol" or "dl" or "p" or "figure" or "svg" or "pre" or "style" or "title" or "head" or "article")
        {
            _text.Append('\n');
        }

        return this;
    }

    internal HtmlWriter Text(string text)
    {
        _text.Append(Escape(text));
        return this;
    }

    /// <summary>Text of this program's own, such as its style sheet.</summary>
    internal HtmlWriter Raw(string text)
    {
        _text.Append(text);
        return this;
    }

    /// <summary>An element that holds a text.</summary>
    internal HtmlWriter Element(string tag, string? cssClass, string text) => Open(tag, ("class", cssClass)).Text(text).Close();

    /// <summary>A number as SVG and CSS have it.</summary>
    internal static string Number(double value) => Math.Round(value, 2).ToString(CultureInfo.InvariantCulture);

    public override string ToString() => _text.ToString();

    /// <summary>
    /// Escapes for text and for attribute values. What a reader could not see, or what would turn the text around before their eyes, is written as its number.
    /// </summary>
    private static string Escape(string text)
    {
        StringBuilder escaped = new(text.Length + 16);
        foreach (Rune rune in text.EnumerateRunes())
        {
            int c = rune.Value;
            _ = c switch
            {
                '&' => escaped.Append("&amp;"),
                '<' => escaped.Append("&lt;"),
                '>' => escaped.Append("&gt;"),
                '"' => escaped.Append("&quot;"),
                '\'' => escaped.Append("&#39;"),
                '\n' or '\t' => escaped.Append((char)c),
                '\r' => escaped,
                < 0x20 or (>= 0x7F and < 0xA0) or 0x061C or 0x200B or 0x200E or 0x200F or (>= 0x202A and <= 0x202E) or (>= 0x2060 and <= 0x2069) or 0xFEFF or 0xFFFE or 0xFFFF =>
                    escaped.Append("[U+").Append(c.ToString("X4", CultureInfo.InvariantCulture)).Append(']'),
                _ => escaped.Append(rune.ToString()),
            };
        }

        return escaped.ToString();
    }
}
