using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>Opens and closes sessions.</summary>
public static class SessionFactory
{
    /// <summary>The oldest major that the module's SQL is made for.</summary>
    private const int OldestMajor = 14;

    /// <summary>Sessions of a process are numbered through, whoever opens them; the only state that they share.</summary>
    private static int s_lastId;

    /// <summary>Connects, looks whether the server will do, and keeps to the host that answered: no later connection goes to another one.</summary>
    /// <param name="request">Where to.</param>
    /// <param name="sink">Where warnings and remarks go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>An open session.</returns>
    /// <exception cref="MigrationException">
    /// The request is wrong (<c>ConnectionTextInvalid</c>, <c>ConnectionKeyUnknown</c>, <c>ConnectionValueInvalid</c>, <c>ServiceNotFound</c> ...), nobody
    /// answers (<c>HostNotFound</c>, <c>ConnectionRefused</c>, <c>ConnectTimeout</c> ...), the server says no (<c>PasswordRejected</c>, <c>NotAdmitted</c>,
    /// <c>DatabaseNotFound</c> ...), or is not one to work with (<c>ServerTooOld</c>, <c>TransactionPooler</c>, <c>NoSuitableHost</c>).
    /// </exception>
    public static Task<MigrationSession> ConnectAsync(ConnectRequest request, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        return ConnectAsync(request, ConnectionEnvironment.Current, sink, cancellationToken);
    }

