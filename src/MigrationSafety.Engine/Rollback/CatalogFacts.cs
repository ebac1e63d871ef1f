using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;
using Npgsql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>A relation as it is before the migration.</summary>
/// <param name="Schema">Schema.</param>
/// <param name="Name">Name.</param>
/// <param name="Kind">relkind.</param>
/// <param name="Columns">Columns, and whether each is NOT NULL.</param>
/// <param name="Constraints">Names of its constraints.</param>
/// <param name="IndexDefinition">pg_get_indexdef of an index; null of everything else.</param>
/// <param name="Rows">The planner's estimate of its rows; negative where it was never analyzed.</param>
/// <param name="OwnColumns">Whether none of its columns is there by inheritance alone.</param>
/// <param name="Key">Columns of its primary key, else of a unique index over NOT NULL columns; empty where it has neither.</param>
/// <param name="StoredColumns">Columns that are not generated.</param>
internal sealed record CatalogRelation(
    string Schema,
    string Name,
    char Kind,
    IReadOnlyDictionary<string, bool> Columns,
    IReadOnlySet<string> Constraints,
    string? IndexDefinition,
    float Rows,
    bool OwnColumns,
    IReadOnlyList<string> Key,
    IReadOnlyList<string> StoredColumns)
{
    /// <summary>Whether other tables inherit from it, which is not meant of partitions.</summary>
    internal bool HasChildren { get; init; }

    /// <summary>Whether rules rewrite what is written to it.</summary>
    internal bool HasRules { get; init; }

    /// <summary>Why no value can be brought back to its row; null where one can.</summary>
    internal string? NoKey => Kind is not ('r' or 'p') ? "it is no table"
        : HasChildren ? "other tables inherit from it, and no key holds over all of them"
        : Key.Count == 0 ? "it has neither a primary key nor a unique index over NOT NULL columns, by which a row would be found again"
        : null;

    /// <summary>It as a query reads it for its key: partitions with it, tables that inherit from it not.</summary>
    internal string Source => (Kind == 'p' ? "" : "only ") + new QualifiedName(Schema, Name);
}

/// <summary>What the catalog knows, before the migration, about the names of a script.</summary>
internal sealed class CatalogFacts
{
    // A chosen name keeps at least so many bytes of the table's name, however long its columns' names are.
    private const int PrefixBytes = 24;

    private readonly Dictionary<(string, string), CatalogRelation> _relations = [];
    private readonly HashSet<(string, string)> _relationNames = [];
    private readonly HashSet<(string, string)> _constraintNames = [];
    private readonly HashSet<(string, string)> _statisticsNames = [];
    private readonly HashSet<(ObjectKind, string, string)> _others = [];

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

    /// <summary>Asks the catalog for every name that the script holds, in whatever place it stands.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="database">Where it is read, for texts.</param>
    /// <param name="script">Script.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<CatalogFacts> LoadAsync(NpgsqlConnection connection, string database, SqlScript script, CancellationToken cancellationToken)
    {
        CatalogFacts facts = await ReadPathAsync(connection, database, cancellationToken).ConfigureAwait(false);
        HashSet<string> names = [];
        HashSet<string> tables = [];
        foreach (SqlStatement statement in script.Statements.Where(s => s.Kind == SqlStatementKind.Sql).SelectMany(Inside))
        {
            names.UnionWith(statement.Tokens.Select(t => SqlReader.NameOf(statement.Script, t)).OfType<string>());
            names.UnionWith(QueryReversal.NamesInStrings(statement));
            if (StatementParser.Parse(statement) is CreateIndex or AlterTable or MakesTable or RenameObject or CreateStatistics)
            {
                tables.UnionWith(statement.Tokens.Select(t => SqlReader.NameOf(statement.Script, t)).OfType<string>().Where(n => !SqlKeywords.NeedsQuotes(n)));
            }
        }

        // A schema may be named by the script, by its path, and by nobody.
        string[] schemas = [.. names.Concat(facts.SearchPath).Concat(ScriptPath.Follow(script).SelectMany(p => p?.Schemas ?? [])).Distinct()];
        await facts.ReadRelationsAsync(connection, schemas, [.. names], cancellationToken).ConfigureAwait(false);
        await facts.ReadOthersAsync(connection, schemas, [.. names], cancellationToken).ConfigureAwait(false);
        await facts.ReadNamesAsync(connection, schemas, tables, cancellationToken).ConfigureAwait(false);
        return facts;
    }

