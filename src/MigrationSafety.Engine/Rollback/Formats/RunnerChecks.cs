using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>Finds what the server will refuse, or do otherwise, because of how a tool runs a file.</summary>
internal static class RunnerChecks
{
    /// <summary>What must be known of a file.</summary>
    internal static IEnumerable<string> Of(MigrationFile file)
    {
        MigrationTool tool = MigrationTool.Of(file.Format);
        foreach (string warning in Of(tool, file.Up, ""))
        {
            yield return warning;
        }

        if (file.Down is not { } down)
        {
            yield break;
        }

        string where = down.Path == file.Path ? "Its rollback, l" : $"{down.NameBeside(file)}, l";
        if (!file.HasRollback)
        {
            yield return $"{(down.Path == file.Path ? "Its rollback" : down.NameBeside(file))} holds no statement: it takes nothing back.";
        }

        foreach (string warning in Of(tool, down, where))
        {
            yield return warning;
        }
    }

    private static IEnumerable<string> Of(MigrationTool tool, MigrationSection section, string where)
    {
        foreach (MigrationPart part in section.Parts)
        {
            SqlStatement[] statements = [.. section.Of(part).Where(s => s.Kind == SqlStatementKind.Sql)];
            bool several = statements.Length > 1;
            bool wrapped = part.Mode == RunnerMode.Wrapped;
            foreach (SqlStatement statement in statements)
            {
                ParsedStatement parsed = StatementParser.Parse(statement);
                string line = $"{(where.Length == 0 ? "L" : where)}ine {statement.Line}";
                string what = RollbackText.OneLine(statement.Text, 80);

                // A DO block may commit, and then only needs to stand alone.
                if (parsed is not DoBlock && !SqlFacts.Of(parsed).Transactional)
                {
                    string? why = statement.InTransaction ? "the file opens a transaction before it"
                        : wrapped ? $"{tool.Format} runs it in a transaction"
                        : part.Mode == RunnerMode.OneMessage && several ? $"{tool.Format} sends it together with other statements, which makes them a transaction"
                        : null;
                    if (why is not null)
                    {
                        yield return $"{line}: \"{what}\" will fail, because {why}. To have it run, {tool.OptOut}.";
                    }
                }
                else if (wrapped && statement.Control == TransactionControl.Begin)
                {
                    yield return $"{line}: {tool.Format} has opened a transaction already; this one opens none.";
                }
                else if (wrapped && statement.Control is (TransactionControl.Commit or TransactionControl.Rollback))
                {
                    yield return $"{line}: \"{what}\" ends the transaction that {tool.Format} has opened; what follows is not part of it, nor is {tool.Format}'s own bookkeeping.";

                    // Tools that send a part in one message make a transaction of the rest of it again.
                    wrapped = tool.Format is MigrationFormat.Dbmate or MigrationFormat.Evolve;
                }
            }
        }
    }
}
