using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>All that the catalogs know of one index and that dropping or rebuilding it depends on.</summary>
internal sealed record IndexDetails
{
    internal required uint Oid { get; init; }

    internal required string Schema { get; init; }

    internal required string Name { get; init; }

    /// <summary>The table that it indexes; may be a toast table, a partitioned table or a materialized view.</summary>
    internal required TableReference Table { get; init; }

    /// <summary>The table whose operations it takes part in: of a toast index the table that owns the toast table.</summary>
    internal required TableReference Owner { get; init; }

    internal bool Partitioned { get; init; }

    /// <summary>relpersistence: p permanent, u unlogged, t temporary.</summary>
    internal char Persistence { get; init; }

    internal bool Valid { get; init; }

    internal bool Ready { get; init; }

    internal bool Live { get; init; }

    internal bool Unique { get; init; }

    internal bool Exclusion { get; init; }

    internal bool ReplicaIdentity { get; init; }

    internal bool Clustered { get; init; }

    /// <summary>Access method.</summary>
    internal required string Method { get; init; }

    /// <summary><c>pg_get_indexdef</c>.</summary>
    internal required string Definition { get; init; }

    /// <summary>The partial index's condition, as it ends the definition; null where it has none.</summary>
    internal string? Predicate { get; init; }

    /// <summary>Its own tablespace; null for the database's.</summary>
    internal string? Tablespace { get; init; }

    internal string? Comment { get; init; }

    /// <summary>ALTER COLUMN ... SET STATISTICS of its expressions: number and target.</summary>
    internal (short Column, int Target)[] Statistics { get; init; } = [];

    /// <summary>ALTER INDEX ... DEPENDS ON EXTENSION.</summary>
    internal string[] Extensions { get; init; } = [];

    /// <summary>The partitioned index that it is attached to, as schema.name.</summary>
    internal string? AttachedTo { get; init; }

    internal long SizeBytes { get; init; }

    /// <summary>Scans since the statistics were reset.</summary>
    internal long Scans { get; init; }

    /// <summary>Since 16: the last scan.</summary>
    internal TimeSpan? LastScanAge { get; init; }

    internal DateTimeOffset? StatisticsReset { get; init; }

    /// <summary>Whether this role is the table's owner or a member of it.</summary>
    internal bool Owned { get; init; }

    internal required string OwnerRole { get; init; }

    internal required string User { get; init; }

    /// <summary>Whether this role may name what is in the schema (pg_toast is closed to most).</summary>
    internal bool SchemaOpen { get; init; }

    /// <summary>Of a system catalog.</summary>
    internal bool System { get; init; }

    internal bool Toast => Table.Kind == 't';

    /// <summary>Schema and name, for people and for SQL.</summary>
    internal string Display => $"{SqlName.QuoteIfNeeded(Schema)}.{SqlName.QuoteIfNeeded(Name)}";

    /// <summary>Finds an index by what a user typed.</summary>
    /// <param name="connection">Connection; its search_path counts where no schema is given.</param>
    /// <param name="name">Name as in SQL, with or without schema.</param>
    /// <param name="schema">Schema as in SQL; null for the one in <paramref name="name"/> or the search_path.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The index; null where there is none of this name.</returns>
    /// <exception cref="MigrationException"><c>NotAnIndex</c>, <c>SchemaContradicts</c>, <c>InvalidName</c>.</exception>
    internal static async Task<IndexDetails?> FindAsync(NpgsqlConnection connection, string name, string? schema, CancellationToken cancellationToken)
    {
        (string? givenSchema, string givenName) = SqlName.Parse(name);
        if (schema is not null)
        {
            string schemaName = SqlName.Parse(schema).Name;
            givenSchema = givenSchema is null || givenSchema == schemaName
                ? schemaName
                : throw new MigrationException("SchemaContradicts", MigrationErrorKind.InvalidInput, $"-Name '{name}' names another schema than -Schema '{schema}'.", "Give the schema once.") { Target = name };
        }

        uint? before = null;
        while (true)
        {
            // The text as it stands is looked for as well: people type Order_idx for an index that SQL calls "Order_idx".
            (uint Oid, char Kind, string Name)? found = await OidAsync(connection, givenSchema, givenName, cancellationToken).ConfigureAwait(false)
                ?? (name.Contains('"', StringComparison.Ordinal) ? null : await OidAsync(connection, givenSchema, name.Trim().Split('.')[^1], cancellationToken).ConfigureAwait(false));
            if (found is not { } relation)
            {
                return null;
            }

            if (relation.Kind is not ('i' or 'I'))
            {
                throw new MigrationException("NotAnIndex", MigrationErrorKind.InvalidInput, $"{name} is no index.", "Name an index.") { Target = name };
            }

            IndexDetails? index = await ReadAsync(connection, relation.Oid, cancellationToken).ConfigureAwait(false);
            // A rebuild may give the name to another index between the two questions: then the first has gone, or is called otherwise.
            if (index?.Name == relation.Name || before == relation.Oid)
            {
                return index;
            }

            before = relation.Oid;
        }
    }

