using System.Net.Sockets;
using System.Runtime.ExceptionServices;
using System.Text;
using Npgsql;

namespace MigrationSafety.Engine.Execution;

/// <summary>Turns what the server and the network answer into errors with a stable id and an advice (manual, appendix "PostgreSQL Error Codes").</summary>
internal static class ServerErrors
{
    private static readonly Dictionary<string, Reading> s_byState = new(StringComparer.Ordinal)
    {
        [SqlStates.LockNotAvailable] = new("LockNotAvailable", MigrationErrorKind.Busy, "Run it again when the session that holds the lock is done; Get-BlockingLock names it."),
        [SqlStates.DeadlockDetected] = new("DeadlockDetected", MigrationErrorKind.Busy, "Run it again; if it comes back, two sessions take the same locks in a different order: the server's log names both statements."),
        [SqlStates.SerializationFailure] = new("SerializationFailure", MigrationErrorKind.Busy, "Run it again: a concurrent transaction changed the same rows."),
        [SqlStates.QueryCanceled] = new("Cancelled", MigrationErrorKind.Stopped, "Somebody cancelled the statement, or a time-out of the server did. Run the command again: it goes on where it was."),
        [SqlStates.AdminShutdown] = new("ServerShutdown", MigrationErrorKind.Connection, "An administrator stopped the server or ended this connection. When the server answers again, run the command again: it goes on where it was."),
        [SqlStates.CrashShutdown] = new("ServerShutdown", MigrationErrorKind.Connection, "The server is restarting after a crash. Wait until it answers again, look into its log, then run the command again: it goes on where it was."),
        [SqlStates.CannotConnectNow] = new("ServerNotReady", MigrationErrorKind.Connection, "The server is starting up, shutting down or recovering. Try again in a moment; its log says how far it is."),
        [SqlStates.DatabaseDropped] = new("DatabaseNotFound", MigrationErrorKind.NotFound, "The database was dropped while this was connected. Connect to one that exists."),
        ["57P05"] = new("ConnectionLost", MigrationErrorKind.Connection, "idle_session_timeout ended the connection. Run the command again."),
        ["25P03"] = new("ConnectionLost", MigrationErrorKind.Connection, "idle_in_transaction_session_timeout ended the connection. Run the command again."),
        ["25P04"] = new("ConnectionLost", MigrationErrorKind.Connection, "transaction_timeout ended the connection. Run the command again."),
        [SqlStates.InsufficientPrivilege] = new("InsufficientPrivilege", MigrationErrorKind.Permission, "Connect as the owner of the object or as a role that is a member of the owner, or have the missing privilege granted."),
        [SqlStates.UndefinedTable] = new("TableNotFound", MigrationErrorKind.NotFound, "Check the spelling and the schema; a name with capitals needs quotation marks. Without a schema, search_path decides."),
        [SqlStates.UndefinedColumn] = new("ColumnNotFound", MigrationErrorKind.NotFound, "Check the spelling; a name with capitals needs quotation marks."),
        ["42883"] = new("FunctionNotFound", MigrationErrorKind.NotFound, "Check the name and the types of the arguments; a cast may be missing, or the extension that brings the function or operator."),
        ["3F000"] = new("SchemaNotFound", MigrationErrorKind.NotFound, "Check the spelling, or create the schema first."),
        [SqlStates.UndefinedObject] = new("ObjectNotFound", MigrationErrorKind.NotFound, "Check the spelling; a type or an operator class may need its schema or its extension."),
        [SqlStates.InvalidCatalogName] = new("DatabaseNotFound", MigrationErrorKind.NotFound, "Check the name of the database: capitals count. Without one, libpq's rule holds: the name of the user."),
        [SqlStates.DuplicateTable] = new("ObjectExists", MigrationErrorKind.InvalidInput, "Choose another name, or drop the object that has it."),
        [SqlStates.DuplicateObject] = new("ObjectExists", MigrationErrorKind.InvalidInput, "Choose another name, or drop the object that has it."),
        [SqlStates.DuplicateSchema] = new("ObjectExists", MigrationErrorKind.InvalidInput, "Choose another name, or drop the object that has it."),
        ["42701"] = new("ColumnExists", MigrationErrorKind.InvalidInput, "Choose another name, or drop the column that has it."),
        [SqlStates.UniqueViolation] = new("DuplicateKey", MigrationErrorKind.InvalidData, "Find and clean up the duplicates (the detail names one), then run the command again."),
        [SqlStates.NotNullViolation] = new("NullValue", MigrationErrorKind.InvalidData, "Fill the rows that hold NULL, then run the command again."),
        ["23503"] = new("ForeignKeyViolated", MigrationErrorKind.InvalidData, "Add the missing rows in the referenced table, or remove those that point nowhere, or to what is to go (the detail names one); then run the command again."),
        ["23514"] = new("CheckViolated", MigrationErrorKind.InvalidData, "Mend the rows that break the CHECK constraint, then run the command again."),
        ["23P01"] = new("ExclusionViolated", MigrationErrorKind.InvalidData, "Mend the rows that conflict (the detail names two), then run the command again."),
        ["42601"] = new("SyntaxError", MigrationErrorKind.InvalidInput, "Mend the SQL expression: the message says near which word it ends."),
        ["42804"] = new("TypeMismatch", MigrationErrorKind.InvalidInput, "Add a cast, or give an expression of the column's type."),
        [SqlStates.ReadOnlyTransaction] = new("ReadOnly", MigrationErrorKind.InvalidState, "Connect to the primary, and check default_transaction_read_only of the role and the database: this connection may not write."),
        ["53000"] = new("ServerError", MigrationErrorKind.Resource, "The server ran out of something; its log says of what."),
        ["53100"] = new("DiskFull", MigrationErrorKind.Resource, "Free disk space on the server (data, WAL or temporary files), then run the command again: it goes on where it was."),
        ["53200"] = new("OutOfMemory", MigrationErrorKind.Resource, "The server ran out of memory: lower maintenance_work_mem or work_mem, or wait until it is less busy, then run the command again."),
        [SqlStates.TooManyConnections] = new("TooManyConnections", MigrationErrorKind.Resource, "Wait until a connection is free, close idle ones, or raise max_connections or the CONNECTION LIMIT of the role or the database."),
        ["53400"] = new("ConfigurationLimit", MigrationErrorKind.Resource, "A limit in the server's configuration was reached (temp_file_limit, for one): raise it, or do less at once."),
        ["54000"] = new("LimitExceeded", MigrationErrorKind.NotSupported, "A fixed limit of PostgreSQL was reached; the message names it."),
        ["0A000"] = new("NotSupported", MigrationErrorKind.NotSupported, "This server cannot do this for this object; the message says why."),
        ["55000"] = new("ObjectNotReady", MigrationErrorKind.InvalidState, "The object is not in the state that this needs; the message says why."),
        ["55006"] = new("ObjectInUse", MigrationErrorKind.Busy, "Run it again when the object is no longer in use."),
        [SqlStates.InvalidPassword] = new("PasswordRejected", MigrationErrorKind.Authentication, "Check user and password: -Credential, the connection text, PGPASSWORD or the password file."),
        [SqlStates.InvalidAuthorization] = new("NotAdmitted", MigrationErrorKind.Authentication, "Check user, database and TLS mode; the server's pg_hba.conf decides who may come in from where."),
        ["XX001"] = new("DataCorrupted", MigrationErrorKind.Server, "Stop changing this database, keep a copy of its files, and restore from a backup or ask for expert help: the server met damaged data."),
        ["XX002"] = new("IndexCorrupted", MigrationErrorKind.Server, "Rebuild the index (REINDEX INDEX CONCURRENTLY), after finding out why it is damaged: a change of the collation's version is the usual cause."),
    };

