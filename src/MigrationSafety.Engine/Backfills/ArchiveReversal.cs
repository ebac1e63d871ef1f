using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Puts back what an archive keeps, by plain SQL that psql and every migration tool can run outside a transaction.</summary>
internal sealed class ArchiveReversal
{
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
            string how = $"in batches that commit one by one, latest change first, out of {_archive.Display}, which goes when it is empty; what the server refuses stays there, a warning says how much is left and why, and it may run again. {(_archive.Copies ? "" : "First it builds an index on the archive, for which a backfill that still runs waits. ")}The table's triggers fire";
            return _archive.Copies
                ? $"Deletes the rows that the backfill inserted into {_definition.Into!.Table.Display}, told by their key from those that were there before, with whatever has been written to them since, {how}. Rows that are locked are passed over and come back."
                : _archive.Whole
                ? $"Inserts the rows that were deleted, {how}. A row whose key is there again stays as the application wrote it, and what was deleted stays in the archive; so does what a trigger makes something else of."
                : $"Puts the old values of {string.Join(", ", _archive.Columns.Select(column => SqlName.QuoteIfNeeded(column.Name)))} back, rows found by ({string.Join(", ", _archive.Key.Select(column => SqlName.QuoteIfNeeded(column.Name)))}), {how}. Only where the row still holds what the backfill wrote: what the application has written there since stays, and the old value stays in the archive; so does what a trigger makes something else of. Rows that are locked are passed over and come back.";
        }
    }

    /// <summary>The block. It commits batch by batch and never waits long for a row.</summary>
    internal string Sql => $"""
        do $msb$
        declare
            {ReversalBatches.Indented(ReversalBatches.Variables, 4)}
            msb_rows bigint[];
            msb_place bigint;
            msb_oid oid;
            msb_some bigint;
            msb_sql constant text := {SqlName.Literal(Batch)};
        begin
            if to_regclass({SqlName.Literal(_archive.Sql)}) is null then
                raise notice 'There is no %: nothing is kept there that could be put back.', {SqlName.Literal(_archive.Display)};
                return;
            end if;
            {ReversalBatches.Indented(Index, 4)}
            -- Again for rows that were locked, and for those that were changed twice.
            loop
                msb_put := 0;
                msb_refused := 0;
                {ReversalBatches.Indented(ReversalBatches.Commit, 8)}
                select max({Id}) + 1 into msb_place from {_archive.Sql};
                loop
                    {ReversalBatches.Indented(ReversalBatches.Begin, 12)}
                    msb_rows := array(select {Id} from {_archive.Sql} where {Id} < msb_place order by {Id} desc limit msb_size);
                    exit when cardinality(msb_rows) = 0;
                    {ReversalBatches.Indented(ReversalBatches.Do(Work, Nothing, "msb_place := msb_rows[cardinality(msb_rows)];"), 12)}
                end loop;
                exit when msb_put = 0;
            end loop;
            select count(*) into msb_left from {_archive.Sql};
            if msb_left = 0 then
                -- A backfill that still runs may have added to it, which a snapshot from before the lock does not show.
                {ReversalBatches.Indented(ReversalBatches.Commit, 8)}
                begin
                    perform set_config('lock_timeout', '2s', true);
                    lock table {_archive.Sql} in access exclusive mode;
                exception when lock_not_available or deadlock_detected then
                    raise warning 'All is put back. % is empty, but in use: drop it later.', {SqlName.Literal(_archive.Display)};
                    return;
                end;
                select count(*) into msb_left from {_archive.Sql};
            end if;
            if msb_left > 0 then
                {ReversalBatches.Indented(Left, 8)}
            else
                drop table {_archive.Sql};
            end if;
        end
        $msb$
        """.ReplaceLineEndings("\n");

    private string Left
    {
        get
        {
            (string one, string more) = _archive.Copies ? ("copied row is still there, its key", "copied rows are still there, their keys")
                : _archive.Whole ? ("deleted row is not put back and stays", "deleted rows are not put back and stay")
                : ("old value is not put back and stays", "old values are not put back and stay");
            return ReversalBatches.Warn($"{one} in {_archive.Display}", $"{more} in {_archive.Display}", Others);
        }
    }

    private string Others => _archive.Copies ? "rows are locked (run this again), or a trigger keeps them"
        : _archive.Whole ? "rows that they refer to are locked (run this again), rows with their keys are there again, their table is gone, a trigger makes something else of them, or a later deletion of the same key is not put back"
        : "rows are locked (run this again), have been written since, or are gone, a trigger makes something else of them, or a later change of the same row is not put back";

    private string Id => SqlName.Quote(_archive.Id);

    private string Source => SqlName.Quote(_archive.Source);

    // Copies need no order.
    private string Index => _archive.Copies ? ReversalBatches.Commit : $"""
        {ReversalBatches.Commit}
        -- An older entry of a row waits until the newer one is gone, which is asked for each.
        if not exists (select from pg_catalog.pg_index where indrelid = {SqlName.Literal(_archive.Sql)}::regclass and not indisprimary) then
            begin
                perform set_config('lock_timeout', '2s', true);
                create index on {_archive.Sql} ({string.Join(", ", _archive.Key.Select(column => SqlName.Quote(column.Name)))}, {Id});
            exception when others then
                raise notice 'This takes longer, without an index on the key of %: %', {SqlName.Literal(_archive.Display)}, sqlerrm;
            end;
        end if;
        """;

    private const string Nothing = "execute format(msb_sql, msb_part) using msb_oid, '{}'::bigint[];";

    // In the parts that the rows were in, then, where the key tells a row wherever it is, in the whole table: rows move when partitions are split. A part that was detached then still has its old rows.
    private string Work => _archive.Spans && _archive.Whole ? $"""
        msb_part := {Root};
        execute format(msb_sql, msb_part) using msb_oid, msb_rows;
        get diagnostics msb_done = row_count;
        """ : $"""
        for msb_oid, msb_part in
            select k.msb_from, {(_archive.Spans
                ? $"case when k.msb_from in (select relid from pg_catalog.pg_partition_tree({Root})) then format('%I.%I', n.nspname, c.relname) else {Root} end"
                : "format('%I.%I', n.nspname, c.relname)")}
            from (select distinct {Source}::oid as msb_from from {_archive.Sql} where {Id} = any (msb_rows)) k
            {(_archive.Spans ? "left join" : "join")} pg_catalog.pg_class c on c.oid = k.msb_from
            {(_archive.Spans ? "left join" : "join")} pg_catalog.pg_namespace n on n.oid = c.relnamespace
        loop
            execute format(msb_sql, msb_part) using msb_oid, msb_rows;
            get diagnostics msb_some = row_count;
            msb_done := msb_done + msb_some;
        end loop;
        """ + (!_archive.Spans ? "" : "\n" + $"""
        if msb_done < cardinality(msb_rows) then
            msb_part := {Root};
            execute format(msb_sql, msb_part) using null::oid, msb_rows;
            get diagnostics msb_some = row_count;
            msb_done := msb_done + msb_some;
        end if;
        """);

    private string Batch => _archive.Copies ? Delete : _archive.Whole ? Insert : Update;

    private string Root => SqlName.Literal(_definition.Table.Sql);

    // A leaf of a partitioned table has no children, a table that others inherit from may hold rows itself.
    private string Part => _archive.Spans ? "%1$s" : "only %1$s";

    private string Latest => $"""
        msb_batch as materialized (
            select b.* from {Escaped(_archive.Sql)} b
            where {Escaped(Id)} = any ($2) and ($1 is null or {Escaped(Source)} = $1){(_archive.Copies ? "" : $"""

              and {Escaped(Id)} = (select max(n.{Escaped(Id)}) from {Escaped(_archive.Sql)} n where {Join("n", "b")}{(_archive.Spans ? "" : $" and n.{Escaped(Source)} = b.{Escaped(Source)}")})
        """)}
        )
        """;

    // As texts, because not every type has an equality, and byte by byte, because a collation may take different texts for the same.
    private string Update => $"""
        with {Latest}, msb_row as materialized (
            select t.tableoid as msb_table, t.ctid as msb_tid, t.xmin as msb_version, b.* from msb_batch b join {Part} t on {Join("t", "b")}
            where ({Same("t", "b", column => column.Written!)}) or ({Same("t", "b", column => column.Name)}) {ReversalBatches.LockClause(_definition)} of t skip locked
        ), msb_put as (
            update {Part} t set {string.Join(", ", _archive.Columns.Select(column => $"{Name(column.Name)} = r.{Name(column.Name)}"))}
            from msb_row r where {Join("t", "r")} and t.ctid = r.msb_tid and t.tableoid = r.msb_table and t.xmin = r.msb_version
            returning r.{Escaped(Id)} as msb_id, {Same("t", "r", column => column.Name)} as msb_same
        )
        delete from {Escaped(_archive.Sql)} k where k.{Escaped(Id)} = any (array(select msb_id from msb_put where msb_same))
        """;

    // Without ON CONFLICT, which refuses tables with deferrable constraints. Nothing is joined: of a table that was just emptied, and of what is put back, the planner expects a few rows.
    private string Insert => $"""
        with {Latest}, msb_put as (
            insert into %1$s as t ({List}) overriding system value
            select {List} from msb_batch b where (select true from {Part} t where {Join("t", "b")} limit 1) is null
            returning t.*
        )
        delete from {Escaped(_archive.Sql)} k
        where k.{Escaped(Id)} = any (array(select b.{Escaped(Id)} from msb_batch b where ({Text("b")} in (select {Text("p")} from msb_put p)) is true))
        """;

    // Where it is a partitioned table, a place alone does not tell a row.
    private string Delete => $"""
        with {Latest}, msb_row as materialized (
            select t.tableoid as msb_table, t.ctid as msb_tid, b.* from msb_batch b join %1$s t on {Join("t", "b")} for update of t skip locked
        ), msb_put as (
            delete from %1$s t using msb_row r where {Join("t", "r")} and t.ctid = r.msb_tid and t.tableoid = r.msb_table returning r.{Escaped(Id)} as msb_id
        )
        delete from {Escaped(_archive.Sql)} k
        where k.{Escaped(Id)} = any (array(select msb_id from msb_put union all select b.{Escaped(Id)} from msb_batch b where (select true from %1$s t where {Join("t", "b")} limit 1) is null))
        """;

    private string List => string.Join(", ", _archive.Columns.Select(column => Name(column.Name)));

    private string Join(string left, string right) => string.Join(" and ", _archive.Key.Select(column => $"{left}.{Name(column.Name)} = {right}.{Name(column.Name)}"));

    private string Text(string row) => $"row({string.Join(", ", _archive.Columns.Select(column => $"{row}.{Name(column.Name)}::text"))})::text collate \"C\"";

    private string Same(string row, string kept, Func<KeptColumn, string> column) =>
        string.Join(" and ", _archive.Columns.Select(c => $"{row}.{Name(c.Name)}::text collate \"C\" is not distinct from {kept}.{Name(column(c))}::text collate \"C\""));

    private static string Name(string name) => Escaped(SqlName.Quote(name));

    private static string Escaped(string sql) => ReversalBatches.Escaped(sql);
}
