using System.Globalization;
using System.Text;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Rollbacks, proved by running them.</summary>
public sealed class RollbackTests
{
    private const string Schema = """
        create schema sales;
        create table customers (id bigint primary key, email text);
        create table orders (id bigint, customer_id bigint, total numeric, note text, a int, b int, data jsonb, ts timestamptz, "Weird ""Col" int);
        create table sales.items (id int, order_id bigint, at int4range);
        create table parted (id int, at date) partition by range (at);
        create table parted_1 partition of parted for values from ('2020-01-01') to ('2021-01-01');
        create unique index orders_id_old on orders (id);
        create index orders_note_idx on orders (note);
        insert into customers values (1, 'a@b');
        insert into orders (id, customer_id, total, note, a, b) values (1, 1, 1.5, 'x', 1, 2);
        """;

    /// <summary>Migrations, and whether their text alone is enough to take them back in full.</summary>
    private static readonly Dictionary<string, (string Sql, bool TextIsEnough)> s_migrations = new()
    {
        ["index"] = ("create index orders_total_idx on orders (total);", true),
        ["index, concurrently, unique, schema"] = ("create unique index concurrently items_u on only sales.items using btree (id desc nulls last) include (order_id) where id > 0;", false),
        ["index that may be there"] = ("create index concurrently if not exists orders_total_idx on orders (total); create index if not exists orders_note_idx on orders (note);", false),
        ["indexes without names"] = (
            """
            create index on orders (total);
            create index on orders (note);
            create index on orders (lower(note));
            create index on orders ((a + b));
            create index on orders ((a + b), (a - b));
            create index on orders (((data ->> 'a')::int));
            create index on orders ((note::varchar(10)));
            create index on orders (coalesce(a, b));
            create index on orders ((case when a > 0 then b else a end));
            create index on orders ((case when a > 0 then b end), (case when a > 0 then 1 else 2 end));
            create index on orders (a) include (b);
            create index on orders (date(ts at time zone 'utc'));
            create index on orders ((ts at time zone 'utc'));
            create index on orders (a, a);
            create index on orders (extract(year from ts at time zone 'utc'));
            create index on orders ((trim(note)), (trim(leading from note)), (substring(note from 1 for 2)));
            create index on orders ((cast(a as bigint)), ((a + b)::double precision), ((a || 'x')::text::character varying));
            create index on orders ((data -> 'x'));
            create index on orders ((note collate "C"));
            create index on orders (note collate "C" text_pattern_ops desc);
            create index on orders ((nullif(a, b)), (greatest(a, b)));
            create index on orders ((a is null));
            create index on orders ((array[a, b]));
            create index on orders ((-a));
            create index on orders ("Weird ""Col");
            create index on orders using gin (data jsonb_path_ops);
            create index on sales.items using gist (at);
            """, false),
        ["long names"] = (
            """
            alter table orders add column "a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_" int,
                add column "ünïcödé_ünïcödé_ünïcödé_ünïcödé_ünïcödé" int;
            create index on orders ("a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_");
            create index on orders ("ünïcödé_ünïcödé_ünïcödé_ünïcödé_ünïcödé", "a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_", a);
            create index on orders ("ünïcödé_ünïcödé_ünïcödé_ünïcödé_ünïcödé", "a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_");
            alter table orders add check ("a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_" > 0);
            alter table orders add check ("a_column_with_a_name_that_is_quite_long_indeed_and_goes_on_and_on_" < 9);
            create index a_name_that_is_cut_because_it_is_longer_than_sixty_three_bytes_of_utf8 on customers (email);
            """, true),
        ["columns"] = (
            """
            ALTER TABLE orders
              ADD COLUMN tier text NOT NULL DEFAULT 'x' CHECK (tier <> ''),
              ADD "Order" timestamp (3) with time zone,
              ADD parent_id bigint REFERENCES customers (id) ON DELETE SET NULL,
              ADD COLUMN n bigint GENERATED ALWAYS AS (a * 2) STORED,
              ADD COLUMN seq serial;
            UPDATE orders SET tier = 'y', ("Order", parent_id) = (now(), 1) WHERE a = 1;
            CREATE INDEX ON orders (tier);
            """, true),
        ["columns that may be there"] = ("alter table orders add column if not exists note text, add column if not exists extra int;", false),
        ["constraints"] = (
            """
            alter table orders add constraint total_positive check (total > 0) not valid;
            alter table orders validate constraint total_positive;
            alter table only orders add constraint "The Key" unique (a, b), add constraint fk foreign key (customer_id) references customers not valid;
            alter table sales.items add constraint ex exclude using gist (at with &&) where (id > 0);
            alter table sales.items add foreign key (order_id) references customers (id) match full deferrable initially deferred;
            """, true),
        ["constraints without names"] = (
            """
            alter table orders add unique (a, b), add unique (a) include (b), add unique (a, b);
            alter table orders add check (a > 0), add check (a < 10), add check (a < b), add check (orders.a is not null and lower(note) <> 'q'::text);
            alter table orders add check ("Weird ""Col" > 1), add check (extract(year from ts at time zone 'utc') > 0), add check (true);
            alter table orders add exclude using btree ((a + b) with =, b with =);
            alter table orders add foreign key (customer_id) references customers, add foreign key (customer_id) references customers (id);
            """, false),
        ["primary key"] = ("alter table orders add primary key (id, a);", false),
        ["primary key from the script's own index"] = (
            """
            alter table orders add column k bigint generated by default as identity;
            create unique index concurrently orders_k on orders (k);
            alter table orders add constraint orders_key primary key using index orders_k;
            """, true),
        ["constraint that takes an older index"] = ("alter table orders add constraint orders_id_u unique using index orders_id_old;", false),
        ["tables"] = (
            """
            create table products (id bigint primary key, name text unique, parent bigint references products, customer_id bigint references customers);
            create index on products (name);
            alter table products add check (name <> ''), owner to current_user;
            comment on table products is 'x';
            comment on column products.name is 'y';
            insert into products values (1, 'a');
            create unlogged table if not exists "Sales"(x int);
            create table summary as select count(*) as n from orders;
            create table sales."Order Items" (like orders including all, constraint c check (a > 0));
            create temp table scratch (x int);
            create index on scratch (x);
            create table parted_2 partition of parted for values from ('2021-01-01') to ('2022-01-01');
            """, false),
        ["a transaction, and one that is rolled back"] = (
            """
            begin;
            set local lock_timeout = '1s';
            create table t1 (x int);
            savepoint s;
            alter table orders add column never int;
            rollback to s;
            alter table orders add column ever int;
            commit;
            begin;
            create table t2 (x int);
            rollback;
            """, true),
        ["search_path of its own"] = (
            """
            set search_path to sales;
            create table notes (x int);
            alter table items add column y int;
            create index on items (id);
            reset search_path;
            alter table orders add column y int;
            """, true),
        ["names that need quotation marks"] = (
            """
            create table "select" ("from" int, "a""b" int, "C:\d" int);
            alter table orders add column "order" int, add column ":x" int, add constraint "check" check ("order" > 0);
            create index "in dex; --" on orders ("order");
            """, true),
    };

