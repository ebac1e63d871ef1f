using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Brings a constraint back to a table that is in use: NOT VALID and VALIDATE, an index that is built beforehand.</summary>
internal static class ConstraintAgain
{
    internal static IEnumerable<RollbackStatement> Of(Reversing r, ObjectReference constraint, IReadOnlyList<DefinitionStatement> statements, IReadOnlySet<string> fresh)
    {
        foreach (DefinitionStatement statement in statements)
        {
            (string sql, string? condition) = r.Now(statement.Sql, constraint);
            if (statement.Property != DefinitionProperty.Create)
            {
                yield return r.Forward.By(sql, condition: condition);
                continue;
            }

            // What its condition reads has another name still: it comes when all names are back.
            if (condition is not null && Parsed(sql) is AlterTable { Actions: [AddConstraint { Constraint: NotNullConstraint }] })
            {
                r.Names.AtTheEnd.AddRange(Again(r, constraint, statement.Sql, null, fresh));
                continue;
            }

            foreach (RollbackStatement again in Again(r, Here(sql, constraint), sql, condition, fresh))
            {
                yield return again;
            }
        }
    }

    /// <summary>The constraint under the names of the statement that adds it.</summary>
    private static ObjectReference Here(string sql, ObjectReference constraint) =>
        Parsed(sql) is AlterTable alter ? constraint with { On = alter.Table } : constraint;

    private static ParsedStatement Parsed(string sql) => StatementParser.Parse(SqlScript.Parse(sql, psql: false).Statements[0]);

    private static IEnumerable<RollbackStatement> Again(Reversing r, ObjectReference constraint, string sql, string? condition, IReadOnlySet<string> fresh)
    {
        string missing = $"{constraint.Missing()}{(condition is null ? "" : $" and {condition}")}";
        bool partitioned = r.Names.Existing(constraint.On!, r.Forward.Path).Relation is { Kind: 'p' };
        AddConstraint? add = (Parsed(sql) as AlterTable)?.Actions is [AddConstraint action] ? action : null;
        string name = SqlName.QuoteIfNeeded(constraint.Name.Name);
        switch (add?.Constraint)
        {
            case CheckConstraint or ForeignKeyConstraint when !add.Constraint.Traits.NotValid && add.Constraint.Traits.Enforced != false:
                yield return r.Forward.By(sql + " not valid", "Rows that are there are checked by the next statement, while reads and writes go on.", condition: missing);
                yield return add.Constraint is ForeignKeyConstraint key && fresh.Contains(key.Parent.ToString())
                    ? Validated(r, constraint, name)
                    : r.Forward.By($"alter table {constraint.On} validate constraint {name}", "It fails where rows have come since that the constraint forbids.", condition: condition is null ? null : $"{constraint.Exists()} and {condition}");
                break;
            case UniqueConstraint { UsingIndex: null, WithoutOverlaps: false } unique when !partitioned && condition is null:
                string traits = Traits(unique);
                string columns = string.Join(", ", unique.Columns.Select(SqlName.QuoteIfNeeded));
                string include = unique.Include.Count == 0 ? "" : $" include ({string.Join(", ", unique.Include.Select(SqlName.QuoteIfNeeded))})";
                string with = unique.Options.Count == 0 ? "" : $" with ({string.Join(", ", unique.Options.Select(o => $"{o.Name}={o.Value.Text}"))})";
                string distinct = unique.NullsNotDistinct ? " nulls not distinct" : "";
                string space = unique.Tablespace is { } tablespace ? $" tablespace {SqlName.QuoteIfNeeded(tablespace)}" : "";
                yield return r.Forward.By(
                    $"create unique index concurrently if not exists {name} on {constraint.On} ({columns}){include}{distinct}{with}{space}",
                    "It is built while reads and writes go on; the constraint takes it over.");
                yield return r.Forward.By(
                    $"alter table {constraint.On} add constraint {name} {(unique.Primary ? "primary key" : "unique")} using index {name}{traits}", condition: missing);
                break;
            case NotNullConstraint notNull:
                yield return r.Forward.By(sql, "NOT NULL comes back only where every row has a value: fill the column, and run this again.", condition: $"{missing} and not exists (select from {constraint.On} where {SqlName.QuoteIfNeeded(notNull.Column)} is null)");
                break;
            default:
                yield return r.Forward.By(sql, add?.Constraint is ExcludeConstraint ? "PostgreSQL builds the index of EXCLUDE under this lock: reads and writes stop for as long as that takes." : null, condition: missing);
                break;
        }
    }

    /// <summary>VALIDATE of a foreign key whose parent comes back without its rows.</summary>
    private static RollbackStatement Validated(Reversing r, ObjectReference constraint, string name)
    {
        string validate = $"alter table {constraint.On} validate constraint {name}";
        RollbackStatement plain = r.Forward.By(validate, "Where rows refer to some that are lost, it stays NOT VALID, with a warning.");
        string block = $"""
            do $rollback$
            begin
                {validate};
            exception when foreign_key_violation then
                raise warning '% stays NOT VALID: %', {SqlName.Literal(constraint.Name.ToString())}, sqlerrm;
            end
            $rollback$
            """.ReplaceLineEndings("\n");
        return plain with { Reversal = block };
    }

    private static string Traits(UniqueConstraint unique) =>
        (unique.Traits.Deferrable == true ? " deferrable" : "") + (unique.Traits.InitiallyDeferred == true ? " initially deferred" : "");
}
