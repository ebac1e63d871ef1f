using System.Text.Json;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>Reads what the limits are about: one query a look, which asks for no more than is limited, takes no lock on any table and needs no privilege.</summary>
internal sealed class ThrottleLook
{
    private const int PatienceSeconds = 5;

    private readonly ThrottleLimits _limits;
    private readonly string _name;
    private readonly uint[] _tables;
    private readonly string _query;

    internal ThrottleLook(ThrottleLimits limits, string name, uint[] tables)
    {
        _limits = limits;
        _name = name;
        _tables = tables;
        _query = Query(limits);
    }

    /// <summary>Looks once.</summary>
    /// <param name="connection">A connection for this alone.</param>
    /// <param name="pids">The backends that work on the backfill for this client.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal async Task<ThrottleSample> ReadAsync(NpgsqlConnection connection, int[] pids, CancellationToken cancellationToken)
    {
        ThrottleSample sample = await ReadSampleAsync(connection, pids, cancellationToken).ConfigureAwait(false);
        return _limits.HealthQuery is { } health
            ? sample with { Unhealthy = await UnhealthyAsync(connection, health, cancellationToken).ConfigureAwait(false) }
            : sample;
    }

    /// <summary>Makes sure that the server can answer, the time zone and the health query, and that no limit waits for what cannot come.</summary>
    /// <exception cref="MigrationException"><c>MaxVacuumLagInvalid</c>, <c>TimeZoneUnknown</c>, <c>HealthQueryInvalid</c>.</exception>
    internal static async Task<ThrottleLimits> CheckAsync(NpgsqlConnection connection, ThrottleLimits limits, CancellationToken cancellationToken)
    {
        if (limits.VacuumLag < 1)
        {
            throw new MigrationException(
                "MaxVacuumLagInvalid",
                MigrationErrorKind.InvalidInput,
                $"-MaxVacuumLag {limits.VacuumLag:0.####} asks for fewer dead rows than those at which autovacuum comes: it would wait for an autovacuum that waits for it.",
                "Give how many times these dead rows the table may have, from 1 on; 0 for no limit.");
        }

        if (limits.Window is { } window)
        {
            // Another session, of whoever resumes it, may have another one.
            await using NpgsqlCommand command = new("select coalesce($1, pg_catalog.current_setting('TimeZone')), pg_catalog.clock_timestamp() at time zone coalesce($1, 'UTC')", connection)
            {
                Parameters = { Text(window.TimeZone) },
            };
            try
            {
                await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
                await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
                limits = limits with { Window = window.In(reader.GetString(0)) };
            }
            catch (PostgresException e) when (e.SqlState == "22023")
            {
                throw new MigrationException(
                    "TimeZoneUnknown",
                    MigrationErrorKind.InvalidInput,
                    $"The server knows no time zone {window.TimeZone}.",
                    "Name one of pg_timezone_names, such as Europe/Berlin, or leave it out for the server's own.",
                    e)
                {
                    SqlState = e.SqlState,
                    Target = window.ToString(),
                };
            }
        }

        if (limits.HealthQuery is { } health)
        {
            await using NpgsqlBatch batch = ReadOnly(connection, $"select pg_catalog.pg_typeof((\n{Trimmed(health)}\n))::text");
            MigrationException Invalid(string what, Exception? e) => new(
                "HealthQueryInvalid",
                MigrationErrorKind.InvalidInput,
                $"-HealthQuery: {what}",
                "Give one query that returns one boolean, true for healthy: select count(*) < 50 from pg_stat_activity where state = 'active'.",
                e)
            {
                Target = health,
            };
            try
            {
                await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
                await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
                await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
                if (reader.GetString(0) is not "boolean" and var type)
                {
                    throw Invalid($"it returns {type} rather than a boolean.", null);
                }
            }
            catch (PostgresException e) when (e.InvariantSeverity is not ("FATAL" or "PANIC"))
            {
                throw Invalid(e.SqlState == SqlStates.QueryCanceled ? $"it takes longer than {PatienceSeconds} s." : ServerErrors.Words(e), e);
            }
        }

        return limits;
    }

