namespace MigrationSafety.Tests.Postgres;

/// <summary>There is no PostgreSQL of the wanted major to be had here; the message says in one sentence what to install.</summary>
public sealed class PostgresUnavailableException : Exception
{
    /// <summary>Creates the exception without a message.</summary>
    public PostgresUnavailableException() { }

    /// <summary>Creates the exception with a sentence that says what to install.</summary>
    public PostgresUnavailableException(string message) : base(message) { }

    /// <summary>Creates the exception with a sentence that says what to install, and what went wrong.</summary>
    public PostgresUnavailableException(string message, Exception? innerException) : base(message, innerException) { }
}
