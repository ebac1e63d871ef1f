using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Sql;

/// <summary>A script cut into statements where psql cuts it.</summary>
internal sealed class SqlScript
{
    // Meta-commands that send what psql has collected.
    private static readonly string[] s_senders = ["g", "gx", "gset", "gexec", "gdesc", "crosstabview", "watch"];

    private SqlScript(string text, IReadOnlyList<SqlStatement> statements, IReadOnlyList<SqlToken> comments)
    {
        Text = text;
        Statements = statements;
        Comments = comments;
    }

    /// <summary>The whole text.</summary>
    internal string Text { get; }

    /// <summary>Its statements, meta-commands and COPY data, in order.</summary>
    internal IReadOnlyList<SqlStatement> Statements { get; }

    /// <summary>Its comments, which carry the marks of migration tools.</summary>
    internal IReadOnlyList<SqlToken> Comments { get; }

    /// <summary>Cuts a script. Any text will do.</summary>
    /// <param name="text">Text.</param>
    /// <param name="psql">Whether it is for psql; false where a backslash has no meaning.</param>
    internal static SqlScript Parse(string text, bool psql = true)
    {
        List<SqlStatement> statements = [];
        List<SqlToken> comments = [];
        List<SqlToken> tokens = [];
        SqlLexer lexer = new(text, psql);
        BodyTracker body = new();
        StringMode strings = new();
        int depth = 0;

        void Finish(bool terminated)
        {
            if (tokens.Count > 0)
            {
                SqlStatement statement = new(text, SqlStatementKind.Sql, [.. tokens]) { Terminated = terminated };
                statements.Add(statement);
                strings.See(statement);
                lexer.SetBackslashEscapes(strings.BackslashEscapes);
                if (psql && terminated && TakesCopyData(statement))
                {
                    lexer.ExpectCopyData();
                }
            }

            tokens.Clear();
            body = new BodyTracker();
            depth = 0;
        }

        for (SqlToken token = lexer.Next(); token.Kind != SqlTokenKind.End; token = lexer.Next())
        {
            switch (token.Kind)
            {
                case SqlTokenKind.Comment:
                    comments.Add(token);
                    continue;
                case SqlTokenKind.CopyData:
                    statements.Add(new SqlStatement(text, SqlStatementKind.CopyData, [token]));
                    continue;
                case SqlTokenKind.MetaCommand:
                    string name = MetaCommandName(token.Span(text));
                    if (Array.IndexOf(s_senders, name) >= 0)
                    {
                        Finish(true);
                    }
                    else if (name is "r" or "reset")
                    {
                        tokens.Clear();
                        Finish(false);
                    }

                    SqlStatement command = new(text, SqlStatementKind.MetaCommand, [token]) { Terminated = true };
                    statements.Add(command);
                    if (name == "copy" && TakesCopyData(Parse(command.Text[1..], false).Statements[0]))
                    {
                        lexer.ExpectCopyData();
                    }

                    continue;
                case SqlTokenKind.Semicolon when depth == 0 && !body.Open:
                    Finish(true);
                    continue;
                case SqlTokenKind.Punctuation when token.Length == 1:
                    depth += text[token.Start] switch { '(' => 1, ')' when depth > 0 => -1, _ => 0 };
                    break;
            }

            body.See(text, token);
            tokens.Add(token);
        }

        Finish(false);
        TrackTransactions(statements);
        return new SqlScript(text, statements, comments);
    }

    /// <summary>The name of a meta-command, without its backslash.</summary>
    internal static string MetaCommandName(ReadOnlySpan<char> text)
    {
        ReadOnlySpan<char> rest = text[1..];
        int end = rest.IndexOfAny(" \t\f\v\\");
        return (end < 0 ? rest : rest[..end]).ToString();
    }

    /// <summary>Whether psql goes on to read data: COPY ... FROM STDIN.</summary>
    private static bool TakesCopyData(SqlStatement statement)
    {
        if (!statement.Is(0, "copy"))
        {
            return false;
        }

        for (int i = 1; i < statement.Tokens.Length; i++)
        {
            if (statement.Is(i, "from"))
            {
                return statement.Is(i + 1, "stdin");
            }
        }

        return false;
    }

    private static void TrackTransactions(List<SqlStatement> statements)
    {
        List<SqlStatement> block = [];
        List<(string Name, int At)> savepoints = [];
        bool open = false;
        foreach (SqlStatement statement in statements)
        {
            if (statement.Kind != SqlStatementKind.Sql)
            {
                statement.InTransaction = open;
                continue;
            }

            statement.Control = ControlOf(statement);
            statement.InTransaction = open;
            switch (statement.Control)
            {
                case TransactionControl.Begin:
                    open = true;
                    break;
                case TransactionControl.Commit:
                    open = Chains(statement);
                    block.Clear();
                    savepoints.Clear();
                    break;
                case TransactionControl.Rollback:
                    block.ForEach(undone => undone.RolledBack = true);
                    open = open && Chains(statement);
                    block.Clear();
                    savepoints.Clear();
                    break;
                case TransactionControl.Savepoint when open:
                    savepoints.Add((LastName(statement), block.Count));
                    break;
                case TransactionControl.Release when open:
                    int released = savepoints.FindLastIndex(s => s.Name == LastName(statement));
                    if (released >= 0)
                    {
                        savepoints.RemoveRange(released, savepoints.Count - released);
                    }

                    break;
                case TransactionControl.RollbackTo when open:
                    int kept = savepoints.FindLastIndex(s => s.Name == LastName(statement));
                    if (kept >= 0)
                    {
                        block.Skip(savepoints[kept].At).ToList().ForEach(undone => undone.RolledBack = true);
                        block.RemoveRange(savepoints[kept].At, block.Count - savepoints[kept].At);
                        savepoints.RemoveRange(kept + 1, savepoints.Count - kept - 1);
                    }

                    break;
                case TransactionControl.None when open:
                    block.Add(statement);
                    break;
            }
        }
    }

