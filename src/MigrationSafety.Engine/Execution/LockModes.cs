namespace MigrationSafety.Engine.Execution;

/// <summary>PostgreSQL's table of conflicting lock modes (manual, "Explicit Locking").</summary>
internal static class LockModes
{
    private static readonly TableLockMode[][] s_conflicts =
    [
        [],
        [TableLockMode.AccessExclusive],
        [TableLockMode.Exclusive, TableLockMode.AccessExclusive],
        [TableLockMode.Share, TableLockMode.ShareRowExclusive, TableLockMode.Exclusive, TableLockMode.AccessExclusive],
        [TableLockMode.ShareUpdateExclusive, TableLockMode.Share, TableLockMode.ShareRowExclusive, TableLockMode.Exclusive, TableLockMode.AccessExclusive],
        [TableLockMode.RowExclusive, TableLockMode.ShareUpdateExclusive, TableLockMode.ShareRowExclusive, TableLockMode.Exclusive, TableLockMode.AccessExclusive],
        [TableLockMode.RowExclusive, TableLockMode.ShareUpdateExclusive, TableLockMode.Share, TableLockMode.ShareRowExclusive, TableLockMode.Exclusive, TableLockMode.AccessExclusive],
        [TableLockMode.RowShare, TableLockMode.RowExclusive, TableLockMode.ShareUpdateExclusive, TableLockMode.Share, TableLockMode.ShareRowExclusive, TableLockMode.Exclusive, TableLockMode.AccessExclusive],
        [TableLockMode.AccessShare, TableLockMode.RowShare, TableLockMode.RowExclusive, TableLockMode.ShareUpdateExclusive, TableLockMode.Share, TableLockMode.ShareRowExclusive, TableLockMode.Exclusive, TableLockMode.AccessExclusive],
    ];

    private static readonly int[] s_conflictBits = [.. s_conflicts.Select(modes => modes.Aggregate(0, (bits, mode) => bits | (1 << (int)mode)))];

    /// <summary>Whether the mode stops reads or writes of applications.</summary>
    internal static bool StopsTraffic(this TableLockMode mode) => mode >= TableLockMode.Share;

    /// <summary>The mode by the name that pg_locks gives it.</summary>
    internal static string CatalogName(this TableLockMode mode) => mode + "Lock";

    /// <summary>The mode as SQL and the manual write it.</summary>
    internal static string SqlText(this TableLockMode mode) => mode switch
    {
        TableLockMode.None => "no table lock",
        TableLockMode.AccessShare => "ACCESS SHARE",
        TableLockMode.RowShare => "ROW SHARE",
        TableLockMode.RowExclusive => "ROW EXCLUSIVE",
        TableLockMode.ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
        TableLockMode.Share => "SHARE",
        TableLockMode.ShareRowExclusive => "SHARE ROW EXCLUSIVE",
        TableLockMode.Exclusive => "EXCLUSIVE",
        _ => "ACCESS EXCLUSIVE",
    };

    /// <summary>Names of the modes that conflict with this one.</summary>
    internal static string[] ConflictNames(this TableLockMode mode) => [.. s_conflicts[(int)mode].Select(CatalogName)];

    /// <summary>The mode by the name that pg_locks gives it; <see cref="TableLockMode.None"/> for a name that is none.</summary>
    internal static TableLockMode OfCatalogName(string name) =>
        name.EndsWith("Lock", StringComparison.Ordinal) && Enum.TryParse(name.AsSpan(0, name.Length - 4), out TableLockMode mode) ? mode : TableLockMode.None;

    /// <summary>Whether one who holds or awaits the one mode is in the way of one who wants the other. Locks of all kinds conflict like those on tables.</summary>
    internal static bool ConflictsWith(this TableLockMode mode, TableLockMode other) => (s_conflictBits[(int)mode] & (1 << (int)other)) != 0;
}
