using System.Collections.Concurrent;
using System.Management.Automation;
using System.Text;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>
/// Base of the cmdlets that change a database: plan first, ask (<c>-WhatIf</c> and <c>-Confirm</c> show the plan), then run it in the foreground or as a job.
/// </summary>
/// <typeparam name="TPlan">Plan.</typeparam>
/// <typeparam name="TResult">Output type.</typeparam>
public abstract class ChangeCmdlet<TPlan, TResult> : FleetCmdlet
    where TPlan : OperationPlan
    where TResult : class
{
    // Of SQL in a plan; a longer block pushes the rest off the screen.
    private const int MostLines = 8;

    private readonly List<Func<IRecordSink, CancellationToken, Task>> _work = [];
    private readonly List<string> _locations = [];

    // Queues run side by side; what is asked of one runs in the order in which it was asked.
    private readonly ConcurrentDictionary<(MigrationSession Session, string Queue), SemaphoreSlim> _turns = new();
    private SemaphoreSlim? _places;

    /// <summary>How long a step may queue for its lock, and so the longest that an application statement waits behind it.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration LockTimeout { get; set; } = new(TimeSpan.FromMilliseconds(500));

    /// <summary>How long a step is tried again before it is given up.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration RetryFor { get; set; } = new(TimeSpan.FromMinutes(10));

    /// <summary>Runs in the background and returns a job.</summary>
    [Parameter]
    public SwitchParameter AsJob { get; set; }

    /// <summary>The bounds that were asked for.</summary>
    private protected virtual ExecutionOptions Options => new() { LockTimeout = LockTimeout.Value, RetryFor = RetryFor.Value };

    /// <summary>As many as may run at once. Whoever waits for its turn takes none.</summary>
    private protected SemaphoreSlim Places => _places ??= new SemaphoreSlim(ThrottleLimit);

    /// <summary>Whether the work takes its places itself.</summary>
    private protected virtual bool TakesPlaces => false;

    /// <inheritdoc />
    protected override void BeginProcessing()
    {
        if (LockTimeout.Value < TimeSpan.FromMilliseconds(1))
        {
            // 0 would mean "for ever" to the server.
            ThrowTerminatingError(ErrorRecords.Of(new MigrationException(
                "InvalidLockTimeout",
                MigrationErrorKind.InvalidInput,
                "-LockTimeout must be at least 1ms.",
                "Applications wait as long as the lock timeout; 500ms is the default.")));
        }
    }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        foreach (EngineSession session in Sessions())
        {
            foreach (Func<EngineSession, IOperationSink, CancellationToken, Task<TPlan>> makePlan in Plans(session))
            {
                try
                {
                    Process(Runner.Wait((sink, token) => makePlan(session, sink, token)));
                }
                catch (MigrationException e)
                {
                    WriteError(ErrorRecords.Of(e));
                }
            }
        }
    }

    /// <inheritdoc />
    protected override void EndProcessing()
    {
        base.EndProcessing();
        if (_work.Count > 0)
        {
            StartJob(_work, _locations);
        }
    }

    /// <summary>What makes the plans of this record in a session.</summary>
    private protected virtual IEnumerable<Func<EngineSession, IOperationSink, CancellationToken, Task<TPlan>>> Plans(EngineSession session) => [PlanAsync];

    /// <summary>Whether data goes that nothing brings back: then it asks.</summary>
    private protected virtual bool DestroysData => false;

    /// <summary>What runs one after the other in a session: plans of the same queue. All of them, where nothing else is said.</summary>
    private protected virtual string Queue(TPlan plan) => "";

    /// <summary>What goes out besides the error when a plan fails; null for nothing.</summary>
    private protected virtual TResult? FailedResult(TPlan plan, MigrationException failure) => null;

    /// <summary>Makes the one plan of this record; not asked where <see cref="Plans"/> is overridden.</summary>
    private protected virtual Task<TPlan> PlanAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken) => throw new System.Diagnostics.UnreachableException();

    private protected abstract Task<TResult> RunPlanAsync(TPlan plan, IOperationSink sink, CancellationToken cancellationToken);

    private void Process(TPlan plan)
    {
        // The question last: a long plan would push it off the screen.
        string description = Describe(plan);
        foreach (MigrationStep step in plan.Steps.Where(step => step.IsHousekeeping))
        {
            WriteVerbose($"{step.Purpose}: {step.Sql}");
        }

        foreach (MigrationStep step in plan.Steps.Where(step => !step.IsHousekeeping && IsLong(step.Reversal)))
        {
            WriteVerbose($"{step.Purpose} is taken back by: {step.Reversal}");
        }

        string question = $"{description}{Environment.NewLine}{Environment.NewLine}{plan.Action} on {plan.Target} ({plan.Session.Info})?";
        if (!ShouldProcess(description, question, plan.Action) || (DestroysData && !ShouldDestroy(question, plan.Action)))
        {
            return;
        }

        SemaphoreSlim turn = _turns.GetOrAdd((plan.Session.Info, Queue(plan)), _ => new SemaphoreSlim(1));
        SemaphoreSlim? places = TakesPlaces ? null : Places;
        async Task RunAsync(IRecordSink sink, CancellationToken token)
        {
            await turn.WaitAsync(token).ConfigureAwait(false);
            try
            {
                await (places?.WaitAsync(token) ?? Task.CompletedTask).ConfigureAwait(false);
                try
                {
                    sink.Output(await OperationLog.RunAsync(plan, sink, recorder => RunPlanAsync(plan, recorder, token), token).ConfigureAwait(false));
                }
                catch (MigrationException e) when (FailedResult(plan, e) is { } failed)
                {
                    sink.Output(failed);
                    throw;
                }
                finally
                {
                    places?.Release();
                }
            }
            finally
            {
                turn.Release();
            }
        }

        if (AsJob)
        {
            _work.Add(RunAsync);
            _locations.Add(plan.Session.Info.ToString());
        }
        else
        {
            Runner.Start(RunAsync, int.MaxValue);
        }
    }

    private static string Describe(TPlan plan)
    {
        StringBuilder text = new();
        text.Append(plan.Action).Append(" on ").Append(plan.Target).Append(" (").Append(plan.Session.Info).Append(')');
        int number = 0;
        foreach (MigrationStep step in plan.Steps)
        {
            text.AppendLine().Append("  ").Append(++number).Append(". ").Append(step.Purpose).Append(": ").Append(StepTexts.Lock(step));
            if (step.IsHousekeeping)
            {
                // Long, and of no interest to whoever wants to know what becomes of the table.
                continue;
            }

            AppendIndented(text, "", step.Sql);
            if (step.Reversal is not null)
            {
                AppendIndented(text, "taken back by: ", IsLong(step.Reversal) ? "a block of SQL, which -Verbose shows" : step.Reversal);
            }

            if (step.ReversalNote is not null)
            {
                text.AppendLine().Append("     note: ").Append(step.ReversalNote);
            }
        }

        if (number == 0)
        {
            text.Append(": nothing to do");
        }

        foreach (string note in plan.Notes)
        {
            text.AppendLine().Append("  ").Append(note.ReplaceLineEndings(Environment.NewLine + "    "));
        }

        return text.AppendLine().Append("  Recorded in migration_safety.operation of this database, which is made where it is missing.").ToString();
    }

    private static bool IsLong(string? sql) => sql?.AsSpan().Count('\n') >= MostLines;

    private static void AppendIndented(StringBuilder text, string lead, string sql)
    {
        foreach (string line in sql.Split('\n'))
        {
            text.AppendLine().Append("     ").Append(lead).Append(line.TrimEnd('\r'));
            lead = "";
        }
    }
}