    /// <summary>By the first two characters, where the state itself is not listed.</summary>
    private static readonly Dictionary<string, Reading> s_byClass = new(StringComparer.Ordinal)
    {
        ["08"] = new("ConnectionLost", MigrationErrorKind.Connection, "Check the network and that the server runs, then run the command again: it goes on where it was."),
        ["22"] = new("InvalidData", MigrationErrorKind.InvalidData, "A value does not fit its type or function; mend the rows or the expression."),
        ["23"] = new("ConstraintViolated", MigrationErrorKind.InvalidData, "Mend the rows that break the constraint, then run the command again."),
        ["25"] = new("TransactionState", MigrationErrorKind.InvalidState, "The statement cannot run in this transaction; the message says why."),
        ["28"] = new("NotAdmitted", MigrationErrorKind.Authentication, "Check user, database and TLS mode; the server's pg_hba.conf decides who may come in from where."),
        ["42"] = new("InvalidSql", MigrationErrorKind.InvalidInput, "Mend the SQL or the name; the message says what the server did not accept."),
        ["53"] = new("ResourceExhausted", MigrationErrorKind.Resource, "The server ran out of something; the message and its log say of what."),
        ["54"] = new("LimitExceeded", MigrationErrorKind.NotSupported, "A fixed limit of PostgreSQL was reached; the message names it."),
        ["58"] = new("ServerSystemError", MigrationErrorKind.Server, "The server's operating system refused something (a file, a disk); the server's log has more."),
    };

    // The server has one state for it and for CHECK constraints; its routine tells them apart in every language.
    private const string PartitionRoutine = "ExecFindPartition";

    private static readonly Reading s_noPartition = new(
        "PartitionMissing", MigrationErrorKind.InvalidData, "Add a partition that takes the row, or a DEFAULT partition, then run the command again; or leave such rows out.");

