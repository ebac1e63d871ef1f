using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Locks;

/// <summary>Why a session is left alone.</summary>
internal enum EndRefusal
{
    /// <summary>It is not.</summary>
    None,

    /// <summary>It has ended, or another one has its pid by now.</summary>
    Gone,

    /// <summary>This role may not see it well enough to tell.</summary>
    Hidden,

    /// <summary>It is the session that asks.</summary>
    Own,

    /// <summary>It does what should not be stopped; who insists may.</summary>
    Guarded,

    /// <summary>It runs nothing that could be cancelled.</summary>
    Idle,

    /// <summary>The role may not.</summary>
    Denied,
}

/// <summary>What came of asking a session to end its statement or itself.</summary>
/// <param name="Refusal">Why nothing was done.</param>
/// <param name="Why">The same in words; null where something was done.</param>
internal sealed record SessionEnd(EndRefusal Refusal, string? Why)
{
    /// <summary>The server passed the signal on.</summary>
    internal bool Signalled => Refusal == EndRefusal.None;
}

/// <summary>
/// Cancels statements and ends sessions that are in the way, by one set of rules: never the session that asks, whoever has got the pid since it was looked at, or whom this
/// role may not see well enough to tell, and without force no session of this module, autovacuum that prevents wraparound, process of the server, or replication.
/// </summary>
internal static class SessionEnder
{
    /// <summary>Cancels the statement of a session, or ends the session.</summary>
    /// <param name="connection">Connection of this module.</param>
    /// <param name="pid">Process id.</param>
    /// <param name="backendStart">When that session began: another one under the same pid is left alone, and so is one whose start this role may not see.</param>
    /// <param name="terminate">True to end the session, false to cancel what it runs.</param>
    /// <param name="force">What is guarded, too.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static Task<SessionEnd> EndAsync(NpgsqlConnection connection, int pid, DateTimeOffset? backendStart, bool terminate, bool force, CancellationToken cancellationToken) =>
        AskAsync(connection, pid, backendStart, terminate, force, act: true, cancellationToken);

    /// <summary>What the rules say, without doing anything.</summary>
    internal static Task<SessionEnd> LookAsync(NpgsqlConnection connection, int pid, DateTimeOffset? backendStart, bool terminate, bool force, CancellationToken cancellationToken) =>
        AskAsync(connection, pid, backendStart, terminate, force, act: false, cancellationToken);

    private static async Task<SessionEnd> AskAsync(
        NpgsqlConnection connection, int pid, DateTimeOffset? backendStart, bool terminate, bool force, bool act, CancellationToken cancellationToken)
    {
        // One statement, so that what was checked is what is signalled; the session's start has the microseconds that a client's clock keeps too.
        const string Query = """
            with looked as materialized (
                select a.pid, a.state, a.backend_start, a.application_name, a.backend_type as type, a.query like '%(to prevent wraparound)' as prevents_wraparound
                from pg_catalog.pg_stat_activity a
                where a.pid = $1
            ), ruled as materialized (
                select pid,
                       case when backend_start is null or $2 is null then 'Hidden this role may not see when it began and what it runs (GRANT pg_read_all_stats shows it)'
                            when backend_start is distinct from $2 then 'Gone it has ended meanwhile'
                            when pid = pg_catalog.pg_backend_pid() then 'Own it is the session that asks'
                            when $4 then null
                            when application_name like 'MigrationSafety/%' then 'Guarded it is a session of this module'
                            when type = 'autovacuum worker' and prevents_wraparound then 'Guarded it is an autovacuum that prevents transaction id wraparound'
                            when type = 'autovacuum worker' then case when $3 then 'Guarded it is an autovacuum, which need only be cancelled' end
                            when type = 'walsender' then 'Guarded it is replication (walsender): a standby or subscriber would lose its connection'
                            when type not in ('client backend', 'parallel worker') then 'Guarded it is a process of the server (' || type || ')'
                       end as rule,
                       case when not $3 and state like 'idle%' then 'Idle it runs nothing that could be cancelled: it is ' || state end as idle
                from looked
            )
            select coalesce(rule, idle),
                   case when coalesce(rule, idle) is null and $5 then case when $3 then pg_catalog.pg_terminate_backend(pid) else pg_catalog.pg_cancel_backend(pid) end end
            from ruled
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = pid },
                new() { Value = (object?)backendStart?.UtcDateTime ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.TimestampTz },
                new() { Value = terminate },
                new() { Value = force },
                new() { Value = act },
            },
        };
        SessionEnd gone = new(EndRefusal.Gone, "it has ended meanwhile");
        try
        {
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                return gone;
            }

            if (reader.Text(0) is { } why)
            {
                int space = why.IndexOf(' ', StringComparison.Ordinal);
                return new SessionEnd(Enum.Parse<EndRefusal>(why[..space]), why[(space + 1)..]);
            }

            return !act || reader.GetBoolean(1) ? new SessionEnd(EndRefusal.None, null) : gone;
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.InsufficientPrivilege)
        {
            return new SessionEnd(EndRefusal.Denied, "this role may not (pg_signal_backend allows it, for sessions of others than superusers)");
        }
    }
}
