using MigrationSafety.Engine.Rollback;
using MigrationSafety.Tests.Engine.Support;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Data that is kept before a migration, and comes back with its rollback.</summary>
public sealed class RollbackDataTests(Servers servers)
{
    private const string SetUp = """
        create table kept (id int primary key, must text not null, note text, amount numeric(10, 4), doubled int generated always as (id * 2) stored, big int);
        insert into kept (id, must, note, amount, big) select i, 'm' || i, case when i % 3 > 0 then 'n' || i end, i + 0.1234, i from generate_series(1, 2500) i;
        create table whole (id int generated always as identity primary key, note text);
        insert into whole (note) select 'w' || i from generate_series(1, 50) i;
        create table child (id int primary key, whole_id int references whole (id));
        insert into child values (1, 1), (2, 50);
        analyze;
        """;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task What_is_kept_comes_back(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        await bench.Database.ExecuteAsync(SetUp, Token);
        string[] migrations =
        [
            "alter table kept drop column must;",
            "alter table kept drop column note, drop column amount;",
            "alter table kept alter column amount type numeric(10, 1);",
            "alter table kept alter column note type int using length(note);",
            "update kept set note = 'x', amount = 0 where id > 10;",
            "update kept as k set note = c.id from child c where c.whole_id = k.id;",
            "delete from kept where id % 2 = 0;",
            "delete from kept k using child c where c.id = k.id;",
            "truncate kept;",
            "drop table child; drop table whole;",
            "drop table kept;",
            "alter table kept rename to gone; alter table gone drop column note;",
        ];
        foreach (string sql in migrations)
        {
            string before = await bench.SnapshotAsync();
            string rows = await RowsAsync(bench);
            RollbackScript rollback = await bench.RollbackAsync(sql, preserveData: true);
            Assert.False(rollback.BeforeText is null, sql);
            await bench.RunAsync(rollback.BeforeText, sql);
            await bench.RunAsync(rollback.BeforeText, sql);
            await bench.RunAsync(sql, sql);
            await bench.RunAsync(rollback.Text, sql);
            Assert.True(rows == await RowsAsync(bench), $"{sql}\n{rollback.Text}");
            Assert.Equal(before, await bench.SnapshotAsync());
            await bench.RunAsync(rollback.Text, sql);
            Assert.Equal(rows, await RowsAsync(bench));
            Assert.Equal(0L, await bench.Database.ScalarAsync<long>("select count(*) from pg_class where relnamespace = to_regnamespace('migration_safety')", Token));
        }
    }

    [Theory, EachMajor]
    public async Task What_would_be_lost_is_counted(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        await bench.Database.ExecuteAsync(SetUp, Token);
        RollbackScript rollback = await bench.RollbackAsync("alter table kept drop column note; drop table child;");
        Assert.Null(rollback.BeforeText);
        Assert.Equal([2L, 2500L], rollback.Statements.Select(s => s.EstimatedRows).OfType<long>());
        Assert.All(rollback.Statements.Where(s => s.EstimatedRows is not null), s => Assert.Equal(Reversibility.ReversibleWithDataLoss, s.Reversibility));
    }

    [Theory, EachMajor]
    public async Task A_batch_that_is_cut_off_is_not_lost(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        await bench.Database.ExecuteAsync(SetUp, Token);
        string rows = await RowsAsync(bench);
        const string Sql = "update kept set note = 'x';";
        RollbackScript rollback = await bench.RollbackAsync(Sql, preserveData: true);
        await bench.RunAsync(rollback.BeforeText!, Sql);
        await bench.RunAsync(Sql, Sql);

        // Row 2000 cannot be written: what was committed before stays, the rest waits in the archive.
        await bench.Database.ExecuteAsync(
            """
            create function refuse() returns trigger language plpgsql as $$ begin if new.id = 2000 then raise 'no'; end if; return new; end $$;
            create trigger refuse before update on kept for each row execute function refuse();
            """,
            Token);
        string reversal = Assert.Single(rollback.Statements).Reversal!;
        await using (NpgsqlConnection connection = await bench.Database.OpenAsync(Token))
        {
            await using NpgsqlCommand command = new(reversal, connection);
            await Assert.ThrowsAsync<PostgresException>(() => command.ExecuteNonQueryAsync(Token));
        }

        Assert.InRange(await bench.Database.ScalarAsync<long>("select count(*) from kept where note is distinct from 'x'", Token), 1000, 2499);
        await bench.Database.ExecuteAsync("drop trigger refuse on kept; drop function refuse()", Token);
        await bench.RunAsync(rollback.Text, Sql);
        Assert.Equal(rows, await RowsAsync(bench));
    }

