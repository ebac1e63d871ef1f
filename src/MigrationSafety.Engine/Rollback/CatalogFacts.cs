using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>A relation as it is before the migration.</summary>
/// <param name="Schema">Schema.</param>
/// <param name="Name">Name.</param>
/// <param name="Kind">relkind.</param>
/// <param name="Columns">Columns, and whether each is NOT NULL.</param>
/// <param name="Constraints">Names of its constraints.</param>
/// <param name="IndexDefinition">pg_get_indexdef of an index; null of everything else.</param>
internal sealed record CatalogRelation(
    string Schema,
    string Name,
    char Kind,
    IReadOnlyDictionary<string, bool> Columns,
    IReadOnlySet<string> Constraints,
    string? IndexDefinition);

/// <summary>What the catalog knows, before the migration, about the names of a script.</summary>
internal sealed class CatalogFacts
{
    // A chosen name keeps at least so many bytes of the table's name, however long its columns' names are.
    private const int PrefixBytes = 24;

    private readonly Dictionary<(string, string), CatalogRelation> _relations = [];
    private readonly HashSet<(string, string)> _relationNames = [];
    private readonly HashSet<(string, string)> _constraintNames = [];

    private CatalogFacts(string database, bool singleByte, string? creationSchema, IReadOnlyList<string> searchPath)
    {
        Database = database;
        SingleByte = singleByte;
        CreationSchema = creationSchema;
        SearchPath = searchPath;
    }

    /// <summary>Where it was read, for texts.</summary>
    internal string Database { get; }

    /// <summary>Whether its encoding has one byte a character.</summary>
    internal bool SingleByte { get; }

    /// <summary>The schema in which a name without schema is created; null where none of the search path exists.</summary>
    internal string? CreationSchema { get; }

    /// <summary>The schemas in which a name without schema is looked for, in order.</summary>
    internal IReadOnlyList<string> SearchPath { get; }

    /// <summary>Asks the catalog.</summary>
    /// <param name="session">Session.</param>
    /// <param name="names">Tables and indexes that the script names.</param>
    /// <param name="scriptSchemas">Schemas that the script itself puts into search_path.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<CatalogFacts> LoadAsync(
        EngineSession session,
        IReadOnlyCollection<QualifiedName> names,
        IReadOnlyCollection<string> scriptSchemas,
        IOperationSink sink,
        CancellationToken cancellationToken)
    {
        NpgsqlConnection connection = await session.OpenAsync("rollback", sink, cancellationToken).ConfigureAwait(false);
        await using (connection.ConfigureAwait(false))
        {
            CatalogFacts facts = await ReadPathAsync(connection, session.Info.ToString(), cancellationToken).ConfigureAwait(false);
            HashSet<(string, string)> candidates = [];
            foreach (QualifiedName name in names)
            {
                foreach (string schema in name.Schema is { } given ? [given] : facts.SearchPath.Concat(scriptSchemas))
                {
                    candidates.Add((schema, name.Name));
                }
            }

            await facts.ReadRelationsAsync(connection, candidates, cancellationToken).ConfigureAwait(false);
            await facts.ReadNamesAsync(connection, candidates, cancellationToken).ConfigureAwait(false);
            return facts;
        }
    }

    /// <summary>A relation; null where there is none.</summary>
    internal CatalogRelation? Find(string schema, string name) => _relations.GetValueOrDefault((schema, name));

    /// <summary>Whether a table, index, view, sequence of the name exists.</summary>
    internal bool HasRelation(string schema, string name) => _relationNames.Contains((schema, name)) || _relations.ContainsKey((schema, name));

    /// <summary>Whether a constraint of the name exists on any table of the schema.</summary>
    internal bool HasConstraint(string schema, string name) => _constraintNames.Contains((schema, name));

    private static async Task<CatalogFacts> ReadPathAsync(NpgsqlConnection connection, string database, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.current_schema()::text, pg_catalog.current_schemas(true)::text[],
                   (select pg_catalog.pg_encoding_max_length(encoding) = 1 from pg_catalog.pg_database where datname = pg_catalog.current_database())
            """;
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        return new CatalogFacts(database, reader.GetBoolean(2), reader.Text(0), await reader.GetFieldValueAsync<string[]>(1, cancellationToken).ConfigureAwait(false));
    }

    private async Task ReadRelationsAsync(NpgsqlConnection connection, HashSet<(string Schema, string Name)> candidates, CancellationToken cancellationToken)
    {
        const string Query = """
            select n.nspname::text, c.relname::text, c.relkind,
                   array(select a.attname::text from pg_catalog.pg_attribute a
                         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
                   array(select a.attnotnull from pg_catalog.pg_attribute a
                         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
                   array(select k.conname::text from pg_catalog.pg_constraint k where k.conrelid = c.oid),
                   case when c.relkind in ('i', 'I') then pg_catalog.pg_get_indexdef(c.oid) end
            from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as w (schema, name)
            join pg_catalog.pg_namespace n on n.nspname = w.schema
            join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = candidates.Select(c => c.Schema).ToArray() }, new() { Value = candidates.Select(c => c.Name).ToArray() } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            CatalogRelation relation = new(
                reader.GetString(0),
                reader.GetString(1),
                reader.GetChar(2),
                reader.GetFieldValue<string[]>(3).Zip(reader.GetFieldValue<bool[]>(4)).ToDictionary(c => c.First, c => c.Second),
                reader.GetFieldValue<string[]>(5).ToHashSet(),
                reader.Text(6));
            _relations[(relation.Schema, relation.Name)] = relation;
        }
    }

    /// <summary>Every name that one chosen by PostgreSQL for the script's tables could meet.</summary>
    private async Task ReadNamesAsync(NpgsqlConnection connection, HashSet<(string Schema, string Name)> candidates, CancellationToken cancellationToken)
    {
        const string Query = """
            select true, n.nspname::text, c.relname::text
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where n.nspname = any ($1) and exists (select from pg_catalog.unnest($2::text[]) p where pg_catalog.starts_with(c.relname::text, p))
            union all
            select false, n.nspname::text, k.conname::text
            from pg_catalog.pg_constraint k
            join pg_catalog.pg_namespace n on n.oid = k.connamespace
            where n.nspname = any ($1) and exists (select from pg_catalog.unnest($2::text[]) p where pg_catalog.starts_with(k.conname::text, p))
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = candidates.Select(c => c.Schema).Distinct().ToArray() },
                new() { Value = candidates.Select(c => SqlReader.CutToBytes(c.Name, PrefixBytes)).Distinct().ToArray() },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            (reader.GetBoolean(0) ? _relationNames : _constraintNames).Add((reader.GetString(1), reader.GetString(2)));
        }
    }
}
