using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>A statement of a migration, and the outcomes that its reversal can have.</summary>
/// <param name="Statement">Statement.</param>
/// <param name="Path">The search_path that the script has set before it.</param>
internal sealed record ForwardStatement(SqlStatement Statement, ScriptPath? Path)
{
    /// <summary>What to write where only the catalog knows.</summary>
    internal const string Connect = "Connect before the migration runs: the catalog tells it.";

    /// <summary>Nothing has to be taken back.</summary>
    internal RollbackStatement NotNeeded(string why) => Outcome(Reversibility.NotNeeded, why);

    /// <summary>Nobody can take it back.</summary>
    internal RollbackStatement Irreversible(string why) => Outcome(Reversibility.Irreversible, why);

    /// <summary>It cannot be told; a proposal is shown and not run.</summary>
    internal RollbackStatement Unknown(string why, string? proposal = null) => Outcome(Reversibility.Unknown, why) with { Reversal = proposal };

    /// <summary>A reversal whose locks are known.</summary>
    /// <param name="sql">Statement.</param>
    /// <param name="lossy">Whether it loses data.</param>
    /// <param name="mode">Its strongest lock.</param>
    /// <param name="objects">What it locks.</param>
    /// <param name="notes">What must be known; empty ones are passed over.</param>
    internal RollbackStatement By(string sql, bool lossy, TableLockMode mode, IEnumerable<QualifiedName> objects, IEnumerable<string?> notes) =>
        Outcome(lossy ? Reversibility.ReversibleWithDataLoss : Reversibility.Reversible, string.Join(' ', notes.Where(n => !string.IsNullOrEmpty(n)))) with
        {
            Reversal = sql,
            LockMode = mode,
            Objects = [.. objects.Select(o => o.ToString()).Distinct()],
            Transactional = mode != TableLockMode.ShareUpdateExclusive,
        };

    /// <summary>A reversal whose words tell its locks.</summary>
    /// <param name="sql">Statement.</param>
    /// <param name="note">What must be known.</param>
    /// <param name="lossy">Whether it loses data.</param>
    /// <param name="condition">Condition under which alone it is run, so that it may be repeated; null where it may be anyway.</param>
    internal RollbackStatement By(string sql, string? note = null, bool lossy = false, string? condition = null) => By([(sql, condition)], note, lossy);

    /// <summary>A reversal of several statements, which are one transaction.</summary>
    /// <param name="parts">Statements, each with the condition under which alone it is run.</param>
    /// <param name="note">What must be known.</param>
    /// <param name="lossy">Whether it loses data.</param>
    internal RollbackStatement By(IReadOnlyList<(string Sql, string? Condition)> parts, string? note = null, bool lossy = false)
    {
        SqlFacts[] facts = [.. parts.SelectMany(p => SqlScript.Parse(p.Sql, psql: false).Statements).Select(s => SqlFacts.Of(StatementParser.Parse(s)))];
        TableLockMode mode = facts.Select(f => f.LockMode).DefaultIfEmpty(TableLockMode.None).Max();
        return Outcome(lossy ? Reversibility.ReversibleWithDataLoss : Reversibility.Reversible, note ?? "") with
        {
            Reversal = string.Join(";\n", parts.Select(p => p.Condition is null ? p.Sql : Guard.If(p.Condition, p.Sql))),
            LockMode = mode,
            Objects = [.. facts.SelectMany(f => f.Locks).Where(l => l.Mode == mode && !l.Index).Select(l => l.Name.ToString()).Distinct()],
            Transactional = facts.All(f => f.Transactional),
        };
    }

    private RollbackStatement Outcome(Reversibility reversibility, string note) => new()
    {
        Statement = Statement.Text,
        Reversibility = reversibility,
        Note = note.Length == 0 ? null : note,
        Line = Statement.Line,
    };
}