    /// <summary>Closes a session: idle connections at once, those in use when they are done. A closed one is left as it is.</summary>
    /// <param name="session">Session.</param>
    public static async Task DisconnectAsync(MigrationSession session)
    {
        ArgumentNullException.ThrowIfNull(session);
        if (session.State == SessionState.Open)
        {
            session.State = SessionState.Closed;
            await ((EngineSession)session.Handle).DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Connects to another database of a session's server, as the same role.</summary>
    internal static async Task<EngineSession> ConnectLikeAsync(EngineSession like, string database, IOperationSink sink, CancellationToken cancellationToken)
    {
        ConnectionHost host = like.Host with { Settings = new(like.Host.Settings.ConnectionString) { Database = database } };
        return EngineSession.Of((await TryAsync(host, TargetSessionAttributes.Any, like.ConnectTimeout, sink, cancellationToken).ConfigureAwait(false)).Session!);
    }

    /// <summary>Connects to another node of a session's Citus cluster, as the same role and to the database of the same name.</summary>
    internal static async Task<EngineSession> ConnectNodeAsync(EngineSession like, CitusNode node, string options, IOperationSink sink, CancellationToken cancellationToken)
    {
        NpgsqlConnectionStringBuilder settings = new(like.Host.Settings.ConnectionString);
        settings.Options = string.IsNullOrEmpty(settings.Options) ? options : $"{settings.Options} {options}";
        ConnectionHost host = like.Host with { Settings = settings };
        if (!node.IsHere)
        {
            (settings.Host, settings.Port) = (node.Host, node.Port);
            host = host with { Name = node.Host, Port = node.Port, TlsName = null };
        }

        EngineSession there = EngineSession.Of((await TryAsync(host, TargetSessionAttributes.Any, like.ConnectTimeout, sink, cancellationToken).ConfigureAwait(false)).Session!);
        there.IsNode = true;
        return there;
    }

    internal static async Task<MigrationSession> ConnectAsync(ConnectRequest request, ConnectionEnvironment environment, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(sink);
        ResolvedConnection resolved = ConnectionResolver.Resolve(request, environment);
        foreach (string warning in resolved.Warnings)
        {
            sink.Warning(warning);
        }

        foreach (string remark in resolved.Remarks)
        {
            sink.Verbose(remark);
        }

        // Like libpq: every host once for what is preferred, then the first that answered will do.
        List<(ConnectionHost Host, MigrationException Why)> failures = [];
        ConnectionHost? secondChoice = null;
        foreach (ConnectionHost host in resolved.Hosts)
        {
            try
            {
                (MigrationSession? session, string? misfit) = await TryAsync(host, resolved.Wanted, resolved.ConnectTimeout, sink, cancellationToken).ConfigureAwait(false);
                if (session is not null)
                {
                    return session;
                }

                secondChoice ??= host;
                failures.Add((host, ConnectErrors.NotTheWanted(host, misfit!, resolved.Wanted)));
            }
            catch (MigrationException e) when (e.Kind == MigrationErrorKind.Connection || e.ErrorId is "TooManyConnections")
            {
                sink.Verbose(e.Message);
                failures.Add((host, e));
            }
        }

        if (secondChoice is not null && resolved.Wanted is TargetSessionAttributes.PreferPrimary or TargetSessionAttributes.PreferStandby)
        {
            return (await TryAsync(secondChoice!, TargetSessionAttributes.Any, resolved.ConnectTimeout, sink, cancellationToken).ConfigureAwait(false)).Session!;
        }

        throw failures.Count == 1 ? failures[0].Why : ConnectErrors.NoneSuits(failures);
    }

    /// <summary>A session with this host; null, and what it is, where it is not of the wanted kind.</summary>
    private static async Task<(MigrationSession? Session, string? Misfit)> TryAsync(
        ConnectionHost host, TargetSessionAttributes wanted, TimeSpan? timeout, IOperationSink sink, CancellationToken cancellationToken)
    {
        using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        if (timeout is { } bound)
        {
            limit.CancelAfter(bound);
        }

        sink.Verbose($"Connecting to {host}, database {host.Settings.Database}, as {host.Settings.Username}.");
        NpgsqlDataSource dataSource = CreateDataSource(host);
        bool keep = false;
        try
        {
            await using NpgsqlConnection connection = await dataSource.OpenPromptlyAsync(limit.Token).ConfigureAwait(false);
            ServerFacts facts = await ServerFacts.ReadAsync(connection, limit.Token).ConfigureAwait(false);
            RequireVersion(facts.Version, host);
            if (Misfit(facts, wanted) is { } misfit)
            {
                return (null, misfit);
            }

            if (facts.BackendPid != connection.ProcessID)
            {
                await PoolerProbe.RefuseTransactionModeAsync(dataSource, connection, host, cancellationToken, limit.Token).ConfigureAwait(false);
            }

            bool noticesLostClient = await ServerFacts.CanNoticeLostClientAsync(connection, limit.Token).ConfigureAwait(false);
            EngineSession engine = new(dataSource, host, timeout, noticesLostClient) { ServerStartedAt = facts.StartedAt };
            MigrationSession session = new(
                Interlocked.Increment(ref s_lastId), host.Name, host.Port, facts.Database, facts.User, facts.Version, facts.IsStandby, engine);
            engine.Info = session;
            keep = true;
            return (session, null);
        }
        catch (Exception e)
        {
            cancellationToken.ThrowIfCancellationRequested();
            throw await ConnectErrors.TranslateAsync(e, host, timeout, limit.IsCancellationRequested, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            if (!keep)
            {
                await dataSource.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private static NpgsqlDataSource CreateDataSource(ConnectionHost host)
    {
        NpgsqlDataSourceBuilder builder = new(host.Settings.ConnectionString);
        // Not in the connection string, so that no property of a connection has it; and always given, so that Npgsql does not look for one of its own.
        string password = host.Password ?? string.Empty;
        builder.UsePasswordProvider(_ => password, (_, _) => new(password));
        if (host.TlsName is { } name)
        {
            builder.UseSslClientAuthenticationOptionsCallback(options => options.TargetHost = name);
        }

        return builder.Build();
    }

    /// <summary>Refuses a server that is too old.</summary>
    internal static void RequireVersion(Version version, ConnectionHost host)
    {
        if (version.Major < OldestMajor)
        {
            throw new MigrationException(
                "ServerTooOld",
                MigrationErrorKind.NotSupported,
                $"{host} runs PostgreSQL {version}; {OldestMajor} is the oldest that is supported.",
                $"Upgrade the server: PostgreSQL {version.Major} gets no more fixes, and lacks commands and views that safe changes need.")
            {
                Target = host.ToString(),
            };
        }
    }

    private static string? Misfit(ServerFacts facts, TargetSessionAttributes wanted) => wanted switch
    {
        TargetSessionAttributes.Primary or TargetSessionAttributes.PreferPrimary when facts.IsStandby => "a standby",
        TargetSessionAttributes.Standby or TargetSessionAttributes.PreferStandby when !facts.IsStandby => "a primary",
        TargetSessionAttributes.ReadWrite when facts.IsStandby => "a standby",
        TargetSessionAttributes.ReadWrite when facts.IsReadOnly => "read-only by default_transaction_read_only",
        TargetSessionAttributes.ReadOnly when !facts.IsStandby && !facts.IsReadOnly => "one that takes writes",
        _ => null,
    };
}
