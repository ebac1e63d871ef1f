using System.Text.Encodings.Web;
using System.Text.Json;

namespace MigrationSafety.Engine.Schema;

/// <summary>A snapshot as a JSON file: sorted and a line a property, so that version control shows what changed.</summary>
public static class SnapshotFile
{
    private const string Format = "MigrationSafety.SchemaSnapshot/1";

    // Names in any script stay legible.
    private static readonly JsonWriterOptions s_writing = new() { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Writes a snapshot, whole or not at all.</summary>
    /// <param name="snapshot">Snapshot.</param>
    /// <param name="path">File; one that is there is replaced.</param>
    public static void Write(SchemaSnapshot snapshot, string path)
    {
        ArgumentNullException.ThrowIfNull(snapshot);
        ArgumentException.ThrowIfNullOrEmpty(path);
        string beside = path + ".new";
        using (FileStream stream = File.Create(beside))
        {
            using Utf8JsonWriter json = new(stream, s_writing);
            json.WriteStartObject();
            json.WriteString("format", Format);
            json.WriteString("server", snapshot.Server);
            json.WriteNumber("port", snapshot.Port);
            json.WriteString("database", snapshot.Database);
            json.WriteString("serverVersion", snapshot.ServerVersion.ToString());
            json.WriteString("takenAt", snapshot.TakenAt);
            json.WriteStartArray("objects");
            foreach (SchemaObject o in snapshot.Objects)
            {
                json.WriteStartObject();
                json.WriteString("kind", o.Kind);
                json.WriteString("identity", o.Identity);
                WriteUnlessNull(json, "schema", o.Schema);
                WriteUnlessNull(json, "parent", o.Parent);

                json.WriteStartObject("properties");
                foreach (SchemaProperty property in o.Properties)
                {
                    json.WriteString(property.Name, property.Value);
                }

                json.WriteEndObject();
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteEndObject();
        }

        File.Move(beside, path, overwrite: true);
    }

    /// <summary>Reads a snapshot.</summary>
    /// <param name="path">File.</param>
    /// <returns>The snapshot.</returns>
    /// <exception cref="MigrationException"><c>FileNotRead</c>, <c>SnapshotInvalid</c>.</exception>
    public static SchemaSnapshot Read(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        try
        {
            using FileStream stream = File.OpenRead(path);
            using JsonDocument document = JsonDocument.Parse(stream);
            JsonElement root = document.RootElement;
            if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("format", out JsonElement format) || format.GetString() != Format)
            {
                throw Invalid(path, $"its format is not {Format}");
            }

            return new SchemaSnapshot
            {
                Server = Required(root, "server"),
                Port = root.GetProperty("port").GetInt32(),
                Database = Required(root, "database"),
                ServerVersion = Version.Parse(Required(root, "serverVersion")),
                TakenAt = root.GetProperty("takenAt").GetDateTimeOffset(),
                Objects =
                [
                    .. root.GetProperty("objects").EnumerateArray().Select(o => new SchemaObject
                    {
                        Kind = Required(o, "kind"),
                        Identity = Required(o, "identity"),
                        Schema = o.TryGetProperty("schema", out JsonElement schema) ? schema.GetString() : null,
                        Parent = o.TryGetProperty("parent", out JsonElement parent) ? parent.GetString() : null,
                        Properties = [.. o.GetProperty("properties").EnumerateObject().Select(p => new SchemaProperty { Name = p.Name, Value = p.Value.GetString() ?? "" })],
                    }),
                ],
                Path = path,
            };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new MigrationException("FileNotRead", MigrationErrorKind.Resource, $"{path} could not be read: {e.Message}", "Check the file and its permissions.", e) { Target = path };
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or FormatException or InvalidOperationException or ArgumentException)
        {
            throw Invalid(path, e.Message, e);
        }
    }

    private static void WriteUnlessNull(Utf8JsonWriter json, string name, string? value)
    {
        if (value is not null)
        {
            json.WriteString(name, value);
        }
    }

    private static string Required(JsonElement element, string name) => element.GetProperty(name).GetString() ?? throw new FormatException($"{name} is null");

    private static MigrationException Invalid(string path, string why, Exception? inner = null) => new(
        "SnapshotInvalid", MigrationErrorKind.InvalidInput, $"{path} is not a schema snapshot: {why}.", "Write one with Get-SchemaSnapshot -OutputPath.", inner)
    {
        Target = path,
    };
}
