namespace MigrationSafety.Engine.Sql.Statements;

/// <summary>
/// The code of a DO block that does no more than run statements of SQL: plainly, behind one IF, or passing errors over, as in
/// <c>BEGIN IF NOT EXISTS (...) THEN CREATE ...; END IF; END</c> and <c>BEGIN CREATE ...; EXCEPTION WHEN duplicate_object THEN NULL; END</c>.
/// </summary>
/// <param name="Condition">What IF asks; null where there is no IF.</param>
/// <param name="Statements">The statements; at least one.</param>
/// <param name="Passed">The errors that are passed over, by their names in PL/pgSQL; empty where none are.</param>
internal sealed record DoBody(SqlFragment? Condition, IReadOnlyList<SqlStatement> Statements, IReadOnlyList<string> Passed)
{
    /// <summary>The code of a block; null where it does anything else.</summary>
    internal static DoBody? Read(DoBlock block)
    {
        string text = Unquoted(block.Body);
        SqlToken[] tokens = [.. SqlLexer.Tokens(text, psql: false).Where(t => t.Kind != SqlTokenKind.Comment)];
        if (tokens.Length == 0 || !block.Language.Equals("plpgsql", StringComparison.OrdinalIgnoreCase))
        {
            return null;
        }

        SqlReader r = new(new SqlStatement(text, SqlStatementKind.Sql, tokens));
        r.Expect("begin");
        SqlFragment? condition = null;
        if (r.Take("if"))
        {
            condition = r.Until("then");
            r.Expect("then");
        }

        List<SqlStatement> statements = [];
        while (!r.AtEnd && !r.Sees("end") && !r.Sees("exception"))
        {
            if (Statement(r, text, tokens) is not { } statement)
            {
                return null;
            }

            statements.Add(statement);
        }

        if (condition is not null)
        {
            r.Expect("end", "if");
            End(r);
        }

        List<string> passed = r.Take("exception") ? Handlers(r) : [];
        r.Expect("end");
        if (r.Kind == SqlTokenKind.Semicolon)
        {
            r.Skip();
        }

        return r.Failed || !r.AtEnd || statements.Count == 0 ? null : new DoBody(condition, statements, passed);
    }

    /// <summary>What a string of SQL holds, quoted with dollars or plainly.</summary>
    internal static string Unquoted(string literal)
    {
        if (literal.StartsWith('$'))
        {
            int tag = literal.IndexOf('$', 1) + 1;
            return literal[tag..^tag];
        }

        return literal.Length < 2 ? literal : literal[1..^1].Replace("''", "'", StringComparison.Ordinal);
    }

    /// <summary>The next statement where it is one of SQL, and means the same there: EXECUTE and SELECT INTO do not.</summary>
    private static SqlStatement? Statement(SqlReader r, string text, SqlToken[] tokens)
    {
        // Semicolons of a BEGIN ATOMIC body do not end it.
        SqlStatement statement = SqlScript.Parse(text[tokens[r.At].Start..], psql: false).Statements[0];
        int end = tokens[r.At].Start + statement.Tokens[^1].EndIndex;
        while (!r.AtEnd && tokens[r.At].Start < end)
        {
            r.Skip();
        }

        End(r);
        statement.InTransaction = true;
        return r.Failed || StatementParser.Parse(statement) is OtherStatement or TransactionStatement or SessionStatement or CreateTableAs { Tag: "SELECT INTO" } or Query ? null : statement;
    }

    /// <summary>WHEN a OR b THEN NULL.</summary>
    private static List<string> Handlers(SqlReader r)
    {
        List<string> passed = [];
        r.Expect("when");
        do
        {
            do
            {
                passed.Add(r.Label());
            }
            while (r.Take("or"));
            r.Expect("then");
            if (r.Take("raise"))
            {
                r.OneOf("notice", "warning", "info", "debug", "log");
                while (!r.AtEnd && r.Kind != SqlTokenKind.Semicolon)
                {
                    r.Skip();
                }
            }
            else
            {
                r.Expect("null");
            }

            End(r);
        }
        while (r.Take("when"));
        return passed;
    }

    private static void End(SqlReader r)
    {
        if (r.Kind == SqlTokenKind.Semicolon)
        {
            r.Skip();
        }
        else
        {
            r.Fail();
        }
    }
}
