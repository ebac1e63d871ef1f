using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Rollback.Proof;

/// <summary>Copies some rows of each table, and those that their foreign keys point to.</summary>
internal static class SampleRows
{
    // Rows that others point to may point on; a chain is seldom longer.
    private const int Rounds = 20;

    private const string Tables = """
        select format('%I.%I', n.nspname, c.relname),
               (select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''),
               c.relkind = 'p',
               case when not pg_catalog.has_table_privilege(c.oid, 'SELECT') then 'no privilege to read it' end
        from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'migration_safety')
          and not exists (select from pg_catalog.pg_depend e where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid and e.deptype = 'e')
        order by 1
        """;

    private const string ForeignKeys = """
        select k.conname::text, format('%I.%I', cn.nspname, c.relname), format('%I.%I', pn.nspname, p.relname),
               array(select quote_ident(a.attname) from unnest(k.conkey) with ordinality as u (num, place) join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.num order by place),
               array(select quote_ident(a.attname) from unnest(k.confkey) with ordinality as u (num, place) join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.num order by place),
               array(select format_type(a.atttypid, a.atttypmod) from unnest(k.confkey) with ordinality as u (num, place) join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.num order by place)
        from pg_catalog.pg_constraint k
        join pg_catalog.pg_class c on c.oid = k.conrelid
        join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
        join pg_catalog.pg_class p on p.oid = k.confrelid
        join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
        where k.contype = 'f' and k.conparentid = 0 and pg_catalog.pg_get_constraintdef(k.oid) !~ 'PERIOD'
        order by 1
        """;

    /// <summary>Copies rows; the tables of the target have no foreign keys and triggers yet.</summary>
    /// <returns>What could not be copied, in sentences.</returns>
    internal static async Task<IReadOnlyList<string>> CopyAsync(NpgsqlConnection source, NpgsqlConnection target, int rows, IOperationSink sink, CancellationToken cancellationToken)
    {
        List<string> notes = [];
        Dictionary<string, string> columns = [];
        foreach (object?[] table in await ReadAsync(source, Tables, cancellationToken).ConfigureAwait(false))
        {
            string name = (string)table[0]!;
            if (table[3] is string why)
            {
                notes.Add($"No rows of {name}: {why}.");
                continue;
            }

            // A table without columns has no values to lose.
            if (table[1] is not string list)
            {
                continue;
            }

            columns[name] = list;
            if (table[2] is false)
            {
                await TryCopyAsync(source, target, name, list, $"select {list} from only {name} limit {rows}", notes, sink, cancellationToken).ConfigureAwait(false);
            }
        }

        List<object?[]> keys = await ReadAsync(source, ForeignKeys, cancellationToken).ConfigureAwait(false);
        bool more = true;
        for (int round = 0; more && round < Rounds; round++)
        {
            more = false;
            foreach (object?[] key in keys.Where(k => columns.ContainsKey((string)k[1]!) && columns.ContainsKey((string)k[2]!)))
            {
                more |= await FollowAsync(source, target, key, columns, notes, sink, cancellationToken).ConfigureAwait(false);
            }
        }

        // What still points nowhere goes; and what pointed to it, until all is well.
        for (bool removed = true; removed;)
        {
            removed = false;
            foreach (object?[] key in keys.Where(k => columns.ContainsKey((string)k[1]!)))
            {
                await using NpgsqlCommand delete = new($"delete from {key[1]} as c where {Dangling(key)}", target);
                int gone = await delete.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
                if (gone > 0)
                {
                    removed = true;
                    notes.Add($"{gone} sampled rows of {key[1]} were left out: what their foreign key {SqlName.QuoteIfNeeded((string)key[0]!)} points to was not copied.");
                }
            }
        }

        return notes;
    }

    /// <summary>Fetches the rows that a foreign key's rows point to; whether there were any.</summary>
    private static async Task<bool> FollowAsync(
        NpgsqlConnection source, NpgsqlConnection target, object?[] key, Dictionary<string, string> columns, List<string> notes, IOperationSink sink, CancellationToken cancellationToken)
    {
        string[] from = (string[])key[3]!;
        string[] to = (string[])key[4]!;
        string[] types = (string[])key[5]!;
        string missing = $"select distinct {string.Join(", ", from.Select((c, i) => $"c.{c}::{types[i]}::text"))} from {key[1]} as c where {Dangling(key)}";
        List<object?[]> values = await ReadAsync(target, missing, cancellationToken).ConfigureAwait(false);
        if (values.Count == 0)
        {
            return false;
        }

        string wanted = string.Join(", ", values.Select(row => $"({string.Join(", ", row.Select((v, i) => $"{SqlName.Literal((string)v!)}::{types[i]}"))})"));
        string parent = (string)key[2]!;
        return await TryCopyAsync(source, target, parent, columns[parent], $"select {columns[parent]} from {parent} where ({string.Join(", ", to)}) in ({wanted})", notes, sink, cancellationToken).ConfigureAwait(false) > 0;
    }

    /// <summary>Rows of the child c that a parent lacks.</summary>
    private static string Dangling(object?[] key)
    {
        string[] from = (string[])key[3]!;
        string[] to = (string[])key[4]!;
        return $"{string.Join(" and ", from.Select(c => $"c.{c} is not null"))} and not exists (select from {key[2]} as p where {string.Join(" and ", from.Select((c, i) => $"p.{to[i]} = c.{c}"))})";
    }

    private static async Task<long> TryCopyAsync(
        NpgsqlConnection source, NpgsqlConnection target, string table, string columns, string query, List<string> notes, IOperationSink sink, CancellationToken cancellationToken)
    {
        sink.Debug(query);
        try
        {
            string text;
            using (TextReader reader = await source.BeginTextExportAsync($"copy ({query}) to stdout", cancellationToken).ConfigureAwait(false))
            {
                text = await reader.ReadToEndAsync(cancellationToken).ConfigureAwait(false);
            }

            TextWriter writer = await target.BeginTextImportAsync($"copy {table} ({columns}) from stdin", cancellationToken).ConfigureAwait(false);
            await using (writer.ConfigureAwait(false))
            {
                await writer.WriteAsync(text.AsMemory(), cancellationToken).ConfigureAwait(false);
            }

            return text.Count(c => c == '\n');
        }
        catch (PostgresException e) when (!cancellationToken.IsCancellationRequested)
        {
            // A row may break a constraint that was never validated.
            notes.Add($"Rows of {table} could not be copied: {ServerErrors.Words(e)}");
            return 0;
        }
    }

    internal static async Task<List<object?[]>> ReadAsync(NpgsqlConnection connection, string sql, CancellationToken cancellationToken)
    {
        await using NpgsqlBatch batch = new(connection) { BatchCommands = { new(sql) } };
        await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        List<object?[]> rows = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            object?[] row = new object?[reader.FieldCount];
            for (int i = 0; i < row.Length; i++)
            {
                row[i] = reader.IsDBNull(i) ? null : reader.GetValue(i);
            }

            rows.Add(row);
        }

        return rows;
    }
}
