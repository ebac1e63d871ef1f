using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes SET NOT NULL and DROP NOT NULL back.</summary>
internal static class NotNullReversal
{
    // Below so many rows the scan under ACCESS EXCLUSIVE is shorter than four statements are.
    private const float FewRows = 10_000;

    internal static async Task<List<RollbackStatement>> ReverseAsync(Reversing r, ScriptObject table, ObjectReference column, SetNotNull set)
    {
        string name = SqlName.QuoteIfNeeded(set.Column);
        string alter = $"alter table if exists {column.On} alter column {name}";
        if (r.Catalog is null && !r.Made(column))
        {
            return [r.Forward.Unknown($"Whether {name} was NOT NULL before is not in the text. {ForwardStatement.Connect}", $"{alter} {(set.NotNull ? "drop" : "set")} not null")];
        }

        List<RollbackStatement> plain = await PropertyReversal.ReverseAsync(r, column, [DefinitionProperty.NotNull]).ConfigureAwait(false);
        CatalogRelation? relation = r.Names.Existing(column.On!, r.Forward.Path).Relation;
        if (plain is not [{ Reversal: { } sql }] || !sql.Contains("set not null", StringComparison.OrdinalIgnoreCase) || relation is not { Rows: >= FewRows or < 0 })
        {
            return plain;
        }

        // SET NOT NULL finds that a valid CHECK has proved it, and does not look at the rows under its lock.
        string proof = r.Chooser.Constraint(column.On!, [set.Column], "not_null_proof");
        ObjectReference check = TableActionReversal.ConstraintOf(column.On!, proof);
        string nullable = $"exists (select from pg_catalog.pg_attribute where attrelid = to_regclass({SqlName.Literal(column.On!.ToString())}) and attname = {SqlName.Literal(set.Column)} and not attnotnull)";
        string quoted = SqlName.QuoteIfNeeded(proof);
        return
        [
            r.Forward.By($"alter table {column.On} add constraint {quoted} check ({name} is not null) not valid", "Proves NOT NULL without a scan under ACCESS EXCLUSIVE.", condition: $"{nullable} and {check.Exists()} is not true"),
            r.Forward.By($"alter table {column.On} validate constraint {quoted}", "It fails where the column has got NULL since.", condition: check.Exists()),
            .. plain,
            r.Forward.By($"alter table if exists {column.On} drop constraint if exists {quoted}"),
        ];
    }
}