    /// <summary>Why nothing may run now, by the window and the health query; null where it may. For a trial before there is anything to look after.</summary>
    /// <param name="connection">Connection.</param>
    /// <param name="limits">Limits that were checked.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<string?> WhyNotNowAsync(NpgsqlConnection connection, ThrottleLimits limits, CancellationToken cancellationToken)
    {
        if (limits.Window is { } window)
        {
            await using NpgsqlCommand command = new("select (pg_catalog.clock_timestamp() at time zone $1)::time", connection) { Parameters = { Text(window.TimeZone) } };
            await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
            if (!window.IsOpen(reader.GetFieldValue<TimeOnly>(0)))
            {
                return $"it is outside the window {window}";
            }
        }

        return limits.HealthQuery is { } health ? await UnhealthyAsync(connection, health, cancellationToken).ConfigureAwait(false) : null;
    }

    private async Task<ThrottleSample> ReadSampleAsync(NpgsqlConnection connection, int[] pids, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new(_query, connection)
        {
            CommandTimeout = 2 * PatienceSeconds,
            Parameters =
            {
                new() { Value = _name },
                new() { Value = pids },
                Text(_limits.Window?.TimeZone),
                new() { Value = _limits.ExcludedStandbys },
                new() { Value = _tables, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Oid },
            },
        };
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        await reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        return new ThrottleSample
        {
            Time = new DateTimeOffset(reader.GetDateTime(0), TimeSpan.Zero),
            Wal = reader.GetInt64(1),
            TimeOfDay = await reader.IsDBNullAsync(2, cancellationToken).ConfigureAwait(false) ? null : reader.GetFieldValue<TimeOnly>(2),
            State = reader.Text(3),
            Limits = reader.Text(4),
            Clients = (int)reader.GetInt64(5),
            Standbys = Rows<StandbySample>(reader, 6),
            HiddenStandbys = (int)(reader.Long(7) ?? 0),
            Slots = Rows<SlotSample>(reader, 8),
            Archiver = Row<ArchiverSample>(reader, 9),
            Waiters = Row<WaiterSample>(reader, 10),
            ActiveSessions = (int?)reader.Long(11),
            HiddenSessions = (int)(reader.Long(12) ?? 0),
            Vacuum = Row<VacuumSample>(reader, 13),
            Transactions = reader.Long(14),
            OtherWorkers = (int)(reader.Long(15) ?? 0),
            Probes = (int)(reader.Long(16) ?? 0),
            StandbyWaits = await reader.IsDBNullAsync(17, cancellationToken).ConfigureAwait(false) ? [] : reader.GetFieldValue<string[]>(17),
            LiveSessions = (int)(reader.Long(18) ?? 0),
            HasSynchronousStandbys = reader.GetBoolean(19),
        };
    }

    private static async Task<string?> UnhealthyAsync(NpgsqlConnection connection, string query, CancellationToken cancellationToken)
    {
        try
        {
            await using NpgsqlBatch batch = ReadOnly(connection, $"select (\n{Trimmed(query)}\n)");
            await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
            if (!await reader.ReadAsync(cancellationToken).ConfigureAwait(false) || await reader.IsDBNullAsync(0, cancellationToken).ConfigureAwait(false))
            {
                return "the health query returns neither true nor false";
            }

            return reader.GetValue(0) is true ? null : "the health query says no";
        }
        // What the server answers to the query, whatever its class: with dblink, 08 is another server's connection.
        catch (PostgresException e) when (e.InvariantSeverity is not ("FATAL" or "PANIC"))
        {
            return $"the health query fails: {ServerErrors.Words(e)}";
        }
    }

    /// <summary>A query of the user's, in one transaction in which nothing that it calls may write, and which may not take long.</summary>
    private static NpgsqlBatch ReadOnly(NpgsqlConnection connection, string query) => new(connection)
    {
        Timeout = 2 * PatienceSeconds,
        BatchCommands = { new($"select pg_catalog.set_config('transaction_read_only', 'on', true), pg_catalog.set_config('statement_timeout', '{PatienceSeconds}s', true)"), new(query) },
    };

