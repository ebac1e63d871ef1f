namespace MigrationSafety.Engine.Sessions;

/// <summary>Finds a service (manual, "The Connection Service File"): the user's file first, then the system's.</summary>
internal static class ServiceFile
{
    internal static Dictionary<string, string> Read(string service, string? servicefile, ConnectionEnvironment environment)
    {
        List<string> looked = [];
        // A file that is named has to be there; the one in the home directory need not.
        if (servicefile is not null && !File.Exists(servicefile))
        {
            throw new MigrationException(
                "ServiceFileNotFound",
                MigrationErrorKind.NotFound,
                $"The service file '{servicefile}' does not exist.",
                "Check servicefile= or PGSERVICEFILE.")
            {
                Target = servicefile,
            };
        }

        string? users = servicefile ?? (environment.Home is { } home ? Path.Combine(home, ".pg_service.conf") : null);
        IEnumerable<string> systems = environment.Variable("PGSYSCONFDIR") is { Length: > 0 } configured ? [configured] : environment.SystemDirectories;
        foreach (string path in systems.Select(d => Path.Combine(d, "pg_service.conf")).Prepend(users!).Where(p => p is not null))
        {
            looked.Add(path);
            if (File.Exists(path) && Find(service, path) is { } values)
            {
                return values;
            }
        }

        throw new MigrationException(
            "ServiceNotFound",
            MigrationErrorKind.NotFound,
            $"There is no service '{service}' in {string.Join(", ", looked)}.",
            $"Add a section [{service}] with host=, dbname= and so on, or name the file that has it by PGSERVICEFILE.")
        {
            Target = service,
        };
    }

    private static Dictionary<string, string>? Find(string service, string path)
    {
        Dictionary<string, string>? values = null;
        int number = 0;
        foreach (string raw in File.ReadLines(path))
        {
            number++;
            string line = raw.Trim();
            if (line.Length == 0 || line[0] == '#')
            {
                continue;
            }

            if (line[0] == '[')
            {
                if (values is not null)
                {
                    break;
                }

                values = line == $"[{service}]" ? new(StringComparer.Ordinal) : null;
                continue;
            }

            if (values is null)
            {
                continue;
            }

            int equals = line.IndexOf('=', StringComparison.Ordinal);
            string key = equals < 0 ? string.Empty : line[..equals];
            if (!ConnectionKeywords.IsLibpq(key) || key is "service" or "servicefile")
            {
                throw new MigrationException(
                    "ServiceFileInvalid",
                    MigrationErrorKind.InvalidInput,
                    equals < 0 ? $"Line {number} of {path} has no '='." : $"'{key}' in line {number} of {path} is no keyword of a service.",
                    "Write one keyword=value a line, without blanks around '='; a service cannot name another service, and LDAP look-ups are not supported.")
                {
                    Target = path,
                };
            }

            // The first one holds, as in libpq.
            values.TryAdd(key, line[(equals + 1)..]);
        }

        return values;
    }
}
