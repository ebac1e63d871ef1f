using System.Text;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// What the blocks that take a backfill back have in common, as parts of PL/pgSQL: batches that commit one by one, as large as a goal of 100 ms allows, because an application that wants one of
/// their rows waits for the end. A batch in which the server refuses a row is done again in smaller ones, down to that row, which is passed over.
/// </summary>
internal static class ReversalBatches
{
    /// <summary>The variables, besides <c>msb_rows</c>: the rows of a batch, as an array.</summary>
    internal const string Variables = """
        msb_size int := 10;
        msb_began timestamptz;
        msb_spent float8;
        msb_failed boolean;
        msb_done bigint;
        msb_put bigint;
        msb_waits int := 0;
        msb_refused bigint;
        msb_why text;
        msb_part text;
        msb_left bigint;
        """;

    /// <summary>Ends a transaction. In the next one each statement sees what others have committed, whatever the role's default is.</summary>
    internal const string Commit = """
        commit;
        set transaction isolation level read committed;
        """;

    /// <summary>Ends the batch before and begins one.</summary>
    internal const string Begin = $"""
        {Commit}
        -- After a minute in vain each row is only tried. Small statements are not worth compiling.
        perform set_config('lock_timeout', case when msb_waits < 600 then '100ms' else '1ms' end, true), set_config('jit', 'off', true);
        msb_began := clock_timestamp();
        """;

    /// <summary>Does a batch, and moves on.</summary>
    /// <param name="work">Changes <c>msb_rows</c> in <c>msb_part</c>, and sets <c>msb_done</c> to how many of them it changed. It may find them first.</param>
    /// <param name="nothing">Does the same to no row, which needs the table's lock and no other.</param>
    /// <param name="move">Moves on behind <c>msb_rows</c>.</param>
    /// <param name="fatal">What the server would refuse for every row, so that it ends the block; null for nothing.</param>
    internal static string Do(string work, string nothing, string move, string? fatal = null) => $"""
        msb_failed := false;
        msb_done := 0;
        begin
            {Indented(work, 4)}
            -- What is deferred is refused at the commit else, where nothing can be passed over.
            set constraints all immediate;
            msb_waits := case when msb_done > 0 then 0 else msb_waits end;
        exception
            when lock_not_available or deadlock_detected then
                -- Rows that these hang on are locked; or the table is, which after a minute ends it all.
                msb_failed := true;
                msb_waits := msb_waits + 1;
                if msb_waits % 600 = 0 then
                    perform set_config('lock_timeout', '100ms', true);
                    {nothing}
                end if;
            when undefined_table then
                -- The part was dropped meanwhile.
                msb_failed := true;
                if to_regclass(msb_part) is not null then
                    raise;
                end if;{(fatal is null ? "" : $"\n    when {fatal} then\n        raise;")}
            when assert_failure or others then
                -- Of a row, whatever its triggers raise among them; these classes are of the statement or the server.
                msb_failed := true;
                if cardinality(msb_rows) = 0 or left(sqlstate, 2) in ({string.Join(", ", BackfillContext.StatementClasses.Select(SqlName.Literal))}) then
                    raise;
                end if;
                if cardinality(msb_rows) = 1 then
                    msb_refused := msb_refused + 1;
                    msb_why := sqlerrm;
                end if;
        end;
        if msb_failed and cardinality(msb_rows) <> 1 then
            -- Again in smaller batches, until the row is alone.
            msb_size := cardinality(msb_rows) / 4 + 1;
        else
            {Indented(move, 4)}
            if not msb_failed then
                msb_put := msb_put + msb_done;
                msb_spent := extract(epoch from clock_timestamp() - msb_began) * 1000;
                if msb_spent > 100 then
                    msb_size := greatest(1, cardinality(msb_rows) * 100 / msb_spent);
                elsif msb_spent < 50 and (msb_size < 10 or 2 * msb_done >= msb_size) then
                    msb_size := least(5000, 2 * msb_size);
                end if;
            end if;
        end if;
        """;

    /// <summary>Says that <c>msb_left</c> are left, and why.</summary>
    /// <param name="one">What is said of one, without the number.</param>
    /// <param name="more">What is said of several.</param>
    /// <param name="others">Why those are that the server did not refuse.</param>
    internal static string Warn(string one, string more, string others) => $"""
        raise warning '% %: %.', msb_left, case msb_left when 1 then {SqlName.Literal(one)} else {SqlName.Literal(more)} end,
            {Why(others)};
        """;

    /// <summary>How rows are locked that are changed as a definition changes them.</summary>
    internal static string LockClause(BackfillDefinition definition) => definition.Leaves.Any(leaf => leaf.ChangesUniqueKey) ? "for update" : "for no key update";

    /// <summary>A part of a text that goes through <c>format()</c>.</summary>
    internal static string Escaped(string sql) => sql.Replace("%", "%%", StringComparison.Ordinal);

    private static string Why(string others) =>
        $"concat_ws('; ', case when msb_left > msb_refused then {SqlName.Literal(others)} end, case when msb_refused > 0 then format('the server refuses %s, one of them with: %s', msb_refused, msb_why) end)";

    /// <summary>A part for a place so far to the right. Line ends in names and texts stay as they are.</summary>
    internal static string Indented(string part, int spaces)
    {
        StringBuilder indented = new();
        char? within = null;
        foreach (char c in part.ReplaceLineEndings("\n"))
        {
            within = c is '"' or '\'' && (within is null || within == c) ? within is null ? c : null : within;
            indented.Append(c).Append(' ', c == '\n' && within is null ? spaces : 0);
        }

        return indented.ToString();
    }
}
