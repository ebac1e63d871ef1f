using System.Text.RegularExpressions;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>
/// Scripts of <c>dotnet ef migrations script</c>. They carry their transactions themselves; idempotent ones put each statement into a DO block that asks
/// __EFMigrationsHistory first. There is one script a direction, and no rule how the other one is named.
/// </summary>
internal sealed partial class EntityFrameworkTool : MigrationTool
{
    private const string History = "__EFMigrationsHistory";

    internal override MigrationFormat Format => MigrationFormat.EntityFramework;

    internal override string OptOut => "call migrationBuilder.Sql with suppressTransaction: true, and make the script without --idempotent: a DO block is always in a transaction";

    internal override bool Recognises(MigrationSource source) => source.Text.Contains(History, StringComparison.Ordinal);

    internal override MigrationFile Read(MigrationSource source)
    {
        TextMask mask = new(source.Text);
        mask.Show(0, source.Text.Length);
        List<MigrationPart> parts = [];
        foreach (SqlStatement block in SqlScript.Parse(source.Text, psql: true).Statements.Where(s => s.Is(0, "do")))
        {
            if (block.Tokens.FirstOrDefault(t => t.Kind == SqlTokenKind.DollarString) is { Length: > 0 } body && Guard().Match(source.Text, body.Start, body.Length) is { Success: true } guard)
            {
                // What stands around the guarded statement goes; it runs inside the block, and so in a transaction.
                mask.Hide(block.Tokens[0].Start, guard.Groups["inner"].Index);
                mask.Hide(guard.Groups["inner"].Index + guard.Groups["inner"].Length, block.Tokens[^1].EndIndex);
                parts.Add(new MigrationPart(block.Tokens[0].Start, block.Tokens[^1].EndIndex, RunnerMode.Wrapped, "idempotent"));
            }
        }

        SqlScript script = SqlScript.Parse(mask.ToString(), psql: true);
        MigrationSection up = new(source.Path, script, parts.Count > 0 ? parts : [new MigrationPart(0, source.Text.Length, RunnerMode.EachStatement)]);
        return new MigrationFile(Format, source, up).Warn(script.Statements.Any(s => s.Is(0, "delete", "from") && s.Text.Contains(History, StringComparison.Ordinal))
            ? ["The script takes rows out of __EFMigrationsHistory: it looks like the script of a way back."] : []);
    }

    /// <summary>What the history of migrations needs: its row goes with the rollback, its table stays.</summary>
    internal static RollbackStatement WithHistory(RollbackStatement statement)
    {
        if (!statement.Statement.Contains(History, StringComparison.Ordinal))
        {
            return statement;
        }

        if (Row().Match(statement.Statement) is { Success: true } row)
        {
            string sql = $"DELETE FROM {row.Groups["table"].Value} WHERE {row.Groups["column"].Value} = {row.Groups["id"].Value}";
            return statement with { Reversal = sql, Reversibility = Reversibility.Reversible, LockMode = TableLockMode.RowExclusive, Objects = [row.Groups["table"].Value], Note = "Without its row Entity Framework will apply the migration again." };
        }

        return CreateTable().IsMatch(statement.Statement)
            ? statement with { Reversal = null, Reversibility = Reversibility.NotNeeded, LockMode = TableLockMode.None, Objects = [], Note = "The table of Entity Framework's own bookkeeping stays." }
            : statement;
    }

    [GeneratedRegex("""\A\$[^$]*\$\s*BEGIN\s+IF\s+(?:NOT\s+)?EXISTS\s*\(\s*SELECT\s+1\s+FROM\s+[^;]*?__EFMigrationsHistory[^;]*?\)\s*THEN(?<inner>.*?)END\s+IF\s*;\s*END\s*;?\s*\$[^$]*\$\z""", RegexOptions.IgnoreCase | RegexOptions.Singleline)]
    private static partial Regex Guard();

    [GeneratedRegex("""\AINSERT\s+INTO\s+(?<table>(?:[^\s(]+\.)?"?__EFMigrationsHistory"?)\s*\(\s*(?<column>[^\s,]+)\s*,[^)]*\)\s*VALUES\s*\(\s*(?<id>'(?:[^']|'')*')\s*,[^)]*\)\z""", RegexOptions.IgnoreCase | RegexOptions.Singleline)]
    private static partial Regex Row();

    [GeneratedRegex("""\ACREATE\s+TABLE\s+IF\s+NOT\s+EXISTS\s+(?:[^\s(]+\.)?"?__EFMigrationsHistory"?[\s(]""", RegexOptions.IgnoreCase)]
    private static partial Regex CreateTable();
}
