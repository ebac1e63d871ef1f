namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>The text of a file with all but some parts blanked out, so that what is left stands where it stood.</summary>
internal sealed class TextMask
{
    private readonly string _text;
    private readonly char[] _chars;

    internal TextMask(string text)
    {
        _text = text;
        _chars = text.ToCharArray();
        for (int i = 0; i < _chars.Length; i++)
        {
            _chars[i] = _chars[i] is '\n' or '\r' or '\uFEFF' ? _chars[i] : ' ';
        }
    }

    /// <summary>Shows a part.</summary>
    internal void Show(int start, int end) => _text.CopyTo(start, _chars, start, end - start);

    /// <summary>Blanks a part again.</summary>
    internal void Hide(int start, int end)
    {
        for (int i = start; i < end; i++)
        {
            _chars[i] = _chars[i] is '\n' or '\r' ? _chars[i] : ' ';
        }
    }

    /// <summary>Ends the statement before a place, where a tool ends it without a semicolon.</summary>
    internal void Separate(int at) => _chars[at] = ';';

    /// <inheritdoc />
    public override string ToString() => new(_chars);
}
