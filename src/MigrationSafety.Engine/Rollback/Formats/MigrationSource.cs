namespace MigrationSafety.Engine.Rollback.Formats;

/// <summary>A line of a file.</summary>
/// <param name="Number">From 1.</param>
/// <param name="Start">Index of its first character.</param>
/// <param name="End">Index after its last character, the line end not counted.</param>
/// <param name="Text">Its text.</param>
internal readonly record struct SourceLine(int Number, int Start, int End, string Text);

/// <summary>A migration's file and what lies beside it.</summary>
internal sealed class MigrationSource
{
    internal MigrationSource(string path, string text)
    {
        Path = path;
        Text = text;
        Name = System.IO.Path.GetFileName(path);
        Folder = System.IO.Path.GetDirectoryName(path) is { Length: > 0 } folder ? folder : null;
        Lines = Cut(text);
    }

    /// <summary>Its path, or a name where it is no file.</summary>
    internal string Path { get; }

    /// <summary>Its name without folder.</summary>
    internal string Name { get; }

    /// <summary>Its folder; null where it is no file.</summary>
    internal string? Folder { get; }

    /// <summary>The name of its folder; empty where it is no file.</summary>
    internal string FolderName => System.IO.Path.GetFileName(Folder) ?? "";

    /// <summary>Its text.</summary>
    internal string Text { get; }

    /// <summary>Its lines.</summary>
    internal IReadOnlyList<SourceLine> Lines { get; }

    /// <summary>Reads a file.</summary>
    /// <exception cref="MigrationException"><c>FileNotFound</c>, <c>FileNotRead</c>.</exception>
    internal static MigrationSource Read(string path)
    {
        try
        {
            return new MigrationSource(path, File.ReadAllText(path));
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new MigrationException("FileNotFound", MigrationErrorKind.NotFound, $"There is no file {path}.", "Check the path; a path with [ or ] in it goes to -LiteralPath.", e) { Target = path };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new MigrationException("FileNotRead", MigrationErrorKind.Resource, $"{path} could not be read: {e.Message}", "Check the file and its permissions.", e) { Target = path };
        }
    }

    /// <summary>The path of a file that is named from this one's folder; null where there is none.</summary>
    internal string? Beside(params string[] names)
    {
        string? path = Folder is null ? null : System.IO.Path.Combine([Folder, .. names]);
        return File.Exists(path) ? System.IO.Path.GetFullPath(path) : null;
    }

    /// <summary>The first of the files beside this one, by name, that a condition takes.</summary>
    internal string? Beside(string pattern, Func<string, bool> takes) => Folder is null || !Directory.Exists(Folder) ? null
        : Directory.EnumerateFiles(Folder, pattern).Where(file => takes(System.IO.Path.GetFileName(file))).Order(StringComparer.Ordinal).FirstOrDefault();

    private static List<SourceLine> Cut(string text)
    {
        List<SourceLine> lines = [];
        for (int start = 0; start < text.Length;)
        {
            int end = text.IndexOf('\n', start);
            int next = end < 0 ? text.Length : end + 1;
            end = end < 0 ? text.Length : end > start && text[end - 1] == '\r' ? end - 1 : end;
            int first = start == 0 && text[0] == '\uFEFF' ? 1 : start;
            lines.Add(new SourceLine(lines.Count + 1, first, end, text[first..end]));
            start = next;
        }

        return lines;
    }
}
