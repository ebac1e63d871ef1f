using System.Text.Encodings.Web;
using System.Text.Json;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sql;
using Npgsql;
using NpgsqlTypes;

namespace MigrationSafety.Engine.Backfills;

/// <summary>
/// Settings of a session on which the meaning of an expression depends: which function a name is, what time a text is. They are recorded when a backfill begins; whoever
/// takes it up, by whichever role and from wherever, and <c>Test-Backfill</c> read its expressions with them.
/// </summary>
internal static class BackfillSettings
{
    internal const string SearchPath = "search_path";
    internal const string TimeZone = "TimeZone";

    // Letters as they are: a database in SQL_ASCII takes no escape for one.
    private static readonly JsonSerializerOptions s_options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Those of a connection.</summary>
    internal static async Task<IReadOnlyDictionary<string, string>> ReadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        // The search_path as it works out for this role: "$user" is another schema for another one.
        const string Query = """
            select s.name, case s.name
                when 'search_path' then (select coalesce(pg_catalog.string_agg(pg_catalog.quote_ident(p.schema), ', ' order by p.n), '')
                                         from pg_catalog.unnest(pg_catalog.current_schemas(false)) with ordinality as p (schema, n) where p.schema not like 'pg\_temp\_%')
                else pg_catalog.current_setting(s.name) end
            from pg_catalog.unnest(array['search_path', 'TimeZone', 'DateStyle', 'lc_monetary', 'lc_numeric', 'lc_time', 'bytea_output', 'default_text_search_config']) as s (name)
            """;
        await using NpgsqlCommand command = new(Query, connection);
        await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
        Dictionary<string, string> settings = [];
        while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
        {
            settings[reader.GetString(0)] = reader.GetString(1);
        }

        return settings;
    }

    /// <summary>Those that are recorded for a backfill; null where it is not recorded, or where that cannot be read, which is for others to say.</summary>
    internal static async Task<IReadOnlyDictionary<string, string>?> RecordedAsync(NpgsqlConnection connection, string name, CancellationToken cancellationToken)
    {
        try
        {
            await using NpgsqlCommand command = new($"select settings::text from {BackfillStore.Table} where name = $1", connection) { Parameters = { new() { Value = name } } };
            return await command.ExecuteScalarAsync(cancellationToken).ConfigureAwait(false) is string json ? FromJson(json) : null;
        }
        catch (PostgresException e) when (e.SqlState is SqlStates.UndefinedTable or SqlStates.UndefinedColumn or SqlStates.InsufficientPrivilege)
        {
            return null;
        }
    }

    /// <summary>Sets them.</summary>
    internal static async Task SetAsync(NpgsqlConnection connection, IReadOnlyDictionary<string, string> settings, CancellationToken cancellationToken)
    {
        await using NpgsqlCommand command = new("select pg_catalog.set_config(s.key, s.value, false) from pg_catalog.jsonb_each_text($1) as s (key, value)", connection)
        {
            CommandTimeout = 20,
            Parameters = { new() { Value = ToJson(settings), NpgsqlDbType = NpgsqlDbType.Jsonb } },
        };
        await command.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
    }

    internal static string ToJson(IReadOnlyDictionary<string, string> settings) => JsonSerializer.Serialize(settings, s_options);

    internal static IReadOnlyDictionary<string, string> FromJson(string json) => JsonSerializer.Deserialize<Dictionary<string, string>>(json) ?? [];

    /// <summary>What a user is to know of them before it begins.</summary>
    /// <param name="used">Those that it uses.</param>
    /// <param name="own">Those of the user's session.</param>
    /// <param name="recorded">Whether the first are recorded already.</param>
    internal static string Note(IReadOnlyDictionary<string, string> used, IReadOnlyDictionary<string, string> own, bool recorded)
    {
        string Text(IReadOnlyDictionary<string, string> settings, IEnumerable<string> names) =>
            string.Join(", ", names.Select(name => $"{name} = {(settings.GetValueOrDefault(name) is { Length: > 0 } value ? value : SqlName.Quote(""))}"));
        string[] differing = [.. own.Keys.Where(name => used.TryGetValue(name, out string? value) && value != own[name])];
        string[] shown = [.. new[] { SearchPath, TimeZone }.Union(differing)];
        return !recorded
            ? $"expressions are read with {Text(used, shown)}: recorded, for whoever takes it up"
            : $"expressions are read with {Text(used, shown)}, as recorded when it began{(differing.Length > 0 ? $"; this session has {Text(own, differing)}" : "")}";
    }
}
