using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Rollback.Formats;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Rollback;

/// <summary>Makes rollback scripts: from the text of a migration, with or without the catalog, and from steps that ran.</summary>
public static class RollbackGenerator
{
    /// <summary>
    /// Makes the rollback of a migration from its text alone. What depends on the state of the database (IF NOT EXISTS, names that PostgreSQL chooses, schemas
    /// that search_path finds) is marked.
    /// </summary>
    /// <param name="file">The migration.</param>
    /// <returns>The rollback.</returns>
    public static RollbackScript FromFile(MigrationFile file)
    {
        ArgumentNullException.ThrowIfNull(file);

        // Without a catalog nothing is waited for.
        List<RollbackStatement> statements = RollbackPlanner.PlanAsync(file.Up.Script, null, null, CancellationToken.None).GetAwaiter().GetResult();
        return RollbackText.Compose(file.Name, statements, null, file);
    }

    /// <summary>Makes the rollback of a migration from its text and the catalog as it is before the migration runs. Reads only.</summary>
    /// <param name="session">Session in which the migration is going to run.</param>
    /// <param name="file">The migration.</param>
    /// <param name="preserveData">Whether what would be lost is kept before the migration, and brought back by the rollback.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The rollback.</returns>
    /// <exception cref="MigrationException">The catalog cannot be read.</exception>
    public static async Task<RollbackScript> FromFileAsync(EngineSession session, MigrationFile file, bool preserveData, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(sink);
        return await OfPendingAsync(session, await PendingAsync(session, file, sink, cancellationToken).ConfigureAwait(false), preserveData, sink, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>A migration without the part that a database has already, by the history that the migration itself asks.</summary>
    /// <param name="session">Session in that database.</param>
    /// <param name="file">The migration.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<MigrationFile> PendingAsync(EngineSession session, MigrationFile file, IOperationSink sink, CancellationToken cancellationToken)
    {
        if (EntityFrameworkTool.HistoryOf(file) is not var (history, column))
        {
            return file;
        }

        try
        {
            NpgsqlConnection connection = await session.OpenAsync("rollback", sink, cancellationToken).ConfigureAwait(false);
            await using (connection.ConfigureAwait(false))
            {
                await using NpgsqlCommand exists = new($"select to_regclass({SqlName.Literal(history)}) is not null", connection);
                if (!(bool)(await exists.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!)
                {
                    return file;
                }

                await using NpgsqlCommand ids = new($"select coalesce(pg_catalog.array_agg({column}::text), '{{}}') from {history}", connection);
                return EntityFrameworkTool.Without(file, (string[])(await ids.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!, session.Info.ToString());
            }
        }
        catch (NpgsqlException e)
        {
            throw ServerErrors.Translate(e, $"Reading the history of migrations for {file.Name}");
        }
    }

    /// <summary>The rollback of all that a migration holds, as <see cref="PendingAsync"/> leaves it.</summary>
    internal static async Task<RollbackScript> OfPendingAsync(EngineSession session, MigrationFile file, bool preserveData, IOperationSink sink, CancellationToken cancellationToken)
    {
        try
        {
            RollbackCatalog catalog = await RollbackCatalog.OpenAsync(session, file.Up.Script, sink, cancellationToken).ConfigureAwait(false);
            await using (catalog.ConfigureAwait(false))
            {
                DataArchive? archive = preserveData ? new DataArchive(file.Name) : null;
                List<RollbackStatement> statements = await RollbackPlanner.PlanAsync(file.Up.Script, catalog, archive, cancellationToken).ConfigureAwait(false);
                return RollbackText.Compose(file.Name, statements, catalog.Facts.Database, file) with { BeforeText = archive?.Before is { Count: > 0 } before ? RollbackText.Before(file.Name, before) : null };
            }
        }
        catch (NpgsqlException e)
        {
            throw ServerErrors.Translate(e, $"Reading the catalog for the rollback of {file.Name}");
        }
    }

    /// <summary>Makes the rollback of steps that ran, from the reversals that they carry.</summary>
    /// <param name="source">What they come from, such as the operation's name.</param>
    /// <param name="steps">Steps with their outcome. Of those that failed, the ones are taken back that may leave something behind.</param>
    /// <returns>The rollback.</returns>
    public static RollbackScript FromSteps(string source, IReadOnlyList<MigrationStep> steps)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(steps);
        return RollbackText.Compose(source, [.. steps.Reverse().SelectMany(Reverse)], null);
    }

    /// <summary>Whether <see cref="FromSteps"/> takes them back, without its script.</summary>
    /// <param name="steps">Steps with their outcome.</param>
    /// <returns>What the worst of them is.</returns>
    internal static Reversibility ReversibilityOf(IEnumerable<MigrationStep> steps) => RollbackText.Worst(steps.SelectMany(Reverse));

    /// <summary>The steps that apply a rollback. What is not reversed has no step.</summary>
    /// <param name="script">Rollback.</param>
    /// <returns>Steps in the order in which they are to run.</returns>
    public static IReadOnlyList<MigrationStep> ToSteps(RollbackScript script)
    {
        ArgumentNullException.ThrowIfNull(script);
        return
        [
            .. script.Statements.Where(RollbackText.Runs).Select(s => new MigrationStep
            {
                Sql = s.Reversal!,
                Purpose = "Take back: " + RollbackText.OneLine(s.Forward, 100),
                LockMode = s.LockMode,
                Objects = s.Objects,
                Transactional = s.Transactional,
                Cost = SqlFacts.Of(s.Reversal!).BuildsIndex ? StepCost.BuildsIndex : StepCost.Instant,
                Reversal = s.Statement,
                Reversibility = s.Reversibility,
                ReversalNote = s.Reversibility == Reversibility.ReversibleWithDataLoss ? "The migration can run again; the data that the rollback removed does not come back. " + s.Note : s.Note,
            }),
        ];
    }

    private static IEnumerable<RollbackStatement> Reverse(MigrationStep step)
    {
        RollbackStatement Outcome(Reversibility reversibility, string? note) => new()
        {
            Statement = step.Sql,
            Whole = step.Cost == StepCost.UpdatesRows ? step.Purpose : null,
            Reversibility = reversibility,
            Note = note,
        };

        // What is not one transaction can leave remains when it fails: an invalid index, batches that were committed.
        bool remains = step.State is StepState.Failed or StepState.Cancelled && (!step.Transactional || step.Cost == StepCost.UpdatesRows);
        if (step is { State: StepState.Skipped, Reversal: not null })
        {
            return [Outcome(Reversibility.Unknown, "It was there before this run: an earlier run made it, or somebody else. Run this only if it belongs to what is taken back.") with { Reversal = step.Reversal }];
        }

        if (step.State == StepState.Skipped)
        {
            return [Outcome(Reversibility.NotNeeded, "The step was skipped: what it leads to was there before.")];
        }

        if (step.State != StepState.Done && !remains)
        {
            return [Outcome(Reversibility.NotNeeded, step.State switch { StepState.Failed => "The step failed, and the server undid it.", StepState.Cancelled => "The step was cancelled, and the server undid it.", _ => "The step did not run." })];
        }

        if (step.Reversibility is not (Reversibility.Reversible or Reversibility.ReversibleWithDataLoss))
        {
            return [Outcome(step.Reversibility, step.ReversalNote) with { Reversal = step.Reversal }];
        }

        if (string.IsNullOrWhiteSpace(step.Reversal))
        {
            return [Outcome(Reversibility.Unknown, step.ReversalNote ?? "The step carries no reversal.")];
        }

        string? note = !remains
            ? step.ReversalNote
            : $"The step {(step.State == StepState.Failed ? "failed" : "was cancelled")}{(step.Cost == StepCost.UpdatesRows ? "; the rows that it had done by then stay done." : " and may have left remains.")} {step.ReversalNote}".TrimEnd();
        return SqlScript.Parse(step.Reversal, psql: false).Statements.Select(reversal =>
        {
            SqlFacts facts = SqlFacts.Of(reversal.Text);
            return Outcome(step.Reversibility, note) with
            {
                Reversal = reversal.Text,
                LockMode = facts.LockMode,
                Objects = step.Objects,
                Transactional = facts.Transactional,
            };
        });
    }
}
