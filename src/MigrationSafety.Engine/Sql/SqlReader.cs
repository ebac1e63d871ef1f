using System.Globalization;
using System.Text;

namespace MigrationSafety.Engine.Sql;

/// <summary>A name of one or two parts, as the catalog holds it.</summary>
/// <param name="Schema">Schema; null where search_path finds it.</param>
/// <param name="Name">Name.</param>
internal sealed record QualifiedName(string? Schema, string Name)
{
    /// <summary>As SQL, with quotation marks where they are needed.</summary>
    public override string ToString() => Schema is null ? SqlName.QuoteIfNeeded(Name) : SqlName.QuoteIfNeeded(Schema) + "." + SqlName.QuoteIfNeeded(Name);
}

/// <summary>Reads the tokens of a statement from left to right: the hands of every statement parser.</summary>
internal sealed partial class SqlReader
{
    private readonly SqlStatement _statement;
    private int _end;

    internal SqlReader(SqlStatement statement)
        : this(statement, 0, statement.Tokens.Length)
    {
    }

    internal SqlReader(SqlFragment fragment)
        : this(fragment.Statement, fragment.First, fragment.End)
    {
    }

    private SqlReader(SqlStatement statement, int start, int end)
    {
        _statement = statement;
        At = start;
        _end = end;
    }

    /// <summary>Index of the next token.</summary>
    internal int At { get; private set; }

    /// <summary>Whether something was not as expected. From then on nothing is left, so that every loop ends and nothing more is taken.</summary>
    internal bool Failed { get; private set; }

    /// <summary>The database that a name of three parts has given; null where none has.</summary>
    internal string? Database { get; set; }

    /// <summary>Whether nothing is left.</summary>
    internal bool AtEnd => At >= _end;

    /// <summary>Kind of the next token.</summary>
    internal SqlTokenKind Kind => AtEnd ? SqlTokenKind.End : _statement.Tokens[At].Kind;

    /// <summary>Whether the next token is this keyword, given in lower case.</summary>
    internal bool Sees(string word) => !AtEnd && _statement.Is(At, word);

    /// <summary>Whether the next two tokens are these keywords.</summary>
    internal bool Sees(string first, string second) => Sees(first) && At + 1 < _end && _statement.Is(At + 1, second);

    /// <summary>Whether the next token is this operator or punctuation.</summary>
    internal bool SeesMark(string mark) => !AtEnd && _statement.IsMark(At, mark);

    /// <summary>Takes a keyword if it is next.</summary>
    internal bool Take(string word) => Step(Sees(word), 1);

    /// <summary>Takes two keywords if they are next.</summary>
    internal bool Take(string first, string second) => Step(Sees(first, second), 2);

    /// <summary>Takes three keywords if they are next.</summary>
    internal bool Take(string first, string second, string third) =>
        Step(Sees(first, second) && At + 2 < _end && _statement.Is(At + 2, third), 3);

    /// <summary>Takes four keywords if they are next.</summary>
    internal bool Take(string first, string second, string third, string fourth) =>
        Step(Sees(first, second) && At + 3 < _end && _statement.Is(At + 2, third) && _statement.Is(At + 3, fourth), 4);

    /// <summary>Takes an operator or punctuation if it is next.</summary>
    internal bool TakeMark(string mark) => Step(SeesMark(mark), 1);

    /// <summary>Passes over one token.</summary>
    internal void Skip() => Step(!AtEnd, 1);

    /// <summary>Takes a name of one part, as the catalog holds it; null where none is next.</summary>
    internal string? TakeName()
    {
        string? name = AtEnd ? null : NameOf(_statement.Script, _statement.Tokens[At]);
        Step(name is not null, 1);
        if (name is not null && _statement.Tokens[At - 1].Kind == SqlTokenKind.UnicodeName && Take("uescape"))
        {
            if (AtEnd || _statement.Tokens[At].Kind != SqlTokenKind.String || _statement.Tokens[At].Length != 3)
            {
                return null;
            }

            name = UnicodeName(_statement.Tokens[At - 2].Span(_statement.Script), _statement.Tokens[At].Span(_statement.Script)[1]);
            Skip();
        }

        return name;
    }

    /// <summary>Takes a name of one or two parts; null where none is next. Three parts are not taken: the first would be the database.</summary>
    internal QualifiedName? TakeQualifiedName()
    {
        int start = At;
        if (TakeName() is not { } first)
        {
            return null;
        }

        if (!TakeMark("."))
        {
            return new QualifiedName(null, first);
        }

        if (TakeName() is { } second && !SeesMark("."))
        {
            return new QualifiedName(first, second);
        }

        At = start;
        return null;
    }

    /// <summary>Takes a table as DDL names it: <c>t</c>, <c>t *</c>, <c>ONLY t</c>, <c>ONLY (t)</c>; null where none is next.</summary>
    internal (QualifiedName Name, bool Only)? TakeRelation()
    {
        bool only = Take("only");
        SqlReader inner = only && SeesMark("(") ? TakeParentheses() ?? this : this;
        QualifiedName? name = inner.TakeQualifiedName();
        TakeMark("*");
        return name is null ? null : (name, only);
    }

    /// <summary>Takes <c>table.column</c> or <c>schema.table.column</c> and gives the table; null where none is next.</summary>
    internal QualifiedName? TakeColumnsTable()
    {
        List<string> parts = [];
        do
        {
            if (TakeName() is not { } part)
            {
                return null;
            }

            parts.Add(part);
        }
        while (TakeMark("."));
        return parts.Count switch
        {
            2 => new QualifiedName(null, parts[0]),
            3 => new QualifiedName(parts[0], parts[1]),
            _ => null,
        };
    }

