using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback.Proof;

/// <summary>Refuses what a scratch database does not keep in: it would change the whole server, or another one.</summary>
internal static class ScriptGuard
{
    // By their command tags. What a DO block or a function does cannot be told from the text.
    private static readonly HashSet<string> s_global = new(StringComparer.Ordinal)
    {
        "CREATE ROLE", "ALTER ROLE", "DROP ROLE", "GRANT ROLE", "REVOKE ROLE", "CREATE DATABASE", "ALTER DATABASE", "DROP DATABASE",
        "CREATE TABLESPACE", "ALTER TABLESPACE", "DROP TABLESPACE", "ALTER SYSTEM", "DROP OWNED", "REASSIGN OWNED",
        "CREATE SUBSCRIPTION", "ALTER SUBSCRIPTION", "DROP SUBSCRIPTION",
    };

    /// <summary>Looks through a section before anything runs.</summary>
    /// <param name="section">Section.</param>
    /// <exception cref="MigrationException"><c>GlobalStatement</c>, <c>MetaCommandNotRun</c>.</exception>
    internal static void Check(MigrationSection section)
    {
        foreach (SqlStatement statement in section.Script.Statements)
        {
            string at = $"{section.Path}:{statement.Line}";
            string text = RollbackText.OneLine(statement.Text, 200);
            if (statement.Kind == SqlStatementKind.MetaCommand && !RollbackPlanner.IsHarmless(SqlScript.MetaCommandName(statement.Text)))
            {
                throw new MigrationException(
                    "MetaCommandNotRun",
                    MigrationErrorKind.NotSupported,
                    $"{at}: {text}: this command of psql is not run here.",
                    "Write the statements into the file itself, and test that.")
                {
                    Target = at,
                };
            }

            if (statement.Kind == SqlStatementKind.Sql && statement.Control == TransactionControl.None && IsGlobal(StatementParser.Parse(statement)))
            {
                throw new MigrationException(
                    "GlobalStatement",
                    MigrationErrorKind.NotSupported,
                    $"{at}: {text}: this changes more than a database, and so more than the scratch database would keep in.",
                    "Move what concerns roles, tablespaces, databases and subscriptions into a file of its own, run it by hand on the test server, and test the rest.")
                {
                    Target = at,
                };
            }
        }
    }

    private static bool IsGlobal(ParsedStatement parsed) => s_global.Contains(parsed.Tag) || parsed switch
    {
        CommentOn { Object.Kind: ObjectKind.Role or ObjectKind.Database or ObjectKind.Tablespace } => true,
        GrantPrivileges { Kind: ObjectKind.Database or ObjectKind.Tablespace or ObjectKind.Parameter } => true,
        SecurityLabel { Object.Kind: ObjectKind.Role or ObjectKind.Database or ObjectKind.Tablespace } => true,
        _ => false,
    };
}
