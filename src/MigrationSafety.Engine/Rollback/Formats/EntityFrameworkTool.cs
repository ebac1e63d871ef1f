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

    internal override MigrationFile Read(MigrationSource source) => Read(source, applied: []);

    /// <summary>The history table that the blocks of an idempotent script ask, and its column; null where there are none.</summary>
    internal static (string Table, string Column)? HistoryOf(MigrationFile file) => file.Format == MigrationFormat.EntityFramework && Blocks(file.Source).FirstOrDefault() is (_, { } guard)
        ? (guard.Groups["table"].Value, guard.Groups["column"].Value) : null;

    /// <summary>The file without the migrations that a database has already, whose blocks do nothing there.</summary>
    /// <param name="file">File.</param>
    /// <param name="applied">Ids of the migrations.</param>
    /// <param name="database">Name of the database.</param>
    internal static MigrationFile Without(MigrationFile file, IReadOnlyCollection<string> applied, string database)
    {
        string[] ids = [.. Blocks(file.Source).Where(b => b.Guard.Groups["not"].Success).Select(b => Id(b.Guard)).Distinct()];
        string[] there = [.. ids.Where(applied.Contains)];
        return there.Length == 0 ? file
            : MigrationFile.Complete(Read(file.Source, [.. there]).Warn(
                [$"Of the {RollbackText.Count(ids.Length, "migration")} in it {there.Length} {(there.Length == 1 ? "is" : "are")} in {database} already, as its {History} says: nothing of {(there.Length == 1 ? "it" : "them")} is taken back."]));
    }

    private static MigrationFile Read(MigrationSource source, HashSet<string> applied)
    {
        TextMask mask = new(source.Text);
        mask.Show(0, source.Text.Length);
        List<MigrationPart> parts = [];
        foreach ((SqlStatement block, Match guard) in Blocks(source))
        {
            (int start, int end, Group inner) = (block.Tokens[0].Start, block.Tokens[^1].EndIndex, guard.Groups["inner"]);
            if (guard.Groups["not"].Success && applied.Contains(Id(guard)))
            {
                mask.Hide(start, end);
            }
            else if (inner.ValueSpan.TrimStart().StartsWith("IF ", StringComparison.OrdinalIgnoreCase))
            {
                // An IF of its own, as there is around CREATE SCHEMA, needs the block.
                mask.Hide(guard.Groups["if"].Index, inner.Index);
                mask.Hide(inner.Index + inner.Length, guard.Groups["end"].Index);
            }
            else
            {
                // What stands around the guarded statement goes; it runs inside the block, and so in a transaction.
                mask.Hide(start, inner.Index);
                mask.Hide(inner.Index + inner.Length, end);
            }

            parts.Add(new MigrationPart(start, end, RunnerMode.Wrapped, "idempotent"));
        }

        SqlScript script = SqlScript.Parse(mask.ToString(), psql: true);
        MigrationSection up = new(source.Path, script, parts.Count > 0 ? parts : [new MigrationPart(0, source.Text.Length, RunnerMode.EachStatement)]);
        return new MigrationFile(MigrationFormat.EntityFramework, source, up).Warn(script.Statements.Any(s => s.Is(0, "delete", "from") && s.Text.Contains(History, StringComparison.Ordinal))
            ? ["The script takes rows out of __EFMigrationsHistory: it looks like the script of a way back."] : []);
    }

    /// <summary>The blocks of an idempotent script, with the question that they ask.</summary>
    private static IEnumerable<(SqlStatement Block, Match Guard)> Blocks(MigrationSource source) =>
        from block in SqlScript.Parse(source.Text, psql: true).Statements
        where block.Is(0, "do")
        let body = block.Tokens.FirstOrDefault(t => t.Kind == SqlTokenKind.DollarString)
        where body.Length > 0
        let guard = Guard().Match(source.Text, body.Start, body.Length)
        where guard.Success
        select (block, guard);

    private static string Id(Match guard) => guard.Groups["id"].Value.Replace("''", "'", StringComparison.Ordinal);

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

    [GeneratedRegex("""\A\$[^$]*\$\s*BEGIN\s+(?<if>IF\s+(?<not>NOT\s+)?EXISTS\s*\(\s*SELECT\s+1\s+FROM\s+(?<table>(?:[^\s();]+\.)?"?__EFMigrationsHistory"?)\s+WHERE\s+(?<column>[^\s();]+)\s*=\s*'(?<id>(?:[^']|'')*)'\s*\)\s*THEN)(?<inner>.*?)END\s+IF\s*;\s*(?<end>END\s*;?\s*\$[^$]*\$)\z""", RegexOptions.IgnoreCase | RegexOptions.Singleline)]
    private static partial Regex Guard();

    [GeneratedRegex("""\AINSERT\s+INTO\s+(?<table>(?:[^\s(]+\.)?"?__EFMigrationsHistory"?)\s*\(\s*(?<column>[^\s,]+)\s*,[^)]*\)\s*VALUES\s*\(\s*(?<id>'(?:[^']|'')*')\s*,[^)]*\)\z""", RegexOptions.IgnoreCase | RegexOptions.Singleline)]
    private static partial Regex Row();

    [GeneratedRegex("""\ACREATE\s+TABLE\s+IF\s+NOT\s+EXISTS\s+(?:[^\s(]+\.)?"?__EFMigrationsHistory"?[\s(]""", RegexOptions.IgnoreCase)]
    private static partial Regex CreateTable();
}