    /// <summary>A reader of what stands inside the parentheses that are next, which are passed over; null where none are or none closes them.</summary>
    internal SqlReader? TakeParentheses()
    {
        if (!SeesMark("("))
        {
            return null;
        }

        int start = At + 1;
        int depth = 0;
        for (int i = At; i < _end; i++)
        {
            depth += _statement.IsMark(i, "(") ? 1 : _statement.IsMark(i, ")") ? -1 : 0;
            if (depth == 0)
            {
                At = i + 1;
                return new SqlReader(_statement, start, i);
            }
        }

        return null;
    }

    /// <summary>Passes over everything up to one of these keywords or marks outside parentheses and brackets, or to the end.</summary>
    internal void SkipTo(params ReadOnlySpan<string> stops)
    {
        int depth = 0;
        for (; !AtEnd; At++)
        {
            if (depth == 0)
            {
                foreach (string stop in stops)
                {
                    if (Sees(stop) || SeesMark(stop))
                    {
                        return;
                    }
                }
            }

            depth += SeesMark("(") || SeesMark("[") ? 1 : SeesMark(")") || SeesMark("]") ? -1 : 0;
        }
    }

    /// <summary>Cuts what is left at the commas outside parentheses and brackets.</summary>
    internal IReadOnlyList<SqlReader> SplitAtCommas()
    {
        List<SqlReader> parts = [];
        while (true)
        {
            int start = At;
            SkipTo(",");
            parts.Add(new SqlReader(_statement, start, At));
            if (!TakeMark(","))
            {
                return parts;
            }
        }
    }

    /// <summary>A list of names in parentheses, with what may follow each passed over; null where there is none.</summary>
    internal IReadOnlyList<string>? TakeNameList()
    {
        if (TakeParentheses() is not { } inside)
        {
            return null;
        }

        List<string> names = [];
        foreach (SqlReader part in inside.SplitAtCommas())
        {
            // PERIOD valid_at, in a foreign key of 18.
            if (part.Sees("period") && part._end - part.At == 2)
            {
                part.Skip();
            }

            if (part.TakeName() is not { } name)
            {
                return null;
            }

            names.Add(name);
        }

        return names;
    }

    /// <summary>A reader of the same tokens at the same place.</summary>
    internal SqlReader Clone() => new(_statement, At, _end);

    /// <summary>A reader of the tokens from an earlier place up to here.</summary>
    internal SqlReader Since(int start) => new(_statement, start, At);

    /// <summary>The text of what is left.</summary>
    internal string Rest() => AtEnd ? "" : _statement.Script[_statement.Tokens[At].Start.._statement.Tokens[_end - 1].EndIndex];

    /// <summary>The name that a token is, as the catalog holds it: folded, unquoted, cut to 63 bytes; null where it is none.</summary>
    internal static string? NameOf(string script, SqlToken token)
    {
        ReadOnlySpan<char> text = token.Span(script);
        string? name = token.Kind switch
        {
            SqlTokenKind.Word => Fold(text),
            SqlTokenKind.QuotedName => text[1..^1].ToString().Replace("\"\"", "\"", StringComparison.Ordinal),
            SqlTokenKind.UnicodeName => UnicodeName(text, '\\'),
            _ => null,
        };
        return string.IsNullOrEmpty(name) ? null : CutToBytes(name, 63);
    }

    /// <summary>Cuts a name to so many bytes of UTF-8 without cutting a character, as the server does (pg_mbcliplen).</summary>
    internal static string CutToBytes(string name, int bytes)
    {
        if (name.Length * 3 <= bytes || Encoding.UTF8.GetByteCount(name) <= bytes)
        {
            return name;
        }

        int used = 0;
        int length = 0;
        foreach (Rune rune in name.EnumerateRunes())
        {
            used += rune.Utf8SequenceLength;
            if (used > bytes)
            {
                break;
            }

            length += rune.Utf16SequenceLength;
        }

        return name[..length];
    }

    // PostgreSQL folds ASCII letters only in a UTF-8 database, whatever the culture.
    private static string Fold(ReadOnlySpan<char> text) => string.Create(text.Length, text.ToString(), static (span, source) =>
    {
        for (int i = 0; i < span.Length; i++)
        {
            span[i] = char.IsAscii(source[i]) ? char.ToLowerInvariant(source[i]) : source[i];
        }
    });

    private static string? UnicodeName(ReadOnlySpan<char> text, char escape)
    {
        string inside = text[3..^1].ToString().Replace("\"\"", "\"", StringComparison.Ordinal);
        StringBuilder name = new();
        for (int i = 0; i < inside.Length; i++)
        {
            if (inside[i] != escape)
            {
                name.Append(inside[i]);
                continue;
            }

            if (i + 1 < inside.Length && inside[i + 1] == escape)
            {
                name.Append(escape);
                i++;
                continue;
            }

            bool six = i + 1 < inside.Length && inside[i + 1] == '+';
            int start = i + (six ? 2 : 1);
            int digits = six ? 6 : 4;
            if (start + digits > inside.Length
                || !int.TryParse(inside.AsSpan(start, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int code)
                || code is 0 or > 0x10FFFF)
            {
                return null;
            }

            name.Append(code > 0xFFFF ? char.ConvertFromUtf32(code) : ((char)code).ToString());
            i = start + digits - 1;
        }

        return name.ToString();
    }

    private bool Step(bool taken, int count)
    {
        At += taken ? count : 0;
        return taken;
    }
}
