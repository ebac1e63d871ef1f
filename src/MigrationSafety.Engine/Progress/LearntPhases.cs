using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.History;
using Npgsql;

namespace MigrationSafety.Engine.Progress;

/// <summary>How long the phases of finished index builds took beside each other, from the log of this database (<c>migration_safety.operation</c>).</summary>
internal sealed class LearntPhases
{
    // One that was over sooner was looked at too seldom to learn from.
    private const double LeastSeconds = 5;

    private readonly Dictionary<(string? Table, string Command), Dictionary<string, double>> _seconds = [];

    /// <summary>Nothing is known.</summary>
    internal static LearntPhases None { get; } = new();

    /// <summary>Seconds of work by phase, waiting left out: of builds of this table, else of any; null where the log has none.</summary>
    /// <param name="table">Table as schema.name.</param>
    /// <param name="command">Command by the server's name.</param>
    internal IReadOnlyDictionary<string, double>? Of(string? table, string command) =>
        _seconds.GetValueOrDefault((table, command)) ?? _seconds.GetValueOrDefault((null, command));

    /// <summary>Reads the log; nothing where there is none, or this role may not read it.</summary>
    internal static async Task<LearntPhases> ReadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        const string There = """
            select coalesce((select pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
                                    and exists (select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = 'phases')
                             from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                             where n.nspname = 'migration_safety' and c.relname = 'operation' and c.relkind = 'r'), false)
            """;
        const string Query = $"""
            select pg_catalog.format('%I.%I', o.table_schema, o.table_name), p.value->>'command', p.value->>'name',
                   pg_catalog.sum(greatest(0, (p.value->>'duration')::float8 - coalesce((p.value->>'wait_time')::float8, 0)))
            from (select id, table_schema, table_name, phases from {OperationStore.Table} where state = 'succeeded' and phases <> '[]' order by id desc limit 50) o
            cross join pg_catalog.jsonb_array_elements(o.phases) p
            where o.table_name is not null and p.value->>'command' is not null and p.value->>'name' not like 'waiting for %'
            group by 1, 2, 3
            """;
        await using NpgsqlCommand there = new(There, connection);
        if (!(bool)(await there.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false))!)
        {
            return None;
        }

        LearntPhases learnt = new();
        try
        {
            // Whoever waits for a lock holds a snapshot, which an index build waits for in turn: who locks the log would stop the very build that is looked at.
            await using NpgsqlBatch batch = new(connection) { BatchCommands = { new("select pg_catalog.set_config('lock_timeout', '100ms', true)"), new(Query) } };
            await using NpgsqlDataReader reader = await batch.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
            await reader.NextResultAsync(cancellationToken).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
            {
                (string table, string build, string phase, double seconds) = (reader.GetString(0), reader.GetString(1), reader.GetString(2), reader.GetDouble(3));
                learnt.Add(table, build, phase, seconds);
                learnt.Add(null, build, phase, seconds);
            }
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.UndefinedTable or SqlStates.InsufficientPrivilege or SqlStates.LockNotAvailable)
        {
            // It went since it was looked for, or somebody has locked it: nothing is learnt then.
            return None;
        }

        foreach ((string?, string) key in learnt._seconds.Where(build => build.Value.Values.Sum() < LeastSeconds).Select(build => build.Key).ToArray())
        {
            learnt._seconds.Remove(key);
        }

        return learnt;
    }

    private void Add(string? table, string command, string phase, double seconds)
    {
        if (!_seconds.TryGetValue((table, command), out Dictionary<string, double>? phases))
        {
            _seconds.Add((table, command), phases = new(StringComparer.Ordinal));
        }

        phases[phase] = phases.GetValueOrDefault(phase) + seconds;
    }
}