    [Theory, EachMajor]
    public async Task What_is_kept_comes_back_into_a_table_with_rules(int major)
    {
        const string Rules = "select string_agg(pg_get_ruledef(oid) || ev_enabled::text || coalesce(obj_description(oid, 'pg_rewrite'), ''), ' ' order by rulename) from pg_rewrite where ev_class = to_regclass('\"It''s ruled\"')";
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        await bench.Database.ExecuteAsync(
            """
            create table parent (id int primary key);
            insert into parent select generate_series(1, 1200);
            create table "It's ruled" (id int primary key, note text);
            insert into "It's ruled" select i, 'n' || i from generate_series(1, 1200) i;
            alter table "It's ruled" add foreign key (id) references parent deferrable initially deferred;
            create table log (what text);
            create rule "On insert" as on insert to "It's ruled" do also insert into log values ('insert');
            create rule on_update as on update to "It's ruled" do also insert into log values ('update');
            alter table "It's ruled" enable always rule on_update;
            create rule on_delete as on delete to "It's ruled" where old.id < 0 do instead nothing;
            create rule asleep as on update to "It's ruled" do instead nothing;
            alter table "It's ruled" disable rule asleep;
            comment on rule asleep on "It's ruled" is 'It''s off';
            analyze;
            """,
            Token);
        foreach (string sql in (string[])["update \"It's ruled\" set note = 'x' where id > 10;", "delete from \"It's ruled\" where id % 2 = 0;", "alter table \"It's ruled\" drop column note;", "truncate \"It's ruled\";", "drop table \"It's ruled\";"])
        {
            string before = await bench.SnapshotAsync();
            string? rules = await bench.Database.ScalarAsync<string>(Rules, Token);
            RollbackScript rollback = await bench.RollbackAsync(sql, preserveData: true);
            await bench.RunAsync(rollback.BeforeText!, sql);
            await bench.RunAsync(sql, sql);
            await bench.Database.ExecuteAsync("truncate log", Token);

            await bench.RunAsync(rollback.Text, sql);

            Assert.Equal((sql, 1200L), (sql, await bench.Database.ScalarAsync<long>("select count(*) from \"It's ruled\" where note = 'n' || id", Token)));
            Assert.Equal((sql, 0L), (sql, await bench.Database.ScalarAsync<long>("select count(*) from log", Token)));
            Assert.Equal(before, await bench.SnapshotAsync());
            Assert.Equal((sql, rules), (sql, await bench.Database.ScalarAsync<string>(Rules, Token)));
            Assert.Equal((sql, 0L), (sql, await bench.Database.ScalarAsync<long>("select count(*) from pg_class where relnamespace = to_regnamespace('migration_safety')", Token)));
            RollbackStatement back = rollback.Statements.Single(s => s.Reversal?.Contains("kept_", StringComparison.Ordinal) == true);
            Assert.Equal((sql, TableLockMode.AccessExclusive), (sql, back.LockMode));
        }
    }

    [Theory, EachMajor]
    public async Task What_finds_no_place_any_more_is_not_thrown_away(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        await bench.Database.ExecuteAsync(
            """
            create table users (id int primary key, email text unique, note json);
            insert into users select i, 'u' || i, '{}' from generate_series(1, 1200) i;
            create table loose (code int unique, note json);
            insert into loose select i, '{}' from generate_series(1, 10) i;
            create function stamp() returns trigger language plpgsql as $$ begin new.note := '{"by": "trigger"}'; return new; end $$;
            create trigger stamp before insert on users for each row execute function stamp();
            """,
            Token);

        // What has come since, what finds no place, and how many rows there are then. An empty "since": the migration has not run, and all is there as it was.
        (string Sql, string Since, string? Left, long Rows)[] cases =
        [
            ("delete from users where id > 2;", "insert into users values (2000, 'u7', '{}'), (9, 'other', '{}')", "7 9", 1200),
            ("truncate loose;", "insert into loose values (3, '[]')", "3", 10),
            ("alter table users drop column email;", "delete from users where id = 1000", "1000", 1199),
            ("delete from loose;", "", null, 10),
            ("delete from users;", "", null, 1199),
        ];
        foreach ((string sql, string since, string? left, long rows) in cases)
        {
            RollbackScript rollback = await bench.RollbackAsync(sql, preserveData: true);
            await bench.RunAsync(rollback.BeforeText!, sql);
            if (since.Length > 0)
            {
                await bench.RunAsync(sql, sql);
                await bench.Database.ExecuteAsync(since, Token);
            }

            await bench.RunAsync(rollback.Text, sql);
            await bench.RunAsync(rollback.Text, sql);
            string? aside = await bench.Database.ScalarAsync<string>("select string_agg(oid::regclass::text, ' ') from pg_class where relnamespace = 'migration_safety'::regnamespace and relkind = 'r'", Token);
            Assert.Equal((sql, left is not null), (sql, aside is not null));
            string table = sql.Contains("loose", StringComparison.Ordinal) ? "loose" : "users";
            Assert.Equal((sql, rows), (sql, await bench.Database.ScalarAsync<long>($"select count(*) from {table}", Token)));
            if (aside is not null)
            {
                Assert.StartsWith("migration_safety.left_", aside, StringComparison.Ordinal);
                string key = table == "loose" ? "code" : "id";
                Assert.Equal((sql, left), (sql, await bench.Database.ScalarAsync<string>($"select string_agg({key}::text, ' ' order by {key}) from {aside}", Token)));
                await bench.Database.ExecuteAsync($"drop table {aside}", Token);
            }
        }
    }