    private readonly Servers _servers;

    public RollbackTests(Servers servers) => _servers = servers;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task What_is_rolled_back_is_as_it_was(int major)
    {
        await using Bench bench = await Bench.CreateAsync(_servers, major);
        foreach ((string what, (string sql, bool textIsEnough)) in s_migrations)
        {
            foreach (bool withCatalog in textIsEnough ? [true, false] : new[] { true })
            {
                string before = await bench.SnapshotAsync();
                RollbackScript rollback = withCatalog ? await bench.RollbackAsync(sql) : RollbackGenerator.FromScript(what, sql);
                await bench.RunAsync(sql, what);
                Assert.NotEqual(before, await bench.SnapshotAsync());
                await bench.RunAsync(rollback.Text, what);
                Assert.Equal(before, await bench.SnapshotAsync());
                Assert.DoesNotContain(rollback.Statements, s => s.Reversibility is Reversibility.Unknown or Reversibility.Irreversible);

                // Again, as after a time-out; and the migration can run again.
                await bench.RunAsync(rollback.Text, what);
                Assert.Equal(before, await bench.SnapshotAsync());
                await bench.RunAsync(sql, what);
                await bench.RunAsync(rollback.Text, what);
                Assert.Equal(before, await bench.SnapshotAsync());
            }
        }
    }

