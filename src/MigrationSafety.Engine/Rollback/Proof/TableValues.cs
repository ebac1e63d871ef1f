using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Rollback.Proof;

/// <summary>The values of the tables of a database, as texts, to be compared with those of another time.</summary>
internal sealed class TableValues
{
    private const string Tables = """
        select format('%I.%I', n.nspname, c.relname),
               array(select quote_ident(a.attname) from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum),
               array(select quote_ident(a.attname) from pg_catalog.pg_index i, unnest(i.indkey::int2[]) with ordinality as u (num, place) join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = u.num
                     where i.indrelid = c.oid and i.indisprimary order by place)
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind = 'r' and n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'migration_safety')
          and not exists (select from pg_catalog.pg_depend e where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid and e.deptype = 'e')
        order by 1
        """;

    private readonly Dictionary<string, Table> _tables = [];

    /// <summary>How many rows there are.</summary>
    internal long Rows => _tables.Values.Sum(t => (long)t.Rows.Count);

    /// <summary>Reads so many rows of each table; of the first by the primary key, where there is one.</summary>
    internal static async Task<TableValues> ReadAsync(NpgsqlConnection connection, int? limit, CancellationToken cancellationToken)
    {
        TableValues values = new();
        foreach (object?[] found in await SampleRows.ReadAsync(connection, Tables, cancellationToken).ConfigureAwait(false))
        {
            string[] columns = (string[])found[1]!;
            string[] key = (string[])found[2]!;
            Table table = new([.. columns.Order(StringComparer.Ordinal)], key);
            string order = key.Length == 0 ? "" : " order by " + string.Join(", ", key);
            string query = $"select {string.Join(", ", table.Columns.Select(c => c + "::text"))} from only {found[0]}{order}{(limit is { } n ? $" limit {n}" : "")}";
            foreach (object?[] row in columns.Length == 0 ? [] : await SampleRows.ReadAsync(connection, query, cancellationToken).ConfigureAwait(false))
            {
                table.Rows.Add([.. row.Select(value => (string?)value)]);
            }

            values._tables[(string)found[0]!] = table;
        }

        return values;
    }

    /// <summary>What was there before and is not now.</summary>
    internal IReadOnlyList<LostValue> LostIn(TableValues now)
    {
        List<LostValue> lost = [];
        foreach ((string name, Table before) in _tables.OrderBy(t => t.Key, StringComparer.Ordinal).Where(t => t.Value.Rows.Count > 0))
        {
            if (!now._tables.TryGetValue(name, out Table? after))
            {
                lost.Add(new LostValue { Table = name, Rows = before.Rows.Count, Sampled = before.Rows.Count });
                continue;
            }

            // Rows are told apart by their key; without one only whole rows can be compared.
            bool keyed = before.Key.Length > 0 && before.Key.All(k => after.Columns.Contains(k));
            string[] by = keyed ? before.Key : before.Columns;
            Dictionary<string, Queue<string?[]>> there = after.Rows.GroupBy(row => Text(after, row, by)).ToDictionary(g => g.Key, g => new Queue<string?[]>(g));
            long missing = 0;
            Dictionary<string, long> changed = [];
            foreach (string?[] row in before.Rows)
            {
                if (!there.TryGetValue(Text(before, row, by), out Queue<string?[]>? same) || !same.TryDequeue(out string?[]? found))
                {
                    missing++;
                    continue;
                }

                foreach (string column in before.Columns.Where(c => Value(before, row, c) != Value(after, found, c)))
                {
                    changed[column] = changed.GetValueOrDefault(column) + 1;
                }
            }

            long added = there.Values.Sum(q => (long)q.Count);
            if (missing + added > 0)
            {
                lost.Add(new LostValue { Table = name, Rows = Math.Max(missing, added), Sampled = before.Rows.Count });
            }

            lost.AddRange(changed.OrderBy(c => c.Key, StringComparer.Ordinal).Select(c => new LostValue { Table = name, Column = c.Key, Rows = c.Value, Sampled = before.Rows.Count }));
        }

        return lost;
    }

    private static string? Value(Table table, string?[] row, string column) => Array.IndexOf(table.Columns, column) is >= 0 and var place ? row[place] : null;

    private static string Text(Table table, string?[] row, string[] columns) =>
        string.Concat(columns.Select(c => Value(table, row, c) is { } value ? FormattableString.Invariant($"{value.Length}:{value}") : "-"));

    private sealed record Table(string[] Columns, string[] Key)
    {
        internal List<string?[]> Rows { get; } = [];
    }
}
