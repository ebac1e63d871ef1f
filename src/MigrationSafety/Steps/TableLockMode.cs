namespace MigrationSafety;

/// <summary>
/// PostgreSQL's table-level lock modes, weakest first (manual, "Explicit Locking"). Numbers are PostgreSQL's own.
/// </summary>
public enum TableLockMode
{
    /// <summary>No table lock.</summary>
    None = 0,

    /// <summary>ACCESS SHARE: taken by reads.</summary>
    AccessShare = 1,

    /// <summary>ROW SHARE: taken by SELECT FOR UPDATE and its kin.</summary>
    RowShare = 2,

    /// <summary>ROW EXCLUSIVE: taken by writes.</summary>
    RowExclusive = 3,

    /// <summary>SHARE UPDATE EXCLUSIVE: VACUUM, CREATE INDEX CONCURRENTLY, VALIDATE CONSTRAINT. Stops no read and no write.</summary>
    ShareUpdateExclusive = 4,

    /// <summary>SHARE: CREATE INDEX. Stops writes.</summary>
    Share = 5,

    /// <summary>SHARE ROW EXCLUSIVE: ADD FOREIGN KEY, CREATE TRIGGER. Stops writes.</summary>
    ShareRowExclusive = 6,

    /// <summary>EXCLUSIVE. Stops writes and SELECT FOR UPDATE.</summary>
    Exclusive = 7,

    /// <summary>ACCESS EXCLUSIVE: most of ALTER TABLE, DROP, TRUNCATE. Stops everything.</summary>
    AccessExclusive = 8,
}
