using System.Diagnostics;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Engine.Sql;
using Npgsql;

namespace MigrationSafety.Engine.Locks;

/// <summary>A session that is to be taken out of the way.</summary>
/// <param name="Pid">Process id; 0 for a prepared transaction.</param>
/// <param name="Gid">Gid of a prepared transaction.</param>
/// <param name="BackendStart">When the backend that is meant started; null where the pid alone was given.</param>
public sealed record StopRequest(int Pid, string? Gid, DateTimeOffset? BackendStart);

/// <summary>How it is to be done.</summary>
public sealed record StopOptions
{
    /// <summary>Cancel, terminate, or one after the other.</summary>
    public BlockingSessionMode Mode { get; init; }

    /// <summary>How long to wait for what a request does.</summary>
    public TimeSpan GracePeriod { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Roll prepared transactions back.</summary>
    public bool RollbackPrepared { get; init; }

    /// <summary>Touch what is protected, too.</summary>
    public bool Force { get; init; }
}

/// <summary>A session as it is now, and what is to be done about it.</summary>
/// <param name="Session">The current session.</param>
/// <param name="Row">The session to be stopped.</param>
/// <param name="Refusal">Why nothing may be done, with what would help; null where something is to be done.</param>
/// <param name="Gone">It has ended.</param>
/// <param name="Waiters">Who waits for it.</param>
/// <param name="WouldFree">How many of them wait for nobody else.</param>
public sealed record StopPlan(EngineSession Session, BlockingLock Row, string? Refusal, bool Gone, IReadOnlyList<int> Waiters, int WouldFree)
{
    /// <summary>One line: who it is, and how many would be freed.</summary>
    /// <returns>The line.</returns>
    public override string ToString()
    {
        string?[] parts =
        [
            Row.User is null ? null : $"user {Row.User}",
            string.IsNullOrEmpty(Row.Application) ? null : $"application '{Row.Application}'",
            Row.State ?? Row.BackendType,
            Row.TransactionAge is { } age ? $"transaction open for {Durations.Text(age)}" : null,
            Row.Gid is null && Row.Query is { } query ? Short(query.ReplaceLineEndings(" ")) : null,
        ];
        string who = Row.Gid is { } gid ? $"prepared transaction '{gid}'" : $"pid {Row.Pid}";
        return $"{who} ({string.Join(", ", parts.Where(part => part is not null))}); {WouldFree} {(WouldFree == 1 ? "session" : "sessions")} would be freed";
    }

    private static string Short(string query) => query.Length <= 200 ? query : query[..199] + "…";
}

/// <summary>Takes sessions that hold others up out of the way.</summary>
public static class SessionStopper
{
    private static readonly TimeSpan s_lookEvery = TimeSpan.FromMilliseconds(100);

    /// <summary>Looks at the session as it is now.</summary>
    /// <param name="session">Session.</param>
    /// <param name="request">Who is meant.</param>
    /// <param name="options">How.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The plan.</returns>
    /// <exception cref="MigrationException"><c>SessionReplaced</c>: the pid is another session's by now.</exception>
    public static async Task<StopPlan> PlanAsync(EngineSession session, StopRequest request, StopOptions options, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(options);
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("stop", sink, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<BlockingLock> tree = await TreeAsync(connection, session, sink, cancellationToken).ConfigureAwait(false);
            BlockingLock? row = request.Gid is null
                ? await SessionAsync(connection, session.Info, request.Pid, cancellationToken).ConfigureAwait(false)
                : await PreparedAsync(connection, session.Info, request.Gid, cancellationToken).ConfigureAwait(false);
            if (row is null)
            {
                return new StopPlan(session, new BlockingLock { Pid = request.Pid, Gid = request.Gid, BackendStart = request.BackendStart, Server = session.Info.Server, Port = session.Info.Port, Timestamp = DateTimeOffset.Now }, null, true, [], 0);
            }

            // The catalog tells microseconds; what went through a file may not.
            if (request.BackendStart is { } start && (row.BackendStart is not { } now || (now - start).Duration() > TimeSpan.FromMilliseconds(1)))
            {
                throw new MigrationException(
                    "SessionReplaced",
                    MigrationErrorKind.InvalidState,
                    row.BackendStart is null
                        ? $"Whether pid {request.Pid} is still the session that was listed cannot be told: role {session.Info.User} may not see when it started."
                        : $"Pid {request.Pid} is another session by now: that one started at {start:O}, this one at {row.BackendStart:O}.",
                    "List the sessions again with Get-BlockingLock.")
                {
                    Target = $"pid {request.Pid}",
                };
            }

            string? refusal = row.Gid is { } gid
                ? PreparedRefusal(gid, row, session.Info, options)
                : Refusal(await SessionEnder.LookAsync(connection, row.Pid, row.BackendStart, options.Mode == BlockingSessionMode.Terminate, options.Force, cancellationToken).ConfigureAwait(false), options);
            HashSet<int> waiters = Waiters(tree, row.Pid);
            return new StopPlan(session, row, refusal, false, [.. waiters], waiters.Except(Held(tree, row, [])).Count());
        }
        catch (NpgsqlException e)
        {
            throw ServerErrors.Translate(e, "Looking at the session", $"pid {request.Pid}");
        }
    }

