using System.Globalization;
using System.Text;

namespace MigrationSafety.Engine.Sessions;

/// <summary>
/// Looks a password up (manual, "The Password File"). Npgsql reads that file too, but takes one that everybody may read, and fails on a line that is not well formed.
/// </summary>
internal static class PasswordFile
{
    /// <summary>The default file, or null.</summary>
    internal static string? DefaultPath(ConnectionEnvironment environment) =>
        environment.Home is { } home ? Path.Combine(home, OperatingSystem.IsWindows() ? "pgpass.conf" : ".pgpass") : null;

    /// <summary>The password of the first line that fits; null where none does or there is no file.</summary>
    internal static string? Find(string path, string host, int port, string database, string user, Action<string> warn)
    {
        if (!File.Exists(path))
        {
            return null;
        }

        if (!OperatingSystem.IsWindows())
        {
            const UnixFileMode Others = UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.GroupExecute
                | UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.OtherExecute;
            if ((File.GetUnixFileMode(path) & Others) != 0)
            {
                warn($"The password file {path} is not used, because group or others may access it. Run: chmod 0600 {path}");
                return null;
            }
        }

        string[] wanted = [host, port.ToString(CultureInfo.InvariantCulture), database, user];
        IEnumerable<string> lines;
        try
        {
            lines = File.ReadAllLines(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            warn($"The password file {path} cannot be read: {e.Message}");
            return null;
        }

        foreach (string line in lines)
        {
            if (line.Length > 0 && line[0] != '#' && Match(line, wanted) is { } password)
            {
                return password;
            }
        }

        return null;
    }

    /// <summary>The fifth field, if the first four fit. A backslash takes the next character as it is; the password ends at the next colon or the line's end.</summary>
    private static string? Match(string line, string[] wanted)
    {
        int i = 0;
        foreach (string value in wanted)
        {
            (string field, bool isWildcard) = Next(line, ref i);
            // Every one of the four has to end with a colon, or the line is of another kind.
            if (i > line.Length || line[i - 1] != ':' || !(isWildcard || field == value))
            {
                return null;
            }
        }

        return Next(line, ref i).Field;
    }

    private static (string Field, bool IsWildcard) Next(string line, ref int i)
    {
        int start = i;
        StringBuilder field = new();
        while (i < line.Length && line[i] != ':')
        {
            if (line[i] == '\\' && i + 1 < line.Length)
            {
                i++;
            }

            field.Append(line[i++]);
        }

        bool isWildcard = i - start == 1 && line[start] == '*';
        i++;
        return (field.ToString(), isWildcard);
    }
}
