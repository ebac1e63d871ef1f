using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Names;

/// <summary>The names of a database, for completion.</summary>
public static class LiveNames
{
    // $1 is the prefix in lower case; $2 the schema, $3 the table that were named. No more than 500: a longer list is no help, and the next letter shortens it.
    // A name matches as it is, as SQL writes it, and with its schema.
    private const string Relations = """
        with relation as (
            select c.oid, c.relkind, c.relispartition, c.relpages, c.reltuples, n.nspname, c.relname,
                   $2::text is null and pg_catalog.pg_table_is_visible(c.oid) as visible
            from pg_catalog.pg_class c
            join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'migration_safety') and ($2::text is null or n.nspname = $2)
              and (pg_catalog.starts_with(pg_catalog.lower(c.relname), $1) or pg_catalog.starts_with(pg_catalog.lower(pg_catalog.quote_ident(c.relname)), $1)
                   or pg_catalog.starts_with(pg_catalog.lower(n.nspname || '.' || c.relname), $1)
                   or pg_catalog.starts_with(pg_catalog.lower(pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)), $1))
        )
        """;

    private const string Tables = Relations + """

        select case when not visible and $2::text is null then nspname::text end, relname::text,
               case relkind when 'p' then 'partitioned table' when 'm' then 'materialized view' else 'table' end || ' ' || nspname
                   || case when reltuples > 0 then ', about ' || pg_catalog.to_char(reltuples, 'FM999,999,999,999,990') || ' rows' else '' end
        from relation
        where relkind in ('r', 'p', 'm')
        order by relispartition, not visible, nspname, relname
        limit 500
        """;

    private const string Indexes = Relations + """

        select case when not visible and $2::text is null then nspname::text end, r.relname::text,
               case when x.indisvalid then '' else 'not valid: ' end || pg_catalog.pg_get_indexdef(r.oid)
        from relation r
        join pg_catalog.pg_index x on x.indexrelid = r.oid
        where r.relkind in ('i', 'I') and ($3::text is null or x.indrelid = pg_catalog.to_regclass($3))
        order by r.relispartition, not r.visible, r.nspname, r.relname
        limit 500
        """;

    private const string Schemas = """
        select null::text, n.nspname::text, 'schema'
        from pg_catalog.pg_namespace n
        where n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'migration_safety')
          and (pg_catalog.starts_with(pg_catalog.lower(n.nspname), $1) or pg_catalog.starts_with(pg_catalog.lower(pg_catalog.quote_ident(n.nspname)), $1))
        order by n.nspname
        limit 500
        """;

    private const string Columns = """
        select null::text, a.attname::text,
               pg_catalog.format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
        from pg_catalog.pg_attribute a
        where a.attrelid = pg_catalog.to_regclass($3) and a.attnum > 0 and not a.attisdropped
          and (pg_catalog.starts_with(pg_catalog.lower(a.attname), $1) or pg_catalog.starts_with(pg_catalog.lower(pg_catalog.quote_ident(a.attname)), $1))
        order by a.attnum
        limit 500
        """;

    // A backfill's name is a text, not an identifier.
    private const string Backfills = """
        select null::text, b.name, b.state
        from migration_safety.backfill b
        where pg_catalog.starts_with(pg_catalog.lower(b.name), $1)
        order by b.name
        limit 500
        """;

    /// <summary>Finds names.</summary>
    /// <param name="session">Session.</param>
    /// <param name="request">Which ones.</param>
    /// <param name="patience">How long the server may look for them.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The names, at most 500; none where what is asked for does not exist.</returns>
    /// <exception cref="MigrationException">Why they cannot be read.</exception>
    public static async Task<IReadOnlyList<LiveName>> FindAsync(
        EngineSession session, LiveNameRequest request, TimeSpan patience, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        string? schema = request.Schema is null ? null : SqlName.Parse(request.Schema).Name;
        string? table = request.Table is null ? null : Qualified(request.Table, schema);
        string sql = request.Kind switch
        {
            LiveNameKind.Table => Tables,
            LiveNameKind.Schema => Schemas,
            LiveNameKind.Column => Columns,
            LiveNameKind.Index => Indexes,
            _ => Backfills,
        };
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("completion", sink, cancellationToken).ConfigureAwait(false);
            await using NpgsqlBatch batch = new(connection)
            {
                BatchCommands =
                {
                    new("select pg_catalog.set_config('statement_timeout', $1, false)") { Parameters = { new() { Value = $"{(int)patience.TotalMilliseconds}ms" } } },
                    new(sql)
                    {
                        Parameters =
                        {
                            new() { Value = request.Prefix.ToLowerInvariant() },
                            new() { Value = (object?)(table is null ? schema : null) ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text },
                            new() { Value = (object?)table ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text },
                        },
                    },
                },
            };
            await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
            List<LiveName> names = [];
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                if (reader.IsDBNull(2))
                {
                    // An index that was dropped since the snapshot.
                    continue;
                }

                string name = reader.GetString(1);
                string text = request.Kind == LiveNameKind.Backfill ? name : SqlName.QuoteIfNeeded(name);
                names.Add(new LiveName(reader.IsDBNull(0) ? text : $"{SqlName.QuoteIfNeeded(reader.GetString(0))}.{text}", reader.GetString(2)));
            }

            return names;
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.UndefinedTable or SqlStates.UndefinedColumn)
        {
            // No backfill was ever recorded here.
            return [];
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, "Looking for names", session.Info.ToString());
        }
    }

    private static string Qualified(string table, string? schema)
    {
        (string? own, string name) = SqlName.Parse(table);
        return (own ?? schema) is { } found ? SqlName.Quote(found, name) : SqlName.Quote(name);
    }
}
