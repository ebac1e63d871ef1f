using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Makes statements repeatable that have no IF EXISTS of their own.</summary>
internal static class Guard
{
    /// <summary>Runs a statement only if a condition holds.</summary>
    internal static string If(string condition, string sql)
    {
        string tag = "$rollback$";
        for (int i = 1; sql.Contains(tag, StringComparison.Ordinal) || condition.Contains(tag, StringComparison.Ordinal); i++)
        {
            tag = string.Create(System.Globalization.CultureInfo.InvariantCulture, $"$rollback{i}$");
        }

        return $"""
            do {tag}
            begin
                if {condition} then
                    {sql};
                end if;
            end
            {tag}
            """.ReplaceLineEndings("\n");
    }

    /// <summary>The statements that a block of ours guards; the statement itself where it is none.</summary>
    internal static IReadOnlyList<SqlStatement> Inside(SqlStatement statement) =>
        StatementParser.Parse(statement) is DoBlock block && DoBody.Read(block) is { } body ? body.Statements : [statement];

    /// <summary>Runs a statement only if an object is there.</summary>
    internal static string IfThere(ObjectReference o, string sql) => If(o.Exists(), sql);

    /// <summary>Runs a statement only if an object is not there.</summary>
    internal static string IfMissing(ObjectReference o, string sql) => If($"not coalesce({o.Exists()}, false)", sql);
}