    [Theory, EachMajor]
    public async Task Partitions_joins_merges_and_tables_that_only_a_unique_index_keys_are_kept(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        await bench.Database.ExecuteAsync(
            """
            create schema shop;
            create table shop.places (id int primary key, name text not null, note text);
            insert into shop.places select i, 'p' || i, 'n' || i from generate_series(1, 20) i;
            create table shop.events (id int, at date, note text, primary key (id, at)) partition by range (at);
            create table shop.events_1 partition of shop.events for values from ('2024-01-01') to ('2025-01-01');
            create table shop.events_2 partition of shop.events default;
            insert into shop.events select i, '2024-06-01'::date + i * 20, 'e' || i from generate_series(1, 20) i;
            create table shop.keyed (code text not null, spare int, note text);
            create unique index keyed_code on shop.keyed (code);
            insert into shop.keyed select 'c' || i, i, 'k' || i from generate_series(1, 20) i;
            create table shop.loose (id int, note text);
            insert into shop.loose select i % 3, 'l' || i from generate_series(1, 20) i;
            create table shop.visits (id int generated by default as identity primary key, place_id int references shop.places (id));
            insert into shop.visits (place_id) select i from generate_series(1, 20) i;
            create table shop.visitors (id int primary key, visit_id int references shop.visits (id));
            insert into shop.visitors select i, i from generate_series(1, 20) i;
            """,
            Token);
        string[] migrations =
        [
            "alter table shop.events drop column note;",
            "update shop.events set note = 'x' where id > 5;",
            "delete from shop.events where id < 5;",
            "alter table shop.events alter column note type varchar(2) using left(note, 2);",
            "drop table shop.events;",
            "drop table shop.events_2;",
            "truncate shop.events;",
            "alter table shop.keyed drop column spare;",
            "update shop.keyed k set note = p.name from shop.places p join shop.visits v on v.place_id = p.id where 'c' || p.id = k.code;",
            "delete from shop.loose;",
            "delete from shop.loose l using shop.places p where p.id = l.id;",
            "with first as (select id from shop.places where id < 3) delete from shop.loose l using first where first.id = l.id;",
            "drop table shop.loose;",
            "truncate shop.places restart identity cascade;",
            "alter table shop.places rename column note to remark; alter table shop.places drop column remark;",
            "alter table shop.places rename column name to title; alter table shop.places rename to spots; alter table shop.spots drop column title;",
            "with gone as (delete from shop.visitors where id > 10 returning visit_id), marked as (update shop.places set note = 'm' where id > 3) select count(*) from gone;",
            "drop schema shop cascade;",
            .. bench.Database.Server.Major < 15 ? Array.Empty<string>() :
            [
                "merge into shop.places as t using shop.visits v join shop.visitors w on w.visit_id = v.id on v.place_id = t.id when matched and t.id > 10 then update set note = 'v' when matched and t.id < 3 then do nothing;",
                "merge into shop.keyed using (select * from shop.places where id < 5) p on 'c' || p.id = keyed.code when matched and p.id = 1 then delete when matched then update set spare = 0;",
            ],
        ];
        foreach (string sql in migrations)
        {
            string before = await bench.SnapshotAsync();
            string rows = await ShopAsync(bench);
            RollbackScript rollback = await bench.RollbackAsync(sql, preserveData: true);
            Assert.False(rollback.BeforeText is null, sql + "\n" + rollback.Text);
            Assert.DoesNotContain(rollback.Statements, s => s.Reversibility is Reversibility.Unknown or Reversibility.Irreversible);
            await bench.RunAsync(rollback.BeforeText, sql);
            await bench.RunAsync(sql, sql);
            await bench.RunAsync(rollback.Text, sql);
            Assert.True(rows == await ShopAsync(bench), $"{sql}\n{rollback.BeforeText}\n{rollback.Text}");
            await bench.RunAsync(rollback.Text, sql);
            Assert.Equal(rows, await ShopAsync(bench));
            Assert.Equal(before, await bench.SnapshotAsync());
            Assert.Equal(0L, await bench.Database.ScalarAsync<long>("select count(*) from pg_class where relnamespace = to_regnamespace('migration_safety')", Token));
        }
    }

