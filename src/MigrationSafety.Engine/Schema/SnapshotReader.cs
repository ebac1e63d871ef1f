using System.Text.Json;
using MigrationSafety.Engine.Execution;
using MigrationSafety.Engine.Sessions;
using Npgsql;

namespace MigrationSafety.Engine.Schema;

/// <summary>Reads the schema of a database from its catalogs.</summary>
public static class SnapshotReader
{
    /// <summary>
    /// Takes a snapshot: query by query, so that no lock outlasts one. Schema changes that are made meanwhile may be in it by halves.
    /// PostgreSQL's own objects, those of extensions and this module's schema are left out; extensions themselves are in it.
    /// </summary>
    /// <param name="session">Session.</param>
    /// <param name="sink">Where it reports to.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The snapshot.</returns>
    /// <exception cref="MigrationException">Why the catalogs could not be read; <c>LockNotAvailable</c> where somebody alters a view or a table for longer than 500 ms.</exception>
    public static async Task<SchemaSnapshot> ReadAsync(EngineSession session, IOperationSink sink, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(session);
        try
        {
            await using NpgsqlConnection connection = await session.OpenAsync("snapshot", sink, cancellationToken).ConfigureAwait(false);
            await using (NpgsqlCommand settings = new(SnapshotQueries.Settings, connection))
            {
                await settings.ExecuteNonQueryAsync(cancellationToken).ConfigureAwait(false);
            }

            List<SchemaObject> objects = [];
            foreach (string query in SnapshotQueries.For(session.Info.ServerVersion))
            {
                await using NpgsqlCommand command = new(query, connection);
                await using NpgsqlDataReader reader = await command.ExecuteReaderAsync(cancellationToken).ConfigureAwait(false);
                while (await reader.ReadAsync(cancellationToken).ConfigureAwait(false))
                {
                    objects.Add(new SchemaObject
                    {
                        Kind = reader.GetString(0),
                        Identity = reader.GetString(1),
                        Schema = reader.Text(2),
                        Parent = reader.Text(3),
                        Properties = Properties(reader.GetString(4)),
                    });
                }
            }

            return new SchemaSnapshot
            {
                Server = session.Info.Server,
                Port = session.Info.Port,
                Database = session.Info.Database,
                ServerVersion = session.Info.ServerVersion,
                TakenAt = DateTimeOffset.Now,
                Objects = [.. objects.OrderBy(o => o.Kind, StringComparer.Ordinal).ThenBy(o => o.Identity, StringComparer.Ordinal)],
            };
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw ServerErrors.Translate(e, "Reading the schema", session.Info.ToString());
        }
    }

    private static SchemaProperty[] Properties(string json)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        return
        [
            .. document.RootElement.EnumerateObject()
                .Where(property => property.Value.ValueKind != JsonValueKind.Null)
                .Select(property => new SchemaProperty { Name = property.Name, Value = Text(property.Value) })
                .OrderBy(property => property.Name, StringComparer.Ordinal),
        ];
    }

    private static string Text(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.String => value.GetString()!,
        JsonValueKind.Array => string.Join("; ", value.EnumerateArray().Select(Text)),
        _ => value.GetRawText(),
    };
}
