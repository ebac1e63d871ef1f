using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Changes or deletes rows of a table block by block, by plain SQL that commits batch by batch and never waits for a row: those that are locked are passed over and come back in the next pass.</summary>
internal static class BlockReversal
{
    /// <summary>The block.</summary>
    /// <param name="root">The table, quoted.</param>
    /// <param name="display">The table for people.</param>
    /// <param name="tree">Whether what inherits from it, as it is when the block runs, is meant too.</param>
    /// <param name="of">Which rows, as SQL has it.</param>
    /// <param name="lockClause">How they are locked.</param>
    /// <param name="change">Changes the rows whose places are in $1, in the table <c>%1$s</c>, and returns for each as <c>msb_still</c> whether it is still one of those. It goes through <c>format()</c>: any other % in it is doubled.</param>
    /// <param name="left">Why some are left, besides what the server refuses.</param>
    /// <param name="fatal">What the server would refuse for every row; null for nothing.</param>
    internal static string Sql(string root, string display, bool tree, string of, string lockClause, string change, string left, string? fatal = null)
    {
        string pick = $"select array(select ctid from only %1$s where ctid > $1 and ctid < $2 and ({ReversalBatches.Escaped(of)}) order by ctid limit $3 {lockClause} skip locked)";
        string count = $"with msb_changed as ({change}) select count(*) filter (where not msb_still) from msb_changed";
        // By the size that it had at first: what a trigger fills again, behind the end, would be an endless walk.
        const string Work = """
            msb_rows := '{}';
            msb_blocks := coalesce(msb_blocks, pg_relation_size(msb_part::regclass) / current_setting('block_size')::bigint);
            execute format(msb_pick, msb_part) into msb_rows using msb_place, format('(%s,0)', msb_block + 8)::tid, msb_size;
            execute format(msb_change, msb_part) into msb_done using msb_rows;
            """;
        const string Nothing = "execute format(msb_change, msb_part) using '{}'::tid[];";
        const string Move = """
            if cardinality(msb_rows) < msb_size then
                msb_block := msb_block + 8;
                msb_place := format('(%s,0)', msb_block)::tid;
            else
                msb_place := msb_rows[cardinality(msb_rows)];
            end if;
            """;
        string children = tree
            ? "union select i.inhrelid from msb_tree join pg_catalog.pg_inherits i on i.inhparent = msb_tree.oid where not i.inhdetachpending"
            : "-- And nothing that inherits from it.";
        return $"""
            do $msb$
            declare
                {ReversalBatches.Indented(ReversalBatches.Variables, 4)}
                msb_rows tid[];
                msb_place tid;
                msb_block bigint;
                msb_blocks bigint;
                msb_pick constant text := {SqlName.Literal(pick)};
                msb_change constant text := {SqlName.Literal(count)};
            begin
                for msb_pass in 1..20 loop
                    msb_put := 0;
                    msb_refused := 0;
                    foreach msb_part in array array(
                        with recursive msb_tree as (
                            select {SqlName.Literal(root)}::regclass::oid as oid
                            {children}
                        )
                        select format('%I.%I', n.nspname, c.relname)
                        from msb_tree join pg_catalog.pg_class c on c.oid = msb_tree.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                        where c.relkind = 'r'
                    ) loop
                        msb_block := 0;
                        msb_place := '(0,0)';
                        msb_blocks := null;
                        while msb_block <= coalesce(msb_blocks, 0) loop
                            {ReversalBatches.Indented(ReversalBatches.Begin, 16)}
                            -- Dropped since the pass began.
                            exit when to_regclass(msb_part) is null;
                            {ReversalBatches.Indented(ReversalBatches.Do(Work, Nothing, Move, fatal), 16)}
                        end loop;
                    end loop;
                    exit when msb_put = 0;
                end loop;
                {ReversalBatches.Indented(ReversalBatches.Commit, 4)}
                select count(*) into msb_left from {(tree ? "" : "only ")}{root} where {of};
                if msb_left > 0 then
                    {ReversalBatches.Indented(ReversalBatches.Warn($"row of {display} is left", $"rows of {display} are left", left), 8)}
                end if;
            end
            $msb$
            """.ReplaceLineEndings("\n");
    }
}
