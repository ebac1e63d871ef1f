using System.Globalization;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Puts back what an archive keeps, by plain SQL that psql and every migration tool can run outside a transaction.</summary>
internal sealed class ArchiveReversal
{
    private const int BatchRows = 1000;

    private readonly BackfillDefinition _definition;
    private readonly BackfillArchive _archive;

    internal ArchiveReversal(BackfillDefinition definition, BackfillArchive archive)
    {
        _definition = definition;
        _archive = archive;
    }

    /// <summary>What must be known about it.</summary>
    internal string Note
    {
        get
        {
            string how = $"in batches that commit one by one, latest change first, out of {_archive.Display}, which goes when it is empty; a warning says how much is left, and it may run again. The table's triggers fire";
            return _archive.Copies
                ? $"Deletes the rows that the backfill inserted into {_definition.Into!.Table.Display}, told by their key from those that were there before, with whatever has been written to them since, {how}. Rows that are locked are passed over and come back."
                : _archive.Whole
                ? $"Inserts the rows that were deleted, {how}. A row whose key is there again stays as the application wrote it, and what was deleted stays in the archive."
                : $"Puts the old values of {string.Join(", ", _archive.Columns.Select(column => SqlName.QuoteIfNeeded(column.Name)))} back, rows found by ({string.Join(", ", _archive.Key.Select(column => SqlName.QuoteIfNeeded(column.Name)))}), {how}. Only where the row still holds what the backfill wrote: what the application has written there since stays, and the old value stays in the archive. Rows that are locked are passed over and come back.";
        }
    }

    /// <summary>The block. It commits batch by batch and never waits long for a row.</summary>
    internal string Sql => string.Create(CultureInfo.InvariantCulture, $"""
        do $msb$
        declare
            msb_low bigint;
            msb_high bigint;
            msb_oid oid;
            msb_part text;
            msb_some bigint;
            msb_put bigint;
            msb_left bigint;
        begin
            if to_regclass({SqlName.Literal(_archive.Sql)}) is null then
                raise notice 'There is no %: nothing is kept there that could be put back.', {SqlName.Literal(_archive.Display)};
                return;
            end if;
            -- Again for rows that were locked, and for those that were changed twice.
            for msb_pass in 1..20 loop
                msb_put := 0;
                select max({Id}) + 1 into msb_high from {_archive.Sql};
                loop
                    select min({Id}) into msb_low from (select {Id} from {_archive.Sql} where {Id} < msb_high order by {Id} desc limit {BatchRows}) as msb_some;
                    exit when msb_low is null;
                    for msb_oid, msb_part in
                        select c.oid, format('%I.%I', n.nspname, c.relname)
                        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                        where c.oid in (select {Source} from {_archive.Sql} where {Id} >= msb_low and {Id} < msb_high)
                    loop
                        perform set_config('lock_timeout', '100ms', true);
                        execute format({SqlName.Literal(Batch)}, msb_part) using msb_oid, msb_low, msb_high;
                        get diagnostics msb_some = row_count;
                        msb_put := msb_put + msb_some;
                    end loop;
                    commit;
                    msb_high := msb_low;
                end loop;
                exit when msb_put = 0;
            end loop;
            select count(*) into msb_left from {_archive.Sql};
            if msb_left = 0 then
                -- A backfill that still runs may have added to it, which a snapshot from before the lock does not show.
                commit;
                perform set_config('lock_timeout', '2s', true);
                lock table {_archive.Sql} in access exclusive mode;
                select count(*) into msb_left from {_archive.Sql};
            end if;
            if msb_left > 0 then
                raise warning {SqlName.Literal(Left)}, msb_left, {SqlName.Literal(_archive.Display)};
            else
                drop table {_archive.Sql};
            end if;
        end
        $msb$
        """).ReplaceLineEndings("\n");

    private string Left => _archive.Copies ? "% copied rows are locked and still there, their keys in %: run this again."
        : _archive.Whole
        ? "% deleted rows are not put back and stay in %: rows with their keys are there again, or their table is gone."
        : "% old values are not put back and stay in %: their rows are locked (run this again), have been written since, or are gone.";

    private string Id => SqlName.Quote(_archive.Id);

    private string Source => SqlName.Quote(_archive.Source);

    private string Batch => _archive.Copies ? Delete : _archive.Whole ? Insert : Update;

    // One entry a row and batch, the latest: an older one waits for the next pass.
    private string Latest => $"""
        msb_batch as materialized (
            select distinct on ({Keys}) * from {Escaped(_archive.Sql)} where {Escaped(Source)} = $1 and {Escaped(Id)} >= $2 and {Escaped(Id)} < $3 order by {Keys}, {Escaped(Id)} desc
        )
        """;

    // As texts, because not every type has an equality, and byte by byte, because a collation may take different texts for the same.
    private string Update => $"""
        with {Latest}, msb_row as materialized (
            select t.ctid as msb_tid, t.xmin as msb_version, b.* from msb_batch b join only %1$s t on {Join("t", "b")}
            where ({Same(column => column.Written!)}) or ({Same(column => column.Name)}) {LockClause} of t skip locked
        ), msb_put as (
            update only %1$s t set {string.Join(", ", _archive.Columns.Select(column => $"{Name(column.Name)} = r.{Name(column.Name)}"))}
            from msb_row r where t.ctid = r.msb_tid and t.xmin = r.msb_version returning r.{Escaped(Id)} as msb_id
        )
        delete from {Escaped(_archive.Sql)} k using msb_put p where k.{Escaped(Id)} = p.msb_id
        """;

    private string Insert => $"""
        with {Latest}, msb_put as (
            insert into %1$s ({List}) overriding system value select {List} from msb_batch on conflict do nothing returning {Keys}
        )
        delete from {Escaped(_archive.Sql)} k using msb_batch b join msb_put p on {Join("p", "b")} where k.{Escaped(Id)} = b.{Escaped(Id)}
        """;

    // Where it is a partitioned table, a place alone does not tell a row.
    private string Delete => $"""
        with {Latest}, msb_row as materialized (
            select t.tableoid as msb_table, t.ctid as msb_tid, b.* from msb_batch b join %1$s t on {Join("t", "b")} for update of t skip locked
        ), msb_put as (
            delete from %1$s t using msb_row r where {Join("t", "r")} and t.ctid = r.msb_tid and t.tableoid = r.msb_table returning r.{Escaped(Id)} as msb_id
        )
        delete from {Escaped(_archive.Sql)} k
        using (select msb_id from msb_put union all select b.{Escaped(Id)} from msb_batch b where not exists (select from %1$s t where {Join("t", "b")})) p
        where k.{Escaped(Id)} = p.msb_id
        """;

    private string List => string.Join(", ", _archive.Columns.Select(column => Name(column.Name)));

    private string Keys => string.Join(", ", _archive.Key.Select(column => Name(column.Name)));

    private string Join(string left, string right) => string.Join(" and ", _archive.Key.Select(column => $"{left}.{Name(column.Name)} = {right}.{Name(column.Name)}"));

    private string LockClause => _definition.Leaves.Any(leaf => leaf.ChangesUniqueKey) ? "for update" : "for no key update";

    private string Same(Func<KeptColumn, string> kept) =>
        string.Join(" and ", _archive.Columns.Select(column => $"t.{Name(column.Name)}::text collate \"C\" is not distinct from b.{Name(kept(column))}::text collate \"C\""));

    private static string Name(string name) => Escaped(SqlName.Quote(name));

    private static string Escaped(string sql) => sql.Replace("%", "%%", StringComparison.Ordinal);
}
