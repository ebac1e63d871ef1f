using System.Globalization;
using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What data a migration and its rollback lose, and from when on.</summary>
internal sealed class Losses
{
    // Statements of the migration, first one first.
    private readonly RollbackStatement[] _byMigration;
    private readonly RollbackStatement[] _withoutWayBack;
    private readonly int[] _byRollback;
    private readonly bool _unknown;

    private Losses(RollbackStatement[] byMigration, RollbackStatement[] withoutWayBack, int[] byRollback, bool unknown) =>
        (_byMigration, _withoutWayBack, _byRollback, _unknown) = (byMigration, withoutWayBack, byRollback, unknown);

    /// <summary>Whether any is lost.</summary>
    internal bool Any => _byMigration.Length > 0 || _byRollback.Length > 0;

    /// <summary>Who loses data.</summary>
    internal string Said => string.Join("; ", new[]
    {
        Any ? "yes, " + string.Join(" and ", new[]
        {
            _byMigration.Length > 0 ? $"by the migration ({Lines(_byMigration)}), which this rollback does not bring back{(_byRollback.Length > 0 ? "," : "")}" : null,
            _byRollback.Length > 0 ? $"by {RollbackHeader.Listed(_byRollback)} of this rollback" : null,
        }.OfType<string>()) : _unknown ? null : "none",
        _unknown ? "not known of the statements that are NOT REVERSED" : null,
    }.OfType<string>());

    /// <summary>How long the rollback does its work.</summary>
    internal string Window => string.Join("; ", new[]
    {
        _unknown ? "not known: see what is NOT REVERSED" : null,
        _withoutWayBack.FirstOrDefault() is { } first ? $"only until {Line(first)} of the migration has run" : null,
        _withoutWayBack.Length == 0 && _byMigration.FirstOrDefault() is { } loses ? $"for the data that the migration takes away, until {Line(loses)} of it has run" : null,
        _byRollback.Length > 0
            ? $"until the application writes to what {RollbackHeader.Listed(_byRollback)} drop{(_byRollback.Length == 1 ? "s" : "")} or overwrite{(_byRollback.Length == 1 ? "s" : "")}: what it writes from then on is lost"
            : null,
        _withoutWayBack.Length == 0 && _byRollback.Length == 0 && !_unknown ? $"{(_byMigration.Length > 0 ? "for the schema " : "")}any time, as long as no later migration builds on this one" : null,
    }.OfType<string>());

    /// <summary>After what nothing brings back all that was there.</summary>
    internal string PointOfNoReturn
    {
        get
        {
            RollbackStatement? first = _withoutWayBack.Concat(_byMigration).MinBy(s => s.Line ?? int.MaxValue);
            string migration = first is not null ? $"of the migration, {Line(first)}{(first.Line is null ? "" : $" ({RollbackText.OneLine(first.Statement, 60)})")}"
                : _unknown ? "not known: see what is NOT REVERSED"
                : "none in the migration";
            return _byRollback.Length == 0 ? migration : string.Create(CultureInfo.InvariantCulture, $"{migration}; of this rollback, statement {_byRollback[0]}: after it, what it drops or overwrites is in backups only");
        }
    }

    /// <summary>The losses of a rollback.</summary>
    /// <param name="statements">Statements, last forward statement first.</param>
    /// <param name="running">Those that are run.</param>
    internal static Losses Of(IReadOnlyList<RollbackStatement> statements, RollbackStatement[] running)
    {
        static bool Loses(RollbackStatement s) => s.Reversibility == Reversibility.ReversibleWithDataLoss;
        return new Losses(
            [.. statements.Where(s => Loses(s) ? !TakesAway(s.Reversal!) : s.Reversibility == Reversibility.Irreversible && TakesAway(s.Statement)).Reverse()],
            [.. statements.Where(s => s.Reversibility == Reversibility.Irreversible).Reverse()],
            [.. RollbackHeader.Numbers(running, s => Loses(s) && TakesAway(s.Reversal!))],
            statements.Any(s => s.Reversibility == Reversibility.Unknown));
    }

    /// <summary>Whether statements themselves take data away. One that loses data without doing so only makes again what has lost it before.</summary>
    private static bool TakesAway(string sql) => SqlScript.Parse(sql, psql: false).Statements.SelectMany(Guard.Inside).Select(StatementParser.Parse).Any(p => p switch
    {
        DropObjects or Update or Delete or Merge or Truncate or DoBlock => true,
        AlterTable alter => alter.Actions.Any(a => a is DropColumn),
        DataStatement data => data.All.Any(s => s is Update or Delete or Merge),
        _ => false,
    });

    private static string Lines(RollbackStatement[] statements) => string.Join(", ", statements.Select(Line).Distinct());

    private static string Line(RollbackStatement statement) =>
        statement.Line is { } line ? string.Create(CultureInfo.InvariantCulture, $"line {line}") : $"\"{RollbackText.OneLine(statement.Statement, 60)}\"";
}
