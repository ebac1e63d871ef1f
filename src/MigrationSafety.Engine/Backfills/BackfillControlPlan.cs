using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>A backfill that is to be stopped.</summary>
public sealed record BackfillStopPlan : OperationPlan
{
    /// <summary>Its name.</summary>
    public required string Name { get; init; }

    /// <summary>What it does, as the log of operations has it.</summary>
    internal static string ActionOf(string name) => $"Stop backfill {name}";

    /// <summary>The plan for one that was found.</summary>
    public static BackfillStopPlan For(EngineSession session, BackfillStatus status)
    {
        ArgumentNullException.ThrowIfNull(status);
        return new()
        {
            Session = session,
            Action = ActionOf(status.Name),
            Target = $"{status.Schema}.{status.Table}",
            Name = status.Name,
            Steps =
            [
                new MigrationStep
                {
                    Sql = $"update {BackfillStore.Table} set state = 'paused' where name = {SqlName.Literal(status.Name)} and state = 'running'",
                    Purpose = "Have everybody who works on it end after the batch at hand",
                    IsHousekeeping = true,
                    Reversibility = Reversibility.NotNeeded,
                    ReversalNote = "Resume-Backfill goes on with it.",
                },
            ],
        };
    }
}

/// <summary>A backfill whose record is to be removed.</summary>
public sealed record BackfillRemovalPlan : OperationPlan
{
    /// <summary>Its name.</summary>
    public required string Name { get; init; }

    /// <summary>The plan for one that was found.</summary>
    /// <param name="session">Session.</param>
    /// <param name="status">It.</param>
    /// <param name="dropArchive">Whether the table of what it kept goes too.</param>
    public static BackfillRemovalPlan For(EngineSession session, BackfillStatus status, bool dropArchive)
    {
        ArgumentNullException.ThrowIfNull(status);
        MigrationStep[] drop = !dropArchive || status.Archive is null
            ? []
            :
            [
                new MigrationStep
                {
                    Sql = $"drop table if exists {status.Archive}",
                    Purpose = "Drop the table of what was kept",
                    IsHousekeeping = true,
                    Reversibility = Reversibility.Irreversible,
                    ReversalNote = "What the backfill changed, deleted or copied cannot be taken back any more.",
                },
            ];
        return new()
        {
            Session = session,
            Action = $"Remove what is recorded about backfill {status.Name}",
            Target = $"{status.Schema}.{status.Table}",
            Name = status.Name,
            Steps =
            [
                new MigrationStep
                {
                    Sql = $"delete from {BackfillStore.Table} where name = {SqlName.Literal(status.Name)}",
                    Purpose = "Remove its definition, checkpoints and refused rows",
                    IsHousekeeping = true,
                    Reversibility = Reversibility.NotNeeded,
                    ReversalNote = "The table stays as it is; the same Start-Backfill begins anew and passes over what is done.",
                },
                .. drop,
            ],
        };
    }
}
