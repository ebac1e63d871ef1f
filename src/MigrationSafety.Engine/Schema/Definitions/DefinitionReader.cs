using System.Text.Json;
using System.Text.RegularExpressions;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql.Statements;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Schema.Definitions;

/// <summary>Reads from the catalogs what makes objects again. A read is one transaction, REPEATABLE READ and READ ONLY, that ends with it.</summary>
internal static partial class DefinitionReader
{
    /// <summary>The objects themselves, in an order in which they can be made; what does not exist is left out. A table comes with its columns, without its constraints and indexes.</summary>
    /// <param name="connection">An open connection without a transaction.</param>
    /// <param name="addresses">Objects, and columns of tables.</param>
    /// <param name="includeDefaults">Whether properties that CREATE sets, or that have their default, have a statement of their own too.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="PostgresException">55P03 where somebody alters an object for longer than 500 ms.</exception>
    internal static Task<IReadOnlyList<ObjectDefinition>> ReadAsync(
        NpgsqlConnection connection, IReadOnlyCollection<CatalogAddress> addresses, bool includeDefaults, CancellationToken cancellationToken) =>
        InSnapshotAsync(
            connection,
            async () =>
            {
                DependencyGraph graph = await DependencyGraph.ReadAsync(connection, cancellationToken).ConfigureAwait(false);
                return await ReadAsync(connection, graph, addresses.Distinct().ToDictionary(a => a, _ => false), includeDefaults, cancellationToken).ConfigureAwait(false);
            },
            cancellationToken);

    /// <summary>The objects and all that DROP ... CASCADE takes with them, in an order in which they can be made.</summary>
    /// <param name="connection">An open connection without a transaction.</param>
    /// <param name="addresses">Objects, and columns of tables.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="PostgresException">55P03 where somebody alters an object for longer than 500 ms.</exception>
    internal static Task<IReadOnlyList<ObjectDefinition>> WithDependentsAsync(
        NpgsqlConnection connection, IReadOnlyCollection<CatalogAddress> addresses, CancellationToken cancellationToken) =>
        InSnapshotAsync(
            connection,
            async () =>
            {
                DependencyGraph graph = await DependencyGraph.ReadAsync(connection, cancellationToken).ConfigureAwait(false);
                return await ReadAsync(connection, graph, graph.Closure(addresses), false, cancellationToken).ConfigureAwait(false);
            },
            cancellationToken);

    /// <summary>Every object of the database but PostgreSQL's own, those of extensions and this module's, in an order in which they can be made.</summary>
    /// <param name="connection">An open connection without a transaction.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="PostgresException">55P03 where somebody alters an object for longer than 500 ms.</exception>
    internal static Task<IReadOnlyList<ObjectDefinition>> WholeSchemaAsync(NpgsqlConnection connection, CancellationToken cancellationToken) =>
        InSnapshotAsync(
            connection,
            async () =>
            {
                DependencyGraph graph = await DependencyGraph.ReadAsync(connection, cancellationToken).ConfigureAwait(false);
                return await ReadAsync(connection, graph, null, false, cancellationToken).ConfigureAwait(false);
            },
            cancellationToken);

    /// <summary>The statements of objects in the order in which they run: by phase, and in each in the order of the objects.</summary>
    /// <param name="objects">Objects, in an order in which they can be made.</param>
    internal static IEnumerable<DefinitionStatement> InOrder(IReadOnlyList<ObjectDefinition> objects) =>
        objects.SelectMany(o => o.Statements).Where(s => !s.Alone).OrderBy(s => s.Phase);

    private static async Task<IReadOnlyList<ObjectDefinition>> InSnapshotAsync(
        NpgsqlConnection connection, Func<Task<IReadOnlyList<ObjectDefinition>>> read, CancellationToken cancellationToken)
    {
        await using NpgsqlTransaction transaction = await connection.BeginTransactionAsync(System.Data.IsolationLevel.RepeatableRead, cancellationToken).ConfigureAwait(false);
        await using (NpgsqlCommand settings = new("set transaction read only; " + SnapshotQueries.TransactionSettings, connection, transaction))
        {
            await settings.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }

        IReadOnlyList<ObjectDefinition> found = await read().ConfigureAwait(false);

        // Its settings go with it.
        await transaction.RollbackAsync(cancellationToken).ConfigureAwait(false);
        return found;
    }

