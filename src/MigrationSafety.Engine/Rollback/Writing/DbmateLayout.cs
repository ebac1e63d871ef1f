using MigrationSafety.Engine.Rollback.Formats;

namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>dbmate's files: the migration kept, the down section filled. A section out of the transaction holds one statement, and a file has one section (a second one fails at the version's row).</summary>
internal static class DbmateLayout
{
    internal static RollbackLayout Of(LayoutRequest request)
    {
        MigrationName name = request.Name.WithDigits();
        List<ForwardSegment> forward = request.IsOwn ? [] : request.Forward;
        List<List<RollbackSegment>> shared = request.ByVersion(forward.Count, _ => false);
        List<OutputFile> files = [];
        for (int i = 0; i < shared.Count; i++)
        {
            string up = i == 0 && request.IsOwn ? Kept(request.File!)
                : "-- migrate:up" + (i < forward.Count ? (forward[i].Transactional ? "\n" : " transaction:false\n") + forward[i].Text : "\n" + request.Told(files.Count == 0 ? "" : files[0].Name)) + "\n";
            RollbackSegment? segment = shared[i].SingleOrDefault();
            string down = segment is null ? "-- migrate:down\n"
                : (segment.Transactional ? "-- migrate:down\n" : "-- migrate:down transaction:false\n") + (i == shared.Count - 1 ? request.Head : "")
                    + (segment.Transactional ? RollbackBody.InTransaction(segment) : RollbackBody.Alone(segment));
            string file = i == 0 && request.IsOwn ? request.File!.Name : FileName(i == 0 ? name : request.Later(name, i));
            files.Add(new OutputFile(file, up + down));
        }

        return new RollbackLayout(files, [.. request.WhySeveral(files)]);
    }

    private static string FileName(MigrationName name) => $"{name.Version}_{name.Title}.sql";

    /// <summary>The file up to its down section.</summary>
    private static string Kept(MigrationFile file)
    {
        if (file.Up.Parts.Count > 1)
        {
            throw new MigrationException(
                "FormatCannotHold",
                MigrationErrorKind.NotSupported,
                $"{file.Name} has several up sections. dbmate writes the version's row for each, and fails at the second.",
                "Make each section a migration of its own, then make their rollbacks.")
            {
                Target = file.Path,
            };
        }

        string kept = file.Source.Text[..file.Up.Parts[0].End].TrimEnd();
        return kept + "\n\n";
    }
}
