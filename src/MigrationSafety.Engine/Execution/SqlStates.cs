namespace MigrationSafety.Engine.Execution;

/// <summary>SQLSTATEs that are treated by name (manual, appendix "PostgreSQL Error Codes").</summary>
internal static class SqlStates
{
    internal const string TriggeredActionException = "09000";
    internal const string LockNotAvailable = "55P03";
    internal const string DeadlockDetected = "40P01";
    internal const string SerializationFailure = "40001";
    internal const string QueryCanceled = "57014";
    internal const string AdminShutdown = "57P01";
    internal const string CrashShutdown = "57P02";
    internal const string CannotConnectNow = "57P03";
    internal const string DatabaseDropped = "57P04";
    internal const string InsufficientPrivilege = "42501";
    internal const string UndefinedTable = "42P01";
    internal const string UndefinedColumn = "42703";
    internal const string UndefinedObject = "42704";
    internal const string DuplicateTable = "42P07";
    internal const string DuplicateObject = "42710";
    internal const string DuplicateSchema = "42P06";
    internal const string NotNullViolation = "23502";
    internal const string UniqueViolation = "23505";
    internal const string ReadOnlyTransaction = "25006";
    internal const string InvalidPassword = "28P01";
    internal const string InvalidAuthorization = "28000";
    internal const string InvalidCatalogName = "3D000";
    internal const string TooManyConnections = "53300";
    internal const string DataException = "22000";
    internal const string InvalidParameterValue = "22023";
    internal const string ObjectInUse = "55006";

    /// <summary>Whether a name in a statement means nothing, or something of another kind.</summary>
    internal static bool IsMissing(string state) => state is UndefinedTable or UndefinedColumn or "42809";
}
