namespace MigrationSafety.Engine.Execution;

/// <summary>The schema that keeps what must survive the client.</summary>
internal static class StateSchema
{
    /// <summary>Makes it. Two clients at once: the later one fails with a unique violation, and finds it made when it looks again.</summary>
    internal const string Create = "create schema if not exists migration_safety";
}
