using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// The statements of a backfill. A batch is one statement, so that it is one round trip and one transaction that no client can keep open: it takes the
/// checkpoint, finds where the batch ends, updates, and writes the checkpoint back. All that the client gives it is the name and the number of rows.
/// </summary>
internal sealed class BackfillStatements
{
    private readonly BackfillDefinition _definition;

    internal BackfillStatements(BackfillDefinition definition) => _definition = definition;

    /// <summary>For the check before anything is done: names, types, privileges.</summary>
    internal string Explain => $"explain update only {Table} set {SetList} where {Predicate}";

    /// <summary>How many rows match.</summary>
    internal string Count => $"select pg_catalog.count(*) from only {Table} where {Predicate}";

    /// <summary>A sample of $1 percent of the blocks: rows that match, rows, blocks that hold rows; and the blocks of the whole table.</summary>
    internal string Sample => $"""
        select pg_catalog.count(*) filter (where {Predicate}), pg_catalog.count(*), pg_catalog.count(distinct (ctid::text::point)[0]),
               pg_catalog.pg_relation_size({_definition.Table.Oid}::oid::regclass) / pg_catalog.current_setting('block_size')::int8
        from only {Table} tablesample system ($1)
        """;

    /// <summary>Physical places of $1 rows that match.</summary>
    internal string PickSample => $"select ctid::text from only {Table} where {Predicate} limit $1";

    /// <summary>Updates the rows at places $1 that nobody has locked; returns the key of each and whether it still matches.</summary>
    internal string TrySample => $"""
        with msb_free as materialized (
            select ctid as tid from only {Table} where ctid = any ($1::text[]::tid[]) and {Predicate} {LockClause} skip locked
        )
        update only {Table} set {SetList}
        where ctid = any (array(select tid from msb_free)) and {Predicate}
        returning array[{Join(", ", c => c + "::text")}], {Predicate}
        """;

    /// <summary>The greatest key, as texts.</summary>
    internal string Bound => $"select array[{Join(", ", c => c + "::text")}] from only {Table} order by {Join(", ", c => c + " desc")} limit 1";

    /// <summary>
    /// Sets the columns to NULL again, a few blocks a transaction, and never waits for a row: those that are locked are passed over and come back in the next pass.
    /// </summary>
    internal string Reset => $"""
        do $msb$
        declare
            msb_block bigint;
            msb_blocks bigint;
            msb_changed bigint;
            msb_batch bigint;
            msb_left bigint;
        begin
            for msb_pass in 1..20 loop
                msb_block := 0;
                msb_blocks := pg_relation_size({SqlName.Literal(_definition.Table.Sql)}) / current_setting('block_size')::bigint;
                msb_changed := 0;
                while msb_block <= msb_blocks loop
                    perform set_config('lock_timeout', '100ms', true);
                    update only {Table} set {Nulls}
                    where ctid = any (array(
                        select ctid from only {Table}
                        where ctid >= format('(%s,0)', msb_block)::tid and ctid < format('(%s,0)', msb_block + 8)::tid and ({Filled})
                        {LockClause} skip locked)) and ({Filled});
                    get diagnostics msb_batch = row_count;
                    msb_changed := msb_changed + msb_batch;
                    commit;
                    msb_block := msb_block + 8;
                end loop;
                exit when msb_changed = 0;
            end loop;
            select count(*) into msb_left from only {Table} where {Filled};
            if msb_left > 0 then
                raise warning '% rows of % are locked or were filled again meanwhile: run this again', msb_left, {SqlName.Literal(_definition.Table.Display)};
            end if;
        end
        $msb$
        """;

    private string Nulls => string.Join(", ", _definition.Set.Select(column => $"{SqlName.Quote(column.Name)} = null"));

    private string Filled => string.Join(" or ", _definition.Set.Select(column => $"{SqlName.Quote(column.Name)} is not null"));

    private string Table => _definition.Table.Sql;

    // The line breaks keep a comment at the end of an expression from swallowing what follows.
    // By default a row matches when one of its columns is NULL: the others may hold what the application wrote, and keep it.
    private string SetList => string.Join(", ", _definition.Set.Select(column => _definition is { IsDefaultWhere: true, Set.Count: > 1 }
        ? $"{SqlName.Quote(column.Name)} = coalesce({SqlName.Quote(column.Name)}, (\n{column.Expression}\n))"
        : $"{SqlName.Quote(column.Name)} = (\n{column.Expression}\n)"));

