using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace MigrationSafety.Engine.History;

/// <summary>Steps, phases and samples as JSON: names in snake case as SQL has them, times in seconds, enums by name.</summary>
internal static class HistoryJson
{
    private static readonly JsonSerializerOptions s_options = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        // Letters as they are: a database in SQL_ASCII takes no escape for one.
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        IgnoreReadOnlyProperties = true,
        Converters = { new SecondsConverter(), new JsonStringEnumConverter() },
    };

    internal static string Write<T>(IReadOnlyList<T> items) => JsonSerializer.Serialize(items, s_options);

    internal static T[] Read<T>(string? json) => json is null ? [] : JsonSerializer.Deserialize<T[]>(json, s_options) ?? [];

    /// <summary>A number that SQL can reckon with, to the microsecond.</summary>
    private sealed class SecondsConverter : JsonConverter<TimeSpan>
    {
        public override TimeSpan Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => TimeSpan.FromSeconds(reader.GetDouble());

        public override void Write(Utf8JsonWriter writer, TimeSpan value, JsonSerializerOptions options) => writer.WriteNumberValue(Math.Round(value.TotalSeconds, 6));
    }
}
