using System.Text;

namespace MigrationSafety.Engine.Sql;

/// <summary>What a part of a script is.</summary>
internal enum SqlStatementKind
{
    /// <summary>A statement for the server.</summary>
    Sql,

    /// <summary>A command for psql.</summary>
    MetaCommand,

    /// <summary>Data of the COPY ... FROM STDIN before it.</summary>
    CopyData,
}

/// <summary>How a statement steers transactions.</summary>
internal enum TransactionControl
{
    /// <summary>Not at all.</summary>
    None,

    /// <summary>BEGIN, START TRANSACTION.</summary>
    Begin,

    /// <summary>COMMIT, END, PREPARE TRANSACTION.</summary>
    Commit,

    /// <summary>ROLLBACK, ABORT.</summary>
    Rollback,

    /// <summary>SAVEPOINT.</summary>
    Savepoint,

    /// <summary>ROLLBACK TO.</summary>
    RollbackTo,

    /// <summary>RELEASE.</summary>
    Release,
}

/// <summary>A statement of a script and where it stands there.</summary>
internal sealed class SqlStatement
{
    internal SqlStatement(string script, SqlStatementKind kind, SqlToken[] tokens)
    {
        Script = script;
        Kind = kind;
        Tokens = tokens;
    }

    /// <summary>The text that the tokens point into.</summary>
    internal string Script { get; }

    /// <summary>Kind.</summary>
    internal SqlStatementKind Kind { get; }

    /// <summary>Its tokens without comments and without the semicolon; at least one.</summary>
    internal SqlToken[] Tokens { get; }

    /// <summary>The text from its first token to its last, without the semicolon.</summary>
    internal string Text => Script[Tokens[0].Start..Tokens[^1].EndIndex];

    /// <summary>Line of its first token, from 1.</summary>
    internal int Line => Tokens[0].Line;

    /// <summary>Column of its first token, from 1.</summary>
    internal int Column => Tokens[0].Column;

    /// <summary>Whether a semicolon, or a meta-command such as <c>\g</c>, ends it.</summary>
    internal bool Terminated { get; init; }

    /// <summary>How it steers transactions.</summary>
    internal TransactionControl Control { get; set; }

    /// <summary>Whether a BEGIN of the script is open when it runs.</summary>
    internal bool InTransaction { get; set; }

    /// <summary>Whether the script itself takes it back with a ROLLBACK.</summary>
    internal bool RolledBack { get; set; }

    /// <summary>Whether it is no SQL: a string or parentheses that nothing closes, a character that SQL does not know.</summary>
    internal bool IsBroken
    {
        get
        {
            int depth = 0;
            for (int i = 0; i < Tokens.Length && depth >= 0; i++)
            {
                if (Tokens[i].Kind is SqlTokenKind.Unclosed or SqlTokenKind.Unknown)
                {
                    return true;
                }

                depth += IsMark(i, "(") ? 1 : IsMark(i, ")") ? -1 : 0;
            }

            return depth != 0;
        }
    }

    /// <summary>Whether a token is this keyword; the word is given in lower case.</summary>
    internal bool Is(int index, ReadOnlySpan<char> word) => index < Tokens.Length && Tokens[index].Kind == SqlTokenKind.Word && Ascii.EqualsIgnoreCase(Tokens[index].Span(Script), word);

    /// <summary>Whether the tokens from an index are these keywords.</summary>
    internal bool Is(int index, string first, string second) => Is(index, first) && Is(index + 1, second);

    /// <summary>Whether a token is this operator or punctuation.</summary>
    internal bool IsMark(int index, string mark) =>
        index < Tokens.Length && Tokens[index].Kind is SqlTokenKind.Punctuation or SqlTokenKind.Operator && Tokens[index].Span(Script).SequenceEqual(mark);

    /// <inheritdoc />
    public override string ToString() => Text;
}
