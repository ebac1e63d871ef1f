namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>golang-migrate's files: 1_name.down.sql, with the way up beside it where the migration is another tool's. A statement that can be in no transaction has a file of its own.</summary>
internal static class GolangMigrateLayout
{
    internal static RollbackLayout Of(LayoutRequest request)
    {
        MigrationName name = request.Name.WithDigits();
        List<ForwardSegment> forward = request.IsOwn ? [] : request.Forward;
        List<List<RollbackSegment>> shared = request.ByVersion(forward.Count, _ => false);
        List<OutputFile> files = [];
        List<OutputFile> ups = [];
        for (int i = 0; i < shared.Count; i++)
        {
            MigrationName version = i == 0 ? name : request.Later(name, i);
            if (i > 0 || !request.IsOwn)
            {
                string up = i >= forward.Count ? request.Told(request.IsOwn ? request.File!.Name : FileName(name, "up")) : forward[i].Transactional && forward[i].Count > 1 ? $"BEGIN;\n{forward[i].Text}COMMIT;\n" : forward[i].Text;
                ups.Add(new OutputFile(FileName(version, "up"), up));
            }

            RollbackSegment? segment = shared[i].SingleOrDefault();
            string head = i == shared.Count - 1 ? request.Head : "";
            string down = segment is null ? head
                : !segment.Runs ? head + RollbackBody.InTransaction(segment)
                : segment.Transactional ? $"{head}BEGIN;\n{RollbackBody.InTransaction(segment)}COMMIT;\n"
                : head + RollbackBody.Alone(segment);
            string own = request.IsOwn && i == 0 ? Path.GetFileNameWithoutExtension(request.File!.Name)[..^3] + ".down" + Path.GetExtension(request.File.Name) : FileName(version, "down");
            files.Add(new OutputFile(own, down));
        }

        return new RollbackLayout([.. files, .. ups], [.. request.WhySeveral(files)]);
    }

    private static string FileName(MigrationName name, string way) => $"{name.Version}_{name.Title}.{way}.sql";
}