    /// <summary>Settings of the connection that looks: an answer that comes late is none, and what it writes down must not wait for a standby.</summary>
    internal static async Task PrepareAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        const string Sql = """
            select pg_catalog.set_config(name, value, false)
            from (values ('statement_timeout', $1), ('jit', 'off'), ('synchronous_commit', 'off'), ('default_transaction_isolation', 'read committed')) as s (name, value)
            """;
        await using NpgsqlCommand command = new(Sql, connection)
        {
            CommandTimeout = 2 * PatienceSeconds,
            Parameters = { new() { Value = $"{PatienceSeconds}s" } },
        };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    private static string Query(ThrottleLimits limits)
    {
        static string When(bool wanted, string sql, string type) => wanted ? $"({sql})" : $"null::{type}";
        bool lag = limits.ReplicationLagTime is not null || limits.ReplicationLagBytes is not null;
        return $"""
            with w as materialized (select (pg_catalog.pg_current_wal_lsn() - '0/0'::pg_catalog.pg_lsn)::int8 as wal)
            select pg_catalog.clock_timestamp(), w.wal,
                   {When(limits.Window is not null, "pg_catalog.clock_timestamp() at time zone coalesce($3, pg_catalog.current_setting('TimeZone'))", "timestamp")}::time,
                   (select state from {BackfillStore.Table} where name = $1),
                   (select throttle::text from {BackfillStore.Table} where name = $1),
                   (select greatest(1, pg_catalog.count(distinct w.run)) from {BackfillStore.Workers} w join {BackfillStore.Table} b on b.name = w.backfill where b.name = $1 and {BackfillStore.IsAtWork}),
                   {When(lag, Standbys, "jsonb")},
                   {When(lag, "select pg_catalog.count(*) from pg_catalog.pg_stat_replication r where r.state is null", "int8")},
                   {When(limits.SlotLag is not null, Slots, "jsonb")},
                   {When(limits.ArchiveLag is not null, Archiver, "jsonb")},
                   {When(limits.WaitingSessions is not null, Waiters, "jsonb")},
                   {When(limits.ActiveSessions is not null, "select pg_catalog.count(*) from pg_catalog.pg_stat_activity where state = 'active' and backend_type = 'client backend' and pid <> all ($2) and pid <> pg_catalog.pg_backend_pid()", "int8")},
                   {When(limits.ActiveSessions is not null || limits.Slowdown is not null, "select pg_catalog.count(*) from pg_catalog.pg_stat_activity where query = '<insufficient privilege>' and usesysid is not null", "int8")},
                   {When(limits.VacuumLag is not null, Vacuum, "jsonb")},
                   {When(limits.Slowdown is not null, "select pg_catalog.sum(xact_commit + xact_rollback)::int8 from pg_catalog.pg_stat_database", "int8")},
                   {When(limits.Slowdown is not null, $"select pg_catalog.count(*) from pg_catalog.pg_stat_activity where application_name = 'MigrationSafety/backfill' and pid <> all ($2) and {AtWork}", "int8")},
                   {When(limits.Slowdown is not null, $"select pg_catalog.count(*) from pg_catalog.pg_stat_activity where application_name = 'MigrationSafety/{CommitProbe.Operation}' and {AtWork}", "int8")},
                   {When(limits.Slowdown is not null, "select pg_catalog.array_agg(pg_catalog.concat_ws(' ', pid, query_start, backend_xid)) from pg_catalog.pg_stat_activity where wait_event = 'SyncRep' and application_name not like 'MigrationSafety%'", "text[]")},
                   {When(limits.Slowdown is not null, "select pg_catalog.count(*) from pg_catalog.pg_stat_activity where backend_type = 'client backend' and state_change > pg_catalog.clock_timestamp() - interval '0.5 s' and application_name not like 'MigrationSafety%'", "int8")},
                   pg_catalog.current_setting('synchronous_standby_names') <> ''
            from w
            """;
    }

    // A connection that is kept for later use keeps its name.
    private const string AtWork = "(state is distinct from 'idle' or state_change > pg_catalog.clock_timestamp() - interval '2 s')";

    // Without a privilege only the pid is to be seen. A receiver that replays nothing (pg_receivewal) is where it has written: what it has flushed it tells by whole files.
    private const string Standbys = """
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', r.application_name || coalesce(' (' || pg_catalog.host(r.client_addr) || ')', ''),
            'replayed', (coalesce(r.replay_lsn, r.write_lsn, r.flush_lsn, r.sent_lsn) - '0/0'::pg_catalog.pg_lsn)::int8,
            'lag', extract(epoch from case when r.replay_lsn is null then r.write_lag else r.replay_lag end)))
        from pg_catalog.pg_stat_replication r
        left join pg_catalog.pg_replication_slots s on s.active_pid = r.pid
        where r.state in ('streaming', 'catchup') and coalesce(r.replay_lsn, r.write_lsn, r.flush_lsn, r.sent_lsn) is not null
          and r.application_name <> all ($4) and (s.slot_name is null or s.slot_name::text <> all ($4))
        """;

    private const string Slots = """
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', s.slot_name, 'active', s.active, 'kept', w.wal - (s.restart_lsn - '0/0'::pg_catalog.pg_lsn)::int8, 'status', s.wal_status, 'safe', s.safe_wal_size,
            'bound', (select setting::int8 * 1048576 from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size' and setting <> '-1')))
        from pg_catalog.pg_replication_slots s
        where s.restart_lsn is not null and s.wal_status <> 'lost' and s.slot_name::text <> all ($4)
        """;

