using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Reads from the catalogs what there is for a wanted index, and refuses what cannot be built.</summary>
internal static class IndexCatalog
{
    /// <summary>Looks at table, columns, names and indexes.</summary>
    /// <exception cref="MigrationException">The request cannot be met; nothing was changed.</exception>
    internal static async Task<IndexSituation> InspectAsync(NpgsqlConnection connection, IndexBuildRequest request, CancellationToken cancellationToken)
    {
        TableReference table = await TableReference.FindAsync(connection, request.Table, request.Schema, cancellationToken).ConfigureAwait(false);
        bool singleByte = await CheckAsync(connection, table, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<(string Name, short Number)> known = await ColumnsAsync(connection, table, cancellationToken).ConfigureAwait(false);
        if (request.Column.Length is 0 or > 32)
        {
            throw new MigrationException("ColumnCount", MigrationErrorKind.InvalidInput, $"An index has 1 to 32 columns; {request.Column.Length} were named.", "Name the columns with -Column.")
            {
                Target = table.Display,
            };
        }

        (string Name, short Number)[] columns = [.. request.Column.Select(column => Column(column, known, table))];
        string[] names = [.. columns.Select(column => column.Name)];
        IEnumerable<string> candidates = request.Name is null ? IndexNames.Candidates(table.Name, names, singleByte) : [GivenName(request.Name, table, singleByte)];
        foreach (string candidate in candidates)
        {
            IReadOnlyList<IndexEntry> entries = await EntriesAsync(connection, table, [.. columns.Select(column => column.Number)], request.Unique, candidate, cancellationToken).ConfigureAwait(false);
            IndexEntry? taken = entries.FirstOrDefault(entry => entry.HasName);
            IndexSituation situation = new()
            {
                Table = table,
                Columns = names,
                Unique = request.Unique,
                Name = candidate,
                Existing = taken,
                Twins = [.. entries.Where(entry => !entry.HasName)],
            };
            if (taken is null or { HasDefinition: true })
            {
                return situation;
            }

            if (request.Name is not null)
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

    private static async Task<IReadOnlyList<(string Name, short Number)>> ColumnsAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        const string Query = """
            select attname::text, attnum from pg_catalog.pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped order by attnum
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<(string, short)> columns = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            columns.Add((reader.GetString(0), reader.GetInt16(1)));
        }

        return columns;
    }

    private static (string Name, short Number) Column(string typed, IReadOnlyList<(string Name, short Number)> known, TableReference table)
    {
        string? name = ParsedColumn(typed);
        foreach ((string Name, short Number) column in known.Where(column => column.Name == name).Concat(known.Where(column => column.Name == typed)))
        {
            return column;
        }

        string[] alike = [.. known.Select(column => column.Name).Where(column => Similar(column, name ?? typed)).Take(3).Select(SqlName.QuoteIfNeeded)];
        throw new MigrationException(
            "ColumnNotFound",
            MigrationErrorKind.NotFound,
            name is null
                ? $"'{typed}' is no column of {table.Display}; -Column takes plain column names only, no expressions and no options."
                : $"There is no column {SqlName.QuoteIfNeeded(name)} in {table.Display}.",
            alike.Length > 0 ? $"Did you mean {string.Join(" or ", alike)}?" : $"Its columns: {string.Join(", ", known.Take(20).Select(column => SqlName.QuoteIfNeeded(column.Name)))}{(known.Count > 20 ? " ..." : "")}.")
        {
            Target = table.Display,
        };
    }

    /// <summary>The column that a text names; null where it is no plain name.</summary>
    private static string? ParsedColumn(string typed)
    {
        try
        {
            (string? qualifier, string name) = SqlName.Parse(typed);
            return qualifier is null ? name : null;
        }
        catch (MigrationException)
        {
            // Not a name: an expression, or options behind a name. The caller says so with the table's columns at hand.
            return null;
        }
    }

    /// <summary>Few enough letters differ that it may be meant.</summary>
    private static bool Similar(string left, string right)
    {
        string a = left.ToUpperInvariant();
        string b = right.ToUpperInvariant();
        int[] row = [.. Enumerable.Range(0, b.Length + 1)];
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int above = row[j];
                row[j] = Math.Min(Math.Min(above, row[j - 1]) + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }

        return row[^1] <= Math.Max(1, Math.Min(a.Length, b.Length) / 3);
    }

    private static string GivenName(string typed, TableReference table, bool singleByte)
    {
        (string? schema, string name) = SqlName.Parse(typed);
        return schema is not null && schema != table.Schema
            ? throw new MigrationException("SchemaContradicts", MigrationErrorKind.InvalidInput, $"-Name '{typed}' names another schema than that of {table.Display}; an index is always in the schema of its table.", "Give the name without a schema.")
            {
                Target = typed,
            }
            : IndexNames.Bytes(name, singleByte) > IndexNames.MaxBytes
                ? throw new MigrationException("InvalidName", MigrationErrorKind.InvalidInput, $"'{typed}' is longer than the {IndexNames.MaxBytes} bytes that PostgreSQL keeps of a name.", "Choose a shorter name.")
                {
                    Target = typed,
                }
                : name;
    }

    private static async Task<IReadOnlyList<IndexEntry>> EntriesAsync(
        NpgsqlConnection connection,
        TableReference table,
        short[] columns,
        bool unique,
        string name,
        CancellationToken cancellationToken)
    {
        // indnullsnotdistinct exists from 15 on: read by name, so that one query serves all majors.
        const string Query = """
            select c.oid, c.relname::text, c.relkind, c.relnamespace = t.relnamespace and c.relname = $4, coalesce(x.same, false),
                   coalesce(x.indisvalid and x.indisready and x.indislive, false), case when x.indexrelid is not null then pg_catalog.pg_get_indexdef(c.oid) end,
                   case when x.indexrelid is not null then coalesce(pg_catalog.pg_relation_size(c.oid), 0) else 0 end
            from pg_catalog.pg_class t
            join pg_catalog.pg_class c on (c.relnamespace = t.relnamespace and c.relname = $4)
                or c.oid in (select indexrelid from pg_catalog.pg_index where indrelid = t.oid)
            join pg_catalog.pg_am b on b.amname = 'btree'
            left join lateral (
                select i.*,
                       i.indrelid = t.oid and c.relam = b.oid and i.indisunique = $2 and i.indkey::text = $3 and i.indnatts = i.indnkeyatts
                       and i.indpred is null and i.indexprs is null and not i.indisexclusion and i.indimmediate
                       and i.indoption::text !~ '[^0 ]'
                       and not coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false)
                       and not exists (select from pg_catalog.unnest(i.indclass) as k join pg_catalog.pg_opclass o on o.oid = k where not o.opcdefault)
                       and i.indcollation::text = (
                           select pg_catalog.string_agg(a.attcollation::text, ' ' order by k.position)
                           from pg_catalog.unnest(i.indkey) with ordinality as k (number, position)
                           join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number) as same
                from pg_catalog.pg_index i
                where i.indexrelid = c.oid
            ) x on true
            where t.oid = $1 and ((c.relnamespace = t.relnamespace and c.relname = $4) or x.same)
            order by c.relname
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid },
                new() { Value = unique },
                new() { Value = string.Join(' ', columns) },
                new() { Value = name, NpgsqlDbType = NpgsqlDbType.Name },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<IndexEntry> entries = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            entries.Add(new IndexEntry(
                reader.GetFieldValue<uint>(0),
                reader.GetString(1),
                reader.GetChar(2),
                reader.GetBoolean(3),
                reader.GetBoolean(4),
                reader.GetBoolean(5),
                reader.Text(6),
                reader.GetInt64(7)));
        }

        return entries;
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
