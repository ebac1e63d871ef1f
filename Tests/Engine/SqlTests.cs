using System.Text;
using MigrationSafety.Engine.Sql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>The lexer and the splitter, held against what PostgreSQL and psql do.</summary>
public sealed class SqlTests
{
    [Theory]
    [InlineData("select 'a''b'", "Word:select String:'a''b'")]
    [InlineData(@"'a\' || 1", @"String:'a\' Operator:|| Number:1")]
    [InlineData(@"E'a\'b' x", @"EscapeString:E'a\'b' Word:x")]
    [InlineData("e'a'\n  'b\\'c' x", "EscapeString:e'a'\n  'b\\'c' Word:x")]
    [InlineData("'a' -- c\n 'b' 'c'", "String:'a' -- c\n 'b' String:'c'")]
    [InlineData("'a' /* c */\n 'b'", "String:'a' Comment:/* c */ String:'b'")]
    [InlineData("U&'d\\0061t' U&\"d\\0061t\" u & 'x'", "UnicodeString:U&'d\\0061t' UnicodeName:U&\"d\\0061t\" Word:u Operator:& String:'x'")]
    [InlineData("B'01' x'1F' N'n' nb'1'", "BitString:B'01' BitString:x'1F' String:N'n' Word:nb String:'1'")]
    [InlineData("$$a;'$$ $tag$ $$ $tag $tag$ x$$y $1$2", "DollarString:$$a;'$$ DollarString:$tag$ $$ $tag $tag$ Word:x$$y Parameter:$1 Parameter:$2")]
    [InlineData("$é$;$é$ $1a$", "DollarString:$é$;$é$ Parameter:$1 Word:a$")]
    [InlineData("/* a /* b */ c */ d -- e", "Comment:/* a /* b */ c */ Word:d Comment:-- e")]
    [InlineData("a+/*c*/b --\n-1", "Word:a Operator:+ Comment:/*c*/ Word:b Comment:-- Operator:- Number:1")]
    [InlineData("a=-1 b@-1 c<>d e->>'f' **-+- ", "Word:a Operator:= Operator:- Number:1 Word:b Operator:@- Number:1 Word:c Operator:<> Word:d Word:e Operator:->> String:'f' Operator:** Operator:- Operator:+ Operator:-")]
    [InlineData("\"a\"\"b;\" \"\"", "QuotedName:\"a\"\"b;\" QuotedName:\"\"")]
    [InlineData("1..10 1.5e-3 .5 1. 0xFF 1_000 1e x", "Number:1 Punctuation:.. Number:10 Number:1.5e-3 Number:.5 Number:1. Number:0xFF Number:1_000 Number:1 Word:e Word:x")]
    [InlineData("a::int b[1:2] f(x := 1, y => 2)", "Word:a Punctuation::: Word:int Word:b Punctuation:[ Number:1 Punctuation:: Number:2 Punctuation:] Word:f Punctuation:( Word:x Punctuation::= Number:1 Punctuation:, Word:y Operator:=> Number:2 Punctuation:)")]
    [InlineData("naïve\u00a0x {", "Word:naïve\u00a0x Unknown:{")]
    [InlineData("'open", "Unclosed:'open")]
    [InlineData("\"open", "Unclosed:\"open")]
    [InlineData("/* /* */ open", "Unclosed:/* /* */ open")]
    [InlineData("$a$ $b$ open", "Unclosed:$a$ $b$ open")]
    [InlineData("E'open\\", "Unclosed:E'open\\")]
    [InlineData("\ufeffselect 1", "Word:select Number:1")]
    [InlineData("\\set a 'b \\\\ c' \\\\ select", "MetaCommand:\\set a 'b \\\\ c' \\\\ Word:select")]
    [InlineData("", "")]
    public void Tokens_are_those_of_PostgreSQL(string sql, string expected) =>
        Assert.Equal(expected, string.Join(' ', SqlLexer.Tokens(sql).Select(t => $"{t.Kind}:{t.Span(sql)}")));

