using System.Globalization;
using System.Text.Json;
using MigrationSafety.Engine.Execution;
using Npgsql;

namespace MigrationSafety.Engine.Progress;

/// <summary>One moment of an operation, as the server tells it. Null is what this role may not see.</summary>
internal sealed record ProgressSample
{
    /// <summary>Where it comes from: the end of the view's name (<c>create_index</c>), or <see cref="ProgressQueries"/>'s own kinds.</summary>
    internal required string View { get; init; }

    internal required int Pid { get; init; }

    /// <summary>The view's columns by name, less those that are null.</summary>
    internal required Dictionary<string, object> Counters { get; init; }

    /// <summary>What the catalog knows of the table and the index.</summary>
    internal required Dictionary<string, object> Facts { get; init; }

    internal string? Database { get; init; }

    internal string? User { get; init; }

    internal string? Application { get; init; }

    internal string? Query { get; init; }

    internal DateTime? Started { get; init; }

    internal DateTime? BackendStart { get; init; }

    internal TimeSpan? Elapsed { get; init; }

    internal string? WaitEventType { get; init; }

    internal string? WaitEvent { get; init; }

    /// <summary>Whom it waits for, by the lock tables: a view's current_locker_pid may still be the one of the phase before.</summary>
    internal int[] BlockedBy { get; init; } = [];

    /// <summary>Its transaction's id; null where it has none (yet).</summary>
    internal string? Xid { get; init; }

    /// <summary>Whether this role was shown little more than the pid.</summary>
    internal bool Hidden { get; init; }

    /// <summary>The entry in the log of the operation of this module that it is a part of; null where it is none, or is the entry itself.</summary>
    internal ProgressSample? Entry { get; init; }

    /// <summary>What makes two samples samples of the same operation.</summary>
    /// <remarks>
    /// A REINDEX of many indexes is one statement and many operations; one of them it is CONCURRENTLY, where it goes from index to index, and from the table to its TOAST table, in each phase.
    /// CREATE INDEX learns of its index only on the way. A backfill goes on when one worker, or one client, is done before the others,
    /// until nobody works on it.
    /// </remarks>
    internal string Key => View == ProgressQueries.Operation ? $"{View}/{Number("id")}" : View == ProgressQueries.Backfill ? $"{View}/{Text("name")}/{Pid > 0}" : string.Create(
        CultureInfo.InvariantCulture,
        $"{View}/{Pid}/{Started?.Ticks}/{(Text("command") != "REINDEX CONCURRENTLY" ? Number("relid") : Facts.ContainsKey("table") ? Fact("toast_of") ?? Number("relid") : null)}/{(Text("command") == "REINDEX" ? Number("index_relid") : null)}/{Text("name")}");

    /// <summary>Whether both are moments of one statement of one session.</summary>
    internal bool IsSameStatement(ProgressSample other) => Pid == other.Pid && BackendStart == other.BackendStart && Started == other.Started;

    internal long? Number(string counter) => Value(Counters, counter);

    internal long? Fact(string fact) => Value(Facts, fact);

    internal string? Text(string counter) => Counters.GetValueOrDefault(counter) as string;

    /// <summary>Table as schema.name; its oid where it is in another database.</summary>
    internal string? Target => Facts.GetValueOrDefault("table") as string
        ?? (Number("relid") is { } oid and > 0 ? oid.ToString(CultureInfo.InvariantCulture) : null);

    internal string? BackfillName => View == ProgressQueries.Backfill ? Text("name") : null;

    internal string? Index => Facts.GetValueOrDefault("index") as string;

    internal static ProgressSample Read(NpgsqlDataReader reader)
    {
        string? query = reader.Text(7);
        bool hidden = query == "<insufficient privilege>";
        return new ProgressSample
        {
            View = reader.GetString(0),
            Pid = reader.GetInt32(1),
            Counters = Values(reader.Text(2)),
            Facts = Values(reader.Text(3)),
            Database = reader.Text(4),
            User = reader.Text(5),
            Application = hidden && reader.Text(6) is "" ? null : reader.Text(6),
            Query = hidden || query is "" ? null : query,
            Started = reader.IsDBNull(8) ? null : reader.GetDateTime(8),
            BackendStart = reader.IsDBNull(9) ? null : reader.GetDateTime(9),
            Elapsed = reader.Duration(10),
            WaitEventType = reader.Text(11),
            WaitEvent = reader.Text(12),
            BlockedBy = reader.IsDBNull(13) ? [] : [.. reader.GetFieldValue<int[]>(13).Distinct()],
            Xid = reader.Text(14),
            Hidden = hidden,
        };
    }

    private static long? Value(Dictionary<string, object> values, string name) => values.GetValueOrDefault(name) switch
    {
        long number => number,
        double number => (long)number,
        _ => null,
    };

    private static Dictionary<string, object> Values(string? json)
    {
        Dictionary<string, object> values = new(StringComparer.Ordinal);
        if (json is null)
        {
            return values;
        }

        using JsonDocument document = JsonDocument.Parse(json);
        foreach (JsonProperty property in document.RootElement.EnumerateObject())
        {
            object? value = property.Value.ValueKind switch
            {
                // jsonb takes an oid for a text.
                JsonValueKind.String when property.Name.EndsWith("relid", StringComparison.Ordinal) && long.TryParse(property.Value.GetString(), NumberStyles.None, CultureInfo.InvariantCulture, out long oid) => oid,
                JsonValueKind.Number => property.Value.TryGetInt64(out long number) ? (object)number : property.Value.GetDouble(),
                JsonValueKind.String => property.Value.GetString(),
                JsonValueKind.True => true,
                JsonValueKind.False => false,
                JsonValueKind.Null => null,
                _ => property.Value.GetRawText(),
            };
            if (value is not null)
            {
                values[property.Name] = value;
            }
        }

        return values;
    }
}
