using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Execution;

/// <summary>A table as the catalog knows it.</summary>
/// <param name="Oid">Oid in pg_class.</param>
/// <param name="Schema">Schema, as in the catalog.</param>
/// <param name="Name">Name, as in the catalog.</param>
/// <param name="Kind">relkind: r ordinary, p partitioned, f foreign, v view, m materialised view ...</param>
/// <param name="Persistence">relpersistence: p permanent, u unlogged, t temporary.</param>
/// <param name="EstimatedRows">reltuples: rows at the last ANALYZE or VACUUM; -1 where there was none.</param>
/// <param name="SizeBytes">Size of table and toast in bytes, without indexes.</param>
internal sealed record TableReference(uint Oid, string Schema, string Name, char Kind, char Persistence, double EstimatedRows, long SizeBytes)
{
    /// <summary>Schema and name, quoted for SQL.</summary>
    internal string Sql => SqlName.Quote(Schema, Name);

    /// <summary>Schema and name for people, quoted only where SQL needs it.</summary>
    internal string Display => $"{SqlName.QuoteIfNeeded(Schema)}.{SqlName.QuoteIfNeeded(Name)}";

    /// <summary>Finds a permanent table by what a user typed.</summary>
    /// <param name="connection">Connection; its search_path counts where no schema is given.</param>
    /// <param name="table">Name as in SQL, with or without schema.</param>
    /// <param name="schema">Schema as in SQL; null for the one in <paramref name="table"/> or the search_path.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <param name="kinds">The kinds of relation that will do; an ordinary table alone where nothing is said.</param>
    /// <returns>The table.</returns>
    /// <exception cref="MigrationException"><c>TableNotFound</c>, <c>TableKindNotSupported</c>, <c>InvalidName</c>, <c>InsufficientPrivilege</c>: the schema may not be used.</exception>
    internal static async Task<TableReference> FindAsync(NpgsqlConnection connection, string table, string? schema, CancellationToken cancellationToken, string kinds = "r")
    {
        TableReference found = await FindAnyAsync(connection, table, schema, cancellationToken).ConfigureAwait(false);
        if (!kinds.Contains(found.Kind, StringComparison.Ordinal) || found.Persistence == 't')
        {
            throw new MigrationException(
                "TableKindNotSupported",
                MigrationErrorKind.NotSupported,
                $"{found.Display} is {KindInWords(found)}, not an ordinary table.",
                found.Kind == 'p' ? "Name its partitions one by one." : "Name an ordinary table.")
            {
                Target = found.Display,
            };
        }

        await using NpgsqlCommand size = new("select pg_catalog.pg_table_size($1)", connection)
        {
            Parameters = { new() { Value = found.Oid, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid } },
        };
        return found with { SizeBytes = await size.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) as long? ?? 0 };
    }

    /// <summary>The same for a relation of any kind, without its size: to ask for that waits for whoever holds it in ACCESS EXCLUSIVE mode, and here that may be the question.</summary>
    internal static async Task<TableReference> FindAnyAsync(NpgsqlConnection connection, string table, string? schema, CancellationToken cancellationToken)
    {
        (string? givenSchema, string name) = SqlName.Parse(table);
        if (schema is not null)
        {
            string schemaName = SqlName.Parse(schema).Name;
            if (givenSchema is not null && givenSchema != schemaName)
            {
                throw new MigrationException(
                    "SchemaContradicts",
                    MigrationErrorKind.InvalidInput,
                    $"-Table '{table}' names another schema than -Schema '{schema}'.",
                    "Give the schema once.")
                {
                    Target = table,
                };
            }

            givenSchema = schemaName;
        }

        try
        {
            // The text as it stands is looked for as well: people type Order for a table that SQL calls "Order".
            return await ReadAsync(connection, givenSchema, name, cancellationToken).ConfigureAwait(false)
                ?? (table.Contains('"', StringComparison.Ordinal) ? null : await ReadAsync(connection, givenSchema, table.Trim().Split('.')[^1], cancellationToken).ConfigureAwait(false))
                ?? throw await NotFoundAsync(connection, givenSchema, name, cancellationToken).ConfigureAwait(false);
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.InsufficientPrivilege)
        {
            throw await SchemaUsage.DeniedAsync(connection, e, table, cancellationToken).ConfigureAwait(false) ?? ServerErrors.Translate(e, $"Looking for {table}", table);
        }
    }

    /// <summary>Refuses what has no operations of a table.</summary>
    /// <exception cref="MigrationException"><c>TableKindNotSupported</c>: an index, a view, a sequence, a type.</exception>
    internal TableReference AsTable() => Kind is 'i' or 'I' or 'v' or 'S' or 'c'
        ? throw new MigrationException(
            "TableKindNotSupported",
            MigrationErrorKind.InvalidInput,
            $"{Display} is {KindInWords(this)}, not a table.",
            Kind is 'i' or 'I' ? "Name the table that it is on." : "Name a table.")
        {
            Target = Display,
        }
        : this;

    private static string KindInWords(TableReference table) => (table.Kind, table.Persistence) switch
    {
        (_, 't') => "temporary",
        ('p', _) => "a partitioned table",
        ('f', _) => "a foreign table",
        ('v', _) => "a view",
        ('m', _) => "a materialized view",
        ('i' or 'I', _) => "an index",
        ('S', _) => "a sequence",
        ('t', _) => "a toast table",
        _ => "a composite type",
    };

    private static async Task<TableReference?> ReadAsync(NpgsqlConnection connection, string? schema, string name, CancellationToken cancellationToken)
    {
        const string Query = """
            select c.oid, n.nspname::text, c.relname::text, c.relkind, c.relpersistence, c.reltuples::float8
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where c.oid = pg_catalog.to_regclass($1)
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = schema is null ? SqlName.Quote(name) : SqlName.Quote(schema, name) } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new TableReference(
                reader.GetFieldValue<uint>(0),
                reader.GetString(1),
                reader.GetString(2),
                reader.GetChar(3),
                reader.GetChar(4),
                reader.GetDouble(5),
                SizeBytes: 0)
            : null;
    }

    private static async Task<MigrationException> NotFoundAsync(NpgsqlConnection connection, string? schema, string name, CancellationToken cancellationToken)
    {
        const string Query = """
            select n.nspname::text, c.relname::text
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where pg_catalog.lower(c.relname) = pg_catalog.lower($1) and c.relkind in ('r', 'p') and n.nspname not like 'pg\_temp%'
            order by 1, 2
            limit 5
            """;
        List<string> alike = [];
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = name } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            alike.Add($"{SqlName.QuoteIfNeeded(reader.GetString(0))}.{SqlName.QuoteIfNeeded(reader.GetString(1))}");
        }

        string asked = schema is null ? SqlName.QuoteIfNeeded(name) : $"{SqlName.QuoteIfNeeded(schema)}.{SqlName.QuoteIfNeeded(name)}";
        return new MigrationException(
            "TableNotFound",
            MigrationErrorKind.NotFound,
            $"There is no table {asked} in database {connection.Database}{(schema is null ? ", in the schemas of the search_path" : "")}.",
            alike.Count == 0 ? "Check the name, the schema and the database." : $"Did you mean {string.Join(" or ", alike)}?")
        {
            Target = asked,
        };
    }
}
