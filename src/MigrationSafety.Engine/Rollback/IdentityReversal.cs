using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes changes of identity columns back.</summary>
internal static class IdentityReversal
{
    internal static async Task<List<RollbackStatement>> AlteredAsync(Reversing r, ObjectReference column, AlterIdentity change)
    {
        if (r.Made(column) || r.Catalog is not { } catalog || await r.FindAsync(column).ConfigureAwait(false) is not { } address)
        {
            return await PropertyReversal.ReverseAsync(r, column, [DefinitionProperty.Identity]).ConfigureAwait(false);
        }

        string relation = $"{address.ObjectId}";
        string sequence = $"(select d.objid from pg_catalog.pg_depend d where d.refclassid = 'pg_class'::regclass and d.refobjid = {relation} and d.refobjsubid = {address.SubId} and d.deptype = 'i' and d.classid = 'pg_class'::regclass)";
        string? before = await catalog.ScalarAsync(
            $"""
            select format('set generated %s set increment by %s set minvalue %s set maxvalue %s set start with %s set cache %s set %scycle',
                          case a.attidentity when 'a' then 'always' else 'by default' end, seqincrement, seqmin, seqmax, seqstart, seqcache, case when seqcycle then '' else 'no ' end)
            from pg_catalog.pg_attribute a, pg_catalog.pg_sequence s
            where a.attrelid = {relation} and a.attnum = {address.SubId} and a.attidentity <> '' and s.seqrelid = {sequence}
            """,
            r.CancellationToken).ConfigureAwait(false);
        if (before is null)
        {
            return [r.Forward.Unknown($"{column.Identity()} is no identity column in {catalog.Facts.Database} now.")];
        }

        string? name = await catalog.ScalarAsync($"select {sequence}::regclass::text", r.CancellationToken).ConfigureAwait(false);
        string? next = change.Options.Any(o => o.Name == "restart") ? await catalog.ScalarAsync($"select (case when is_called then last_value + (select seqincrement from pg_catalog.pg_sequence where seqrelid = {sequence}) else last_value end)::text from {name}", r.CancellationToken).ConfigureAwait(false) : null;
        string restart = next is null ? "" : $" restart with {next}";
        return
        [
            r.Forward.By(
                $"alter table if exists {column.On} alter column {column.Name} {before}{restart}",
                next is null ? null : "The sequence goes back to where it stood when this script was made: move it on where rows have come since.",
                condition: r.IfMoved(column)),
        ];
    }

    internal static async Task<List<RollbackStatement>> DroppedAsync(Reversing r, ObjectReference column)
    {
        List<RollbackStatement> result = await PropertyReversal.ReverseAsync(r, column, [DefinitionProperty.Identity]).ConfigureAwait(false);
        string none = $"exists (select from pg_catalog.pg_attribute where attrelid = to_regclass({SqlName.Literal(column.On!.ToString())}) and attname = {SqlName.Literal(column.Name.Name)} and attidentity = '')";
        return [.. result.Select(s => s.Reversal is { } sql && sql.Contains("add generated", StringComparison.OrdinalIgnoreCase) ? s with { Reversal = Guard.If(none, sql), Note = "Its sequence is made anew: it begins where it began, so that it has to be moved on behind the rows that are there." } : s)];
    }
}
