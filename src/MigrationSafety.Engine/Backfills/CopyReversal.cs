using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Empties a table that was empty before a backfill copied rows into it, by plain SQL that commits batch by batch and never waits long for a row.</summary>
internal static class CopyReversal
{
    /// <summary>What must be known about it.</summary>
    internal static string Note(BackfillTarget into) =>
        $"Deletes every row of {into.Table.Display}, which was empty before: those that were copied, and those that the application or a trigger has written there since. In small batches that commit one by one and pass over locked rows, so that it may run again; a warning says how many rows are left. TRUNCATE does the same at once, with an ACCESS EXCLUSIVE lock.";

    /// <summary>The block.</summary>
    internal static string Sql(BackfillTarget into)
    {
        const string Batch = "delete from only %1$s where ctid = any (array(select ctid from only %1$s where ctid >= $1 and ctid < $2 for update skip locked))";
        return $"""
            do $msb$
            declare
                msb_part text;
                msb_block bigint;
                msb_blocks bigint;
                msb_batch bigint;
                msb_gone bigint;
                msb_left bigint;
            begin
                for msb_pass in 1..20 loop
                    msb_gone := 0;
                    foreach msb_part in array (
                        select coalesce(array_agg(format('%I.%I', n.nspname, c.relname)), array[{SqlName.Literal(into.Table.Sql)}])
                        from pg_catalog.pg_partition_tree({SqlName.Literal(into.Table.Sql)}) p
                        join pg_catalog.pg_class c on c.oid = p.relid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                        where p.isleaf
                    ) loop
                        msb_block := 0;
                        msb_blocks := pg_relation_size(msb_part::regclass) / current_setting('block_size')::bigint;
                        while msb_block <= msb_blocks loop
                            perform set_config('lock_timeout', '100ms', true);
                            execute format({SqlName.Literal(Batch)}, msb_part) using format('(%s,0)', msb_block)::tid, format('(%s,0)', msb_block + 8)::tid;
                            get diagnostics msb_batch = row_count;
                            msb_gone := msb_gone + msb_batch;
                            commit;
                            msb_block := msb_block + 8;
                        end loop;
                    end loop;
                    exit when msb_gone = 0;
                end loop;
                select count(*) into msb_left from {into.Table.Sql};
                if msb_left > 0 then
                    raise warning '% rows of % are locked or new: run this again', msb_left, {SqlName.Literal(into.Table.Display)};
                end if;
            end
            $msb$
            """.ReplaceLineEndings("\n");
    }
}