    [Theory, EachMajor]
    public async Task A_not_null_constraint_is_dropped_by_its_name(int major)
    {
        await using Bench bench = await Bench.CreateAsync(_servers, major);
        Assert.SkipWhen(bench.Database.Server.Major < 18, "NOT NULL is a table constraint since PostgreSQL 18.");
        const string Sql = "alter table orders add not null a, add constraint b_given not null b not valid;";
        string before = await bench.SnapshotAsync();
        RollbackScript rollback = await bench.RollbackAsync(Sql);
        await bench.RunAsync(Sql, Sql);
        await bench.RunAsync(rollback.Text, Sql);
        Assert.Equal(before, await bench.SnapshotAsync());
    }

    [Theory, EachMajor]
    public async Task The_locks_it_states_are_those_it_takes(int major)
    {
        await using Bench bench = await Bench.CreateAsync(_servers, major);
        foreach ((string what, (string sql, _)) in s_migrations)
        {
            RollbackScript rollback = await bench.RollbackAsync(sql);
            await bench.RunAsync(sql, what);
            await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
            foreach (RollbackStatement statement in rollback.Statements.Where(RollbackText.Runs))
            {
                if (!statement.Transactional)
                {
                    // What PostgreSQL refuses inside a transaction block is what is marked so.
                    PostgresException e = await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync(connection, "begin; " + statement.Reversal));
                    Assert.Equal("25001", e.SqlState);
                    await ExecuteAsync(connection, "rollback");
                    await ExecuteAsync(connection, statement.Reversal!);
                    continue;
                }

                await ExecuteAsync(connection, "create temp table if not exists known (oid oid, name text); truncate known");
                await ExecuteAsync(connection, "insert into known select c.oid, c.oid::regclass::text from pg_class c where relkind in ('r', 'p')");
                await ExecuteAsync(connection, "begin; " + statement.Reversal);
                await using NpgsqlCommand command = new(
                    "select k.name from pg_locks l join known k on k.oid = l.relation where l.pid = pg_backend_pid() and l.mode = $1 order by 1", connection)
                {
                    Parameters = { new() { Value = statement.LockMode.CatalogName() } },
                };
                List<string> locked = [];
                await using (NpgsqlDataReader reader = await command.ExecuteReaderAsync(Token))
                {
                    while (await reader.ReadAsync(Token))
                    {
                        locked.Add(reader.GetString(0));
                    }
                }

                await ExecuteAsync(connection, "commit");
                string[] stated = [.. statement.Objects.Select(o => o.StartsWith("public.", StringComparison.Ordinal) ? o["public.".Length..] : o).Order(StringComparer.Ordinal)];
                Assert.True(locked.Order(StringComparer.Ordinal).SequenceEqual(stated), $"{statement.Reversal}: states {string.Join(", ", stated)}, locks {string.Join(", ", locked)}");
            }
        }
    }

    [Theory, EachMajor]
    public async Task Steps_that_ran_are_taken_back_and_back_again(int major)
    {
        await using Bench bench = await Bench.CreateAsync(_servers, major);
        string before = await bench.SnapshotAsync();
        MigrationStep[] steps =
        [
            new()
            {
                Sql = "create index concurrently orders_s on orders (total)", Purpose = "build", Transactional = false, LockMode = TableLockMode.ShareUpdateExclusive,
                Objects = ["public.orders"], Reversal = "drop index concurrently if exists orders_s",
            },
            new()
            {
                Sql = "alter table orders add column s bigint references customers", Purpose = "add", LockMode = TableLockMode.AccessExclusive, Objects = ["public.orders"],
                Reversal = "alter table orders drop column if exists s", Reversibility = Reversibility.ReversibleWithDataLoss, ReversalNote = "Values are lost.",
            },
        ];
        ExecutionOptions options = new();
        IReadOnlyList<MigrationStep> done;
        await using (StepExecutor executor = await StepExecutor.OpenAsync(bench.Session, options, bench.Sink, Token))
        {
            done = await executor.RunAsync(steps, "test", Token);
        }

        string after = await bench.SnapshotAsync();
        RollbackScript rollback = RollbackGenerator.FromSteps("test", done);
        Assert.Equal(Reversibility.ReversibleWithDataLoss, rollback.Reversibility);
        Assert.Equal([TableLockMode.AccessExclusive, TableLockMode.ShareUpdateExclusive], rollback.Statements.Select(s => s.LockMode));
        Assert.Equal([true, false], rollback.Statements.Select(s => s.Transactional));

        // Once by psql, once by the executor; and what the executor took back is put back by the reversals of its own steps.
        await bench.RunAsync(rollback.Text, "steps");
        Assert.Equal(before, await bench.SnapshotAsync());
        await using (StepExecutor executor = await StepExecutor.OpenAsync(bench.Session, options, bench.Sink, Token))
        {
            await executor.RunAsync(steps, "test", Token);
            IReadOnlyList<MigrationStep> undone = await executor.RunAsync(RollbackGenerator.ToSteps(rollback), "rollback", Token);
            Assert.Equal(before, await bench.SnapshotAsync());
            await bench.RunAsync(RollbackGenerator.FromSteps("rollback", undone).Text, "rollback of the rollback");
        }

        Assert.Equal(after, await bench.SnapshotAsync());
    }

    [Theory]
    [InlineData(StepState.Skipped, true, Reversibility.Unknown)]
    [InlineData(StepState.Planned, true, Reversibility.NotNeeded)]
    [InlineData(StepState.Failed, true, Reversibility.NotNeeded)]
    [InlineData(StepState.Failed, false, Reversibility.Reversible)]
    [InlineData(StepState.Done, true, Reversibility.Reversible)]
    public void Steps_are_taken_back_if_they_may_have_left_something(StepState state, bool transactional, Reversibility expected)
    {
        MigrationStep step = new() { Sql = "create index i on t (a)", Purpose = "p", State = state, Transactional = transactional, Reversal = "drop index i" };
        Assert.Equal(expected, RollbackGenerator.FromSteps("x", [step]).Reversibility);
        Assert.Equal(expected == Reversibility.Reversible ? 1 : 0, RollbackGenerator.ToSteps(RollbackGenerator.FromSteps("x", [step])).Count);
    }

    [Fact]
    public void A_step_without_reversal_is_said_to_have_none()
    {
        MigrationStep none = new() { Sql = "vacuum t", Purpose = "p", State = StepState.Done };
        MigrationStep lost = new() { Sql = "update t set a = 1", Purpose = "p", State = StepState.Done, Reversibility = Reversibility.Irreversible, ReversalNote = "Values are gone." };
        RollbackScript rollback = RollbackGenerator.FromSteps("x", [none, lost]);
        Assert.Equal([Reversibility.Irreversible, Reversibility.Unknown], rollback.Statements.Select(s => s.Reversibility));
        Assert.Contains("-- NOT REVERSED (irreversible): update t set a = 1\n-- Values are gone.\n", rollback.Text, StringComparison.Ordinal);
        Assert.Empty(RollbackGenerator.ToSteps(rollback));
    }

    [Theory]
    [InlineData("drop table t", Reversibility.Unknown, "DROP TABLE")]
    [InlineData("alter table t alter column a type bigint", Reversibility.Unknown, "alter column a type bigint")]
    [InlineData("alter table t rename to u", Reversibility.Unknown, "rename to u")]
    [InlineData("alter type t add value 'x'", Reversibility.Unknown, "ALTER TYPE")]
    [InlineData("create materialized view v as select 1", Reversibility.Unknown, "CREATE MATERIALIZED VIEW")]
    [InlineData("create or replace function f() returns int begin atomic select 1; end", Reversibility.Unknown, "CREATE FUNCTION")]
    [InlineData("do $$ begin drop table t; end $$", Reversibility.Unknown, "DO")]
    [InlineData("select setval('s', 1)", Reversibility.Unknown, "SELECT")]
    [InlineData("create table if not exists t (a int)", Reversibility.Unknown, "IF NOT EXISTS")]
    [InlineData("alter table t add column if not exists a int", Reversibility.Unknown, "IF NOT EXISTS")]
    [InlineData("create index if not exists i on t (a)", Reversibility.Unknown, "IF NOT EXISTS")]
    [InlineData("create table :name (a int)", Reversibility.Unknown, "variable of psql")]
    [InlineData("create table t (a int; create table u (a int);", Reversibility.Unknown, "not closed")]
    [InlineData("create table t (a text default 'x", Reversibility.Unknown, "not closed")]
    [InlineData("set search_path to a, b; alter table t add column c int", Reversibility.Unknown, "search_path")]
    [InlineData("select pg_catalog.set_config('search_path', '', false); create table t (a int)", Reversibility.Unknown, "schema")]
    [InlineData("update t set a = 1", Reversibility.Irreversible, "values before")]
    [InlineData("with x as (delete from t returning *) select * from x", Reversibility.Irreversible, "removes rows")]
    [InlineData("insert into t values (1)", Reversibility.Irreversible, "adds rows")]
    [InlineData("truncate t", Reversibility.Irreversible, "removes rows")]
    [InlineData("copy t from stdin;\n1\n\\.\n", Reversibility.Irreversible, "adds rows")]
    [InlineData("merge into t using u on true when matched then delete", Reversibility.Irreversible, "overwrites")]
    [InlineData("\\i other.sql", Reversibility.Unknown, "included file")]
    [InlineData("\\if :x\n\\endif", Reversibility.Unknown, "branch")]
    [InlineData("\\set x 1\nset lock_timeout = 1; analyze t; -- nothing", Reversibility.NotNeeded, "")]
    [InlineData("", Reversibility.NotNeeded, "")]
    public void What_the_text_does_not_tell_is_said(string sql, Reversibility expected, string note)
    {
        RollbackScript rollback = RollbackGenerator.FromScript("x.sql", sql);
        Assert.Equal(expected, rollback.Reversibility);
        RollbackStatement[] worst = [.. rollback.Statements.Where(s => s.Reversibility == expected)];
        Assert.True(worst.Length == 0 ? note.Length == 0 : worst.Any(s => s.Note!.Contains(note, StringComparison.Ordinal)), rollback.Text);
        if (expected is Reversibility.Unknown or Reversibility.Irreversible)
        {
            Assert.Contains("NOT COMPLETE", rollback.Text, StringComparison.Ordinal);
            Assert.Contains("-- NOT REVERSED", rollback.Text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void One_ALTER_is_taken_back_as_far_as_it_is_known_and_the_rest_is_said()
    {
        RollbackScript rollback = RollbackGenerator.FromScript("x.sql", "alter table s.t add column a int, alter column b set default 1, add check (b > 0)");
        Assert.Equal([Reversibility.Unknown, Reversibility.ReversibleWithDataLoss], rollback.Statements.Select(s => s.Reversibility));
        Assert.Equal("alter table if exists s.t drop constraint if exists t_b_check, drop column if exists a", rollback.Statements[1].Reversal);
        Assert.Contains("derived by PostgreSQL's rule", rollback.Statements[1].Note!, StringComparison.Ordinal);
        Assert.Equal(1, rollback.Statements[1].Line);
    }

    [Fact]
    public void Nothing_of_a_migration_gets_out_of_its_comment()
    {
        // Only comments and the settings may be in the script: every line of the statement is behind "--".
        RollbackScript rollback = RollbackGenerator.FromScript("a\r\ndrop table x;\nb.sql", "do $$\rdrop table a;\ndrop table b;\u2028drop table c; $$;\nupdate t set a = '\ndrop table d;\n'");
        SqlScript parsed = SqlScript.Parse(rollback.Text);
        Assert.Equal(["\\set ON_ERROR_STOP on", "\\set AUTOCOMMIT on", "set lock_timeout = '500ms'"], parsed.Statements.Select(s => s.Text));
    }

    [Theory, EachMajor]
    public async Task The_catalog_says_what_was_there_before(int major)
    {
        await using Bench bench = await Bench.CreateAsync(_servers, major);
        RollbackScript rollback = await bench.RollbackAsync(
            """
            create table if not exists orders (id int);
            create table if not exists fresh (id int);
            alter table orders add column if not exists note text;
            create index if not exists orders_note_idx on orders (note);
            create index orders_id_old on orders (id);
            drop index orders_note_idx;
            alter table nowhere add column x int;
            create index on parted (id);
            """);
        Assert.Equal(
            [
                (Reversibility.Reversible, "drop index if exists public.parted_id_idx"),
                (Reversibility.ReversibleWithDataLoss, "alter table if exists nowhere drop column if exists x"),
                (Reversibility.Unknown, null),
                (Reversibility.Reversible, "drop index concurrently if exists public.orders_id_old"),
                (Reversibility.Reversible, "drop index concurrently if exists public.orders_note_idx"),
                (Reversibility.NotNeeded, null),
                (Reversibility.ReversibleWithDataLoss, "drop table if exists public.fresh"),
                (Reversibility.NotNeeded, null),
            ],
            rollback.Statements.Select(s => (s.Reversibility, s.Reversal)));
        Assert.Contains("is not in", rollback.Statements[1].Note!, StringComparison.Ordinal);
        Assert.Contains("exists already", rollback.Statements[3].Note!, StringComparison.Ordinal);
    }

    [Fact]
    public void Any_text_gets_an_answer()
    {
        string[] words =
        [
            "create", "table", "index", "unique", "concurrently", "if", "not", "exists", "on", "only", "alter", "add", "column", "constraint", "primary", "key", "foreign",
            "references", "check", "exclude", "using", "include", "(", ")", "[", "]", ",", ";", ".", "::", "a", "\"B\"", "'s'", "$$x$$", "*", "case", "else", "end", "cast", "as",
            "at", "time", "zone", "u&\"\\0061\"", "uescape", "'!'", "set", "search_path", "to", "local", "begin", "commit", "rollback", "savepoint", "update", "where", "insert",
            "into", "comment", "column", "validate", "partition", "of", "\n", "\\g", "collate", "array", "trim", "leading", "from", "-- x\n", "with", "temp", "rename", "schema",
        ];
        Random random = new(42);
        for (int i = 0; i < 20_000; i++)
        {
            string text = string.Join(random.Next(4) == 0 ? "" : " ", Enumerable.Range(0, random.Next(1, 25)).Select(_ => words[random.Next(words.Length)]));
            if (random.Next(3) == 0)
            {
                string known = s_migrations.ElementAt(random.Next(s_migrations.Count)).Value.Sql;
                int from = random.Next(known.Length);
                text = known.Remove(from, random.Next(Math.Min(20, known.Length - from))).Insert(from, text);
            }

            RollbackScript rollback = RollbackGenerator.FromScript("x", text);
            Assert.DoesNotContain(rollback.Statements, s => s.Statement.Length == 0);
        }

        string deep = "create index on t (" + new string('(', 100_000) + "a" + new string(')', 100_000) + ")";
        Assert.Single(RollbackGenerator.FromScript("x", deep).Statements);
    }

    [Theory]
    [InlineData("alter table t drop column a", true, TableLockMode.AccessExclusive, true)]
    [InlineData("alter table if exists only s.t add x int, drop constraint c", true, TableLockMode.AccessExclusive, true)]
    [InlineData("alter table t alter column a drop not null", false, TableLockMode.AccessExclusive, true)]
    [InlineData("alter table drops add column \"drop\" int", false, TableLockMode.AccessExclusive, true)]
    [InlineData("/* x */ drop table t", true, TableLockMode.AccessExclusive, true)]
    [InlineData("drop index concurrently i", false, TableLockMode.ShareUpdateExclusive, false)]
    [InlineData("create unique index i on t (a)", false, TableLockMode.Share, true)]
    [InlineData("alter table t validate constraint c", false, TableLockMode.ShareUpdateExclusive, true)]
    [InlineData("update t set a = 'drop'", false, TableLockMode.RowExclusive, true)]
    public void The_words_of_a_statement_tell_its_locks(string sql, bool parents, TableLockMode mode, bool transactional)
    {
        SqlFacts facts = SqlFacts.Of(sql);
        Assert.Equal((parents, mode, transactional), (facts.LocksForeignKeyParents, facts.LockMode, facts.Transactional));
    }

    [Theory, EachMajor]
    public async Task Names_are_quoted_as_the_server_quotes_them(int major)
    {
        await using TestDatabase database = await _servers.Clusters.CreateDatabaseAsync(major, Token);
        string[] others = ["orders", "Orders", "a b", "1a", "a$", "a\"b", "_x", "ä", "a1"];
        foreach (object?[] row in await database.QueryAsync("select word::text, quote_ident(word) from pg_get_keywords()", Token))
        {
            // A word that another major reserves is quoted on all.
            (string word, string quoted) = ((string)row[0]!, (string)row[1]!);
            Assert.True(SqlName.QuoteIfNeeded(word) == quoted || (quoted == word && SqlKeywords.NeedsQuotes(word)), word);
        }

        foreach (string name in others)
        {
            Assert.Equal(await database.ScalarAsync<string>($"select quote_ident({SqlName.Literal(name)})", Token), SqlName.QuoteIfNeeded(name));
        }
    }

    [Theory, EachMajor]
    public async Task Statements_end_where_psql_ends_them(int major)
    {
        Assert.SkipWhen(Psql.Missing is not null, Psql.Missing ?? "");
        await using TestDatabase database = await _servers.Clusters.CreateDatabaseAsync(major, Token);
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

        List<string> logged = [];
        foreach (string line in database.Server.ReadLog().Split('\n'))
        {
            int mark = line.IndexOf("LOG:  statement: ", StringComparison.Ordinal);
            if (mark >= 0)
            {
                logged.Add(line.Contains($"@{database.Name}/psql", StringComparison.Ordinal) ? line[(mark + "LOG:  statement: ".Length)..] : "");
            }
            else if (line.StartsWith('\t') && logged.Count > 0)
            {
                logged[^1] += "\n" + line[1..];
            }
        }

        // psql sends the two around "\;" in one message.
        string[] ours = [.. SqlScript.Parse(Script).Statements.Where(s => s.Kind == SqlStatementKind.Sql).Select(s => Normal(s.Text)).Select(s => s == "select 3" ? "select 3 ; select 4" : s).Where(s => s != "select 4")];
        Assert.Equal(logged.Select(s => Normal(s)).Where(s => s.Length > 0), ours);
    }

    /// <summary>A statement without comments, with one space between tokens, without the semicolon at its end.</summary>
    private static string Normal(string sql) =>
        string.Join(' ', SqlLexer.Tokens(sql).Where(t => t.Kind != SqlTokenKind.Comment).Select(t => sql.Substring(t.Start, t.Length)
            .Replace(" -- ; '", "", StringComparison.Ordinal))).TrimEnd(';').Trim();

    private static async Task ExecuteAsync(NpgsqlConnection connection, string sql)
    {
        await using NpgsqlCommand command = new(sql, connection);
        await command.ExecuteNonQueryAsync(Token);
    }

    /// <summary>A database with tables, a session in it, and its catalog as text.</summary>
    private sealed class Bench : IAsyncDisposable
    {
        private MigrationSession _session = null!;

        private Bench(TestDatabase database) => Database = database;

        internal TestDatabase Database { get; }

        internal EngineSession Session => EngineSession.Of(_session);

        internal RecordingSink Sink { get; } = new();

        internal static async Task<Bench> CreateAsync(Servers servers, int major)
        {
            Bench bench = new(await servers.Clusters.CreateDatabaseAsync(major, Token));
            await bench.Database.ExecuteAsync(Schema, Token);
            bench._session = await SessionFactory.ConnectAsync(new() { Text = bench.Database.ConnectionString }, bench.Sink, Token);
            return bench;
        }

        internal Task<RollbackScript> RollbackAsync(string sql) => RollbackGenerator.FromScriptAsync(Session, "migration.sql", sql, Sink, Token);

        /// <summary>Runs a script with psql, or without one statement by statement.</summary>
        internal async Task RunAsync(string script, string what)
        {
            if (Psql.Missing is null)
            {
                (int exitCode, string output) = await Psql.RunAsync(Database, "\\set ON_ERROR_STOP on\n" + script, null, Token);
                Assert.True(exitCode == 0, $"{what}: {output}\n{script}");
                return;
            }

            await using NpgsqlConnection connection = await Database.OpenAsync(Token);
            foreach (SqlStatement statement in SqlScript.Parse(script).Statements.Where(s => s.Kind == SqlStatementKind.Sql))
            {
                await ExecuteAsync(connection, statement.Text);
            }
        }

        internal async Task<string> SnapshotAsync()
        {
            IReadOnlyList<object?[]> rows = await Database.QueryAsync(
                """
                with ours as (
                    select c.oid, c.oid::regclass::text as name, c.relkind, c.relpersistence, c.relispartition from pg_class c
                    join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'sales')
                )
                select 'class ' || name || ' ' || relkind::text || relpersistence::text || relispartition::text from ours
                union all
                select 'column ' || name || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
                from ours join pg_attribute a on a.attrelid = ours.oid and a.attnum > 0 and not a.attisdropped
                left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                union all
                select 'constraint ' || name || ' ' || k.conname || ' ' || pg_get_constraintdef(k.oid) || ' ' || k.convalidated::text from ours join pg_constraint k on k.conrelid = ours.oid
                union all
                select 'index ' || pg_get_indexdef(i.indexrelid) || ' ' || i.indisvalid::text || i.indisready::text || i.indisunique::text from ours join pg_index i on i.indexrelid = ours.oid
                union all
                select 'trigger ' || name || ' ' || t.tgtype::text from ours join pg_trigger t on t.tgrelid = ours.oid
                order by 1
                """,
                Token);
            StringBuilder text = new();
            foreach (object?[] row in rows)
            {
                text.Append(CultureInfo.InvariantCulture, $"{row[0]}\n");
            }

            return text.ToString();
        }

        public async ValueTask DisposeAsync()
        {
            await SessionFactory.DisconnectAsync(_session);
            await Database.DisposeAsync();
        }
    }
}
