using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Names;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Reads from the catalogs what there is for a wanted index, and refuses what cannot be built.</summary>
internal static class IndexCatalog
{
    /// <summary>Looks at names and indexes of a table.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="table">Table.</param>
    /// <param name="definition">The index that is wanted.</param>
    /// <param name="name">Its name as a user typed it; null for the one that PostgreSQL would choose.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <param name="parent">The partitioned index that it is to be a part of: parts of others do not count as existing.</param>
    /// <exception cref="MigrationException">The name is taken; nothing was changed.</exception>
    internal static async Task<IndexSituation> InspectAsync(
        NpgsqlConnection connection, TableReference table, IndexDefinition definition, string? name, CancellationToken cancellationToken, uint? parent = null)
    {
        bool singleByte = await CheckAsync(connection, table, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<IndexEntry> same = [.. (await OfTableAsync(connection, table, definition, cancellationToken).ConfigureAwait(false)).Where(entry => entry.HasDefinition)];
        IEnumerable<string> candidates = name is not null ? [GivenName(name, table, singleByte)]
            : ChosenName.Candidates(table.Name, ChosenName.Addition(ChosenName.Distinct(definition.ColumnNames, singleByte), singleByte), "idx", singleByte);
        foreach (string candidate in candidates)
        {
            IndexEntry? taken = same.FirstOrDefault(entry => entry.Name == candidate) ?? await NamedAsync(connection, table, candidate, cancellationToken).ConfigureAwait(false);
            IndexSituation situation = new()
            {
                Table = table,
                Definition = definition,
                Name = candidate,
                Existing = taken,
                Twins = [.. same.Where(entry => entry.Name != candidate)],
            };
            if (taken is null || (taken.HasDefinition && (parent is null || taken.Parent is null || taken.Parent == parent)))
            {
                return situation;
            }

            if (name is not null)
            {
                throw NameTaken(situation, taken);
            }
        }

        throw new System.Diagnostics.UnreachableException();
    }

    /// <summary>Refuses a system catalog and a role that lacks what CREATE INDEX needs.</summary>
    /// <returns>Whether the database's encoding has one byte a character.</returns>
    private static async Task<bool> CheckAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.has_schema_privilege(c.relnamespace, 'CREATE'),
                   pg_catalog.pg_get_userbyid(c.relowner)::text, current_user::text, pg_catalog.pg_encoding_max_length(d.encoding) = 1, c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
            from pg_catalog.pg_class c, pg_catalog.pg_database d
            where c.oid = $1 and d.datname = pg_catalog.current_database()
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            throw new MigrationException("TableNotFound", MigrationErrorKind.NotFound, $"{table.Display} was dropped a moment ago.", "Run the command again.") { Target = table.Display };
        }

        if (reader.GetBoolean(5))
        {
            throw new MigrationException("TableKindNotSupported", MigrationErrorKind.NotSupported, $"{table.Display} is a system catalog: PostgreSQL builds no index on one while others use it.", "Name a table of your own.")
            {
                Target = table.Display,
            };
        }

        string owner = reader.GetString(2);
        string user = reader.GetString(3);
        return !reader.GetBoolean(0) ? throw Denied($"{user} may not build an index on {table.Display}: it belongs to {owner}.", $"Connect as {owner} or as a member of it (GRANT {SqlName.QuoteIfNeeded(owner)} TO {SqlName.QuoteIfNeeded(user)}).")
            : !reader.GetBoolean(1) ? throw Denied($"{user} may not create anything in schema {SqlName.QuoteIfNeeded(table.Schema)}, where the index would be.", $"Let the owner of the schema run: GRANT CREATE ON SCHEMA {SqlName.QuoteIfNeeded(table.Schema)} TO {SqlName.QuoteIfNeeded(user)}.")
            : reader.GetBoolean(4);

