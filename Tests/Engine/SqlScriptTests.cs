using MigrationSafety.Engine.Sql;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Where statements of a script end.</summary>
public sealed class SqlScriptTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Statements_end_where_psql_ends_them(int major)
    {
        Assert.SkipWhen(Psql.Missing is not null, Psql.Missing ?? "");
        await using TestDatabase database = await servers.Clusters.CreateDatabaseAsync(major, Token);
        Assert.SkipWhen(database.Server.IsExternal, "The log of a server that is not ours cannot be read.");
        const string Script = """
            create table t (a int, "b;" text); select 1 as x; select ';' as "y;" /* ; /* ; */ ; */ ;
            create function f(x int) returns int language plpgsql as $body$ begin return x; end; $body$;
            create function g(x int) returns int begin atomic select x; select case when x > 1 then case x when 2 then 3 end end; end;
            create or replace procedure p() begin atomic insert into t values (1, 'end;'); insert into t values (2, $$;$$); end; select 2;
            create rule r as on delete to t do instead (select 1; select 2);
            select E'\';' , U&'\003b', B'01', 'a'
              'b;' , 1.5e3, $x$ $$;$$ $x$ -- ; '
              ;
            \set name value
            \echo hi; there
            select 3 \;  select 4;
            copy t from stdin;
            1	;'
            \.
            select 5
            \g
            begin; savepoint s; rollback to s; commit;
            set standard_conforming_strings = off;
            select 'a\'; b', N'\\'; begin; set local standard_conforming_strings = on;
            select '\'; commit;
            select '\';'; begin; reset standard_conforming_strings;
            select '\'; rollback;
            select '\';'; reset all;
            select '\';
            select 'last'
            """;
        (int exitCode, string output) = await Psql.RunAsync(database, Script, "-c log_statement=all", Token);
        Assert.True(exitCode == 0, output);
        Assert.DoesNotContain("ERROR", output, StringComparison.Ordinal);

        // What others write stands between, lines of an error's statement among them.
        List<string> logged = [];
        bool isOurs = false;
        foreach (string line in database.Server.ReadLog().Split('\n'))
        {
            const string Mark = "LOG:  statement: ";
            if (!line.StartsWith('\t'))
            {
                isOurs = line.Contains($"@{database.Name}/psql", StringComparison.Ordinal) && line.Contains(Mark, StringComparison.Ordinal);
                if (isOurs)
                {
                    logged.Add(line[(line.IndexOf(Mark, StringComparison.Ordinal) + Mark.Length)..]);
                }
            }
            else if (isOurs)
            {
                logged[^1] += "\n" + line[1..];
            }
        }

        // psql sends the two around "\;" in one message.
        string[] ours = [.. SqlScript.Parse(Script).Statements.Where(s => s.Kind == SqlStatementKind.Sql).Select(s => Normal(s.Text)).Select(s => s == "select 3" ? "select 3 ; select 4" : s).Where(s => s != "select 4")];
        Assert.Equal(logged.Select(Normal), ours);
    }

    /// <summary>A statement without comments, with one space between tokens, without the semicolon at its end.</summary>
    private static string Normal(string sql) =>
        string.Join(' ', SqlLexer.Tokens(sql).Where(t => t.Kind != SqlTokenKind.Comment).Select(t => sql.Substring(t.Start, t.Length)
            .Replace(" -- ; '", "", StringComparison.Ordinal))).TrimEnd(';').Trim();
}
