using System.Globalization;
using MigrationSafety.Engine.Rollback.Formats;

namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>
/// goose's files: the migration kept, the down section filled. NO TRANSACTION holds for both directions, so that it is added only where the migration's own
/// part does not need its transaction: where it is one statement at most.
/// </summary>
internal static class GooseLayout
{
    internal static RollbackLayout Of(LayoutRequest request)
    {
        MigrationName name = request.Name.WithDigits();
        List<ForwardSegment> forward = request.IsOwn ? [] : request.Forward;
        bool outside = request.IsOwn && request.File!.Up.Parts is not [{ Mode: RunnerMode.Wrapped }];
        bool free = request.IsOwn ? outside || request.File!.Up.Script.Statements.Count <= 1 : forward.Count <= 1 && (forward is [] or [{ Count: 1 }] or [{ Transactional: false }]);

        // The first version of the migration may be bound to a transaction; those that are added for the way back are not.
        List<List<RollbackSegment>> shared = request.ByVersion(forward.Count, together => free || together.All(s => s.Transactional));
        if (!free && shared[0].Exists(s => !s.Transactional) && (request.IsOwn || forward is [{ Transactional: true }, ..]))
        {
            shared.Insert(0, []);
        }

        List<OutputFile> files = [];
        for (int i = 0; i < shared.Count; i++)
        {
            bool wrapped = shared[i].All(s => s.Transactional) && !(i == 0 && outside) && !(i < forward.Count && !forward[i].Transactional);
            string up = i == 0 && request.IsOwn ? Kept(request.File!, !wrapped)
                : (wrapped ? "" : "-- +goose NO TRANSACTION\n") + "-- +goose Up\n" + (i < forward.Count ? Statements(forward[i]) : request.Told(files.Count == 0 ? "" : files[0].Name)) + "\n";
            string down = "-- +goose Down\n" + (i == shared.Count - 1 ? request.Head : "") + string.Concat(shared[i].Select(s => Down(s, wrapped)));
            files.Add(new OutputFile(i == 0 && request.IsOwn ? request.File!.Name : FileName(i == 0 ? name : request.Later(name, i)), up + down));
        }

        return new RollbackLayout(files, [.. request.WhySeveral(files)]);
    }

    private static string FileName(MigrationName name) => $"{name.Version}_{name.Title}.sql";

    private static string Down(RollbackSegment segment, bool wrapped)
    {
        // Without transaction goose may send each statement on another connection: the time-out goes with it, in one message.
        string before = !wrapped && segment.Transactional ? RollbackBody.Timeout + "\n" : "";
        string first = wrapped && segment.Runs ? RollbackBody.Timeout + "\n" : "";
        string alone = !segment.Transactional && segment.Runs ? RollbackBody.Unbounded : "";
        return first + alone + RollbackBody.Each(segment, (text, sql) => text.Append(CultureInfo.InvariantCulture, $"-- +goose StatementBegin\n{before}{sql};\n-- +goose StatementEnd\n"));
    }

    private static string Statements(ForwardSegment segment) => segment.Text.Contains('$', StringComparison.Ordinal) || segment.Count == 1 ? $"-- +goose StatementBegin\n{segment.Text}-- +goose StatementEnd\n" : segment.Text;

    /// <summary>The file up to its down section.</summary>
    private static string Kept(MigrationFile file, bool outside)
    {
        SourceLine? down = file.Source.Lines.Where(line => GooseTool.Annotation(line.Text) == "DOWN").Select(line => (SourceLine?)line).FirstOrDefault();
        string kept = file.Source.Text[..(down?.Start ?? file.Source.Text.Length)].TrimStart('\uFEFF').TrimEnd() + "\n\n";
        return outside && !kept.Split('\n').Any(line => GooseTool.Annotation(line.TrimEnd()) == "NO TRANSACTION") ? "-- +goose NO TRANSACTION\n" + kept : kept;
    }
}