    private static bool Chains(SqlStatement statement)
    {
        int count = statement.Tokens.Length;
        return statement.Is(count - 1, "chain") && !statement.Is(count - 2, "no");
    }

    private static string LastName(SqlStatement statement) => SqlReader.NameOf(statement.Script, statement.Tokens[^1]) ?? "";

    private static TransactionControl ControlOf(SqlStatement s)
    {
        if (s.Is(0, "begin") || s.Is(0, "start", "transaction"))
        {
            return TransactionControl.Begin;
        }

        if (s.Is(1, "prepared"))
        {
            return TransactionControl.None;
        }

        if (s.Is(0, "commit") || s.Is(0, "end") || s.Is(0, "prepare", "transaction"))
        {
            return TransactionControl.Commit;
        }

        if (s.Is(0, "rollback") || s.Is(0, "abort"))
        {
            int next = s.Is(1, "work") || s.Is(1, "transaction") ? 2 : 1;
            return s.Is(next, "to") ? TransactionControl.RollbackTo : TransactionControl.Rollback;
        }

        return s.Is(0, "savepoint") ? TransactionControl.Savepoint
            : s.Is(0, "release") ? TransactionControl.Release
            : TransactionControl.None;
    }

    /// <summary>Follows SET standard_conforming_strings: what is not in E'' has escapes too once it is off.</summary>
    private struct StringMode
    {
        private bool _session;
        private bool? _beforeTransaction;
        private bool? _local;
        private bool _open;

        internal readonly bool BackslashEscapes => _local ?? _session;

        internal void See(SqlStatement statement)
        {
            switch (ControlOf(statement))
            {
                case TransactionControl.Begin:
                    (_open, _beforeTransaction) = (true, _session);
                    return;
                case TransactionControl.Commit:
                    (_open, _local) = (Chains(statement), null);
                    _beforeTransaction = _session;
                    return;
                case TransactionControl.Rollback:
                    _session = _open && _beforeTransaction is { } before ? before : _session;
                    (_open, _local) = (_open && Chains(statement), null);
                    return;
            }

            bool isSet = statement.Is(0, "set");
            if ((isSet || statement.Is(0, "reset")) && (statement.Is(1, "standard_conforming_strings") || statement.Is(2, "standard_conforming_strings") || statement.Is(1, "all"))
                && SetVariable.ReadClause(new SqlReader(statement)) is { Name: "standard_conforming_strings" or "all" } set)
            {
                bool escapes = !set.Reset && set.TurnsOff;
                if (!set.Local)
                {
                    (_session, _local) = (escapes, null);
                }
                else if (_open)
                {
                    _local = escapes;
                }
            }
        }
    }

    /// <summary>Follows BEGIN ATOMIC ... END in CREATE FUNCTION and CREATE PROCEDURE, whose semicolons part no statements.</summary>
    private struct BodyTracker
    {
        private int _words;
        private bool _routine;
        private bool _beginSeen;
        private bool _nameFollows;
        private int _depth;

        /// <summary>Whether a body is open.</summary>
        internal readonly bool Open => _depth > 0;

        internal void See(string text, SqlToken token)
        {
            // After AS and after a dot the word is a name: "select 1 as end", "t.case".
            bool isName = _nameFollows;
            _nameFollows = token.Kind == SqlTokenKind.Punctuation && text[token.Start] == '.' && token.Length == 1;
            if (token.Kind != SqlTokenKind.Word)
            {
                _beginSeen = false;
                return;
            }

            ReadOnlySpan<char> word = token.Span(text);
            _words++;
            if (_words <= 4 && !_routine)
            {
                _routine = _words switch
                {
                    1 => false,
                    2 or 4 => Same(word, "function") || Same(word, "procedure"),
                    _ => false,
                };
                if (_words == 1 && !Same(word, "create"))
                {
                    _words = int.MinValue;
                }
            }

            if (!_routine)
            {
                return;
            }

            if (_depth == 0)
            {
                _depth = _beginSeen && Same(word, "atomic") ? 1 : 0;
                _beginSeen = Same(word, "begin");
                return;
            }

            _nameFollows |= Same(word, "as");
            if (!isName)
            {
                _depth += Same(word, "case") ? 1 : Same(word, "end") ? -1 : 0;
            }
        }

        private static bool Same(ReadOnlySpan<char> word, string other) => System.Text.Ascii.EqualsIgnoreCase(word, other);
    }
}
