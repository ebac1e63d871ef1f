using System.Management.Automation;
using MigrationSafety.Engine.Backfills;
using MigrationSafety.Engine.Backfills.Throttling;
using MigrationSafety.Engine.Execution;

namespace MigrationSafety.Module.Commands;

/// <summary>Base of the cmdlets that run backfills: how fast, how gently, and how many rows may be refused.</summary>
public abstract class BackfillCmdlet : ChangeCmdlet<BackfillPlan, BackfillResult>
{
    /// <summary>How long a batch should take, from its statement to its commit.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration TargetBatchTime { get; set; } = new(TimeSpan.FromMilliseconds(250));

    /// <summary>How many connections of this command work on it side by side.</summary>
    [Parameter]
    [ValidateRange(1, 64)]
    public int Workers { get; set; } = 1;

    /// <summary>How many rows the server may refuse before the backfill ends; they are recorded and passed over.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long MaxErrors { get; set; }

    /// <summary>How far a standby may be behind before the backfill slows down: a time, an amount of WAL, or both; 0 for no limit.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public LagLimit[] MaxReplicationLag { get; set; } = [new(ThrottleLimits.Default.ReplicationLagTime!.Value)];

    /// <summary>Standbys, by application_name, and replication slots that may be as far behind as they like.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] ExcludeStandby { get; set; } = [];

    /// <summary>How many bytes of WAL a replication slot may keep; 0 for no limit.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long MaxSlotLag { get; set; } = ThrottleLimits.Default.SlotLag!.Value;

    /// <summary>How many bytes of WAL may wait to be archived; 0 for no limit.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long MaxArchiveLag { get; set; } = ThrottleLimits.Default.ArchiveLag!.Value;

    /// <summary>How many sessions may wait for rows of the backfill at the same time; 0 for no limit.</summary>
    [Parameter]
    [ValidateRange(0, int.MaxValue)]
    public int MaxWaitingSession { get; set; } = ThrottleLimits.Default.WaitingSessions!.Value;

    /// <summary>How many times as long commits of others may take because of the backfill, on average; 0 for no limit.</summary>
    [Parameter]
    [ValidateRange(0.0, double.MaxValue)]
    public double MaxSlowdown { get; set; } = ThrottleLimits.Default.Slowdown!.Value;

    /// <summary>How many sessions of the server may be active; 0 for no limit.</summary>
    [Parameter]
    [ValidateRange(0, int.MaxValue)]
    public int MaxActiveSession { get; set; }

    /// <summary>How many bytes of WAL the server may write in a second; 0 for no limit.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long MaxWalRate { get; set; }

    /// <summary>How many times the dead rows at which autovacuum comes the table may have, from 1 on; 0 for no limit.</summary>
    [Parameter]
    [ValidateRange(0.0, double.MaxValue)]
    public double MaxVacuumLag { get; set; }

    /// <summary>How many rows may be changed in a second; 0 for no limit.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long MaxRowsPerSecond { get; set; }

    /// <summary>A query that returns one boolean; while it is not true nothing is changed.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? HealthQuery { get; set; }

    /// <summary>The hours of each day in which it runs: <c>22:00-05:00</c>, in the server's time zone or in one that follows; $null for all day, where others are recorded.</summary>
    [Parameter]
    public DailyWindow? Window { get; set; }

    private protected override Task<BackfillResult> RunPlanAsync(BackfillPlan plan, IOperationSink sink, CancellationToken cancellationToken) =>
        Backfill.RunAsync(plan, sink, cancellationToken);

    /// <summary>A request with what was given on the command line in place of what it has.</summary>
    private protected BackfillRequest AsAsked(BackfillRequest request)
    {
        bool Given(string parameter) => MyInvocation.BoundParameters.ContainsKey(parameter);
        long? Limit(string parameter, long given, long? before) => !Given(parameter) ? before : given > 0 ? given : null;
        ThrottleLimits Limits(ThrottleLimits before) => new()
        {
            ReplicationLagTime = Given(nameof(MaxReplicationLag)) ? MaxReplicationLag.Min(lag => lag.Time) : before.ReplicationLagTime,
            ReplicationLagBytes = Given(nameof(MaxReplicationLag)) ? MaxReplicationLag.Min(lag => lag.Bytes) : before.ReplicationLagBytes,
            ExcludedStandbys = Given(nameof(ExcludeStandby)) ? ExcludeStandby : before.ExcludedStandbys,
            SlotLag = Limit(nameof(MaxSlotLag), MaxSlotLag, before.SlotLag),
            ArchiveLag = Limit(nameof(MaxArchiveLag), MaxArchiveLag, before.ArchiveLag),
            WaitingSessions = (int?)Limit(nameof(MaxWaitingSession), MaxWaitingSession, before.WaitingSessions),
            Slowdown = !Given(nameof(MaxSlowdown)) ? before.Slowdown : MaxSlowdown > 0 ? MaxSlowdown : null,
            ActiveSessions = (int?)Limit(nameof(MaxActiveSession), MaxActiveSession, before.ActiveSessions),
            WalRate = Limit(nameof(MaxWalRate), MaxWalRate, before.WalRate),
            VacuumLag = !Given(nameof(MaxVacuumLag)) ? before.VacuumLag : MaxVacuumLag > 0 ? MaxVacuumLag : null,
            RowsPerSecond = Limit(nameof(MaxRowsPerSecond), MaxRowsPerSecond, before.RowsPerSecond),
            HealthQuery = Given(nameof(HealthQuery)) ? HealthQuery : before.HealthQuery,
            Window = Given(nameof(Window)) ? Window : before.Window,
        };

        return request with
        {
            TargetBatchTime = Given(nameof(TargetBatchTime)) ? TargetBatchTime.Value : request.TargetBatchTime,
            Workers = Given(nameof(Workers)) ? Workers : request.Workers,
            MaxErrors = Given(nameof(MaxErrors)) ? MaxErrors : request.MaxErrors,
            Options = Options,
            Throttle = Limits(request.Throttle),
            ThrottleOver = Limits,
        };
    }
}
