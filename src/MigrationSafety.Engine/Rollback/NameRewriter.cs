using System.Text;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Puts into a definition of the catalog, which has the names from before the script, the names at a statement of it.</summary>
internal static class NameRewriter
{
    /// <summary>A definition with the names of now.</summary>
    /// <param name="sql">Definition; every name in it has its schema.</param>
    /// <param name="names">Names at the statement.</param>
    /// <param name="about">What is defined; of its table the columns are renamed too.</param>
    internal static string Now(string sql, ScriptNames names, ObjectReference? about = null)
    {
        ScriptObject[] renamed = [.. names.Renamed];
        (string Before, string Now)[] schemas = [.. names.RenamedSchemas];
        ScriptObject? table = about is null ? null : names.Find(ObjectKind.Table, about.Target) ?? Array.Find(renamed, o => o.Kind.IsRelation() && o.Before == about.Target);
        Dictionary<string, string> columns = table?.Parts.Values.Where(p => p is { Kind: ObjectKind.Column, Before: not null } && p.Before != p.Name).ToDictionary(p => p.Before!.Name, p => p.Name.Name) ?? [];
        if (renamed.Length == 0 && schemas.Length == 0 && columns.Count == 0)
        {
            return sql;
        }

        SqlToken[] tokens = [.. SqlLexer.Tokens(sql)];
        StringBuilder text = new();
        int copied = 0;
        for (int i = 0; i < tokens.Length; i++)
        {
            string? name = SqlReader.NameOf(sql, tokens[i]);
            string? replacement = null;
            int last = i;
            if (name is null)
            {
                replacement = InString(sql, tokens[i], renamed, schemas);
            }
            else if (i + 2 < tokens.Length && tokens[i + 1].Span(sql) is "." && SqlReader.NameOf(sql, tokens[i + 2]) is { } second)
            {
                (replacement, last) = Qualified(new QualifiedName(name, second), i, renamed, schemas);
            }
            else if (columns.TryGetValue(name, out string? column) && !(i + 1 < tokens.Length && tokens[i + 1].Span(sql) is "("))
            {
                replacement = SqlName.QuoteIfNeeded(column);
            }

            if (replacement is not null)
            {
                text.Append(sql, copied, tokens[i].Start - copied).Append(replacement);
                copied = tokens[last].EndIndex;
                i = last;
            }
        }

        return text.Append(sql, copied, sql.Length - copied).ToString();
    }

    /// <summary>The columns under new names that the definition of a part of a table names.</summary>
    internal static IEnumerable<ObjectReference> UsedColumns(string sql, ScriptNames names, ObjectReference about)
    {
        QualifiedName table = names.Renamed.FirstOrDefault(o => o.Kind.IsRelation() && o.Before == about.Target)?.Name ?? about.Target;
        HashSet<string> words = [.. SqlLexer.Tokens(sql).Select(t => SqlReader.NameOf(sql, t)).OfType<string>()];
        return names.Find(ObjectKind.Table, table)?.Parts.Values
            .Where(p => p is { Kind: ObjectKind.Column, Before: { } before } && before != p.Name && words.Contains(before.Name))
            .Select(p => ObjectReference.OfColumn(table, p.Name.Name)) ?? [];
    }

    /// <summary>The objects under new names that a definition names.</summary>
    internal static IEnumerable<ScriptObject> Used(string sql, ScriptNames names)
    {
        SqlToken[] tokens = [.. SqlLexer.Tokens(sql)];
        HashSet<QualifiedName> used = [];
        for (int i = 0; i + 2 < tokens.Length; i++)
        {
            if (tokens[i + 1].Span(sql) is "." && SqlReader.NameOf(sql, tokens[i]) is { } schema && SqlReader.NameOf(sql, tokens[i + 2]) is { } name)
            {
                used.Add(new QualifiedName(schema, name));
            }
        }

        HashSet<string> schemas = [.. used.Select(u => u.Schema!)];
        return names.Renamed.Where(o => o.Kind == ObjectKind.Schema ? schemas.Contains(o.Before!.Name) : !o.Kind.IsRoutine() && used.Contains(o.Before!));
    }

    private static (string? Text, int Last) Qualified(QualifiedName name, int at, ScriptObject[] renamed, (string Before, string Now)[] schemas)
    {
        if (Array.Find(renamed, o => o.Before == name) is { } found)
        {
            return (found.Name.ToString(), at + 2);
        }

        string? schema = Array.Find(schemas, s => s.Before == name.Schema).Now;
        return schema is null ? (null, at) : (SqlName.QuoteIfNeeded(schema), at);
    }

    /// <summary>nextval('public.numbers'::regclass).</summary>
    private static string? InString(string sql, SqlToken token, ScriptObject[] renamed, (string Before, string Now)[] schemas)
    {
        if (token.Kind != SqlTokenKind.String)
        {
            return null;
        }

        string inside = sql[(token.Start + 1)..(token.EndIndex - 1)];
        if (Array.Find(renamed, o => o.Before!.ToString() == inside) is { } found)
        {
            return SqlName.Literal(found.Name.ToString());
        }

        (string before, string? now) = Array.Find(schemas, s => inside.StartsWith(SqlName.QuoteIfNeeded(s.Before) + ".", StringComparison.Ordinal) && Array.TrueForAll(inside.Split('.'), p => p.Length > 0) && !inside.Contains(' ', StringComparison.Ordinal));
        return now is null ? null : SqlName.Literal(SqlName.QuoteIfNeeded(now) + inside[SqlName.QuoteIfNeeded(before).Length..]);
    }
}
