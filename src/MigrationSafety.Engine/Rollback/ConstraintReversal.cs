using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What takes VALIDATE CONSTRAINT and ALTER CONSTRAINT back.</summary>
internal static class ConstraintReversal
{
    internal static async Task<List<RollbackStatement>> ValidatedAsync(Reversing r, ObjectReference constraint)
    {
        (RollbackStatement? said, ObjectDefinition? definition) = await ReadAsync(r, constraint).ConfigureAwait(false);
        if (said is not null)
        {
            return [said];
        }

        if (Definition(definition!) is not { Constraint.Traits.NotValid: true } add)
        {
            return [r.Forward.NotNeeded($"The constraint {constraint.Name} was valid before.")];
        }

        string text = NameRewriter.Now(add.Text, r.Names, constraint);
        (string, string?)[] comments = [.. definition!.Statements.Where(s => s is { Alone: false, Property: DefinitionProperty.Comment }).Select(s => (NameRewriter.Now(s.Sql, r.Names, constraint), (string?)null))];
        return
        [
            r.Forward.By(
                [($"alter table if exists {constraint.On} drop constraint if exists {constraint.Name}, {text}", null), .. comments],
                "The constraint goes back to NOT VALID, at once; it holds for what is written either way, so that this may be left out.") with
            {
                // Dropping a foreign key locks its parent too.
                Objects = [constraint.On!.ToString(), .. add.Constraint is ForeignKeyConstraint key ? new[] { NameRewriter.Now(key.Parent.ToString(), r.Names) } : []],
            },
        ];
    }

    internal static async Task<List<RollbackStatement>> AlteredAsync(Reversing r, ObjectReference constraint)
    {
        (RollbackStatement? said, ObjectDefinition? definition) = await ReadAsync(r, constraint).ConfigureAwait(false);
        if (said is not null)
        {
            return [said];
        }

        if (Definition(definition!) is not { } add)
        {
            return [r.Forward.Unknown($"How the constraint {constraint.Name} was before cannot be read from the catalog: write its reversal by hand.")];
        }

        ConstraintTraits traits = add.Constraint.Traits;
        string text = r.Forward.Statement.Text;
        bool Mentions(string word) => r.Forward.Statement.Tokens.Any(t => t.Span(text.Length > 0 ? r.Forward.Statement.Script : "").Equals(word, StringComparison.OrdinalIgnoreCase));
        string alter = $"alter table if exists {constraint.On} alter constraint {constraint.Name}";
        return Mentions("inherit") ? [r.Forward.By($"{alter} {(traits.Inherited == false ? "no inherit" : "inherit")}")]
            : Mentions("enforced") ? [r.Forward.By($"{alter} {(traits.Enforced == false ? "not enforced" : "enforced")}", traits.Enforced == false ? null : "Every row is checked under this lock.")]
            : [r.Forward.By($"{alter} {(traits.Deferrable == true ? "deferrable" : "not deferrable")}{(traits.InitiallyDeferred == true ? " initially deferred" : "")}")];
    }

    private static AddConstraint? Definition(ObjectDefinition definition) =>
        definition[DefinitionProperty.Create] is { } create && StatementParser.Parse(SqlScript.Parse(create.Sql, psql: false).Statements[0]) is AlterTable { Actions: [AddConstraint add] } ? add : null;

    private static async Task<(RollbackStatement? Said, ObjectDefinition? Definition)> ReadAsync(Reversing r, ObjectReference constraint)
    {
        if (r.Made(constraint))
        {
            return (r.Forward.NotNeeded($"It goes with the constraint {constraint.Name}, which this script adds."), null);
        }

        if (r.Catalog is null)
        {
            return (r.Forward.Unknown($"How the constraint {constraint.Name} was before is not in the text. {ForwardStatement.Connect}"), null);
        }

        return await r.FindAsync(constraint).ConfigureAwait(false) is { } address && await r.Catalog.ReadAsync(address, r.CancellationToken).ConfigureAwait(false) is { } definition
            ? (null, definition)
            : (r.Forward.Unknown($"There is no constraint {constraint.Name} on {constraint.On} in {r.Catalog.Facts.Database} now."), null);
    }
}
