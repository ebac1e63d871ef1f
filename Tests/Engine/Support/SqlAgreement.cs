using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>Counts where our parser agrees with PostgreSQL's, over any number of scripts.</summary>
internal sealed class SqlAgreement
{
    private const int RunLength = 100;
    private readonly SqlReference _reference;

    internal SqlAgreement(SqlReference reference) => _reference = reference;

    /// <summary>Statements that we cut out.</summary>
    internal int Statements { get; private set; }

    /// <summary>Those that PostgreSQL accepts.</summary>
    internal int Accepted { get; private set; }

    /// <summary>Those of them that we parse whole.</summary>
    internal int Parsed { get; private set; }

    /// <summary>Those of them whose command tag and target are the same.</summary>
    internal int Agreed { get; private set; }

    /// <summary>Statements that PostgreSQL does not accept, and why.</summary>
    internal List<string> Rejected { get; } = [];

    /// <summary>Where the boundaries are others.</summary>
    internal List<string> WrongBoundaries { get; } = [];

    /// <summary>Accepted statements that we do not parse, with their file.</summary>
    internal List<string> NotParsed { get; } = [];

    /// <summary>Accepted statements whose tag or target is another.</summary>
    internal List<string> Disagreed { get; } = [];

    /// <summary>Compares a script.</summary>
    internal async Task CompareAsync(string name, string text)
    {
        SqlScript script = SqlScript.Parse(text);
        string blanked = WithoutPsql(script);
        SqlStatement[] statements = [.. script.Statements.Where(s => s.Kind == SqlStatementKind.Sql)];
        ReferenceAnswer[] answers = await _reference.ParseAsync([.. statements.Select(s => Blanked(blanked, s, s))]);
        List<SqlStatement> run = [];
        for (int i = 0; i < statements.Length; i++)
        {
            Statements++;
            SqlStatement statement = statements[i];
            if (answers[i].Statements is not { } found)
            {
                Rejected.Add($"{name}:{statement.Line}: {answers[i].Error}: {Short(statement.Text)}");
                await CompareRunAsync(name, blanked, run);
                await CompareRejectedAsync(name, blanked, statements, i);
                continue;
            }

            Accepted++;
            if (found.Length != 1)
            {
                WrongBoundaries.Add($"{name}:{statement.Line}: {found.Length} statements in: {Short(statement.Text)}");
                continue;
            }

            Compare(name, statement, found[0]);
            run.Add(statement);
            if (run.Count == RunLength)
            {
                await CompareRunAsync(name, blanked, run);
            }
        }

        await CompareRunAsync(name, blanked, run);
    }

    private void Compare(string name, SqlStatement statement, ReferenceStatement reference)
    {
        ParsedStatement parsed = StatementParser.Parse(statement);
        string place = $"{name}:{statement.Line}: ";
        if (parsed is OtherStatement)
        {
            NotParsed.Add(place + Short(statement.Text));
        }
        else
        {
            Parsed++;
        }

        string[] targets = [.. parsed.Targets.Select(t => t.Schema is null ? t.Name : t.Schema + "." + t.Name)];
        if (parsed is not OtherStatement && parsed.Tag == reference.Tag && targets.SequenceEqual(reference.Targets))
        {
            Agreed++;
        }
        else if (parsed is not OtherStatement)
        {
            Disagreed.Add($"{place}{parsed.Tag} {string.Join(',', targets)} instead of {reference.Tag} {string.Join(',', reference.Targets)}: {Short(statement.Text)}");
        }
    }

    /// <summary>Several statements in one text: the boundaries must be the same.</summary>
    private async Task CompareRunAsync(string name, string blanked, List<SqlStatement> run)
    {
        if (run.Count > 1)
        {
            int offset = run[0].Tokens[0].Start;
            ReferenceAnswer answer = await _reference.ParseAsync(Blanked(blanked, run[0], run[^1]));
            bool same = answer.Statements?.Length == run.Count && run.Zip(answer.Statements).All(p =>
                p.First.Tokens[0].Start - offset >= p.Second.Start && p.First.Tokens[^1].EndIndex - offset <= p.Second.End);
            if (!same)
            {
                WrongBoundaries.Add($"{name}:{run[0].Line}-{run[^1].Line}: {answer.Error ?? answer.Statements?.Length + " statements"} instead of {run.Count}");
            }
        }

        run.Clear();
    }

    /// <summary>What PostgreSQL does not accept alone it must not accept together with what follows: then we would have cut inside a statement.</summary>
    private async Task CompareRejectedAsync(string name, string blanked, SqlStatement[] statements, int at)
    {
        for (int last = at + 1; last < Math.Min(at + 4, statements.Length); last++)
        {
            ReferenceAnswer answer = await _reference.ParseAsync(Blanked(blanked, statements[at], statements[last]));
            if (answer.Statements is not null)
            {
                WrongBoundaries.Add($"{name}:{statements[at].Line}: a boundary too many behind: {Short(statements[at].Text)}");
            }
        }
    }

    private static string Blanked(string blanked, SqlStatement first, SqlStatement last) => blanked[first.Tokens[0].Start..last.Tokens[^1].EndIndex];

    /// <summary>The script as the server would get it: meta-commands and COPY data are blank, what sends a statement is a semicolon.</summary>
    private static string WithoutPsql(SqlScript script)
    {
        char[] text = script.Text.ToCharArray();
        SqlStatement? before = null;
        foreach (SqlStatement statement in script.Statements)
        {
            if (statement.Kind != SqlStatementKind.Sql)
            {
                SqlToken token = statement.Tokens[0];
                text.AsSpan(token.Start, token.Length).Fill(' ');
                bool sends = before is { Kind: SqlStatementKind.Sql, Terminated: true }
                    && script.Text.AsSpan(before.Tokens[^1].EndIndex, token.Start - before.Tokens[^1].EndIndex).IndexOf(';') < 0;
                text[token.Start] = sends ? ';' : ' ';
                if (statement.Text is @"\r" or @"\reset")
                {
                    int dropped = script.Statements.Where(s => s.Kind == SqlStatementKind.Sql && s.Terminated && s.Tokens[^1].EndIndex <= token.Start).Max(s => s.Tokens[^1].EndIndex) + 1;
                    text.AsSpan(dropped, token.Start - dropped).Fill(' ');
                }
            }

            before = statement;
        }

        for (int i = 0; i + 1 < text.Length; i++)
        {
            if (text[i] == '\\' && text[i + 1] == ';')
            {
                text[i] = ' ';
            }
        }

        return new string(text);
    }

    private static string Short(string text)
    {
        string line = string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
        return line.Length <= 160 ? line : line[..157] + "...";
    }
}
