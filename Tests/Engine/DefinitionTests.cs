using MigrationSafety.Engine.Schema;
using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;
using MigrationSafety.Tests.Engine.Support;
using MigrationSafety.Tests.Postgres;
using Npgsql;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>Definitions from the catalog: what they make is what they were read from.</summary>
public sealed class DefinitionTests(Servers servers)
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory, EachMajor]
    public async Task A_copy_of_a_whole_schema_is_equal(int major)
    {
        await using IndexBench one = await CreateRichAsync(major);
        await using IndexBench two = await IndexBench.CreateAsync(servers, major, "drop schema public");
        await CopyAsync(one, two);
        AssertEqual(await SnapshotAsync(one), await SnapshotAsync(two));
    }

    /// <summary>Each object is dropped with CASCADE and made again with all that went with it; on older majors a part of them.</summary>
    [Theory, EachMajor]
    public async Task What_a_drop_takes_comes_back(int major)
    {
        await using IndexBench bench = await CreateRichAsync(major);
        IReadOnlyList<ObjectDefinition> all;
        await using (NpgsqlConnection connection = await OpenAsync(bench))
        {
            all = await DefinitionReader.WholeSchemaAsync(connection, Token);
        }

        List<string> wrong = [];
        SchemaSnapshot before = await SnapshotAsync(bench);
        string[] drops = [.. all.Select(Drop).OfType<string>().Concat(s_columnDrops)];
        for (int i = 0; i < drops.Length; i++)
        {
            if (major != PostgresBinaries.Newest && i % 6 != major % 6)
            {
                continue;
            }

            try
            {
                await DropAndRestoreAsync(bench, drops[i]);
                SchemaSnapshot after = await SnapshotAsync(bench);

                // A column comes back as the last one, and statistics name their columns by place.
                wrong.AddRange(Differences(before, after, ["Position"]).Where(d => !d.StartsWith("Changed statistics object", StringComparison.Ordinal)).Select(d => $"{drops[i]}: {d}"));
                before = after;
            }
            catch (PostgresException e) when (e.SqlState == "42P16")
            {
                // A constraint that a parent has too: it cannot be dropped by itself.
            }
            catch (PostgresException e)
            {
                Assert.Fail($"{string.Join("\n", wrong)}\n{drops[i]}: {e.MessageText} {e.Hint}");
            }
        }

        Assert.True(wrong.Count == 0, string.Join("\n", wrong));
    }

    /// <summary>What was read of dropped objects beforehand, by the addresses that the server itself gives for the statement: the reversal of a drop.</summary>
    private static async Task DropAndRestoreAsync(IndexBench bench, string drop)
    {
        List<CatalogAddress> addresses = [];
        await using (NpgsqlConnection other = await bench.Database.OpenAsync(Token))
        {
            await other.ExecuteAsync("begin", Token);
            await other.ExecuteAsync(
                """
                create temp table dropped (classid oid, objid oid, subid int4);
                create function pg_temp.note() returns event_trigger language plpgsql as 'begin insert into dropped select classid, objid, objsubid from pg_event_trigger_dropped_objects() where original; end';
                create event trigger note on sql_drop execute function pg_temp.note();
                """,
                Token);
            await other.ExecuteAsync(drop, Token);
            await using (NpgsqlCommand command = new("select classid, objid, subid from dropped", other))
            {
                await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(Token);
                while (await reader.ReadAsync(Token))
                {
                    addresses.Add(new(reader.GetFieldValue<uint>(0), reader.GetFieldValue<uint>(1), reader.GetInt32(2)));
                }
            }

            await other.ExecuteAsync("rollback", Token);

        }

        if (addresses.Count == 0)
        {
            // Of event triggers no event tells.
            await using NpgsqlConnection connection = await OpenAsync(bench);
            addresses.AddRange((await DefinitionReader.WholeSchemaAsync(connection, Token)).Where(d => Drop(d) == drop).Select(d => d.Address));
        }

        IReadOnlyList<ObjectDefinition> definitions;
        await using (NpgsqlConnection connection = await OpenAsync(bench))
        {
            definitions = await DefinitionReader.WithDependentsAsync(connection, addresses, Token);
        }

        await bench.Database.ExecuteAsync(drop, Token);
        await ApplyAsync(bench, DefinitionReader.InOrder(definitions), drop);
    }

    private static readonly string[] s_columnDrops =
    [
        .. new[] { "id", "serial", "number", "amount", "label", "computed", "n", "mood" }.Select(c => $"alter table app.items drop column {c} cascade"),
        "alter table app.part drop column name cascade",
        "alter table app.parent drop column note cascade",
    ];

    /// <summary>The statement that drops an object; null for what the server drops with another one only.</summary>
    private static string? Drop(ObjectDefinition definition) => definition switch
    {
        { Kind: ObjectKind.Schema } => null,
        { Kind: ObjectKind.Constraint or ObjectKind.Index } when definition[DefinitionProperty.Partition] is not null => null,
        _ when definition[DefinitionProperty.Create] is null => null,
        { Kind: ObjectKind.Constraint, Relation: { } table } => $"alter table {table} drop constraint {definition.Identity[..^(table.Length + 4)]} cascade",
        { Kind: ObjectKind.Constraint } => $"alter domain {definition.Identity.Split(" on domain ")[1]} drop constraint {definition.Identity.Split(" on domain ")[0]}",
        { Kind: ObjectKind.UserMapping } => $"drop user mapping {definition.Identity}",
        _ => $"drop {definition.Kind.TagWords().ToLowerInvariant()} {definition.Identity} cascade",
    };

    private async Task<IndexBench> CreateRichAsync(int major)
    {
        IndexBench bench = await IndexBench.CreateAsync(servers, major, "select");
        await using NpgsqlConnection connection = await bench.Database.OpenAsync(Token);
        foreach (SqlStatement statement in SqlScript.Parse(RichSchema.Everything(major)).Statements)
        {
            await ExecuteAsItIsAsync(connection, statement.Text);
        }

        return bench;
    }

    /// <summary>The driver would cut a body at its semicolons.</summary>
    private static async Task ExecuteAsItIsAsync(NpgsqlConnection connection, string sql)
    {
        await using NpgsqlBatch batch = new(connection) { BatchCommands = { new(sql) } };
        await batch.ExecuteNonQueryAsync(Token);
    }

    private static async Task CopyAsync(IndexBench from, IndexBench to)
    {
        await using NpgsqlConnection connection = await OpenAsync(from);
        await ApplyAsync(to, DefinitionReader.InOrder(await DefinitionReader.WholeSchemaAsync(connection, Token)), "copy");
    }

    /// <summary>Runs each statement by itself, with nothing in the search path, and tells all that fail.</summary>
    private static async Task ApplyAsync(IndexBench to, IEnumerable<DefinitionStatement> statements, string what)
    {
        await using NpgsqlConnection connection = await to.Database.OpenAsync(Token);
        await connection.ExecuteAsync("set search_path = ''; set check_function_bodies = off", Token);
        List<string> failed = [];
        foreach (DefinitionStatement statement in statements)
        {
            try
            {
                await ExecuteAsItIsAsync(connection, statement.Sql);
            }
            catch (PostgresException e)
            {
                failed.Add($"{what}: {e.MessageText} {e.Hint}\n    {statement.Sql}");
            }
        }

        Assert.True(failed.Count == 0, string.Join("\n", failed));
    }

    private static async Task<NpgsqlConnection> OpenAsync(IndexBench bench) => await bench.Session.OpenAsync("test", bench.Sink, Token);

    private static Task<SchemaSnapshot> SnapshotAsync(IndexBench bench) => SnapshotReader.ReadAsync(bench.Session, bench.Sink, Token);

    private static void AssertEqual(SchemaSnapshot expected, SchemaSnapshot actual)
    {
        string[] differences = Differences(expected, actual, []);
        Assert.True(differences.Length == 0, string.Join("\n", differences));
    }

    private static string[] Differences(SchemaSnapshot expected, SchemaSnapshot actual, string[] excluded) =>
        [.. SnapshotComparer.Compare(expected, actual, excluded).Select(d => $"{d.Change} {d.Kind} {d.Identity} {d.Property}: {d.Reference} -> {d.Difference}")];
}