    /// <summary>Reads one index.</summary>
    /// <returns>The index; null where it has gone.</returns>
    internal static async Task<IndexDetails?> ReadAsync(NpgsqlConnection connection, uint oid, CancellationToken cancellationToken)
    {
        // What a major lacks (attstattarget is null from 17 on where it was -1, last_idx_scan exists from 16 on) is read so that one query serves all.
        const string Query = """
            select n.nspname::text, c.relname::text, c.relkind = 'I', c.relpersistence,
                   t.oid, tn.nspname::text, t.relname::text, t.relkind, t.relpersistence, t.reltuples::float8, pg_catalog.pg_table_size(t.oid),
                   o.oid, o.nspname::text, o.relname::text, o.relkind, o.relpersistence, o.reltuples::float8, pg_catalog.pg_table_size(o.oid),
                   i.indisvalid and i.indisready and i.indislive, i.indisready, i.indislive, i.indisunique, i.indisexclusion, i.indisreplident, i.indisclustered,
                   m.amname::text, pg_catalog.pg_get_indexdef(c.oid), pg_catalog.pg_get_expr(i.indpred, i.indrelid),
                   (select spcname::text from pg_catalog.pg_tablespace where oid = c.reltablespace), pg_catalog.obj_description(c.oid, 'pg_class'),
                   array(select attnum from pg_catalog.pg_attribute where attrelid = c.oid and coalesce(attstattarget, -1) >= 0 order by attnum),
                   array(select attstattarget::int4 from pg_catalog.pg_attribute where attrelid = c.oid and coalesce(attstattarget, -1) >= 0 order by attnum),
                   array(select e.extname::text from pg_catalog.pg_depend d join pg_catalog.pg_extension e on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and e.oid = d.refobjid
                         where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'x' order by 1),
                   case when c.relispartition then (select pg_catalog.format('%I.%I', s.nspname, p.relname) from pg_catalog.pg_inherits h
                        join pg_catalog.pg_class p on p.oid = h.inhparent join pg_catalog.pg_namespace s on s.oid = p.relnamespace where h.inhrelid = c.oid) end,
                   coalesce(pg_catalog.pg_relation_size(c.oid), 0), coalesce(pg_catalog.pg_stat_get_numscans(c.oid), 0),
                   pg_catalog.clock_timestamp() - (select (pg_catalog.to_jsonb(u) ->> 'last_idx_scan')::timestamptz from pg_catalog.pg_stat_all_indexes u where u.indexrelid = c.oid),
                   (select stats_reset from pg_catalog.pg_stat_database where datname = pg_catalog.current_database()),
                   pg_catalog.pg_has_role(t.relowner, 'USAGE'), pg_catalog.pg_get_userbyid(t.relowner)::text, current_user::text, pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
                   c.oid < 16384 or n.nspname = 'pg_catalog'
            from pg_catalog.pg_class c
            join pg_catalog.pg_index i on i.indexrelid = c.oid
            join pg_catalog.pg_am m on m.oid = c.relam
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            join pg_catalog.pg_class t on t.oid = i.indrelid
            join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
            join lateral (
                select w.*, s.nspname from pg_catalog.pg_class w join pg_catalog.pg_namespace s on s.oid = w.relnamespace
                where w.oid = t.oid or (t.relkind = 't' and w.reltoastrelid = t.oid)
                order by w.oid = t.oid limit 1
            ) o on true
            where c.oid = $1
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        // No definition: it was dropped since the snapshot, which the functions that describe it do not keep to.
        if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false) || await reader.IsDBNullAsync(26, cancellationToken).ConfigureAwait(false))
        {
            return null;
        }

        short[] columns = reader.GetFieldValue<short[]>(30);
        int[] targets = reader.GetFieldValue<int[]>(31);
        return new IndexDetails
        {
            Oid = oid,
            Schema = reader.GetString(0),
            Name = reader.GetString(1),
            Partitioned = reader.GetBoolean(2),
            Persistence = reader.GetChar(3),
            Table = Table(4),
            Owner = Table(11),
            Valid = reader.GetBoolean(18),
            Ready = reader.GetBoolean(19),
            Live = reader.GetBoolean(20),
            Unique = reader.GetBoolean(21),
            Exclusion = reader.GetBoolean(22),
            ReplicaIdentity = reader.GetBoolean(23),
            Clustered = reader.GetBoolean(24),
            Method = reader.GetString(25),
            Definition = reader.GetString(26),
            Predicate = reader.Text(27),
            Tablespace = reader.Text(28),
            Comment = reader.Text(29),
            Statistics = [.. columns.Zip(targets)],
            Extensions = reader.GetFieldValue<string[]>(32),
            AttachedTo = reader.Text(33),
            SizeBytes = reader.GetInt64(34),
            Scans = reader.GetInt64(35),
            LastScanAge = reader.Duration(36),
            StatisticsReset = reader.Time(37),
            Owned = reader.GetBoolean(38),
            OwnerRole = reader.GetString(39),
            User = reader.GetString(40),
            SchemaOpen = reader.GetBoolean(41),
            System = reader.GetBoolean(42),
        };

        TableReference Table(int first) => new(
            reader.GetFieldValue<uint>(first),
            reader.GetString(first + 1),
            reader.GetString(first + 2),
            reader.GetChar(first + 3),
            reader.GetChar(first + 4),
            reader.GetDouble(first + 5),
            reader.IsDBNull(first + 6) ? 0 : reader.GetInt64(first + 6));
    }

    /// <summary>Indexes of a similar name, for whoever mistyped one.</summary>
    internal static async Task<IReadOnlyList<string>> AlikeAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.format('%I.%I', n.nspname, c.relname)
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('i', 'I') and c.relpersistence <> 't' and n.nspname not in ('pg_catalog', 'pg_toast', 'information_schema')
              and (pg_catalog.lower(c.relname) = pg_catalog.lower($1) or pg_catalog.strpos(pg_catalog.lower(c.relname), pg_catalog.lower($1)) > 0)
            order by pg_catalog.lower(c.relname) <> pg_catalog.lower($1), 1
            limit 3
            """;
        List<string> alike = [];
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = SqlName.Parse(name).Name } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            alike.Add(reader.GetString(0));
        }

        return alike;
    }

    /// <summary>Refuses what neither a concurrent drop nor a concurrent rebuild can work on.</summary>
    /// <exception cref="MigrationException"><c>IndexKindNotSupported</c>, <c>InsufficientPrivilege</c>.</exception>
    internal void EnsureOpen()
    {
        if (System)
        {
            throw Refusal("IndexKindNotSupported", MigrationErrorKind.NotSupported, $"{Display} belongs to a system catalog: PostgreSQL changes its indexes only while nobody uses them.", "Name an index of your own tables.");
        }

        if (Persistence == 't')
        {
            throw Refusal("IndexKindNotSupported", MigrationErrorKind.NotSupported, $"{Display} belongs to a temporary table of another session.", "Let that session do it.");
        }

        if (!SchemaOpen)
        {
            throw Refusal(
                "InsufficientPrivilege",
                MigrationErrorKind.Permission,
                $"{User} may not name what is in schema {SqlName.QuoteIfNeeded(Schema)}, where {Display} is.",
                $"Have a superuser run: GRANT USAGE ON SCHEMA {SqlName.QuoteIfNeeded(Schema)} TO {SqlName.QuoteIfNeeded(User)}.");
        }
    }

    internal MigrationException NotOwned() => Refusal(
        "InsufficientPrivilege",
        MigrationErrorKind.Permission,
        $"{User} may not change {Display}: its table {Table.Display} belongs to {OwnerRole}.",
        $"Connect as {OwnerRole} or as a member of it (GRANT {SqlName.QuoteIfNeeded(OwnerRole)} TO {SqlName.QuoteIfNeeded(User)}).");

    internal MigrationException Refusal(string id, MigrationErrorKind kind, string message, string advice) => new(id, kind, message, advice) { Target = Display };

    private static async Task<(uint Oid, char Kind, string Name)?> OidAsync(NpgsqlConnection connection, string? schema, string name, CancellationToken cancellationToken)
    {
        // Not by to_regclass where the schema is given: it fails on one that this role may not use, as pg_toast is for most.
        const string Query = """
            select c.oid, c.relkind, c.relname::text from pg_catalog.pg_class c
            where c.oid = case when $1::name is null then pg_catalog.to_regclass(pg_catalog.quote_ident($2))::oid
                               else (select r.oid from pg_catalog.pg_class r join pg_catalog.pg_namespace n on n.oid = r.relnamespace where n.nspname = $1 and r.relname = $2) end
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = (object?)schema ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Name }, new() { Value = name } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false) ? (reader.GetFieldValue<uint>(0), reader.GetChar(1), reader.GetString(2)) : null;
    }
}
