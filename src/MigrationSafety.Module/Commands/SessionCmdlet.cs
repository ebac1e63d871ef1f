using System.Management.Automation;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Base of the cmdlets that work on a database: resolves <c>-Session</c>.</summary>
public abstract class SessionCmdlet : MigrationCmdlet
{
    // Several sessions for the same text are one: connected once, whatever the number of pipeline records.
    private readonly Dictionary<string, MigrationSession?> _opened = new(StringComparer.Ordinal);
    private bool _handedOver;

    /// <summary>
    /// Sessions, or connection texts: key=value strings, <c>postgresql://</c> URIs, <c>service=NAME</c>. Without it the runspace's current session;
    /// without that the standard libpq environment.
    /// </summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public virtual SessionArgument[]? Session { get; set; }

    /// <summary>User and password for connection texts and the libpq environment.</summary>
    [Parameter]
    [ValidateNotNull]
    [Credential]
    public PSCredential? Credential { get; set; }

    /// <summary>The sessions of this record; a text that does not connect is an error of its own, and the others go on.</summary>
    /// <returns>Engine sides of open sessions.</returns>
    private protected IEnumerable<EngineSession> Sessions()
    {
        SessionArgument? implied = RunspaceSessions.Here.Current is { } current ? new SessionArgument(current) : null;
        SessionArgument?[] arguments = Session is { Length: > 0 } ? [.. Session] : new[] { implied };
        foreach (SessionArgument? argument in arguments)
        {
            EngineSession? session = null;
            try
            {
                session = Resolve(argument);
            }
            catch (MigrationException e)
            {
                WriteError(ErrorRecords.Of(e));
            }

            if (session is not null)
            {
                yield return session;
            }
        }
    }

    /// <summary>Hands work over to a job, which closes at its end what this cmdlet has opened, and writes the job.</summary>
    /// <param name="work">Pieces of work; each waits for its own turn.</param>
    /// <param name="locations">Where they work.</param>
    private protected void StartJob(IReadOnlyList<Func<IRecordSink, CancellationToken, Task>> work, IEnumerable<string> locations)
    {
        // The command's name alone: what was typed may hold a password.
        MigrationJob job = new(MyInvocation.MyCommand.Name, string.Join(", ", locations.Distinct()));
        JobRepository.Add(job);
        _handedOver = true;
        job.Start(work, CloseAsync);
        WriteObject(job);
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        if (!_handedOver)
        {
            CloseAsync().GetAwaiter().GetResult();
        }
    }

    /// <summary>The session of an argument, connected once for each text.</summary>
    /// <param name="argument">Session or text; null for the libpq environment.</param>
    /// <returns>Its engine side; null where an earlier try failed.</returns>
    /// <exception cref="MigrationException">Why it cannot be had.</exception>
    private protected EngineSession? Resolve(SessionArgument? argument)
    {
        if (argument?.Session is { } session)
        {
            if (argument.Database is { } database && database != session.Database)
            {
                throw new MigrationException(
                    "OtherDatabase",
                    MigrationErrorKind.InvalidInput,
                    $"This runs in database {database}, and was seen by a session with another one ({session}).",
                    "Name a session with that database: -Session.")
                {
                    Target = database,
                };
            }

            return Credential is null
                ? EngineSession.Of(session)
                : throw new MigrationException(
                    "CredentialWithSession",
                    MigrationErrorKind.InvalidInput,
                    $"-Credential was given together with a session that is connected already ({session}).",
                    "Leave -Credential out, or connect with it: Connect-MigrationDatabase -Credential.");
        }

        string key = argument?.Connection ?? "";
        if (!_opened.TryGetValue(key, out MigrationSession? opened))
        {
            // Remembered also where it fails: one error for it, not one for each record.
            _opened[key] = null;
            opened = Runner.Wait((sink, token) => SessionFactory.ConnectAsync(ConnectRequests.Of(argument?.Connection, Credential), sink, token));
            _opened[key] = opened;
        }

        return opened is null ? null : EngineSession.Of(opened);
    }

    private async Task CloseAsync()
    {
        foreach (MigrationSession? session in _opened.Values)
        {
            if (session is not null)
            {
                await SessionFactory.DisconnectAsync(session).ConfigureAwait(false);
            }
        }

        _opened.Clear();
    }
}
