using System.Text.RegularExpressions;

namespace MigrationSafety;

/// <summary>
/// What <c>-Session</c> accepts: a <see cref="MigrationSession"/>, a text (key=value connection string, <c>postgresql://</c> URI or <c>service=NAME</c>),
/// or from the pipeline the result of another cmdlet, which stands for the session it was made in.
/// </summary>
public sealed partial class SessionArgument
{
    /// <summary>From a session.</summary>
    /// <param name="session">An open session.</param>
    public SessionArgument(MigrationSession session)
    {
        ArgumentNullException.ThrowIfNull(session);
        Session = session;
    }

    /// <summary>From a connection text; it is read when the cmdlet runs.</summary>
    /// <param name="connection">Key=value string, URI or <c>service=NAME</c>.</param>
    public SessionArgument(string connection)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(connection);
        if (Sql().IsMatch(connection))
        {
            // From the pipeline a text goes to the parameter that takes it.
            throw new ArgumentException("This is SQL, not a connection text.", nameof(connection));
        }

        Connection = connection;
    }

    /// <summary>From a result that is piped on: the next cmdlet works on the database that the result is about.</summary>
    /// <param name="result">Result of this process.</param>
    public SessionArgument(IndexBuildResult result)
        : this(Of(result?.Origin)) => (IsOperation, OperationId) = (true, result!.OperationId);

    /// <summary>From a result that is piped on: the next cmdlet works on the database that the result is about.</summary>
    /// <param name="result">Result of this process.</param>
    public SessionArgument(BackfillResult result)
        : this(Of(result?.Origin)) => (IsOperation, OperationId) = (true, result!.OperationId);

    /// <summary>From a backfill that is piped on: the next cmdlet works on the database that it is in.</summary>
    /// <param name="backfill">Backfill, read by this process.</param>
    public SessionArgument(BackfillStatus backfill)
        : this(Of(backfill?.Origin))
    {
    }

    /// <summary>From a result that is piped on: the next cmdlet works on the database that the result is about.</summary>
    /// <param name="result">Result of this process.</param>
    public SessionArgument(InvalidIndex result)
        : this(Of(result?.Origin))
    {
    }

    /// <summary>From an operation that is piped on: the next cmdlet works on the database whose log it is from.</summary>
    /// <param name="operation">Operation, read by this process.</param>
    public SessionArgument(MigrationOperation operation)
        : this(Of(operation?.Origin)) => (IsOperation, OperationId) = (true, operation!.Id);

    /// <summary>From a result that is piped on: the next cmdlet works on the database that the result is about.</summary>
    /// <param name="result">Result of this process.</param>
    public SessionArgument(IndexRebuildResult result)
        : this(Of(result?.Origin)) => (IsOperation, OperationId) = (true, result!.OperationId);

    /// <summary>From a result that is piped on: the next cmdlet works on the database that the result is about.</summary>
    /// <param name="result">Result of this process.</param>
    public SessionArgument(IndexDropResult result)
        : this(Of(result?.Origin)) => (IsOperation, OperationId) = (true, result!.OperationId);

    /// <summary>From an operation that runs: the next cmdlet works on its database, which has to be the session's.</summary>
    /// <param name="progress">Progress, read by this process.</param>
    public SessionArgument(MigrationProgress progress)
        : this(Of(progress?.Origin)) => Database = progress!.Database;

    /// <summary>From an operation that is over: the next cmdlet works on its database, which has to be the session's.</summary>
    /// <param name="result">Result of this process.</param>
    public SessionArgument(ProgressResult result)
        : this(Of(result?.Origin)) => Database = result!.Database;

    /// <summary>The session, or null where a text was given.</summary>
    public MigrationSession? Session { get; }

    /// <summary>The text; may hold a password, therefore internal.</summary>
    internal string? Connection { get; }

    /// <summary>The database that is meant, where the session may have been with another one: the server's views tell of all its databases. Null where it is the session's.</summary>
    internal string? Database { get; }

    /// <summary>Whether an operation, or the result of one, stands for its session.</summary>
    internal bool IsOperation { get; }

    /// <summary>Number of its entry in the log; null where it has none.</summary>
    internal long? OperationId { get; }

    private static MigrationSession Of(MigrationSession? origin) => origin ?? throw new ArgumentException("The result does not know its session any more: name one with -Session.");

    /// <inheritdoc />
    public override string ToString() => Session?.ToString() ?? "connection text";

    [GeneratedRegex(@"^\s*(--|/\*|(create|begin|start|set|drop|alter)\s)", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex Sql();
}
