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
            RollbackScript rollback = await RollbackGenerator.FromScriptAsync(bench.Session, "m.sql", sql, true, bench.Sink, Token);
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
        RollbackScript rollback = await RollbackGenerator.FromScriptAsync(bench.Session, "m.sql", Sql, true, bench.Sink, Token);
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

    /// <summary>The rows of the tables, whatever the place of their columns.</summary>
    private static async Task<string> RowsAsync(RollbackBench bench) => await bench.Database.ScalarAsync<string>(
        """
        select (select md5(string_agg(to_jsonb(k)::text, ',' order by id)) from kept k) || (select md5(string_agg(to_jsonb(w)::text, ',' order by id)) from whole w)
               || (select md5(string_agg(to_jsonb(c)::text, ',' order by id)) from child c)
        """,
        Token) ?? "";
}
