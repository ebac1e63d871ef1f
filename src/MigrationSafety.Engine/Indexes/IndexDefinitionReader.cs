using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Indexes;

/// <summary>Makes the definition that a request means, in the server's words.</summary>
internal static class IndexDefinitionReader
{
    /// <summary>
    /// Reads what is wanted. Plain columns are looked up in the catalog. Everything else the server itself is asked about: it makes the index on an empty temporary
    /// table of the same columns, in a transaction that is rolled back, and says what it understood, or why it would refuse.
    /// </summary>
    /// <exception cref="MigrationException">It cannot be built; nothing was changed.</exception>
    internal static async Task<IndexDefinition> ReadAsync(NpgsqlConnection connection, TableReference table, IndexBuildRequest request, CancellationToken cancellationToken)
    {
        if (request.NullsNotDistinct && connection.PostgreSqlVersion.Major < 15)
        {
            throw new MigrationException(
                "NotSupported", MigrationErrorKind.NotSupported, $"NULLS NOT DISTINCT needs PostgreSQL 15; this is {connection.PostgreSqlVersion}.", "Leave it out: a unique index of this server allows any number of NULLs.")
            {
                Target = table.Display,
            };
        }

        IReadOnlyList<string> known = await ColumnsAsync(connection, table, cancellationToken).ConfigureAwait(false);
        string[] elements = [.. request.Column.SelectMany(typed => Elements(typed, known, table))];
        string[] include = [.. request.Include.Select(typed => SqlName.QuoteIfNeeded(PlainColumn(typed, known) ?? throw NotFound(typed, PlainName(typed), known, table)))];
        if (elements.Length + include.Length is 0 or > 32)
        {
            throw new MigrationException(
                "ColumnCount", MigrationErrorKind.InvalidInput, $"An index has 1 to 32 columns; {elements.Length + include.Length} were named.", "Name the columns with -Column.")
            {
                Target = table.Display,
            };
        }

        IndexDefinition asked = new()
        {
            Unique = request.Unique,
            Method = request.Method is null ? "btree" : SqlName.QuoteIfNeeded(SqlName.Parse(request.Method).Name),
            Elements = elements,
            Include = include,
            NullsNotDistinct = request.NullsNotDistinct,
            With = Fragment(request.With, "With", table),
            Tablespace = request.Tablespace is null ? null : SqlName.QuoteIfNeeded(SqlName.Parse(request.Tablespace).Name),
            Where = Fragment(request.Where, "Where", table),
        };
        string[] plain = [.. request.Column.Select(typed => PlainColumn(typed, known)).OfType<string>()];
        return plain.Length == request.Column.Length && asked is { Method: "btree", Include: [], NullsNotDistinct: false, With: null, Tablespace: null, Where: null }
            ? asked with { ColumnNames = plain, Keys = elements, Collations = new string?[elements.Length] }
            : await AskAsync(connection, table, asked, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Asks the server.</summary>
    private static async Task<IndexDefinition> AskAsync(NpgsqlConnection connection, TableReference table, IndexDefinition asked, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.pg_get_indexdef(c.oid),
                   array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid order by a.attnum),
                   array(select pg_catalog.pg_get_indexdef(c.oid, k, false) from pg_catalog.generate_series(1, i.indnkeyatts) as k),
                   array(select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(l.collname)
                         from pg_catalog.generate_series(0, i.indnkeyatts - 1) as k
                         left join pg_catalog.pg_collation l on l.oid = i.indcollation[k]
                         left join pg_catalog.pg_namespace n on n.oid = l.collnamespace
                         order by k),
                   exists (select from pg_catalog.generate_series(0, i.indnkeyatts - 1) as k
                           join pg_catalog.pg_opclass o on o.oid = i.indclass[k] and not o.opcdefault
                           where not exists (
                               select from pg_catalog.pg_opclass d
                               join pg_catalog.pg_amop his on his.amopfamily = d.opcfamily and his.amopstrategy = 3
                               join pg_catalog.pg_amop own on own.amopopr = his.amopopr and own.amopfamily = o.opcfamily and own.amopstrategy = 3
                               where d.opcmethod = o.opcmethod and d.opcintype = o.opcintype and d.opcdefault
                                 and own.amoplefttype = o.opcintype and own.amoprighttype = o.opcintype))
            from pg_catalog.pg_class c
            join pg_catalog.pg_index i on i.indexrelid = c.oid
            where c.relname = $1 and c.relnamespace = pg_catalog.pg_my_temp_schema()
            """;
        await RequireTemporaryAsync(connection, cancellationToken).ConfigureAwait(false);
        // Under the table's own name, so that expressions may name it. A default of read-only transactions is not meant for this.
        string name = SqlName.Quote(table.Name);
        string index = table.Name == "migrationsafety_probe" ? "migrationsafety_probe1" : "migrationsafety_probe";
        try
        {
            await ExecuteAsync($"begin isolation level read committed read write; create temporary table {name} (like {table.Sql}) on commit drop").ConfigureAwait(false);
            await ExecuteAsync(asked.CreateSql(index, "pg_temp." + name, concurrently: false)).ConfigureAwait(false);
            await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = index, NpgsqlDbType = NpgsqlDbType.Name } } };
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
            return IndexDefinition.Parse(reader.GetString(0)) with
            {
                Tablespace = asked.Tablespace,
                ColumnNames = reader.GetFieldValue<string[]>(1),
                Keys = reader.GetFieldValue<string[]>(2),
                Collations = reader.GetFieldValue<string?[]>(3),
                OwnEquality = reader.GetBoolean(4),
            };
        }
        catch (PostgresException e) when (e.SqlState[..2] is "42" or "0A" or "22")
        {
            MigrationException translated = ServerErrors.Translate(e, $"The index on {table.Display}", table.Display);
            string advice = e.SqlState == "42601" ? "An expression that is no function call needs parentheses of its own: -Column '(price * quantity)'." : translated.RecommendedAction;
            throw new MigrationException(
                translated.ErrorId, translated.Kind, $"The server refuses an index ({string.Join(", ", asked.Elements)}) on {table.Display}: {ServerErrors.Words(e)}", advice, e)
            {
                SqlState = e.SqlState,
                Target = table.Display,
            };
        }
        finally
        {
            if (connection.State == System.Data.ConnectionState.Open)
            {
                await using NpgsqlCommand rollback = new("rollback", connection) { CommandTimeout = 5 };
                await rollback.ExecuteNonQueryAsync(CancellationToken.None).ConfigureAwait(false);
            }
        }

        async Task ExecuteAsync(string sql)
        {
            await using NpgsqlCommand command = new(sql, connection);
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    private static async Task RequireTemporaryAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        const string Query = """
            select pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY'), pg_catalog.current_database()::text, current_user::text
            """;
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        if (!reader.GetBoolean(0))
        {
            throw new MigrationException(
                "InsufficientPrivilege",
                MigrationErrorKind.Permission,
                $"{reader.GetString(2)} may not make temporary tables in {reader.GetString(1)}, on which the server is asked what an index with expressions or options means.",
                $"Let the owner of the database run: GRANT TEMPORARY ON DATABASE {SqlName.QuoteIfNeeded(reader.GetString(1))} TO {SqlName.QuoteIfNeeded(reader.GetString(2))}.");
        }
    }

    private static async Task<IReadOnlyList<string>> ColumnsAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        const string Query = """
            select attname::text from pg_catalog.pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped order by attnum
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<string> columns = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            columns.Add(reader.GetString(0));
        }

        return columns;
    }

