using System.Globalization;
using System.Text;
using MigrationSafety.Engine.Rollback;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>A database with tables, a session in it, and its catalog as text.</summary>
internal sealed class RollbackBench : IAsyncDisposable
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

    private MigrationSession _session = null!;

    private RollbackBench(TestDatabase database) => Database = database;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    internal TestDatabase Database { get; }

    internal EngineSession Session => EngineSession.Of(_session);

    internal RecordingSink Sink { get; } = new();

    internal static async Task<RollbackBench> CreateAsync(Servers servers, int major)
    {
        RollbackBench bench = new(await servers.Clusters.CreateDatabaseAsync(major, Token));
        await bench.Database.ExecuteAsync(Schema, Token);
        bench._session = await SessionFactory.ConnectAsync(new() { Text = bench.Database.ConnectionString }, bench.Sink, Token);
        return bench;
    }

    internal Task<RollbackScript> RollbackAsync(string sql, bool preserveData = false) =>
        RollbackGenerator.FromFileAsync(Session, MigrationFile.OfText("migration.sql", sql, MigrationFormat.Plain), preserveData, Sink, Token);

    /// <summary>The rollback as far as the text alone tells it.</summary>
    internal static RollbackScript FromText(string name, string sql) => RollbackGenerator.FromFile(MigrationFile.OfText(name, sql, MigrationFormat.Plain));

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
            await using NpgsqlCommand command = new(statement.Text, connection);
            await command.ExecuteNonQueryAsync(Token);
        }
    }

    internal async Task<string> SnapshotAsync()
    {
        IReadOnlyList<object?[]> rows = await Database.QueryAsync(
            """
            with ours as (
                select c.oid, c.oid::regclass::text as name, c.relkind, c.relpersistence, c.relispartition from pg_class c
                join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'sales', 'shop')
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
