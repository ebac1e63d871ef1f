using MigrationSafety.Engine.Sql;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>One reason to slow down, held against its limit.</summary>
/// <param name="Reason">It, in words: what is how far over which limit.</param>
/// <param name="Ratio">What was seen, over the limit: over 1 it is too much.</param>
/// <param name="Stops">Whether the backfill must not run at all while it lasts.</param>
internal sealed record ThrottlePressure(string Reason, double Ratio, bool Stops = false);

/// <summary>Holds what the looks at the server saw against the limits. No clock, no server: the looks tell.</summary>
internal sealed class ThrottleRules
{
    // A slot whose WAL the server is about to throw away: it stops before that, not after.
    private const double LeastSafeShare = 0.1;

    private readonly LagClock _clock = new();
    private long? _firstWal;
    private ThrottleSample? _last;

    internal ThrottleRules(ThrottleLimits limits) => Limits = limits;

    /// <summary>The limits, which may become others from one look to the next.</summary>
    internal ThrottleLimits Limits { get; set; }

    /// <summary>What is to be said about a look, the worst first.</summary>
    internal IReadOnlyList<ThrottlePressure> Assess(ThrottleSample sample)
    {
        _clock.Add(sample.Time, sample.Wal);
        _firstWal ??= sample.Wal;
        List<ThrottlePressure> found = [];
        if (Limits.Window is { } window && sample.TimeOfDay is { } time && !window.IsOpen(time))
        {
            found.Add(new($"outside the window {window}, which opens in {Durations.Text(window.OpensIn(time))}", double.PositiveInfinity, Stops: true));
        }

        if (sample.Unhealthy is { } unhealthy)
        {
            found.Add(new(unhealthy, double.PositiveInfinity, Stops: true));
        }

        foreach (StandbySample standby in sample.Standbys)
        {
            Standby(standby, sample, found);
        }

        foreach (SlotSample slot in sample.Slots)
        {
            Slot(slot, found);
        }

        Archiver(sample, found);
        Server(sample, found);
        if (sample.Vacuum is { } vacuum && Limits.VacuumLag is { } lag)
        {
            double times = vacuum.Dead / Math.Max(1, vacuum.Threshold);
            string at = vacuum.Vacuumed ? "a vacuum is at it" : vacuum.Autovacuum ? "no vacuum is at it yet" : "autovacuum is off for it: run VACUUM";
            found.Add(new($"{vacuum.Name} has {vacuum.Dead:N0} dead rows, {times:0.0} times those at which autovacuum comes (limit {lag:0.##}); {at}", times / lag));
        }

        _last = sample;
        return [.. found.OrderByDescending(pressure => pressure.Stops).ThenByDescending(pressure => pressure.Ratio)];
    }

    // As many as the limit says are within it: of few, each is a large share.
    private static double Share(int count, int limit) => (double)count / (count <= limit ? limit + 1 : limit);

    private void Standby(StandbySample standby, ThrottleSample sample, List<ThrottlePressure> found)
    {
        long behind = Math.Max(0, sample.Wal - standby.Replayed);
        if (Limits.ReplicationLagBytes is { } bytes)
        {
            found.Add(new($"standby {standby.Name} is {ByteCounts.Text(behind)} behind (limit {ByteCounts.Text(bytes)})", (double)behind / bytes));
        }

        if (Limits.ReplicationLagTime is { } limit)
        {
            TimeSpan own = _clock.Of(standby.Replayed, sample.Time);
            // The server's last measure stays for a while after the standby has caught up.
            TimeSpan lag = behind == 0 ? TimeSpan.Zero : standby.Lag is { } seconds && seconds > own.TotalSeconds ? TimeSpan.FromSeconds(seconds) : own;
            found.Add(new($"standby {standby.Name} is {Durations.Text(lag)} behind (limit {Durations.Text(limit)})", lag / limit));
        }
    }

    private void Slot(SlotSample slot, List<ThrottlePressure> found)
    {
        string name = SqlName.QuoteIfNeeded(slot.Name);
        if (slot.Status == "unreserved" || (slot.Safe is { } safe && slot.Bound is { } bound && safe < bound * LeastSafeShare))
        {
            found.Add(new(
                $"replication slot {name}{(slot.Active ? "" : ", which nobody reads,")} is about to lose WAL that its reader still needs: {ByteCounts.Text(Math.Max(0, slot.Safe ?? 0))} are left of max_slot_wal_keep_size",
                double.PositiveInfinity,
                Stops: true));
        }

        if (Limits.SlotLag is { } limit)
        {
            found.Add(new($"replication slot {name} keeps {ByteCounts.Text(slot.Kept)} of WAL (limit {ByteCounts.Text(limit)}){(slot.Active ? "" : " and nobody reads it")}", (double)slot.Kept / limit));
        }
    }

    private void Archiver(ThrottleSample sample, List<ThrottlePressure> found)
    {
        if (sample.Archiver is { } archiver && Limits.ArchiveLag is { } limit)
        {
            // Where nothing was ever archived, as after a reset of the statistics, at least what came since the first look waits.
            long waiting = archiver.Waiting ?? sample.Wal - _firstWal!.Value;
            string failing = archiver.Failed is null ? "" : $"; archiving {archiver.Failed} fails, see the server's log";
            found.Add(new($"{ByteCounts.Text(waiting)} of WAL wait to be archived (limit {ByteCounts.Text(limit)}){failing}", (double)waiting / limit));
        }
    }

    private void Server(ThrottleSample sample, List<ThrottlePressure> found)
    {
        if (sample.Waiters is { Count: > 0 } waiters && Limits.WaitingSessions is { } waiting)
        {
            found.Add(new(
                $"{waiters.Count:N0} session{(waiters.Count > 1 ? "s wait" : " waits")} for rows of this backfill (limit {waiting:N0}), the longest, pid {waiters.Pid}, for {Durations.Text(TimeSpan.FromSeconds(waiters.Seconds ?? 0))}",
                Share(waiters.Count, waiting)));
        }

        // Seen by two looks: that of a healthy standby ends within milliseconds.
        if (_last is { StandbyWaits: { Length: > 0 } before } && sample.StandbyWaits.Intersect(before).Count() is > 0 and var commits)
        {
            found.Add(new($"{commits:N0} commit{(commits > 1 ? "s wait" : " waits")} for a synchronous standby that does not answer (synchronous_standby_names)", double.PositiveInfinity, Stops: true));
        }

        if (sample.ActiveSessions is { } active && Limits.ActiveSessions is { } most)
        {
            found.Add(new($"{active:N0} sessions are active (limit {most:N0})", Share(active, most)));
        }

        if (Limits.WalRate is { } rate && _last is { } last && sample.Time > last.Time)
        {
            double written = Math.Max(0, sample.Wal - last.Wal) / (sample.Time - last.Time).TotalSeconds;
            found.Add(new($"the server writes {ByteCounts.Text(written)} of WAL a second (limit {ByteCounts.Text(rate)})", written / rate));
        }
    }
}
