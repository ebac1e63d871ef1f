using System.Buffers;

namespace MigrationSafety.Engine.Sql;

/// <summary>
/// Cuts SQL into tokens as PostgreSQL's scanner does, and as psql does where it differs (meta-commands, COPY data).
/// Takes any text: what is not SQL becomes tokens of kinds of their own, and the time is linear in the length.
/// </summary>
internal sealed class SqlLexer
{
    private static readonly SearchValues<char> s_operators = SearchValues.Create("~!@#^&|`?+-*/%<>=");
    private readonly string _text;
    private readonly bool _psql;
    private int _at;
    private int _line = 1;
    private int _lineStart;
    private bool _copyDataFollows;
    private bool _escapes;
    private bool _escapesBefore;
    private int _escapesLine;

    // Where the run of operator characters that is being cut ends, and its last characters of two classes: kept, so that a long run costs linear time.
    private int _runEnd;
    private int _runLastSpecial;
    private int _runLastOther;

    /// <summary>Makes a lexer.</summary>
    /// <param name="text">Text.</param>
    /// <param name="psql">Whether psql's meta-commands are known; false for a single statement that goes to the server.</param>
    internal SqlLexer(string text, bool psql = true)
    {
        _text = text;
        _psql = psql;
        if (text.Length > 0 && text[0] == '\uFEFF')
        {
            _at = 1;
            _lineStart = 1;
        }
    }

    /// <summary>All tokens of a text, without the closing <see cref="SqlTokenKind.End"/>.</summary>
    internal static List<SqlToken> Tokens(string text, bool psql = true)
    {
        List<SqlToken> tokens = [];
        SqlLexer lexer = new(text, psql);
        for (SqlToken token = lexer.Next(); token.Kind != SqlTokenKind.End; token = lexer.Next())
        {
            tokens.Add(token);
        }

        return tokens;
    }

    /// <summary>Says that the statement just read makes psql take the next lines as data.</summary>
    internal void ExpectCopyData() => _copyDataFollows = true;

    /// <summary>Says whether a backslash escapes in a string without E: standard_conforming_strings is off. psql takes it up with the next line.</summary>
    internal void SetBackslashEscapes(bool escapes)
    {
        if (escapes != _escapes)
        {
            _escapesBefore = _line > _escapesLine ? _escapes : _escapesBefore;
            (_escapes, _escapesLine) = (escapes, _line);
        }
    }

    /// <summary>The next token, comments included; white space is passed over.</summary>
    internal SqlToken Next()
    {
        while (_at < _text.Length && IsSpace(_text[_at]))
        {
            bool lineEnds = Advance();
            if (lineEnds && _copyDataFollows)
            {
                _copyDataFollows = false;
                if (_at < _text.Length)
                {
                    return Token(SqlTokenKind.CopyData, EndOfCopyData());
                }
            }
        }

        if (_at >= _text.Length)
        {
            return new SqlToken(SqlTokenKind.End, _at, 0, _line, _at - _lineStart + 1);
        }

        char c = _text[_at];
        char next = Peek(1);
        switch (c)
        {
            case '-' when next == '-':
                return Token(SqlTokenKind.Comment, EndOfLine(_at));
            case '/' when next == '*':
                return BlockComment();
            case '\'':
                return Quoted(SqlTokenKind.String, 1, '\'', _line > _escapesLine ? _escapes : _escapesBefore);
            case '"':
                return Quoted(SqlTokenKind.QuotedName, 1, '"', false);
            case 'e' or 'E' when next == '\'':
                return Quoted(SqlTokenKind.EscapeString, 2, '\'', true);
            case 'b' or 'B' or 'x' or 'X' when next == '\'':
                return Quoted(SqlTokenKind.BitString, 2, '\'', false);
            case 'n' or 'N' when next == '\'':
                return Quoted(SqlTokenKind.String, 2, '\'', _line > _escapesLine ? _escapes : _escapesBefore);
            case 'u' or 'U' when next == '&' && Peek(2) == '\'':
                return Quoted(SqlTokenKind.UnicodeString, 3, '\'', false);
            case 'u' or 'U' when next == '&' && Peek(2) == '"':
                return Quoted(SqlTokenKind.UnicodeName, 3, '"', false);
            case '$':
                return Dollar();
            case ';':
                return Token(SqlTokenKind.Semicolon, _at + 1);
            case '\\' when _psql:
                return MetaCommand();
            case ':' when next is ':' or '=':
            case '.' when next == '.':
                return Token(SqlTokenKind.Punctuation, _at + 2);
            case '.' when char.IsAsciiDigit(next):
                return Number();
            case '(' or ')' or '[' or ']' or ',' or '.' or ':':
                return Token(SqlTokenKind.Punctuation, _at + 1);
        }

        return char.IsAsciiDigit(c) ? Number()
            : IsNameStart(c) ? Word()
            : IsOperator(c) ? Operator()
            : Token(SqlTokenKind.Unknown, _at + 1);
    }