    // IS TRUE hides the condition from the planner's choice of indexes: one on the new column would lead it through all rows that still match, in every batch.
    private string Predicate => $"((\n{_definition.Where}\n) is true)";

    // The lock that the update itself takes; a weaker one is enough where no key changes, and lets foreign-key checks pass.
    private string LockClause => _definition.ChangesUniqueKey ? "for update" : "for no key update";

    /// <summary>
    /// A batch: of $2 rows of the table, whether they match or not, after the checkpoint of backfill $1. It waits shortly for rows that are locked.
    /// Returns rows changed, rows skipped, rows that match as before, whether the bound was reached, and the server's time in milliseconds.
    /// </summary>
    /// <param name="first">Whether the checkpoint has no key yet.</param>
    internal string Batch(bool first) => $"""
        {Range(first)}, msb_changed as (
            update only {Table} set {SetList}
            where {Above(first)}{UpToStop} and {Predicate}
            returning {Predicate} as same
        ), msb_sum as (
            select pg_catalog.count(*) as changed, 0::bigint as skipped, pg_catalog.count(*) filter (where same) as same from msb_changed
        )
        {WriteBack}
        """;

    /// <summary>The same as <see cref="Batch"/>, but it passes over the rows that others have locked, and counts them.</summary>
    /// <param name="first">Whether the checkpoint has no key yet.</param>
    internal string SkippingBatch(bool first) => $"""
        {Range(first)}, msb_found as materialized (
            select ctid as tid from only {Table} where {Above(first)}{UpToStop} and {Predicate}
        ), msb_free as materialized (
            select ctid as tid from only {Table} where ctid = any (array(select tid from msb_found)) and {Predicate} {LockClause} skip locked
        ), msb_changed as (
            update only {Table} set {SetList}
            where ctid = any (array(select tid from msb_free)) and {Predicate}
            returning {Predicate} as same
        ), msb_sum as (
            select pg_catalog.count(*) as changed, (select pg_catalog.count(*) from msb_found) - pg_catalog.count(*) as skipped,
                   pg_catalog.count(*) filter (where same) as same
            from msb_changed
        )
        {WriteBack}
        """;

    private string Range(bool first) => $"""
        with msb_checkpoint as materialized (
            select last_key, bound from {BackfillStore.Table} where name = $1 and state = 'running' for update
        ), msb_stop as materialized (
            select * from (
                (select {Join(", ", c => c)}, $2::bigint, false from only {Table}
                 where {Above(first)}{Row} <= {Texts("bound", "msb_checkpoint")} order by {Join(", ", c => c)} offset $2::bigint - 1 limit 1)
                union all
                select {string.Join(", ", _definition.Key.Select((column, i) => $"bound[{i + 1}]::{column.Type}"))}, null, true from msb_checkpoint
            ) as s ({string.Join(", ", StopKeys)}, seen, at_end)
            order by at_end limit 1
        )
        """;

    private string WriteBack => $"""
        update {BackfillStore.Table} b
        set last_key = {StopTexts}, rows_done = b.rows_done + n.changed, rows_seen = b.rows_seen + case when b.sweep = 1 then coalesce(s.seen, n.changed) else 0 end,
            batches = b.batches + 1, updated_at = pg_catalog.clock_timestamp(),
            retry_after = case when n.skipped > 0 and b.retry_until is null then b.last_key else b.retry_after end,
            retry_until = case when n.skipped > 0 then {StopTexts} else b.retry_until end
        from msb_stop s, msb_sum n
        where b.name = $1
        returning n.changed, n.skipped, n.same, s.at_end, b.rows_done, b.rows_seen,
                  extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp())::float8 * 1000
        """;

    private string Row => $"({Join(", ", c => c)})";

    private IEnumerable<string> StopKeys => _definition.Key.Select((_, i) => $"key{i + 1}");

    private string StopTexts => $"array[{string.Join(", ", StopKeys.Select(key => $"s.{key}::text"))}]";

    private string UpToStop => $"{Row} <= ({string.Join(", ", StopKeys.Select(key => $"(select {key} from msb_stop)"))})";

    private string Above(bool first) => first ? "" : $"{Row} > {Texts("last_key", "msb_checkpoint")} and ";

    private string Texts(string array, string from) =>
        $"({string.Join(", ", _definition.Key.Select((column, i) => $"(select {array}[{i + 1}]::{column.Type} from {from})"))})";

    private string Join(string separator, Func<string, string> text) => string.Join(separator, _definition.Key.Select(column => text(SqlName.Quote(column.Name))));
}