    /// <summary>What a text of -Column stands for: a column, or elements as SQL writes them.</summary>
    private static IEnumerable<string> Elements(string typed, IReadOnlyList<string> known, TableReference table)
    {
        if (PlainColumn(typed, known) is { } column)
        {
            return [SqlName.QuoteIfNeeded(column)];
        }

        if (PlainName(typed) is { } name)
        {
            throw NotFound(typed, name, known, table);
        }

        return new SqlReader(Statement(typed, "Column", table)).SplitAtCommas().Select(part => part.Rest());
    }

    /// <summary>A text that goes into the statement as it is; refused where it is not one piece of SQL.</summary>
    private static string? Fragment(string? text, string parameter, TableReference table) => text is null ? null : Statement(text, parameter, table).Text;

    private static SqlStatement Statement(string text, string parameter, TableReference table)
    {
        SqlScript script = SqlScript.Parse(text, psql: false);
        return script.Statements is [{ IsBroken: false, Terminated: false } one]
            ? one
            : throw new MigrationException(
                "InvalidExpression",
                MigrationErrorKind.InvalidInput,
                $"-{parameter} '{text}' is not one piece of SQL: a quotation mark or a parenthesis is not closed, or there is a semicolon in it.",
                "Write it as it stands in CREATE INDEX.")
            {
                Target = table.Display,
            };
    }

    private static string? PlainColumn(string typed, IReadOnlyList<string> known) =>
        PlainName(typed) is { } name && known.Contains(name) ? name : known.Contains(typed) ? typed : null;

    /// <summary>The column that a text names; null where it is no plain name.</summary>
    private static string? PlainName(string typed)
    {
        try
        {
            (string? qualifier, string name) = SqlName.Parse(typed);
            return qualifier is null ? name : null;
        }
        catch (MigrationException)
        {
            // Not a name: an expression, or options behind a name.
            return null;
        }
    }

    private static MigrationException NotFound(string typed, string? name, IReadOnlyList<string> known, TableReference table)
    {
        string[] alike = [.. known.Where(column => Similar(column, name ?? typed)).Take(3).Select(SqlName.QuoteIfNeeded)];
        return new MigrationException(
            "ColumnNotFound",
            MigrationErrorKind.NotFound,
            name is null ? $"'{typed}' is no column of {table.Display}; -Include takes plain column names only." : $"There is no column {SqlName.QuoteIfNeeded(name)} in {table.Display}.",
            alike.Length > 0 ? $"Did you mean {string.Join(" or ", alike)}?" : $"Its columns: {string.Join(", ", known.Take(20).Select(SqlName.QuoteIfNeeded))}{(known.Count > 20 ? " ..." : "")}.")
        {
            Target = table.Display,
        };
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
}