    /// <summary>PostgreSQL's white space; \v counts since 16.</summary>
    internal static bool IsSpace(char c) => c is ' ' or '\t' or '\n' or '\r' or '\f' or '\v';

    /// <summary>What begins a name; every character beyond ASCII does.</summary>
    internal static bool IsNameStart(char c) => char.IsAsciiLetter(c) || c == '_' || c >= 0x80;

    /// <summary>What goes on with a name.</summary>
    internal static bool IsNamePart(char c) => IsNameStart(c) || char.IsAsciiDigit(c) || c == '$';

    private static bool IsOperator(char c) => s_operators.Contains(c);

    private char Peek(int offset) => _at + offset < _text.Length ? _text[_at + offset] : '\0';

    /// <summary>Goes one character on and counts lines: \n, \r\n and a lone \r each end one.</summary>
    /// <returns>Whether a line ended.</returns>
    private bool Advance()
    {
        char c = _text[_at++];
        if (c == '\n' || (c == '\r' && (_at >= _text.Length || _text[_at] != '\n')))
        {
            _line++;
            _lineStart = _at;
            return true;
        }

        return false;
    }

    /// <summary>Makes a token that reaches to an index and goes there.</summary>
    private SqlToken Token(SqlTokenKind kind, int end)
    {
        SqlToken token = new(kind, _at, end - _at, _line, _at - _lineStart + 1);
        if (kind is SqlTokenKind.Word or SqlTokenKind.Number or SqlTokenKind.Operator or SqlTokenKind.Punctuation)
        {
            _at = end;
        }
        else
        {
            // From line end to line end: most characters of a long string need no look.
            for (int next = _text.AsSpan(_at, end - _at).IndexOfAny('\n', '\r'); next >= 0; next = _text.AsSpan(_at, end - _at).IndexOfAny('\n', '\r'))
            {
                _at += next;
                Advance();
            }

            _at = end;
        }

        return token;
    }

    private int EndOfLine(int from)
    {
        int end = _text.AsSpan(from).IndexOfAny('\n', '\r');
        return end < 0 ? _text.Length : from + end;
    }

    private SqlToken BlockComment()
    {
        int depth = 0;
        int i = _at;
        while (i < _text.Length)
        {
            char c = _text[i];
            char next = i + 1 < _text.Length ? _text[i + 1] : '\0';
            if (c == '/' && next == '*')
            {
                depth++;
                i += 2;
            }
            else if (c == '*' && next == '/')
            {
                i += 2;
                if (--depth == 0)
                {
                    return Token(SqlTokenKind.Comment, i);
                }
            }
            else
            {
                i++;
            }
        }

        return Token(SqlTokenKind.Unclosed, _text.Length);
    }

    /// <summary>A string or name in quotation marks; a string goes on where white space with a line end parts it from another quotation mark.</summary>
    private SqlToken Quoted(SqlTokenKind kind, int prefix, char mark, bool backslashEscapes)
    {
        int i = _at + prefix;
        while (i < _text.Length)
        {
            char c = _text[i++];
            if (c == '\\' && backslashEscapes)
            {
                i++;
            }
            else if (c == mark)
            {
                if (i < _text.Length && _text[i] == mark && kind != SqlTokenKind.BitString)
                {
                    i++;
                }
                else if (mark == '\'' && Continuation(i) is int continued and > 0)
                {
                    i = continued;
                }
                else
                {
                    return Token(kind, i);
                }
            }
        }

        return Token(SqlTokenKind.Unclosed, _text.Length);
    }

    /// <summary>Index after the quotation mark that continues a string closed before <paramref name="i"/>; 0 where nothing does.</summary>
    private int Continuation(int i)
    {
        bool newLine = false;
        while (i < _text.Length)
        {
            char c = _text[i];
            if (IsSpace(c))
            {
                newLine |= c is '\n' or '\r';
                i++;
            }
            else if (c == '-' && i + 1 < _text.Length && _text[i + 1] == '-')
            {
                i = EndOfLine(i);
            }
            else
            {
                return newLine && c == '\'' ? i + 1 : 0;
            }
        }

        return 0;
    }

    private SqlToken Dollar()
    {
        int i = _at + 1;
        if (i < _text.Length && char.IsAsciiDigit(_text[i]))
        {
            while (i < _text.Length && char.IsAsciiDigit(_text[i]))
            {
                i++;
            }

            return Token(SqlTokenKind.Parameter, i);
        }

        while (i < _text.Length && IsNamePart(_text[i]) && _text[i] != '$')
        {
            i++;
        }

        if (i >= _text.Length || _text[i] != '$')
        {
            return Token(SqlTokenKind.Unknown, _at + 1);
        }

        i++;
        string mark = _text[_at..i];
        int close = _text.IndexOf(mark, i, StringComparison.Ordinal);
        return close < 0 ? Token(SqlTokenKind.Unclosed, _text.Length) : Token(SqlTokenKind.DollarString, close + mark.Length);
    }

