using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>A statement of a migration, and the outcomes that its reversal can have.</summary>
/// <param name="Statement">Statement.</param>
/// <param name="Path">The search_path that the script has set before it.</param>
internal sealed record ForwardStatement(SqlStatement Statement, ScriptPath? Path)
{
    /// <summary>Nothing has to be taken back.</summary>
    internal RollbackStatement NotNeeded(string why) => Outcome(Reversibility.NotNeeded, why);

    /// <summary>Nobody can take it back.</summary>
    internal RollbackStatement Irreversible(string why) => Outcome(Reversibility.Irreversible, why);

    /// <summary>It cannot be told; a proposal is shown and not run.</summary>
    internal RollbackStatement Unknown(string why, string? proposal = null) => Outcome(Reversibility.Unknown, why) with { Reversal = proposal };

    /// <summary>A reversal.</summary>
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

    private RollbackStatement Outcome(Reversibility reversibility, string note) => new()
    {
        Statement = Statement.Text,
        Reversibility = reversibility,
        Note = note.Length == 0 ? null : note,
        Line = Statement.Line,
    };
}
