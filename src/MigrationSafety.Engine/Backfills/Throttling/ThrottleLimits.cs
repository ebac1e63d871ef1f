using System.Text.Json;
using System.Text.Json.Serialization;

namespace MigrationSafety.Engine.Backfills.Throttling;

/// <summary>
/// When a backfill slows down and pauses by itself. Kept on the server with the backfill, so that whoever resumes it keeps to them too. Null is no limit.
/// </summary>
public sealed record ThrottleLimits
{
    /// <summary>The limits where nothing else is said.</summary>
    public static ThrottleLimits Default { get; } = new()
    {
        ReplicationLagTime = TimeSpan.FromSeconds(10),
        SlotLag = 10L << 30,
        ArchiveLag = 1L << 30,
        WaitingSessions = 1,
        Slowdown = 1.06,
    };

    /// <summary>How long ago what a standby replays now was written on the primary (<c>pg_stat_replication</c>).</summary>
    public TimeSpan? ReplicationLagTime { get; init; }

    /// <summary>WAL that a standby has still to replay, in bytes (<c>pg_stat_replication</c>).</summary>
    public long? ReplicationLagBytes { get; init; }

    /// <summary>Names (<c>application_name</c>, or the slot's) of standbys and slots that may be as far behind as they like.</summary>
    public string[] ExcludedStandbys { get; init; } = [];

    /// <summary>WAL that a replication slot keeps, in bytes (<c>pg_replication_slots</c>). A slot that is about to lose WAL stops the backfill too.</summary>
    public long? SlotLag { get; init; }

    /// <summary>WAL that waits to be archived, in bytes (<c>pg_stat_archiver</c>).</summary>
    public long? ArchiveLag { get; init; }

    /// <summary>Sessions that wait for locks of the backfill in one look (<c>pg_locks</c>).</summary>
    public int? WaitingSessions { get; init; }

    /// <summary>Active sessions of the server, without the backfill's own (<c>pg_stat_activity</c>).</summary>
    public int? ActiveSessions { get; init; }

    /// <summary>How many times as long commits of others may take because of the backfill, on average; tried while others are at work (<see cref="CommitProbe"/>). With it, commits that hang for a synchronous standby pause it.</summary>
    public double? Slowdown { get; init; }

    /// <summary>WAL that the server writes, in bytes a second.</summary>
    public long? WalRate { get; init; }

    /// <summary>Dead rows of the table, as a multiple, 1 or more, of those at which autovacuum comes (<c>pg_stat_all_tables</c>).</summary>
    public double? VacuumLag { get; init; }

    /// <summary>A query that returns one boolean: false, NULL, no row or an error stop the backfill until it is true.</summary>
    public string? HealthQuery { get; init; }

    /// <summary>The hours in which it runs.</summary>
    [JsonConverter(typeof(WindowConverter))]
    public DailyWindow? Window { get; init; }

    /// <summary>Rows that are changed in a second, by all workers together.</summary>
    public long? RowsPerSecond { get; init; }

    /// <summary>The limits in words, for people.</summary>
    internal string Text
    {
        get
        {
            string?[] slower =
            [
                ReplicationLagTime is { } time ? $"a standby is over {Durations.Text(time)} behind" : null,
                ReplicationLagBytes is { } bytes ? $"a standby is over {ByteCounts.Text(bytes)} behind" : null,
                SlotLag is { } slot ? $"a replication slot keeps over {ByteCounts.Text(slot)} of WAL or is about to lose some" : null,
                ArchiveLag is { } archive ? $"over {ByteCounts.Text(archive)} of WAL wait to be archived" : null,
                WaitingSessions is { } waiting ? $"more than {waiting:N0} session{(waiting == 1 ? " waits" : "s wait")} for its rows" : null,
                Slowdown is { } times ? $"commits of others take over {times:0.##} times as long because of it (or {CommitTimes.NotFelt * 1000} ms longer), or hang for a synchronous standby" : null,
                ActiveSessions is { } active ? $"more than {active:N0} session{(active == 1 ? " is" : "s are")} active" : null,
                WalRate is { } rate ? $"the server writes over {ByteCounts.Text(rate)} of WAL a second" : null,
                VacuumLag is { } lag ? $"the table has over {lag:0.##} times the dead rows at which autovacuum comes" : null,
                HealthQuery is { } health ? $"not: {health}" : null,
            ];
            string[] said = [.. slower.OfType<string>()];
            string when = said.Length == 0 ? "nothing slows it down" : $"slower, or paused, while {string.Join("; ", said)}";
            return $"throttle: {(Window is { } window ? $"only {window}; " : "")}{(RowsPerSecond is { } rows ? $"at most {rows:N0} rows/s; " : "")}{when}";
        }
    }

    internal string ToJson() => JsonSerializer.Serialize(this, ThrottleJson.Options);

    internal static ThrottleLimits FromJson(string? json) => json is null ? Default : JsonSerializer.Deserialize<ThrottleLimits>(json, ThrottleJson.Options) ?? Default;

    // A record compares arrays by reference.
    /// <inheritdoc />
    public bool Equals(ThrottleLimits? other) => other is not null && ToJson() == other.ToJson();

    /// <inheritdoc />
    public override int GetHashCode() => ToJson().GetHashCode(StringComparison.Ordinal);

    private sealed class WindowConverter : JsonConverter<DailyWindow>
    {
        public override DailyWindow Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => new(reader.GetString() ?? "");

        public override void Write(Utf8JsonWriter writer, DailyWindow value, JsonSerializerOptions options) => writer.WriteStringValue(value.ToString());
    }
}

/// <summary>JSON with names in snake case, as SQL has them.</summary>
internal static class ThrottleJson
{
    internal static JsonSerializerOptions Options { get; } = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    };
}
