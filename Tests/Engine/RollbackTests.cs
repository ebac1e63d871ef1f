using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Tests.Engine.Support;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Rollbacks, proved by running them.</summary>
public sealed class RollbackTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task What_is_rolled_back_is_as_it_was(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        foreach ((string what, (string sql, bool textIsEnough)) in RollbackMigrations.All)
        {
            foreach (bool withCatalog in textIsEnough ? [true, false] : new[] { true })
            {
                string before = await bench.SnapshotAsync();
                RollbackScript rollback = withCatalog ? await bench.RollbackAsync(sql) : RollbackBench.FromText(what, sql);
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
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
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
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        foreach ((string what, (string sql, _)) in RollbackMigrations.All)
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
    public async Task The_catalog_says_what_was_there_before(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
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
                (Reversibility.Reversible, "create index concurrently if not exists orders_note_idx ON public.orders USING btree (note)"),
                (Reversibility.Reversible, "drop index concurrently if exists public.orders_id_old"),
                (Reversibility.NotNeeded, null),
                (Reversibility.NotNeeded, null),
                (Reversibility.ReversibleWithDataLoss, "drop table if exists public.fresh"),
                (Reversibility.NotNeeded, null),
            ],
            rollback.Statements.Select(s => (s.Reversibility, s.Reversal)));
        Assert.Contains("is not in", rollback.Statements[1].Note!, StringComparison.Ordinal);
        Assert.Contains("exists already", rollback.Statements[3].Note!, StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task A_function_of_the_user_is_not_harmless_for_its_name(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        await bench.Database.ExecuteAsync(
            """
            create table calls (n int);
            create function format(int) returns text language sql as 'insert into calls values ($1) returning n::text';
            create function setval(text, text) returns text language sql as 'insert into calls values (1) returning n::text';
            create schema aside;
            create function aside.lower(int) returns text language sql as 'insert into calls values ($1) returning n::text';
            """,
            Token);
        (string Sql, Reversibility Expected)[] cases =
        [
            ("select format(1);", Reversibility.Unknown),
            ("select pg_catalog.format('%s', 1);", Reversibility.NotNeeded),
            ("select upper('x');", Reversibility.NotNeeded),
            ("select lower('X');", Reversibility.NotNeeded),
            ("set search_path = aside, public; select lower(1);", Reversibility.Unknown),
            ("select setval('x', 'y');", Reversibility.Unknown),
            ("do $$ begin if exists (select from pg_class where relname = lower('T')) then alter table calls add x int; end if; end $$;", Reversibility.NotNeeded),
            ("set search_path = aside, public; do $$ begin if exists (select from pg_class where relname = lower(1)) then alter table calls add x int; end if; end $$;", Reversibility.Unknown),
            ("create function upper(int) returns text language sql as 'select 1'; select upper(1);", Reversibility.Unknown),
        ];
        foreach ((string sql, Reversibility expected) in cases)
        {
            RollbackScript rollback = await bench.RollbackAsync(sql);
            Assert.Equal((sql, expected), (sql, rollback.Statements.First(s => !s.Statement.StartsWith("set ", StringComparison.Ordinal) && !s.Statement.StartsWith("create", StringComparison.Ordinal)).Reversibility));
        }
    }

    [Theory, EachMajor]
    public async Task Migrations_that_the_history_of_Entity_Framework_has_are_not_taken_back(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        static string Block(string id, string sql) => $"DO $EF$\nBEGIN\n    IF NOT EXISTS(SELECT 1 FROM \"__EFMigrationsHistory\" WHERE \"MigrationId\" = '{id}') THEN\n    {sql};\n    END IF;\nEND $EF$;\n";
        MigrationFile file = MigrationFile.OfText(
            "script.sql",
            Block("1_A", "CREATE TABLE \"A\" (\"Id\" int)") + Block("1_A", "INSERT INTO \"__EFMigrationsHistory\" (\"MigrationId\", \"ProductVersion\") VALUES ('1_A', '9.0.0')") + Block("2_B", "CREATE TABLE \"B\" (\"Id\" int)"),
            MigrationFormat.Auto);
        RollbackScript whole = await RollbackGenerator.FromFileAsync(bench.Session, file, false, bench.Sink, Token);
        Assert.Equal(["drop table if exists public.\"B\"", "DELETE FROM \"__EFMigrationsHistory\" WHERE \"MigrationId\" = '1_A'", "drop table if exists public.\"A\""], whole.Statements.Select(s => s.Reversal));
        await bench.Database.ExecuteAsync("""create table "__EFMigrationsHistory" ("MigrationId" text, "ProductVersion" text); insert into "__EFMigrationsHistory" values ('1_A', '9.0.0'); create table "A" ("Id" int)""", Token);
        RollbackScript rest = await RollbackGenerator.FromFileAsync(bench.Session, file, false, bench.Sink, Token);
        Assert.Equal("drop table if exists public.\"B\"", Assert.Single(rest.Statements).Reversal);
        Assert.StartsWith("Of the 2 migrations in it 1 is in ", Assert.Single(rest.Warnings), StringComparison.Ordinal);
    }

    [Theory, EachMajor]
    public async Task Data_that_the_migration_drops_is_gone_when_it_has_run(int major)
    {
        await using RollbackBench bench = await RollbackBench.CreateAsync(servers, major);
        string[] head = (await bench.RollbackAsync("create index on orders (id);\nalter table orders drop column note;")).Header;
        Assert.Contains("Data loss:          yes, by the migration (line 2), which this rollback does not bring back", head);
        Assert.Contains("Window:             for the data that the migration takes away, until line 2 of it has run; for the schema any time, as long as no later migration builds on this one", head);
        Assert.Contains("Point of no return: of the migration, line 2 (alter table orders drop column note)", head);
        RollbackScript kept = await bench.RollbackAsync("alter table customers drop column email;", preserveData: true);
        Assert.Contains("Point of no return: none in the migration", kept.Header);
    }

    private static async Task ExecuteAsync(NpgsqlConnection connection, string sql)
    {
        await using NpgsqlCommand command = new(sql, connection);
        await command.ExecuteNonQueryAsync(Token);
    }
}