    private SqlToken MetaCommand()
    {
        // "\;" puts a semicolon into psql's buffer, "\:" a colon.
        if (Peek(1) == ';')
        {
            return Token(SqlTokenKind.Semicolon, _at + 2);
        }

        if (Peek(1) == ':')
        {
            return Token(SqlTokenKind.Punctuation, _at + 2);
        }

        // "\\" ends a meta-command within its line, unless quotation marks hold it or the command takes its line whole.
        int end = EndOfLine(_at);
        int nameEnd = _at + 1;
        while (nameEnd < end && !IsSpace(_text[nameEnd]) && _text[nameEnd] != '\\')
        {
            nameEnd++;
        }

        if (_text.AsSpan(_at + 1, nameEnd - _at - 1) is "!" or "copy" or "h" or "help" or "ef" or "ev" or "sf" or "sf+" or "sv" or "sv+")
        {
            return Token(SqlTokenKind.MetaCommand, end);
        }

        char mark = '\0';
        for (int i = nameEnd; i < end; i++)
        {
            char c = _text[i];
            if (mark != '\0')
            {
                if (c == '\\' && mark == '\'')
                {
                    i++;
                }
                else if (c == mark)
                {
                    mark = '\0';
                }
            }
            else if (c is '\'' or '"' or '`')
            {
                mark = c;
            }
            else if (c == '\\')
            {
                // Two end the command; a single one begins the next command.
                return Token(SqlTokenKind.MetaCommand, i + 1 < end && _text[i + 1] == '\\' ? i + 2 : i);
            }
        }

        return Token(SqlTokenKind.MetaCommand, end);
    }

    private int EndOfCopyData()
    {
        int i = _at;
        while (i < _text.Length)
        {
            int newLine = _text.IndexOf('\n', i);
            int lineEnd = newLine < 0 ? _text.Length : newLine;
            if (_text.AsSpan(i, lineEnd - i).TrimEnd('\r') is @"\.")
            {
                return i + 2;
            }

            i = newLine < 0 ? _text.Length : newLine + 1;
        }

        return _text.Length;
    }

    private SqlToken Number()
    {
        int i = _at;
        if (_text[i] == '0' && i + 1 < _text.Length && _text[i + 1] is 'x' or 'X' or 'o' or 'O' or 'b' or 'B')
        {
            bool hex = _text[i + 1] is 'x' or 'X';
            int digits = i + 2;
            while (digits < _text.Length && (hex ? char.IsAsciiHexDigit(_text[digits]) : char.IsAsciiDigit(_text[digits]) || _text[digits] == '_'))
            {
                digits++;
            }

            if (digits > i + 2)
            {
                return Token(SqlTokenKind.Number, digits);
            }
        }

        i = Digits(i);
        if (i < _text.Length && _text[i] == '.' && !(i + 1 < _text.Length && _text[i + 1] == '.'))
        {
            i = Digits(i + 1);
        }

        if (i < _text.Length && _text[i] is 'e' or 'E')
        {
            int exponent = i + 1 < _text.Length && _text[i + 1] is '+' or '-' ? i + 2 : i + 1;
            int end = Digits(exponent);
            i = end > exponent ? end : i;
        }

        return Token(SqlTokenKind.Number, i);
    }

    private int Digits(int i)
    {
        // An underscore between digits is part of the number since 16.
        while (i < _text.Length && (char.IsAsciiDigit(_text[i]) || (_text[i] == '_' && i + 1 < _text.Length && char.IsAsciiDigit(_text[i + 1]))))
        {
            i++;
        }

        return i;
    }

    private SqlToken Word()
    {
        int i = _at + 1;
        while (i < _text.Length && IsNamePart(_text[i]))
        {
            i++;
        }

        return Token(SqlTokenKind.Word, i);
    }

    /// <summary>
    /// The longest run of operator characters, up to a comment; one of several characters keeps a + or - at its end only where it
    /// holds a character that standard SQL's operators lack, so that <c>a=-1</c> is two operators.
    /// </summary>
    private SqlToken Operator()
    {
        if (_at >= _runEnd)
        {
            _runLastSpecial = -1;
            _runLastOther = -1;
            int i = _at;
            for (; i < _text.Length && IsOperator(_text[i]); i++)
            {
                char next = i + 1 < _text.Length ? _text[i + 1] : '\0';
                if ((_text[i] == '-' && next == '-') || (_text[i] == '/' && next == '*'))
                {
                    break;
                }

                if (_text[i] is not ('+' or '-'))
                {
                    _runLastOther = i;
                    _runLastSpecial = "~!@#^&|`?%".Contains(_text[i], StringComparison.Ordinal) ? i : _runLastSpecial;
                }
            }

            _runEnd = i;
        }

        int end = _runLastSpecial >= _at ? _runEnd : Math.Max(_runLastOther, _at) + 1;
        return Token(SqlTokenKind.Operator, end);
    }
}
