using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Locks;

/// <summary>What came of asking a session to end its statement or itself.</summary>
/// <param name="Signalled">The server passed the signal on.</param>
/// <param name="Why">Why nothing was done, in words; null where it was.</param>
internal sealed record SessionEnd(bool Signalled, string? Why);

/// <summary>
/// Cancels statements and ends sessions that are in the way, by one set of rules: never a session of this module, an autovacuum that prevents wraparound, a process of
/// the server, replication, whoever has got the pid since it was looked at, or whom this role may not see well enough to tell.
/// </summary>
internal static class SessionEnder
{
    /// <summary>Cancels the statement of a session, or ends the session.</summary>
    /// <param name="connection">Connection of this module.</param>
    /// <param name="pid">Process id.</param>
    /// <param name="backendStart">When that session began: another one under the same pid is left alone, and so is one whose start this role may not see.</param>
    /// <param name="terminate">True to end the session, false to cancel what it runs.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<SessionEnd> EndAsync(NpgsqlConnection connection, int pid, DateTimeOffset? backendStart, bool terminate, CancellationToken cancellationToken)
    {
        // One statement, so that what was checked is what is signalled; the session's start has the microseconds that a client's clock keeps too.
        const string Query = """
            with session as materialized (
                select a.pid, a.state,
                       case when a.backend_start is null or $2 is null then 'this role may not see when it began and what it runs (GRANT pg_read_all_stats shows it)'
                            when a.backend_start is distinct from $2 then 'it has ended meanwhile'
                            when a.pid = pg_catalog.pg_backend_pid() or a.application_name like 'MigrationSafety/%' then 'it is a session of this module'
                            when a.backend_type = 'autovacuum worker' and a.query like '%(to prevent wraparound)' then 'it is an autovacuum that prevents transaction id wraparound'
                            when a.backend_type = 'autovacuum worker' then case when $3 then 'it is an autovacuum, which can be cancelled only' end
                            when a.backend_type not in ('client backend', 'parallel worker') then 'it is a process of the server (' || a.backend_type || ')'
                            when not $3 and a.state like 'idle in transaction%' then 'it runs nothing that could be cancelled: it is ' || a.state
                       end as why
                from pg_catalog.pg_stat_activity a
                where a.pid = $1
            )
            select why, case when why is null then case when $3 then pg_catalog.pg_terminate_backend(pid) else pg_catalog.pg_cancel_backend(pid) end end
            from session
            """;
        await using NpgsqlCommand command = new(Query, connection)
        {
            Parameters =
            {
                new() { Value = pid },
                new() { Value = (object?)backendStart?.UtcDateTime ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.TimestampTz },
                new() { Value = terminate },
            },
        };
        try
        {
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            return !await reader.ReadAsync(cancellationToken).ConfigureAwait(false) ? new SessionEnd(false, "it has ended meanwhile")
                : reader.Text(0) is { } why ? new SessionEnd(false, why)
                : reader.GetBoolean(1) ? new SessionEnd(true, null)
                : new SessionEnd(false, "it has ended meanwhile");
        }
        catch (PostgresException e) when (e.SqlState == SqlStates.InsufficientPrivilege)
        {
            return new SessionEnd(false, "this role may not (pg_signal_backend allows it, for sessions of others than superusers)");
        }
    }
}
