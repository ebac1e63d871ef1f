using MigrationSafety.Engine.Schema;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Snapshots of a schema and what makes two of them differ.</summary>
public sealed class SchemaSnapshotTests(Servers servers)
{
    /// <summary>One object of every kind.</summary>
    private const string Everything = """
        create schema app;
        set search_path = app;
        create type mood as enum ('sad', 'ok', 'it''s');
        create domain positive as int check (value > 0) not null default 1;
        create type pair as (a int, b text);
        create type span as range (subtype = float8, subtype_diff = float8mi);
        create sequence numbers increment 3 cache 7;
        create table parent (id int primary key, note text);
        create table child (extra int) inherits (parent);
        create table items (
            id bigint generated always as identity primary key,
            parent_id int references parent (id) on delete cascade,
            mood mood default 'ok', amount numeric(10, 2) not null, doubled numeric generated always as (amount * 2) stored,
            label varchar(20) collate "C", payload bytea, number int default nextval('numbers'), at timestamptz default '2024-01-02 03:04:05+06', n positive, p pair,
            constraint amount_small check (amount < 1000), unique (label, number), exclude using btree (amount with =));
        alter sequence numbers owned by items.number;
        alter table items alter payload set storage external, alter label set statistics 250, set (fillfactor = 70), replica identity full;
        create index items_expression on items (lower(label) desc nulls last) include (amount) where amount > 0;
        create statistics items_stats on mood, label from items;
        create table part (id int, at date, primary key (id, at)) partition by range (at);
        create table part_1 partition of part for values from ('2024-01-01') to ('2025-01-01');
        create index part_at on part (at);
        create view seen with (security_barrier) as select id, amount from items where amount > 10 with check option;
        create materialized view counted as select mood, count(*) from items group by mood with no data;
        create function twice(i int) returns int language sql immutable as 'select i * 2';
        create function touched() returns trigger language plpgsql as $$ begin return new; end $$;
        create procedure clean(inout n int) language plpgsql as $$ begin n := 1; end $$;
        create aggregate total(int) (sfunc = int4pl, stype = int, initcond = '0');
        create trigger touch before update on items for each row when (old.amount <> new.amount) execute function touched();
        create rule no_delete as on delete to parent do instead nothing;
        alter table items enable row level security;
        create policy mine on items for select to public using (amount > 1);
        create operator === (leftarg = int, rightarg = int, function = int4eq, commutator = ===);
        create operator class odd_ops for type int using btree as operator 1 <, operator 3 =, function 1 btint4cmp(int, int);
        create cast (mood as text) with inout;
        create collation swiss (provider = icu, locale = 'de-CH');
        create text search configuration plain (copy = pg_catalog.simple);
        create text search dictionary words (template = simple, accept = false);
        create foreign data wrapper nothing;
        create server away foreign data wrapper nothing options (host 'example.org', password 'hidden');
        create foreign table far (id int options (name 'x')) server away options (far 'yes');
        create user mapping for public server away options (user 'u', password 'hidden');
        create publication news for table items;
        create function announced() returns event_trigger language plpgsql as $$ begin end $$;
        create event trigger announce on ddl_command_start when tag in ('CREATE VIEW') execute function announced();
        create extension citext;
        comment on table items is 'things';
        comment on column items.label is 'what it''s called';
        comment on constraint amount_small on items is 'not too much';
        alter default privileges in schema app grant select on tables to public;
        reset search_path;
        """;

