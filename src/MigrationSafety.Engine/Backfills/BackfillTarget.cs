using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>The table that rows are copied into.</summary>
/// <param name="Table">It.</param>
/// <param name="Columns">The columns that get a value, in its order, and the expression over the source that each gets.</param>
/// <param name="Key">Columns of the unique key that tells what is there already, with their types.</param>
/// <param name="Overrides">Whether a value is given for an identity column that the server alone fills otherwise.</param>
/// <param name="Sequences">The sequences of columns that get values, which do not move along: column and sequence, quoted for people.</param>
internal sealed record BackfillTarget(
    TableReference Table,
    IReadOnlyList<SetColumn> Columns,
    IReadOnlyList<KeyColumn> Key,
    bool Overrides,
    IReadOnlyList<(string Column, string Sequence)> Sequences)
{
    /// <summary>Whether it held no row when the backfill began, and no other one copied into it.</summary>
    internal bool IsEmpty { get; init; }

    /// <summary>Whether an inserted row fires triggers, those of foreign keys among them, also of one of its parts.</summary>
    internal bool HasTriggers { get; init; }

    internal string KeyText => string.Join(", ", Key.Select(column => SqlName.QuoteIfNeeded(column.Name)));

    internal string ColumnList => string.Join(", ", Columns.Select(column => SqlName.Quote(column.Name)));

    internal string KeyList => string.Join(", ", Key.Select(column => SqlName.Quote(column.Name)));

    /// <summary>Whether two rows of the source that differ in its key may be one row here: then only the first of them is copied.</summary>
    internal bool MayMerge(IEnumerable<BackfillLeaf> leaves)
    {
        HashSet<string> sources = [.. Key.Select(column => ColumnOf(Expression(column.Name))).OfType<string>()];
        return leaves.Any(leaf => leaf.Key.Count == 0 || !leaf.KeyNames.All(sources.Contains));
    }

    /// <summary>Whether a row of the source is there: for WHERE, true where it is.</summary>
    /// <remarks>The target's columns are renamed, so that a bare name in an expression is the source's.</remarks>
    internal string Exists => $"exists (select from {Renamed([.. Key.Select(column => column.Name)])} where {Match})";

    /// <summary>For RETURNING: the key of a copied row, as <see cref="IsIn"/> looks for it.</summary>
    internal string ReturnedKey => string.Join(", ", Key.Select((column, i) => $"{SqlName.Quote(column.Name)} as msb_key{i + 1}"));

    /// <summary>Whether a row of the source is among copied ones, whose <see cref="ReturnedKey"/> there is.</summary>
    internal string IsIn(string copied) => $"exists (select from (select {string.Join(", ", Key.Select((_, i) => $"msb_key{i + 1}"))} from {copied}) as msb_target where {Match})";

    /// <summary>The target with its columns under other names: <c>msb_key1</c>... those of the key, <c>msb_to1</c>... those that get values.</summary>
    internal string WithValues => Renamed([.. Key.Select(column => column.Name)], Columns);

    /// <summary>Which row of <see cref="WithValues"/> belongs to a row of the source.</summary>
    internal string Match => string.Join(" and ", Key.Select((column, i) => $"msb_key{i + 1} = (\n{Expression(column.Name)}\n)::{column.Type}"));

    internal string Expression(string column) => Columns.First(c => c.Name == column).Expression;

    /// <summary>The column that an expression is, with or without the table's name before it; null where it is more than a column.</summary>
    private static string? ColumnOf(string expression)
    {
        SqlToken[] tokens = [.. SqlLexer.Tokens(expression, psql: false)];
        return tokens.Length is 1 or 3 && tokens[^1].Kind is SqlTokenKind.Word or SqlTokenKind.QuotedName && (tokens.Length == 1 || tokens[1].Span(expression) is ".")
            ? SqlReader.NameOf(expression, tokens[^1])
            : null;
    }

    private string Renamed(IReadOnlyList<string> key, IReadOnlyList<SetColumn>? values = null) =>
        $"(select {string.Join(", ", key.Select((name, i) => $"{SqlName.Quote(name)} as msb_key{i + 1}").Concat((values ?? []).Select((column, i) => $"{SqlName.Quote(column.Name)} as msb_to{i + 1}")))} from {Table.Sql}) as msb_target";

    /// <summary>Checks against the catalog what is to be copied. Reads only.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="request">Request; its InsertInto is given.</param>
    /// <param name="source">Where the rows are.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException">What is wrong with it.</exception>
    internal static async Task<BackfillTarget> FindAsync(NpgsqlConnection connection, BackfillRequest request, TableReference source, CancellationToken cancellationToken)
    {
        TableReference table = await TableReference.FindAnyAsync(connection, request.InsertInto!, request.InsertIntoSchema, cancellationToken).ConfigureAwait(false);
        if (table.Kind is not ('r' or 'p') || table.Persistence == 't')
        {
            throw Invalid("TableKindNotSupported", MigrationErrorKind.NotSupported, table, $"{table.Display}, into which rows are to be copied, is no ordinary and no partitioned table, or a temporary one.", "Name a table that lasts and is in this database.");
        }

        if (table.Oid == source.Oid)
        {
            throw Invalid("SameTable", MigrationErrorKind.InvalidInput, table, $"{table.Display} would be copied into itself.", "Name another table with -InsertInto.");
        }

        if (await DistributedTable.LookAsync(connection, table, cancellationToken).ConfigureAwait(false) is { } distributed)
        {
            throw Invalid("TableDistributed", MigrationErrorKind.NotSupported, table, $"{table.Display} is a shard of {distributed}, which Citus distributes: not every row belongs into it.", "Copy into a table that is not distributed.");
        }

        List<Column> columns = await ReadColumnsAsync(connection, table, source, cancellationToken).ConfigureAwait(false);
        List<SetColumn> chosen = Choose(table, source, columns, request);
        if (chosen.Count == 0)
        {
            throw Invalid("SelectMissing", MigrationErrorKind.InvalidInput, table, $"{table.Display} and {source.Display} have no column of the same name, and -Select names none.", "Give -Select: @{ id = 'id'; total = 'price * quantity' }.");
        }

        if (columns.Where(column => column.IsRequired && chosen.All(c => c.Name != column.Name)).Select(column => SqlName.QuoteIfNeeded(column.Name)).ToArray() is { Length: > 0 } required)
        {
            throw Invalid(
                "ColumnMissing",
                MigrationErrorKind.InvalidInput,
                table,
                $"{string.Join(", ", required)} of {table.Display} may not be NULL, ha{(required.Length == 1 ? "s" : "ve")} no default, and get{(required.Length == 1 ? "s" : "")} no value.",
                $"Say with -Select what {(required.Length == 1 ? "it gets" : "they get")}: @{{ {required[0]} = '...' }}.");
        }

        IReadOnlyList<KeyColumn> key = await ReadKeyAsync(connection, table, [.. chosen.Select(column => column.Name)], cancellationToken).ConfigureAwait(false);
        if (key.Count == 0)
        {
            throw Invalid(
                "UniqueIndexMissing",
                MigrationErrorKind.NotSupported,
                table,
                $"{table.Display} has no unique index over NOT NULL columns that get a value here: nothing would keep a row from being copied twice when the copy is interrupted and run again.",
                "Give it a primary key, or build a unique index (Invoke-SafeIndexBuild -Unique) on NOT NULL columns, without expression and predicate, and copy these columns too.");
        }

        return new BackfillTarget(
            table,
            chosen,
            key,
            columns.Any(column => column.AlwaysIdentity && chosen.Any(c => c.Name == column.Name)),
            [.. columns.Where(column => column.Sequence is not null && chosen.Any(c => c.Name == column.Name)).Select(column => (SqlName.QuoteIfNeeded(column.Name), column.Sequence!))])
        {
            HasTriggers = await ReadHasTriggersAsync(connection, table, cancellationToken).ConfigureAwait(false),
        };
    }

    /// <summary>The same with whether it holds no row yet, and no other backfill that is not at its end copies into it.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="name">Name of the backfill that is not another one; null where there can be none.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task<BackfillTarget> LookAsync(NpgsqlConnection connection, string? name, CancellationToken cancellationToken)
    {
        string others = name is null ? "" : $" and not exists (select from {BackfillStore.Table} b where (b.into_schema, b.into_table) = ($1, $2) and b.name <> $3 and b.state <> 'completed')";
        await using NpgsqlCommand command = new($"select not exists (select from {Table.Sql}){others}", connection);
        foreach (string value in name is null ? (string[])[] : [Table.Schema, Table.Name, name])
        {
            command.Parameters.Add(new() { Value = value });
        }

        return this with { IsEmpty = (bool)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))! };
    }

    private static List<SetColumn> Choose(TableReference table, TableReference source, List<Column> columns, BackfillRequest request)
    {
        Dictionary<string, string?> given = [];
        foreach ((string name, string? expression) in request.Select)
        {
            Column column = columns.FirstOrDefault(c => c.Name == SqlName.Parse(name).Name) ?? columns.FirstOrDefault(c => c.Name == name)
                ?? throw Invalid("ColumnNotFound", MigrationErrorKind.NotFound, table, $"{table.Display} has no column {name}.", $"Its columns are {string.Join(", ", columns.Select(c => SqlName.QuoteIfNeeded(c.Name)))}; -Select has those of the table that is copied into on the left.");
            string quoted = SqlName.QuoteIfNeeded(column.Name);
            if (column.Generated)
            {
                throw Invalid("ColumnGenerated", MigrationErrorKind.InvalidInput, table, $"{quoted} of {table.Display} is a generated column: the server alone computes it.", "Leave it out of -Select.");
            }

            if (expression is not null)
            {
                BackfillDefinition.CheckFragment(table, $"The expression for {quoted}", expression);
            }

            if (!given.TryAdd(column.Name, expression?.Trim()))
            {
                throw Invalid("ColumnTwice", MigrationErrorKind.InvalidInput, table, $"{quoted} is named twice.", "Name each column once.");
            }
        }

        List<SetColumn> chosen = [];
        foreach (Column column in columns.Where(column => !column.Generated))
        {
            if (given.TryGetValue(column.Name, out string? expression))
            {
                if (expression is not null)
                {
                    chosen.Add(new SetColumn(column.Name, expression));
                }
            }
            else if (column.InSource && !request.SelectOnly)
            {
                chosen.Add(new SetColumn(column.Name, SqlName.QuoteIfNeeded(column.Name)));
            }
        }

        return chosen;
    }

    private static async Task<List<Column>> ReadColumnsAsync(NpgsqlConnection connection, TableReference table, TableReference source, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select a.attname::text, a.attgenerated <> '', a.attidentity = 'a', a.attnotnull and not a.atthasdef and a.attidentity = '' and a.attgenerated = '',
                   exists (select from pg_catalog.pg_attribute s where s.attrelid = $2 and s.attname = a.attname and s.attnum > 0 and not s.attisdropped),
                   pg_catalog.pg_get_serial_sequence($3, a.attname)
            from pg_catalog.pg_attribute a
            where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
            order by a.attnum
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = source.Oid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = table.Sql } },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<Column> columns = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            columns.Add(new Column(reader.GetString(0), reader.GetBoolean(1), reader.GetBoolean(2), reader.GetBoolean(3), reader.GetBoolean(4), reader.Text(5)));
        }

        return columns;
    }

    private static async Task<bool> ReadHasTriggersAsync(NpgsqlConnection connection, TableReference table, CancellationToken cancellationToken)
    {
        // Of insertions: 4.
        const string Query = """
            with recursive tree as (
                select $1::oid as oid
                union
                select i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid
            )
            select exists (select from tree join pg_catalog.pg_trigger g on g.tgrelid = tree.oid where g.tgenabled <> 'D' and g.tgtype & 4 <> 0)
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid } } };
        return (bool)(await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!;
    }

    /// <summary>The key by which the server tells that a row is there: of the unique indexes one that takes no NULL, the primary key first; none WITHOUT OVERLAPS, which ON CONFLICT does not know.</summary>
    private static async Task<IReadOnlyList<KeyColumn>> ReadKeyAsync(NpgsqlConnection connection, TableReference table, string[] chosen, CancellationToken cancellationToken)
    {
        const string Query = $"""
            select u.columns, u.types
            from pg_catalog.pg_index x
            cross join lateral (
                select pg_catalog.array_agg(a.attname::text order by i) as columns, pg_catalog.array_agg(pg_catalog.format_type(a.atttypid, -1) order by i) as types,
                       pg_catalog.bool_and({BackfillDefinition.NotNull} and a.attname = any ($2)) as fits, pg_catalog.count(*) as found
                from pg_catalog.generate_series(0, x.indnkeyatts - 1) as i
                join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = (x.indkey::int2[])[i]
            ) u
            where x.indrelid = $1 and x.indisunique and not x.indisexclusion and x.indimmediate and x.indisvalid and x.indisready and x.indislive and x.indpred is null and x.indexprs is null
              and u.found = x.indnkeyatts and u.fits
            order by x.indisprimary desc, x.indnkeyatts, x.indexrelid
            limit 1
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = table.Oid, NpgsqlDbType = NpgsqlDbType.Oid }, new() { Value = chosen } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? [.. reader.GetFieldValue<string[]>(0).Zip(reader.GetFieldValue<string[]>(1), (name, type) => new KeyColumn(name, type))]
            : [];
    }

    private static MigrationException Invalid(string id, MigrationErrorKind kind, TableReference table, string message, string advice) => new(id, kind, message, advice) { Target = table.Display };

    /// <summary>A column as the catalog has it.</summary>
    private sealed record Column(string Name, bool Generated, bool AlwaysIdentity, bool IsRequired, bool InSource, string? Sequence);
}
