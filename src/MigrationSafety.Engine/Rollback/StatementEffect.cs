using MigrationSafety.Engine.Sql;
using MigrationSafety.Engine.Sql.Statements;

namespace MigrationSafety.Engine.Rollback;

/// <summary>What a statement that is not taken back by one of its own does to the database.</summary>
internal enum EffectKind
{
    /// <summary>Cannot be told.</summary>
    Unknown,

    /// <summary>Nothing that lasts: settings of the session, statistics, locks of the transaction.</summary>
    Nothing,

    /// <summary>It writes rows.</summary>
    WritesRows,
}

/// <summary>What a statement does that no reversal is made for.</summary>
/// <param name="Kind">What it does.</param>
/// <param name="Tag">The command; of a query whose WITH writes, that of what writes, because it decides what is lost.</param>
/// <param name="Target">The table that it writes or describes, where it is one alone.</param>
/// <param name="WrittenColumns">The columns that an UPDATE sets; empty for everything else.</param>
internal sealed record StatementEffect(EffectKind Kind, string Tag, QualifiedName? Target, IReadOnlyList<string> WrittenColumns)
{
    /// <summary>The effect of a statement.</summary>
    internal static StatementEffect Of(ParsedStatement parsed)
    {
        switch (parsed)
        {
            case DataStatement data:
                DataStatement[] writing = [.. data.All.Where(s => s is not Query)];
                DataStatement? writes = writing.FirstOrDefault();
                IReadOnlyList<string> columns = writing is [Update update] ? [.. update.Assignments.SelectMany(a => a.Columns)] : [];
                return writes is null ? Unknown(data.Tag) : new StatementEffect(EffectKind.WritesRows, writes.Tag, writing is [_] ? writes.Targets[0] : null, columns);
            case Copy copy:
                return copy.From ? new StatementEffect(EffectKind.WritesRows, copy.Tag, copy.Table, []) : Unknown(copy.Tag);
            case Truncate truncate:
                return new StatementEffect(EffectKind.WritesRows, truncate.Tag, truncate.Targets is [var table] ? table : null, []);
            case SetVariable or SetConstraints or Vacuum or LockTables:
                return new StatementEffect(EffectKind.Nothing, parsed.Tag, null, []);
            case SessionStatement { Command: "SHOW" or "CHECKPOINT" or "LISTEN" or "UNLISTEN" or "DEALLOCATE" or "DEALLOCATE ALL" or "DISCARD ALL" or "DISCARD PLANS" or "DISCARD SEQUENCES" or "DISCARD TEMP" }:
                return new StatementEffect(EffectKind.Nothing, parsed.Tag, null, []);
            case OtherStatement { Tag: "INSERT" or "UPDATE" or "DELETE" or "MERGE" or "TRUNCATE TABLE" }:
                return new StatementEffect(EffectKind.WritesRows, parsed.Tag, null, []);
            default:
                return Unknown(parsed.Tag);
        }
    }

    private static StatementEffect Unknown(string tag) => new(EffectKind.Unknown, tag, null, []);
}
