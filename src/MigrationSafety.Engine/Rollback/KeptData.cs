using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Keeps what UPDATE, DELETE and TRUNCATE lose.</summary>
internal static class KeptData
{
    /// <summary>What brings the rows or values of a statement back; null where they cannot be kept beforehand.</summary>
    internal static List<RollbackStatement>? TryKeep(Reversing r, ParsedStatement parsed)
    {
        if (r.Archive is not { } archive || r.Catalog is null || parsed is DataStatement { With.Count: > 0 })
        {
            return null;
        }

        switch (parsed)
        {
            case Update update when Table(r, update.Table) is { Relation: { PrimaryKey.Count: > 0 } relation } table && !NamesWhatIsMade(r):
            {
                string alias = Alias(r);
                string[] columns = [.. update.Assignments.SelectMany(a => a.Columns).Distinct()];
                if (columns.Any(relation.PrimaryKey.Contains))
                {
                    return null;
                }

                string query = Select([.. relation.PrimaryKey, .. columns], alias, update.Table, update.Only, update.From, update.Predicate);
                QualifiedName kept = archive.Keep(r, table.Name, string.Join('_', columns), query);
                return [DataArchive.Values(r, kept, table.Name, relation.PrimaryKey, columns, false, "The values from before; what has been written there since is lost.")];
            }

            case Delete delete when Table(r, delete.Table) is { Relation: { } relation } table && !NamesWhatIsMade(r):
            {
                string alias = Alias(r);
                string query = Select(relation.StoredColumns, alias, delete.Table, delete.Only, delete.Using, delete.Predicate);
                QualifiedName kept = archive.Keep(r, table.Name, "", query);
                return [DataArchive.Rows(r, kept, table.Name, relation.StoredColumns, "The rows that were deleted; what foreign keys deleted with them does not come back.")];
            }

            case Truncate { Cascade: false } truncate when truncate.Tables.All(t => Table(r, t.Name) is { Relation: not null }) && !NamesWhatIsMade(r):
                List<RollbackStatement> all = [];
                foreach ((QualifiedName name, bool only) in truncate.Tables)
                {
                    ResolvedName table = Table(r, name)!;
                    QualifiedName kept = archive.Keep(r, table.Name, "", Select(table.Relation!.StoredColumns, "t", name, only, null, null));
                    all.Add(DataArchive.Rows(r, kept, table.Name, table.Relation.StoredColumns, truncate.RestartIdentity ? "The rows; sequences that were restarted go on from where they stand." : "The rows."));
                }

                return all;
            default:
                return null;
        }
    }

    private static ResolvedName? Table(Reversing r, QualifiedName name)
    {
        ResolvedName table = r.Names.Existing(name, r.Forward.Path);

        // What is kept beforehand is read under the names from before.
        return table.Known && r.Names.BeforeScript(ObjectKind.Table, table.Name) == table.Name ? table : null;
    }

    /// <summary>Whether a word of the statement is something that the script makes or renames, so that it cannot be asked beforehand.</summary>
    private static bool NamesWhatIsMade(Reversing r) => r.Forward.Statement.Tokens.Select(t => SqlReader.NameOf(r.Forward.Statement.Script, t)).OfType<string>().Any(r.Names.MakesOrRenames);

    private static string Select(IEnumerable<string> columns, string alias, QualifiedName table, bool only, SqlFragment? others, SqlFragment? where)
    {
        string named = alias.Length == 0 ? "" : $" as {alias}";
        string prefix = alias.Length == 0 ? SqlName.QuoteIfNeeded(table.Name) : alias;
        return $"select {string.Join(", ", columns.Select(c => $"{prefix}.{SqlName.QuoteIfNeeded(c)}"))} from {(only ? "only " : "")}{table}{named}{(others is { } from ? ", " + from.Text : "")}{(where is { } predicate ? " where " + predicate.Text : "")}";
    }

    /// <summary>The alias behind the table's name; empty where there is none.</summary>
    private static string Alias(Reversing r)
    {
        SqlReader reader = new(r.Forward.Statement);
        _ = reader.Take("update") || reader.Take("delete", "from");
        reader.Table();
        _ = reader.Take("as");
        return reader.AtEnd || reader.Sees("set") || reader.Sees("using") || reader.Sees("where") || reader.Sees("returning") ? "" : SqlName.QuoteIfNeeded(reader.Name());
    }
}