    /// <summary>Reads what is wanted, by its address and whether CASCADE is needed for it; null for all.</summary>
    private static async Task<IReadOnlyList<ObjectDefinition>> ReadAsync(
        NpgsqlConnection connection, DependencyGraph graph, Dictionary<CatalogAddress, bool>? wanted, bool includeDefaults, CancellationToken cancellationToken)
    {
        List<(ObjectDefinition Definition, string? Inside)> read = [];
        foreach (DefinitionQuery query in DefinitionQuery.All.Where(q => q.Since <= connection.PostgreSqlVersion.Major && q.Until >= connection.PostgreSqlVersion.Major))
        {
            uint[]? oids = wanted is null ? null : [.. wanted.Keys.Where(a => a.SubId == 0 && query.ClassIds.Contains(a.ClassId)).Select(a => a.ObjectId)];
            if (oids is not { Length: 0 })
            {
                read.AddRange(await ReadAsync(connection, query.Text, oids, cancellationToken).ConfigureAwait(false));
            }
        }

        if (wanted is not null)
        {
            read.RemoveAll(r => !wanted.ContainsKey(r.Definition.Address));
            read.AddRange((await ReadColumnsAsync(connection, graph, wanted, cancellationToken).ConfigureAwait(false)).Select(column => (column, (string?)null)));
        }

        HashSet<CatalogAddress> there = [.. read.Select(r => r.Definition.Address)];
        HashSet<CatalogAddress> attached = graph.TiedAtOnce([.. read.Select(r => r.Definition)]);
        ObjectDefinition[] definitions =
        [
            .. from each in read
               where each.Inside switch
               {
                   "table" => !there.Contains(each.Definition.GoesWith!.Value),
                   // A table is tied to a parent that is there already only when it has all that the parent asks for.
                   "parent" => there.Contains(each.Definition.GoesWith!.Value) && !attached.Contains(each.Definition.GoesWith.Value),
                   _ => true,
               }
               let definition = each.Definition
               select definition with
               {
                   NeedsCascade = wanted is not null && wanted.GetValueOrDefault(definition.Address),
                   Statements =
                   [
                       .. from statement in definition.Statements
                          where includeDefaults || !statement.Alone
                          select statement with { Phase = PhaseOf(definition, statement.Property, attached) },
                   ],
               },
        ];
        return graph.Order([.. definitions.Where(d => d.Statements.Count > 0)]);
    }

    private static DefinitionPhase PhaseOf(ObjectDefinition definition, DefinitionProperty property, HashSet<CatalogAddress> attached) => property switch
    {
        DefinitionProperty.OwnedBy => DefinitionPhase.Links,
        DefinitionProperty.Default when definition.Kind is ObjectKind.Table or ObjectKind.ForeignTable => DefinitionPhase.Links,
        // Before the parent's indexes are made a table gets none from it; where they are there, those of its own that fit become theirs, if they are made before.
        DefinitionProperty.Partition or DefinitionProperty.Inherit when !attached.Contains(definition.Address) => DefinitionPhase.Links,
        DefinitionProperty.Membership when definition.Kind == ObjectKind.OperatorFamily => DefinitionPhase.Links,
        _ when definition.Kind == ObjectKind.Column && definition[DefinitionProperty.Create] is null => DefinitionPhase.Links,
        // A trigger that a partition has from its parent is there when it is attached.
        DefinitionProperty.Enabled when definition.Kind == ObjectKind.Trigger && definition[DefinitionProperty.Create] is null => DefinitionPhase.Links,
        DefinitionProperty.Rows => DefinitionPhase.End,
        // It would act upon what comes after it.
        _ when definition.Kind == ObjectKind.EventTrigger || property == DefinitionProperty.DefaultPrivileges => DefinitionPhase.End,
        _ => DefinitionPhase.Object,
    };

