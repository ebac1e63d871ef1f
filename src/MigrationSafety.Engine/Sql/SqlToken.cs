namespace MigrationSafety.Engine.Sql;

/// <summary>Kinds of token, as PostgreSQL's own scanner tells them apart (scan.l), and psql's additions.</summary>
internal enum SqlTokenKind
{
    /// <summary>The end of the text.</summary>
    End,

    /// <summary>A name or keyword without quotation marks.</summary>
    Word,

    /// <summary><c>"name"</c>.</summary>
    QuotedName,

    /// <summary><c>U&amp;"name"</c>.</summary>
    UnicodeName,

    /// <summary><c>'text'</c>, with what continues it on later lines; also <c>N'text'</c>.</summary>
    String,

    /// <summary><c>E'text'</c>.</summary>
    EscapeString,

    /// <summary><c>U&amp;'text'</c>.</summary>
    UnicodeString,

    /// <summary><c>B'01'</c> or <c>X'1F'</c>.</summary>
    BitString,

    /// <summary><c>$tag$text$tag$</c>.</summary>
    DollarString,

    /// <summary>A number.</summary>
    Number,

    /// <summary><c>$1</c>.</summary>
    Parameter,

    /// <summary>An operator of any length.</summary>
    Operator,

    /// <summary>One of <c>( ) [ ] , . : ::  .. :=</c>.</summary>
    Punctuation,

    /// <summary><c>;</c>.</summary>
    Semicolon,

    /// <summary><c>-- text</c> or <c>/* text */</c>.</summary>
    Comment,

    /// <summary>A psql meta-command from its backslash to the end of the line.</summary>
    MetaCommand,

    /// <summary>Lines that psql sends as data of COPY ... FROM STDIN, the closing <c>\.</c> included.</summary>
    CopyData,

    /// <summary>A string, a quoted name or a comment that the end of the text cuts off.</summary>
    Unclosed,

    /// <summary>A character that begins nothing in SQL.</summary>
    Unknown,
}

/// <summary>A token: its kind and where it stands.</summary>
/// <param name="Kind">Kind.</param>
/// <param name="Start">Index of its first character.</param>
/// <param name="Length">Length in characters.</param>
/// <param name="Line">Line, from 1.</param>
/// <param name="Column">Column in characters, from 1.</param>
internal readonly record struct SqlToken(SqlTokenKind Kind, int Start, int Length, int Line, int Column)
{
    /// <summary>Index after its last character.</summary>
    internal int EndIndex => Start + Length;

    /// <summary>Its characters.</summary>
    internal ReadOnlySpan<char> Span(string text) => text.AsSpan(Start, Length);
}