    /// <summary>A relation; null where there is none.</summary>
    internal CatalogRelation? Find(string schema, string name) => _relations.GetValueOrDefault((schema, name));

    /// <summary>Whether a table, index, view, sequence of the name exists.</summary>
    internal bool HasRelation(string schema, string name) => _relationNames.Contains((schema, name)) || _relations.ContainsKey((schema, name));

    /// <summary>Whether something of the kind and name exists; of routines and operators any of that name.</summary>
    internal bool Has(ObjectKind kind, string schema, string name) =>
        kind.Space() == ObjectKind.Table ? _relations.ContainsKey((schema, name)) : _others.Contains((kind.Space(), schema, name));

    /// <summary>Whether a function of the name, that is not the system's, exists in one of some schemas; in any where none is given.</summary>
    internal bool HasFunctionOfUser(IReadOnlyList<string> schemas, string name) =>
        _others.Any(o => o.Item1 == ObjectKind.Function.Space() && o.Item3 == name && o.Item2 is not ("pg_catalog" or "information_schema") && (schemas.Count == 0 || schemas.Contains(o.Item2)));

    /// <summary>Whether a statistics object of the name exists.</summary>
    internal bool HasStatistics(string schema, string name) => _statisticsNames.Contains((schema, name));

    /// <summary>Whether a constraint of the name exists on any table of the schema.</summary>
    internal bool HasConstraint(string schema, string name) => _constraintNames.Contains((schema, name));

    /// <summary>The statements that a statement runs: itself, or those of a DO block that is understood, and its condition.</summary>
    private static IEnumerable<SqlStatement> Inside(SqlStatement statement) =>
        StatementParser.Parse(statement) is not DoBlock block || DoBody.Read(block) is not { } body ? [statement]
        : body.Condition is { } condition ? body.Statements.Append(condition.Statement)
        : body.Statements;

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

    /// <summary>Asks the catalog for relations that the script does not name.</summary>
    internal Task AddAsync(NpgsqlConnection connection, IReadOnlyCollection<QualifiedName> relations, CancellationToken cancellationToken)
    {
        QualifiedName[] missing = [.. relations.Where(r => r.Schema is not null && Find(r.Schema, r.Name) is null)];
        return missing.Length == 0 ? Task.CompletedTask : ReadRelationsAsync(connection, [.. missing.Select(r => r.Schema!)], [.. missing.Select(r => r.Name)], cancellationToken);
    }