    // How far the file at which it fails, or else the one after the last that was archived, is behind the last complete one; by names: log and segment in hexadecimal digits.
    private const string Archiver = """
        select pg_catalog.jsonb_build_object(
            'waiting', case when f.file ~ '^[0-9A-F]{24}' then greatest(0, w.wal / g.size * g.size - case when a.failing then 0 else g.size end - (
                ('x' || pg_catalog.substr(f.file, 9, 8))::bit(32)::int8 * 4294967296 + ('x' || pg_catalog.substr(f.file, 17, 8))::bit(32)::int8 * g.size)) end,
            'failed', case when a.failing then a.last_failed_wal end)
        from (select *, last_failed_time > coalesce(last_archived_time, '-infinity') as failing from pg_catalog.pg_stat_archiver) a
        cross join lateral (select case when a.failing then a.last_failed_wal else a.last_archived_wal end as file) f
        cross join (select setting::int8 as size from pg_catalog.pg_settings where name = 'wal_segment_size') g
        where pg_catalog.current_setting('archive_mode') <> 'off'
        """;

    // pg_blocking_pids stops the server's lock tables for a moment: asked of those who wait, and not of very many.
    private const string Waiters = """
        select pg_catalog.jsonb_build_object('count', pg_catalog.count(*), 'pid', (pg_catalog.array_agg(q.pid order by q.since nulls last))[1],
                                             'seconds', extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.min(q.since)))
        from (select l.pid, pg_catalog.min(l.waitstart) as since
              from pg_catalog.pg_locks l
              where not l.granted and l.pid <> all ($2) and l.pid <> pg_catalog.pg_backend_pid()
              group by l.pid
              order by since nulls last
              limit 50) q
        where pg_catalog.pg_blocking_pids(q.pid) && $2
        """;

    // The rules of autovacuum: the table's own options, else the server's; from 18 on with a bound. Whose vacuum is hidden from this role shows by its lock on which table it works.
    private static string Vacuum => $"""
        select pg_catalog.jsonb_build_object('name', pg_catalog.format('%I.%I', n.nspname, t.relname), 'dead', t.dead, 'threshold', t.threshold, 'autovacuum', t.autovacuum,
                                             'vacuumed', exists (select from pg_catalog.pg_stat_progress_vacuum p where p.datname = pg_catalog.current_database() and (p.relid = t.oid or (p.relid is null
                                                 and exists (select from pg_catalog.pg_locks l where l.pid = p.pid and l.locktype = 'relation' and l.granted and l.database = p.datid
                                                             and l.relation = t.oid and l.mode = 'ShareUpdateExclusiveLock')))))
        from (select c.oid, c.relname, c.relnamespace, pg_catalog.pg_stat_get_dead_tuples(c.oid) as dead,
                     least({Option("autovacuum_vacuum_threshold")}::float8 + {Option("autovacuum_vacuum_scale_factor")}::float8 * greatest(c.reltuples, 0),
                           nullif({Option("autovacuum_vacuum_max_threshold")}::float8, -1)) as threshold,
                     pg_catalog.current_setting('autovacuum')::bool and {Option("autovacuum_enabled")}::bool is not false as autovacuum
              from pg_catalog.pg_class c
              where c.oid = any ($5)) t
        join pg_catalog.pg_namespace n on n.oid = t.relnamespace
        order by t.dead / greatest(t.threshold, 1) desc
        limit 1
        """;

    private static string Option(string name) =>
        $"coalesce((select o.option_value from pg_catalog.pg_options_to_table(c.reloptions) o where o.option_name = {SqlName.Literal(name)}), pg_catalog.current_setting({SqlName.Literal(name)}, true))";

    private static string Trimmed(string query) => query.Trim().TrimEnd(';').TrimEnd();

    private static NpgsqlParameter Text(string? value) => new() { Value = (object?)value ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text };

    private static T[] Rows<T>(NpgsqlDataReader reader, int ordinal) => reader.Text(ordinal) is { } json ? JsonSerializer.Deserialize<T[]>(json, ThrottleJson.Options) ?? [] : [];

    private static T? Row<T>(NpgsqlDataReader reader, int ordinal)
        where T : class => reader.Text(ordinal) is { } json ? JsonSerializer.Deserialize<T>(json, ThrottleJson.Options) : null;
}