    [Theory]
    [InlineData("select 1; select 2", "select 1|select 2")]
    [InlineData(";; select 1 ;;", "select 1")]
    [InlineData("-- only a comment\n/* and ; another */", "")]
    [InlineData("select ';' /* ; */ , $$;$$ -- ;\n; select 2;", "select ';' /* ; */ , $$;$$|select 2")]
    [InlineData("create rule r as on insert to a do also (insert into b values (1); delete from c); select 1;",
        "create rule r as on insert to a do also (insert into b values (1); delete from c)|select 1")]
    [InlineData("create function f() returns int begin atomic select 1; select case when true then 2 end; end; select 1",
        "create function f() returns int begin atomic select 1; select case when true then 2 end; end|select 1")]
    [InlineData("create or replace procedure p() BEGIN ATOMIC select 1 as end; END; select 1",
        "create or replace procedure p() BEGIN ATOMIC select 1 as end; END|select 1")]
    [InlineData("create table function (begin int); begin; commit;", "create table function (begin int)|begin|commit")]
    [InlineData("create function f() returns int language plpgsql as $x$ begin return 1; end; $x$; select 1;",
        "create function f() returns int language plpgsql as $x$ begin return 1; end; $x$|select 1")]
    [InlineData("select 1 \\; select 2;", "select 1|select 2")]
    [InlineData("select 1 \\gset\nselect :x;", "select 1|\\gset|select :x")]
    [InlineData("\\set ON_ERROR_STOP on\n\\i a;b.sql\nselect 1;", "\\set ON_ERROR_STOP on|\\i a;b.sql|select 1")]
    [InlineData("select 1\n\\echo hi\n+ 2;", "\\echo hi|select 1\n\\echo hi\n+ 2")]
    [InlineData("copy t from stdin;\n1;'\t2\n\\.\nselect 1;", "copy t from stdin|1;'\t2\n\\.|select 1")]
    [InlineData("copy t (a) from stdin with (format csv); -- rows\r\n1\r\n\\.\r\nselect 1;", "copy t (a) from stdin with (format csv)|1\r\n\\.|select 1")]
    [InlineData("copy (select 1) to stdout; select 2;", "copy (select 1) to stdout|select 2")]
    [InlineData("\\copy t from stdin\n;1\n\\.\nselect 1;", "\\copy t from stdin|;1\n\\.|select 1")]
    [InlineData("copy t from stdin;", "copy t from stdin")]
    [InlineData("set standard_conforming_strings = off;\nselect 'a\\'; b'; set standard_conforming_strings to on;\nselect 'a\\'; c", "set standard_conforming_strings = off|select 'a\\'; b'|set standard_conforming_strings to on|select 'a\\'|c")]
    [InlineData("set standard_conforming_strings = off; select '\\'; set x = 1;\nselect '\\';'", "set standard_conforming_strings = off|select '\\'|set x = 1|select '\\';'")]
    [InlineData("begin; set local standard_conforming_strings to 'off';\nselect '\\';'; commit;\nselect '\\';", "begin|set local standard_conforming_strings to 'off'|select '\\';'|commit|select '\\'")]
    [InlineData("begin; set standard_conforming_strings = off;\nselect '\\';'; rollback;\nselect '\\';", "begin|set standard_conforming_strings = off|select '\\';'|rollback|select '\\'")]
    [InlineData("set standard_conforming_strings = false;\nselect N'\\';', $$\\$$, E'\\''; reset all;\nselect '\\'", "set standard_conforming_strings = false|select N'\\';', $$\\$$, E'\\''|reset all|select '\\'")]
    [InlineData("select 'open; select 2;", "select 'open; select 2;")]
    [InlineData("\ufeffselect 1;\r\nselect 2;\r\n", "select 1|select 2")]
    public void Scripts_are_cut_where_psql_cuts(string script, string expected) =>
        Assert.Equal(expected, string.Join('|', SqlScript.Parse(script).Statements.Select(s => s.Text)));

    [Fact]
    public void Positions_count_every_kind_of_line_end()
    {
        SqlScript script = SqlScript.Parse("\ufeffselect 1;\r\n  select\n'a\nb'; select 2;\rselect 3;");
        Assert.Equal(
            [(1, 1), (2, 3), (4, 5), (5, 1)],
            script.Statements.Select(s => (s.Line, s.Column)));
    }

