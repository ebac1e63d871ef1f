using MigrationSafety.Engine.Rollback.Formats;

namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>Flyway's files: U1__name.sql, with a script configuration where it needs one, and V1__name.sql beside it where the migration is another tool's.</summary>
internal static class FlywayLayout
{
    internal static RollbackLayout Of(LayoutRequest request)
    {
        if (request.File is { } file && FlywayTool.NameOf(file.Name).Groups["prefix"].Value == "R")
        {
            throw new MigrationException(
                "FormatCannotHold",
                MigrationErrorKind.NotSupported,
                $"{file.Name} is a repeatable migration; Flyway has no undo for those.",
                "Put the former version of the file back, or write the rollback as -Format Plain.")
            {
                Target = file.Path,
            };
        }

        string name = request.IsOwn ? request.File!.Name[1..] : $"{request.Name.Version}__{(request.Name.Title.Length == 0 ? "migration" : request.Name.Title.Replace('/', '_'))}.sql";
        bool transactional = request.Segments.All(s => s.Transactional);
        string body = request.Head + (transactional ? string.Concat(request.Segments.Select(RollbackBody.InTransaction)) : RollbackBody.OneByOne(request.Segments));
        List<OutputFile> files = [new OutputFile("U" + name, body)];
        Configure(files, transactional, body);
        if (!request.IsOwn)
        {
            List<ForwardSegment> forward = request.Forward;
            string up = forward.Count == 0 ? request.Told("") : string.Concat(forward.Select(s => s.Text));
            files.Add(new OutputFile("V" + name, up));
            Configure(files, forward.TrueForAll(s => s.Transactional), up);
        }

        return new RollbackLayout(files, transactional ? [] :
        [
            $"U{name}: Flyway keeps its lock in an open transaction, for which CONCURRENTLY waits without end: set flyway.postgresql.transactional.lock=false.",
        ]);
    }

    private static void Configure(List<OutputFile> files, bool transactional, string text)
    {
        string settings = (transactional ? "" : "executeInTransaction=false\n") + (text.Contains("${", StringComparison.Ordinal) ? "placeholderReplacement=false\n" : "");
        if (settings.Length > 0)
        {
            files.Add(new OutputFile(files[^1].Name + ".conf", settings));
        }
    }
}