    /// <summary>Changes, one upon the other, and how each is told.</summary>
    private static readonly (string Sql, string[] Told)[] s_changes =
    [
        ("alter table app.items add column fresh int default 7", ["Added table column app.items.fresh"]),
        ("alter table app.items alter fresh set default 8", ["Changed table column app.items.fresh Default: 7 -> 8"]),
        ("alter table app.items alter fresh drop default", ["Changed table column app.items.fresh Default: 8 -> "]),
        ("alter table app.items alter fresh type bigint", ["Changed table column app.items.fresh Type: integer -> bigint"]),
        ("alter table app.items alter label type varchar(20) collate \"POSIX\"", ["Changed table column app.items.label Collation: \"C\" -> \"POSIX\""]),
        ("alter table app.items alter label set statistics 10", ["Changed table column app.items.label Statistics: 250 -> 10"]),
        ("alter table app.items alter payload set storage main", ["Changed table column app.items.payload Storage: external -> main"]),
        ("alter table app.items alter payload set compression pglz", ["Changed table column app.items.payload Compression:  -> pglz"]),
        ("alter table app.items alter fresh set (n_distinct = 5)", ["Changed table column app.items.fresh Options:  -> n_distinct=5"]),
        ("alter table app.items alter id set generated by default", ["Changed table column app.items.id Identity: always -> by default"]),
        ("alter table app.items rename fresh to stale", ["Added table column app.items.stale", "Removed table column app.items.fresh"]),
        ("alter table app.items drop column p", ["Changed table column app.items.stale Position: 12 -> 11", "Removed table column app.items.p"]),
        ("comment on column app.items.label is null", ["Changed table column app.items.label Comment: what it's called -> "]),
        ("grant update (label) on app.items to public", ["Changed table column app.items.label Privileges:  -> public=update/postgres"]),
        ("grant select on app.items to pg_monitor with grant option", ["Changed table app.items Privileges"]),
        ("alter table app.items drop constraint amount_small", ["Removed table constraint amount_small on app.items"]),
        ("alter table app.items add constraint amount_small check (amount < 1000) not valid", ["Added table constraint amount_small on app.items"]),
        ("alter table app.items validate constraint amount_small",
            ["Changed table constraint amount_small on app.items Definition: CHECK ((amount < (1000)::numeric)) NOT VALID -> CHECK ((amount < (1000)::numeric))"]),
        ("drop index app.items_expression", ["Removed index app.items_expression"]),
        ("alter index app.part_at rename to part_at_2", ["Added index app.part_at_2", "Removed index app.part_at", "Changed index app.part_1_at_idx AttachedTo: app.part_at -> app.part_at_2"]),
        ("alter table app.items set (fillfactor = 80)", ["Changed table app.items Options: fillfactor=70 -> fillfactor=80"]),
        ("alter table app.items replica identity using index items_pkey", ["Changed table app.items ReplicaIdentity: full -> index app.items_pkey"]),
        ("cluster app.items using items_pkey", ["Changed table app.items ClusteredOn:  -> app.items_pkey"]),
        ("alter table app.part_1 set unlogged", ["Changed table app.part_1 Persistence:  -> unlogged"]),
        ("alter table app.items force row level security", ["Changed table app.items ForceRowSecurity:  -> true"]),
        ("alter table app.items disable trigger touch", ["Changed trigger touch on app.items Enabled:  -> disabled"]),
        ("alter policy mine on app.items using (amount > 2)", ["Changed policy mine on app.items Using: (amount > (1)::numeric) -> (amount > (2)::numeric)"]),
        ("drop rule no_delete on app.parent", ["Removed rule no_delete on app.parent"]),
        ("alter table app.child no inherit app.parent", ["Changed table app.child Inherits: app.parent -> ", "Changed table column app.child.id Inherited: only -> ", "Changed table column app.child.note Inherited: only -> "]),
        ("alter table app.part detach partition app.part_1", ["Changed table app.part_1 Inherits: app.part -> ", "Changed table app.part_1 PartitionBound: FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') -> ", "Changed index app.part_1_at_idx AttachedTo: app.part_at_2 -> ", "Changed index app.part_1_pkey AttachedTo: app.part_pkey -> ", "Changed table column app.part_1.at Inherited: only -> ", "Changed table column app.part_1.id Inherited: only -> ", "Changed table constraint part_1_pkey on app.part_1 Inherited: only -> "]),
        ("drop table app.part_1", ["Removed table app.part_1"]),
        ("alter type app.mood add value 'glad' after 'ok'", ["Changed type app.mood Labels: 'sad'; 'ok'; 'it''s' -> 'sad'; 'ok'; 'glad'; 'it''s'"]),
        ("alter domain app.positive drop not null", ["Changed type app.positive NotNull: true -> "]),
        ("alter type app.pair add attribute c int", ["Added composite type column app.pair.c"]),
        ("alter sequence app.numbers cycle maxvalue 100", ["Changed sequence app.numbers Sequence"]),
        ("alter sequence app.numbers owned by none", ["Changed sequence app.numbers OwnedBy: app.items.number -> "]),
        ("create or replace function app.twice(i int) returns int language sql stable as 'select i * 2'", ["Changed function app.twice(integer) Definition"]),
        ("alter procedure app.clean(int) set work_mem = '1MB'", ["Changed procedure app.clean(integer) Definition"]),
        ("alter function app.twice(int) owner to pg_monitor", ["Changed function app.twice(integer) Owner: postgres -> pg_monitor", "Changed function app.twice(integer) Privileges"]),
        ("drop aggregate app.total(int)", ["Removed aggregate app.total(integer)"]),
        ("create or replace view app.seen as select id, amount from app.items where amount > 20", ["Changed view app.seen Definition", "Changed view app.seen Options: check_option=cascaded; security_barrier=true -> "]),
        ("refresh materialized view app.counted", ["Changed materialized view app.counted Unpopulated: true -> "]),
        ("alter statistics app.items_stats set statistics 50", ["Changed statistics object app.items_stats Statistics:  -> 50"]),
        ("alter text search configuration app.plain alter mapping for word with english_stem", ["Changed text search configuration app.plain Mapping"]),
        ("alter server away options (set password 'other')", []),
        ("alter server away options (set host 'example.com')", ["Changed server away Options: host=example.org; password -> host=example.com; password"]),
        ("drop user mapping for public server away", ["Removed user mapping public on server away"]),
        ("alter publication news set (publish = 'insert')", ["Changed publication news Definition"]),
        ("alter publication news drop table app.items", ["Removed publication relation app.items in publication news"]),
        ("alter event trigger announce disable", ["Changed event trigger announce Enabled:  -> disabled"]),
        ("alter extension citext set schema public", ["Changed extension citext Schema: app -> public"]),
        ("alter default privileges in schema app revoke select on tables from public", ["Removed default acl for role postgres in schema app on tables"]),
        ("create schema empty", ["Added schema empty"]),
        ("drop operator class app.odd_ops using btree", ["Removed operator class app.odd_ops USING btree", "Changed operator family app.odd_ops USING btree Functions", "Changed operator family app.odd_ops USING btree Operators"]),
        ("drop cast (app.mood as text)", ["Removed cast (app.mood AS pg_catalog.text)"]),
        ("set default_tablespace = ''; vacuum app.items; analyze app.items; insert into app.parent values (1)", []),
    ];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task Each_change_is_told_and_nothing_else(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Everything);
        SchemaSnapshot before = await SnapshotReader.ReadAsync(bench.Session, bench.Sink, Token);
        List<string> wrong = [];
        foreach ((string sql, string[] told) in s_changes)
        {
            foreach (string statement in sql.Split("; "))
            {
                await bench.Database.ExecuteAsync(statement, Token);
            }

            SchemaSnapshot after = await SnapshotReader.ReadAsync(bench.Session, bench.Sink, Token);
            string[] found = [.. SnapshotComparer.Compare(before, after, []).Where(d => !IsNotNullConstraint(d)).Select(Line)];
            if (told.Length != found.Length || !told.All(line => found.Any(f => f == line || f.StartsWith(line + ": ", StringComparison.Ordinal))))
            {
                wrong.Add($"{sql}\n  {string.Join("\n  ", found)}");
            }

            before = after;
        }