    /// <summary>Does it, and waits for what comes of it.</summary>
    /// <param name="plan">Plan.</param>
    /// <param name="options">How.</param>
    /// <param name="sink">Where notices go.</param>
    /// <param name="cancellationToken">Cancels the waiting.</param>
    /// <returns>What was done, and what came of it.</returns>
    /// <exception cref="MigrationException">The role may not, or the connection was lost.</exception>
    public static async Task<BlockingSessionResult> RunAsync(StopPlan plan, StopOptions options, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(sink);
        BlockingLock row = plan.Row;
        List<string> statements = [];
        long start = Stopwatch.GetTimestamp();
        BlockingSessionResult Result(BlockingSessionOutcome outcome, string? note, After? after) => new()
        {
            Pid = row.Pid,
            Gid = row.Gid,
            Outcome = outcome,
            Statement = [.. statements],
            Duration = statements.Count == 0 ? TimeSpan.Zero : Stopwatch.GetElapsedTime(start),
            FreedPid = after?.Freed ?? [],
            Ended = after?.Ended ?? plan.Gone,
            Note = note,
            User = row.User,
            Application = row.Application,
            Query = row.Query,
            BackendStart = row.BackendStart,
            Server = row.Server,
            Port = row.Port,
            Database = row.Database,
        };
        if (plan.Gone || plan.Refusal is not null)
        {
            return Result(plan.Gone ? BlockingSessionOutcome.Gone : BlockingSessionOutcome.NotStopped, plan.Refusal, null);
        }

        try
        {
            await using NpgsqlConnection connection = await plan.Session.OpenAsync("stop", sink, cancellationToken).ConfigureAwait(false);
            bool[] ways = options.Mode switch
            {
                _ when row.Gid is not null => [true],
                BlockingSessionMode.Cancel => [false],
                BlockingSessionMode.Terminate => [true],
                _ => [false, true],
            };
            After after = new(false, true, []);
            foreach (bool terminate in ways)
            {
                string statement = row.Gid is { } prepared ? $"rollback prepared {SqlName.Literal(prepared)}" : $"select pg_catalog.{(terminate ? "pg_terminate_backend" : "pg_cancel_backend")}({row.Pid})";
                SessionEnd end = await SendAsync(connection, row, statement, terminate, options.Force, sink, cancellationToken).ConfigureAwait(false);
                switch (end.Refusal)
                {
                    case EndRefusal.None:
                        statements.Add(statement);
                        break;
                    case EndRefusal.Gone:
                        after = await LookAsync(connection, plan, sink, cancellationToken).ConfigureAwait(false);
                        return Result(statements.Count == 0 ? BlockingSessionOutcome.Gone : BlockingSessionOutcome.Freed, null, after);
                    case EndRefusal.Idle when options.Mode == BlockingSessionMode.Escalate:
                        // Nothing to cancel, and so nothing to wait for.
                        continue;
                    case EndRefusal.Denied:
                        throw await DeniedAsync(connection, plan, cancellationToken).ConfigureAwait(false);
                    default:
                        return Result(statements.Count == 0 ? BlockingSessionOutcome.NotStopped : BlockingSessionOutcome.StillBlocking, Refusal(end, options), after);
                }

                long sent = Stopwatch.GetTimestamp();
                while (true)
                {
                    after = await LookAsync(connection, plan, sink, cancellationToken).ConfigureAwait(false);
                    if (after.Ended || (!terminate && !after.Blocks))
                    {
                        return Result(BlockingSessionOutcome.Freed, null, after);
                    }

                    if (Stopwatch.GetElapsedTime(sent) >= options.GracePeriod)
                    {
                        break;
                    }

                    await Task.Delay(s_lookEvery, cancellationToken).ConfigureAwait(false);
                }
            }

            return Result(
                BlockingSessionOutcome.StillBlocking,
                options.Mode == BlockingSessionMode.Cancel ? "It was cancelled and is still in the way: its transaction goes on. -Mode Terminate ends the session." : "It has been told to end and has not yet; a server process that rolls back or hangs in I/O takes its time.",
                after);
        }
        catch (NpgsqlException e)
        {
            throw ServerErrors.Translate(e, $"Stopping {(row.Gid is { } gid ? $"prepared transaction '{gid}'" : $"pid {row.Pid}")}", $"pid {row.Pid}");
        }
    }