    [Theory]
    [InlineData("a; begin; b; commit; c;", "a:out begin:out b:in commit:in c:out")]
    [InlineData("begin; a; rollback; b;", "begin:out a:undone rollback:in b:out")]
    [InlineData("start transaction; a; savepoint s; b; rollback to s; c; commit;",
        "start transaction:out a:in savepoint s:in b:undone rollback to s:in c:in commit:in")]
    [InlineData("begin; a; savepoint s; b; release s; rollback work;", "begin:out a:undone savepoint s:in b:undone release s:in rollback work:in")]
    [InlineData("begin; a; commit and chain; b; end; c", "begin:out a:in commit and chain:in b:in end:in c:out")]
    [InlineData("begin; a; commit and no chain; b", "begin:out a:in commit and no chain:in b:out")]
    [InlineData("begin; a; prepare transaction 'x'; b; rollback prepared 'x'; commit prepared 'y';",
        "begin:out a:in prepare transaction 'x':in b:out rollback prepared 'x':out commit prepared 'y':out")]
    public void Transactions_of_the_script_are_known(string script, string expected) =>
        Assert.Equal(
            expected,
            string.Join(' ', SqlScript.Parse(script).Statements.Select(s => s.Text + (s.RolledBack ? ":undone" : s.InTransaction ? ":in" : ":out"))));

    [Theory]
    [InlineData("Orders", "orders")]
    [InlineData("\"Or\"\"ders\"", "Or\"ders")]
    [InlineData("U&\"d\\0061t\\+000061\"", "data")]
    [InlineData("U&\"d!0061ta\" uescape '!'", "data")]
    [InlineData("ÄÖ", "ÄÖ")]
    [InlineData("\"\"", null)]
    [InlineData("'text'", null)]
    [InlineData("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg", "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg")]
    [InlineData("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggäg", "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgg")]
    public void Names_are_read_as_the_catalog_holds_them(string sql, string? expected) =>
        Assert.Equal(expected, new SqlReader(SqlScript.Parse(sql).Statements[0]).TakeName());

    [Fact]
    public void Any_text_is_cut_without_gaps_or_errors()
    {
        string[] pieces =
        [
            "'", "\"", "$$", "$a$", "$", "E'", "U&\"", "U&'", "\\", "\\.", "/*", "*/", "--", "\n", "\r\n", "\r", ";", "(", ")", "[", "]", ",", ".", "..", ":", "::", ":=",
            "copy t from stdin;\n", "create function f() begin atomic ", " end", " case ", "create table t (a int)", "alter table only a.b add column c int, add ",
            "constraint x check (a > 0)", "create unique index concurrently if not exists i on t (lower(a), (b + 1))", "0x", "1e", "é", "\ufeff", "\0", "\ud800",
            " begin;", " rollback to s;", " uescape '!'", "+-+-", "@-", "\\copy", "\\r", "\\g", " references ", " primary key ", "U&\"\\+110000\"", "using index ",
        ];
        Random random = new(20240607);
        for (int i = 0; i < 20_000; i++)
        {
            StringBuilder builder = new();
            for (int n = random.Next(12); n >= 0; n--)
            {
                builder.Append(random.Next(5) == 0 ? ((char)random.Next(1, 0x250)).ToString() : pieces[random.Next(pieces.Length)]);
            }

            string text = builder.ToString();
            int at = text.StartsWith('\ufeff') ? 1 : 0;
            foreach (SqlToken token in SqlLexer.Tokens(text))
            {
                Assert.True(token.Length > 0, $"An empty token in: {text}");
                Assert.True(text.AsSpan(at, token.Start - at).Trim(" \t\r\n\f\v").IsEmpty, $"Text is lost before {token.Start} in: {text}");
                at = token.EndIndex;
            }

            Assert.True(text.AsSpan(at).Trim(" \t\r\n\f\v").IsEmpty, $"The end is lost in: {text}");
            foreach (SqlStatement statement in SqlScript.Parse(text).Statements)
            {
                Assert.NotEmpty(statement.Text);
            }
        }
    }

    [Theory]
    [InlineData("+")]
    [InlineData("$a$")]
    [InlineData("$a")]
    [InlineData("(")]
    [InlineData("'a'\n")]
    [InlineData("/*")]
    [InlineData("select 1;\n")]
    [InlineData("\\x \n")]
    [InlineData("begin; savepoint s; rollback to s;")]
    public void Time_is_linear_in_the_length(string piece)
    {
        string text = string.Concat(Enumerable.Repeat(piece, 4_000_000 / piece.Length));
        System.Diagnostics.Stopwatch watch = System.Diagnostics.Stopwatch.StartNew();
        Assert.NotEmpty(SqlScript.Parse(text).Statements);

        // Quadratic time would be hours; the bound is generous for a loaded machine.
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(30), $"4 MB of '{piece}' took {watch.Elapsed}.");
    }
}
