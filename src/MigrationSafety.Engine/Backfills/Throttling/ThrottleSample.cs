namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>A standby or another receiver of WAL, as <c>pg_stat_replication</c> shows it.</summary>
/// <param name="Name">Its application_name, or its slot's name.</param>
/// <param name="Replayed">How far it has replayed, or written where it replays nothing; an LSN as a number.</param>
/// <param name="Lag">The lag that the server measured, in seconds; null where it has none.</param>
internal sealed record StandbySample(string Name, long Replayed, double? Lag);

/// <summary>A replication slot.</summary>
/// <param name="Name">Name.</param>
/// <param name="Active">Whether somebody reads it.</param>
/// <param name="Kept">WAL that it keeps, in bytes.</param>
/// <param name="Status">reserved, extended or unreserved; a lost one is not read.</param>
/// <param name="Safe">Bytes that may still be written before it is in danger; null where max_slot_wal_keep_size sets no bound.</param>
/// <param name="Bound">That bound, in bytes.</param>
internal sealed record SlotSample(string Name, bool Active, long Kept, string? Status, long? Safe, long? Bound);

/// <summary>The archiver.</summary>
/// <param name="Waiting">WAL that is not archived yet, in bytes; null where nothing was ever archived.</param>
/// <param name="Failed">The file at which it fails; null while it does not.</param>
internal sealed record ArchiverSample(long? Waiting, string? Failed);

/// <summary>Sessions that wait for a lock that one of ours holds.</summary>
/// <param name="Count">How many.</param>
/// <param name="Pid">The one that waits longest.</param>
/// <param name="Seconds">For how long.</param>
internal sealed record WaiterSample(int Count, int? Pid, double? Seconds);

/// <summary>The table, or the part of it, that is most in need of a vacuum.</summary>
/// <param name="Name">It, for people.</param>
/// <param name="Dead">Dead rows, as the statistics have them.</param>
/// <param name="Threshold">Dead rows at which autovacuum comes.</param>
/// <param name="Vacuumed">Whether a vacuum is at it.</param>
/// <param name="Autovacuum">Whether autovacuum comes by itself: it is on, for the table too.</param>
internal sealed record VacuumSample(string Name, long Dead, double Threshold, bool Vacuumed, bool Autovacuum);

/// <summary>What one look at the server saw. Null: not asked for, or not to be seen.</summary>
internal sealed record ThrottleSample
{
    /// <summary>The server's clock.</summary>
    internal required DateTimeOffset Time { get; init; }

    /// <summary>Where the server writes WAL; an LSN as a number.</summary>
    internal long Wal { get; init; }

    /// <summary>Transactions that ended on the server, as its statistics have them.</summary>
    internal long? Transactions { get; init; }

    /// <summary>Workers of other clients and other backfills, in all databases.</summary>
    internal int OtherWorkers { get; init; }

    /// <summary>Sessions of any client that try commits.</summary>
    internal int Probes { get; init; }

    /// <summary>Commits that wait for a synchronous standby, each by its session, statement and transaction: a statement may commit many times. None of this module's own.</summary>
    internal string[] StandbyWaits { get; init; } = [];

    /// <summary>Whether commits wait for standbys at all (<c>synchronous_standby_names</c>).</summary>
    internal bool HasSynchronousStandbys { get; init; }

    /// <summary>The time of day in the window's time zone.</summary>
    internal TimeOnly? TimeOfDay { get; init; }

    /// <summary>The limits that are recorded with the backfill, as JSON; null where its record is gone.</summary>
    internal string? Limits { get; init; }

    /// <summary>The backfill's state; null where its record is gone.</summary>
    internal string? State { get; init; }

    /// <summary>Clients that work on it.</summary>
    internal int Clients { get; init; } = 1;

    internal IReadOnlyList<StandbySample> Standbys { get; init; } = [];

    /// <summary>Standbys of which this role sees nothing but that they are there.</summary>
    internal int HiddenStandbys { get; init; }

    internal IReadOnlyList<SlotSample> Slots { get; init; } = [];

    internal ArchiverSample? Archiver { get; init; }

    internal WaiterSample? Waiters { get; init; }

    internal int? ActiveSessions { get; init; }

    /// <summary>Sessions that began or ended a statement in the last half second; none of this module's own.</summary>
    internal int LiveSessions { get; init; }

    /// <summary>Sessions of which this role does not see whether they are active.</summary>
    internal int HiddenSessions { get; init; }

    internal VacuumSample? Vacuum { get; init; }

    /// <summary>Why the health query does not let it run; null where it does or is not there.</summary>
    internal string? Unhealthy { get; init; }
}
