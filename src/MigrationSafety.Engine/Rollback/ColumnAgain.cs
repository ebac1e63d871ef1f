using System.Text.RegularExpressions;
using MigrationSafety.Engine.Schema.Definitions;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Brings a dropped column back.</summary>
internal static partial class ColumnAgain
{
    /// <summary>What adds the column, gives it the values that were kept, and makes it NOT NULL where it was.</summary>
    /// <param name="r">The statement that drops it.</param>
    /// <param name="column">The column by its name before the script.</param>
    /// <param name="statements">The statements of its definition.</param>
    internal static List<RollbackStatement> Of(Reversing r, ObjectReference column, IReadOnlyList<DefinitionStatement> statements)
    {
        DefinitionStatement create = statements.First(s => s.Property == DefinitionProperty.Create);
        AddColumn? add = StatementParser.Parse(SqlScript.Parse(create.Sql, psql: false).Statements[0]) is AlterTable { Actions: [AddColumn action] } ? action : null;
        bool computed = add?.Column is { Generated: not null } or { Identity: not null };

        // Rows that are there have no value: NOT NULL without a default would fail on the first of them.
        bool notNull = add?.Column is { NotNull: true, Default: null } && !computed;
        QualifiedName now = Now(r, column.On!);
        string missing = (column with { On = now }).Missing();
        string? there = now == column.On ? null : new ObjectReference(ObjectKind.Table, now).Exists();
        (string, string?) Part(DefinitionStatement s)
        {
            string sql = NameRewriter.Now(s == create && notNull ? NotNull().Replace(s.Sql, "", 1) : s.Sql, r.Names, column);

            // Where the script gives the column another name, the old one is there only when all has been taken back.
            bool renamed = sql != NameRewriter.Now(s == create && notNull ? NotNull().Replace(s.Sql, "", 1) : s.Sql, r.Names);
            if (s == create && there is null && !renamed)
            {
                return (AddColumnWords().Replace(sql, "add column if not exists ", 1), null);
            }

            string?[] conditions = [there, s == create || renamed ? missing : null];
            string[] all = [.. conditions.OfType<string>()];
            return (sql, all.Length == 0 ? null : string.Join(" and ", all));
        }

        (string, string?)[] parts = [.. statements.Select(Part)];
        CatalogRelation? table = column.On is { Schema: { } schema } on ? r.Names.Catalog?.Find(schema, on.Name) : null;
        string Renamed(string name) => NameRewriter.UsedColumns(SqlName.Quote(name), r.Names, column).FirstOrDefault()?.Name.Name ?? name;
        string? notKept = r.Archive is null || computed ? null
            : table is null ? "it is not named in the migration"
            : table.NoKey ?? (table.Key.Contains(column.Name.Name) ? "it is part of the key by which a row would be found again" : null);
        bool kept = r.Archive is not null && !computed && notKept is null;
        string loss = add?.Column.Generated is not null ? "The column comes back as the last one; its values are computed again, with a rewrite of the table."
            : $"The column comes back, as the last one, without its values{(table is { Rows: >= 0 } ? string.Create(System.Globalization.CultureInfo.InvariantCulture, $" (about {(long)table.Rows} rows)") : "")}: these are lost.{(notKept is null ? "" : $" They are not kept: {table?.Schema}.{table?.Name}: {notKept}.")}";
        List<RollbackStatement> result =
        [
            r.Forward.By(parts, kept ? "The column comes back as the last one." : loss, !kept) with { EstimatedRows = kept || table is not { Rows: >= 0 } ? null : (long)table.Rows },
        ];
        if (kept)
        {
            string columns = string.Join(", ", table!.Key.Append(column.Name.Name).Select(SqlName.QuoteIfNeeded));
            QualifiedName archive = r.Archive!.Keep(r, column.On!, column.Name.Name, $"select {columns} from {table.Source}");
            result.Add(DataArchive.Values(r, archive, now, table, table.Key.Select(k => (Renamed(k), k)), [(Renamed(column.Name.Name), column.Name.Name)], true, "The values as they were kept; rows that have come since have none."));
        }

        if (notNull)
        {
            string name = SqlName.QuoteIfNeeded(column.Name.Name);
            RollbackStatement again = r.Forward.By(
                $"alter table {column.On} alter column {name} set not null",
                "NOT NULL comes back only where every row has a value: fill the column, and run this again.",
                !kept,
                $"not exists (select from {column.On} where {name} is null)");

            // A condition cannot name what has another name still.
            if (now == column.On && Renamed(column.Name.Name) == column.Name.Name)
            {
                result.Add(again);
            }
            else
            {
                r.Names.AtTheEnd.Add(again);
            }
        }

        return result;
    }

    private static QualifiedName Now(Reversing r, QualifiedName table) => r.Names.Renamed.FirstOrDefault(o => o.Before == table && o.Kind.IsRelation())?.Name ?? table;

    [GeneratedRegex(@"\badd\s+column\s+", RegexOptions.IgnoreCase)]
    private static partial Regex AddColumnWords();

    [GeneratedRegex(@"\s+not\s+null\b", RegexOptions.IgnoreCase)]
    private static partial Regex NotNull();
}
