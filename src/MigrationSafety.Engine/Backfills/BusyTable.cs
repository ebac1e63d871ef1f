using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Backfills;

/// <summary>Waits, before a backfill has changed anything, for those who have its table locked, such as CREATE INDEX: says who they are, and after the time to retry in vain it ends with their names.</summary>
internal sealed class BusyTable(BackfillPlan plan, IOperationSink sink)
{
    // Most locks are gone by then.
    private static readonly TimeSpan s_usual = TimeSpan.FromSeconds(2);

    private readonly long _start = Stopwatch.GetTimestamp();
    private int _attempt;
    private bool _told;

    /// <summary>Waits for the next attempt.</summary>
    /// <param name="connection">A connection to look with.</param>
    /// <param name="e">What the last one came to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <exception cref="MigrationException"><c>LockNotAvailable</c>, with who has it: it lasts longer than is to be waited for.</exception>
    internal async Task WaitAsync(NpgsqlConnection connection, PostgresException e, CancellationToken cancellationToken)
    {
        TimeSpan waited = Stopwatch.GetElapsedTime(_start);
        bool over = waited > plan.Request.Options.RetryFor;
        if (over || (waited > s_usual && !_told))
        {
            string[] tables = plan.Definition.Into is { } into ? [plan.Definition.Table.Sql, into.Table.Sql] : [plan.Definition.Table.Sql];
            MigrationException busy = await CatalogReads.BusyAsync(connection, plan.Target, $"Backfilling {plan.Target}", e, tables, cancellationToken, waited).ConfigureAwait(false);
            if (over)
            {
                throw busy;
            }

            if (busy.Blockers is [_, ..])
            {
                sink.Warning($"{plan.Target} is locked: waiting for {string.Join("; ", busy.Blockers.Select(blocker => blocker.ToString()))}");
                _told = true;
            }
        }

        sink.Verbose($"{plan.Target} cannot be looked at ({ServerErrors.Words(e)}); tries again.");
        await BackfillContext.PauseAsync(++_attempt, cancellationToken).ConfigureAwait(false);
    }
}
