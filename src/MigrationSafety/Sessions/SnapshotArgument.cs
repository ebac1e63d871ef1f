namespace MigrationSafety;

/// <summary>A side of a comparison: a <see cref="SchemaSnapshot"/>, the file of one, or a database by its session or connection text.</summary>
public sealed class SnapshotArgument
{
    /// <summary>From a snapshot.</summary>
    /// <param name="snapshot">Snapshot.</param>
    public SnapshotArgument(SchemaSnapshot snapshot)
    {
        ArgumentNullException.ThrowIfNull(snapshot);
        Snapshot = snapshot;
    }

    /// <summary>From a session: the schema that its database has when the cmdlet runs.</summary>
    /// <param name="session">An open session.</param>
    public SnapshotArgument(MigrationSession session) => Session = new SessionArgument(session);

    /// <summary>From a text.</summary>
    /// <param name="text">Path of a file that Get-SchemaSnapshot has written, or a connection text: key=value string, <c>postgresql://</c> URI, <c>service=NAME</c>.</param>
    public SnapshotArgument(string text)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(text);
        if (text.Contains("://", StringComparison.Ordinal) || (text.Contains('=', StringComparison.Ordinal) && !text.EndsWith(".json", StringComparison.OrdinalIgnoreCase)))
        {
            Session = new SessionArgument(text);
        }
        else
        {
            Path = text;
        }
    }

    /// <summary>From a file, such as Get-ChildItem gives.</summary>
    /// <param name="file">File that Get-SchemaSnapshot has written.</param>
    public SnapshotArgument(FileInfo file)
    {
        ArgumentNullException.ThrowIfNull(file);
        Path = file.FullName;
    }

    /// <summary>The snapshot, or null where something else was given.</summary>
    public SchemaSnapshot? Snapshot { get; }

    /// <summary>The file, or null where something else was given.</summary>
    public string? Path { get; }

    /// <summary>The database, or null where something else was given.</summary>
    public SessionArgument? Session { get; }

    /// <inheritdoc />
    public override string ToString() => Path ?? Session?.ToString() ?? Snapshot!.ToString();
}