    private static string PreparedText(string gid) => $"ROLLBACK PREPARED {SqlName.Literal(gid)};";

    private static string? PreparedRefusal(string gid, BlockingLock row, MigrationSession here, StopOptions options) =>
        row.Database != here.Database ? $"A prepared transaction can be ended in its own database alone. In {row.Database}: {PreparedText(gid)}"
        : options.RollbackPrepared ? null
        : $"A prepared transaction belongs to no session: whoever prepared it decides. To roll it back: {PreparedText(gid)} or -RollbackPrepared; to keep its work: COMMIT PREPARED {SqlName.Literal(gid)};";

    private static string? Refusal(SessionEnd end, StopOptions options) => end.Refusal switch
    {
        EndRefusal.None or EndRefusal.Gone => null,
        EndRefusal.Idle when options.Mode == BlockingSessionMode.Escalate => null,
        EndRefusal.Idle => Sentence(end) + " -Mode Terminate ends the session, and with it its transaction and its locks.",
        EndRefusal.Guarded => Sentence(end) + " -Force does it all the same.",
        _ => Sentence(end),
    };

    private static string Sentence(SessionEnd end) => $"{char.ToUpperInvariant(end.Why![0])}{end.Why[1..]}.";

    /// <summary>Which right is missing: roles signal each other's sessions by pg_signal_backend, those of superusers and the server's own not even so.</summary>
    private static async Task<MigrationException> DeniedAsync(NpgsqlConnection connection, StopPlan plan, CancellationToken cancellationToken)
    {
        const string Query = """
            select coalesce((select r.rolsuper from pg_catalog.pg_roles r where r.rolname = $1), true),
                   $1::text is null and exists (select from pg_catalog.pg_roles r where r.rolname = 'pg_signal_autovacuum_worker')
            """;
        string me = SqlName.QuoteIfNeeded(plan.Session.Info.User);
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = (object?)plan.Row.User ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Text } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        string advice = reader.GetBoolean(1) ? $"A superuser may, or after: GRANT pg_signal_autovacuum_worker TO {me};"
            : reader.GetBoolean(0) ? "It is a superuser's or the server's own: only a superuser may stop it. Connect as one."
            : $"Have it granted: GRANT pg_signal_backend TO {me}; or connect as {SqlName.QuoteIfNeeded(plan.Row.User!)}.";
        return new MigrationException(
            "InsufficientPrivilege",
            MigrationErrorKind.Permission,
            $"Role {plan.Session.Info.User} may not stop pid {plan.Row.Pid}{(plan.Row.User is { } user ? $", a session of role {user}" : "")}.",
            advice)
        {
            SqlState = SqlStates.InsufficientPrivilege,
            Target = $"pid {plan.Row.Pid}",
        };
    }

    private static bool Same(BlockingLock left, BlockingLock right) => left.Pid == right.Pid && left.Gid == right.Gid;

    /// <summary>Who waits for it, directly or not. Prepared transactions all have the pid 0: who waits for one of them counts for each.</summary>
    /// <param name="tree">All waits.</param>
    /// <param name="top">Pid of who is waited for.</param>
    /// <param name="without">Waits for this one do not count.</param>
    private static HashSet<int> Waiters(IReadOnlyList<BlockingLock> tree, int top, int? without = null)
    {
        ILookup<int, int> direct = tree.SelectMany(waiter => waiter.BlockingPid.Distinct().Select(pid => (pid, waiter.Pid))).ToLookup(pair => pair.pid, pair => pair.Pid);
        HashSet<int> waiters = [];
        Stack<int> next = new([top]);
        while (next.TryPop(out int pid))
        {
            foreach (int waiter in direct[pid].Where(waiter => waiter != top && waiter != without && waiters.Add(waiter)))
            {
                next.Push(waiter);
            }
        }

        return waiters;
    }

    /// <summary>Who would still wait without it: for others than those who waited for it, which come to an end by themselves.</summary>
    private static IEnumerable<int> Held(IReadOnlyList<BlockingLock> tree, BlockingLock row, IReadOnlyList<int> freed) =>
        tree.Where(root => root.IsRoot && !Same(root, row) && !freed.Contains(root.Pid)).SelectMany(root => Waiters(tree, root.Pid, row.Pid));