    [Theory, EachMajor]
    public async Task Rows_come_back_in_the_order_of_their_foreign_keys(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);

        // Names are against the order of the keys; first and second point to each other.
        await bench.Database.ExecuteAsync(
            """
            create schema shop;
            create table shop.bills (id int primary key) partition by hash (id);
            create table shop.bills_1 partition of shop.bills for values with (modulus 2, remainder 0);
            create table shop.bills_2 partition of shop.bills for values with (modulus 2, remainder 1);
            create table shop.a_lines (id int primary key, bill int references shop.bills (id)) partition by hash (id);
            create table shop.a_lines_1 partition of shop.a_lines for values with (modulus 1, remainder 0);
            create table shop.first (id int primary key, other int);
            create table shop.second (id int primary key, other int references shop.first (id));
            alter table shop.first add foreign key (other) references shop.second (id);
            create table shop.a_first (id int references shop.first (id), line int references shop.a_lines (id));
            insert into shop.bills select i from generate_series(1, 20) i;
            insert into shop.a_lines select i, i from generate_series(1, 20) i;
            insert into shop.first values (1, null);
            insert into shop.second values (1, null);
            insert into shop.a_first values (1, 1);
            """,
            Token);
        const string Counts = "select concat_ws(' ', (select count(*) from shop.bills), (select count(*) from shop.a_lines), (select count(*) from shop.first), (select count(*) from shop.second), (select count(*) from shop.a_first))";
        foreach (string sql in new[] { "truncate shop.a_first, shop.a_lines, shop.bills;", "truncate shop.bills, shop.first cascade;" })
        {
            RollbackScript rollback = await bench.RollbackAsync(sql, preserveData: true);
            await bench.RunAsync(rollback.BeforeText!, sql);
            await bench.RunAsync(sql, sql);
            await bench.RunAsync(rollback.Text, sql);
            Assert.Equal("20 20 1 1 1", await bench.Database.ScalarAsync<string>(Counts, Token));
        }
    }

    [Theory, EachMajor]
    public async Task A_sequence_that_was_set_and_not_used_goes_back_there(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        await bench.Database.ExecuteAsync(
            """
            create table numbered (id int generated by default as identity primary key);
            select setval('numbered_id_seq', 50, false);
            create sequence placed start 7;
            alter sequence placed restart with 60;
            create sequence fresh start 7;
            """,
            Token);
        (string Sql, string Sequence, long Next)[] cases =
        [
            ("select setval('numbered_id_seq', 1000);", "numbered_id_seq", 50),
            ("truncate numbered restart identity;", "numbered_id_seq", 50),
            ("alter sequence placed restart with 1;", "placed", 60),
            ("drop sequence placed;", "placed", 60),
            ("select setval('fresh', 1000);", "fresh", 7),
        ];
        foreach ((string sql, string sequence, long next) in cases)
        {
            RollbackScript rollback = await bench.RollbackAsync(sql, preserveData: true);
            Assert.Equal((sql, Reversibility.Reversible), (sql, rollback.Reversibility));
            await bench.RunAsync((rollback.BeforeText ?? "") + "\n" + sql, sql);
            await bench.RunAsync(rollback.Text, sql);
            Assert.Equal((sql, next, false), (sql, await bench.Database.ScalarAsync<long>($"select last_value from {sequence}", Token), await bench.Database.ScalarAsync<bool>($"select is_called from {sequence}", Token)));
        }
    }

    [Theory, EachMajor]
    public async Task What_cannot_be_kept_says_why(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        await bench.Database.ExecuteAsync(
            """
            create table bare (id int, note text);
            create table parent (id int primary key, note text);
            create table heir () inherits (parent);
            create table target (id int primary key references parent (id) on delete cascade, note text);
            create view seen as select * from parent;
            create table cut (id int primary key) partition by list (id);
            create table cut_1 partition of cut for values in (1);
            create table on_cut (id int primary key references cut_1 (id) on delete cascade);
            create table on_on_cut (id int references on_cut (id) on delete cascade) partition by list (id);
            create table on_on_cut_1 partition of on_on_cut default;
            create foreign data wrapper elsewhere;
            create server elsewhere foreign data wrapper elsewhere;
            create table spread (id int) partition by list (id);
            create table spread_1 partition of spread for values in (1);
            create foreign table spread_2 partition of spread default server elsewhere;
            analyze parent;
            """,
            Token);
        (string Sql, Reversibility Expected, string Why)[] cases =
        [
            ("update bare set note = 'x';", Reversibility.Irreversible, "public.bare has neither a primary key nor a unique index"),
            ("alter table bare drop column note;", Reversibility.ReversibleWithDataLoss, "neither a primary key nor a unique index"),
            ("update parent set note = 'x';", Reversibility.Irreversible, "other tables inherit from public.parent"),
            ("alter table parent drop column note;", Reversibility.ReversibleWithDataLoss, "other tables inherit from it"),
            ("update target set id = id + 1;", Reversibility.Irreversible, "it changes id, which is of the key"),
            ("alter table target drop column id;", Reversibility.ReversibleWithDataLoss, "it is part of the key"),
            ("delete from only parent;", Reversibility.ReversibleWithDataLoss, "in public.target does not come back"),
            ("delete from cut;", Reversibility.ReversibleWithDataLoss, "in public.on_cut and public.on_on_cut does not come back"),
            ("truncate spread;", Reversibility.Irreversible, "public.spread_2 is a foreign table"),
            ("update seen set note = 'x';", Reversibility.Irreversible, "public.seen is no table"),
            ("create table fresh (id int); delete from parent using fresh where fresh.id = parent.id;", Reversibility.Irreversible, "itself makes or renames"),
            ("with gone as (delete from target returning id) insert into bare select id from gone;", Reversibility.Irreversible, "INSERT adds rows"),
            ("with gone as (delete from target returning id) update parent set note = 'x' where id in (select id from gone);", Reversibility.Irreversible, "it reads gone"),
            ("merge into target t using bare b on b.id = t.id when matched then update set note = b.note when not matched then insert values (b.id, b.note);", Reversibility.Irreversible, "MERGE adds rows"),
        ];
        foreach ((string sql, Reversibility expected, string why) in cases)
        {
            RollbackScript rollback = await bench.RollbackAsync(sql, preserveData: true);
            Assert.Equal((sql, expected), (sql, rollback.Reversibility));
            Assert.True(rollback.Statements.Any(s => s.Note?.Contains(why, StringComparison.Ordinal) == true), $"{sql}: {rollback.Text}");
        }
    }

    private static async Task<string> ShopAsync(RollbackBench bench) => await bench.Database.ScalarAsync<string>(
        """
        select concat_ws(';', (select string_agg(to_jsonb(t)::text, ',' order by to_jsonb(t)) from shop.places t), (select string_agg(to_jsonb(t)::text, ',' order by to_jsonb(t)) from shop.events t),
               (select string_agg(to_jsonb(t)::text, ',' order by to_jsonb(t)) from shop.keyed t), (select string_agg(to_jsonb(t)::text, ',' order by to_jsonb(t)) from shop.loose t),
               (select string_agg(to_jsonb(t)::text, ',' order by to_jsonb(t)) from shop.visits t), (select string_agg(to_jsonb(t)::text, ',' order by to_jsonb(t)) from shop.visitors t),
               (select last_value from shop.visits_id_seq))
        """,
        Token) ?? "";

    /// <summary>The rows of the tables, whatever the place of their columns.</summary>
    private static async Task<string> RowsAsync(RollbackBench bench) => await bench.Database.ScalarAsync<string>(
        """
        select (select md5(string_agg(to_jsonb(k)::text, ',' order by id)) from kept k) || (select md5(string_agg(to_jsonb(w)::text, ',' order by id)) from whole w)
               || (select md5(string_agg(to_jsonb(c)::text, ',' order by id)) from child c)
        """,
        Token) ?? "";
}
