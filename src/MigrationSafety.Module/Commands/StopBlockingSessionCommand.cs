using System.Globalization;
using System.Management.Automation;
using MigrationSafety.Engine.Locks;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Takes sessions that hold others up out of the way.</summary>
[Cmdlet(VerbsLifecycle.Stop, "BlockingSession", SupportsShouldProcess = true, ConfirmImpact = ConfirmImpact.High, DefaultParameterSetName = "InputObject")]
[OutputType(typeof(BlockingSessionResult))]
public sealed class StopBlockingSessionCommand : SessionCmdlet
{
    private readonly HashSet<(EngineSession, int, string?)> _done = [];

    /// <summary>What Get-BlockingLock returned: the roots, and of deadlocks the first, are stopped; those who wait are not.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = "InputObject")]
    [ValidateNotNull]
    public PSObject? InputObject { get; set; }

    /// <summary>Process ids of sessions to be stopped.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "Pid")]
    [ValidateRange(1, int.MaxValue)]
    public int[] Pid { get; set; } = [];

    /// <summary>Cancel, Terminate, or Escalate: one after the other.</summary>
    [Parameter]
    public BlockingSessionMode Mode { get; set; }

    /// <summary>How long to wait for what a request does.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration GracePeriod { get; set; } = new(TimeSpan.FromSeconds(10));

    /// <summary>Rolls prepared transactions back.</summary>
    [Parameter]
    public SwitchParameter RollbackPrepared { get; set; }

    /// <summary>Stops also what is protected: operations of this module, replication, an autovacuum that prevents wraparound.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        if (ParameterSetName == "Pid")
        {
            foreach (EngineSession session in Sessions())
            {
                foreach (int pid in Pid)
                {
                    Stop(session, new StopRequest(pid, null, null));
                }
            }

            return;
        }

        try
        {
            BlockingLock row = Row(InputObject!);
            if (row.Depth > 0)
            {
                WriteVerbose($"Pid {row.Pid} waits itself: the root that it waits for is what is stopped.");
                return;
            }

            Stop(SessionOf(row), new StopRequest(row.Pid, row.Gid, row.BackendStart));
        }
        catch (MigrationException e)
        {
            WriteError(ErrorRecords.Of(e));
        }
    }

    /// <summary>What was piped in, also where it comes from a job or a file.</summary>
    private static BlockingLock Row(PSObject input)
    {
        if (input.BaseObject is BlockingLock row)
        {
            return row;
        }

        if (!input.TypeNames.Contains("Deserialized." + typeof(BlockingLock).FullName))
        {
            throw new MigrationException(
                "NoBlockingLock",
                MigrationErrorKind.InvalidInput,
                $"A {input.BaseObject.GetType().Name} is no row of Get-BlockingLock.",
                "Pipe what Get-BlockingLock returns, or name sessions with -Pid.")
            {
                Target = input.ToString(),
            };
        }

        T? Value<T>(string name) => LanguagePrimitives.TryConvertTo(input.Properties[name]?.Value, CultureInfo.InvariantCulture, out T value) ? value : default;

        long? start = input.Properties["BackendStart"]?.Value switch
        {
            null => null,
            DateTimeOffset time => time.UtcTicks,
            PSObject time when time.Properties["UtcTicks"]?.Value is long utc => utc,
            // As text the time has no fractions of a second.
            object text => throw new MigrationException(
                "BackendStartLost",
                MigrationErrorKind.InvalidInput,
                $"When the backend of pid {Value<int>("Pid")} started came as text ({text}): whether the pid is still the session that was listed could not be told.",
                "List it anew with Get-BlockingLock, or serialize with a depth of 2 or more; -Pid stops whoever has that pid now.")
            {
                Target = input.ToString(),
            },
        };
        return new BlockingLock
        {
            Pid = Value<int>("Pid"),
            Gid = input.Properties["Gid"]?.Value is null ? null : Value<string>("Gid"),
            Depth = Value<int>("Depth"),
            BackendStart = start is { } ticks ? new DateTimeOffset(ticks, TimeSpan.Zero) : null,
            Server = Value<string>("Server") ?? "",
            Port = Value<int>("Port"),
            Timestamp = default,
        };
    }

    /// <summary>The session in which it was listed; where that is closed, or others are named, the one of the same server.</summary>
    private EngineSession SessionOf(BlockingLock row) =>
        Session is null && row.Origin is { State: MigrationSafety.SessionState.Open } origin
            ? EngineSession.Of(origin)
            : Sessions().FirstOrDefault(session => session.Info.Server == row.Server && session.Info.Port == row.Port)
                ?? throw new MigrationException(
                    "OtherServer",
                    MigrationErrorKind.InvalidInput,
                    $"Pid {row.Pid} was listed on {row.Server}:{row.Port}, and no session with that server is open or named.",
                    "Name one with -Session, by the same host and port.")
                {
                    Target = $"pid {row.Pid}",
                };

    private void Stop(EngineSession session, StopRequest request)
    {
        if (!_done.Add((session, request.Pid, request.Gid)))
        {
            return;
        }

        StopOptions options = new() { Mode = Mode, GracePeriod = GracePeriod.Value, RollbackPrepared = RollbackPrepared, Force = Force };
        try
        {
            StopPlan plan = Runner.Wait((sink, token) => SessionStopper.PlanAsync(session, request, options, sink, token));
            string action = plan.Row.Gid is not null ? "Roll back" : Mode.ToString();
            if (plan.Gone || plan.Refusal is not null || ShouldProcess($"{plan} ({session.Info})", action))
            {
                BlockingSessionResult result = Runner.Wait((sink, token) => SessionStopper.RunAsync(plan, options, sink, token));
                if (result.Note is not null)
                {
                    WriteWarning($"{(result.Gid is { } gid ? $"Prepared transaction '{gid}'" : $"Pid {result.Pid}")}: {result.Note}");
                }

                WriteObject(result);
            }
        }
        catch (MigrationException e)
        {
            WriteError(ErrorRecords.Of(e));
        }
    }
}
