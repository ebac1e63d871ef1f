using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A column of the primary key.</summary>
/// <param name="Name">Name, as in the catalog.</param>
/// <param name="Type">Type, as a cast writes it.</param>
internal sealed record KeyColumn(string Name, string Type);

/// <summary>A column that is set.</summary>
/// <param name="Name">Name, as in the catalog.</param>
/// <param name="Expression">SQL expression.</param>
internal sealed record SetColumn(string Name, string Expression);

/// <summary>A backfill, checked against the catalog.</summary>
/// <param name="Name">Name under which it is recorded.</param>
/// <param name="Table">Table.</param>
/// <param name="Key">Columns of the primary key, in its order.</param>
/// <param name="Set">Columns that are set.</param>
/// <param name="Where">Which rows.</param>
/// <param name="IsDefaultWhere">Whether that is "a column is NULL".</param>
/// <param name="ChangesUniqueKey">Whether a unique index holds a column that is set: then the update locks its rows as a delete does.</param>
internal sealed record BackfillDefinition(
    string Name,
    TableReference Table,
    IReadOnlyList<KeyColumn> Key,
    IReadOnlyList<SetColumn> Set,
    string Where,
    bool IsDefaultWhere,
    bool ChangesUniqueKey)
{
    /// <summary>The SET list for people and for comparing.</summary>
    internal string SetText => string.Join(", ", Set.Select(column => $"{SqlName.QuoteIfNeeded(column.Name)} = {column.Expression}"));

    internal string[] KeyNames => [.. Key.Select(column => column.Name)];

    /// <summary>Checks a request against the catalog. Reads only.</summary>
    /// <exception cref="MigrationException">What is wrong with it.</exception>
    internal static async Task<BackfillDefinition> FindAsync(NpgsqlConnection connection, BackfillRequest request, CancellationToken cancellationToken)
    {
        TableReference table = await TableReference.FindAsync(connection, request.Table, request.Schema, cancellationToken).ConfigureAwait(false);
        await using (NpgsqlCommand children = new("select exists (select from pg_catalog.pg_inherits where inhparent = $1)", connection)
        {
            Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid } },
        })
        {
            if ((bool)(await children.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!)
            {
                throw new MigrationException(
                    "TableKindNotSupported", MigrationErrorKind.NotSupported, $"{table.Display} has child tables, which inherit from it.", "Name a table without children; the children one by one.")
                {
                    Target = table.Display,
                };
            }
        }

        if (request.Set.Count == 0)
        {
            throw Invalid("SetMissing", table, "No column is named that is to be set.", "Name at least one column and its SQL expression, such as tier = 'standard'.");
        }

        IReadOnlyList<Column> columns = await ReadColumnsAsync(connection, table, cancellationToken).ConfigureAwait(false);
        List<SetColumn> set = [];
        List<Column> targets = [];
        foreach ((string name, string expression) in request.Set)
        {
            Column column = Find(columns, table, name);
            Check(column, table, expression, targets);
            targets.Add(column);
            set.Add(new SetColumn(column.Name, expression.Trim()));
        }

        KeyColumn[] key = [.. columns.Where(column => column.KeyPosition > 0).OrderBy(column => column.KeyPosition).Select(column => new KeyColumn(column.Name, column.Type))];
        if (key.Length == 0)
        {
            throw new MigrationException(
                "PrimaryKeyMissing",
                MigrationErrorKind.NotSupported,
                $"{table.Display} has no primary key (one with a B-tree index), along which the batches could go.",
                "Give it one without blocking anybody: Invoke-SafeIndexBuild -Unique on columns that are NOT NULL, then ALTER TABLE ... ADD PRIMARY KEY USING INDEX.")
            {
                Target = table.Display,
            };
        }

        string? where = request.Where?.Trim();
        if (where is { Length: 0 })
        {
            throw Invalid("WhereEmpty", table, "The condition is empty.", "Leave -Where out for the rows in which a column is NULL, or give a condition.");
        }

        if (where is not null)
        {
            CheckFragment(table, "The condition", where);
        }

        if (where is null && targets.All(column => column.NotNull))
        {
            throw Invalid(
                "WhereMissing",
                table,
                $"{string.Join(", ", targets.Select(column => SqlName.QuoteIfNeeded(column.Name)))} cannot be NULL, so that without -Where no row is to be set.",
                "Give -Where with a condition that is true for the rows to be set, and no longer true when they are.");
        }

        return new BackfillDefinition(
            request.Name ?? $"{table.Display}.{string.Join(",", targets.Select(column => SqlName.QuoteIfNeeded(column.Name)))}",
            table,
            key,
            set,
            where ?? string.Join(" or ", targets.Select(column => SqlName.Quote(column.Name) + " is null")),
            where is null,
            targets.Any(column => column.InUniqueIndex));
    }

    private static Column Find(IReadOnlyList<Column> columns, TableReference table, string given)
    {
        (string? qualifier, string name) = SqlName.Parse(given);
        // The text as it stands is looked for as well, as for tables.
        Column? column = qualifier is null
            ? columns.FirstOrDefault(c => c.Name == name) ?? columns.FirstOrDefault(c => c.Name == given)
            : null;
        if (column is not null)
        {
            return column;
        }

        string[] alike = [.. columns.Where(c => string.Equals(c.Name, given.Trim('"', ' '), StringComparison.OrdinalIgnoreCase)).Select(c => SqlName.QuoteIfNeeded(c.Name))];
        throw new MigrationException(
            "ColumnNotFound",
            MigrationErrorKind.NotFound,
            $"{table.Display} has no column {given}.",
            alike.Length > 0 ? $"Did you mean {string.Join(" or ", alike)}?" : $"Its columns are {string.Join(", ", columns.Select(c => SqlName.QuoteIfNeeded(c.Name)))}.")
        {
            Target = table.Display,
        };
    }

    private static void Check(Column column, TableReference table, string expression, List<Column> before)
    {
        string name = SqlName.QuoteIfNeeded(column.Name);
        if (string.IsNullOrWhiteSpace(expression))
        {
            throw Invalid("ExpressionEmpty", table, $"The expression for {name} is empty.", "Give an SQL expression; a text needs its own quotation marks: tier = \"'standard'\".");
        }

        CheckFragment(table, $"The expression for {name}", expression);
        if (before.Contains(column))
        {
            throw Invalid("ColumnTwice", table, $"{name} is set twice.", "Name each column once.");
        }

        if (column.Generated)
        {
            throw Invalid("ColumnGenerated", table, $"{name} of {table.Display} is a generated column: the server alone computes it.", "Set the columns that it is computed from.");
        }

        if (column.KeyPosition > 0)
        {
            throw Invalid(
                "KeyColumnSet",
                table,
                $"{name} belongs to the primary key of {table.Display}, along which the batches go; a change of it would make them lose their way.",
                "Fill a new column, and make that one the primary key afterwards.");
        }
    }

    /// <summary>What stands in our parentheses must stay in them: the server cannot tell where a fragment ends.</summary>
    private static void CheckFragment(TableReference table, string what, string sql)
    {
        int depth = 0;
        foreach (SqlToken token in SqlLexer.Tokens(sql, psql: false))
        {
            depth += token.Kind != SqlTokenKind.Punctuation ? 0 : token.Span(sql) switch { "(" => 1, ")" => -1, _ => 0 };
            string? flaw = token.Kind switch
            {
                SqlTokenKind.Semicolon => "holds a semicolon",
                SqlTokenKind.Parameter => $"holds a parameter, {token.Span(sql)}",
                SqlTokenKind.Unclosed => "holds a text, a name or a comment that is not closed",
                SqlTokenKind.Punctuation when depth < 0 => "closes a parenthesis that it does not open",
                _ => null,
            };
            if (flaw is not null)
            {
                throw Invalid("SyntaxError", table, $"{what} {flaw}: {sql}", "Give one complete SQL expression.");
            }
        }

        if (depth > 0)
        {
            throw Invalid("SyntaxError", table, $"{what} does not close a parenthesis: {sql}", "Give one complete SQL expression.");
        }
    }

    private static MigrationException Invalid(string id, TableReference table, string message, string advice) =>
        new(id, MigrationErrorKind.InvalidInput, message, advice) { Target = table.Display };

    private static async Task<IReadOnlyList<Column>> ReadColumnsAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        // A primary key WITHOUT OVERLAPS (18) has a GiST index, which knows no order: not one for us.
        const string Query = """
            select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> '' or a.attidentity = 'a',
                   coalesce((select pg_catalog.array_position(x.indkey::int2[], a.attnum) + 1
                             from pg_catalog.pg_index x
                             join pg_catalog.pg_class i on i.oid = x.indexrelid
                             join pg_catalog.pg_am m on m.oid = i.relam
                             where x.indrelid = a.attrelid and x.indisprimary and m.amname = 'btree'
                               and a.attnum = any ((x.indkey::int2[])[0:x.indnkeyatts - 1])), 0),
                   exists (select from pg_catalog.pg_index x where x.indrelid = a.attrelid and x.indisunique and a.attnum = any (x.indkey::int2[]))
            from pg_catalog.pg_attribute a
            where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
            order by a.attnum
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Oid } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<Column> columns = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            columns.Add(new Column(reader.GetString(0), reader.GetString(1), reader.GetBoolean(2), reader.GetBoolean(3), reader.GetInt32(4), reader.GetBoolean(5)));
        }

        return columns;
    }

    /// <summary>A column as the catalog has it; its position in the primary key from 1, 0 where it is not in it.</summary>
    private sealed record Column(string Name, string Type, bool NotNull, bool Generated, int KeyPosition, bool InUniqueIndex);
}
