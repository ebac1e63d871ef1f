namespace MigrationSafety.Sandbox;

/// <summary>What the catalog says: the schema as text, to compare, and what of ours should not be there.</summary>
internal static class SchemaState
{
    /// <summary>Every column, index, constraint and trigger outside PostgreSQL's and our own schemas, a line each.</summary>
    internal static Task<IReadOnlyList<string>> ReadAsync(Shop shop, CancellationToken cancellationToken) => shop.LinesAsync(
        """
        with mine as (
            select c.oid, c.relname, n.nspname
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname not in ('pg_catalog', 'information_schema', 'migration_safety') and n.nspname not like 'pg\_t%'
        )
        select format('relation %s.%s of kind %s, options %s, privileges %s', m.nspname, m.relname, c.relkind, c.reloptions, c.relacl) as line
        from mine m join pg_class c on c.oid = m.oid
        union all
        select format('column %s.%s.%s %s not null %s default %s', m.nspname, m.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
        from mine m join pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        union all
        select format('index %s valid %s ready %s', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready) from mine m join pg_index i on i.indrelid = m.oid
        union all
        select format('constraint %s on %s.%s %s', k.conname, m.nspname, m.relname, pg_get_constraintdef(k.oid)) from mine m join pg_constraint k on k.conrelid = m.oid
        union all
        select format('trigger %s', pg_get_triggerdef(t.oid)) from mine m join pg_trigger t on t.tgrelid = m.oid and not t.tgisinternal
        order by line
        """,
        cancellationToken);

    /// <summary>Indexes that no query may use, in words.</summary>
    internal static Task<IReadOnlyList<string>> InvalidIndexesAsync(Shop shop, CancellationToken cancellationToken) =>
        shop.LinesAsync("select format('the index %s is not valid', indexrelid::regclass) from pg_index where not (indisvalid and indisready and indislive)", cancellationToken);

    /// <summary>What an operation of ours left that should not be there, in words; the state schema of ours is no leftover.</summary>
    internal static async Task<IReadOnlyList<string>> LeftoversAsync(Shop shop, CancellationToken cancellationToken)
    {
        List<string> leftovers =
        [
            .. await InvalidIndexesAsync(shop, cancellationToken),
            .. await shop.LinesAsync("select format('an advisory lock of ours is held by pid %s', pid) from pg_locks where locktype = 'advisory' and classid = x'4D695361'::int::oid", cancellationToken),
            .. await shop.LinesAsync("select format('a session of ours is open: %s, pid %s, %s', application_name, pid, left(query, 100)) from pg_stat_activity where application_name like 'MigrationSafety/%'", cancellationToken),
        ];
        if (await shop.ScalarAsync<bool>("select to_regclass('migration_safety.backfill') is not null", cancellationToken))
        {
            leftovers.AddRange(await shop.LinesAsync("select format('the backfill %s is recorded as %s', name, state) from migration_safety.backfill where state <> 'completed'", cancellationToken));
        }

        return leftovers;
    }

    /// <summary>As <see cref="LeftoversAsync"/>, when sessions that were closed or killed have had the time that the server needs to notice.</summary>
    internal static async Task<IReadOnlyList<string>> LeftoversAtRestAsync(Shop shop, CancellationToken cancellationToken)
    {
        IReadOnlyList<string> leftovers = [];
        for (int i = 0; i < 50; i++)
        {
            leftovers = await LeftoversAsync(shop, cancellationToken);
            if (leftovers.Count == 0)
            {
                break;
            }

            await Task.Delay(100, cancellationToken);
        }

        return leftovers;
    }
}
