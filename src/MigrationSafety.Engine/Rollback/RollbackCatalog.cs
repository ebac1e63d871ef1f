using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql.Statements;
using Npgsql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>The catalog as it is before a migration, asked statement by statement. No transaction is held between two questions.</summary>
internal sealed class RollbackCatalog : IAsyncDisposable
{
    private readonly NpgsqlConnection _connection;
    private readonly Dictionary<string, CatalogAddress?> _addresses = [];
    private readonly Dictionary<CatalogAddress, ObjectDefinition?> _definitions = [];

    private RollbackCatalog(NpgsqlConnection connection, CatalogFacts facts)
    {
        _connection = connection;
        Facts = facts;
    }

    /// <summary>What was read beforehand.</summary>
    internal CatalogFacts Facts { get; }

    /// <summary>The connection, for questions of one family alone.</summary>
    internal NpgsqlConnection Connection => _connection;

    internal static async Task<RollbackCatalog> OpenAsync(EngineSession session, Sql.SqlScript script, IOperationSink sink, CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await session.OpenAsync("rollback", sink, cancellationToken).ConfigureAwait(false);
        try
        {
            return new RollbackCatalog(connection, await CatalogFacts.LoadAsync(connection, session.Info.ToString(), script, cancellationToken).ConfigureAwait(false));
        }
        catch
        {
            await connection.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>The place of an object; null where it is not there.</summary>
    /// <param name="o">The object by its name before the script.</param>
    /// <param name="path">The path that the script has set, for types without schema.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task<CatalogAddress?> FindAsync(ObjectReference o, ScriptPath? path, CancellationToken cancellationToken)
    {
        (string catalog, string oid, string sub) = o.Find();
        string setPath = Schemas(path);
        string key = $"{setPath}|{catalog}|{oid}|{sub}";
        if (!_addresses.TryGetValue(key, out CatalogAddress? address))
        {
            _addresses[key] = address = await AskAsync(catalog, oid, sub, setPath, cancellationToken).ConfigureAwait(false);
        }

        return address;
    }

    /// <summary>The definition of an object, every property that can be set with a statement of its own; null where there is none.</summary>
    internal async Task<ObjectDefinition?> ReadAsync(CatalogAddress address, CancellationToken cancellationToken)
    {
        if (!_definitions.TryGetValue(address, out ObjectDefinition? definition))
        {
            IReadOnlyList<ObjectDefinition> read = await DefinitionReader.ReadAsync(_connection, [address], true, cancellationToken).ConfigureAwait(false);
            _definitions[address] = definition = read.FirstOrDefault(d => d.Address == address);
        }

        return definition;
    }

    /// <summary>Objects and all that goes with them.</summary>
    internal Task<IReadOnlyList<ObjectDefinition>> WithDependentsAsync(IReadOnlyCollection<CatalogAddress> addresses, CancellationToken cancellationToken) =>
        DefinitionReader.WithDependentsAsync(_connection, addresses, cancellationToken);

    /// <summary>The type of a column.</summary>
    /// <param name="Text">As SQL, with modifiers.</param>
    /// <param name="Name">Without modifiers.</param>
    /// <param name="Modifier">atttypmod.</param>
    /// <param name="AttributeCollation">Collation of the column; null where its type has none.</param>
    /// <param name="Collation">The same where it is not the type's own.</param>
    internal sealed record ColumnType(string Text, string Name, int Modifier, string? AttributeCollation, string? Collation);

    /// <summary>The type of a column, every name qualified; null where the column is not there.</summary>
    internal async Task<ColumnType?> TypeAsync(CatalogAddress column, CancellationToken cancellationToken)
    {
        string query = $"""
            set local search_path to pg_catalog;
            select format_type(a.atttypid, a.atttypmod), a.atttypid::regtype::text, a.atttypmod, nullif(a.attcollation, 0)::regcollation::text,
                   case when a.attcollation <> t.typcollation then a.attcollation::regcollation::text end
            from pg_attribute a join pg_type t on t.oid = a.atttypid
            where a.attrelid = {column.ObjectId} and a.attnum = {column.SubId} and not a.attisdropped
            """;
        await using NpgsqlCommand command = new(query, _connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new ColumnType(reader.GetString(0), reader.GetString(1), reader.GetInt32(2), reader.Text(3), reader.Text(4))
            : null;
    }

    /// <summary>Name of the database.</summary>
    internal string Name => _connection.Database;

    /// <summary>Major version of the server.</summary>
    internal int Major => _connection.PostgreSqlVersion.Major;

    /// <summary>Names of a table's triggers that are not PostgreSQL's own.</summary>
    internal Task<IReadOnlyList<string>> TriggersAsync(ObjectReference table, CancellationToken cancellationToken) =>
        ListAsync($"select tgname::text from pg_catalog.pg_trigger where tgrelid = {table.Find().Oid} and not tgisinternal order by tgname", cancellationToken);

    /// <summary>Whether a condition holds; null where the server does not understand it. It is asked in a transaction that reads only, for five seconds at most.</summary>
    /// <param name="condition">Condition.</param>
    /// <param name="path">The path that the script has set, under which it is asked.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task<bool?> HoldsAsync(string condition, ScriptPath? path, CancellationToken cancellationToken)
    {
        await using NpgsqlTransaction transaction = await _connection.BeginTransactionAsync(cancellationToken).ConfigureAwait(false);
        await using NpgsqlBatch batch = new(_connection) { BatchCommands = { new("set transaction read only"), new("set local statement_timeout = '5s'") } };
        if (Schemas(path) is { Length: > 0 } schemas)
        {
            batch.BatchCommands.Add(new($"set local search_path to {schemas}"));
        }

        batch.BatchCommands.Add(new($"select ({condition})::bool"));
        try
        {
            return await batch.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) as bool?;
        }
        catch (PostgresException e) when (!cancellationToken.IsCancellationRequested && e.SqlState is not PostgresErrorCodes.AdminShutdown)
        {
            // It stands in code that the migration will run: what is wrong with it is the migration's matter.
            return null;
        }
    }

    /// <summary>Asks for tables that the script does not name.</summary>
    internal Task KnowAsync(IReadOnlyCollection<Sql.QualifiedName> tables, CancellationToken cancellationToken) => Facts.AddAsync(_connection, tables, cancellationToken);

    /// <summary>The only value of a query as text; null where there is no row.</summary>
    internal async Task<string?> ScalarAsync(string query, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(query, _connection);
        return await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) as string;
    }

    /// <summary>The only column of a query.</summary>
    internal async Task<IReadOnlyList<string>> ListAsync(string query, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(query, _connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<string> values = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            values.Add(reader.GetString(0));
        }

        return values;
    }

    /// <summary>The two columns of a query: names and values.</summary>
    internal async Task<IReadOnlyDictionary<string, string>> PairsAsync(string query, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(query, _connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        Dictionary<string, string> pairs = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            pairs[reader.GetString(0)] = reader.GetString(1);
        }

        return pairs;
    }

    /// <inheritdoc />
    public ValueTask DisposeAsync() => _connection.DisposeAsync();

    private static string Schemas(ScriptPath? path) => path is null ? "" : string.Join(", ", path.Schemas.Select(Sql.SqlName.Quote));

    private async Task<CatalogAddress?> AskAsync(string catalog, string oid, string sub, string path, CancellationToken cancellationToken)
    {
        // The path lasts as long as the question: a statement of several is one transaction.
        string set = path.Length == 0 ? "" : $"set local search_path to {path}; ";
        string query = $"{set}select 'pg_catalog.{catalog}'::regclass::oid, ({oid})::oid, {sub}";
        await using NpgsqlCommand command = new(query, _connection);
        try
        {
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
            return await reader.IsDBNullAsync(1, cancellationToken).ConfigureAwait(false) || await reader.IsDBNullAsync(2, cancellationToken).ConfigureAwait(false)
                ? null
                : new CatalogAddress(reader.GetFieldValue<uint>(0), reader.GetFieldValue<uint>(1), reader.GetInt32(2));
        }
        catch (PostgresException e) when (e.SqlState is PostgresErrorCodes.UndefinedObject or PostgresErrorCodes.InvalidSchemaName or PostgresErrorCodes.UndefinedFunction or PostgresErrorCodes.SyntaxError)
        {
            // A type that the script makes, or a name that to_reg... of this version does not take: it is not there.
            return null;
        }
    }
}