    private async Task ReadRelationsAsync(NpgsqlConnection connection, string[] schemas, string[] names, CancellationToken cancellationToken)
    {
        const string Query = """
            select n.nspname::text, c.relname::text, c.relkind,
                   array(select a.attname::text from pg_catalog.pg_attribute a
                         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
                   array(select a.attnotnull from pg_catalog.pg_attribute a
                         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
                   array(select k.conname::text from pg_catalog.pg_constraint k where k.conrelid = c.oid),
                   case when c.relkind in ('i', 'I') then pg_catalog.pg_get_indexdef(c.oid) end, c.reltuples,
                   not exists (select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and not a.attislocal),
                   array(select a.attname::text
                         from (select x.indrelid, x.indkey::int2[] as keys, x.indnkeyatts from pg_catalog.pg_index x
                               where x.indrelid = c.oid and x.indisunique and x.indimmediate and x.indisvalid and x.indpred is null and x.indexprs is null
                                 and not exists (select from pg_catalog.pg_attribute o where o.attrelid = c.oid and o.attnum = any ((x.indkey::int2[])[0:x.indnkeyatts - 1]) and not o.attnotnull)
                               order by x.indisprimary desc, x.indnkeyatts, x.indexrelid limit 1) as k,
                              pg_catalog.unnest(k.keys) with ordinality as p (attnum, place)
                         join pg_catalog.pg_attribute a on a.attnum = p.attnum
                         where a.attrelid = c.oid and p.place <= k.indnkeyatts order by p.place),
                   array(select a.attname::text from pg_catalog.pg_attribute a
                         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' order by a.attnum),
                   c.relkind = 'r' and exists (select from pg_catalog.pg_inherits h where h.inhparent = c.oid),
                   exists (select from pg_catalog.pg_rewrite w where w.ev_class = c.oid and w.ev_type <> '1')
            from pg_catalog.pg_namespace n
            join pg_catalog.pg_class c on c.relnamespace = n.oid
            where n.nspname = any ($1) and c.relname = any ($2)
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = schemas }, new() { Value = names } },
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
                reader.Text(6),
                reader.GetFloat(7),
                reader.GetBoolean(8),
                reader.GetFieldValue<string[]>(9),
                reader.GetFieldValue<string[]>(10))
            {
                HasChildren = reader.GetBoolean(11),
                HasRules = reader.GetBoolean(12),
            };
            _relations[(relation.Schema, relation.Name)] = relation;
        }
    }

    private async Task ReadOthersAsync(NpgsqlConnection connection, string[] schemas, string[] names, CancellationToken cancellationToken)
    {
        const string Query = """
            select w.kind, n.nspname::text, w.name::text
            from (select 'type' as kind, typnamespace as namespace, typname as name from pg_catalog.pg_type
                  union all select 'function', pronamespace, proname from pg_catalog.pg_proc
                  union all select 'operator class', opcnamespace, opcname from pg_catalog.pg_opclass
                  union all select 'operator family', opfnamespace, opfname from pg_catalog.pg_opfamily
                  union all select 'collation', collnamespace, collname from pg_catalog.pg_collation
                  union all select 'conversion', connamespace, conname from pg_catalog.pg_conversion
                  union all select 'statistics', stxnamespace, stxname from pg_catalog.pg_statistic_ext
                  union all select 'text search configuration', cfgnamespace, cfgname from pg_catalog.pg_ts_config
                  union all select 'text search dictionary', dictnamespace, dictname from pg_catalog.pg_ts_dict
                  union all select 'text search parser', prsnamespace, prsname from pg_catalog.pg_ts_parser
                  union all select 'text search template', tmplnamespace, tmplname from pg_catalog.pg_ts_template) as w
            join pg_catalog.pg_namespace n on n.oid = w.namespace
            where n.nspname = any ($1) and w.name = any ($2)
            union
            select 'operator', n.nspname::text, o.oprname::text
            from pg_catalog.pg_operator o
            join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
            where n.nspname = any ($1) and n.nspname <> 'pg_catalog'
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = schemas }, new() { Value = names } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            ObjectKind kind = Enum.GetValues<ObjectKind>().First(k => k.Words() == reader.GetString(0));
            _others.Add((kind, reader.GetString(1), reader.GetString(2)));
        }
    }

    /// <summary>Every name that one chosen by PostgreSQL for the script's tables could meet.</summary>
    private async Task ReadNamesAsync(NpgsqlConnection connection, string[] schemas, IReadOnlyCollection<string> tables, CancellationToken cancellationToken)
    {
        const string Query = """
            select true, n.nspname::text, c.relname::text
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where n.nspname = any ($1) and exists (select from pg_catalog.unnest($2::text[]) p where pg_catalog.starts_with(c.relname::text, p))
            union all
            select null, n.nspname::text, s.stxname::text
            from pg_catalog.pg_statistic_ext s
            join pg_catalog.pg_namespace n on n.oid = s.stxnamespace
            where n.nspname = any ($1) and exists (select from pg_catalog.unnest($2::text[]) p where pg_catalog.starts_with(s.stxname::text, p))
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
                new() { Value = schemas },
                new() { Value = tables.Select(t => SqlReader.CutToBytes(t, PrefixBytes)).Distinct().ToArray() },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            (reader.IsDBNull(0) ? _statisticsNames : reader.GetBoolean(0) ? _relationNames : _constraintNames).Add((reader.GetString(1), reader.GetString(2)));
        }
    }
}