    private static async Task<List<(ObjectDefinition Definition, string? Inside)>> ReadAsync(NpgsqlConnection connection, string sql, uint[]? oids, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(sql, connection) { Parameters = { Oids(oids) } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<(ObjectDefinition, string?)> found = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            ObjectDefinition definition = new()
            {
                Address = new(reader.GetFieldValue<uint>(0), reader.GetFieldValue<uint>(1), 0),
                Kind = Enum.Parse<ObjectKind>(reader.GetString(2)),
                Identity = reader.GetString(3),
                Relation = reader.Text(4),
                GoesWith = reader.IsDBNull(5) ? null : new(reader.GetFieldValue<uint>(5), reader.GetFieldValue<uint>(6), 0),
                EstimatedRows = reader.Long(8),
                SizeBytes = reader.Long(9),
                Statements = Statements(reader.GetString(10)),
            };
            found.Add((definition, reader.Text(7)));
        }

        return found;
    }

    /// <summary>Columns alone, and defaults alone.</summary>
    private static async Task<List<ObjectDefinition>> ReadColumnsAsync(NpgsqlConnection connection, DependencyGraph graph, Dictionary<CatalogAddress, bool> wanted, CancellationToken cancellationToken)
    {
        uint[] relations = [.. wanted.Keys.Select(a => graph.ColumnOf(a) ?? a).Where(a => a.ClassId == CatalogAddress.Relations && a.SubId > 0).Select(a => a.ObjectId).Distinct()];
        List<ObjectDefinition> found = [];
        if (relations.Length == 0)
        {
            return found;
        }

        await using NpgsqlCommand command = new(RelationQueries.ColumnsText, connection) { Parameters = { Oids(relations) } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            CatalogAddress address = new(CatalogAddress.Relations, reader.GetFieldValue<uint>(0), reader.GetInt32(1));
            ObjectDefinition column = new()
            {
                Address = address,
                Kind = ObjectKind.Column,
                Identity = reader.GetString(2),
                Relation = reader.GetString(3),
                GoesWith = address.Whole,
                Statements = Statements(reader.GetString(4)),
            };
            if (wanted.ContainsKey(address))
            {
                found.Add(column);
            }

            if (!reader.IsDBNull(5) && new CatalogAddress(CatalogAddress.AttributeDefaults, reader.GetFieldValue<uint>(5), 0) is var standing && wanted.ContainsKey(standing))
            {
                found.Add(column with { Address = standing, GoesWith = address, Statements = Statements(reader.GetString(6)) });
            }
        }

        return found;
    }

    private static NpgsqlParameter Oids(uint[]? oids) => new() { Value = oids ?? (object)DBNull.Value, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid };

    /// <summary>Statements from JSON; those of columns are arrays of their own in it.</summary>
    private static DefinitionStatement[] Statements(string json)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        return [.. Statements(document.RootElement)];
    }

    private static IEnumerable<DefinitionStatement> Statements(JsonElement array)
    {
        foreach (JsonElement each in array.EnumerateArray())
        {
            if (each.GetArrayLength() > 0 && each[0].ValueKind == JsonValueKind.Array)
            {
                foreach (DefinitionStatement inner in Statements(each))
                {
                    yield return inner;
                }
            }
            else if (each.GetArrayLength() > 1 && each[1].ValueKind == JsonValueKind.String)
            {
                string sql = each[1].GetString()!;
                yield return new DefinitionStatement(Enum.Parse<DefinitionProperty>(each[0].GetString()!), FunctionBody().IsMatch(sql) ? sql : DeparsedText.Repeatable(sql))
                {
                    Alone = each[2].GetBoolean(),
                    Roles = each.GetArrayLength() > 3 ? [.. each[3].EnumerateArray().Select(role => role.GetString()!)] : [],
                };
            }
        }
    }

    // pg_get_functiondef puts the code, which is the user's own text, in dollar quotes of this tag.
    [GeneratedRegex(@"\$(function|procedure)x*\$")]
    private static partial Regex FunctionBody();
}