        Assert.True(wrong.Count == 0, string.Join("\n", wrong));
    }

    [Theory, EachMajor]
    public async Task The_same_schema_is_equal_whatever_way_it_came_about(int major)
    {
        await using IndexBench one = await IndexBench.CreateAsync(servers, major, "create table detour (id int primary key); drop table detour");
        await using IndexBench two = await IndexBench.CreateAsync(servers, major, Everything);
        await one.Database.ExecuteAsync(Everything, Token);
        await one.Database.ExecuteAsync("alter table app.parent rename to elsewhere; alter table app.elsewhere rename to parent; insert into app.parent values (1, 'x')", Token);
        SchemaSnapshot left = await SnapshotReader.ReadAsync(one.Session, one.Sink, Token);
        SchemaSnapshot right = await SnapshotReader.ReadAsync(two.Session, two.Sink, Token);
        Assert.Empty(SnapshotComparer.Compare(left, right, []));
        Assert.True(left.Objects.Select(o => o.Kind).Distinct().Count() > 30, string.Join(", ", left.Objects.Select(o => o.Kind).Distinct()));
        Assert.DoesNotContain(left.Objects, o => o.Properties.Any(p => p.Value.Contains("hidden", StringComparison.Ordinal)));
        Assert.DoesNotContain(left.Objects, o => o.Identity.Contains("citext", StringComparison.Ordinal) && o.Kind != "extension");
    }

    [Theory, EachMajor]
    public async Task A_file_brings_back_what_was_written(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Everything);
        SchemaSnapshot taken = await SnapshotReader.ReadAsync(bench.Session, bench.Sink, Token);
        string path = Path.Combine(Path.GetTempPath(), $"{Guid.NewGuid():n}.json");
        try
        {
            SnapshotFile.Write(taken, path);
            SchemaSnapshot read = SnapshotFile.Read(path);
            Assert.Equal(taken.Objects.Length, read.Objects.Length);
            Assert.Empty(SnapshotComparer.Compare(taken, read, []));
            Assert.Equal((taken.Server, taken.Port, taken.Database, taken.ServerVersion, taken.TakenAt), (read.Server, read.Port, read.Database, read.ServerVersion, read.TakenAt));

            await File.WriteAllTextAsync(path, "{\"format\": \"another\"}", Token);
            Assert.Equal("SnapshotInvalid", Assert.Throws<MigrationException>(() => SnapshotFile.Read(path)).ErrorId);
            await File.WriteAllTextAsync(path, "not json", Token);
            Assert.Equal("SnapshotInvalid", Assert.Throws<MigrationException>(() => SnapshotFile.Read(path)).ErrorId);
        }
        finally
        {
            File.Delete(path);
        }

        Assert.Equal("FileNotRead", Assert.Throws<MigrationException>(() => SnapshotFile.Read(path)).ErrorId);
    }

    [Theory, EachMajor]
    public async Task A_role_without_any_privilege_sees_the_same(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, Everything);
        SchemaSnapshot all = await SnapshotReader.ReadAsync(bench.Session, bench.Sink, Token);
        await using TestRole stranger = await TestRole.CreateAsync(bench.Database);
        EngineSession session = await bench.SessionAsync(db => db.Server.ConnectionString(db.Name, stranger.Name));
        Assert.Empty(SnapshotComparer.Compare(all, await SnapshotReader.ReadAsync(session, bench.Sink, Token), []));
    }

    [Theory, EachMajor]
    public async Task Nobody_waits_for_a_snapshot_and_it_waits_for_nobody(int major)
    {
        await using IndexBench bench = await IndexBench.CreateAsync(servers, major, "create table t (id int); create view v as select id from t");
        await using LockHolder holder = await LockHolder.HoldAsync(bench.Database, "lock table v in access exclusive mode");
        MigrationException error = await Assert.ThrowsAsync<MigrationException>(() => SnapshotReader.ReadAsync(bench.Session, bench.Sink, Token));
        Assert.Equal("55P03", error.SqlState);
    }

    [Fact]
    public void Parts_of_what_is_on_one_side_alone_are_not_told_one_by_one()
    {
        SchemaSnapshot empty = new() { Server = "s", Database = "d", ServerVersion = new Version(18, 0) };
        SchemaObject table = new() { Kind = "table", Identity = "public.t", Schema = "public" };
        SchemaObject column = new() { Kind = "table column", Identity = "public.t.id", Schema = "public", Parent = "public.t", Properties = [new() { Name = "Type", Value = "integer" }, new() { Name = "Position", Value = "1" }] };
        SchemaSnapshot full = empty with { Objects = [table, column] };
        Assert.Equal(["table"], SnapshotComparer.Compare(empty, full, []).Select(d => d.Kind));
        Assert.Equal(["table"], SnapshotComparer.Compare(full, empty, []).Select(d => d.Kind));
        Assert.Equal([(SchemaChange.Added, "Type integer")], SnapshotComparer.Compare(empty with { Objects = [table] }, full, []).Select(d => (d.Change, d.Difference!)));
        SchemaSnapshot moved = empty with { Objects = [table, column with { Properties = [new() { Name = "Type", Value = "bigint" }, new() { Name = "Position", Value = "2" }] }] };
        Assert.Equal(["Position", "Type"], SnapshotComparer.Compare(full, moved, []).Select(d => d.Property));
        Assert.Equal(["Type"], SnapshotComparer.Compare(full, moved, ["position"]).Select(d => d.Property));
        Assert.Empty(new SnapshotFilter { Include = ["app*"] }.Of(full).Objects);
        Assert.Empty(new SnapshotFilter { Exclude = ["pub*"] }.Of(full).Objects);
    }

    /// <summary>Since 18 NOT NULL is a constraint of its own, which goes with its column.</summary>
    private static bool IsNotNullConstraint(SchemaDifference d) =>
        d.Kind.EndsWith("constraint", StringComparison.Ordinal) && d.Identity.Contains("_not_null", StringComparison.Ordinal);

    private static string Line(SchemaDifference d) =>
        $"{d.Change} {d.Kind} {d.Identity}{(d.Property is null ? "" : $" {d.Property}: {d.Reference} -> {d.Difference}")}";
}