    private static Task<IReadOnlyList<BlockingLock>> TreeAsync(NpgsqlConnection connection, EngineSession session, IOperationSink sink, CancellationToken cancellationToken) =>
        BlockingLockReader.ReadAsync(connection, session.Info, null, new BlockingLockFilter { QueryLength = 0 }, sink, cancellationToken);

    private static async Task<SessionEnd> SendAsync(
        NpgsqlConnection connection, BlockingLock row, string statement, bool terminate, bool force, IOperationSink sink, CancellationToken cancellationToken)
    {
        sink.Debug(statement);
        if (row.Gid is null)
        {
            return await SessionEnder.EndAsync(connection, row.Pid, row.BackendStart, terminate, force, cancellationToken).ConfigureAwait(false);
        }

        try
        {
            await using NpgsqlCommand command = new(statement, connection);
            await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            return new SessionEnd(EndRefusal.None, null);
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.UndefinedObject)
        {
            return new SessionEnd(EndRefusal.Gone, "it has ended meanwhile");
        }
    }

    /// <summary>What has become of it: gone, or out of the way; where nobody waited for it, whether it still does what it did.</summary>
    private static async Task<After> LookAsync(NpgsqlConnection connection, StopPlan plan, IOperationSink sink, CancellationToken cancellationToken)
    {
        BlockingLock row = plan.Row;
        BlockingLock? now = row.Gid is { } gid
            ? await PreparedAsync(connection, plan.Session.Info, gid, cancellationToken).ConfigureAwait(false)
            : await SessionAsync(connection, plan.Session.Info, row.Pid, cancellationToken).ConfigureAwait(false);
        bool ended = now is null || now.BackendStart != row.BackendStart;
        if (plan.Waiters.Count == 0)
        {
            return new After(ended, !ended && now!.State == row.State && now.Query == row.Query, []);
        }

        IReadOnlyList<BlockingLock> tree = await TreeAsync(connection, plan.Session, sink, cancellationToken).ConfigureAwait(false);
        HashSet<int> left = ended ? [] : Waiters(tree, row.Pid);
        return new After(ended, left.Overlaps(plan.Waiters), [.. plan.Waiters.Except(left).Except(Held(tree, row, plan.Waiters))]);
    }

    private static async Task<BlockingLock?> SessionAsync(NpgsqlConnection connection, MigrationSession server, int pid, CancellationToken cancellationToken)
    {
        const string Query = """
            select a.pid, a.usename::text, a.application_name, a.state, pg_catalog.clock_timestamp() - a.xact_start, a.query,
                   a.backend_type, a.backend_start, a.datname::text, pg_catalog.clock_timestamp()
            from pg_catalog.pg_stat_activity a
            where a.pid = $1
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = pid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new BlockingLock
            {
                Pid = reader.GetInt32(0),
                User = reader.Text(1),
                Application = reader.Text(2),
                State = reader.Text(3),
                TransactionAge = reader.Duration(4),
                Query = reader.Text(5) is { Length: > 0 } query && query != "<insufficient privilege>" ? query : null,
                BackendType = reader.Text(6),
                BackendStart = reader.Time(7),
                Database = reader.Text(8),
                Timestamp = reader.Time(9)!.Value,
                Server = server.Server,
                Port = server.Port,
            }
            : null;
    }

    private static async Task<BlockingLock?> PreparedAsync(NpgsqlConnection connection, MigrationSession server, string gid, CancellationToken cancellationToken)
    {
        const string Query = """
            select owner::text, database::text, pg_catalog.clock_timestamp() - prepared, pg_catalog.clock_timestamp() from pg_catalog.pg_prepared_xacts where gid = $1
            """;
        await using NpgsqlCommand command = new(Query, connection) { Parameters = { new() { Value = gid } } };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        return await reader.ReadAsync(cancellationToken).ConfigureAwait(false)
            ? new BlockingLock
            {
                Gid = gid,
                State = "prepared",
                Query = gid,
                User = reader.Text(0),
                Database = reader.Text(1),
                TransactionAge = reader.Duration(2),
                Timestamp = reader.Time(3)!.Value,
                Server = server.Server,
                Port = server.Port,
            }
            : null;
    }

    /// <summary>A look after a request.</summary>
    /// <param name="Ended">The session or prepared transaction is there no more.</param>
    /// <param name="Blocks">It is still in the way.</param>
    /// <param name="Freed">Who waited for it, and waits no more, or for others who waited too.</param>
    private sealed record After(bool Ended, bool Blocks, int[] Freed);
}