        MigrationException Denied(string message, string advice) => new("InsufficientPrivilege", MigrationErrorKind.Permission, message, advice) { Target = table.Display };
    }

    private static string GivenName(string typed, TableReference table, bool singleByte)
    {
        (string? schema, string name) = SqlName.Parse(typed);
        return schema is not null && schema != table.Schema
            ? throw new MigrationException("SchemaContradicts", MigrationErrorKind.InvalidInput, $"-Name '{typed}' names another schema than that of {table.Display}; an index is always in the schema of its table.", "Give the name without a schema.")
            {
                Target = typed,
            }
            : ChosenName.Bytes(name, singleByte) > ChosenName.MaxBytes
                ? throw new MigrationException("InvalidName", MigrationErrorKind.InvalidInput, $"'{typed}' is longer than the {ChosenName.MaxBytes} bytes that PostgreSQL keeps of a name.", "Choose a shorter name.")
                {
                    Target = typed,
                }
                : name;
    }

    /// <summary>The indexes of a table.</summary>
    private static async Task<IReadOnlyList<IndexEntry>> OfTableAsync(NpgsqlConnection connection, TableReference table, IndexDefinition definition, CancellationToken cancellationToken)
    {
        // An exclusion constraint and a deferrable unique one describe themselves as plain indexes, and are not.
        const string Query = """
            select c.oid, c.relname::text, c.relkind, i.indisvalid and i.indisready and i.indislive, pg_catalog.pg_get_indexdef(c.oid),
                   case when c.relkind = 'I' then (select coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(t.relid)), 0)::int8 from pg_catalog.pg_partition_tree(c.oid) t where t.isleaf)
                        else coalesce(pg_catalog.pg_relation_size(c.oid), 0) end,
                   (select h.inhparent from pg_catalog.pg_inherits h where h.inhrelid = c.oid), not i.indisexclusion and i.indimmediate
            from pg_catalog.pg_index i
            join pg_catalog.pg_class c on c.oid = i.indexrelid
            where i.indrelid = $1
            order by c.relname
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<IndexEntry> entries = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            // Null where it was dropped since the snapshot.
            if (reader.Text(4) is { } text)
            {
                IndexDefinition found = IndexDefinition.Parse(text);
                entries.Add(new IndexEntry(
                    reader.GetFieldValue<uint>(0),
                    reader.GetString(1),
                    reader.GetChar(2),
                    reader.GetBoolean(7) && found.IsSame(definition),
                    reader.GetBoolean(3),
                    text,
                    reader.GetInt64(5),
                    reader.IsDBNull(6) ? null : reader.GetFieldValue<uint>(6),
                    found.StorageKey()));
            }
        }

        return entries;
    }

    /// <summary>Another relation that has the name in the table's schema.</summary>
    private static async Task<IndexEntry?> NamedAsync(NpgsqlConnection connection, TableReference table, string name, CancellationToken cancellationToken)
    {
        const string Query = """
            select c.oid, c.relname::text, c.relkind, coalesce(i.indisvalid and i.indisready and i.indislive, false),
                   case when i.indexrelid is not null then pg_catalog.pg_get_indexdef(c.oid) end
            from pg_catalog.pg_class t
            join pg_catalog.pg_class c on c.relnamespace = t.relnamespace and c.relname = $2
            left join pg_catalog.pg_index i on i.indexrelid = c.oid
            where t.oid = $1
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = name, NpgsqlDbType = NpgsqlDbType.Name } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new IndexEntry(reader.GetFieldValue<uint>(0), reader.GetString(1), reader.GetChar(2), false, reader.GetBoolean(3), reader.Text(4), 0, null, "")
            : null;
    }

    private static MigrationException NameTaken(IndexSituation wanted, IndexEntry taken) => new(
        "IndexNameTaken",
        MigrationErrorKind.InvalidInput,
        taken.Definition is { } definition
            ? $"{wanted.Display} is another index{(taken.Valid ? "" : ", and not a valid one")}. There: {definition}. Wanted: {wanted.CreateSql()}."
            : $"{wanted.Display} is {KindInWords(taken.Kind)}; an index cannot have the same name.",
        "Give the new index another name with -Name, or rename or drop what has it.")
    {
        Target = wanted.Display,
    };

    private static string KindInWords(char kind) => kind switch
    {
        'r' => "a table",
        'p' => "a partitioned table",
        'v' => "a view",
        'm' => "a materialized view",
        'S' => "a sequence",
        'f' => "a foreign table",
        'c' => "a composite type",
        _ => "another relation",
    };
}
