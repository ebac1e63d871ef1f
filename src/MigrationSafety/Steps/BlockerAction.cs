namespace MigrationSafety;

/// <summary>What is done about a session that is in the way for too long.</summary>
public enum BlockerAction
{
    /// <summary>It is named, and left alone.</summary>
    Report,

    /// <summary>Its statement is cancelled (<c>pg_cancel_backend</c>). A session that is idle in a transaction runs none.</summary>
    Cancel,

    /// <summary>It is ended (<c>pg_terminate_backend</c>); its transaction is rolled back.</summary>
    Terminate,
}