    private static readonly Reading s_other = new("ServerError", MigrationErrorKind.Server, "The message is the server's own; the server's log may say more.");

    /// <summary>Translates a failure of the server or of the connection to it.</summary>
    /// <param name="e">The failure. A <see cref="MigrationException"/> comes back as it is; a cancellation and whatever is not the server's (a bug of ours) are thrown on unchanged.</param>
    /// <param name="doing">What was going on, as a noun with a capital: <c>Building index public.orders_tier_idx</c>.</param>
    /// <param name="target">What the failure is about; becomes the target object.</param>
    /// <param name="steps">The steps with their outcome so far, where a plan was running.</param>
    /// <param name="blockers">Who was in the way, where somebody was.</param>
    /// <returns>The error to throw.</returns>
    internal static MigrationException Translate(
        Exception e,
        string doing,
        string? target = null,
        IReadOnlyList<MigrationStep>? steps = null,
        IReadOnlyList<LockBlocker>? blockers = null)
    {
        if (e is MigrationException known)
        {
            return known;
        }

        if (e is not PostgresException and not NpgsqlException && !IsConnectionLost(e))
        {
            ExceptionDispatchInfo.Throw(e);
        }

        string? state = (e as PostgresException)?.SqlState;
        (Reading reading, string what) = e switch
        {
            PostgresException { SqlState: "23514", Routine: PartitionRoutine } server => (s_noPartition, Words(server)),
            PostgresException server => (Read(server.SqlState), Words(server)),
            _ when IsConnectionLost(e) => (s_byClass["08"], $"the connection to the server was lost ({Innermost(e)})."),
            _ => (s_other, Sentence(e.Message)),
        };
        return new MigrationException(reading.ErrorId, reading.Kind, $"{doing} failed: {what}", reading.Advice, e)
        {
            SqlState = state,
            Target = target,
            Steps = steps is null ? [] : [.. steps],
            Blockers = blockers is null ? [] : [.. blockers],
        };
    }

    /// <summary>
    /// Whether the connection is gone, so that another one may succeed: the network, a time-out of it, or the server ended it. After classes 53, 58 and XX
    /// Npgsql closes the connection too, but there another one would meet the same trouble.
    /// </summary>
    /// <param name="e">A failure, translated or not.</param>
    internal static bool IsConnectionLost(Exception e) => e switch
    {
        OperationCanceledException => false,
        MigrationException { ErrorId: "ConnectionLost" or "ServerShutdown" or "ServerNotReady" } => true,
        MigrationException known => known.InnerException is { } inner && IsConnectionLost(inner),
        // FATAL and PANIC end the session, whatever the state says.
        PostgresException server => server.InvariantSeverity is "FATAL" or "PANIC" || server.SqlState.StartsWith("08", StringComparison.Ordinal),
        // A pool that is used up says so with a TimeoutException too, but nothing is lost then: it has no stream behind it.
        NpgsqlException client => client.InnerException is IOException or SocketException or TimeoutException
            && !IsPoolExhausted(client),
        IOException or SocketException or TimeoutException => true,
        // The server's last word came with the answer before: Npgsql has closed the connection without an error.
        InvalidOperationException { Source: "Npgsql", Message: "Connection is not open" } => true,
        _ => false,
    };

    /// <summary>Whether all connections of the driver's pool are in use; it has no code of its own for that.</summary>
    internal static bool IsPoolExhausted(NpgsqlException e) => e.Message.StartsWith("The connection pool", StringComparison.Ordinal);

    /// <summary>The server's message, detail, hint and context, as sentences in one line.</summary>
    /// <param name="e">The server's error.</param>
    internal static string Words(PostgresException e)
    {
        StringBuilder words = new(Sentence(e.MessageText));
        if (!string.IsNullOrEmpty(e.Detail))
        {
            words.Append(" Detail: ").Append(Sentence(e.Detail));
        }

        if (!string.IsNullOrEmpty(e.Hint))
        {
            words.Append(" Hint: ").Append(Sentence(e.Hint));
        }

        return words.ToString();
    }

    private static Reading Read(string state) =>
        s_byState.TryGetValue(state, out Reading? exact) ? exact
        : state.Length == 5 && s_byClass.TryGetValue(state[..2], out Reading? ofClass) ? ofClass
        : s_other;

    private static string Innermost(Exception e)
    {
        while (e.InnerException is { } inner)
        {
            e = inner;
        }

        return e.Message.TrimEnd('.');
    }

    private static string Sentence(string text)
    {
        string trimmed = text.Trim();
        return trimmed.Length > 0 && trimmed[^1] is '.' or '!' or '?' ? trimmed : trimmed + ".";
    }

    private sealed record Reading(string ErrorId, MigrationErrorKind Kind, string Advice);
}
