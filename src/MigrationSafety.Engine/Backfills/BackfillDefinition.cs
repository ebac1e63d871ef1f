using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A column that is set.</summary>
/// <param name="Name">Name, as in the catalog.</param>
/// <param name="Expression">SQL expression.</param>
internal sealed record SetColumn(string Name, string Expression);

/// <summary>What becomes of the rows that match.</summary>
internal enum BackfillKind
{
    /// <summary>Columns are set.</summary>
    Update,

    /// <summary>They are deleted.</summary>
    Delete,

    /// <summary>They are copied into another table.</summary>
    Insert,
}

/// <summary>A backfill, checked against the catalog.</summary>
/// <param name="Name">Name under which it is recorded.</param>
/// <param name="Table">Table that was named.</param>
/// <param name="Leaves">The tables that hold its rows: itself where it has no children.</param>
/// <param name="Set">Columns that are set.</param>
/// <param name="Where">Which rows.</param>
/// <param name="IsDefaultWhere">Whether that is "a column is NULL".</param>
/// <param name="Reason">Why it walks as it does, in words.</param>
internal sealed record BackfillDefinition(
    string Name,
    TableReference Table,
    IReadOnlyList<BackfillLeaf> Leaves,
    IReadOnlyList<SetColumn> Set,
    string Where,
    bool IsDefaultWhere,
    string Reason)
{
    /// <summary>The reason where it was not chosen but asked for.</summary>
    internal const string AsAsked = "as asked for with -Strategy";

    // 32 MB: long enough that whoever could see the rows' old versions is mostly gone, and for batches that are worth their checkpoint. What of it does not stay in small shared_buffers
    // comes back from the operating system in order, which costs less than short batches do.
    private const long LeastStretch = 4096;

    // 32 MB, about what processors keep of an index.
    private const long CachedBlocks = 4096;

    /// <summary>What becomes of the rows.</summary>
    internal BackfillKind Kind { get; init; }

    /// <summary>The table that rows are copied into; null where they are changed in place.</summary>
    internal BackfillTarget? Into { get; init; }

    /// <summary>The name of the table of which it is a shard, which expressions know it by; null where it is none.</summary>
    internal string? ShardOf { get; init; }

    /// <summary>The columns of the table itself that change.</summary>
    internal string[] ChangedColumns => Kind == BackfillKind.Update ? [.. Set.Select(column => column.Name)] : [];

    /// <summary>Whether its condition is that a column is NULL where none can be: it is not begun, but one that was begun before the column was made NOT NULL may be resumed and tested.</summary>
    internal bool CannotMatch { get; init; }

    /// <summary>Whether the role may pause within a batch; otherwise it rests between batches.</summary>
    internal bool MayPause { get; init; } = true;

    /// <summary>Another table, as in FROM, that condition and expressions look into; null for none.</summary>
    internal string? From { get; init; }

    /// <summary>Where what is overwritten or deleted is kept; null where it is not.</summary>
    internal BackfillArchive? Archive { get; init; }

    /// <summary>What is done to which rows, as one statement for people and for comparing.</summary>
    internal string Statement => Text(Kind, Table.Schema, Table.Name, Set, From, Where, Into?.Table.Display);

    /// <summary>Whether no row holds NULL in the column <c>a</c>; from 18 on the constraint that attnotnull tells of may not be valid yet.</summary>
    internal const string NotNull = """
        (a.attnotnull and not exists (select from pg_catalog.pg_constraint nn
                                      where nn.conrelid = a.attrelid and nn.contype = 'n' and not nn.convalidated and nn.conkey = array[a.attnum]))
        """;

    internal BackfillStrategy Strategy => Leaves.Count > 0 && Leaves.All(leaf => leaf.ByKey) ? BackfillStrategy.Key : BackfillStrategy.Block;

    /// <summary>Whether the table stands for others: partitions or children.</summary>
    internal bool IsTree => Leaves.Count != 1 || Leaves[0].Table.Oid != Table.Oid;

    internal long Blocks => Leaves.Sum(leaf => leaf.Blocks);

    /// <summary>What keeps rows from being left to do, as the middle of a sentence.</summary>
    internal string Remedy => Kind switch
    {
        BackfillKind.Insert => "have the application or a trigger write to both tables",
        BackfillKind.Delete => "see to it that the application makes no such rows any more",
        _ => "have the application, a default or a trigger fill such rows",
    };

    /// <summary>The SET list for people and for comparing.</summary>
    internal string SetText => Text(Set);

    internal static string Text(BackfillKind kind, string schema, string table, IReadOnlyList<SetColumn> set, string? from, string where, string? into)
    {
        string name = $"{SqlName.QuoteIfNeeded(schema)}.{SqlName.QuoteIfNeeded(table)}";
        return kind switch
        {
            BackfillKind.Delete => $"DELETE FROM {name}{(from is null ? "" : $" USING {from}")} WHERE {where}",
            BackfillKind.Insert => $"INSERT INTO {Copy(into, set)} FROM {name} WHERE {where}",
            _ => $"UPDATE {name} SET {Text(set)}{(from is null ? "" : $" FROM {from}")} WHERE {where}",
        };
    }

    /// <summary>What is copied where, for people: <c>public.new (id, total) SELECT id, price * quantity</c>.</summary>
    internal static string Copy(string? into, IReadOnlyList<SetColumn> set) =>
        $"{into} ({string.Join(", ", set.Select(column => SqlName.QuoteIfNeeded(column.Name)))}) SELECT {string.Join(", ", set.Select(column => column.Expression))}";

    internal static string Text(IEnumerable<SetColumn> set) => string.Join(", ", set.Select(column => $"{SqlName.QuoteIfNeeded(column.Name)} = {column.Expression}"));

    /// <summary>Checks a request against the catalog. Reads only.</summary>
    /// <exception cref="MigrationException">What is wrong with it.</exception>
    internal static async Task<BackfillDefinition> FindAsync(NpgsqlConnection connection, BackfillRequest request, CancellationToken cancellationToken)
    {
        TableReference table = await TableReference.FindAnyAsync(connection, request.Table, request.Schema, cancellationToken).ConfigureAwait(false);
        if (table.Kind != 'p' || table.Persistence == 't')
        {
            table = await TableReference.FindAsync(connection, request.Table, request.Schema, cancellationToken).ConfigureAwait(false);
        }

        string? shardOf = await DistributedTable.LookAsync(connection, table, cancellationToken).ConfigureAwait(false);
        if (request.InsertInto is not null && (request.Delete || request.Set.Count > 0 || request.From is not null || request.KeepOldValues))
        {
            throw Invalid("InsertAndMore", table, "Rows are to be copied into another table, and to be changed or deleted as well, or to be joined.", "Give -InsertInto with -Select and -Where alone; an expression may look elsewhere by a subquery.");
        }

        if (request.InsertInto is null && (request.Delete ? request.Set.Count > 0 : request.Set.Count == 0))
        {
            throw request.Delete
                ? Invalid("SetAndDelete", table, "Columns are named that are to be set, and the rows are to be deleted.", "Give either -Set or -Delete.")
                : Invalid("SetMissing", table, "No column is named that is to be set.", "Name at least one column and its SQL expression, such as tier = 'standard'.");
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

        string? where = request.Where?.Trim();
        if (where is { Length: 0 })
        {
            throw Invalid("WhereEmpty", table, "The condition is empty.", "Leave -Where out for the rows in which a column is NULL, or give a condition.");
        }

        if (where is not null)
        {
            CheckFragment(table, "The condition", where);
        }

        string? from = request.From?.Trim();
        if (from is not null)
        {
            CheckFragment(table, "-From", from);
        }

        if (where is null && (request.Delete || from is { Length: > 0 }))
        {
            throw Invalid(
                "WhereMissing",
                table,
                request.Delete ? "Without -Where every row would be deleted." : $"Without -Where nothing says which row of {from} belongs to which row of {table.Display}.",
                request.Delete
                    ? "Give -Where with a condition; TRUNCATE empties a table at once."
                    : $"Give -Where with the join and with a condition that the update makes untrue, such as: {SqlName.QuoteIfNeeded(table.Name)}.customer_id = c.id and {SqlName.QuoteIfNeeded(table.Name)}.tier is null.");
        }

        if (request.InsertInto is not null)
        {
            BackfillTarget into = await BackfillTarget.FindAsync(connection, request, table, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<BackfillLeaf> sources = await BackfillLeaf.ReadAsync(connection, table.Oid, [], cancellationToken).ConfigureAwait(false);
            if (sources.Any(leaf => leaf.Table.Oid == into.Table.Oid))
            {
                throw Invalid("SameTable", table, $"{into.Table.Display} is a part of {table.Display}: it would be copied into itself.", "Name another table with -InsertInto.");
            }

            string copy = into.Table.Schema == table.Schema ? SqlName.QuoteIfNeeded(into.Table.Name) : into.Table.Display;
            return new BackfillDefinition(request.Name ?? $"{table.Display}.into.{copy}", table, sources, into.Columns, where ?? "true", where is null, "")
            {
                Kind = BackfillKind.Insert,
                Into = into,
                ShardOf = shardOf,
            }.Choose(request.Strategy);
        }

        IReadOnlyList<BackfillLeaf> leaves = await BackfillLeaf.ReadAsync(connection, table.Oid, [.. set.Select(column => column.Name)], cancellationToken).ConfigureAwait(false);
        BackfillDefinition definition = new(
            request.Name ?? $"{table.Display}.{(request.Delete ? "delete" : string.Join(",", targets.Select(column => SqlName.QuoteIfNeeded(column.Name))))}",
            table,
            leaves,
            set,
            where ?? string.Join(" or ", targets.Select(column => SqlName.Quote(column.Name) + " is null")),
            where is null,
            "")
        {
            Kind = request.Delete ? BackfillKind.Delete : BackfillKind.Update,
            CannotMatch = where is null && targets.All(column => column.NotNull),
            From = from is { Length: > 0 } ? from : null,
            ShardOf = shardOf,
        };
        return (request.KeepOldValues ? definition with { Archive = await BackfillArchive.FindAsync(connection, definition, cancellationToken).ConfigureAwait(false) } : definition).Choose(request.Strategy);
    }

    /// <summary>Refuses to begin one that has nothing to do.</summary>
    /// <exception cref="MigrationException"><c>WhereMissing</c>.</exception>
    internal void RefuseUnmatchable()
    {
        if (CannotMatch)
        {
            throw Invalid(
                "WhereMissing",
                Table,
                $"{string.Join(", ", Set.Select(column => SqlName.QuoteIfNeeded(column.Name)))} cannot be NULL, so that without -Where no row is to be set.",
                "Give -Where with a condition that is true for the rows to be set, and no longer true when they are.");
        }
    }

    /// <summary>Chooses how it walks.</summary>
    /// <exception cref="MigrationException"><c>UniqueIndexMissing</c>, <c>StrategyNotPossible</c>.</exception>
    internal BackfillDefinition Choose(BackfillStrategy asked)
    {
        List<BackfillLeaf> chosen = [];
        foreach (BackfillLeaf leaf in Leaves)
        {
            bool byKey = asked == BackfillStrategy.Key || (asked == BackfillStrategy.Auto && !leaf.IsHeap);
            if (asked == BackfillStrategy.Block && !leaf.IsHeap)
            {
                throw new MigrationException(
                    "StrategyNotPossible",
                    MigrationErrorKind.NotSupported,
                    $"{leaf.Table.Display} is kept by the access method {leaf.AccessMethod}, whose rows need not lie in blocks as those of a heap do.",
                    "Leave -Strategy out, or give -Strategy Key.")
                {
                    Target = leaf.Table.Display,
                };
            }

            if (byKey && leaf.Key.Count == 0)
            {
                throw new MigrationException(
                    "UniqueIndexMissing",
                    MigrationErrorKind.NotSupported,
                    $"{leaf.Table.Display} has no unique B-tree index over NOT NULL columns that this backfill does not set, along which the batches could go.",
                    leaf.IsHeap
                        ? "Leave -Strategy out: by blocks it needs no key. Or give the table one without blocking anybody: Invoke-SafeIndexBuild -Unique on columns that are NOT NULL."
                        : "Give the table one without blocking anybody: Invoke-SafeIndexBuild -Unique on columns that are NOT NULL.")
                {
                    Target = leaf.Table.Display,
                };
            }

            chosen.Add(leaf with { ByKey = byKey });
        }

        string reason = (asked, chosen) switch
        {
            (not BackfillStrategy.Auto, _) => AsAsked,
            (_, []) => "no part of the table holds rows",
            _ when chosen.All(leaf => !leaf.ByKey) => "the table is a heap, so that its blocks can be read one after the other, each once, whatever keys it has",
            _ when chosen.All(leaf => leaf.ByKey) => $"the access method {chosen[0].AccessMethod} need not keep rows in blocks, so that the order is that of a unique index",
            _ => "parts that are heaps by blocks, the others along a unique index",
        };
        return this with { Leaves = chosen, Reason = reason };
    }

    /// <summary>Lets the blocks of heaps be done in turns where that keeps rows in them: where many rows of a block are to change, and no index looks at what is set.</summary>
    /// <param name="sample">What some blocks hold.</param>
    /// <param name="buffers">The server's shared_buffers, in blocks.</param>
    /// <param name="scattered">By table, its indexes for which a row that moves means a page anywhere.</param>
    /// <param name="workers">Workers, each of which is at a stretch of its own.</param>
    internal BackfillDefinition InTurns(BackfillSample sample, long buffers, IReadOnlyDictionary<uint, ScatteredIndexes> scattered, int workers)
    {
        // A quarter of the buffers for all workers: the rest is the application's, and holds the indexes' pages.
        long stretch = Math.Clamp(buffers / 4 / workers, LeastStretch, BackfillLeaf.MostStretch);
        BackfillLeaf InTurns(BackfillLeaf leaf)
        {
            ScatteredIndexes? indexes = scattered.GetValueOrDefault(leaf.Table.Oid);
            // Of 1,000,000 rows, all of which changed, 60 % stayed in their block with four turns, 73 % with eight, which look at every block twice as often: that pays where each row
            // that moves brings pages of indexes from the disk or from beyond the processor's caches.
            int most = indexes?.Blocks > Math.Min(buffers / 2, CachedBlocks) ? 8 : 4;
            double share = sample.ShareWhereAny(leaf.Table.Oid);
            int turns = leaf.ByKey || leaf.ChangesIndex || Kind != BackfillKind.Update || share <= BackfillLeaf.LeastShareInTurns ? 1 : share > 2 * BackfillLeaf.LeastShareInTurns ? most : most / 2;
            return leaf with { Slices = turns, Stretch = stretch, TurnsBy = turns > 1 ? indexes?.Column : null };
        }

        return this with { Leaves = [.. Leaves.Select(InTurns)] };
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

        if (column.InPartitionKey)
        {
            throw Invalid(
                "PartitionKeySet",
                table,
                $"{name} belongs to the partition key of {table.Display} or of one of its partitions; a change of it would move rows from partition to partition.",
                "Move such rows with statements of your own, in small transactions.");
        }
    }

    /// <summary>What stands in our parentheses must stay in them: the server cannot tell where a fragment ends.</summary>
    internal static void CheckFragment(TableReference table, string what, string sql)
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
        const string Query = $"""
            with recursive tree as (
                select $1::oid as oid
                union
                select i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.oid
            )
            select a.attname::text, {NotNull}, a.attgenerated <> '' or a.attidentity = 'a',
                   exists (select from tree
                           join pg_catalog.pg_partitioned_table p on p.partrelid = tree.oid
                           join pg_catalog.pg_attribute k on k.attrelid = p.partrelid and k.attnum = any (p.partattrs::int2[])
                           where k.attname = a.attname)
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
            columns.Add(new Column(reader.GetString(0), reader.GetBoolean(1), reader.GetBoolean(2), reader.GetBoolean(3)));
        }

        return columns;
    }

    /// <summary>A column as the catalog has it.</summary>
    private sealed record Column(string Name, bool NotNull, bool Generated, bool InPartitionKey);
}
